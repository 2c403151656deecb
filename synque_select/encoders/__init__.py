"""Encoders turn views into embeddings, cached by content."""

from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.embedding_cache import Embedded, embed
from synque_select.encoders.image import (
    EfficientNetLite0Encoder,
    SentenceImageEncoder,
    TorchvisionEncoder,
)
from synque_select.encoders.registry import DEFAULT_ENCODERS, get_encoder
from synque_select.encoders.text import TextEncoder
from synque_select.utils.cache_dir import default_cache_dir

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
