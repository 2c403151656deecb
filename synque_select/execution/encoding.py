"""Encoding as units of work: shards of the views that are not in the embedding cache."""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.encoders import BaseEncoder, get_encoder
from synque_select.encoders.embedding_cache import (
    ViewPart,
    encode_part,
    keep_rows,
    missing_parts,
)
from synque_select.errors import ExecutorError
from synque_select.execution.base import Executor, UnitFailure, Worker
from synque_select.types.modality import Modality
from synque_select.utils.process_state import preserved_state
from synque_select.utils.progress import ProgressBar

__all__ = [
    "EncodeShard",
    "EncoderSource",
    "SharedFolder",
    "encode_missing",
    "encode_units",
]

# batches of the packaged encoders do not cross multiples of 2,048 views, so that a shard is encoded
# in the batches of the whole, and its embeddings are the same to the last bit
_ALIGNED_VIEWS = 2048
_SHARD_VIEWS = 4 * _ALIGNED_VIEWS
_MOST_VIEWS = 1 << 17

Rows = tuple[NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class EncoderSource:
    """How a worker gets the encoder of the driver.

    Args:
        spec: A model id or an encoder; None for the default of the modality.
        modality: What it encodes.
        device: The device that the user asked for; None for a GPU if the worker has one.
        key: The encoder's key in the driver, with revision and precision.
    """

    spec: str | BaseEncoder | None
    modality: Modality
    device: str | None
    key: str

    def load(self) -> BaseEncoder:
        """Load the encoder.

        Raises:
            ExecutorError: It is not the one of the driver.
        """
        device = self.device
        if device is not None:  # a worker sees its own GPU only, which is the first there
            device = torch.device(device).type
        encoder = get_encoder(self.spec, self.modality, device=device)
        encoder.prepare()
        if encoder.key != self.key:
            raise ExecutorError(
                f"the encoder is not the same everywhere: {self.key} in the driver, {encoder.key} "
                "in a worker. Name revision and precision, as in "
                "encoder='NAME@REVISION:precision=float32'"
            )
        return encoder


@dataclass(frozen=True)
class SharedFolder:
    """The cache of the driver, which some workers can write as well.

    Args:
        path: Its path in the driver.
        token: Name of a file in it: a worker that finds the file sees the same folder.
    """

    path: str
    token: str

    @property
    def is_here(self) -> bool:
        """Whether this process sees the folder, and was not given a cache of its own."""
        own = os.environ.get("SYNQUE_CACHE")
        if own and Path(os.path.expanduser(own)).absolute() != Path(self.path):
            return False
        return (Path(self.path) / self.token).is_file()


@dataclass(frozen=True, eq=False)
class EncodeShard:
    """Encode shard i of candidate c.

    Args:
        source: The encoder.
        part: The views.
        number: Number of the shard, from 1 on.
        n_shards: Number of shards of this candidate.
        cache: The driver's cache; None where embeddings are always returned.
    """

    source: EncoderSource
    part: ViewPart
    number: int
    n_shards: int
    cache: SharedFolder | None = field(default=None, repr=False)

    @cached_property
    def key(self) -> str:
        """Hash of the encoder's key and of the views."""
        hashed = hashlib.sha256(self.source.key.encode())
        hashed.update(np.ascontiguousarray(self.part.digests).data)
        return hashed.hexdigest()

    @property
    def name(self) -> str:
        """What it does, for messages."""
        return f"encode shard {self.number} of {self.n_shards} of {self.part.name}"

    def __getstate__(self) -> dict[str, object]:
        # the views are read when the unit is sent: so many are in memory as there are workers
        return {**self.__dict__, "part": self.part.loaded()}

    def run(self, worker: Worker) -> Rows | None:
        """Return digests and embeddings; None if they were written to the driver's cache."""
        encoder = worker.keep(f"encoder:{self.source.key}", self.source.load)
        rows = _Collected()
        with preserved_state():
            encode_part(encoder, self.part, rows)
        digests, embeddings = rows.joined()
        if self.cache is None or not self.cache.is_here:
            return digests, embeddings
        is_there = keep_rows(self.source.key, digests, embeddings, Path(self.cache.path))
        # where the disk is full, the driver gets them: they would be lost with this process
        return None if is_there else (digests, embeddings)


class _Collected:
    """Embeddings in the order in which they are computed."""

    def __init__(self) -> None:
        self._digests: list[NDArray[np.uint8]] = []
        self._rows: list[NDArray[np.float32]] = []

    def add(self, digests: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
        self._digests.append(digests)
        self._rows.append(rows)

    def flush(self) -> None:
        pass

    def joined(self) -> Rows:
        return np.concatenate(self._digests), np.concatenate(self._rows)


def encode_units(
    source: EncoderSource, encoder: BaseEncoder, sets: Sequence[Examples], root: Path
) -> list[EncodeShard]:
    """Return the units that encode what is not in the cache, for all sets together.

    Args:
        source: How workers get the encoder.
        encoder: The encoder in the driver, which need not be loaded.
        sets: The real sample and the candidates.
        root: Root directory of the driver's cache.
    """
    size = _shard_size(encoder.batch_size)
    units = []
    for part in missing_parts(source.key, sets, root):
        shards = part.split(size)
        units += [
            EncodeShard(source, shard, number, len(shards))
            for number, shard in enumerate(shards, 1)
        ]
    return units


def _shard_size(batch_size: int) -> int:
    aligned = math.lcm(_ALIGNED_VIEWS, batch_size)
    if aligned > _MOST_VIEWS:
        aligned = batch_size * max(1, _ALIGNED_VIEWS // batch_size)
    return aligned * max(1, _SHARD_VIEWS // aligned)


@contextmanager
def shared_folder(root: Path) -> Iterator[SharedFolder | None]:
    """Leave a mark in the driver's cache by which workers know it; None if it is read-only."""
    folder = SharedFolder(str(root.absolute()), f".driver-{uuid.uuid4().hex}.tmp")
    mark = root / folder.token
    try:
        root.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        mark.unlink(missing_ok=True)


def encode_missing(
    executor: Executor,
    source: EncoderSource,
    encoder: BaseEncoder,
    sets: Sequence[Examples],
    root: Path,
    *,
    progress: bool = True,
) -> int:
    """Encode on an executor what is not in the cache, so that `embed` finds all embeddings.

    Args:
        executor: Where to encode.
        source: How workers get the encoder.
        encoder: The encoder in the driver, which need not be loaded.
        sets: The real sample and the candidates.
        root: Root directory of the driver's cache.
        progress: Whether to show a progress bar if it takes over two seconds.

    Returns:
        Number of views that were encoded.

    Raises:
        EncoderError: A worker cannot encode; finished embeddings are kept.
        ExecutorError: A worker cannot be used.
    """
    units = encode_units(source, encoder, sets, root)
    if not units:
        return 0
    sizes = {unit.key: len(unit.part) for unit in units}
    total = sum(sizes.values())
    bar = ProgressBar(
        total=total,
        desc="encoding",
        unit=source.modality,
        delay=2,
        mininterval=0.5,
        disable=not progress,
    )
    with shared_folder(root) as folder, bar:
        shared = [replace(unit, cache=folder) for unit in units]
        for unit, rows in executor.run(shared):
            if isinstance(rows, UnitFailure):
                raise rows.error
            if rows is not None:
                keep_rows(source.key, *rows, root)
            bar.update(sizes[unit.key])
    return total
