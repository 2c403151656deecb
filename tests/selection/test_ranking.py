"""Consensus, uncertainty and ranking on scores whose truth is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats

from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import BaseProxy, Contributions, Family, ProxyInput, ProxyScores
from synque_select.report.finding_tables import sample_size_table
from synque_select.selection import ranking
from synque_select.selection.consensus import borda, consensus_members, midranks
from synque_select.selection.decision import redecided
from synque_select.selection.ranking import ranking_from
from synque_select.selection.sample_size import sample_size_analysis
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import (
    multinomial_weights,
    t_interval,
    top_k_frequency,
)
from synque_select.types import Ranking, SampleSizeAnalysis


class MeanProxy(BaseProxy):
    """Scores a candidate by the mean of a column of contributions."""

    higher_is_better: ClassVar[bool] = False
    unit = "none"
    source = "test"

    def __init__(self, key: str, family: Family) -> None:
        self.key = key  # type: ignore[misc]
        self.family = family  # type: ignore[misc]

    def score(
        self, real: ProxyInput, candidates: Sequence[ProxyInput], *, seed: int, device: torch.device
    ) -> ProxyScores:
        raise NotImplementedError


def scores_of(contributions: torch.Tensor) -> ProxyScores:
    return ProxyScores(contributions.mean(dim=0), resample=lambda weights: weights @ contributions)


def inputs(names: Sequence[str], n: int) -> tuple[ProxyInput, ...]:
    return tuple(
        ProxyInput(name, ["x"] * n, "text", np.zeros((n, 32), dtype=np.uint8)) for name in names
    )


def scoring_of(columns: dict[str, ProxyScores], families: dict[str, Family], n: int) -> Scoring:
    k = next(iter(columns.values())).values.numel()
    names = [f"c{i}" for i in range(k)]
    return Scoring(
        real=inputs(["real"], n)[0],
        candidates=inputs(names, 50),
        suite=tuple(MeanProxy(key, families[key]) for key in columns),
        scores=columns,
        seconds=dict.fromkeys(columns, 0.0),
        real_sha256="r",
        sha256=tuple(names),
        encoder=None,
        n_encoded=0,
        seed=0,
        messages=(),
        wall_s={},
    )


def two_proxy_scoring(gap: float, n: int = 60, k: int = 5) -> Scoring:
    """Candidate i's contributions have mean gap * i under both proxies."""
    generator = torch.Generator().manual_seed(0)
    columns = {
        key: scores_of(
            torch.randn(n, k, generator=generator, dtype=torch.float64) + gap * torch.arange(k)
        )
        for key in ("a", "b")
    }
    return scoring_of(columns, {"a": "kernel", "b": "coverage"}, n)


