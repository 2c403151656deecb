"""Files of the cache that say whether they are whole: a CRC-32 at their end.

The checksum also covers the name of the file, which in the cache is a hash of everything that the
content depends on: a file of another run under this name is noticed, too.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO

from synque_select.utils.atomic import atomic_path
from synque_select.utils.cache_files import note_use
from synque_select.utils.file_state import FileState, file_state
from synque_select.utils.remote_cache import fetch, publish

__all__ = [
    "DamagedFileError",
    "check_file",
    "checked_text",
    "checksummed_file",
    "checksummed_path",
    "read_checked",
    "remove_damaged",
    "set_aside",
    "text_with_checksum",
]

_log = logging.getLogger(__name__)

_LAST_LINE = b"\nsynque-select crc32 %08x\n"
_LENGTH = len(_LAST_LINE % 0)
_PATTERN = re.compile(rb"\nsynque-select crc32 ([0-9a-f]{8})\n")
_ROW = "crc32:%08x "
_ROW_PATTERN = re.compile(r"crc32:([0-9a-f]{8}) (.*)", re.DOTALL)
_BLOCK = 1 << 20


class DamagedFileError(ValueError):
    """A file or a row of a database is not what was once written."""


@contextmanager
def checksummed_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it gets a checksum and is renamed to `path`.

    See `atomic_path`. Readers of the content must allow more bytes after its end, as those of Arrow
    streams do, or use `read_checked`.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_path(path) as part:
        yield part
        with part.open("rb+") as stream:
            crc = _crc(stream, path.name, None)
            stream.seek(0, os.SEEK_END)
            stream.write(_LAST_LINE % crc)
    publish(path)


@contextmanager
def checksummed_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write in binary; see `checksummed_path`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "scores.bin")
        ...     with checksummed_file(path) as stream:
        ...         _ = stream.write(b"123")
        ...     read_checked(path)
        b'123'
    """
    with checksummed_path(path) as part, part.open("xb") as stream:
        yield stream


def read_checked(path: Path) -> bytes:
    """Return the content of a file that `checksummed_file` wrote.

    Raises:
        DamagedFileError: The file is cut, changed, of another name, or cannot be read.
        FileNotFoundError, NotADirectoryError: The file does not exist.
    """
    _prepare(path)
    with _readable(path):
        content = path.read_bytes()
    body, last = content[:-_LENGTH], content[-_LENGTH:]
    _compare(zlib.crc32(body, zlib.crc32(os.fsencode(path.name))), last)
    return body


def check_file(path: Path) -> None:
    """Check a file that is too large to read at once, such as one that is mapped into memory.

    A file is read once per process, as long as it does not change.

    Raises:
        DamagedFileError: The file is cut, changed, of another name, or cannot be read.
        FileNotFoundError, NotADirectoryError: The file does not exist.
    """
    _prepare(path)
    with _readable(path):
        _check(path, file_state(path))


def _prepare(path: Path) -> None:
    """Fetch a file from the store behind the cache, if it is missing, and note its use."""
    fetch(path, lambda part: _check(part, file_state(part)))
    note_use(path)


@lru_cache(maxsize=4096)
def _check(path: Path, _state: FileState) -> None:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        body = max(0, size - _LENGTH)
        crc = _crc(stream, path.name, body)
        stream.seek(body)
        _compare(crc, stream.read(_LENGTH))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DamagedFileError(error.strerror or str(error)) from error


def _crc(stream: IO[bytes], name: str, size: int | None) -> int:
    stream.seek(0)
    crc = zlib.crc32(os.fsencode(name))
    left = os.fstat(stream.fileno()).st_size if size is None else size
    while left and (data := stream.read(min(left, _BLOCK))):
        crc, left = zlib.crc32(data, crc), left - len(data)
    return crc


def _compare(crc: int, last: bytes) -> None:
    match = _PATTERN.fullmatch(last)
    if match is None:
        raise DamagedFileError("its end is missing")
    if int(match[1], 16) != crc:
        raise DamagedFileError("its checksum does not match")


def remove_damaged(path: Path, reason: object, what_now: str = "it is made again") -> None:
    """Warn about a damaged file of the cache, and remove it.

    Args:
        path: The file; something that is not a file is renamed.
        reason: What is wrong with it.
        what_now: What happens without it.
    """
    _log.warning("%s is damaged (%s): %s", path, reason, what_now)
    with suppress(OSError):  # a cache that cannot be written
        if path.is_dir():
            set_aside(path)
        else:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file that cannot be made again, and return its new path.

    Raises:
        OSError: It cannot be renamed.
    """
    target = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    path.rename(target)
    return target


def text_with_checksum(key: str, text: str) -> str:
    """Return a value of a database with a checksum of its key and its text before it.

    Args:
        key: The key of the row: an answer under the key of another one is noticed.
        text: The value, which is JSON.

    Example:
        >>> text_with_checksum("k", "[1]")
        'crc32:9bae5aeb [1]'
    """
    return _ROW % zlib.crc32(f"{key}\0{text}".encode()) + text


def checked_text(key: str, stored: object) -> str:
    """Return the text in a value of a database; one without a checksum, of old versions, as it is.

    Args:
        key: The key of the row.
        stored: The value as the database has it: text, or the bytes of a text.

    Raises:
        DamagedFileError: It is not what was once written.

    Example:
        >>> checked_text("k", "crc32:9bae5aeb [1]"), checked_text("k", "[2]")
        ('[1]', '[2]')
    """
    try:
        text = stored.decode() if isinstance(stored, bytes) else stored
    except UnicodeDecodeError as error:
        raise DamagedFileError("it is not UTF-8") from error
    if not isinstance(text, str):
        raise DamagedFileError(f"it is of type {type(stored).__name__}")
    match = _ROW_PATTERN.fullmatch(text)
    if match is None:
        return text
    if int(match[1], 16) != zlib.crc32(f"{key}\0{match[2]}".encode()):
        raise DamagedFileError("its checksum does not match")
    return match[2]
