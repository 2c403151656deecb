"""What a GPU run needs, on a pretended device: few waits, bounded memory, the scores of the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.registry import get_proxy, proxy_keys
from synque_select.selection.scorer import Scorer, rank
from synque_select.utils.device import batch_bytes, max_device_memory
from tests.pretend_cuda import DEVICE, PretendCuda
from tests.proxies.test_properties import make, ready

CPU = torch.device("cpu")
MIB = 2**20
# computed on the device, whatever the number of candidates; the others compute on the CPU
ON_DEVICE = [
    "agreement",
    "baseline_transfer",
    "coverage",
    "density",
    "energy",
    "frechet",
    "knn_coverage",
    "mmd",
    "pad",
    "transfer",
]
# reads of the solver of logistic regressions: one in 8 iterations, which depend on the data
ITERATIVE = {"agreement", "baseline_transfer", "pad", "transfer"}
WAYS = [
    *((key, {}) for key in ON_DEVICE),
    ("mmd", {"max_exact": 100}),
    ("mmd", {"kernel": "laplacian", "p_value": True}),
    ("mmd", {"kernel": "polynomial", "protocol": "released"}),
]


def part(
    name: str, n: int, seed: int, d: int = 12, dtype: torch.dtype = torch.float32, **options: object
) -> ProxyInput:
    """An input whose first dimension its labels and texts follow."""
    points = np.random.default_rng(seed).normal(size=(n, 12)) + 0.03 * seed
    made = make(name, points)
    if d == 12:
        return dataclasses.replace(made, embeddings=torch.from_numpy(points).to(dtype), **options)
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 0.03 * seed
    return dataclasses.replace(made, embeddings=torch.from_numpy(rows).to(dtype), **options)


def candidates(k: int, n: int, **options: object) -> list[ProxyInput]:
    """Candidates of three sizes, one of which has half of the others' examples."""
    sizes = (n, n + n // 10, n // 2)
    return [part(f"c{i}", sizes[i % 3], 1 + i, **options) for i in range(k)]


def waits(key: str, options: dict[str, object], k: int, n: int) -> PretendCuda:
    proxy = get_proxy(key, **options) if options else ready(key)
    real, parts = part("real", 40, 0), candidates(k, n)
    with PretendCuda() as mode:
        proxy.score(real, parts, seed=0, device=DEVICE)
    return mode


@pytest.mark.parametrize(("key", "options"), WAYS, ids=str)
def test_the_host_waits_for_the_device_as_often_whatever_there_is_to_score(
    key, options, monkeypatch
):
    """No number is read in a loop over candidates, blocks or permutations."""
    monkeypatch.setattr("synque_select.functional.mmd.BLOCK_ROWS", 64)
    few, more, longer = (waits(key, options, k, n) for k, n in ((8, 90), (24, 90), (8, 270)))
    n_few, n_more, n_longer = (sum(mode.waits.values()) for mode in (few, more, longer))
    # 16 more candidates, or three times as many rows: one read for each would be 16
    slack = 8 if key in ITERATIVE else 0
    assert n_few <= 45, few.waits
    assert n_more <= n_few + slack, more.waits - few.waits
    if options != {"max_exact": 100}:
        assert n_longer <= n_few + slack, longer.waits - few.waits
    assert few.largest > 0


@pytest.mark.parametrize("key", sorted({*proxy_keys()} - {*ON_DEVICE}))
def test_all_other_proxies_compute_on_the_cpu(key):
    real, parts = part("real", 40, 0), candidates(3, 40)
    with PretendCuda() as mode:
        ready(key).score(real, parts, seed=0, device=DEVICE)
    assert (mode.peak, sum(mode.waits.values())) == (0, 0)


@pytest.mark.parametrize("key", [key for key in ON_DEVICE if key != "frechet"])
def test_rows_reach_the_device_through_pinned_memory(key):
    mode = waits(key, {}, 8, 90)
    assert mode.copies["pinned"] >= 1
    assert mode.copies["pageable"] <= 10  # real sample, weights, folds, classes: none per candidate


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("k", "n", "d"), [(30, 60, 12), (8, 500, 48)])
@pytest.mark.parametrize("key", ON_DEVICE)
def test_memory_is_bounded(key, k, n, d, dtype):
    # with labels, some 28 numbers of each pair of an example and a family are kept; rows in float64
    # are twice as long
    wide = dtype == torch.float64
    real, bound = part("real", 40, 0, d, dtype), (4 if wide else 2) * MIB
    bound = 32 * MIB if get_proxy(key).needs_labels else bound
    parts = candidates(k, n, d=d, dtype=dtype)
    with PretendCuda() as mode, max_device_memory(bound):
        get_proxy(key).score(real, parts, seed=0, device=DEVICE)
    assert 0 < mode.largest <= bound / 2
    assert mode.peak <= bound


