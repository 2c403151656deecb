"""Which candidates are distinguished, with and without clusters in the real sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from synque_select.errors import ConfigError
from synque_select.proxies.base import Contributions, ProxyScores
from synque_select.selection import uncertainty
from synque_select.selection.consensus import midranks
from synque_select.selection.uncertainty import (
    Influences,
    Separation,
    effective_size,
    influences,
    multinomial_weights,
    new_sample_scores,
    score_interval,
    separation,
    t_interval,
    top_k_frequency,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def compare(*each: torch.Tensor, own: float = 0.0, **options: Any) -> Separation:
    parts = [Influences(part, torch.full((part.shape[1],), own).double()) for part in each]
    return separation(parts, **options)


def largest_ratios_of_all_pairs(
    samples: list[list[torch.Tensor]], own: list[torch.Tensor], weights: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the statistics of all pairs, (K, K), and the largest ratio of each resample, (B,)."""
    n_candidates = samples[0][0].shape[1]
    left, right = torch.triu_indices(n_candidates, n_candidates, offset=1)
    sums = [torch.zeros(len(sample[0]), len(left), dtype=torch.float64) for sample in samples]
    rest = torch.zeros(len(left), dtype=torch.float64)
    for i, variance in enumerate(own):
        differences = [sample[i][:, left] - sample[i][:, right] for sample in samples]
        for difference, sample in zip(differences, samples, strict=True):
            difference[difference.abs() <= 1e-6 * sample[i].abs().max()] = 0.0
        from_own = variance[left] + variance[right]
        errors = sum(d.var(dim=0) / len(d) for d in differences)
        scale = (1 / (errors + from_own).sqrt()).nan_to_num(posinf=0.0)
        sums = [total + d * scale for total, d in zip(sums, differences, strict=True)]
        rest = rest + from_own * scale**2
    mean, variance = sum(total.mean(dim=0) for total in sums), rest
    shift, redrawn = torch.zeros(1), torch.zeros(1)
    for total, drawn in zip(sums, weights, strict=True):
        spread = total.var(dim=0, correction=0)
        variance = variance + spread / (len(total) - 1)
        total = total - total.mean(dim=0)
        moved = drawn @ total
        again = torch.maximum(drawn @ total**2 - moved**2, 0.1 * spread)
        redrawn, shift = redrawn + again / (len(total) - 1), shift + moved
    statistic = torch.zeros(n_candidates, n_candidates, dtype=torch.float64)
    statistic[left, right] = (mean / variance.sqrt()).nan_to_num(nan=0.0)
    return statistic, (shift / redrawn.sqrt()).nan_to_num(nan=0.0).abs().amax(dim=1)


