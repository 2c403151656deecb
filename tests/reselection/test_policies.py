"""What the policies do in simulated trainings whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synque_select.errors import ConfigError, RecordError
from synque_select.functional.odm import exp3_weights, exploration_rate, smoothed_rewards
from synque_select.reselection import (
    AgreementPolicy,
    AioliPolicy,
    OdmPolicy,
    ReselectionContext,
    ReselectionPolicy,
    SurrogatePolicy,
    get_policy,
)
from synque_select.testing import SimulatedTraining

NAMES = ("a", "b", "c")


def run(
    policy: ReselectionPolicy,
    training: SimulatedTraining,
    n_changes: int,
    start: dict[str, float] | None = None,
    max_steps: int | None = None,
    every: int = 25,
    lag: int = 0,
) -> list[dict[str, float]]:
    """Train with a policy, and return the weights of each interval."""
    weights = start or {name: 1 / len(training.names) for name in training.names}
    policy.start(training.names, weights, 0)
    trajectory, hold, before = [], every, weights
    for _ in range(n_changes):
        training.advance(before, lag)
        training.advance(weights, hold - lag)
        trained = {n: (lag * before[n] + (hold - lag) * weights[n]) / hold for n in weights}
        context = ReselectionContext(
            training.step, max_steps, every, training.names, weights, 8 * hold, training, trained
        )
        proposal = policy.propose(context)
        before, weights, hold = weights, dict(proposal.weights), proposal.hold or every
        trajectory.append(weights)
    return trajectory


def test_odm_proposes_what_the_published_formulas_say():
    training = SimulatedTraining(NAMES, (1e-3, 1e-4, 1e-2), (0, 0, 0), noise=0.0)
    policy = OdmPolicy(smoothing=0.9)
    weights = dict.fromkeys(NAMES, 1 / 3)
    policy.start(NAMES, weights, 0)
    rewards, previous = np.zeros(3), 1 / 3
    for _ in range(5):
        training.advance(weights, 10)
        losses = [training.candidate_loss(name, 1) for name in NAMES]
        rewards = smoothed_rewards(rewards, losses, list(weights.values()), 0.9)
        rate = exploration_rate(training.step, 3)
        expected = exp3_weights(rewards, rate, previous)
        previous = rate
        context = ReselectionContext(training.step, None, 10, NAMES, weights, 30, training)
        weights = dict(policy.propose(context).weights)
        assert list(weights.values()) == pytest.approx(expected)


def test_odm_draws_most_from_the_candidate_with_the_highest_loss():
    training = SimulatedTraining(NAMES, (1e-2, 1e-5, 1e-2), (0, 0, 0))
    last = run(OdmPolicy(), training, 40)[-1]
    assert max(last, key=last.__getitem__) == "b"
    assert min(last.values()) >= exploration_rate(training.step, 3) - 1e-9


def test_odm_brings_in_a_candidate_that_had_no_weight_at_the_start():
    training = SimulatedTraining(NAMES, (1e-3, 1e-3, 1e-3), (0, 0, 0))
    first = run(OdmPolicy(), training, 1, start={"a": 0.5, "b": 0.5, "c": 0.0})[0]
    assert first["c"] > 0


def test_surrogate_follows_the_loss_that_falls_fastest():
    # b is being learned, a is known from the start, and c is never learned
    training = SimulatedTraining(NAMES, (1.0, 5e-4, 0.0), (0, 0, 0), noise=0.0)
    trajectory = run(SurrogatePolicy(keep=0.1), training, 6)
    assert trajectory[0] == dict.fromkeys(NAMES, 1 / 3)
    assert trajectory[-1]["b"] == pytest.approx(1 / 30 + 0.9, abs=1e-6)
    assert trajectory[-1]["a"] == pytest.approx(1 / 30, abs=1e-6)


def test_agreement_orders_candidates_by_their_outputs():
    training = SimulatedTraining(NAMES, (0, 0, 0), (0.0, 0.7, 3.0))
    last = run(AgreementPolicy(), training, 3)[-1]
    assert last["a"] > last["b"] > last["c"]
    sharp = run(AgreementPolicy(sharpness=20.0), training, 3)[-1]
    assert sharp["a"] > 0.95
    flat = run(AgreementPolicy(sharpness=0.0), training, 3)[-1]
    assert list(flat.values()) == pytest.approx([1 / 3] * 3)


def test_agreement_says_what_to_raise_if_it_cannot_compare():
    training = SimulatedTraining(NAMES, (0, 0, 0), (0, 0, 0))
    policy = AgreementPolicy()
    policy.start(NAMES, dict.fromkeys(NAMES, 1 / 3), 0)
    context = ReselectionContext(10, None, 10, NAMES, dict.fromkeys(NAMES, 1 / 3), 7, training)
    with pytest.raises(ConfigError, match=r"at least 2 outputs on each candidate.*raise budget="):
        policy.propose(context)


class LinearTraining(SimulatedTraining):
    """A training under a linear law: loss i falls by Σ_j A_ij w_j with each step."""

    law = np.array([[0.1, 0.6, 0.2], [0.0, 0.5, 0.3], [0.2, 0.1, 0.3]]) / 100

    def advance(self, weights, n_steps) -> None:
        super().advance(weights, n_steps)
        fallen = n_steps * self.law @ [weights[name] for name in self.names]
        self.losses = getattr(self, "losses", np.full(3, 100.0)) - fallen

    def candidate_loss(self, name: str, n: int) -> float:
        return float(self.losses[self.names.index(name)])


@pytest.mark.parametrize("lag", [0, 1])
def test_aioli_fits_the_law_and_follows_its_gradient(lag: int):
    training = LinearTraining(NAMES, (0, 0, 0), (0, 0, 0))
    policy = AioliPolicy(rate=3.0)
    trajectory = run(policy, training, 8, lag=lag)
    # measured and perturbed three times, then the step: p ∝ exp(3 Σ_i A_ij / Σ A)
    gains = LinearTraining.law.sum(axis=0) / LinearTraining.law.sum()
    expected = np.exp(3 * gains) / np.exp(3 * gains).sum()
    assert [max(weights.values()) for weights in trajectory[:3]] == [0.75] * 3
    assert {max(w, key=w.__getitem__) for w in trajectory[:3]} == set(NAMES)
    assert list(trajectory[3].values()) == pytest.approx(expected)
    assert list(trajectory[7].values()) == pytest.approx(
        expected * np.exp(3 * gains) / (expected * np.exp(3 * gains)).sum()
    )


def test_aioli_ends_at_the_best_mixture_of_a_law():
    last = run(AioliPolicy(rate=5.0), LinearTraining(NAMES, (0, 0, 0), (0, 0, 0)), 80)[-1]
    assert last["b"] > 0.99


def test_aioli_begins_no_round_that_the_training_would_cut_off():
    start = {"a": 0.2, "b": 0.3, "c": 0.5}
    training = LinearTraining(NAMES, (0, 0, 0), (0, 0, 0))
    trajectory = run(AioliPolicy(n_examples=100), training, 4, start=start, max_steps=120)
    assert trajectory == [start] * 4


def test_aioli_leaves_out_a_candidate_without_weight_at_the_start():
    training = LinearTraining(NAMES, (0, 0, 0), (0, 0, 0))
    start = {"a": 0.5, "b": 0.0, "c": 0.5}
    for weights in run(AioliPolicy(), training, 12, start=start):
        assert weights["b"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OdmPolicy(smoothing=1.0), "smoothing=1.0"),
        (lambda: SurrogatePolicy(window=1), "window=1"),
        (lambda: SurrogatePolicy(keep=1.5), "keep=1.5"),
        (lambda: AgreementPolicy(sharpness=-1.0), "sharpness=-1.0"),
        (lambda: AioliPolicy(rate=0.0), "rate=0.0"),
        (lambda: AioliPolicy(rate=math.nan), "rate=nan"),
        (lambda: AioliPolicy(focus=1.5), "focus=1.5"),
        (lambda: AioliPolicy(sweeps=0), "sweeps=0"),
        (lambda: AioliPolicy(n_examples=0), "n_examples=0"),
        (lambda: get_policy("odm:smoothing=x"), "smoothing='x'"),
        (lambda: get_policy("surrogate:keep=x"), "keep='x'"),
        (lambda: get_policy("surrogate:window=2.5"), "window=2.5"),
        (lambda: get_policy("agreement:sharpness=null"), "sharpness=None"),
        (lambda: get_policy("aioli:rate=fast"), "rate='fast'"),
        (lambda: get_policy("aioli:focus=[1]"), r"focus=\[1\]"),
        (lambda: get_policy("aioli:held_out=no"), "held_out='no'"),
    ],
)
def test_arguments_that_are_not_allowed(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("policy", [OdmPolicy(), SurrogatePolicy(), AgreementPolicy()])
def test_a_state_of_something_else_is_refused_by_field(policy: ReselectionPolicy):
    with pytest.raises(RecordError, match=r"state of the policy\.(rewards|prior) must be"):
        policy.load_state_dict({"weights": [1.0]})
