"""What every proxy must do, and what each kind of proxy must do.

Every registered proxy is listed in `PROPERTIES`, or a test fails: an author who adds one states its
properties there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from synque_select.errors import ProxyError
from synque_select.lens.config import LensConfig
from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
from synque_select.proxies.registry import default_suite, get_proxy, proxy_keys
from synque_select.sql.text import write_empty_database
from tests.lens.scripts import telling_llm
from tests.pretend_cuda import DEVICE, PretendCuda

D = 12
N_REAL, N_SYNTHETIC = 40, 150
CPU = torch.device("cpu")

# compares_real: identical data is best, a growing shift is worse, other real data other scores
# divides_by_real: other real data give other scores, and that is all
# ignores_real: the real sample changes nothing
# size_fair: a larger sample of the same distribution scores about the same
# rotation, translation: of all embeddings together, changes nothing
# scale_<p>: embeddings times c give values times c^p
# contributions: has `resample`
# examples: has `example_scores`
_VECTOR = {"compares_real", "size_fair", "rotation"}
PROPERTIES: dict[str, set[str]] = {
    "agreement": {"divides_by_real", "rotation"},
    "baseline_distinct": {"ignores_real"},
    "baseline_entropy": {"ignores_real"},
    "baseline_length": {"ignores_real"},
    "baseline_n": {"ignores_real"},
    "baseline_spread": {"ignores_real", "rotation", "translation", "scale_2"},
    "baseline_transfer": {"ignores_real", "size_fair", "rotation"},
    "baseline_vocabulary": {"ignores_real"},
    "coverage": {*_VECTOR, "translation", "scale_1", "contributions", "examples"},
    "density": {*_VECTOR, "translation", "scale_0", "examples"},
    "energy": {*_VECTOR, "translation", "scale_1", "contributions", "examples"},
    "frechet": {*_VECTOR, "translation", "scale_2"},
    "knn_coverage": {*_VECTOR, "translation", "scale_0", "examples"},
    "lens": {"compares_real", "contributions", "examples"},
    "lens_balanced": {"compares_real", "contributions", "examples"},
    "lens_raw": {"compares_real", "examples"},
    # without a rubric, a candidate meets the real sample in the debiasing only
    "lens_zero_shot": {"divides_by_real", "contributions", "examples"},
    "mauve": {"compares_real"},
    "mauve_star": {"compares_real"},
    "mdm": {"ignores_real", "size_fair", "rotation", "translation", "scale_1"},
    "mmd": {*_VECTOR, "translation", "scale_0", "contributions", "examples"},
    "ngram": {"compares_real", "contributions", "examples"},
    "pad": {*_VECTOR, "contributions", "examples"},
    "sql_validity": {"ignores_real"},
    "transfer": {*_VECTOR, "contributions"},
}


def having(name: str) -> list[str]:
    return sorted(key for key in proxy_keys() if name in PROPERTIES.get(key, set()))


def scaling() -> list[tuple[str, int]]:
    return [
        (key, int(name.removeprefix("scale_")))
        for key in proxy_keys()
        for name in PROPERTIES.get(key, set())
        if name.startswith("scale_")
    ]


def text_of(row: np.ndarray) -> str:
    return " ".join(f"w{column}x{round(float(value) * 1.2)}" for column, value in enumerate(row))


def make(name: str, points: np.ndarray, dtype: torch.dtype = torch.float32) -> ProxyInput:
    """An input whose texts say roughly what its embeddings say."""
    with np.errstate(all="ignore"):
        texts = [text_of(row) for row in np.nan_to_num(points, posinf=9.0, neginf=-9.0)]
    digests = b"".join(hashlib.sha256(row.tobytes()).digest() for row in points)
    return ProxyInput(
        name,
        texts,
        "text",
        np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        torch.from_numpy(points.astype(np.float32)).to(dtype),
        [{"SQL": "SELECT 1" if row[0] > 0 else "SELECT nothing"} for row in points],
        labels=["high" if row[0] > 0 else "low" for row in points],
    )


def draw(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D)) + shift


def changed(part: ProxyInput, change: Callable[[torch.Tensor], torch.Tensor]) -> ProxyInput:
    assert part.embeddings is not None
    return dataclasses.replace(part, embeddings=change(part.embeddings))


def real_sample() -> ProxyInput:
    return make("real", draw(N_REAL, 0))


def shifted() -> list[ProxyInput]:
    """Four candidates, each further from the real sample than the one before."""
    shifts = (0.0, 0.7, 1.5, 3.0)
    return [make(f"c{i}", draw(N_SYNTHETIC, 1 + i, shift)) for i, shift in enumerate(shifts)]


def score(key: str, real: ProxyInput, candidates: list[ProxyInput], seed: int = 0) -> ProxyScores:
    return ready(key).score(real, candidates, seed=seed, device=CPU)


def ready(key: str) -> BaseProxy:
    """The proxy with its default options, a language model apart: that one is scripted."""
    if key == "sql_validity":
        return get_proxy(key, database=str(empty_database()))
    if not key.startswith("lens"):
        return get_proxy(key)
    answers = Path(tempfile.mkdtemp()) / "answers.sqlite"
    return get_proxy(key, config=LensConfig(scorer=telling_llm(), answers=str(answers)))


@cache
def empty_database() -> Path:
    return write_empty_database(Path(tempfile.mkdtemp()) / "empty.sqlite", {"t": ["a"]})


@cache
def scores_of(key: str) -> ProxyScores:
    return score(key, real_sample(), shifted())


def test_every_proxy_is_in_the_list():
    missing = sorted(set(proxy_keys()) - set(PROPERTIES))
    assert not missing, f"say in PROPERTIES what {', '.join(missing)} must satisfy"
    assert sorted(PROPERTIES) == sorted(set(PROPERTIES) & set(proxy_keys()))


def test_every_proxy_reads_the_real_sample_or_does_not():
    for key in proxy_keys():
        ways = {"compares_real", "divides_by_real", "ignores_real"}
        assert len(PROPERTIES[key] & ways) == 1, key


@pytest.mark.parametrize("modality", ["text", "image"])
def test_default_suite_has_one_proxy_a_family(modality):
    suite = [get_proxy(key) for key in default_suite(modality)]
    families = [proxy.family for proxy in suite]
    assert {"kernel", "coverage", "domain"} <= set(families)
    assert len(set(families)) == len(families)
    assert all("compares_real" in PROPERTIES[proxy.key] for proxy in suite)
    assert all(modality in proxy.modalities for proxy in suite)


class TestEveryProxy:
    """What `ProxyConformance` does not ask."""

    @pytest.mark.parametrize("key", proxy_keys())
    def test_gives_what_it_can_give(self, key):
        scores = scores_of(key)
        assert (scores.resample is not None) == ("contributions" in PROPERTIES[key])
        assert (scores.example_scores is not None) == ("examples" in PROPERTIES[key])

    @pytest.mark.parametrize("key", proxy_keys())
    def test_bfloat16_embeddings_give_nearly_the_same(self, key):
        real, candidates = (
            changed(real_sample(), torch.Tensor.bfloat16),
            [changed(c, torch.Tensor.bfloat16) for c in shifted()],
        )
        values = score(key, real, candidates).values
        expected = score(
            key,
            changed(real, torch.Tensor.float),
            [changed(c, torch.Tensor.float) for c in candidates],
        ).values
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("key", having("compares_real") + having("divides_by_real"))
def test_another_real_sample_other_scores(key):
    values = score(key, make("real", draw(N_REAL, 99, 1.5)), shifted()).values
    assert not torch.equal(values, scores_of(key).values)


@pytest.mark.parametrize("key", having("ignores_real"))
def test_real_sample_changes_nothing(key):
    values = score(key, make("real", draw(N_REAL, 99, 1.5)), shifted()).values
    torch.testing.assert_close(values, scores_of(key).values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("key", having("size_fair"))
def test_more_examples_of_the_same_kind_score_the_same(key):
    differences, steps = [], []
    for seed in range(6):
        small = make("small", draw(100, 50 + seed, 0.3))
        large = make("large", draw(800, 80 + seed, 0.3))
        worse = make("worse", draw(100, 20 + seed, 1.5) * 1.5)
        real = make("real", draw(N_REAL, 200 + seed))
        values = score(key, real, [small, large, worse]).values
        differences.append(float(values[1] - values[0]))
        steps.append(abs(float(values[2] - values[0])))
    assert abs(np.mean(differences)) < 0.15 * np.mean(steps)


@pytest.mark.parametrize("key", having("rotation"))
def test_rotation_changes_nothing(key):
    turn = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3)))[0]
    moved = [changed(part, lambda x: x @ turn) for part in (real_sample(), *shifted())]
    values = score(key, moved[0], moved[1:]).values
    torch.testing.assert_close(values, scores_of(key).values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("key", having("translation"))
def test_translation_changes_nothing(key):
    # whole steps of 1/256 stay exact in float32 at 100
    def moved(x: torch.Tensor, by: float) -> torch.Tensor:
        return (x * 256).round() / 256 + by

    values = []
    for by in (0.0, 100.0):
        together = (real_sample(), *shifted())
        parts = [changed(part, lambda x, by=by: moved(x, by)) for part in together]
        values.append(score(key, parts[0], parts[1:]).values)
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("key", "power"), scaling())
@pytest.mark.parametrize("factor", [1e-3, 64.0])
def test_scaling(key, power, factor):
    parts = [changed(part, lambda x: x * factor) for part in (real_sample(), *shifted())]
    values = score(key, parts[0], parts[1:]).values / factor**power
    torch.testing.assert_close(values, scores_of(key).values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", having("contributions"))
class TestContributions:
    @staticmethod
    def weights(n_resamples: int) -> torch.Tensor:
        counts = np.random.default_rng(0).multinomial(
            N_REAL, np.full(N_REAL, 1 / N_REAL), n_resamples
        )
        return torch.from_numpy(counts / N_REAL)

    def test_form(self, key):
        resample = scores_of(key).resample
        assert resample is not None
        resampled = resample(self.weights(7))
        assert resampled.shape == (7, 4)
        assert resampled.dtype == torch.float64
        # each row depends on its own weights only
        torch.testing.assert_close(resample(self.weights(7)[2:3])[0], resampled[2])

    def test_mean_of_resamples_is_the_value(self, key):
        scores = scores_of(key)
        assert scores.resample is not None
        resampled = scores.resample(self.weights(20_000))
        error = resampled.std(0) / math.sqrt(20_000)
        # a ratio (n-grams) is biased of order 1/n
        slack = 0.02 * resampled.std(0)
        assert ((resampled.mean(0) - scores.values).abs() <= 5 * error + slack).all()

    def test_an_example_left_out_moves_the_scores(self, key):
        scores = scores_of(key)
        assert scores.resample is not None
        even = torch.full((1, N_REAL), 1 / N_REAL, dtype=torch.float64)
        some = even.clone()
        some[0, :10] = 0
        some /= some.sum()
        assert not torch.allclose(scores.resample(even), scores.resample(some), rtol=1e-6)


@pytest.mark.parametrize("key", having("examples"))
def test_example_scores_tell_near_from_far(key):
    near, far = draw(80, 31), draw(80, 32, 2.5)
    mixed = make("mixed", np.concatenate((near, far)))
    scores = score(key, real_sample(), [make("other", draw(200, 5, 0.5)), mixed])
    assert scores.example_scores is not None
    realness = scores.example_scores(1).numpy()
    assert realness.shape == (160,)
    ranks = rankdata(realness)
    auc = (ranks[:80].sum() - 80 * 81 / 2) / (80 * 80)
    assert auc > 0.9
    assert scores.example_scores(0).shape == (200,)


def repeated(n: int) -> np.ndarray:
    return np.repeat(draw(1, 7), n, axis=0)


AWKWARD: dict[str, tuple[np.ndarray, list[np.ndarray]]] = {
    "identical sets": (draw(20, 0), [draw(20, 0), draw(20, 0)]),
    "one point repeated in a candidate": (draw(20, 0), [repeated(30), draw(30, 1)]),
    "one point repeated in the real sample": (repeated(20), [draw(30, 1), draw(30, 2)]),
    "one point everywhere": (repeated(20), [repeated(30), repeated(30)]),
    "two of each": (draw(2, 0), [draw(2, 1), draw(2, 2)]),
    "two against many": (draw(2, 0), [draw(100, 1), draw(90, 2)]),
    "fewer than dimensions": (draw(5, 0), [draw(6, 1), draw(7, 2)]),
    "huge norms": (draw(20, 0) * 1e8, [draw(30, 1) * 1e8, draw(30, 2) * 1e8]),
    "tiny norms": (draw(20, 0) * 1e-12, [draw(30, 1) * 1e-12, draw(30, 2) * 1e-12]),
    "zeros": (np.zeros((20, D)), [np.zeros((30, D)), draw(30, 1)]),
}


@pytest.mark.parametrize("key", proxy_keys())
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_input_gives_a_number_or_says_why_not(key, name):
    real, candidates = AWKWARD[name]
    parts = [make(f"c{i}", points) for i, points in enumerate(candidates)]
    try:
        scores = score(key, make("real", real), parts)
    except ProxyError:
        return  # a proxy may refuse, by an error of the library
    assert not torch.isinf(scores.values).any()
    if scores.values.isnan().any():
        assert scores.messages
    if scores.example_scores is not None:
        assert not torch.isinf(scores.example_scores(1)).any()


def test_mmd_without_a_bandwidth_says_so():
    equal = [make(name, repeated(5)) for name in ("real", "c0", "c1")]
    scores = score("mmd", equal[0], equal[1:])
    assert scores.values.isnan().all()
    assert scores.messages == (
        "mmd is undefined: all embeddings are equal, so no bandwidth exists",
    )
    assert not scores.reliable


@pytest.mark.parametrize(
    ("protocol", "named"), [("default", "small, large"), ("released", "small")]
)
def test_mdm_of_fewer_examples_than_medoids_says_so(protocol, named):
    parts = [make("small", draw(5, 1)), make("large", draw(50, 2))]
    proxy = get_proxy("mdm", protocol=protocol)
    scores = proxy.score(real_sample(), parts, seed=0, device=CPU)
    assert scores.values[0] == 0
    assert scores.messages[-1].endswith(f"(k=5): {named}")
    assert not scores.reliable
    assert proxy.score(real_sample(), parts[1:], seed=0, device=CPU).reliable


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("key", [key for key in proxy_keys() if ready(key).needs_embeddings])
class TestNotFinite:
    def test_a_candidate_is_undefined_and_named_and_the_others_are_not(self, key, bad):
        candidates = shifted()
        assert candidates[1].embeddings is not None
        candidates[1].embeddings[3, 2] = bad
        scores = score(key, real_sample(), candidates)
        assert scores.values[1].isnan()
        assert torch.isfinite(scores.values[[0, 2, 3]]).all()
        assert any("c1" in message for message in scores.messages)
        if scores.resample is not None:
            resampled = scores.resample(torch.full((2, N_REAL), 1 / N_REAL, dtype=torch.float64))
            assert resampled.isnan().sum(0).tolist() == [0, 2, 0, 0]
        if scores.example_scores is not None:
            assert scores.example_scores(1).isnan().all()
            assert len(scores.example_scores(3)) == N_SYNTHETIC

    def test_a_bad_real_sample_leaves_nothing_defined(self, key, bad):
        if key.startswith("baseline_"):
            return  # it is not read
        real = real_sample()
        assert real.embeddings is not None
        real.embeddings[0, 0] = bad
        scores = score(key, real, shifted())
        assert scores.values.isnan().all()
        assert scores.messages


def test_float16_overflow_is_undefined_not_a_crash():
    big = changed(shifted()[0], lambda x: (x * 1e5).half())
    scores = score("mmd", real_sample(), [big, shifted()[1]])
    assert scores.values[0].isnan()
    assert torch.isfinite(scores.values[1])


WAYS: list[tuple[str, dict[str, object]]] = [
    *((key, {}) for key in proxy_keys() if ready(key).needs_embeddings or key == "ngram"),
    ("mauve", {"backend": "mauve-text"}),
    ("mdm", {"protocol": "released"}),
    ("mmd", {"kernel": "laplacian"}),
    ("mmd", {"kernel": "polynomial", "p_value": True}),
    ("mmd", {"protocol": "released"}),
    ("mmd", {"max_exact": 100}),
    ("pad", {"protocol": "released"}),
]


@pytest.mark.parametrize("given", [CPU, DEVICE], ids=["given_on_cpu", "given_on_device"])
@pytest.mark.parametrize(("key", "options"), WAYS, ids=lambda value: str(value))
def test_no_proxy_mixes_devices(key, options, given, monkeypatch):
    """Run on a pretended device, which refuses what CUDA refuses and computes as the CPU does."""
    # several blocks of the candidates' rows
    monkeypatch.setattr("synque_select.functional.mmd.BLOCK_ROWS", 64)
    proxy, parts = get_proxy(key, **options), [real_sample(), *shifted()]
    expected = proxy.score(parts[0], parts[1:], seed=0, device=CPU)
    even = torch.full((2, N_REAL), 1 / N_REAL, dtype=torch.float64)
    half = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    with PretendCuda():
        moved = [changed(part, lambda x: x.to(given)) for part in parts]
        scores = proxy.score(moved[0], moved[1:], seed=0, device=DEVICE)
        actual = [scores.values, scores.spread, scores.p_values]
        if scores.resample is not None:
            actual.append(scores.resample(even))
        if scores.example_scores is not None:
            actual.append(scores.example_scores(1))
        if scores.mixture is not None:
            assert scores.mixture(half) == pytest.approx(expected.mixture(half), rel=1e-4)
    assert {type(values) for values in actual if values is not None} == {torch.Tensor}
    torch.testing.assert_close(scores.values, expected.values, rtol=1e-4, atol=1e-5)


def test_the_pretended_device_refuses_what_cuda_refuses():
    with PretendCuda():
        there, here = torch.ones(3).to(DEVICE), torch.ones(3)
        for mix in (
            lambda: there + here,
            lambda: torch.cat((there, here)),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: torch.rand(3, generator=torch.Generator(), device=DEVICE),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                mix()
        allowed = there[here.long()] * torch.tensor(2.0) + torch.zeros(3, device=DEVICE)
        assert there.is_cuda
        assert float(allowed.sum()) == 6.0
        assert type(allowed.cpu()) is torch.Tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key", proxy_keys())
def test_gpu_agrees_with_cpu(key, dtype):
    parts = [changed(part, lambda x: x.to(dtype)) for part in (real_sample(), *shifted())]
    expected = score(key, parts[0], parts[1:]).values
    for device in ("cpu", "cuda"):
        moved = [changed(part, lambda x, device=device: x.to(device)) for part in parts]
        scores = ready(key).score(moved[0], moved[1:], seed=0, device=torch.device("cuda"))
        torch.testing.assert_close(scores.values, expected, rtol=1e-4, atol=1e-5)
