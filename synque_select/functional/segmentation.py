"""Words of texts in any language: scripts that are written without spaces are read by character."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

__all__ = ["UNSPACED_SCRIPTS", "composed_text", "is_mark", "split_words"]

# First and last code points of the letters and vowel signs of scripts that put no spaces between
# words: the classes ID, SA and AK of the line breaking algorithm (Unicode Standard Annex 14).
# Punctuation and digits are left out; Korean and Tibetan separate words or syllables.
UNSPACED_SCRIPTS: tuple[tuple[int, int], ...] = (
    *((0x0E01, 0x0E3A), (0x0E40, 0x0E4E)),  # Thai
    *((0x0E81, 0x0EBD), (0x0EC0, 0x0ECE), (0x0EDC, 0x0EDF)),  # Lao
    *((0x1000, 0x103F), (0x1050, 0x108F), (0x109A, 0x109D), (0xA9E0, 0xA9EF), (0xAA60, 0xAA76)),
    *((0xAA7A, 0xAADD), (0x1780, 0x17D3), (0x17DC, 0x17DD)),  # Tai Viet, Khmer; Burmese above
    *((0x1950, 0x1974), (0x1980, 0x19C9), (0x1A20, 0x1A7F)),  # Tai Le, New Tai Lue, Tai Tham
    *((0x11700, 0x1172B),),  # Ahom
    *((0xA980, 0xA9C0), (0xA9CF, 0xA9CF), (0x1B00, 0x1B4C)),  # Javanese, Balinese
    *((0x1A00, 0x1A1B), (0x1BC0, 0x1BF3), (0xAA00, 0xAA4D)),  # Buginese, Batak, Cham
    *((0x3041, 0x3096), (0x3099, 0x309A), (0x309D, 0x309F)),  # Hiragana
    *((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),  # Katakana
    *((0x1AFF0, 0x1B16F),),  # further kana
    *((0x3105, 0x312F), (0xA000, 0xA48C)),  # Bopomofo, Yi
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),  # Han
    *((0xF900, 0xFAFF), (0x20000, 0x323AF)),
    *((0x17000, 0x18CD5), (0x18D00, 0x18D08), (0x1B170, 0x1B2FB)),  # Tangut, Khitan, Nüshu
)

# What is not seen: soft hyphens, joiners and non-joiners, marks of direction, variation selectors.
# Programs and keyboards put them in or leave them out, and the word is the same.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
# Letters and digits in another width, and Arabic letters by their place in a word
_FORMS = re.compile(
    "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc\ufb50-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdfb"
    "\ufe70-\ufefc]+"
)
_ZERO_WIDTH_SPACE = "\u200b"
_ASCII_WORD = re.compile("[A-Za-z0-9]+")


def composed_text(text: str) -> str:
    r"""Return the form of a text in which equal words are equal strings.

    Letters with accents and the syllables of Korean are composed (NFC). Letters and digits of full
    or half width, and Arabic letters by their place in a word, become the usual ones. Other
    characters for which Unicode has a compatible form, such as "½", "…", "²" and full-width
    punctuation, stay: they are written on purpose, and NFKC would change more than the form of
    words. A zero-width space, which separates words in Thai and Khmer, becomes a space; other
    invisible characters are removed: joiners, soft hyphens, marks of direction, variation
    selectors.

    Args:
        text: Any text.

    Example:
        >>> composed_text("pho\u031b\u0309"), composed_text("ＡＩ ２"), composed_text("co\u00adop")
        ('phở', 'AI 2', 'coop')
    """
    if text.isascii():
        return text
    text = _INVISIBLE.sub("", text).replace(_ZERO_WIDTH_SPACE, " ")
    text = _FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return unicodedata.normalize("NFC", text)


def is_mark(character: str) -> bool:
    r"""Whether a character is part of the one before it: an accent, a vowel sign, a tone.

    Example:
        >>> is_mark("\u0301"), is_mark("a")
        (True, False)
    """
    return unicodedata.category(character)[0] == "M"


def split_words(text: str, n_characters: int = 1) -> list[str]:
    """Return the words of a text, without punctuation.

    A word is a run of letters and digits with their marks, such as accents and vowel signs, or, of
    a script that is written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer,
    Javanese, …), a single character.

    Args:
        text: Any text; `composed_text` is applied, and case is left as it is.
        n_characters: Number of adjacent characters that are a word of a script without spaces;
            words overlap, and a shorter run of characters is one word.

    Example:
        >>> split_words("Rates up 2%, 米国株は続落, खाना")
        ['Rates', 'up', '2', '米', '国', '株', 'は', '続', '落', 'खाना']
    """
    # most texts: without the tables of marks and scripts, 30 times as fast
    if text.isascii():
        return _ASCII_WORD.findall(text)
    letter, word = _patterns()
    words = []
    for run in word.findall(composed_text(text)):
        letters = letter.findall(run)
        n_starts = max(1, len(letters) - n_characters + 1) if letters else 0
        starts = range(n_starts)
        words += ["".join(letters[at : at + n_characters]) for at in starts] or [run]
    return words


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns of a letter of a script without spaces, and of a run of letters."""
    unspaced = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS)
    is_word = re.compile(f"[{unspaced}]").fullmatch
    marks = "".join(c for c in map(chr, range(sys.maxunicode)) if is_mark(c) and not is_word(c))
    letter = rf"[{unspaced}][{marks}]*"
    return re.compile(letter), re.compile(rf"(?:{letter})+|(?:[^\W_{unspaced}][{marks}]*)+")
