"""A cache of embeddings, keyed by content and stored in memory-mapped files.

The files of an encoder are in `<cache>/embeddings/<hash of the encoder's key>/`. The embeddings of
a candidate are one file, named after the hash of its views. While a candidate is being encoded,
finished rows are written to `part-…` files every few seconds; at the end they are merged. After an
error or a `kill -9`, the rows of the parts are found by their digests, and only the rest is
encoded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.data.views import View
from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.remote_shards import fetch_rows
from synque_select.encoders.shards import (
    SUFFIX,
    Shard,
    ShardError,
    ShardIndex,
    is_among,
    open_shard,
    sorted_keys,
    write_shard,
)
from synque_select.errors import ConfigError, EncoderError
from synque_select.types.modality import Modality
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.cache_dir import cache_root, temporary_twin, write_in_cache
from synque_select.utils.cache_files import note_use
from synque_select.utils.device import HostCopy
from synque_select.utils.memory import is_out_of_memory, return_freed_memory
from synque_select.utils.process_state import free_device_memory, preserved_state
from synque_select.utils.progress import ProgressBar
from synque_select.utils.remote_cache import fetch, publish, remote_of
from synque_select.utils.wording import counted, one_line

__all__ = ["Embedded", "ViewPart", "embed", "encode_part", "keep_rows", "missing_parts"]

_log = logging.getLogger(__name__)
_PART = "part-"
_FLUSH_S = 2.0
_FLUSH_SHARE = 0.05  # of the elapsed time: a long run writes few parts, and a kill costs 5 %
_FLUSH_BYTES = 32 * 2**20
_BLOCK = 8192  # rows that are merged at once
_STALE_S = 24 * 3600
_TRIES = 4
_MAX_SHOWN = 200  # characters of an error
_BAR_DELAY_S = 2.0


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a candidate or of the real sample, and their cost.

    Args:
        embeddings: (n, d) float32 on the CPU, with rows in the order of the examples. The tensor
            is backed by a memory-mapped file; writing to it does not change the cache.
        n_encoded: Number of distinct views that the encoder processed.
        n_cached: Number of other examples: cached ones and duplicates.
        seconds: Wall time in seconds.
    """

    embeddings: torch.Tensor
    n_encoded: int
    n_cached: int
    seconds: float


@dataclass(frozen=True, eq=False)
class ViewPart:
    """Some views of a candidate or of the real sample, to be encoded.

    Args:
        name: Name of the candidate.
        where: Where it comes from, for messages.
        modality: What the views are.
        views: The m views.
        digests: SHA-256 of each, (m, 32) uint8.
        positions: Their positions among all examples, (m,) int64, for messages.
    """

    name: str
    where: str
    modality: Modality
    views: Sequence[View]
    digests: NDArray[np.uint8]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Examples, positions: NDArray[np.int64]) -> ViewPart:
        """Return the views at some positions, which are read on access."""
        return cls(
            examples.name,
            examples.where,
            examples.modality,
            _Chosen(examples.views, positions),
            examples.digests[positions],
            positions,
        )

    def __len__(self) -> int:
        return len(self.positions)

    def split(self, size: int) -> list[ViewPart]:
        """Return parts of at most `size` views, in order."""
        return [
            replace(
                self,
                views=_Chosen(self.views, np.arange(start, min(start + size, len(self)))),
                digests=self.digests[start : start + size],
                positions=self.positions[start : start + size],
            )
            for start in range(0, len(self), size)
        ]

    def loaded(self) -> ViewPart:
        """Return the part with its views read, so that it can be sent elsewhere."""
        return replace(self, views=list(self.views[:]))


def missing_parts(key: str, sets: Sequence[Examples], root: Path) -> list[ViewPart]:
    """Return what has to be encoded of each set: views neither cached nor in an earlier set.

    Args:
        key: Key of the encoder.
        sets: The real sample and the candidates, in the order in which `embed` is called.
        root: Root directory of the cache.
    """
    store = _open_store(root, key)
    absent = [store.missing(examples.digests) for examples in sets]
    digests = [e.digests[where] for e, where in zip(sets, absent, strict=True)]
    # of equal views the first counts, as where the sets are encoded one after another
    _, first = np.unique(_whole_digests(np.concatenate(digests)), return_index=True)
    is_first = np.zeros(sum(map(len, absent)), dtype=bool)
    is_first[first] = True
    ends = np.cumsum([len(where) for where in absent])
    chosen = np.split(is_first, ends[:-1])
    return [
        ViewPart.of(e, where[keep]) for e, where, keep in zip(sets, absent, chosen, strict=True)
    ]


