"""Words of texts in any language: scripts that are written without spaces are read by character."""

from __future__ import annotations

import re

__all__ = ["UNSPACED_SCRIPTS", "split_words"]

# First and last code points of the letters and vowel signs of scripts that put no spaces between
# words. Punctuation and digits are left out; Korean and Tibetan separate words or syllables.
UNSPACED_SCRIPTS: tuple[tuple[int, int], ...] = (
    *((0x0E01, 0x0E3A), (0x0E40, 0x0E4E)),  # Thai
    *((0x0E81, 0x0EBD), (0x0EC0, 0x0ECE), (0x0EDC, 0x0EDF)),  # Lao
    *((0x1000, 0x103F), (0x1050, 0x108F), (0x109A, 0x109D), (0xA9E0, 0xA9EF), (0xAA60, 0xAA76)),
    *((0x1780, 0x17D3), (0x17DC, 0x17DD)),  # Khmer, and Burmese with its extensions above
    *((0x1950, 0x1974), (0x1980, 0x19C9), (0x1A20, 0x1A7F)),  # Tai Le, New Tai Lue, Tai Tham
    *((0x3041, 0x3096), (0x3099, 0x309A), (0x309D, 0x309F)),  # Hiragana
    *((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),  # Katakana
    *((0x1AFF0, 0x1B16F),),  # further kana
    *((0x3105, 0x312F), (0xA000, 0xA48C)),  # Bopomofo, Yi
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),  # Han
    *((0xF900, 0xFAFF), (0x20000, 0x323AF)),
)

_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def split_words(text: str) -> list[str]:
    """Return the words of a text, without punctuation.

    A word is a run of letters and digits or, of a script that is written without spaces (Chinese,
    Japanese, Thai, Lao, Burmese, Khmer, …), a single character.

    Args:
        text: Any text; case and Unicode form are left as they are.

    Example:
        >>> split_words("Rates up 2%, 米国株は続落")
        ['Rates', 'up', '2', '米', '国', '株', 'は', '続', '落']
    """
    return _WORD.findall(text)
