"""Encoders by name: built in, registered, or from an installed package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from synque_select.encoders.base import BaseEncoder
from synque_select.errors import ConfigError
from synque_select.hub.resolve import split_revision
from synque_select.types.modality import Modality
from synque_select.utils.registry import (
    Registry,
    check_options,
    checked_class,
    is_dotted,
    named_parameters,
    split_options,
)

__all__ = ["DEFAULT_ENCODERS", "ENCODERS", "get_encoder", "register_encoder"]

Encoder = TypeVar("Encoder", bound=BaseEncoder)

_BUILT_IN = {
    "efficientnet-lite0": "synque_select.encoders.image:EfficientNetLite0Encoder",
    "sentence-transformers": "synque_select.encoders.text:TextEncoder",
    "sentence-transformers-image": "synque_select.encoders.image:SentenceImageEncoder",
    "torchvision": "synque_select.encoders.image:TorchvisionEncoder",
}
DEFAULT_ENCODERS: dict[Modality, str] = {
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "image": "efficientnet-lite0",
}
_LITE0 = "efficientnet-lite0"
_TORCHVISION = "torchvision/"


def _check_class(value: object) -> type[BaseEncoder]:
    cls: type[BaseEncoder] = checked_class(value, BaseEncoder, "encoder")
    return cls


ENCODERS: Registry[type[BaseEncoder]] = Registry(
    "encoder", "synque_select.encoders", _BUILT_IN, check=_check_class
)


def register_encoder(
    key: str, *, overwrite: bool = False
) -> Callable[[type[Encoder]], type[Encoder]]:
    """Register a custom encoder under a key; used as a class decorator.

    Args:
        key: Key to select the encoder with `encoder=`. The encoder's `id` should begin with it,
            because a ranking file stores the id, from which the encoder is created again.
        overwrite: Whether the encoder may replace a built-in or registered encoder.

    Raises:
        ConfigError: The key is taken, or the class lacks a method.
    """

    def register(cls: type[Encoder]) -> type[Encoder]:
        ENCODERS.register(key, cls, overwrite=overwrite)
        return cls

    return register


def get_encoder(
    spec: str | BaseEncoder | None,
    modality: Modality,
    *,
    device: torch.device | str | None = None,
) -> BaseEncoder:
    """Return the encoder with the given name for a modality.

    Args:
        spec: None for the default; an encoder, returned unchanged; or a name. Texts: a folder or
            hub id of a sentence-transformers model. Images: "efficientnet-lite0" (for another
            size, "efficientnet-lite0/96px"), "torchvision/<model>", or a sentence-transformers
            model. "name@revision" selects a revision on the hub, torchvision weights by name,
            or a file with a state dict. A custom encoder: its key or dotted name. Options follow
            after colons: "all-MiniLM-L6-v2:backend=openvino", "my_package.MyEncoder:dim=64".
        modality: "text" or "image".
        device: Device to compute on; None for a GPU if there is one. A custom encoder receives it
            if its constructor has an argument `device`.

    Raises:
        ConfigError: The encoder is for another modality, or the name is invalid.
        EncoderError: The model cannot be found.
        DependencyError: A package is missing.

    Example:
        >>> get_encoder(None, "image").id
        'efficientnet-lite0'
    """
    if isinstance(spec, BaseEncoder):
        return _checked(spec, modality)
    if spec is not None and not (isinstance(spec, str) and spec):
        raise ConfigError(
            f"encoder={spec!r}: allowed is a model's id or folder, or an instance of BaseEncoder"
        )
    name = DEFAULT_ENCODERS[modality] if spec is None else spec
    # the name of a folder may contain dots and colons
    key, options = (name, {}) if Path(name).exists() else split_options(name)
    if key in ENCODERS or (is_dotted(key) and not Path(name).exists()):
        return _from_registry(key, options, modality, device)
    make = _text_encoder if modality == "text" else _image_encoder
    return make(key, options, device)


def _from_registry(
    key: str,
    options: Mapping[str, object],
    modality: Modality,
    device: torch.device | str | None,
) -> BaseEncoder:
    # check the class first, if it states its modality, to avoid loading the wrong model
    stated = getattr(ENCODERS.get(key), "modality", modality)
    if stated in ("text", "image") and stated != modality:
        raise ConfigError(f"the encoder {key!r} encodes {stated}s, the views are {modality}s")
    return _checked(_make(key, options, device), modality)


def _make(
    key: str, options: Mapping[str, object], device: torch.device | str | None
) -> BaseEncoder:
    cls = ENCODERS.get(key)
    check_options(f"encoder {key!r}", cls, options)
    takes_device = any(parameter.name == "device" for parameter in named_parameters(cls))
    return cls(**({"device": device} if takes_device else {}), **options)


def _checked(encoder: BaseEncoder, modality: Modality) -> BaseEncoder:
    if getattr(encoder, "modality", None) not in ("text", "image"):
        raise ConfigError(f"{type(encoder).__name__} must set modality to 'text' or 'image'")
    if encoder.modality != modality:
        raise ConfigError(
            f"the encoder {encoder.id!r} encodes {encoder.modality}s, the views are {modality}s"
        )
    return encoder


def _image_encoder(
    name: str, options: Mapping[str, object], device: torch.device | str | None
) -> BaseEncoder:
    if name.startswith(f"{_LITE0}/"):
        return _make(_LITE0, {**options, "size": _pixels(name)}, device)
    if name.startswith(_TORCHVISION):
        model, _, weights = name.removeprefix(_TORCHVISION).partition("@")
        named = {"name": model, "weights": weights or None}
        return _make("torchvision", {**options, **named}, device)
    return _make("sentence-transformers-image", {**options, "model_id": name}, device)


def _pixels(name: str) -> int:
    size = name.partition("/")[2]
    if not (size.endswith("px") and size[:-2].isdecimal()):
        raise ConfigError(f"encoder {name!r}: expected a size in pixels after the slash: 96px")
    return int(size[:-2])


def _text_encoder(
    name: str, options: Mapping[str, object], device: torch.device | str | None
) -> BaseEncoder:
    if name.startswith(_TORCHVISION) or split_revision(name)[0] == _LITE0:
        raise ConfigError(f"the encoder {name!r} encodes images, the views are texts")
    return _make("sentence-transformers", {**options, "model_id": name}, device)
