"""The files of the embedding cache, and an index to find rows in them.

A shard is a safetensors file that is never modified: `embeddings` (n, d) float32 and `digests`
(n, 32) uint8, one per row, a CRC-32 of each of the two, and the name of the folder, which belongs
to one encoder. It is written under a temporary name and then renamed, so that no process sees an
incomplete file, even after a `kill -9`.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from synque_select.utils.atomic import atomic_file
from synque_select.utils.checksums import remove_damaged
from synque_select.utils.wording import counted

__all__ = [
    "SUFFIX",
    "Layout",
    "Shard",
    "ShardError",
    "ShardIndex",
    "is_among",
    "open_shard",
    "parse_header",
    "sorted_keys",
    "write_shard",
]

SUFFIX = ".safetensors"
_FORMAT = "synque-embeddings-1"
_ALIGN = 64  # bytes; rows start at a multiple, so that mapped arrays are aligned
# a folder with more files than this is listed once per second at most
_MANY_FILES = 256
_LISTING_S = 1.0


class ShardError(ValueError):
    """A cache file is truncated, damaged or of another format; callers ignore the file."""


@dataclass(frozen=True, eq=False)
class Shard:
    """An open shard.

    Args:
        path: The file.
        rows: (n, d) float32, memory-mapped; writing to it does not change the file.
        digests: (n, 32) uint8, digest of the view of each row.
        memory: The mapping that backs `rows`.
    """

    path: Path
    rows: NDArray[np.float32]
    digests: NDArray[np.uint8]
    memory: mmap.mmap

    def release(self) -> None:
        """Return pages to the operating system; they are read again when needed."""
        self.memory.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Layout:
    """Offsets and checksums in the file of a shard.

    Args:
        start: First byte of the rows.
        n: Number of rows.
        dim: Length of a row.
        rows_crc: CRC-32 of the rows.
        digests_crc: CRC-32 of the digests.
    """

    start: int
    n: int
    dim: int
    rows_crc: int
    digests_crc: int

    @property
    def digests_start(self) -> int:
        """First byte of the digests."""
        return self.start + 4 * self.n * self.dim

    @property
    def stop(self) -> int:
        """Size of the file."""
        return self.digests_start + 32 * self.n


def write_shard(
    path: Path, digests: NDArray[np.uint8], blocks: Iterable[NDArray[np.float32]], dim: int
) -> None:
    """Write a shard block by block and atomically.

    Args:
        path: Path of the file; an existing file is replaced.
        digests: (n, 32) uint8.
        blocks: Arrays (k, dim) of float32 whose lengths sum to n.
        dim: Length of a row.
    """
    with atomic_file(path) as file:
        n = len(digests)
        folder = path.parent.name
        file.write(_header(n, dim, 0, 0, folder))
        rows_crc = 0
        for block in blocks:
            data = np.ascontiguousarray(block, dtype="<f4").data
            rows_crc = zlib.crc32(data, rows_crc)
            file.write(data)
        stored = np.ascontiguousarray(digests).data
        file.write(stored)
        file.seek(0)
        file.write(_header(n, dim, rows_crc, zlib.crc32(stored), folder))


def _header(n: int, dim: int, rows_crc: int, digests_crc: int, folder: str) -> bytes:
    stop = 4 * n * dim
    meta = {
        "format": _FORMAT,
        "rows_crc32": f"{rows_crc:08x}",
        "digests_crc32": f"{digests_crc:08x}",
        "folder": folder,
    }
    fields = {
        "__metadata__": meta,
        "embeddings": {"dtype": "F32", "shape": [n, dim], "data_offsets": [0, stop]},
        "digests": {"dtype": "U8", "shape": [n, 32], "data_offsets": [stop, stop + 32 * n]},
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


def _read_layout(file: IO[bytes], folder: str) -> Layout:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length < min(size, 1 << 16):
        raise ShardError("no header")
    layout = parse_header(file.read(length), folder)
    if layout.stop != size:
        raise ShardError(f"{counted(size, 'byte')}, expected {layout.stop}")
    return layout


def parse_header(text: bytes, folder: str) -> Layout:
    """Return the layout in a header, without the eight bytes of its length.

    Args:
        text: The header.
        folder: Name of the folder of the file.

    Raises:
        ShardError: It is not a header of this format and this folder.
    """
    length = len(text)
    try:
        fields: dict[str, Any] = json.loads(text)
        meta = fields["__metadata__"]
        n, dim = fields["embeddings"]["shape"]
        layout = Layout(
            start=8 + length,
            n=n,
            dim=dim,
            rows_crc=int(meta["rows_crc32"], 16),
            digests_crc=int(meta["digests_crc32"], 16),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"not a header of an embedding shard: {error}") from None
    if meta.get("format") != _FORMAT:
        raise ShardError(f"its format is not {_FORMAT}")
    # files of older versions do not name it: their place alone says whose they are
    if meta.get("folder", folder) != folder:
        raise ShardError("it is of another encoder")
    return layout


def _read_digests(file: IO[bytes], layout: Layout) -> NDArray[np.uint8]:
    file.seek(layout.digests_start)
    data = file.read(32 * layout.n)
    if zlib.crc32(data) != layout.digests_crc:
        raise ShardError("the digests are damaged")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 32)


def open_shard(path: Path) -> Shard:
    """Open a shard and verify its checksums.

    Raises:
        ShardError: The file is truncated or damaged.
        FileNotFoundError: The file does not exist.
    """
    with _opened(path) as file:
        layout = _read_layout(file, path.parent.name)
        digests = _read_digests(file, layout)
        if _rows_crc(file, layout) != layout.rows_crc:
            raise ShardError("the embeddings are damaged")
        # copy on write: torch needs writable memory, but the file must not change
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    count = layout.n * layout.dim
    rows = np.frombuffer(memory, dtype="<f4", count=count, offset=layout.start)
    return Shard(path, rows.reshape(layout.n, layout.dim), digests, memory)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except (IsADirectoryError, PermissionError) as error:
        raise ShardError(error.strerror) from error
    with file:
        yield file


def _rows_crc(file: IO[bytes], layout: Layout) -> int:
    # read instead of mapped, because mapped pages count as memory of this process
    file.seek(layout.start)
    crc, left = 0, layout.digests_start - layout.start
    while left:
        data = file.read(min(left, 1 << 22))
        crc, left = zlib.crc32(data, crc), left - len(data)
    return crc


@dataclass(frozen=True, eq=False)
class _Run:
    """Sorted keys, the first 8 bytes of digests, with the shard and row of each."""

    keys: NDArray[np.uint64]
    shard: NDArray[np.int32]
    row: NDArray[np.int64]

    @classmethod
    def of(cls, digests: NDArray[np.uint8], number: int) -> _Run:
        keys = _keys(digests)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], np.full(len(keys), number, np.int32), order)

    def merged(self, other: _Run, dead: NDArray[np.bool_]) -> _Run:
        keys = np.concatenate([self.keys, other.keys])
        shard = np.concatenate([self.shard, other.shard])
        order = np.argsort(keys, kind="stable")
        order = order[~dead[shard[order]]]
        return _Run(keys[order], shard[order], np.concatenate([self.row, other.row])[order])


def sorted_keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the sorted keys of digests, for `is_among`."""
    return np.sort(_keys(digests))