class TestMidranks:
    def test_agrees_with_scipy_on_ties(self):
        values = torch.tensor([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
        assert midranks(values, higher_is_better=False).tolist() == [
            stats.rankdata(row).tolist() for row in values.tolist()
        ]

    def test_orientation_reverses(self):
        values = torch.randn(7, generator=torch.Generator().manual_seed(1))
        up, down = (midranks(values, higher_is_better=flag) for flag in (True, False))
        assert torch.equal(up + down, torch.full((7,), 8.0, dtype=torch.float64))

    @pytest.mark.parametrize("higher_is_better", [False, True])
    def test_rounding_errors_are_ties(self, higher_is_better: bool):
        values = torch.tensor([0.4, 0.4 + 2e-9, 0.9, 0.4 - 3e-9, float("nan"), 1e-5, 2e-5])
        ranks = midranks(values.double(), higher_is_better=higher_is_better)
        assert ranks[0] == ranks[1] == ranks[3]
        assert len(set(ranks[~ranks.isnan()].tolist())) == 4
        assert ranks[4].isnan()
        # one huge value, as of a divergence without bounds, ties nothing else
        huge = torch.tensor([0.1, 0.2, 0.3, 0.4, 1e7])
        assert len(set(midranks(huge, higher_is_better=higher_is_better).tolist())) == 5
        nothing = torch.full((2, 3), math.nan)
        assert midranks(nothing, higher_is_better=higher_is_better).isnan().all()

    def test_undefined_stays_undefined_and_takes_no_place(self):
        ranks = midranks(torch.tensor([2.0, float("nan"), 1.0]), higher_is_better=False)
        assert ranks[[0, 2]].tolist() == [2.0, 1.0]
        assert ranks[1].isnan()


class TestConsensus:
    def test_scaling_a_proxy_changes_nothing(self):
        scores = {
            key: torch.randn(6, generator=torch.Generator().manual_seed(i))
            for i, key in enumerate(("a", "b"))
        }
        scaled = {"a": scores["a"] * 1000 + 5, "b": scores["b"]}
        up = {"a": True, "b": False}
        assert torch.equal(borda(scores, up), borda(scaled, up))

    def test_one_member_a_family_and_no_diversity(self):
        values = ProxyScores(torch.tensor([1.0, 2.0]))
        suite = [
            MeanProxy("mmd", "kernel"),
            MeanProxy("energy", "kernel"),
            MeanProxy("mdm", "diversity"),
            MeanProxy("n", "baseline"),
        ]
        members, messages = consensus_members(suite, {p.key: values for p in suite})
        assert members == ("mmd",)
        assert messages == (
            "energy is shown but not in the consensus: mmd already represents the family 'kernel'.",
        )

    @pytest.mark.parametrize(
        ("scores", "why"),
        [
            (ProxyScores(torch.tensor([1.0, 2.0]), reliable=False), "not reliable"),
            (ProxyScores(torch.tensor([1.0, float("nan")])), "undefined"),
        ],
    )
    def test_what_cannot_be_trusted_stays_out(self, scores: ProxyScores, why: str):
        suite = [MeanProxy("a", "kernel"), MeanProxy("b", "domain")]
        fine = ProxyScores(torch.ones(len(scores.values)))
        members, messages = consensus_members(suite, {"a": scores, "b": fine})
        assert members == ("b",)
        assert why in messages[0]
        # without a consensus, nothing is left out of it
        assert consensus_members(suite[:1], {"a": scores}) == ((), ())


class TestUncertainty:
    def test_weights_are_counts_over_n_and_seeded(self):
        weights = multinomial_weights(20, 50, seed=3)
        assert torch.equal(weights, multinomial_weights(20, 50, seed=3))
        assert not torch.equal(weights, multinomial_weights(20, 50, seed=4))
        assert torch.allclose((weights * 20).round(), weights * 20)

    def test_interval_of_a_mean_is_students(self):
        column = torch.randn(25, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        weights = multinomial_weights(25, 40_000, seed=0)
        low, high = t_interval(column.mean(dim=0), weights @ column, 25)
        expected = stats.t.interval(0.95, 24, column.mean().item(), stats.sem(column[:, 0].numpy()))
        assert low.item() == pytest.approx(expected[0], abs=0.01)
        assert high.item() == pytest.approx(expected[1], abs=0.01)

    def test_top_k_frequency_shares_ties_and_sums_to_k(self):
        ranks = midranks(
            torch.randint(0, 4, (300, 6), generator=torch.Generator().manual_seed(0)).double(),
            higher_is_better=False,
        )
        shares = top_k_frequency(ranks, 3)
        assert shares.sum().item() == pytest.approx(3)
        assert top_k_frequency(torch.full((2, 4), 2.5), 1).tolist() == [0.25] * 4


class TestRanking:
    def test_separated_candidates(self):
        ranking = ranking_from(two_proxy_scoring(gap=3.0), top_k=2)
        assert ranking.rank_by == "consensus"
        assert [row.name for row in ranking] == ["c0", "c1", "c2", "c3", "c4"]
        assert ranking["c0"].selection_stability == 1
        assert ranking["c0"].mean_rank == 1
        decision = ranking.decision
        assert decision is not None
        assert decision.opening == "clear"
        assert any("10 of 10 pairs" in reason for reason in decision.reasons)

    def test_equal_candidates_get_the_advice_to_train_on_all(self):
        ranking = ranking_from(two_proxy_scoring(gap=0.0), top_k=2)
        assert ranking.decision is not None
        assert ranking.decision.sentence == (
            "Your real sample does not separate the 5 candidates. The top 2 are selected because "
            "top_k=2 was given."
        )
        free = ranking_from(two_proxy_scoring(gap=0.0))
        assert free.decision is not None
        assert free.decision.sentence == (
            "Train on all 5: your real sample does not separate them."
        )
        assert len(free.top().names) == 5

    def test_scores_are_raw_and_intervals_hold_them(self):
        scoring = two_proxy_scoring(gap=1.0)
        for i, row in enumerate(ranking_from(scoring).candidates):
            score = row.scores["a"]
            assert score.value == scoring.scores["a"].values[i].item()
            assert score.low < score.value < score.high

    def test_rank_by_defaults_to_the_only_proxy(self):
        scoring = two_proxy_scoring(gap=1.0)
        single = dataclasses.replace(
            scoring, suite=scoring.suite[:1], scores={"a": scoring.scores["a"]}
        )
        assert ranking_from(single).rank_by == "a"

    @pytest.mark.parametrize(("top_k", "n_messages"), [(1, 0), (2, 1), (3, 1), (4, 0), (5, 0)])
    def test_a_tie_at_the_border_is_said(self, top_k: int, n_messages: int):
        columns = {"m": ProxyScores(torch.tensor([0.1, 0.3, 0.3, 0.3, 0.9]))}
        ranking = ranking_from(scoring_of(columns, {"m": "divergence"}, 10), top_k=top_k)
        messages = [message for message in ranking.messages if "share place" in message]
        assert len(messages) == n_messages
        taken = {2: "c1", 3: "c1, c2"}
        if messages:
            assert messages[0].startswith("c1, c2, c3 share place 2= by m at the border of the top")
            verb = "is" if top_k == 2 else "are"
            assert f": {taken[top_k]} {verb} selected by the order of the" in messages[0]
            assert set(taken[top_k].split(", ")) <= set(ranking.top().names)

    def test_undefined_ranks_are_no_tie(self):
        columns = {"m": ProxyScores(torch.tensor([0.1, math.nan, math.nan]))}
        ranking = ranking_from(scoring_of(columns, {"m": "divergence"}, 10), top_k=1)
        assert not any("share place" in message for message in ranking.messages)

    def test_unknown_column(self):
        with pytest.raises(ConfigError, match="did you mean 'consensus'"):
            ranking_from(two_proxy_scoring(gap=1.0), rank_by="consensis")

    def test_consensus_of_nothing(self):
        columns = {
            "m": ProxyScores(torch.tensor([1.0, 2.0])),
            "n": ProxyScores(torch.tensor([1.0, 2.0])),
        }
        scoring = scoring_of(columns, {"m": "diversity", "n": "baseline"}, 10)
        with pytest.raises(ConfigError, match="none of m, n may enter a consensus"):
            ranking_from(scoring)

    def test_without_contributions_the_stability_is_unknown(self):
        columns = {"m": ProxyScores(torch.tensor([1.0, 2.0]), spread=torch.tensor([0.1, 0.2]))}
        ranking = ranking_from(scoring_of(columns, {"m": "divergence"}, 10), top_k=1)
        assert ranking.decision is not None
        assert ranking.decision.evidence.untested == (
            "no difference was tested, as m cannot be scored again for redrawn real examples"
        )
        assert ranking["c0"].selection_stability is None
        assert ranking["c0"].scores["m"].spread == pytest.approx(0.1)
        assert ranking["c0"].scores["m"].low is None

    def test_a_proxy_that_is_not_reliable_compares_nothing(self):
        scores = dataclasses.replace(
            scores_of(torch.arange(5.0).expand(60, 5).double()), reliable=False
        )
        scoring = scoring_of({"ngram": scores}, {"ngram": "lexical"}, 60)
        ranking = ranking_from(scoring, rank_by="ngram")
        assert ranking.decision is not None
        assert ranking.decision.sentence == (
            "Train on all 5: no difference was tested, as ngram is not reliable on this input."
        )
        assert all(row.selection_stability is None for row in ranking.candidates)

    def test_the_stability_counts_the_judges(self):
        generator = torch.Generator().manual_seed(0)
        each = torch.randn(60, 1, generator=generator, dtype=torch.float64) + torch.tensor(
            [0.0, 0.01, 0.02, 0.03]
        )
        judges = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        judges -= judges.mean(dim=0)
        shares = []
        for given in (None, judges):
            scores = ProxyScores(each.mean(0), resample=Contributions(each, judges=given))
            ranking = ranking_from(scoring_of({"m": scores}, {"m": "labels"}, 60), top_k=2)
            shares.append([row.selection_stability for row in ranking.candidates])
        assert shares[0] == [1.0, 1.0, 0.0, 0.0]
        assert all(0.1 < share < 0.9 for share in shares[1])
        assert sum(shares[1]) == pytest.approx(2)

    def test_undefined_is_null_in_the_file_form_and_comes_back(self):
        columns = {"a": ProxyScores(torch.tensor([1.0, float("nan"), 0.5]))}
        ranking = ranking_from(scoring_of(columns, {"a": "kernel"}, 10), top_k=2)
        state = ranking.to_dict()
        assert state["candidates"][1]["scores"]["a"]["value"] is None
        assert state["candidates"][1]["ranks"]["a"] is None
        assert Ranking.from_dict(state).to_dict() == state
        with pytest.raises(ConfigError, match="a is undefined for c1"):
            ranking.top(3)


def words_of(analysis: SampleSizeAnalysis) -> str:
    """Its table, wherever the width of the terminal breaks the lines."""
    return " ".join(str(sample_size_table(analysis)).split())


class TestHowManyReal:
    def test_clear_differences_agree_and_equal_ones_by_chance(self):
        clear = sample_size_analysis(two_proxy_scoring(gap=5.0), top_k=2)
        assert clear.measured[-1].overlap == 1
        assert clear.measured[-1].m == 30
        equal = sample_size_analysis(two_proxy_scoring(gap=0.0, n=200, k=10), top_k=3, sizes=[100])
        # disjoint halves of one finite sample are negatively correlated, so below chance
        assert equal.measured[0].overlap < 0.45

    def test_error_falls_as_the_root_of_n(self):
        analysis = sample_size_analysis(
            two_proxy_scoring(gap=0.3, n=400), top_k=2, rank_by="a", sizes=[50, 200], n_pairs=2000
        )
        small, large = analysis.measured
        assert small.border_error / large.border_error == pytest.approx(2, rel=0.15)
        assert analysis.extrapolated[800] == pytest.approx(large.border_error / 2)
        table = str(sample_size_table(analysis))
        assert table.count("extrapolated as 1/√n") == 4
        assert "by chance 0.40" in table

    def test_the_gap_of_a_consensus_is_extrapolated_in_standard_errors(self):
        analysis = sample_size_analysis(two_proxy_scoring(gap=0.3, n=400), top_k=2, n_pairs=2000)
        errors = [row.border_error * row.m**0.5 for row in analysis.measured]
        assert max(errors) / min(errors) == pytest.approx(1, abs=0.15)
        # two independent proxies, each in units of its own error
        assert analysis.extrapolated[400] == pytest.approx(2**0.5, rel=0.15)
        assert analysis.no_extrapolation is None
        assert "standard errors at n = 400, summed over a, b" in words_of(analysis)

    def test_a_gap_that_is_none_needs_no_further_real_examples(self):
        analysis = sample_size_analysis(two_proxy_scoring(gap=0.3, n=400), top_k=2, n_pairs=20)
        assert "More real examples help as long as this error" in words_of(analysis)
        unordered = words_of(dataclasses.replace(analysis, gap=-1.77))
        assert "place 2 is not better than place 3: either may be selected" in unordered
        assert "More real examples help" not in unordered

    def test_errors_that_do_not_fall_are_not_extrapolated(self):
        def rounded(weights: torch.Tensor) -> torch.Tensor:
            scores = weights @ contributions
            return scores + 2.0 * (scores.diff(dim=1, prepend=scores[:, :1]) > 0)

        contributions = torch.randn(
            80, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        values = rounded(torch.full((1, 80), 1 / 80, dtype=torch.float64))[0]
        scoring = scoring_of({"a": ProxyScores(values, resample=rounded)}, {"a": "kernel"}, 80)
        analysis = sample_size_analysis(scoring, top_k=2)
        assert analysis.extrapolated == {}
        assert analysis.no_extrapolation is not None
        assert "do not fall as 1/√n" in words_of(analysis)
        assert "extrapolated as" not in str(sample_size_table(analysis))
        assert SampleSizeAnalysis.from_dict(analysis.to_dict()) == analysis

    def test_groups_are_divided_as_a_whole(self):
        once = two_proxy_scoring(gap=0.3, n=40)
        part = once.scores["a"].resample(torch.eye(40, dtype=torch.float64))
        groups = np.repeat(np.arange(40), 3)
        threefold = scoring_of(
            {"a": ProxyScores(part.mean(0), Contributions(part.repeat_interleave(3, dim=0)))},
            {"a": "kernel"}, 120,
        )  # fmt: skip
        threefold = dataclasses.replace(
            threefold, real=dataclasses.replace(threefold.real, groups=groups)
        )
        analysis = sample_size_analysis(threefold, top_k=2, sizes=[60]).measured[0]
        expected = sample_size_analysis(once, top_k=2, rank_by="a", sizes=[20]).measured[0]
        assert analysis.border_error == pytest.approx(expected.border_error)

    def test_sizes_over_half_are_refused(self):
        with pytest.raises(ConfigError, match="2 to 30, half the real sample"):
            sample_size_analysis(two_proxy_scoring(gap=1.0), sizes=[31])

    def test_a_proxy_without_contributions_is_refused(self):
        columns = {"m": ProxyScores(torch.tensor([1.0, 2.0]))}
        with pytest.raises(ProxyError, match="gives no contribution"):
            sample_size_analysis(scoring_of(columns, {"m": "kernel"}, 20), top_k=1)

    def test_small_samples_are_refused(self):
        with pytest.raises(ProxyError, match="at least 20 real examples, as halves"):
            sample_size_analysis(two_proxy_scoring(gap=1.0, n=19))
        grouped = two_proxy_scoring(gap=1.0, n=40)
        grouped = dataclasses.replace(
            grouped, real=dataclasses.replace(grouped.real, groups=np.arange(40) // 4)
        )
        with pytest.raises(ProxyError, match=r"at least 20 groups of real examples.*found 10"):
            sample_size_analysis(grouped)


class TestWhatTheDecisionUses:
    def test_places_of_the_top_k_are_for_those_that_can_be_selected(self):
        scoring = two_proxy_scoring(gap=0.5)
        copied = dataclasses.replace(scoring, copies=("c0",))
        ranking = ranking_from(copied, top_k=1)
        stabilities = {row.name: row.selection_stability for row in ranking.candidates}
        assert ranking.top().names == ("c1",)
        assert stabilities["c0"] is None
        assert stabilities["c1"] > 0.9
        assert sum(share for share in stabilities.values() if share is not None) == pytest.approx(1)

    def test_another_number_of_places_has_no_stability_of_its_own(self):
        ranking = ranking_from(two_proxy_scoring(gap=0.5), top_k=2)
        assert ranking.candidates[0].selection_stability is not None
        changed = redecided(ranking, top_k=1)
        assert {row.selection_stability for row in changed.candidates} == {None}
        assert redecided(ranking, top_k=2).candidates == ranking.candidates

    def test_weights_by_score_are_those_of_the_selected_candidates(self):
        scoring = dataclasses.replace(two_proxy_scoring(gap=0.0), copies=("c1",))
        equal = ranking_from(scoring)
        weighted = ranking_from(scoring, mixture="proportional")
        assert set(weighted.top().names) == set(equal.top().names) == {"c0", "c2", "c3", "c4"}

    def test_a_pair_that_the_order_contradicts_is_not_distinguished(self):
        # c0 is ahead by the ranks of two proxies of three, and far behind by the third
        n = 60
        noise = 0.01 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0)).double()
        columns = {
            "a": scores_of(noise + torch.tensor([0.0, 0.001])),
            "b": scores_of(noise + torch.tensor([0.0, 0.001])),
            "c": scores_of(noise + torch.tensor([5.0, 0.0])),
        }
        families: dict[str, Family] = {"a": "kernel", "b": "coverage", "c": "lexical"}
        ranking = ranking_from(scoring_of(columns, families, n))
        assert [row.name for row in ranking] == ["c0", "c1"]
        assert ranking.decision is not None
        assert ranking.decision.evidence.n_apart == 0
        assert set(ranking.top().names) == {"c0", "c1"}


def test_ranks_of_many_candidates_take_no_call_per_redrawn_sample(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 700, generator=generator, dtype=torch.float64)
    expected = torch.from_numpy(stats.rankdata(values, axis=1))
    one_by_one = np.apply_along_axis
    n_calls: list[int] = []
    monkeypatch.setattr(
        "numpy.lib._nanfunctions_impl.np.apply_along_axis",
        lambda f, axis, array, *a, **k: (
            n_calls.append(len(array)) or one_by_one(f, axis, array, *a, **k)
        ),
    )
    assert torch.equal(midranks(values, higher_is_better=False), expected)
    assert not n_calls
    values[0, 0] = float("nan")
    assert (
        midranks(values, higher_is_better=False)[0, 1:].tolist()
        == stats.rankdata(values[0, 1:]).tolist()
    )


def test_where_the_first_k_are_clear_is_read_from_the_pairs():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 6, 9):
        for share in (0.1, 0.6, 1.0):
            block = torch.rand(n, n, generator=generator).triu(1).lt(share).triu(1).double()
            expected = tuple(k for k in range(1, n) if bool(block[:k, k:].all()))
            assert ranking._clear_at(block) == expected
