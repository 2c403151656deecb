"""Texts to embeddings, by sentence-transformers models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.packaged import find_packaged
from synque_select.views import Modality, View

__all__ = ["TextEncoder"]


class TextEncoder(BaseEncoder):
    """A sentence-transformers model."""

    modality: Modality = "text"

    def __init__(
        self, model_id: str, *, revision: str | None = None, device: torch.device | None = None
    ) -> None:
        self.id = model_id
        self._packaged = find_packaged(model_id) if revision is None else None
        self.revision = self._packaged.revision if self._packaged else (revision or "main")
        self._asked_revision = revision
        self._device = device
        self._model: Any = None

    def prepare(self) -> None:
        """Load the model."""
        if self._model is not None:
            return
        from sentence_transformers import SentenceTransformer

        if self._packaged:
            self._packaged.check()
        self._model = SentenceTransformer(
            str(self._packaged.folder) if self._packaged else self.id,
            revision=self._asked_revision,
            device=None if self._device is None else str(self._device),
            trust_remote_code=False,
        )

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return (n, d) float32."""
        self.prepare()
        out: torch.Tensor = self._model.encode(
            list(views), convert_to_tensor=True, show_progress_bar=False
        )
        return out.float()

    def close(self) -> None:
        """Free the model."""
        self._model = None
