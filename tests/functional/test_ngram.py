from __future__ import annotations

import math
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from synque_select.data.views import digest
from synque_select.errors import ConfigError, ProxyError
from synque_select.functional import ngram as module
from synque_select.functional.ngram import (
    expected_log_counts,
    hash_ngrams,
    hash_tokens,
    iter_chunks,
    ngram_counts,
    ngram_cross_entropy,
    ngram_entropy,
    ngram_log_probabilities,
    sum_by_text,
)
from synque_select.functional.segmentation import EMOJI, UNSPACED_SCRIPTS, composed_text
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.lexical import NGram
from synque_select.proxies.registry import default_suite, resolve_suite

CPU = torch.device("cpu")
AWKWARD = [
    "How many apps, in total?",
    "",
    "   ",
    "don’t — “stop”!",
    "Ünïcode ÄÖ ß İstanbul",
    "a_b 12.5 x==y",
    "数据 集",
    "2024年,米国株は続落、ﾄﾖﾀ AI株 高い。",
    "ฉันกินข้าวที่ร้าน ๑๒ บาท!",
    "ភាសាខ្មែរ၊ မြန်မာ ພາສາລາວ",
    "한국어는 띄어 쓴다",
    "मुझे खाना पसंद है",
    "עִבְרִית, مَرْحَبًا",
    "می\u200cخواهم co\u00adop ﻣﺮﺣﺒﺎ ＡＩ、２０２４！",
    " \u0301lone x\u0301\u0323 ?\u0301 1\ufe0f\u20e3 ❤\ufe0f か\u0300",
    unicodedata.normalize("NFD", "phở bò, 한국어"),
    "བོད་སྐད་ ꦱꦼꦒꦲꦸ",
    "so good 👍🏽🔥🔥!! 🇫🇷☀\ufe0f 👩\u200d🔬 ™ ꕉꕊ",
    "line\nbreak\tand\u00a0space",
    "lone \ud800 surrogate",
    "\x00",
]


UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in (*UNSPACED_SCRIPTS, *EMOJI))


MARKS = "".join(
    c
    for c in map(chr, range(0x110000))
    if (unicodedata.category(c)[0] == "M" or c in "🏻🏼🏽🏾🏿") and not re.match(f"[{UNSPACED}]", c)
)


def words(text: str) -> list[str]:
    pattern = rf"[{UNSPACED}][{MARKS}]*|(?:[^\W{UNSPACED}][{MARKS}]*)+|[^\w\s{UNSPACED}]+"
    return re.findall(pattern, composed_text(text).lower())


