"""Files that are there as a whole or not at all, also after a crash of the machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "atomic_path", "create_once", "write_text_atomic"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the body ends.

    A reader sees the old file or the new one, never a part of it. The file is flushed to the disk
    before it is renamed and the directory after it, so that a crash of the machine leaves one of
    the two as well. The directory is made if it is missing; if the body raises, the old file stays
    and nothing is left behind. If `path` is a link, the file that it points to is written.

    Raises:
        OSError: The file cannot be written.
    """
    if path.is_symlink():  # a rename would replace the link, and its target would stay as it was
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.tmp")  # beside it: a rename stays on one disk
    try:
        yield part
        # without this, a file system may write the new name before the content
        _flush_to_disk(part)
        os.replace(part, path)
        # a directory cannot be opened on every platform; the file is whole without it, too
        with suppress(OSError):
            _flush_to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def create_once(path: Path, build: Callable[[Path], None]) -> None:
    """Create a file that several processes may create at once; an existing one is left as it is.

    Nobody sees a file that is only begun, even if this process is killed.

    Args:
        path: The file; its directory is made if it is missing.
        build: Writes the file at the temporary path that it is given.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        build(part)
        _flush_to_disk(part)
        try:
            os.link(part, path)
        except FileExistsError:
            return  # another process was first
        except OSError:  # a file system without hard links
            if not path.exists():
                os.rename(part, path)
        with suppress(OSError):
            _flush_to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write in binary; see `atomic_path`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(Path(folder, "new", "scores.bin")) as stream:
        ...         _ = stream.write(b"123")
        ...     Path(folder, "new", "scores.bin").read_bytes()
        b'123'
    """
    with atomic_path(path) as part, part.open("xb") as stream:
        yield stream


def write_text_atomic(path: Path, text: str) -> None:
    r"""Write a UTF-8 file; see `atomic_path`.

    A lone surrogate, which UTF-8 does not have, is written as `\udc80`: it comes from the name of
    a file that is not UTF-8, and JSON writes it like that, too.
    """
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8", errors="backslashreplace"))