def is_among(keys: NDArray[np.uint64], digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the key of each digest is among the sorted keys, of which there must be one."""
    wanted = _keys(digests)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    matches: NDArray[np.bool_] = keys[at] == wanted
    return matches


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    first = np.ascontiguousarray(digests[:, :8])
    return first.view(np.uint64).reshape(-1)


class ShardIndex:
    """Finds rows by digest in all shards of some folders, which other processes may change.

    Runs of sorted keys are merged if they are of similar length, so that adding m shards of n rows
    costs O(mn log(mn)) in total and a lookup searches O(log m) runs.

    Files of other processes are found by listing the folders. Were a folder listed for each of the
    K candidates whose files it holds, that would be K² names, so that above 256 files the last
    listing counts for a second. What this process writes it adds itself.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._unusable: set[Path] = set()  # damaged files that could not be removed
        self._lock = threading.Lock()
        self._paths: list[Path] = []
        self._numbers: dict[str, int] = {}  # file name to number of the shard
        self._dims: dict[str, int] = {}  # file name to length of its rows
        self._dead = np.zeros(0, dtype=np.bool_)
        self._runs: list[_Run] = []
        self._listed_at = -_LISTING_S  # by the clock of `_now`

    def refresh(self, *, at_once: bool = False) -> None:
        """Add new files and drop deleted ones.

        Args:
            at_once: Whether to list a folder of many files although it was just listed.
        """
        with self._lock:
            is_new = len(self._numbers) > _MANY_FILES and _now() < self._listed_at + _LISTING_S
            if is_new and not at_once:
                return
            self._listed_at = _now()
            places = {name: folder for folder in self._folders for name in _listed(folder)}
            for path in self._unusable:
                if places.get(path.name) == path.parent:
                    del places[path.name]
            for name in self._numbers.keys() - places.keys():
                self._drop(name)
            for name in sorted(places.keys() - self._numbers.keys()):
                self._add(places[name] / name)

    def add(self, path: Path) -> None:
        """Add a file that this process has written."""
        with self._lock:
            if path.name not in self._numbers:
                self._add(path)

    def _add(self, path: Path) -> None:
        try:
            with _opened(path) as file:
                layout = _read_layout(file, path.parent.name)
                digests = _read_digests(file, layout)
        except FileNotFoundError:
            return
        except ShardError as error:
            self._remove(path, error)
            return
        number = len(self._paths)
        self._paths.append(path)
        self._numbers[path.name] = number
        self._dims[path.name] = layout.dim
        self._dead = np.append(self._dead, False)
        run = _Run.of(digests, number)
        while self._runs and len(self._runs[-1].keys) <= 2 * len(run.keys):
            run = self._runs.pop().merged(run, self._dead)
        self._runs.append(run)

    def _remove(self, path: Path, error: ShardError) -> None:
        if path not in self._unusable:  # one warning per file
            remove_damaged(path, error, "its views are encoded again")
        if path.exists():
            self._unusable.add(path)

    def remove(self, path: Path, error: ShardError) -> None:
        """Remove a damaged file, with a warning, and take it out of the index."""
        with self._lock:
            self._remove(path, error)
            if path.name in self._numbers:
                self._drop(path.name)

    def _drop(self, name: str) -> None:
        self._dead[self._numbers.pop(name)] = True
        del self._dims[name]

    def drop(self, path: Path) -> None:
        """Take a file out of the index, because it is deleted."""
        with self._lock:
            if path.name in self._numbers:
                self._drop(path.name)

    @property
    def dim(self) -> int | None:
        """Length of the rows; None if there are none."""
        with self._lock:
            return next(iter(self._dims.values()), None)

    def find(
        self, digests: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], list[Path]]:
        """Return the shard number of each digest (-1 if there is none), its row, and all paths."""
        with self._lock:
            shard = np.full(len(digests), -1, dtype=np.int32)
            row = np.zeros(len(digests), dtype=np.int64)
            keys = _keys(digests)
            for run in self._runs:
                self._find_in(run, keys, shard, row)
            return shard, row, list(self._paths)

    def _find_in(
        self,
        run: _Run,
        keys: NDArray[np.uint64],
        shard: NDArray[np.int32],
        row: NDArray[np.int64],
    ) -> None:
        here = np.flatnonzero(shard < 0)
        at = np.searchsorted(run.keys, keys[here])
        while len(here):
            here, at = _where(at < len(run.keys), here, at)
            here, at = _where(run.keys[at] == keys[here], here, at)
            dead = self._dead[run.shard[at]]
            alive, alive_at = _where(~dead, here, at)
            shard[alive] = run.shard[alive_at]
            row[alive] = run.row[alive_at]
            # equal keys are adjacent: a live entry may follow a dead one
            here, at = _where(dead, here, at)
            at = at + 1


def _now() -> float:
    return time.monotonic()


def _listed(folder: Path) -> list[str]:
    """Return the names of the shards in a folder; an empty list if the folder is missing."""
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        names = os.listdir(folder)
    return [name for name in names if name.endswith(SUFFIX)]


def _where(
    mask: NDArray[np.bool_], here: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return here[mask], at[mask]