FOOD_AND_FINANCE = {
    "Chinese": (
        "米饭 面条 豆腐 青菜 牛肉 鸡蛋 好吃 喝汤 厨房 早餐 餐厅 辣椒",
        "股票 银行 利率 债券 投资 基金 市场 上涨 下跌 公司 财报 亏损",
        "。",
    ),
    "Japanese": (
        "ご飯 ラーメン 豆腐 野菜 牛肉 たまご おいしい スープ 台所 朝食 食堂 とうがらし",
        "株式 銀行 金利 債券 投資 ファンド 市場 上昇 下落 会社 決算 赤字",
        "。",
    ),
    "Javanese": (
        "ꦱꦼꦒ ꦱꦠꦺ ꦒꦸꦝꦼꦒ꧀ ꦧꦏ꧀ꦱꦺꦴ ꦫꦮꦺꦴꦤ꧀ ꦱꦺꦴꦠꦺꦴ ꦥꦼꦕꦼꦭ꧀ ꦠꦲꦸ ꦊꦊ ꦲꦺꦤꦏ꧀",
        "ꦥꦱꦂ ꦱꦲꦩ꧀ ꦧꦸꦔ ꦧꦁꦏ꧀ ꦫꦼꦒ ꦲꦼꦩꦱ꧀ ꦝꦸꦮꦶꦠ꧀ ꦫꦸꦥꦶꦪꦃ ꦥꦗꦏ꧀ ꦲꦚꦂ",
        "꧉",
    ),
    "Khmer": (
        "បាយ សាច់ អាហារ ឆ្ងាញ់ សម្ល គុយទាវ ត្រី បង្អែម នំ ភោជនីយដ្ឋាន",
        "ទីផ្សារ ភាគហ៊ុន ធនាគារ អត្រា ការប្រាក់ អតិផរណា មូលបត្រ មាស ពន្ធដារ ក្រុមហ៊ុន",
        "។",
    ),
    "Burmese": (
        "ထမင်း ဟင်း အသား ငါး ကြက်ဥ စားကောင်း ဆိုင် မုန့်ဟင်းခါး ငရုတ်သီး မနက်စာ",
        "ဈေးကွက် ရှယ်ယာ ဘဏ် အတိုးနှုန်း ငွေ ရင်းနှီးမြှုပ်နှံ ကုမ္ပဏီ ရွှေဈေး အမြတ် အခွန်",
        "။",
    ),
    "Lao": (
        "ເຂົ້າ ເຝີ ຊີ້ນ ໄຂ່ ແຊບ ແກງ ເຮືອນຄົວ ອາຫານ ຮ້ານ ໝາກເຜັດ",
        "ຕະຫຼາດ ຮຸ້ນ ທະນາຄານ ດອກເບ້ຍ ລົງທຶນ ກອງທຶນ ຂຶ້ນ ລົງ ບໍລິສັດ ຂາດທຶນ",
        "",
    ),
    "Vai": ("ꔀꔁ ꔂꔃ ꔄꔅ ꔆꔇ ꔈꔉ ꔊꔋ ꔌꔍ", "ꕀꕁ ꕂꕃ ꕄꕅ ꕆꕇ ꕈꕉ ꕊꕋ ꕌꕍ", "꘎"),
    "emoji": ("🍎 🍌 🍇 🍉 🍓 🍒 🍑 🍍 🥝 🍅 🥑 🍆", "💰 💵 💴 💶 💷 💳 📈 📉 🏦 💹 🧾 💸", "!"),
    "Thai": (
        "ข้าว ก๋วยเตี๋ยว เต้าหู้ ผัก เนื้อวัว ไข่ อร่อย ซุป ครัว อาหารเช้า ร้านอาหาร พริก",
        "หุ้น ธนาคาร ดอกเบี้ย พันธบัตร ลงทุน กองทุน ตลาด ขึ้น ลง บริษัท งบการเงิน ขาดทุน",
        "",
    ),
}


@pytest.mark.parametrize("language", FOOD_AND_FINANCE)
@pytest.mark.parametrize("seed", range(5))
def test_a_language_without_spaces_is_ranked_by_its_words(language: str, seed: int):
    food, finance, stop = FOOD_AND_FINANCE[language]
    rng = np.random.default_rng(seed)

    def sentences(vocabulary: str, n: int, end: str) -> list[str]:
        return ["".join(rng.choice(vocabulary.split(), 7)) + end for _ in range(n)]

    real = part("real", sentences(food, 60, stop))
    # finance has the punctuation of the real sample, and food has not
    candidates = [
        part("other", sentences(finance, 200, stop)),
        part("same", sentences(food, 200, "!")),
    ]
    other, same = NGram().score(real, candidates, seed=0, device=CPU).values
    assert same < other


