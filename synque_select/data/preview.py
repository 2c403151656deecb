"""Previews of views for reports: a shortened text or a small image."""

from __future__ import annotations

from synque_select.data.views import View
from synque_select.utils.data_uri import png_base64
from synque_select.utils.wording import counted

__all__ = ["cut_at_word", "shown_view"]


def shown_view(view: View, max_chars: int = 1200, max_pixels: int = 96) -> str | dict[str, str]:
    """Return a view as a report shows it: a text that may be shortened, or {"png": base64}.

    Args:
        view: A text or a PIL image.
        max_chars: Maximum number of characters of a text that are shown.
        max_pixels: Maximum width and height of the image that is shown, in pixels.

    Example:
        >>> shown_view("one two three", max_chars=9)
        'one two … (13 characters)'
    """
    if isinstance(view, str):
        if len(view) <= max_chars:
            return view
        return f"{cut_at_word(view, max_chars)} … ({counted(len(view), 'character')})"
    image = view.copy()
    image.thumbnail((max_pixels, max_pixels))
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    return {"png": png_base64(image)}


def cut_at_word(text: str, max_chars: int) -> str:
    """Return the beginning of a text, which ends with a whole word if there is one.

    Args:
        text: The text.
        max_chars: Maximum number of characters.

    Example:
        >>> cut_at_word("one two three", 9), cut_at_word("onetwothree", 5)
        ('one two', 'onetw')
    """
    if len(text) <= max_chars:
        return text
    beginning = text[: max_chars + 1]
    words, _, _ = beginning.rpartition(" ")
    # without blanks, as in Chinese or a long link, it is cut anywhere
    return words.rstrip() if 2 * len(words) > max_chars else text[:max_chars]
