"""Images as text: PNG in base64, and the data URI that a page or a language model takes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["data_uri", "png_base64"]


def png_base64(image: Image) -> str:
    """Return an image as a PNG in base64."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def data_uri(content: Image | bytes | str, mime: str = "image/png") -> str:
    """Return the data URI of an image.

    Args:
        content: An image, which becomes a PNG; the bytes of a file; or a file in base64.
        mime: The file's media type.

    Example:
        >>> data_uri(b"<svg/>", "image/svg+xml")
        'data:image/svg+xml;base64,PHN2Zy8+'
    """
    if isinstance(content, bytes):
        content = base64.b64encode(content).decode("ascii")
    text = content if isinstance(content, str) else png_base64(content)
    return f"data:{mime};base64,{text}"