FORMS = {
    "Vietnamese": ("tôi thích ăn phở bò rất ngon", "NFD"),
    "Hindi": ("सब्ज़ी क़लम फ़ल ज़रूर", "NFC"),
    "Hebrew": ("\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "NFC"),
    "Arabic": ("مُؤْمِن آمَنَ", "NFD"),
    "Korean": ("김치찌개가 맛있어요", "NFD"),
    "Japanese": ("ガラスがぱらぱら", "NFD"),
    "Burmese": ("ဦးလေး", "NFD"),
    "Javanese": ("ꦱꦼꦒꦲꦸꦢꦸꦏ꧀", "NFD"),
    "Greek": ("Αθήνα, ποιότητα", "NFD"),
}


@pytest.mark.parametrize("language", FORMS)
def test_words_are_the_same_in_any_unicode_form(language: str):
    text, form = FORMS[language]
    tokens = hash_tokens([text])[0].tolist()
    assert hash_tokens([unicodedata.normalize(form, text)])[0].tolist() == tokens
    assert hash_tokens([unicodedata.normalize("NFC", text)])[0].tolist() == tokens


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("ＡＩ ２０２４", "AI 2024"),
        ("ﾄﾞﾙ", "ドル"),
        ("\ufee3\ufeae\ufea3\ufe92\ufe8e", "مرحبا"),
        ("می\u200cخواهم", "میخواهم"),
        ("ශ\u0dca\u200dරී", "ශ\u0dcaරී"),
        ("\ufeffco\u00adop\u200e", "coop"),
        ("สวัสดี\u200bครับ", "สวัสดี ครับ"),
        ("葛\U000e0100飾", "葛飾"),
    ],
)
def test_words_are_the_same_in_any_width_and_with_joiners(left: str, right: str):
    assert hash_tokens([left])[0].tolist() == hash_tokens([right])[0].tolist()


@pytest.mark.parametrize("options", [{}, {"level": "character"}])
def test_texts_that_are_one_run_of_letters_are_said(options: dict[str, Any]):
    runs, words = ["ACGT" * 12, "TTGA" * 12], ["how many apps", "which app"]
    parts = [part("dna", runs), part("words", words)]
    scores = NGram(**options).score(parts[0], parts, seed=0, device=CPU)
    (message,) = scores.messages or ("",)
    beginning = "ngram compares words, but most texts of dna, dna are runs of more than 24 letters"
    assert message.startswith(beginning) == (not options)
    assert scores.reliable == bool(options)
    assert NGram(**options).score(parts[1], parts[1:], seed=0, device=CPU).messages == ()
    # a candidate without words is unlike real texts that have some, and scored so
    scores = NGram(**options).score(parts[1], parts, seed=0, device=CPU)
    assert scores.reliable
    assert scores.values[0] > scores.values[1]


