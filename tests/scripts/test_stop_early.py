"""The replay of what stops probes, on curves whose outcome is known."""

from __future__ import annotations

import pytest
from optuna.pruners import MedianPruner, NopPruner

from scripts.stop_early import halve, prune, quarters, rules

STEPS = sorted({1, 3, 9, *quarters(9)})


def curve(start: float, end: float) -> dict[int, float]:
    return {step: start + (end - start) * step / 9 for step in STEPS}


# nine candidates in the order of their quality, whose curves do not cross
PARALLEL = {f"c{k}": curve(-k, 10 - k) for k in range(9)}


def test_the_best_third_of_each_part_goes_on():
    stopped = halve(PARALLEL)
    assert stopped.best == "c0"
    assert stopped.n_steps == 9 * 1 + 3 * 3 + 1 * 9


def test_a_candidate_that_is_slow_at_first_is_lost():
    late = {**PARALLEL, "late": curve(-100, 100)}
    assert halve(late).best == "c0"
    assert prune(late, NopPruner()).best == "late"


def test_without_a_pruner_all_is_trained():
    assert prune(PARALLEL, NopPruner()).n_steps == 9 * 9


def test_the_median_pruner_stops_what_is_worse_than_those_before():
    stopped = prune(PARALLEL, MedianPruner(n_startup_trials=3))
    # three are trained to the end, and the six others to the first quarter
    assert (stopped.n_steps, stopped.best) == (3 * 9 + 6 * quarters(9)[0], "c0")


@pytest.mark.parametrize("name", list(rules(9)))
def test_a_rule_repeats_itself(name):
    assert rules(9)[name](PARALLEL) == rules(9)[name](PARALLEL)
