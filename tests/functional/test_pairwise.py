"""Products stay in float32 whatever the caller has set, and settings stay as they were."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from synque_select.functional.pairwise import (
    count_nearer,
    largest_entry,
    median_l1_distance,
    nearest_distances,
    precise,
    sq_distances,
    working_dtype,
)


def sample(n: int, d: int = 300, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def medium_precision() -> Iterator[None]:
    """Set the precision that Lightning recommends."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_products_are_float32_whatever_the_caller_set(medium_precision):
    left, right = sample(200), sample(200, seed=1)
    expected = left.double() @ right.double().T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with precise():
            inside = left @ right.T
            assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert inside.dtype == torch.float32
    assert (inside.double() - expected).abs().max() < 1e-3
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.is_grad_enabled()


def test_settings_come_back_after_an_error(medium_precision):
    with pytest.raises(ZeroDivisionError), precise():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "medium"


def test_distances_equal_float64_differences():
    left, right = sample(40), sample(70, seed=1)
    right[3] = left[5]
    right[4] = left[5] + 1e-5
    expected = torch.cdist(left.double(), right.double()).square()
    expected[5, 4] = (left[5].double() - right[4].double()).square().sum()
    expected[5, 3] = 0
    distances = sq_distances(left, right, refine=True)
    torch.testing.assert_close(distances.double(), expected, rtol=2e-4, atol=0)
    norms = right.square().sum(1)
    assert torch.equal(sq_distances(left, right, refine=True, right_norms=norms), distances)


def test_working_dtype():
    assert working_dtype(torch.ones(2, 2)) == torch.float32
    assert working_dtype(torch.ones(2, 2), torch.ones(2, 2).double()) == torch.float64
    assert working_dtype(torch.full((2, 2), -1e6)) == torch.float64


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 39_999])
def test_largest_entry_finds_what_is_not_finite(bad, row):
    points = torch.zeros(40_000, 2)
    points[row, 1] = bad
    assert not math.isfinite(largest_entry(points))


def test_median_l1_distance():
    points = sample(31, 8)
    assert median_l1_distance(points) == pytest.approx(
        float(np.median(torch.pdist(points.double(), p=1).numpy())), rel=1e-6
    )


def test_reads_memory_maps(tmp_path):
    points = np.lib.format.open_memmap(
        tmp_path / "points.npy", mode="w+", dtype=np.float32, shape=(3000, 4)
    )
    points[:] = sample(3000, 4).numpy()
    mapped = torch.from_numpy(np.load(tmp_path / "points.npy", mmap_mode="c"))
    queries = sample(5, 4, 1)
    assert torch.equal(
        nearest_distances(queries, mapped, 3), nearest_distances(queries, sample(3000, 4), 3)
    )


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3])
@pytest.mark.parametrize(("n_points", "n_nearest"), [(50, 1), (50, 7), (2100, 1), (4096, 20)])
def test_nearest_distances_are_those_of_float64(offset, n_points, n_nearest):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(60, 8, generator=generator) + offset
    points = torch.randn(n_points, 8, generator=generator) + offset
    points[::7] = queries[: len(points[::7])].repeat(10, 1)[: len(points[::7])]  # copies
    exact = torch.cdist(
        queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    exact = exact.sort(dim=1).values[:, :n_nearest]
    distances = nearest_distances(queries, points, n_nearest)
    torch.testing.assert_close(distances, exact, atol=1e-5, rtol=1e-4)
    assert bool((distances[exact == 0] == 0).all())


def test_nearer_points_are_counted_in_blocks_as_from_all_distances():
    queries = sample(7, 3, seed=1)
    points = torch.cat([sample(2500, 3), queries])  # each query is one of them, at distance 0
    distances = torch.cdist(queries.double(), points.double())
    ordered = distances.sort(dim=1).values
    between = (ordered[:, 2:600:50] + ordered[:, 3:600:50]) / 2
    limits = torch.cat([torch.zeros(7, 1).double(), between], 1)
    nearer, at_most = count_nearer(queries, points, limits)
    assert torch.equal(nearer, (distances[:, None] < limits[..., None]).sum(2))
    assert torch.equal(at_most[:, 1:], nearer[:, 1:])
    assert at_most[:, 0].tolist() == [1] * 7
