"""UTF-8 text from files, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from synque_select.errors import DataError, SynqueError

__all__ = ["check_regular", "decode_utf8", "kind_of_path", "read_text", "utf16_hint", "valid_name"]


def check_regular(path: str | Path, *, error: type[SynqueError] = DataError) -> None:
    """Refuse pipes, sockets and devices, which may have no end and cannot be read twice.

    Args:
        path: A file or folder, which may be missing.
        error: What to raise.

    Raises:
        SynqueError: In the given type: the path is something else.
    """
    kind = kind_of_path(Path(path))
    if kind not in (None, "a directory"):
        raise error(f"{path}: not a file with data, but {kind}; save the data to a file")


def kind_of_path(path: Path) -> str | None:
    """Say in words what is at a path; None for a file, and for a path where nothing is.

    Example:
        >>> kind_of_path(Path("/")), kind_of_path(Path("/dev/null"))
        ('a directory', 'a device')
    """
    try:  # once: a file that another process removes meanwhile must not change what it is
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    kinds = {stat.S_IFREG: None, stat.S_IFDIR: "a directory"}
    kinds |= {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_text(path: str | Path, *, error: type[SynqueError] = DataError) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Args:
        path: The file.
        error: What to raise.

    Raises:
        SynqueError: In the given type: the file cannot be read, or is not UTF-8.
    """
    check_regular(path, error=error)
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}") from problem
    return decode_utf8(content, str(path), error=error)


def decode_utf8(content: bytes, where: str, *, error: type[SynqueError] = DataError) -> str:
    r"""Decode UTF-8, with or without a byte order mark.

    Args:
        content: The bytes.
        where: What they are, for the message: the path of a file.
        error: What to raise.

    Raises:
        SynqueError: In the given type: the content is not UTF-8.

    Example:
        >>> decode_utf8(b"\xef\xbb\xbfa", "names.txt")
        'a'
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        byte = problem.object[problem.start]
        raise error(
            f"{where}, line {line}: not UTF-8 (byte 0x{byte:02x}){utf16_hint(content)}: "
            "save it as UTF-8"
        ) from problem


def utf16_hint(head: bytes) -> str:
    """Return " (is the file UTF-16?)" if the first bytes of a file look like it, else ""."""
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return " (is the file UTF-16?)" if utf16 or b"\0" in head[:64] else ""


def valid_name(name: str) -> str:
    r"""Return a file name as valid Unicode, which any file and terminal takes.

    Args:
        name: A name as Python returns it; bytes that are not UTF-8 are in it as surrogates.

    Example:
        >>> valid_name("caf\udce9")  # the bytes of "café" in Latin-1
        'caf\\xe9'
    """
    try:
        content = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which no file name has
        content = name.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")