@pytest.mark.parametrize("key", ["coverage", "energy", "mmd", "pad"])
def test_scores_do_not_depend_on_the_bound(key):
    real, parts = part("real", 40, 0), candidates(12, 300)
    expected = get_proxy(key).score(real, parts, seed=0, device=CPU).values
    for bound in (MIB, None):
        with PretendCuda() as mode, max_device_memory(bound):
            scores = get_proxy(key).score(real, parts, seed=0, device=DEVICE)
        torch.testing.assert_close(scores.values, expected, rtol=1e-4, atol=1e-5)
        assert bound is None or mode.peak <= bound


@pytest.mark.parametrize("key", ["coverage", "density", "energy", "mmd", "pad"])
def test_what_does_not_fit_at_once_is_halved(key):
    """The device has less memory than it says: half of what is free is more than that."""
    real, parts = part("real", 40, 0), candidates(12, 100)
    expected = get_proxy(key).score(real, parts, seed=0, device=CPU).values
    with PretendCuda() as mode:
        get_proxy(key).score(real, parts, seed=0, device=DEVICE)
    with PretendCuda() as smaller:
        smaller.limit, says = int(0.7 * mode.peak), 2**30
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (says, says))
            scores = get_proxy(key).score(real, parts, seed=0, device=DEVICE)
    assert smaller.n_failed >= 1
    assert smaller.peak <= smaller.limit
    torch.testing.assert_close(scores.values, expected, rtol=1e-4, atol=1e-5)


def test_a_candidate_that_does_not_fit_into_the_bound_is_out_of_memory():
    real, parts = part("real", 40, 0, 200), candidates(3, 1500, d=200)
    with PretendCuda(), max_device_memory(MIB):
        with pytest.raises(torch.OutOfMemoryError, match="max_device_memory=1,048,576"):
            get_proxy("pad").score(real, parts, seed=0, device=DEVICE)
        # this one reads candidates in blocks
        get_proxy("coverage").score(real, parts, seed=0, device=DEVICE)


def test_a_scorer_passes_the_bound_on(monkeypatch):
    seen = []

    def score(*given, **options):
        seen.append(batch_bytes(torch.zeros(1)))
        raise ProxyError("seen")

    monkeypatch.setattr("synque_select.selection.scorer.score", score)
    texts = ["how many apps", "list all users", "which app is free"]
    with pytest.raises(ProxyError, match="seen"):
        rank({"a": texts, "b": texts}, texts, proxies=["ngram"], top_k=1, max_device_memory=2 * MIB)
    assert seen == [2 * MIB]
    with pytest.raises(ConfigError, match="max_device_memory=5"):
        Scorer(max_device_memory=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("key", ON_DEVICE)
def test_on_a_gpu_memory_is_bounded_and_scores_are_those_of_the_cpu(key):
    real, parts = part("real", 100, 0, 64), candidates(100, 500, d=64)
    expected = get_proxy(key).score(real, parts, seed=0, device=CPU).values
    device, bound = torch.device("cuda"), 64 * MIB
    get_proxy(key).score(real, parts, seed=0, device=device)  # the libraries take their work space
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with max_device_memory(bound):
        scores = get_proxy(key).score(real, parts, seed=0, device=device)
    assert torch.cuda.max_memory_allocated() - before <= 1.25 * bound
    torch.testing.assert_close(scores.values, expected, rtol=1e-3, atol=1e-4)