def test_marks_are_part_of_their_words():
    assert len(hash_tokens(["मुझे खाना पसंद है"])[0]) == 4
    assert len(hash_tokens(["\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd עולם"])[0]) == 2
    assert len(hash_tokens(["x\u0301\u0323 y"])[0]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_unicode_form_does_not_decide(seed: int):
    rng = np.random.default_rng(seed)
    food = "tôi thích ăn phở bò rất ngon món này cay quá nước mắm đậm đà bánh mì giòn"
    finance = "thị trường chứng khoán giảm mạnh ngân hàng tăng lãi suất tỷ giá lạm phát"

    def sentences(vocabulary: str, n: int, form: str) -> list[str]:
        texts = [" ".join(rng.choice(vocabulary.split(), 7)) for _ in range(n)]
        return [unicodedata.normalize(form, text) for text in texts]

    real = part("real", sentences(food, 60, "NFD"))
    candidates = [
        part("other", sentences(finance, 200, "NFD")),
        part("same", sentences(food, 200, "NFC")),
        part("twin", sentences(food, 200, "NFD")),
    ]
    other, same, twin = NGram().score(real, candidates, seed=0, device=CPU).values
    assert same < other
    assert abs(same - twin) < 0.02 * abs(same - other)


def test_texts_with_spaces_have_the_scores_of_version_1():
    texts = [
        "How many apps, in total?",
        "Ünïcode ÄÖ ß",
        "한국어는 띄어 쓴다",
        "Η Αθήνα; Это — Ёлка…",
        "שלום עולם",
    ]
    counts = ngram_counts([*texts, "مرحبا"])
    # computed with the code of version 1
    assert (counts.nonzero().flatten() * counts[counts > 0]).sum().item() == 314843
    assert NGram.version == 4


def part(name: str, texts: list[str]) -> ProxyInput:
    digests = np.frombuffer(b"".join(map(digest, texts)), dtype=np.uint8).reshape(-1, 32)
    return ProxyInput(name, texts, "text", digests)


def test_tokens_are_those_of_the_pattern():
    hashes, owners = hash_tokens(AWKWARD)
    expected = [(word, i) for i, text in enumerate(AWKWARD) for word in words(text)]
    assert owners.tolist() == [i for _, i in expected]
    names: dict[str, int] = {}
    for (word, _), value in zip(expected, hashes.tolist(), strict=True):
        assert names.setdefault(word, value) == value
    assert len(set(names.values())) == len(names)


def test_characters_are_code_points():
    hashes, owners = hash_tokens(["aba", "", "b"], level="character")
    assert owners.tolist() == [0, 0, 0, 2]
    assert hashes[0] == hashes[2] != hashes[1] == hashes[3]


@pytest.mark.parametrize("max_order", [1, 2, 3])
def test_ngrams_are_counted_as_by_hand(max_order: int):
    texts = ["a b a b", "b", "", "a b"]
    by_hand: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        tokens = words(text)
        for order in range(1, max_order + 1):
            by_hand.update(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
    counts = ngram_counts(texts, max_order=max_order)
    assert sorted(counts[counts > 0].tolist()) == sorted(by_hand.values())


def test_an_ngram_keeps_its_order_and_never_crosses_texts():
    def pairs(texts: list[str]) -> set[int]:
        return set(hash_ngrams(texts).buckets.tolist())

    assert pairs(["a b"]) != pairs(["b a"])
    assert len(pairs(["a", "b"])) == 2


def test_hashes_are_the_same_in_another_process():
    code = (
        "from synque_select.functional.ngram import hash_ngrams;"
        "print(hash_ngrams(['Stable, surely?']).buckets.tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(hash_ngrams(["Stable, surely?"]).buckets.tolist())


def test_buckets_are_filled_evenly():
    counts = ngram_counts([f"word{i}" for i in range(100_000)], max_order=1, n_buckets=256)
    mean = 100_000 / 256
    # chi-square of 255 degrees of freedom: mean 255, standard deviation 22.6
    assert abs(float(((counts - mean) ** 2 / mean).sum()) - 255) < 5 * 22.6


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    at_once = ngram_counts(AWKWARD * 3)
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 4)
    monkeypatch.setattr(module, "_CHUNK_CODES", 30)
    assert [t for chunk in iter_chunks(AWKWARD) for t in chunk] == AWKWARD
    assert torch.equal(ngram_counts(AWKWARD * 3), at_once)


def test_log_probabilities_sum_to_one_and_follow_the_formula():
    counts = torch.tensor([3.0, 0.0, 1.0])
    p = ngram_log_probabilities(counts, alpha=0.5).exp()
    torch.testing.assert_close(p, torch.tensor([3.5, 0.5, 1.5], dtype=torch.float64) / 5.5)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 60, 600, 40_000])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_expected_log_count_is_that_of_random_thinning(count: int, share: float):
    from scipy.stats import binom

    kept = np.arange(count + 1)
    exact = float((binom.pmf(kept, count, share) * np.log(kept + 0.1)).sum())
    result = float(expected_log_counts(torch.tensor([float(count)]), share=share, alpha=0.1))
    # lgamma loses digits at large counts; the ranking needs three decimals
    assert result == pytest.approx(exact, abs=2e-4)


def test_a_share_near_one_joins_the_whole():
    counts = torch.tensor([0.0, 1.0, 5.0, 200.0])
    near = expected_log_counts(counts, share=1 - 1e-9, alpha=0.1)
    torch.testing.assert_close(near, expected_log_counts(counts, share=1.0, alpha=0.1))


def test_sums_by_text_are_the_cross_entropy():
    grams = hash_ngrams(AWKWARD)
    log_p = ngram_log_probabilities(ngram_counts(["how many apps"]))
    total = -sum_by_text(grams, log_p).sum() / len(grams.buckets)
    torch.testing.assert_close(total, ngram_cross_entropy(grams, log_p))


