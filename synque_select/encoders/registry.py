"""From the name of an encoder to the encoder."""

from __future__ import annotations

import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.image import EfficientNetLite0Encoder
from synque_select.encoders.text import TextEncoder
from synque_select.errors import ConfigError
from synque_select.views import Modality

__all__ = ["DEFAULT_ENCODERS", "get_encoder"]

DEFAULT_ENCODERS: dict[Modality, str] = {
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "image": "efficientnet-lite0",
}


def get_encoder(
    spec: str | BaseEncoder | None, modality: Modality, *, device: torch.device | None = None
) -> BaseEncoder:
    """Return the encoder of that name for a modality."""
    if isinstance(spec, BaseEncoder):
        if spec.modality != modality:
            raise ConfigError(
                f"the encoder {spec.id!r} encodes {spec.modality}s, the views are {modality}s"
            )
        return spec
    name = DEFAULT_ENCODERS[modality] if spec is None else spec
    if modality == "text":
        return TextEncoder(name, device=device)
    return EfficientNetLite0Encoder(device=device)
