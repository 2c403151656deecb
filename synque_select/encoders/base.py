"""What an encoder is: it turns views into embeddings, and has a key that says how."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from synque_select.data.views import View
from synque_select.types.modality import Modality
from synque_select.utils.source_code import source_of

__all__ = ["BaseEncoder"]


class BaseEncoder(ABC):
    """Base of all encoders; a subclass sets `id` and `modality` and writes `encode`.

    Attributes:
        id: The one name of the encoder, in caches, rankings and reports.
        modality: What it encodes, "text" or "image".
        revision: Which weights. Part of the cache key, so change it when yours change; while it
            is "user", a hash of the class's source is part of the key too.
        batch_size: How many views `encode` gets at once, at most.

    Example:
        >>> class Length(BaseEncoder):
        ...     id, modality = "length", "text"
        ...
        ...     def encode(self, views):
        ...         return torch.tensor([[float(len(view)), 1.0] for view in views])
        >>> Length().encode(["one", "three"])
        tensor([[3., 1.],
                [5., 1.]])
    """

    id: str
    modality: Modality
    revision: str = "user"
    batch_size: int = 64

    @abstractmethod
    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return the embeddings of one batch.

        Called by `embed` with distinct views that are not in the cache, in inference mode. The
        global random state is restored afterwards. Must give the same row for a view whatever
        else is in the batch.

        Args:
            views: At most `batch_size` texts or PIL images.

        Returns:
            (n, d) floating point, finite, on any device.
        """

    def encode_many(self, views: Sequence[View]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Encode any number of views and yield positions with their embeddings, in any order.

        Override it where batches should be chosen by length, or examples read ahead.

        Args:
            views: Read lazily: an image is decoded when its position is asked for.
        """
        for start in range(0, len(views), self.batch_size):
            positions = range(start, min(start + self.batch_size, len(views)))
            yield positions, self.encode(views[start : positions.stop])

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an embedding (precision, normalisation), as plain values."""
        return {"code": source_of(type(self)) or ""} if self.revision == "user" else {}

    @property
    def key(self) -> str:
        """All that changes an embedding, as JSON: the cache is kept by it."""
        parts = {"id": self.id, "modality": self.modality, "revision": self.revision}
        return json.dumps({**parts, **self.options()}, sort_keys=True)

    def prepare(self) -> None:  # noqa: B027 - a hook that need not be filled
        """Load the model; `embed` calls it when an embedding is missing in the cache.

        After it `key` is final: a check of the loaded model may have changed the precision.
        """

    def close(self) -> None:  # noqa: B027
        """Free the model and its device memory; the encoder can be used again."""
