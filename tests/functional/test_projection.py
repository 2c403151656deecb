from __future__ import annotations

import math

import pytest
import torch

from synque_select.errors import ConfigError
from synque_select.functional import projection, random_projection


def pair() -> torch.Tensor:
    return torch.randn(2, 3000, generator=torch.Generator().manual_seed(1))


def test_inner_products_are_preserved_in_expectation_within_the_bound():
    x, y = pair().double()
    y = x + y  # so that their inner product is not 0
    seeds, k = 200, 64
    products = torch.tensor(
        [
            (a @ b).item()
            for a, b in (random_projection(torch.stack([x, y]), k, seed=s) for s in range(seeds))
        ]
    )
    true = (x @ y).item()
    bound = ((x @ x) * (y @ y) + true**2).item() / k
    assert products.var().item() < bound * 1.3  # the bound of the variance, and its own error
    assert abs(products.mean().item() - true) < 4 * math.sqrt(bound / seeds)


def test_a_projection_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch):
    rows = pair()
    one = random_projection(rows, 16, seed=3)
    assert torch.equal(one[1:], random_projection(rows[1:], 16, seed=3))
    assert not torch.equal(one, random_projection(rows, 16, seed=4))
    monkeypatch.setattr(projection, "_MAX_ENTRIES", 16 * 700)  # four blocks of 700, one of 200
    sizes = [700] * 4 + [200]
    expected = sum(
        part @ projection._signs(size, 16, 3, number)
        for number, (part, size) in enumerate(zip(rows.split(700, dim=1), sizes, strict=True))
    )
    assert torch.allclose(random_projection(rows, 16, seed=3), expected / 4, atol=1e-4)
    first, second = (projection._signs(700, 16, 3, number) for number in (0, 1))
    assert not torch.equal(first, second)


def test_short_vectors_are_not_projected():
    rows = torch.randn(3, 8)
    assert torch.equal(random_projection(rows, 8), rows)


@pytest.mark.parametrize(("options", "name"), [({"n_dims": 0}, "n_dims"), ({"seed": -1}, "seed")])
def test_bad_options(options: dict[str, int], name: str):
    with pytest.raises(ConfigError, match=f"{name}="):
        random_projection(torch.zeros(1, 2), **{"n_dims": 1, **options})
