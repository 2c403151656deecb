"""Compressed files, which are unpacked as they are read: .gz, .bz2, .xz, .zst and .zip."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol, cast

from synque_select.errors import DataError
from synque_select.utils.text_files import valid_name
from synque_select.utils.wording import counted, listed

__all__ = ["inner_name", "is_compressed", "left_out_of_zip", "open_data"]

_SUFFIXES = (".bz2", ".gz", ".xz", ".zip", ".zst")
# a file of zeros shrinks by a factor of 1,000 with gzip; text by 3 to 20
_MAX_FACTOR = 1000
_ALWAYS_ALLOWED = 1 << 24
_PART_BYTES = 1 << 17
_BROKEN = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed, by its suffix.

    Example:
        >>> is_compressed(Path("a.jsonl.GZ")), is_compressed(Path("a.jsonl"))
        (True, False)
    """
    return path.suffix.lower() in _SUFFIXES


def inner_name(path: Path) -> str:
    """Return the name of the file in a compressed file; "" if that is not one file.

    Args:
        path: Path of the compressed file; only a .zip is opened.

    Example:
        >>> inner_name(Path("data/a.jsonl.gz"))
        'a.jsonl'
    """
    if path.suffix.lower() != ".zip":
        return path.stem
    try:
        (member,) = _members(path)
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""
    return member.filename.rpartition("/")[2]


def open_data(path: Path) -> IO[bytes]:
    """Open a file for reading; of a compressed one, the content is read.

    Args:
        path: An existing file.

    Raises:
        DataError: It is a .zip that holds no or several files. Also raised while reading: the
            compressed file is broken, encrypted, or expands by a factor of more than 1,000.
    """
    if not is_compressed(path):
        return path.open("rb")
    try:
        stream = _opened(path)
    except (DataError, PermissionError):
        raise
    except (*_BROKEN, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: the compressed file cannot be read: {error}") from error
    raw = cast("io.RawIOBase", _Unpacked(path, stream))
    return io.BufferedReader(raw, buffer_size=_PART_BYTES)


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def _opened(path: Path) -> _Stream:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix in _DECOMPRESSORS:
        return _Streams(path.open("rb"), _DECOMPRESSORS[suffix])
    if suffix == ".zst":
        import pyarrow as pa

        unpacked: _Stream = pa.CompressedInputStream(pa.PythonFile(path.open("rb"), "r"), "zstd")
        return unpacked
    members = _members(path)
    if len(members) != 1:
        names = listed([valid_name(member.filename) for member in members])
        raise DataError(
            f"{path}: the .zip holds {counted(len(members), 'file')} ({names}); allowed is one: "
            "unpack it"
        )
    return zipfile.ZipFile(path).open(members[0])


def left_out_of_zip(path: Path) -> list[str]:
    """Return the names of the files in a .zip that are not read: hidden ones and those of macOS.

    Args:
        path: A .zip that was read.
    """
    with zipfile.ZipFile(path) as archive:
        return [valid_name(member.filename) for member in _files(archive) if not _is_data(member)]


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """Return the files of a .zip, without hidden ones and what macOS adds."""
    with zipfile.ZipFile(path) as archive:
        return list(filter(_is_data, _files(archive)))


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in archive.infolist() if not member.is_dir()]


def _is_data(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.split("/")
    return parts[0] != "__MACOSX" and not any(part.startswith(".") for part in parts)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}


class _Streams:
    """The compressed streams of a file one after another, as pbzip2 and `cat` write them.

    Python's own readers take a damaged stream after the first for the end of the file: its rows,
    and all rows after it, would be missing. Zeros between and after streams are padding.
    """

    def __init__(self, file: IO[bytes], new: Callable[[], _Decompressor]) -> None:
        self._file = file
        self._new = new
        self._stream = new()

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._stream.eof:
                data = self._next_stream(self._stream.unused_data)
                if not data:
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input:
                data = self._file.read(_PART_BYTES)
                if not data:
                    raise EOFError("the file ends before the end of its last stream")
            part = self._stream.decompress(data, size)
            if part:
                return part

    def _next_stream(self, data: bytes) -> bytes:
        """Return the beginning of the next stream; b"" at the end of the file."""
        while not (rest := data.lstrip(b"\0")):
            data = self._file.read(_PART_BYTES)
            if not data:
                return b""
        return rest

    def close(self) -> None:
        self._file.close()


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, with errors that name the file."""

    def __init__(self, path: Path, stream: _Stream) -> None:
        self._path = path
        self._stream = stream
        self._left = max(_ALWAYS_ALLOWED, _MAX_FACTOR * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            part = self._stream.read(len(buffer))
        except (*_BROKEN, RuntimeError) as error:
            raise DataError(f"{self._path}: the compressed file is broken: {error}") from error
        self._left -= len(part)
        if self._left < 0:
            raise DataError(
                f"{self._path}: the file expands to more than {_MAX_FACTOR:,} times its size; "
                "unpack it yourself if you trust it"
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()