class TestSeparation:
    @pytest.mark.parametrize("at_once", [2, 256])
    @pytest.mark.parametrize("case", ["one", "several", "judges", "own", "copies"])
    def test_the_bound_is_that_of_all_pairs_at_once(
        self, case: str, at_once: int, monkeypatch: pytest.MonkeyPatch
    ):
        n_parts = 1 if case == "one" else 3
        own = torch.full((9,), 0.1 if case == "own" else 0.0).double()
        each = [normal(30, 9, seed=i) + torch.arange(9) / 4 for i in range(n_parts)]
        if case == "copies":
            each = [torch.cat((part[:, :7], part[:, :2] + 1e-12), dim=1) for part in each]
        judges = normal(6, 9, seed=5) - normal(6, 9, seed=5).mean(0) if case == "judges" else None
        parts = [Influences(part, own, judges) for part in each]
        bounds: list[torch.Tensor] = []
        given = uncertainty._bound
        monkeypatch.setattr(uncertainty, "_bound", lambda *a: bounds.append(a[0]) or given(*a))
        monkeypatch.setattr(uncertainty, "_PAIRS", at_once)
        result = separation(parts, n_resamples=300)
        samples = uncertainty._samples(parts, None)
        weights = [multinomial_weights(len(s[0]), 300, i) for i, s in enumerate(samples)]
        statistic, largest = largest_ratios_of_all_pairs(samples, [own] * n_parts, weights)
        torch.testing.assert_close(bounds[0], largest, rtol=1e-6, atol=0)
        critical = given(largest, 0.025)
        expected = (statistic < -critical) | (statistic > critical).T
        assert torch.equal(result.better, expected)
        assert result.better.any() or case == "judges"

    def test_equal_candidates_are_seldom_distinguished(self):
        result = [compare(normal(40, 6, seed=i), n_resamples=400, seed=i) for i in range(200)]
        # half of the permitted error is left unused; the 99.9 % point of Binomial(200, 0.025)
        assert sum(bool(part.apart.any()) for part in result) <= stats.binom.ppf(0.999, 200, 0.025)

    def test_of_too_many_products_units_are_grouped_and_the_error_holds(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        sizes: list[int] = []
        drawn = uncertainty.multinomial_weights
        monkeypatch.setattr(
            uncertainty, "multinomial_weights", lambda n, *a: sizes.append(n) or drawn(n, *a)
        )
        monkeypatch.setattr(uncertainty, "_MOST_PRODUCTS", 10_000)
        equal = [compare(normal(400, 6, seed=i), n_resamples=400, seed=i) for i in range(200)]
        assert set(sizes) == {128}
        assert sum(bool(part.apart.any()) for part in equal) <= stats.binom.ppf(0.999, 200, 0.025)
        moved = compare(normal(400, 3) + torch.tensor([0.0, 0.0, 0.4]), n_resamples=500)
        assert moved.better.tolist() == [[False, False, True]] * 2 + [[False] * 3]

    def test_of_many_candidates_fewer_resamples_are_drawn_and_the_error_holds(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        n_drawn: list[int] = []
        drawn = uncertainty.multinomial_weights
        monkeypatch.setattr(
            uncertainty,
            "multinomial_weights",
            lambda n, n_resamples, *a: n_drawn.append(n_resamples) or drawn(n, n_resamples, *a),
        )
        compare(normal(40, 6), n_resamples=2000)
        monkeypatch.setattr(uncertainty, "_MOST_RESAMPLED", 1800)
        compare(normal(40, 6), n_resamples=2000)
        compare(normal(40, 9), n_resamples=2000)
        assert n_drawn == [2000, 300, 250]  # times 6, 6 and 9 candidates
        equal = [compare(normal(40, 6, seed=i), seed=i) for i in range(200)]
        assert set(n_drawn[3:]) == {300}
        assert sum(bool(part.apart.any()) for part in equal) <= stats.binom.ppf(0.999, 200, 0.025)

    def test_of_more_than_128_judges_groups_are_redrawn_and_the_error_holds(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        sizes: list[int] = []
        drawn = uncertainty.multinomial_weights
        monkeypatch.setattr(
            uncertainty, "multinomial_weights", lambda n, *a: sizes.append(n) or drawn(n, *a)
        )
        own = torch.zeros(6, dtype=torch.float64)

        def judged(i: int, shift: float = 0.0) -> Separation:
            judges = 2 * normal(300, 6, seed=1000 + i)
            judges -= judges.mean(dim=0)
            # what the judges add to the scores is as random as they are
            drawn_mean = 2 * normal(300, 6, seed=5000 + i).mean(dim=0)
            moved = torch.arange(6) * shift + drawn_mean
            return separation([Influences(normal(40, 6, seed=i) + moved, own, judges)], seed=i)

        equal = [judged(i) for i in range(100)]
        assert sizes == [40, 128] * 100
        assert sum(bool(part.apart.any()) for part in equal) <= stats.binom.ppf(0.999, 100, 0.025)
        assert bool(judged(0, shift=5.0).better[0, -1])  # lower is better

    def test_grouped_units_have_the_mean_and_the_error_of_all(self):
        sample = [normal(5000, 4), normal(5000, 4, seed=1) + 2]
        grouped = uncertainty._at_most(200, sample, seed=0)
        for before, after in zip(sample, grouped, strict=True):
            assert after.shape == (200, 4)
            torch.testing.assert_close(after.mean(0), before.mean(0))
            ratio = (after.var(0) / 200) / (before.var(0) / 5000)
            assert bool(((ratio > 0.7) & (ratio < 1.35)).all())  # chi-square of 199 degrees

    def test_different_candidates_are_distinguished(self):
        result = compare(normal(40, 3) + torch.tensor([0.0, 0.0, 3.0]), n_resamples=500)
        assert result.better.tolist() == [
            [False, False, True],
            [False, False, True],
            [False, False, False],
        ]
        assert torch.equal(result.apart, result.better | result.better.T)
        assert result.across([0, 1]) == (2, 2)
        # a chosen candidate that is shown to be worse does not support the choice
        assert result.across([2]) == (0, 2)

    def test_two_candidates_are_compared_nearly_as_by_the_paired_t_test(self):
        difference = normal(60)
        difference = (difference - difference.mean()) / difference.std()
        # at half of the permitted error of 0.05
        quantile = stats.t.ppf(1 - 0.025 / 2, 59)
        for factor, better in ((0.85, False), (1.15, True)):
            shifted = difference + factor * quantile / 60**0.5
            result = compare(torch.stack([torch.zeros(60).double(), shifted], dim=1))
            assert bool(result.better[0, 1]) == better

    def test_one_candidate_cannot_be_compared(self):
        with pytest.raises(ConfigError, match="at least 2"):
            compare(normal(5, 1))

    def test_copies_are_never_distinguished_and_hide_nothing(self):
        data = normal(40, 3) + torch.tensor([0.0, 3.0, 3.0])
        data[:, 2] = data[:, 1]
        result = compare(data, data)
        assert not result.apart[1, 2]
        assert result.better[0].tolist() == [False, True, True]

    def test_skewed_contributions_do_not_raise_the_error(self):
        # the sign of the skewness alternates: with a t quantile 54 of 200 would be distinguished
        sign = torch.tensor([1.0, -1.0]).repeat(5)
        wrong = 0
        for i in range(200):
            values = np.random.default_rng(i).exponential(size=(20, 10)) - 1
            result = compare(sign * torch.from_numpy(values), n_resamples=400, seed=i)
            wrong += bool(result.apart.any())
        assert wrong <= stats.binom.ppf(0.999, 200, 0.035)

    def test_a_pair_that_one_example_distinguishes_does_not_hide_the_others(self):
        data = normal(40, 4) + torch.tensor([0.0, 0.0, 3.0, 3.0])
        data[:, 1] = data[:, 0]
        data[0, 1] += 2.0
        result = compare(data)
        assert not result.apart[0, 1]
        assert result.better[0, 2]
        assert result.better[1, 3]

    def test_few_resamples_make_the_bound_higher(self):
        data = normal(40, 3) + torch.tensor([0.0, 0.0, 9.0])
        assert compare(data, n_resamples=39).better[0, 2]
        # the largest of 38 is too low for an error of 1 in 40
        assert not compare(data, n_resamples=38).apart.any()

    def test_errors_of_the_scores_themselves_count(self):
        data = normal(40, 2) + torch.tensor([0.0, 1.2])
        assert compare(data).better[0, 1]
        assert not compare(data, own=1.0).better[0, 1]

    def test_copies_with_rounding_errors_are_never_distinguished(self):
        data = normal(40, 3) + torch.tensor([0.0, 0.0, 3.0])
        data[:, 1] = data[:, 0] + 1e-8 * (1 + normal(40, seed=1).abs())
        assert compare(data, data).better.tolist() == [
            [False, False, True],
            [False, False, True],
            [False, False, False],
        ]

    def test_the_scale_of_a_proxy_changes_nothing(self):
        first, second = normal(40, 4), normal(40, 4, seed=1) + 0.4 * torch.arange(4)
        result = compare(first, second)
        assert torch.equal(result.better, compare(1000 * first + 7, second).better)

    def test_each_example_three_times_says_no_more_than_once(self):
        data = normal(20, 6) + torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.2])
        groups = np.repeat(np.arange(20), 3)
        threefold = data.repeat_interleave(3, dim=0)
        once = compare(data, n_resamples=500)
        assert torch.equal(compare(threefold, n_resamples=500, groups=groups).better, once.better)
        assert compare(threefold, n_resamples=500).better.sum() > once.better.sum()


def printed(truth: torch.Tensor, seed: int, k: int = 3) -> torch.Tensor:
    """Stability of candidates whose scores have errors of 1 around the truth."""
    values = truth + normal(len(truth), seed=seed)
    resampled = values + normal(200, len(truth), seed=seed + 10_000)
    ranks = midranks(new_sample_scores(values, resampled, 10_000), higher_is_better=False)
    return top_k_frequency(ranks, k)


@pytest.mark.parametrize("k", [0, 4])
def test_a_frequency_of_more_places_than_candidates_is_refused(k: int):
    with pytest.raises(ConfigError, match=f"k={k}: allowed is 1 to 3"):
        top_k_frequency(torch.tensor([[1.0, 2.0, 3.0]]), k)


class TestStability:
    def test_equal_candidates_are_never_almost_sure(self):
        result = torch.stack([printed(torch.zeros(12), seed) for seed in range(100)])
        # resamples alone print 0.9 or more for 1 % of the candidates, and the truth is 0.25
        assert result.max() < 0.9
        assert (result - 0.25).square().mean() < 0.02

    def test_clear_candidates_are_almost_sure(self):
        truth = torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0])
        result = torch.stack([printed(truth, seed) for seed in range(20)])
        assert result[:, :3].min() > 0.97

    def test_it_agrees_with_new_samples(self):
        truth = 0.6 * torch.arange(8, dtype=torch.float64)
        ranks = midranks(truth + normal(20_000, 8, seed=7), higher_is_better=False)
        actual = top_k_frequency(ranks, 3)
        result = torch.stack([printed(truth, seed) for seed in range(400)])
        for low in (0.0, 0.2, 0.4, 0.6, 0.8):
            inside = (result >= low) & (result <= low + 0.2)
            expected = actual.expand_as(result)[inside].mean()
            assert float(result[inside].mean() - expected) == pytest.approx(0, abs=0.1)

    def test_three_candidates_keep_their_scores(self):
        values, resampled = normal(3), normal(50, 3, seed=1)
        result = new_sample_scores(values, resampled, 20)
        torch.testing.assert_close(result.mean(0), values)
        torch.testing.assert_close(result.var(0), 2 * resampled.var(0) * 20 / 19)


