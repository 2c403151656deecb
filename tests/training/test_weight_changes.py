"""Weights that change at a draw: what holds for any sequence of changes, without Lightning."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, LightningError
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.training.mixture_schedule import MixtureSchedule
from synque_select.training.weight_changes import (
    ChangingWeights,
    WeightChange,
    WeightTable,
    check_weights,
)
from synque_select.types import Mixture

NAMES = ("a", "b", "c", "d")


def draws(schedule: MixtureSchedule, first: int, last: int) -> list[tuple[int, int]]:
    return [schedule.locate(draw) for draw in range(first, last)]


def change(draw: int, *weights: float, trained: int = 0) -> WeightChange:
    return WeightChange(draw, 0, dict(zip(NAMES, weights, strict=True)), trained)


@st.composite
def weight_lists(draw: st.DrawFn) -> list[float]:
    parts = draw(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
    return [part / sum(parts) for part in parts]


@st.composite
def runs(
    draw: st.DrawFn,
) -> tuple[list[int], Mixture, int, int, list[int | None], list[WeightChange]]:
    sizes = draw(st.lists(st.integers(2, 400), min_size=4, max_size=4))
    first = draw(weight_lists())
    mixture = Mixture({name: w for name, w in zip(NAMES, first, strict=True) if w})
    gaps = draw(st.lists(st.integers(1, 2_600), max_size=5))
    starts = np.cumsum(gaps).tolist()
    changes = [change(start, *draw(weight_lists())) for start in starts]
    windows = draw(st.sampled_from([[None] * 4, [50, None, 7, None]]))
    return sizes, mixture, draw(st.integers(0, 99)), draw(st.integers(1, 900)), windows, changes


def scheduled(run: tuple, table: WeightTable) -> MixtureSchedule:
    sizes, mixture, seed, epoch_length, windows, _ = run
    return MixtureSchedule(sizes, mixture, seed, epoch_length, windows=windows, changes=table)


@settings(deadline=None, max_examples=25)
@given(runs())
def test_what_holds_for_any_changes(run: tuple):
    sizes, mixture, _, _, _, changes = run
    table = WeightTable(NAMES)
    for one in changes:
        table.add(one)
    schedule = scheduled(run, table)
    end = (changes[-1].draw if changes else 0) + 1_500
    seen = draws(schedule, 0, end)
    check_weights_of_each_block(seen, mixture, changes)
    check_no_repeats(seen, sizes)
    # draws do not depend on what was asked before, and counts are those of the draws
    places = np.random.default_rng(0).permutation(end)[:300].tolist()
    other = scheduled(run, table)
    assert [other.locate(place) for place in places] == [seen[place] for place in places]
    for place in places[:20]:
        counts = np.bincount([which for which, _ in seen[:place]], minlength=4)
        assert schedule.counts(place).tolist() == counts.tolist()


def check_weights_of_each_block(
    seen: list[tuple[int, int]], mixture: Mixture, changes: list[WeightChange]
) -> None:
    first = WeightChange(0, 0, {name: mixture.weights.get(name, 0.0) for name in NAMES}, 0)
    ends = [*(one.draw for one in changes), len(seen)]
    for segment, end in zip([first, *changes], ends, strict=True):
        weights = np.array([segment.weights[name] for name in NAMES])
        for start in range(segment.draw, end - 999, 1_000):
            counts = np.bincount([which for which, _ in seen[start : start + 1_000]], minlength=4)
            assert np.abs(counts - 1_000 * weights).max() < 1 + 1e-6
        drawn = {which for which, _ in seen[segment.draw : end]}
        assert all(weights[which] > 0 for which in drawn)


def check_no_repeats(seen: list[tuple[int, int]], sizes: list[int]) -> None:
    for which, size in enumerate(sizes):
        own = [example for candidate, example in seen if candidate == which]
        for start in range(0, len(own), size):
            one_pass = own[start : start + size]
            assert len(set(one_pass)) == len(one_pass)


@settings(deadline=None, max_examples=25)
@given(runs())
def test_a_change_leaves_what_was_drawn_before(run: tuple):
    """Changes are added while draws are served, as in training; a restored table is equal."""
    table = WeightTable(NAMES)
    growing = scheduled(run, table)
    served: list[tuple[int, int]] = []
    for one in run[-1]:
        served += draws(growing, len(served), one.draw)
        table.add(one)
    served += draws(growing, len(served), len(served) + 1_200)
    restored = WeightTable(NAMES)
    restored.restore(run[-1])
    assert draws(scheduled(run, restored), 0, len(served)) == served


@pytest.mark.parametrize("epoch_length", [100, 733])
def test_the_draws_are_those_of_a_static_mixture_until_the_first_change(epoch_length: int):
    sizes, mixture = {"a": 211, "b": 130, "c": 80}, Mixture({"a": 0.6, "b": 0.4})
    static = MixtureSchedule([211, 130], mixture, 3, epoch_length)
    table = WeightTable(list(sizes))
    enabled = MixtureSchedule(list(sizes.values()), mixture, 3, epoch_length, changes=table)
    assert draws(enabled, 0, 5_000) == draws(static, 0, 5_000)
    table.add(WeightChange(2_500, 9, {"a": 0.0, "b": 0.0, "c": 1.0}, 2_400))
    assert draws(enabled, 0, 2_500) == draws(static, 0, 2_500)
    assert {which for which, _ in draws(enabled, 2_500, 5_000)} == {2}


def test_the_order_of_a_pass_does_not_depend_on_later_weights():
    mixture = Mixture({"a": 0.5, "b": 0.5})
    orders = []
    for later in ((0.1, 0.9, 0, 0), (0.8, 0.0, 0.1, 0.1)):
        table = WeightTable(NAMES)
        table.add(change(700, *later))
        schedule = MixtureSchedule([90, 50, 60, 70], mixture, 0, 100, changes=table)
        orders.append([example for which, example in draws(schedule, 0, 9_000) if not which])
    n = min(map(len, orders))
    assert n > 800
    assert orders[0][:n] == orders[1][:n]


def test_a_candidate_whose_weight_was_tiny_is_found_at_once():
    table = WeightTable(NAMES)
    table.add(change(10, 1.0, 0, 0, 0))
    mixture = Mixture({"a": 1e-9, "b": 1 - 1e-9})
    schedule = MixtureSchedule([10, 1000, 5, 5], mixture, 0, 1000, changes=table)
    own = draws(schedule, 10, 110)
    check_no_repeats(own, [10, 1000, 5, 5])


class TestTable:
    def test_a_change_at_the_same_draw_replaces_the_last(self):
        table = WeightTable(NAMES)
        schedule = MixtureSchedule([9] * 4, Mixture({"a": 1.0}), 0, 10, changes=table)
        table.add(change(5, 0, 1, 0, 0))
        assert schedule.locate(5)[0] == 1
        table.add(change(5, 0, 0, 1, 0))
        assert schedule.locate(5)[0] == 2
        assert [one.draw for one in table.changes] == [5]

    def test_an_earlier_draw_is_refused(self):
        table = WeightTable(NAMES)
        table.add(change(5, 0, 1, 0, 0))
        with pytest.raises(LightningError, match="already set from draw 5 on"):
            table.add(change(4, 0, 1, 0, 0))

    def test_the_number_of_changes_is_limited(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("synque_select.training.weight_changes.MOST_CHANGES", 2)
        table = WeightTable(NAMES)
        table.restore([change(5, 0, 1, 0, 0), change(6, 1, 0, 0, 0)])
        with pytest.raises(LightningError, match="changed 2 times, which is the limit"):
            table.add(change(7, 0, 1, 0, 0))

    def test_changes_made_later_are_dropped(self):
        table = WeightTable(NAMES)
        table.restore([change(5, 0, 1, 0, 0, trained=4), change(9, 1, 0, 0, 0, trained=8)])
        table.keep_until(7)
        assert [one.draw for one in table.changes] == [5]

    def test_names(self):
        with pytest.raises(ConfigError, match="allowed are distinct names"):
            WeightTable(["a", "a"])
        with pytest.raises(ConfigError, match="allowed are distinct names"):
            WeightTable([])

    def test_a_fixed_share_stays(self):
        table = WeightTable(["a", "b"], {"ab": 0.2})
        table.add(WeightChange(3, 0, {"a": 0.25, "b": 0.75}, 0))
        assert table.names == ("a", "ab", "b")
        assert table.weights(1) == pytest.approx([0.2, 0.2, 0.6])
        assert table.changes[0].weights == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"e": 1.0}, "weights name 'e', which is not a candidate that may be drawn"),
        ({"a": -0.5, "b": 1.5}, "the weight of 'a' is -0.5: allowed is a number from 0"),
        ({"a": float("nan")}, "the weight of 'a' is nan"),
        ({"a": "1"}, "the weight of 'a' is '1'"),
        ({"a": 0.5, "b": 0.25}, "weights must sum to 1, found 0.75"),
        ({}, "weights must sum to 1, found 0"),
    ],
)
def test_weights_that_are_refused(weights: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        check_weights(weights, NAMES)


class TestChangingWeights:
    def test_when_a_change_holds(self):
        changing = ChangingWeights(["a", "b"])
        changing.serve(8, 0)
        assert changing.change({"a": 1.0}, step=3, trained=24) == 32
        changing.serve(8, 4)
        assert changing.change({"b": 1.0}, step=4, trained=32) == 72
        # smaller batches: not before the last change
        changing.serve(2, 4)
        assert changing.change({"a": 1.0}, step=5, trained=34) == 72
        assert [one.draw for one in changing.table.changes] == [32, 72]

    def test_the_state_goes_on_with_its_lag(self):
        changing = ChangingWeights(["a", "b"])
        changing.serve(8, 4)
        changing.change({"a": 1.0}, step=3, trained=24)
        other = ChangingWeights(["b", "a"])
        other.serve(8, 0)
        other.load_state_dict(changing.state_dict())
        assert other.table.changes == changing.table.changes
        assert other.change({"b": 1.0}, step=9, trained=72) == 112

    def test_a_state_of_other_candidates(self):
        with pytest.raises(LightningError, match="weights of a, c could change"):
            ChangingWeights(["a", "b"]).load_state_dict(ChangingWeights(["a", "c"]).state_dict())

    def test_a_copy_in_another_process_is_its_own(self):
        changing = ChangingWeights(["a", "b"], {"real": 0.5})
        changing.change({"a": 1.0}, step=3, trained=24)
        other = pickle.loads(pickle.dumps(changing))
        assert other.table.changes == changing.table.changes
        other.change({"b": 1.0}, step=5, trained=50)
        assert len(changing.table) == 1
        assert other.table.weights(2).tolist() == [0.0, 0.5, 0.5]


def test_a_dataset_holds_all_that_may_be_drawn():
    parts = [Candidate(name, [f"{name}{i}" for i in range(20)]) for name in NAMES]
    table = WeightTable(["a", "b", "d"])
    dataset = MixtureDataset(parts, Mixture({"a": 0.5, "b": 0.5}), changes=table)
    assert len(dataset) == 40
    table.add(WeightChange(10, 0, {"a": 0.0, "b": 0.0, "d": 1.0}, 0))
    names = Counter(str(dataset[draw])[0] for draw in range(40))
    assert names["d"] == 30
    with pytest.raises(ConfigError, match="the mixture names c, but the weights of other"):
        MixtureDataset(parts, Mixture({"a": 0.5, "c": 0.5}), changes=table)
