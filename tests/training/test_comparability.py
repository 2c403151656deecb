"""Which options of a proxy separate runs from each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from synque_select.selection.scorer import rank
from synque_select.training.comparability import comparability_key
from synque_select.types import Ranking


def ranking(n: int, **options: Any) -> Ranking:
    """A ranking by `ngram`, as if it had been made by `mmd` with n examples per candidate."""
    sets = {"a": ["x y", "y z", "z x"], "b": ["u v", "v w", "w u"]}
    made = rank(sets, ["x z", "y x", "z u"], proxies=["ngram"], progress=False)
    info = replace(made.proxies["ngram"], key="mmd", options=options, version=1)
    rows = tuple(replace(row, n=n) for row in made.candidates)
    return replace(made, proxies={"mmd": info}, candidates=rows)


def key_of(made: Ranking) -> Any:
    key = comparability_key(
        task="t",
        validation="",
        monitor="acc",
        mode="max",
        model=object,
        weights="",
        examples_drawn=1,
        optimizer_steps=1,
        hyper_parameters={},
        ranking=made,
    )
    return key["proxies"]


@pytest.mark.parametrize("n", [3, 4096])
def test_limits_under_which_all_pairs_are_evaluated_are_one(n: int):
    """Records of 0.1.0 have max_exact = 20,000, under which small candidates score the same."""
    assert key_of(ranking(n, max_exact=4096)) == key_of(ranking(n, max_exact=20_000))


@pytest.mark.parametrize(
    ("n", "limit"), [(4097, 4096), (20_000, 4096), (3, 1000)], ids=["larger", "largest", "chosen"]
)
def test_other_limits_are_kept_apart(n: int, limit: int):
    assert key_of(ranking(n, max_exact=limit)) != key_of(ranking(n, max_exact=20_000))