def intervals_hold(columns: torch.Tensor, truth: float, spread: float | None = None) -> float:
    """Share of the intervals of column means, one column a sample, that hold the truth."""
    n, k = columns.shape
    given = ProxyScores(
        columns.mean(0),
        resample=Contributions(columns),
        spread=None if spread is None else torch.full((k,), spread, dtype=torch.float64),
    )
    weights = multinomial_weights(n, 1000, 0)
    low, high = score_interval(given, weights, weights @ columns)
    return float(((low <= truth) & (truth <= high)).double().mean())


class TestScoreInterval:
    def test_normal_contributions(self):
        for n in (10, 20, 50):
            assert intervals_hold(normal(n, 2000), 0.0) == pytest.approx(0.95, abs=0.02)

    def test_skewed_contributions(self):
        columns = normal(30, 2000).exp()
        truth = float(np.exp(0.5))
        assert intervals_hold(columns, truth) > 0.915
        # Student's interval, for comparison
        error = columns.std(0) / 30**0.5 * stats.t.ppf(0.975, 29)
        assert ((columns.mean(0) - truth).abs() <= error).double().mean() < 0.9

    def test_a_spread_of_the_score_makes_it_longer(self):
        columns = normal(30, 2000)
        noisy = columns + 0.3 * normal(2000, seed=1)
        assert intervals_hold(noisy, 0.0) < 0.75
        assert intervals_hold(noisy, 0.0, spread=0.3) == pytest.approx(0.95, abs=0.02)

    def test_copies_in_groups_count_once(self):
        data, groups = normal(20, 3), np.repeat(np.arange(20), 3)
        threefold = data.repeat_interleave(3, dim=0)
        ends = []
        for columns, part in ((data, None), (threefold, groups)):
            weights = multinomial_weights(len(columns), 500, 0, part)
            given = ProxyScores(columns.mean(0), resample=Contributions(columns))
            ends.append(score_interval(given, weights, weights @ columns, part))
        torch.testing.assert_close(ends[0], ends[1])

    def test_with_a_term_of_pairs_it_is_students(self):
        data, pairs = normal(20, 3), normal(20, 20, seed=1)
        given = Contributions(data, pairs=pairs)
        weights = multinomial_weights(20, 500, 0)
        scores = ProxyScores(data.mean(0), resample=given)
        interval = score_interval(scores, weights, given(weights))
        torch.testing.assert_close(interval, t_interval(data.mean(0), given(weights), 20))


