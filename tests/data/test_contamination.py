"""Every exact or near duplicate is counted once and reported in a sentence."""

from __future__ import annotations

import io
import string
import time
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from synque_select.data import contamination
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.contamination import (
    Overlap,
    check_real_copies,
    contamination_messages,
    count_overlap,
)
from synque_select.errors import ConfigError, DataError

REAL = RealSample(
    "real",
    [
        "What is the average rating of all the free apps in the store?",
        "How many apps?",
        "Ｗｉｄｅ letters, STRASSE!",
        "日本語の文章です",
        "🎉",
        "3.5 percent",
        "tôi thích ăn phở bò",
        "मुझे खाना पसंद है",
    ],
)


@pytest.mark.parametrize(
    ("text", "n_exact", "n_near", "at"),
    [
        ("How many apps?", 1, 0, 1),
        ("how   many APPS", 0, 1, 1),
        ("many apps how", 0, 1, 1),
        ("How many rows?", 0, 0, None),
        ("What is the average rating of all the free apps in this store?", 0, 1, 0),
        ("What is the average price of all the paid games in the store?", 0, 0, None),
        ("wide letters straße", 0, 1, 2),
        ("日本語の文章でした", 0, 0, None),
        ("日本 語の 文章 です", 0, 1, 3),
        ("日本語の文章です。", 0, 1, 3),
        ("🎉 ", 0, 1, 4),
        ("🎊", 0, 0, None),
        ("35 percent", 0, 0, None),
        ("", 0, 0, None),
        (unicodedata.normalize("NFD", "tôi thích ăn phở bò"), 1, 0, 6),
        (unicodedata.normalize("NFD", "Tôi thích ăn\u200b PHỞ BÒ"), 0, 1, 6),
        ("toi thich an pho bo", 0, 0, None),
        ("मुझे खाना पसंद\u200d है!", 0, 1, 7),
        ("मझ खान पसद ह", 0, 0, None),
    ],
)
def test_texts(text: str, n_exact: int, n_near: int, at: int | None):
    candidate = Candidate("a", ["nothing of the kind", text])
    pairs = () if at is None else ((1, at),)
    assert count_overlap(candidate, REAL) == Overlap(n_exact, n_near, pairs)


FOOD = "ข้าวผัด กุ้ง ต้มยำ แกงเขียวหวาน อร่อย ร้านอาหาร ก๋วยเตี๋ยว น้ำพริก มะม่วง ไก่ย่าง"
FINANCE = "ตลาดหุ้น ธนาคาร ดอกเบี้ย พันธบัตร ลงทุน งบการเงิน เงินเฟ้อ ค่าเงินบาท ผู้ถือหุ้น"


def test_long_texts_of_an_alphabet_without_spaces_are_not_near():
    letters = "".join(chr(code) for code in (*range(0x0E01, 0x0E2F), *range(0x0E40, 0x0E45)))
    food, finance = (letters + text.replace(" ", "") for text in (FOOD, FINANCE))
    food, finance = food[::-1] + food[::3], finance + finance[::3]
    assert count_overlap(Candidate("a", [food, "x"]), RealSample("r", [finance, "y"])).n_near == 0
    near = food.replace("ก", "ข", 1)
    assert count_overlap(Candidate("a", [near, "x"]), RealSample("r", [food, "y"])).n_near == 1


