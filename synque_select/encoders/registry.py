"""From the name of an encoder to the encoder."""

from __future__ import annotations

import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.image import (
    EfficientNetLite0Encoder,
    SentenceImageEncoder,
    TorchvisionEncoder,
)
from synque_select.encoders.text import TextEncoder
from synque_select.errors import ConfigError
from synque_select.hub.resolve import split_revision
from synque_select.types.modality import Modality

__all__ = ["DEFAULT_ENCODERS", "get_encoder"]

DEFAULT_ENCODERS: dict[Modality, str] = {
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "image": "efficientnet-lite0",
}
_TORCHVISION = "torchvision/"


def get_encoder(
    spec: str | BaseEncoder | None,
    modality: Modality,
    *,
    device: torch.device | str | None = None,
) -> BaseEncoder:
    """Return the encoder of that name for a modality.

    Args:
        spec: None for the default; an encoder, returned as it is; or a name. Texts: a folder or
            hub id of a sentence-transformers model. Images: "efficientnet-lite0" (at another
            size, "efficientnet-lite0/96px"), "torchvision/<model>", or a sentence-transformers
            model. "name@revision" chooses a revision on the hub, weights of torchvision by name,
            or a file with a state dict.
        modality: "text" or "image".
        device: Where to compute; None for the GPU where there is one.

    Raises:
        ConfigError: The encoder is for the other modality, or the name is not allowed.
        EncoderError: The model is not to be found.
        DependencyError: A package is missing.

    Example:
        >>> get_encoder(None, "image").id
        'efficientnet-lite0'
    """
    if isinstance(spec, BaseEncoder):
        if getattr(spec, "modality", None) not in ("text", "image"):
            raise ConfigError(f"{type(spec).__name__} must set modality to 'text' or 'image'")
        if spec.modality != modality:
            raise ConfigError(
                f"the encoder {spec.id!r} encodes {spec.modality}s, the views are {modality}s"
            )
        return spec
    if spec is not None and not (isinstance(spec, str) and spec):
        raise ConfigError(
            f"encoder={spec!r}: allowed is a model's id or folder, or an instance of BaseEncoder"
        )
    name = DEFAULT_ENCODERS[modality] if spec is None else spec
    if modality == "text":
        return _text_encoder(name, device)
    if name == EfficientNetLite0Encoder.id:
        return EfficientNetLite0Encoder(device=device)
    if name.startswith(f"{EfficientNetLite0Encoder.id}/"):
        return EfficientNetLite0Encoder(device=device, size=_pixels(name))
    if name.startswith(_TORCHVISION):
        model, _, weights = name.removeprefix(_TORCHVISION).partition("@")
        return TorchvisionEncoder(model, weights=weights or None, device=device)
    return SentenceImageEncoder(name, device=device)


def _pixels(name: str) -> int:
    size = name.partition("/")[2]
    if not (size.endswith("px") and size[:-2].isdecimal()):
        raise ConfigError(f"encoder {name!r}: expected a size in pixels after the slash: 96px")
    return int(size[:-2])


def _text_encoder(name: str, device: torch.device | str | None) -> TextEncoder:
    if name.startswith(_TORCHVISION) or split_revision(name)[0] == EfficientNetLite0Encoder.id:
        raise ConfigError(f"the encoder {name!r} encodes images, the views are texts")
    return TextEncoder(name, device=device)