class TestInfluences:
    def test_of_a_ratio_they_are_its_derivative(self):
        each, counts = normal(30, 4), 1 + normal(30, seed=1).abs()
        pairs = normal(30, 30, seed=2).square()
        given = Contributions(each, constant=normal(4, seed=3), pairs=pairs, counts=counts)
        values = given(torch.full((1, 30), 1 / 30, dtype=torch.float64))[0]
        columns = (
            ProxyScores(values, resample=given),
            ProxyScores(values, resample=lambda weights: given(weights)),
        )
        result = (influences(part, 30, higher_is_better=False).each for part in columns)
        exact, numeric = (part - part[:, :1] for part in result)
        scale = (exact - exact.mean(0)).abs().max()
        assert ((exact - numeric).abs() / scale).max() < 0.05

    def test_scores_without_contributions_are_refused(self):
        with pytest.raises(ConfigError, match="no contribution"):
            influences(ProxyScores(torch.zeros(2)), 10, higher_is_better=False)

    def test_random_numbers_of_the_function_are_an_error_of_the_score(self):
        data, noise = normal(30, 3), 0.2 * normal(100, 3, seed=1)
        drawn = ProxyScores(
            data.mean(0), resample=lambda weights: weights @ data + noise[: len(weights)]
        )
        result = influences(drawn, 30, higher_is_better=True)
        torch.testing.assert_close(result.each + noise[0], -data, atol=1e-9, rtol=0)
        torch.testing.assert_close(result.own_variance, noise.var(dim=0))

    def test_an_error_of_estimation_counts(self):
        data = normal(30, 3)
        spread = torch.tensor([0.1, 0.2, 0.0], dtype=torch.float64)
        scores = ProxyScores(data.mean(0), resample=Contributions(data), spread=spread)
        result = influences(scores, 30, higher_is_better=False)
        torch.testing.assert_close(result.own_variance, spread**2)