WORDS = st.lists(st.sampled_from(string.ascii_lowercase[:9]), min_size=1, max_size=9).map(" ".join)
TEXTS = st.lists(WORDS, min_size=2, max_size=25)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_near_texts_are_those_of_the_definition(made: list[str], real: list[str]):
    overlap = count_overlap(Candidate("a", made), RealSample("r", real))

    def near(text: str) -> bool:
        words = set(text.split())
        return any(
            len(words & set(other.split())) / len(words | set(other.split())) >= 0.8
            for other in real
        )

    exact = [text in real for text in made]
    assert overlap.n_exact == sum(exact)
    assert overlap.n_near == sum(near(t) for t, same in zip(made, exact, strict=True) if not same)
    assert len(overlap.examples) == min(3, overlap.n_exact + overlap.n_near)
    for position, other in overlap.examples[: overlap.n_exact]:
        assert made[position] == real[other]


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_either_side_does_not_matter(texts: list[str], random: Any):
    real = RealSample("r", ["a b c d e", "f g h", *texts[::2], "i"])
    counts = []
    for _ in range(2):
        overlap = count_overlap(Candidate("a", texts), real)
        counts.append((overlap.n_exact, overlap.n_near))
        texts = random.sample(texts, len(texts))
        real = RealSample("r", random.sample(list(real.dataset), len(real)))  # type: ignore[call-overload]
    assert counts[0] == counts[1]


def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    texts = [f"question number {i} of {i % 7}" for i in range(100)]
    candidate, real = Candidate("a", texts), RealSample("r", [*texts[::5], "of 3 number 3"])
    whole = count_overlap(candidate, real)
    monkeypatch.setattr(contamination, "_BLOCK", 7)
    assert count_overlap(candidate, real) == whole


def test_the_time_grows_with_the_candidate_not_with_its_square():
    words = np.array([f"w{i}" for i in range(3000)])
    draw = np.random.default_rng(0)

    def texts(n: int) -> list[str]:
        return [" ".join(row) for row in words[draw.integers(0, len(words), (n, 12))]]

    real = RealSample("r", texts(200))
    candidate = Candidate("a", texts(50_000))
    _ = candidate.digests
    started = time.perf_counter()
    assert count_overlap(candidate, real).n_near == 0
    assert time.perf_counter() - started < 15  # a second on one core; all pairs take minutes


# --------------------------------------------------------------------------------------- images


def crops() -> list[Image.Image]:
    """Disjoint parts of two photographs that are not plain sky."""
    tiles = []
    for photo in load_sample_images()["images"]:
        for top in range(0, photo.shape[0] - 96, 96):
            for left in range(0, photo.shape[1] - 96, 96):
                part = photo[top : top + 96, left : left + 96]
                if part.std() > 30:
                    tiles.append(Image.fromarray(part))
    return tiles


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=75)
    return Image.open(buffer)


