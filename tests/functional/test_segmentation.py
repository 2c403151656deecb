from __future__ import annotations

import unicodedata

import pytest

from synque_select.functional.segmentation import UNSPACED_SCRIPTS, composed_text, split_words


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
        ("मुझे खाना पसंद है", ["मुझे", "खाना", "पसंद", "है"]),
        ("pho\u031b\u0309 bò", ["phở", "bò"]),
        (
            "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
            ["\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"],
        ),
        ("مَرْحَبًا بِك", ["مَرْحَبًا", "بِك"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("བོད་སྐད་", ["བོད", "སྐད"]),
        ("ꦱꦼꦒ꧉", ["ꦱ", "ꦼ", "ꦒ"]),
        ("ខ្ញុំ\u200bចូល", ["ខ", "្", "ញ", "ុ", "ំ", "ច", "ូ", "ល"]),
        ("\u1112\u1161\u11ab글", ["한글"]),
        ("ＡＩ、ﾄﾞﾙ", ["AI", "ド", "ル"]),
        ("\u0301 x", ["x"]),
    ],
)
def test_words(text: str, words: list[str]):
    assert split_words(text) == words


def test_pairs_of_characters():
    assert split_words("数据 集, AI株 ข้าว", 2) == ["数据", "集", "AI", "株", "ข้", "้า", "าว"]
    assert split_words("か\u0300き", 2) == ["か\u0300き"]
    assert split_words("", 2) == []


@pytest.mark.parametrize("kept", ["½ cup", "x²", "wait…", "™", "ﬁn", "很好！", "a\u00a0b", "①"])
def test_what_is_written_on_purpose_stays(kept: str):
    assert composed_text(kept) == kept


def test_the_ranges_hold_letters_and_signs_but_no_digits_or_punctuation():
    for first, last in UNSPACED_SCRIPTS:
        kinds = {unicodedata.category(chr(code)) for code in range(first, last + 1)}
        # Cn: not assigned in this version of Unicode
        assert kinds <= {"Lo", "Lm", "Mn", "Mc", "Cn", "Nl", "No"}, hex(first)