def keep_rows(key: str, digests: NDArray[np.uint8], rows: NDArray[np.float32], root: Path) -> bool:
    """Keep embeddings that were computed elsewhere.

    Args:
        key: Key of the encoder.
        digests: (m, 32) uint8, digest of the view of each row.
        rows: (m, d) float32.
        root: Root directory of the cache.

    Returns:
        Whether other processes find them: False where the cache cannot be written, so that they are
        in a temporary folder of this process.

    Raises:
        EncoderError: Temporary files cannot be written, either, or rows of this encoder have
            another length.
    """
    sink = _Sink(_open_store(root, key), "embeddings of other processes")
    sink.add(digests, rows)
    sink.flush()
    return sink.is_shared


def embed(
    encoder: BaseEncoder,
    examples: Examples,
    *,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Embedded:
    r"""Return the embeddings of all examples; only those that are not cached are computed.

    A view is encoded once, however often it occurs within or across candidates. Several processes
    may share a cache. Random state, gradient mode, default dtype and number of threads are
    restored.

    Args:
        encoder: Encoder to use; its `key` determines which cached embeddings are valid.
        examples: A candidate or the real sample.
        cache_dir: Root directory of the cache, or an address such as s3://bucket/cache; None for
            `default_cache_dir()`.
        progress: Whether to show a progress bar on stderr if encoding takes over two seconds.

    Raises:
        ConfigError: The encoder is for another modality.
        EncoderError: The model cannot be loaded, an embedding is not finite or has the wrong
            shape, or the cache cannot be written. Finished embeddings are kept.
        DataError: An example cannot be read.

    Example:
        >>> from synque_select.data.candidate import Candidate
        >>> class Length(BaseEncoder):
        ...     id, modality = "length", "text"
        ...
        ...     def encode(self, views):
        ...         return torch.tensor([[float(len(view)), 1.0] for view in views])
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     words = Candidate("c", ["a", "bb", "a"])
        ...     embedded = embed(Length(), words, cache_dir=Path(folder))
        >>> embedded.embeddings.tolist(), embedded.n_encoded, embedded.n_cached
        ([[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]], 2, 1)
    """
    start = time.perf_counter()
    if encoder.modality != examples.modality:
        raise ConfigError(
            f"the encoder {encoder.id!r} encodes {encoder.modality}s, "
            f"the views of {examples.where} are {examples.modality}s"
        )
    root = cache_root(cache_dir)
    with preserved_state():
        shard, n_encoded = _shard_of(encoder, examples, root, progress)
    if n_encoded:  # a thousand candidates would keep as much memory as all of their embeddings
        return_freed_memory()
    seconds = time.perf_counter() - start
    return Embedded(torch.from_numpy(shard.rows), n_encoded, len(examples) - n_encoded, seconds)


def _shard_of(
    encoder: BaseEncoder, examples: Examples, root: Path, progress: bool
) -> tuple[Shard, int]:
    n_encoded = 0
    for _ in range(_TRIES):
        store = _open_store(root, encoder.key)
        shard = store.whole(examples.sha256, examples.digests)
        if shard is not None:
            return shard, n_encoded
        missing = store.missing(examples.digests)
        if len(missing):
            encoder.prepare()
            if encoder.key != store.key:  # loading the model changed the precision
                continue
            part = ViewPart.of(examples, missing)
            sink = _Sink(store, f"{encoder.id}: {part.where}")
            encode_part(encoder, part, sink, progress=progress)
            n_encoded += len(missing)
        store.merge(examples.sha256, examples.digests)
    raise EncoderError(
        f"files of the embedding cache {store.folder} disappear while it is in use: does another "
        "process delete them? Choose another directory with cache_dir or $SYNQUE_CACHE"
    )


def encode_part(
    encoder: BaseEncoder, part: ViewPart, sink: RowSink, *, progress: bool = False
) -> None:
    """Encode views and pass their embeddings on; with fewer at once where memory runs out.

    Args:
        encoder: The encoder.
        part: The views; all are encoded, whether they are in the cache or not.
        sink: Takes the embeddings, in any order, and is flushed at the end.
        progress: Whether to show a progress bar.

    Raises:
        EncoderError: An embedding is not finite or has the wrong shape.
    """
    bar = ProgressBar(
        total=len(part),
        desc=f"encoding {part.name}",
        unit=part.modality,
        delay=_BAR_DELAY_S,
        mininterval=0.5,
        disable=not progress,
    )
    left = np.arange(len(part))
    # a subclass may make batches of its own in `encode_many`
    batches = "batches of" if _makes_batches(encoder) else "batch_size"
    n_rows = 0
    try:
        while True:
            left, n_new, reason = _encode_until_full(encoder, part, left, sink, bar)
            n_rows += n_new
            if not len(left):
                break
            size = encoder.batch_size
            if not encoder.halve_batch():
                raise EncoderError(_too_large(encoder, part, reason))
            free_device_memory()
            _log.warning(
                "%s: out of memory while encoding %s with %s %d; going on with %d, and "
                "%s of %s left. A smaller batch_size from the start saves the attempt.",
                *(encoder.id, part.where, batches, size, encoder.batch_size),
                *(f"{len(left):,}", f"{len(part):,}"),
            )
    finally:
        bar.close()
        sink.flush()
    if n_rows != len(part):
        raise EncoderError(
            f"{encoder.id}: encode_many returned {counted(n_rows, 'embedding')} of "
            f"{counted(len(part), 'view')}"
        )


class RowSink(Protocol):
    """Takes embeddings with the digests of their views."""

    def add(self, digests: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
        """Take the embeddings of a batch."""
        ...

    def flush(self) -> None:
        """Write what was taken."""
        ...


def _makes_batches(encoder: BaseEncoder) -> bool:
    """Whether batches have `batch_size` views: no subclass outside this package decides."""
    return type(encoder).encode_many.__module__.partition(".")[0] == "synque_select"


def _too_large(encoder: BaseEncoder, part: ViewPart, reason: str) -> str:
    """Return the message for views that do not fit into memory, however few there are at once."""
    advice = "use a smaller model, shorter views, or device='cpu'"
    name = type(encoder).__name__
    if encoder.batch_size > 1:
        what = f"{part.where} with batches of {encoder.batch_size}"
        advice = f"batch_size of {name} cannot be set, so no smaller batch is tried: {advice}"
    elif _makes_batches(encoder):
        what = f"a single view of {part.where}"
    else:
        what = f"{part.where} with batch_size 1"
        follow = f"encode_many of {name} must encode no more than batch_size views at once"
        advice = f"{follow}, or else {advice}"
    return f"{encoder.id}: out of memory while encoding {what} ({reason}): {advice}"


def _encode_until_full(
    encoder: BaseEncoder,
    part: ViewPart,
    missing: NDArray[np.int64],
    sink: RowSink,
    bar: ProgressBar,
) -> tuple[NDArray[np.int64], int, str]:
    """Encode views until memory runs out; return the rest, the number of rows, and the reason."""
    is_left = np.ones(len(missing), dtype=bool)
    n_rows = 0
    try:
        for here, copy in _copied(encoder, _Chosen(part.views, missing)):
            indices = missing[here]
            sink.add(part.digests[indices], _finite(copy.arrived(), encoder, part, indices))
            is_left[here] = False
            n_rows += len(indices)
            bar.update(len(indices))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # the error is dropped here: its traceback holds the tensors of the batch
        reason = one_line(f"{type(error).__name__}: {error}", _MAX_SHOWN)
        return missing[is_left], n_rows, reason
    return missing[:0], n_rows, ""


def _copied(
    encoder: BaseEncoder, views: Sequence[View]
) -> Iterator[tuple[NDArray[np.int64], HostCopy]]:
    """Yield positions of views, and the copies of their embeddings to the host.

    Those on a GPU come one behind, so that it encodes the next batch during the copy.
    """
    waiting: tuple[NDArray[np.int64], HostCopy] | None = None
    try:
        for positions, batch in encoder.encode_many(views):
            here = np.asarray(positions)
            _check_batch(batch, encoder, len(here))
            copied = here, HostCopy(batch)
            if waiting is not None:
                yield waiting
            waiting = copied
            if not batch.is_cuda:
                yield waiting
                waiting = None
    except Exception:
        if waiting is not None:  # of the batch before the one that failed
            yield waiting
        raise
    if waiting is not None:
        yield waiting


class _Chosen(Sequence[View]):
    """The views at some positions, read on access."""

    def __init__(self, views: Sequence[View], positions: NDArray[np.int64]) -> None:
        self._views = views
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> View: ...
    @overload
    def __getitem__(self, index: slice) -> list[View]: ...
    def __getitem__(self, index: int | slice) -> View | list[View]:
        if isinstance(index, slice):
            return self._block(self._positions[index])
        return self._views[int(self._positions[index])]

    def _block(self, positions: NDArray[np.int64]) -> list[View]:
        # read adjacent positions together, which is much faster from a file
        gaps = np.flatnonzero(np.diff(positions) != 1) + 1
        runs = [run for run in np.split(positions, gaps) if len(run)]
        return [view for run in runs for view in self._views[int(run[0]) : int(run[-1]) + 1]]


def _check_batch(batch: torch.Tensor, encoder: BaseEncoder, n_views: int) -> None:
    shape = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
    usable = isinstance(shape, tuple) and len(shape) == 2 and shape[1] > 0
    if not usable or not batch.is_floating_point():
        raise EncoderError(
            f"{encoder.id}: encode must return a floating point tensor (n, d) with d >= 1, "
            f"found {shape}{f' of {batch.dtype}' if usable else ''}"
        )
    if shape[0] != n_views:
        raise EncoderError(
            f"{encoder.id}: encode returned {counted(shape[0], 'embedding')} of "
            f"{counted(n_views, 'view')}"
        )


def _finite(
    embeddings: torch.Tensor, encoder: BaseEncoder, part: ViewPart, indices: NDArray[np.int64]
) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = embeddings.numpy()
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise EncoderError(
            f"{encoder.id}: the embedding of {part.where}, example "
            f"{part.positions[indices[bad[0]]]} (counted from 0), is not finite "
            f"({len(bad)} of {len(rows)} in this batch)"
        )
    return rows


class _Sink:
    """Collects rows of equal length and writes them to the store every few seconds."""

    def __init__(self, store: _Store, what: str) -> None:
        self._store, self._what, self._dim = store, what, store.dim
        self._rows: list[NDArray[np.float32]] = []
        self._digests: list[NDArray[np.uint8]] = []
        self._n_bytes = 0
        self.is_shared = True
        self._start = self._flushed = time.monotonic()

    def add(self, digests: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
        self._dim = self._dim or rows.shape[1]
        if rows.shape[1] != self._dim:
            raise EncoderError(
                f"{self._what}: the embeddings have {counted(rows.shape[1], 'dimension')}, but "
                "cached ones of this encoder have "
                f"{self._dim} ({self._store.folder}): change the encoder's "
                "revision whenever its output changes"
            )
        self._rows.append(rows)
        self._digests.append(digests)
        self._n_bytes += rows.nbytes
        now = time.monotonic()
        due = max(_FLUSH_S, _FLUSH_SHARE * (now - self._start))
        if now - self._flushed >= due or self._n_bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            digests, rows = np.concatenate(self._digests), np.concatenate(self._rows)
            self.is_shared &= self._store.keep(digests, rows)
        self._rows, self._digests, self._n_bytes = [], [], 0
        self._flushed = time.monotonic()


class _Store:
    """The shards of one encoder."""

    def __init__(self, root: Path, key: str) -> None:
        self.key = key
        self.folder = root / "embeddings" / hashlib.sha256(key.encode()).hexdigest()[:16]
        # where the folder cannot be written, what is new is here
        self._twin = temporary_twin(self.folder)
        self._index = ShardIndex(self.folder, self._twin)
        self._remove_stale()

    @property
    def dim(self) -> int | None:
        """Dimension of the stored embeddings; None if there are none."""
        return self._index.dim

    def whole(self, name: str, digests: NDArray[np.uint8]) -> Shard | None:
        """Return the shard that holds all embeddings of a candidate in order, if there is one."""
        with self._errors():
            for folder in (self.folder, self._twin):
                path = folder / f"{name}{SUFFIX}"
                fetch(path, open_shard)
                shard = self._open(path)
                if shard is not None and np.array_equal(shard.digests, digests):
                    return shard
                if shard is not None:
                    self._index.remove(path, ShardError("it is of other views"))
        return None

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the positions of views without an embedding; of equal views, the first."""
        with self._errors():
            self._index.refresh()
        absent = self._absent(digests)
        if len(absent) and fetch_rows(self.folder, digests[absent]):
            with self._errors():
                self._index.refresh(at_once=True)
            absent = self._absent(digests)
        _, first = np.unique(_whole_digests(digests[absent]), return_index=True)
        return absent[np.sort(first)]

    def _absent(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        number, _, _ = self._index.find(digests)
        return np.flatnonzero(number < 0)

    def keep(self, digests: NDArray[np.uint8], rows: NDArray[np.float32]) -> bool:
        """Write rows to a part file; return whether it is in the folder, not in its twin."""
        with self._errors():
            name = f"{_PART}{uuid.uuid4().hex}{SUFFIX}"
            place = self._write(
                name, lambda path: write_shard(path, digests, [rows], rows.shape[1])
            )
        return place.parent == self.folder

    def merge(self, name: str, digests: NDArray[np.uint8]) -> None:
        """Write a candidate's rows as one shard; do nothing if any of them is missing."""
        with self._errors():
            self._index.refresh()
            number, row, paths = self._index.find(digests)
            if (number < 0).any():  # others may have just written them
                self._index.refresh(at_once=True)
                number, row, paths = self._index.find(digests)
            if (number < 0).any():
                return
            shards = {int(i): self._open(paths[i]) for i in np.unique(number)}
            opened = {i: shard for i, shard in shards.items() if shard is not None}
            if len(opened) < len(shards) or not _agree(opened, number, row, digests):
                return
            dims = sorted({shard.rows.shape[1] for shard in opened.values()})
            if len(dims) > 1:
                raise EncoderError(
                    f"the cache {self.folder} holds embeddings of one encoder with {dims} "
                    "dimensions: change the encoder's revision whenever its output changes"
                )
            place = self._write(
                f"{name}{SUFFIX}",
                lambda path: write_shard(path, digests, _blocks(opened, number, row), dims[0]),
            )
            # parts in the cache outlive a shard in a temporary folder
            parts = [shard for shard in opened.values() if shard.path.parent == place.parent]
            self._remove_parts(parts, digests)

    def _open(self, path: Path) -> Shard | None:
        try:
            note_use(path)
            return open_shard(path)
        except (FileNotFoundError, NotADirectoryError):
            self._index.drop(path)
        except ShardError as error:
            self._index.remove(path, error)
        return None

    def _write(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write a file to the store, or to its temporary twin, and return its path."""

        def written(folder: Path) -> Path:
            about = folder / "encoder.json"  # for people: nothing reads it
            if not about.is_file():
                with suppress(OSError):
                    write_text_atomic(about, json.dumps({"key": self.key}))
            write(folder / name)
            return folder / name

        place = write_in_cache(self.folder, written)
        self._index.add(place)
        publish(place)
        return place

    def _remove_parts(self, shards: Iterable[Shard], digests: NDArray[np.uint8]) -> None:
        # a part is obsolete once the candidate's own file holds all of its rows
        parts = [shard for shard in shards if shard.path.name.startswith(_PART)]
        keys = sorted_keys(digests)
        for shard in parts:
            if is_among(keys, shard.digests).all():
                with suppress(OSError):
                    shard.path.unlink()
                if (remote := remote_of(shard.path)) is not None:
                    remote.discard(shard.path)
                self._index.drop(shard.path)

    def _remove_stale(self) -> None:
        with suppress(OSError):  # another process removes them, or the path is too long
            for path in self.folder.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EncoderError(
                f"the embedding cache {self.folder} cannot be used: {error}; "
                "choose another directory with cache_dir or $SYNQUE_CACHE"
            ) from error


def _whole_digests(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return each digest as one value, (n,)."""
    return np.ascontiguousarray(digests).view("V32").reshape(-1)


@lru_cache(maxsize=8)
def _open_store(root: Path, key: str) -> _Store:
    return _Store(root, key)


def _agree(
    shards: Mapping[int, Shard],
    number: NDArray[np.int32],
    row: NDArray[np.int64],
    digests: NDArray[np.uint8],
) -> bool:
    """Whether rows that the index found by 8 bytes of the digest match in all 32 bytes."""
    return all(
        np.array_equal(shard.digests[row[number == i]], digests[number == i])
        for i, shard in shards.items()
    )


def _blocks(
    shards: Mapping[int, Shard], number: NDArray[np.int32], row: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    dim = next(iter(shards.values())).rows.shape[1]
    for start in range(0, len(number), _BLOCK):
        here = number[start : start + _BLOCK]
        rows = row[start : start + _BLOCK]
        block = np.empty((len(here), dim), dtype=np.float32)
        for i in np.unique(here):
            block[here == i] = shards[int(i)].rows[rows[here == i]]
            shards[int(i)].release()
        yield block