CHANGES = {
    "jpeg": jpeg,
    "smaller": lambda image: image.resize((48, 48)),
    "larger": lambda image: image.resize((224, 224)),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "with alpha": lambda image: image.convert("RGBA"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_images_are_near(change: str):
    images = crops()
    assert len(images) > 15
    real = RealSample("r", images)
    changed = Candidate("a", [CHANGES[change](image) for image in images])
    overlap = count_overlap(changed, real)
    assert (overlap.n_exact, overlap.n_near) == (0, len(images))
    assert overlap.examples == ((0, 0), (1, 1), (2, 2))


def test_different_images_are_not_near():
    images = crops()
    overlap = count_overlap(Candidate("a", images[::2]), RealSample("r", images[1::2]))
    assert overlap == Overlap(0, 0)


def test_different_digits_are_not_near():
    images = load_digits().images.astype(np.uint8) * 15
    overlap = count_overlap(Candidate("a", images[100:]), RealSample("r", images[:100]))
    assert (overlap.n_exact, overlap.n_near) == (0, 0)


def test_images_of_one_color_have_no_near_duplicates():
    grey = [np.full((9, 9), value, dtype=np.uint8) for value in (0, 100, 101, 255)]
    assert count_overlap(Candidate("a", grey[:2]), RealSample("r", grey[2:])) == Overlap(0, 0)
    assert count_overlap(Candidate("a", grey[1:3]), RealSample("r", grey[1:])).n_exact == 2


# ------------------------------------------------------------------------------------- sentences


def test_a_sentence_for_each_pair_that_overlaps():
    a = Candidate("a", ["How many apps?", "how many apps", "x" * 100, "new"])
    b = Candidate("b", ["new one", "another one"])
    long = RealSample("r", ["x" * 100, "y"])
    messages = contamination_messages([a, b], {"real sample": REAL, "test data": long})
    shown = "x" * 79 + "…"
    assert messages == (
        "a: 2 of 4 examples are also in the real sample (1 exact copy, 1 near copy): "
        "'How many apps?', 'how many apps'.",
        f"a: 1 of 4 examples is also in the test data (1 exact copy): '{shown}'.",
    )
    assert contamination_messages([b], {"real sample": REAL}) == ()


def test_at_most_three_are_shown_exact_ones_first():
    made = Candidate("a", ["Text one!", "text one", "Text two!", "text two", "text three"])
    real = RealSample("r", ["text three", "text two", "text one"])
    assert count_overlap(made, real) == Overlap(3, 2, ((1, 2), (3, 1), (4, 0)))


def test_images_are_shown_by_position():
    images = crops()[:3]
    data = {"data": RealSample("r", images[:2])}
    (message,) = contamination_messages([Candidate("a", images)], data)
    assert message.endswith("(2 exact copies): example 0, example 1.")


def test_texts_and_images_are_not_compared():
    with pytest.raises(
        ConfigError, match="a holds images, but real holds texts; both must be of the same modality"
    ):
        count_overlap(Candidate("a", crops()[:2]), REAL)


def test_an_example_without_a_view_is_named():
    candidate = Candidate("a", [{"t": "x"}, {"t": None}], "t")
    with pytest.raises(DataError, match="a, example 1 "):
        count_overlap(candidate, REAL)


def test_a_candidate_that_equals_the_real_sample_is_reported():
    texts = ["How many apps?", "Which app?"]
    (message,) = contamination_messages(
        [Candidate("a", texts[::-1])], {"real sample": RealSample("real", texts)}
    )
    assert message.startswith("a: all of its 2 examples are in the real sample: leave it out")


# ------------------------------------------------------------------------ copies of the real sample


def sentences_of(n: int, seed: int, n_words: int = 12) -> list[str]:
    """Sentences of common and of rare words, as in real text."""
    generator = np.random.default_rng(seed)
    ranks = np.arange(1, 3001)
    chances = 1 / ranks / (1 / ranks).sum()
    return [
        " ".join(f"w{i}" for i in generator.choice(ranks, n_words, p=chances)) for _ in range(n)
    ]


def reworded(texts: list[str], share: float) -> list[str]:
    generator = np.random.default_rng(7)
    made = []
    for text in texts:
        words = text.split()
        for at in generator.choice(len(words), round(share * len(words)), replace=False):
            words[at] = f"new{generator.integers(3000)}"
        made.append(" ".join(words))
    return made


@pytest.mark.parametrize("share", [0.0, 0.2, 1 / 3])
@pytest.mark.parametrize("n_others", [0, 300])
def test_a_reworded_real_sample_is_a_copy(share: float, n_others: int):
    texts = sentences_of(40, seed=0)
    copy = Candidate("copy", reworded(texts, share) + sentences_of(n_others, seed=1))
    honest = Candidate("honest", sentences_of(400, seed=2))
    messages, copies = check_real_copies([copy, honest], RealSample("real", texts))
    assert copies == ("copy",)
    assert any("copy: " in message for message in messages)


def test_a_few_real_examples_make_no_copy():
    texts = sentences_of(40, seed=0)
    few = Candidate("few", texts[:20] + sentences_of(100, seed=1))
    messages, copies = check_real_copies([few], RealSample("real", texts))
    assert copies == ()
    assert "20 of 120 examples are also in the real sample" in messages[0]


def test_texts_of_few_words_are_near_each_other_without_being_copies():
    def drawn(n: int, seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return [
            " ".join(f"w{i}" for i in generator.choice(9, 5, replace=False)) + f" {seed}-{j}"
            for j in range(n)
        ]

    candidates = [Candidate(f"c{seed}", drawn(200, seed)) for seed in (1, 2)]
    assert check_real_copies(candidates, RealSample("real", drawn(16, 0)))[1] == ()
