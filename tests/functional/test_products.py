"""Products of rows: both libraries agree with float64, whatever the layout of the rows."""

from __future__ import annotations

import pytest
import torch

from synque_select.functional import products
from synque_select.functional.pairwise import nearest_distances, sq_distances
from synque_select.functional.products import scaled_products


@pytest.fixture(params=[False, True], ids=["mkl", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(products, "mkl_leaves_avx512_unused", lambda: request.param)
    return bool(request.param)


def unit_rows(n: int, dim: int, seed: int) -> torch.Tensor:
    rows = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


@pytest.mark.parametrize("shape", [(200, 300, 64), (129, 1000, 385), (3, 500, 384), (1, 1, 1)])
def test_products_are_those_of_float64(library: bool, shape: tuple[int, int, int]):
    p, q, dim = shape
    left, right, offset = unit_rows(p, dim, 0), unit_rows(q, dim, 1), torch.linspace(0, 2, q)
    expected = -2 * left.double() @ right.double().T + offset.double()
    actual = scaled_products(left, right, -2, offset)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-6)


def test_rows_need_not_be_contiguous(library: bool):
    wide = unit_rows(600, 256, 0)
    left, right, offset = wide[::3, :128], wide.T[:, :200].T, torch.zeros(200)
    right = right[:, :128]
    expected = left.contiguous() @ right.contiguous().T
    actual = scaled_products(left, right, 1.0, offset)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    actual.add_(1)  # the result is a plain tensor of its own
    assert actual.is_contiguous()


def test_stacked_products_are_those_of_each(library: bool):
    left, right = unit_rows(400, 64, 0).view(2, 200, 64), unit_rows(600, 64, 1).view(2, 300, 64)
    offsets = unit_rows(2, 300, 2)
    stacked = scaled_products(left, right, 0.5, offsets)
    for b in range(2):
        each = scaled_products(left[b], right[b], 0.5, offsets[b])
        torch.testing.assert_close(stacked[b], each, rtol=0, atol=1e-6)


def test_float64_stays_float64(library: bool):
    rows = unit_rows(200, 64, 0).double()
    actual = scaled_products(rows, rows, 1.0, rows.new_zeros(200))
    torch.testing.assert_close(actual, rows @ rows.T, rtol=0, atol=1e-14)


def test_equal_rows_are_at_distance_zero(library: bool):
    rows = unit_rows(300, 384, 0)
    assert sq_distances(rows, rows, refine=True).diagonal().eq(0).all()
    assert nearest_distances(rows, rows).eq(0).all()