class TestClusters:
    def test_weights_are_drawn_by_cluster(self):
        groups = np.array([0, 0, 0, 1, 2, 2])
        weights = multinomial_weights(6, 50, 0, groups)
        assert torch.allclose(weights.sum(dim=1), torch.ones(50, dtype=torch.float64))
        for first, last in ((0, 2), (4, 5)):
            assert torch.equal(weights[:, first], weights[:, last])

    def test_single_examples_as_clusters_change_nothing(self):
        groups = np.arange(15)
        weights = multinomial_weights(15, 20, 0)
        torch.testing.assert_close(multinomial_weights(15, 20, 0, groups), weights)
        data = normal(15, 3)
        plain, grouped = (
            t_interval(data.mean(0), weights @ data, 15, groups=part) for part in (None, groups)
        )
        torch.testing.assert_close(plain, grouped)

    def test_the_interval_of_copies_is_that_of_one_each(self):
        data, groups = normal(20, 3), np.repeat(np.arange(20), 3)
        threefold = data.repeat_interleave(3, dim=0)
        weights = multinomial_weights(60, 400, 0, groups)
        actual = t_interval(threefold.mean(0), weights @ threefold, 60, groups=groups)
        expected = t_interval(data.mean(0), multinomial_weights(20, 400, 0) @ data, 20)
        torch.testing.assert_close(actual, expected)

    def test_effective_size(self):
        assert effective_size(np.repeat(np.arange(20), 3)) == pytest.approx(20)
        assert effective_size(np.array([0, 0, 0, 1])) == pytest.approx(1.6)
