"""Previews of views for reports: a shortened text or a small image."""

from __future__ import annotations

from synque_select.data.views import View
from synque_select.utils.data_uri import png_base64
from synque_select.utils.wording import counted

__all__ = ["shown_view"]


def shown_view(view: View, max_chars: int = 400, max_pixels: int = 96) -> str | dict[str, str]:
    """Return a view as a report shows it: a text that may be shortened, or {"png": base64}.

    Args:
        view: A text or a PIL image.
        max_chars: Maximum number of characters of a text that are shown.
        max_pixels: Maximum width and height of the image that is shown, in pixels.

    Example:
        >>> shown_view("a" * 5, max_chars=3)
        'aaa … (5 characters)'
    """
    if isinstance(view, str):
        cut = len(view) > max_chars
        return f"{view[:max_chars]} … ({counted(len(view), 'character')})" if cut else view
    image = view.copy()
    image.thumbnail((max_pixels, max_pixels))
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    return {"png": png_base64(image)}
