from __future__ import annotations

import unicodedata

import pytest

from synque_select.functional.segmentation import UNSPACED_SCRIPTS, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Rates up 2%, or not?", ["Rates", "up", "2", "or", "not"]),
        ("don't a_b", ["don", "t", "a", "b"]),
        ("数据 2024年。", ["数", "据", "2024", "年"]),
        ("ラーメン・寿司", ["ラ", "ー", "メ", "ン", "寿", "司"]),
        ("กิน ๑๒ บาท฿", ["ก", "ิ", "น", "๑๒", "บ", "า", "ท"]),
        ("한국어는 띄어", ["한국어는", "띄어"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("…!", []),
    ],
)
def test_words(text: str, words: list[str]):
    assert split_words(text) == words


def test_the_ranges_hold_letters_and_signs_but_no_digits_or_punctuation():
    for first, last in UNSPACED_SCRIPTS:
        kinds = {unicodedata.category(chr(code)) for code in range(first, last + 1)}
        # Cn: not assigned in this version of Unicode
        assert kinds <= {"Lo", "Lm", "Mn", "Mc", "Cn", "Nl", "No"}, hex(first)
