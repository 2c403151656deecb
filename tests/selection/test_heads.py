"""Heads that judge labels: fitted once for the same candidates."""

from __future__ import annotations

import pytest
import torch

from synque_select.functional import fit_heads
from synque_select.selection import heads
from synque_select.selection.heads import label_heads


def parts(seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(n, 4, generator=generator) for n in (20, 20, 30)]
    targets = [torch.nn.functional.one_hot((x[:, 0] > 0).long(), 2).bool() for x in features]
    return features, targets


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seeds: list[int] = []
    monkeypatch.setattr(heads, "_KEPT", type(heads._KEPT)())
    monkeypatch.setattr(
        heads, "fit_heads", lambda *a, **o: seeds.append(o["seed"]) or fit_heads(*a, **o)
    )
    return seeds


def test_the_same_contents_are_fitted_once(fits: list[int]):
    first = label_heads(*parts(), size=20, seed=3)
    again = label_heads(*parts(), size=20, seed=3)
    assert fits == [3]
    assert again is first
    expected = fit_heads(*parts(), size=20, seed=3)
    torch.testing.assert_close(first.coefficients, expected.coefficients)


def test_a_change_of_features_labels_size_or_draw_is_fitted_anew(fits: list[int]):
    features, targets = parts()
    label_heads(features, targets, size=20, seed=0)
    label_heads(features, targets, size=20, seed=1)  # the third candidate is a subsample
    label_heads(features, targets, size=10, seed=0)
    label_heads([features[0] + 1, *features[1:]], targets, size=20, seed=0)
    label_heads(features, [~targets[0], *targets[1:]], size=20, seed=0)
    assert len(fits) == 5


def test_without_subsamples_the_seed_does_not_matter(fits: list[int]):
    features, targets = parts()
    first = label_heads(features, targets, size=30, seed=0)
    assert label_heads(features, targets, size=30, seed=1) is first
    assert fits == [0]
    expected = fit_heads(features, targets, size=30, seed=1)
    assert torch.equal(first.coefficients, expected.coefficients)


def test_only_the_last_fits_are_kept(fits: list[int]):
    for seed in range(6):
        label_heads(*parts(seed), size=20, seed=0)
    assert len(heads._KEPT) == heads._MOST_KEPT
    label_heads(*parts(0), size=20, seed=0)
    assert len(fits) == 7
