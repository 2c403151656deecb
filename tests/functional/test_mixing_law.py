"""Linear mixing laws: a known law is recovered, and its best mixture found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.errors import ConfigError
from synque_select.functional.mixing_law import (
    exponentiated_gradient,
    fit_linear_law,
    law_gradient,
    normalized_law,
    perturbation_mixtures,
)

seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(1, 9), st.floats(0.05, 1))
def test_a_linear_law_is_recovered(seed, k, n_losses, share):
    law = np.random.default_rng(seed).normal(size=(n_losses, k))
    mixtures = perturbation_mixtures(k, 1 / k + share * (1 - 1 / k))
    assert fit_linear_law(mixtures, mixtures @ law.T) == pytest.approx(law, abs=1e-7)


def test_least_squares_of_more_trainings_is_closer_to_the_law():
    generator = np.random.default_rng(0)
    law = generator.normal(size=(4, 4))

    def error(sweeps: int) -> float:
        mixtures = np.tile(perturbation_mixtures(4, 0.7), (sweeps, 1))
        noise = 0.3 * generator.normal(size=(len(mixtures), 4))
        return float(np.abs(fit_linear_law(mixtures, mixtures @ law.T + noise) - law).mean())

    assert error(100) < error(1) / 3


def test_the_published_fit_is_the_solution_of_the_linear_system():
    generator = np.random.default_rng(1)
    mixtures, graph = perturbation_mixtures(3, 0.5), generator.normal(size=(3, 3))
    # the code of the paper solves W A_i = graph_i for each loss i
    published = np.array([np.linalg.solve(mixtures, row) for row in graph])
    assert fit_linear_law(mixtures, graph.T) == pytest.approx(published)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 8))
def test_a_normalized_law_sums_to_one_and_keeps_the_order(seed, k):
    law = np.random.default_rng(seed).normal(size=(k, k))
    normal = normalized_law(law)
    assert normal.sum() == pytest.approx(1)
    assert (normal >= 0).all()
    assert (np.argsort(normal, axis=None) == np.argsort(law, axis=None)).all()
    assert normalized_law(7 * np.abs(law)) == pytest.approx(normalized_law(np.abs(law)))


def test_a_law_of_equal_entries_prefers_nothing():
    assert normalized_law(np.zeros((2, 2))) == pytest.approx(np.full((2, 2), 0.25))


def test_the_published_update_worked_by_hand():
    # p ∝ p_j exp(η Σ_i A_ij), with η = 2 and Σ_i A = (0.75, 0.25)
    gradient = law_gradient([[0.5, 0.0], [0.25, 0.25]])
    new = exponentiated_gradient([0.4, 0.6], gradient, 2.0)
    up, down = 0.4 * math.exp(1.5), 0.6 * math.exp(0.5)
    assert new == pytest.approx([up / (up + down), down / (up + down)])


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(0, 50))
def test_a_step_stays_a_mixture_and_never_lowers_the_gain(seed, k, rate):
    generator = np.random.default_rng(seed)
    weights, gradient = generator.dirichlet(np.ones(k)), generator.normal(size=k)
    weights[0] = 0.0
    weights /= weights.sum()
    new = exponentiated_gradient(weights, gradient, rate)
    assert new.sum() == pytest.approx(1)
    assert new[0] == 0
    assert (new >= 0).all()
    assert new @ gradient >= weights @ gradient - 1e-9


def test_steps_under_a_known_law_end_at_its_best_mixture():
    law = np.array([[0.1, 0.6, 0.2], [0.0, 0.5, 0.3], [0.2, 0.1, 0.3]])
    weights = np.full(3, 1 / 3)
    for _ in range(60):
        mixtures = perturbation_mixtures(3, 0.8)
        fitted = fit_linear_law(mixtures, mixtures @ law.T)
        weights = exponentiated_gradient(weights, law_gradient(normalized_law(fitted)), 1.0)
    assert weights.argmax() == law.sum(axis=0).argmax() == 1
    assert weights[1] > 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perturbation_mixtures(1, 1.0), "n_candidates=1"),
        (lambda: perturbation_mixtures(4, 0.25), "focus=0.25"),
        (lambda: fit_linear_law([[0.5, 0.5]], [[1.0], [2.0]]), "shapes"),
        (lambda: fit_linear_law([[0.5, 0.5]] * 2, [[1.0], [2.0]]), "do not determine the law"),
        (lambda: fit_linear_law([[1.0, 0.0], [0.0, 1.0]], [[1.0], [math.nan]]), "finite"),
        (lambda: exponentiated_gradient([0.5, 0.5], [1.0], 1.0), "shapes"),
        (lambda: exponentiated_gradient([0.0, 0.0], [1.0, 1.0], 1.0), "weights"),
        (lambda: exponentiated_gradient([0.5, 0.5], [1.0, 1.0], -1.0), "rate=-1.0"),
    ],
)
def test_arguments_that_are_not_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
