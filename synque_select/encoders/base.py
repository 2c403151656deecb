"""The interface of all encoders, which turn views into embeddings."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch

from synque_select.data.views import View
from synque_select.types.modality import Modality
from synque_select.utils.json_types import JsonObject
from synque_select.utils.source_code import source_of

__all__ = ["BaseEncoder"]


class BaseEncoder(ABC):
    """Base class of all encoders; a subclass sets `id` and `modality` and implements `encode`.

    Attributes:
        id: Name of the encoder in caches, rankings and reports.
        modality: Modality of the views, "text" or "image".
        revision: Version of the weights. It is part of the cache key, so change it when the
            weights change; while it is "user", a hash of the class's source code is part of the
            key as well.
        batch_size: Maximum number of views per call of `encode`.

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

        Called by `embed` in inference mode, with distinct views that are not cached. The global
        random state is restored afterwards. The embedding of a view must not depend on the other
        views in the batch.

        Args:
            views: At most `batch_size` texts or PIL images.

        Returns:
            (n, d) tensor of finite floating point values, on any device.
        """

    def encode_many(self, views: Sequence[View]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Encode any number of views and yield positions with their embeddings, in any order.

        Override this method to group views by length or to read examples ahead of time.

        Args:
            views: Views, read lazily: an image is decoded when its position is accessed.
        """
        for start in range(0, len(views), self.batch_size):
            positions = range(start, min(start + self.batch_size, len(views)))
            yield positions, self.encode(views[start : positions.stop])

    def halve_batch(self) -> bool:
        """Halve the maximum size of a batch, after one of that size did not fit into memory.

        Returns:
            Whether it could be halved: False if a batch is a single view already, or if the
            subclass does not let `batch_size` be set.
        """
        if self.batch_size <= 1:
            return False
        try:
            self.batch_size //= 2
        except AttributeError:  # a property, or a frozen dataclass
            return False
        return True

    def options(self) -> JsonObject:
        """Return other settings that change embeddings, such as the precision."""
        return {"code": source_of(type(self)) or ""} if self.revision == "user" else {}

    @property
    def key(self) -> str:
        """JSON of everything that changes an embedding; the cache is keyed by it."""
        parts: JsonObject = {"id": self.id, "modality": self.modality, "revision": self.revision}
        return json.dumps({**parts, **self.options()}, sort_keys=True)

    def prepare(self) -> None:  # noqa: B027 - an optional hook
        """Load the model; `embed` calls this if an embedding is not in the cache.

        `key` may change here, because the precision is checked on the loaded model, but not later.
        """

    def close(self) -> None:  # noqa: B027
        """Release the model and its device memory; the encoder remains usable."""