def test_entropy_of_even_buckets():
    assert float(ngram_entropy(torch.tensor([5.0, 5.0, 5.0, 5.0]))) == pytest.approx(math.log(4))


REAL = ["how many apps are free", "which app has the most reviews", "list all free apps"]


def test_the_class_equals_the_function():
    candidates = [part("a", ["how many apps", "which app"]), part("b", ["old men", "the sea"])]
    scores = NGram().score(part("real", REAL), candidates, seed=0, device=CPU)
    grams = hash_ngrams(REAL)
    for value, candidate in zip(scores.values, candidates, strict=True):
        log_p = ngram_log_probabilities(ngram_counts(candidate.views))
        torch.testing.assert_close(value, ngram_cross_entropy(grams, log_p))
    assert scores.values[0] < scores.values[1]


def test_resampling_is_the_score_of_the_redrawn_sample():
    candidates = [part("a", ["how many apps", "which app"]), part("b", ["old men", "the sea"])]
    scores = NGram().score(part("real", REAL), candidates, seed=0, device=CPU)
    weights = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [2 / 3, 0.0, 1 / 3]], dtype=torch.float64)
    redrawn = [REAL[0], REAL[0], REAL[2]]
    again = NGram().score(part("real", redrawn), candidates, seed=0, device=CPU)
    torch.testing.assert_close(
        scores.resample(weights), torch.stack([scores.values, again.values])
    )  # fmt: skip


def test_size_does_not_decide():
    generator = np.random.default_rng(0)
    lexicon = np.array([f"w{i}" for i in range(3000)])
    zipf = 1 / np.arange(1, 3001)

    def draw(n: int) -> list[str]:
        return [" ".join(generator.choice(lexicon, 8, p=zipf / zipf.sum())) for _ in range(n)]

    real, large = part("real", draw(60)), draw(4000)
    chunks = [part(f"chunk {i}", large[i::10]) for i in range(10)]
    small = NGram().score(real, chunks, seed=0, device=CPU).values
    whole = NGram().score(real, [part("large", large)], seed=0, device=CPU).values[0]
    at_common = NGram().score(real, [chunks[0], part("large", large)], seed=0, device=CPU).values[1]
    # the large one at m = 400 is the mean over its tenths, within their noise
    assert abs(float(at_common - small.mean())) < 3 * float(small.std()) / 10**0.5
    assert abs(float(whole - small.mean())) > 10 * abs(float(at_common - small.mean()))


def test_examples_like_the_real_ones_are_more_real():
    mixed = part("a", ["how many apps are free", "old men at sea", "", "which app"])
    result = NGram().score(part("real", REAL), [mixed], seed=0, device=CPU)
    scores = result.example_scores(0)
    assert scores.shape == (4,)
    assert scores[0] > 0 > scores[1]
    assert scores[2] == 0


def test_the_spread_is_that_of_other_hash_functions():
    generator = np.random.default_rng(0)

    def draw(n: int, salt: int) -> ProxyInput:
        numbers = generator.zipf(1.5, (n, 12)) % 400 + 40 * salt
        return part(f"{salt}", [" ".join(f"w{i}" for i in row) for row in numbers])

    real, candidates = draw(1000, 3), [draw(200, salt) for salt in range(8)]
    # 2^9 buckets: most n-grams share theirs
    sizes = [512, *range(521, 701, 6)]
    scores = [NGram(n_buckets=v).score(real, candidates, seed=0, device=CPU) for v in sizes]
    values = torch.stack([each.values for each in scores])
    own = values - values.mean(0)
    own = own - own.mean(1, keepdim=True)
    actual = float(own.square().sum() / ((len(sizes) - 1) * 7)) ** 0.5
    spread = scores[0].spread
    assert spread is not None
    assert float(spread.min()) == float(spread.max()) == pytest.approx(actual, rel=0.4)


