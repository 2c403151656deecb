from __future__ import annotations

import time
import unicodedata

import pytest

from synque_select.functional.ngram import hash_ngrams
from synque_select.functional.segmentation import (
    UNSPACED_SCRIPTS,
    composed_text,
    is_unsplit,
    split_words,
)


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
    assert split_words("数据，集 AI株", 2) == ["数据", "集", "AI", "株"]
    assert split_words("ข้าว, a", 2) == ["ข้", "้า", "าว", "a"]
    assert split_words("か\u0300き", 2) == ["か\u0300き"]
    assert split_words("", 2) == []


@pytest.mark.parametrize(
    "spaced", ["米饭 面条", "米 饭 面 条", "米饭\n面条", "米饭\u3000面条", "米饭\u200b面条"]
)
def test_spaces_between_characters_change_no_pairs(spaced: str):
    # programs put spaces between the words or characters of such scripts
    assert split_words(spaced, 2) == split_words("米饭面条", 2) == ["米饭", "饭面", "面条"]
    assert hash_ngrams([spaced]).buckets.tolist() == hash_ngrams(["米饭面条"]).buckets.tolist()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("⽇本⽕曜⽇", "日本火曜日"),  # radicals of Kangxi, from PDF files
        ("น้ำ", "น\u0e49\u0e4d\u0e32"),  # AM of Thai as two signs, in both orders
        ("น้ำ", "น\u0e4d\u0e49\u0e32"),
        ("ນ້ຳ", "ນ\u0ec9\u0ecd\u0eb2"),
    ],
)
def test_one_character_in_two_spellings_is_one_word(left: str, right: str):
    assert split_words(left) == split_words(right)


def test_words_of_many_marks_take_linear_time():
    started = time.process_time()
    text = "a" + "\u0301\u0323" * 50_000 + " b"
    assert split_words(text)[-1] == "b"
    assert not is_unsplit(["x", "y", text])
    assert time.process_time() - started < 5


def test_a_text_without_letters_is_read_by_its_emoji():
    assert split_words("🍎🍌 👍🏽!", 2) == ["🍎🍌", "🍌👍🏽"]
    assert split_words("🇫🇷☀\ufe0f", 1) == ["🇫", "🇷", "☀"]
    assert split_words("good 🍎🍌") == ["good"]  # as punctuation, where there are words


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["ACGT" * 12, "TTGA" * 8, "a short one"], True),
        (["ACGT" * 12, "How many apps?"], False),
        (["김치비빔밥불고기떡볶이라면국수김치라면"], True),
        (["오늘아침에밥을먹었다", "회사에서회의를했습니다"], True),
        (["howmanyappshaveatleastfivestars", "HowManyPeopleHaveTenAppsOrMore"], True),
        (["how_many_apps_have_at_least_five_stars"], False),
        (["김치를 먹고 은행에 갔습니다"], False),
        (
            ["Donaudampfschifffahrtsgesellschaftskapitäne fahren gern", "Die Donau ist lang"],
            False,
        ),
        (["https://www.example.com/a/long/path?with=query&and=more"], False),
        (["米饭面条豆腐青菜牛肉鸡蛋好吃喝汤厨房早餐餐厅辣椒米饭面条豆腐青菜"], False),
        (["…", ""], False),
    ],
)
def test_long_runs_of_letters_have_no_words_to_count(texts: list[str], expected: bool):
    assert is_unsplit(texts) == expected


def test_the_scripts_without_spaces_are_those_of_unicode():
    regex = pytest.importorskip("regex")  # knows more properties than Python
    classes = "".join(rf"\p{{LB={name}}}" for name in ("ID", "CJ", "SA", "AK", "AS", "AP", "VI"))
    breaks = regex.compile(f"[{classes}]").match
    # letters of full or half width are read as the usual ones, and Korean separates its words
    known = regex.compile(r"[\p{Hangul}\p{Latin}]").match
    inside = {code for first, last in UNSPACED_SCRIPTS for code in range(first, last + 1)}
    letters = {
        code
        for code in range(0x110000)
        if breaks(chr(code)) and unicodedata.category(chr(code))[0] in "LM"
    }
    assert {chr(code) for code in letters - inside if not known(chr(code))} == set()


@pytest.mark.parametrize("kept", ["½ cup", "x²", "wait…", "™", "ﬁn", "很好！", "a\u00a0b", "①"])
def test_what_is_written_on_purpose_stays(kept: str):
    assert composed_text(kept) == kept


def test_the_ranges_hold_letters_and_signs_but_no_digits_or_punctuation():
    for first, last in UNSPACED_SCRIPTS:
        kinds = {unicodedata.category(chr(code)) for code in range(first, last + 1)}
        # Cn: not assigned in this version of Unicode
        assert kinds <= {"Lo", "Lm", "Mn", "Mc", "Cn", "Nl", "No"}, hex(first)
