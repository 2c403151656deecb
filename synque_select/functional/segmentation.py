"""Words of texts in any language: scripts that are written without spaces are read by character."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

from synque_select.utils.unicode_forms import normalized

__all__ = ["EMOJI", "UNSPACED_SCRIPTS", "composed_text", "is_mark", "is_unsplit", "split_words"]

# First and last code points of the letters and vowel signs of scripts that put no spaces between
# words: the classes ID, CJ, SA, AK, AS, AP and VI of the line breaking algorithm (Unicode Standard
# Annex 14), and Vai, which Unicode breaks at spaces although it is mostly written without them.
# Punctuation and digits are left out; Korean and Tibetan separate words or syllables.
UNSPACED_SCRIPTS: tuple[tuple[int, int], ...] = (
    *((0x0E01, 0x0E3A), (0x0E40, 0x0E4E)),  # Thai
    *((0x0E81, 0x0EBD), (0x0EC0, 0x0ECE), (0x0EDC, 0x0EDF)),  # Lao
    *((0x1000, 0x103F), (0x1050, 0x108F), (0x109A, 0x109D), (0xA9E0, 0xA9EF), (0xAA60, 0xAA76)),
    *((0xA9FA, 0xA9FE), (0xAA7A, 0xAA7F)),  # Burmese, with Shan and others
    *((0xAA80, 0xAADD), (0x1780, 0x17D3), (0x17D7, 0x17D7), (0x17DC, 0x17DD)),  # Tai Viet, Khmer
    *((0x1950, 0x1974), (0x1980, 0x19C9), (0x1A20, 0x1A7F), (0x1AA7, 0x1AA7)),  # Tai Le to Tham
    *((0x11700, 0x1172B), (0x11740, 0x11746)),  # Ahom
    *((0x11000, 0x11046), (0x11070, 0x11075), (0x11300, 0x11363)),  # Brahmi, Grantha
    *((0x11380, 0x113D3), (0x11900, 0x11943), (0x11EE0, 0x11EF6)),  # Tulu, Dives Akuru, Makasar
    *((0x11F00, 0x11F42), (0xA500, 0xA60C), (0xA610, 0xA61F), (0xA62A, 0xA62B)),  # Kawi, Vai
    *((0xA980, 0xA9C0), (0xA9CF, 0xA9CF), (0x1B00, 0x1B4C)),  # Javanese, Balinese
    *((0x1A00, 0x1A1B), (0x1BC0, 0x1BF3), (0xAA00, 0xAA4D)),  # Buginese, Batak, Cham
    *((0x3041, 0x3096), (0x3099, 0x309A), (0x309D, 0x309F)),  # Hiragana
    *((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),  # Katakana
    *((0x1AFF0, 0x1B16F),),  # further kana
    *((0x3105, 0x312F), (0x31A0, 0x31BF), (0xA000, 0xA48C)),  # Bopomofo, Yi
    *((0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x3400, 0x4DBF)),  # Han
    *((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3347F)),
    *((0x17000, 0x18CD5), (0x18D00, 0x18D08), (0x1B170, 0x1B2FB)),  # Tangut, Khitan, Nüshu
)

# Pictures, each of which is a word of its own: emoji and other symbols of their blocks, and the
# letters of flags. Skin tones belong to the picture before them
EMOJI: tuple[tuple[int, int], ...] = (
    *((0x231A, 0x231B), (0x23E9, 0x23FA), (0x2600, 0x2767), (0x2794, 0x27BF)),
    *((0x2B1B, 0x2B1C), (0x2B50, 0x2B50), (0x2B55, 0x2B55), (0x1F000, 0x1F0FF)),
    *((0x1F1E6, 0x1F1FF), (0x1F300, 0x1F3FA), (0x1F400, 0x1FAFF)),
)
# longer words are rare in every language; a syllable of Korean counts as three letters
_LONGEST_WORD = 24
_KOREAN = re.compile("[\uac00-\ud7a3]")

# What is not seen: soft hyphens, joiners and non-joiners, marks of direction, variation selectors.
# Programs and keyboards put them in or leave them out, and the word is the same.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
# Letters and digits in another width, Arabic letters by their place in a word, radicals in the
# place of Chinese characters, as PDF files give them, and AM of Thai and Lao, which is two signs
_FORMS = re.compile(
    "[\u0e33\u0eb3\u2e9f\u2ef3\u2f00-\u2fd5\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
    "\ufb50-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdfb"
    "\ufe70-\ufefc]+"
)
# the first of these two signs comes before a tone mark or after it
_TONE_BEFORE_SIGN = re.compile("([\u0e48-\u0e4b])\u0e4d|([\u0ec8-\u0ecb])\u0ecd")
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
    text = _FORMS.sub(lambda match: normalized(match[0], "NFKC"), text)
    text = _TONE_BEFORE_SIGN.sub(lambda match: match[0][::-1], text)
    return normalized(text)


def is_mark(character: str) -> bool:
    r"""Whether a character is part of the one before it: an accent, a vowel sign, a skin tone.

    Example:
        >>> is_mark("\u0301"), is_mark("a")
        (True, False)
    """
    return unicodedata.category(character)[0] == "M" or "\U0001f3fb" <= character <= "\U0001f3ff"


def split_words(text: str, n_characters: int = 1) -> list[str]:
    """Return the words of a text, without punctuation.

    A word is a run of letters and digits with their marks, such as accents and vowel signs, or, of
    a script that is written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer,
    Javanese, …), a single character. Of a text that has none, such as one of emoji, each emoji is
    a word.

    Args:
        text: Any text; `composed_text` is applied, and case is left as it is.
        n_characters: Number of adjacent characters that are a word of a script without spaces;
            words overlap, and a shorter run of characters is one word. Characters are adjacent
            also across white space, which programs put between the words of such scripts.

    Example:
        >>> split_words("Rates up 2%, 米国株は続落, खाना")
        ['Rates', 'up', '2', '米', '国', '株', 'は', '続', '落', 'खाना']
    """
    # most texts: without the tables of marks and scripts, 30 times as fast
    if text.isascii():
        return _ASCII_WORD.findall(text)
    plain = composed_text(text)
    return _words_of(plain, n_characters, _patterns()) or _words_of(plain, n_characters, _emoji())


def is_unsplit(texts: Iterable[str]) -> bool:
    """Whether most texts are long runs of letters, which have no words that can be counted.

    Such a text has over half of its letters in runs of more than 24: English without spaces, Korean
    without spaces (8 syllables), or sequences of DNA.

    Args:
        texts: Any texts; those without words are not counted.

    Example:
        >>> is_unsplit(["ACGT" * 10, "TTGA" * 9]), is_unsplit(["How many apps?"])
        (True, False)
    """
    n_texts = n_unsplit = 0
    for text in texts:
        lengths = [len(word) + 2 * len(_KOREAN.findall(word)) for word in split_words(text)]
        n_texts += bool(lengths)
        n_unsplit += 2 * sum(n for n in lengths if n > _LONGEST_WORD) > sum(lengths)
    return 2 * n_unsplit > n_texts


_Patterns: TypeAlias = tuple[re.Pattern[str], re.Pattern[str]]


def _words_of(text: str, n_characters: int, patterns: _Patterns) -> list[str]:
    letter, word = patterns
    words = []
    for run in word.findall(text):
        letters = letter.findall(run)
        n_starts = max(1, len(letters) - n_characters + 1) if letters else 0
        starts = range(n_starts)
        words += ["".join(letters[at : at + n_characters]) for at in starts] or [run]
    return words


@functools.cache
def _patterns() -> _Patterns:
    """Return patterns of a letter of a script without spaces, and of a run of letters."""
    unspaced, marks = _class(UNSPACED_SCRIPTS), _marks()
    letter = rf"[{unspaced}][{marks}]*"
    return re.compile(letter), re.compile(
        rf"{letter}(?:\s*{letter})*|(?:[^\W_{unspaced}][{marks}]*)+"
    )


@functools.cache
def _emoji() -> _Patterns:
    """Return patterns of an emoji, and of a run of them."""
    picture = rf"[{_class(EMOJI)}][{_marks()}]*"
    return re.compile(picture), re.compile(rf"{picture}(?:\s*{picture})*")


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


@functools.cache
def _marks() -> str:
    """Return the marks that are not letters of a script without spaces."""
    is_word = re.compile(f"[{_class(UNSPACED_SCRIPTS)}]").fullmatch
    return "".join(c for c in map(chr, range(sys.maxunicode)) if is_mark(c) and not is_word(c))