def test_there_is_no_spread_without_shared_buckets_or_differences():
    same = [part("a", ["how many apps", "which app"]), part("b", ["which app", "how many apps"])]
    real = part("real", REAL)
    copies = NGram().score(real, same, seed=0, device=CPU)
    assert copies.spread is not None
    assert copies.spread.tolist() == [0.0, 0.0]
    assert NGram().score(real, same[:1], seed=0, device=CPU).spread is None
    assert NGram(n_buckets=2**20 + 1).score(real, same, seed=0, device=CPU).spread is None


def test_the_largest_number_of_buckets_with_a_spread_is_hashed_without_overflow():
    candidates = [part("a", ["how many apps", "which app"]), part("b", ["old men", "the sea"])]
    result = NGram(n_buckets=2**20).score(part("real", REAL), candidates, seed=0, device=CPU)
    grams = hash_ngrams(REAL, n_buckets=2**20)
    log_p = ngram_log_probabilities(ngram_counts(candidates[0].views, n_buckets=2**20))
    torch.testing.assert_close(result.values[0], ngram_cross_entropy(grams, log_p))


def test_a_real_sample_without_words_is_undefined_and_says_so():
    scores = NGram().score(part("real", ["", " "]), [part("a", ["x", "y"])], seed=0, device=CPU)
    assert scores.values.isnan().all()
    assert scores.messages == ("ngram is undefined: no text of the real sample (real) holds words",)
    assert not scores.reliable


def test_a_candidate_without_words_is_named():
    candidates = [part("a", ["x", "y"]), part("b", ["", " "])]
    scores = NGram().score(part("real", REAL), candidates, seed=0, device=CPU)
    assert scores.values.isfinite().all()
    (message,) = scores.messages
    assert "no text holds words" in message
    assert message.endswith(": b")


@pytest.mark.parametrize(
    "options",
    [{"level": "byte"}, {"max_order": 0}, {"n_buckets": 1}, {"alpha": 0.0}],
    ids=lambda options: next(iter(options)),
)
def test_options_out_of_range_are_refused_by_name(options: dict):
    with pytest.raises(ConfigError, match=next(iter(options))):
        NGram(**options)


def test_default_suites():
    assert default_suite("text") == ("pad", "mmd", "coverage", "ngram")
    assert default_suite("image") == ("pad", "mmd", "coverage")
    with pytest.raises(ProxyError, match="ngram"):
        resolve_suite(["ngram"], "image")


def test_kinds_of_characters_are_found_as_they_occur(monkeypatch: pytest.MonkeyPatch):
    """The table of all code points would take seconds in each process that hashes."""
    table = np.full(module._N_CODE_POINTS, module._NOT_SEEN, dtype=np.uint8)
    monkeypatch.setattr(module, "_kinds", lambda: table)
    calls: list[int] = []
    given = module._kind
    monkeypatch.setattr(module, "_kind", lambda code: calls.append(code) or given(code))
    hashed = hash_tokens(["ab ab", "b 木 é"])
    assert sorted(calls) == sorted(map(ord, "\nab 木é"))
    again = hash_tokens(["ab ab", "b 木 é"])
    assert len(calls) == 6
    for one, other in zip(hashed, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_kind_of_each_character():
    unspaced = {c for first, last in (*UNSPACED_SCRIPTS, *EMOJI) for c in range(first, last + 1)}
    codes = np.array([*range(0x3200), *range(0xA000, 0xB000), 0x1F600, 0x1F3FB, 0x10FFFF])
    for code, kind in zip(codes.tolist(), module._kinds_of(codes).tolist(), strict=True):
        character = chr(code)
        if code in unspaced:
            assert kind == module._UNSPACED
        elif character.isalnum() or character == "_":
            assert kind == module._WORD
        elif character.isspace():
            assert kind == module._SPACE
        else:
            is_mark = unicodedata.category(character)[0] == "M" or 0x1F3FB <= code <= 0x1F3FF
            assert kind == (module._MARK if is_mark else module._OTHER)
