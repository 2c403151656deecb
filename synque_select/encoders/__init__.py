"""Encoders turn views into embeddings, which are cached by content.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.encoders.base import BaseEncoder
    from synque_select.encoders.embedding_cache import Embedded, embed
    from synque_select.encoders.image import (
        EfficientNetLite0Encoder,
        SentenceImageEncoder,
        TorchvisionEncoder,
    )
    from synque_select.encoders.registry import DEFAULT_ENCODERS, get_encoder, register_encoder
    from synque_select.encoders.text import TextEncoder

__all__ = [
    "DEFAULT_ENCODERS",
    "BaseEncoder",
    "EfficientNetLite0Encoder",
    "Embedded",
    "SentenceImageEncoder",
    "TextEncoder",
    "TorchvisionEncoder",
    "embed",
    "get_encoder",
    "register_encoder",
]

__getattr__ = lazy_names(
    __name__,
    {
        "DEFAULT_ENCODERS": "registry",
        "BaseEncoder": "base",
        "EfficientNetLite0Encoder": "image",
        "Embedded": "embedding_cache",
        "SentenceImageEncoder": "image",
        "TextEncoder": "text",
        "TorchvisionEncoder": "image",
        "embed": "embedding_cache",
        "get_encoder": "registry",
        "register_encoder": "registry",
    },
)
