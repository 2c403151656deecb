"""Encoders turn views into embeddings, cached by content."""

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.cache import Embedded, default_cache_dir, embed
from synque_select.encoders.image import (
    EfficientNetLite0Encoder,
    SentenceImageEncoder,
    TorchvisionEncoder,
)
from synque_select.encoders.registry import DEFAULT_ENCODERS, get_encoder
from synque_select.encoders.text import TextEncoder

__all__ = [
    "DEFAULT_ENCODERS",
    "BaseEncoder",
    "EfficientNetLite0Encoder",
    "Embedded",
    "SentenceImageEncoder",
    "TextEncoder",
    "TorchvisionEncoder",
    "default_cache_dir",
    "embed",
    "get_encoder",
]
