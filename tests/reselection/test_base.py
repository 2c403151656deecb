"""Proposals, the registry and the budget of a context."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from synque_select.errors import ConfigError
from synque_select.reselection import (
    Proposal,
    ReselectionContext,
    ReselectionPolicy,
    StaticPolicy,
    get_policy,
    policy_ids,
    register_policy,
)
from synque_select.reselection.context import forward_budget
from synque_select.reselection.registry import POLICIES


class Counted:
    """An evaluation that counts what is asked of it."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.asked: list[tuple[str, str, int]] = []

    def n_candidate(self, name: str) -> int:
        return self.sizes[name]

    n_surrogate = n_candidate

    def n_real(self) -> int:
        return 7

    def candidate_loss(self, name: str, n: int) -> float:
        self.asked.append(("candidate", name, n))
        return float(n)

    def surrogate_loss(self, name: str, n: int) -> float:
        self.asked.append(("surrogate", name, n))
        return float(n)

    def real_outputs(self, n: int) -> torch.Tensor:
        self.asked.append(("real", "", n))
        return torch.zeros(n, 2)

    def candidate_outputs(self, name: str, n: int) -> torch.Tensor:
        self.asked.append(("outputs", name, n))
        return torch.zeros(n, 2)


def context(budget: int, **sizes: int) -> ReselectionContext:
    sizes = sizes or {"a": 50, "b": 50}
    names = tuple(sizes)
    weights = dict.fromkeys(names, 1 / len(names))
    return ReselectionContext(20, 100, 20, names, weights, budget, Counted(**sizes))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.5, "b": -0.5}, "must be finite and 0 or more, found {'b': -0.5}"),
        ({"a": math.nan, "b": 1.0}, "must be finite and 0 or more, found {'a': nan}"),
        ({"a": math.inf}, "must be finite"),
        ({"a": 0.5, "b": 0.4}, "must sum to 1, found 0.9"),
        ({}, "allowed is a mapping"),
        ({"a": "1"}, "allowed is a mapping from name to number"),
        ([1.0], "allowed is a mapping"),
    ],
)
def test_weights_that_are_not_a_mixture_are_refused(weights: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        Proposal(weights)


@pytest.mark.parametrize("hold", [0, -1, 1.5, True])
def test_a_hold_below_one_step_is_refused(hold: Any):
    with pytest.raises(ConfigError, match="hold="):
        Proposal({"a": 1.0}, hold)


def test_a_weight_may_be_zero():
    assert Proposal({"a": 1, "b": 0}).weights == {"a": 1.0, "b": 0.0}


def test_static_keeps_the_weights_and_evaluates_nothing():
    asked = context(100)
    policy = StaticPolicy()
    policy.start(asked.names, asked.weights, 0)
    assert policy.propose(asked) == Proposal({"a": 0.5, "b": 0.5})
    assert asked.used_examples == 0
    assert policy.state_dict() == {}


def test_without_n_the_budget_is_split_over_the_candidates():
    asked = context(11)
    assert asked.candidate_losses() == {"a": 5.0, "b": 5.0}
    assert asked.remaining_examples == 1


def test_no_more_examples_are_evaluated_than_there_are():
    asked = context(100, a=3, b=50)
    assert asked.candidate_losses(20) == {"a": 3.0, "b": 20.0}
    assert asked.used_examples == 23
    assert len(asked.real_outputs()) == 7
    assert asked.used_examples == 30


def test_all_evaluations_of_a_change_share_the_budget():
    asked = context(10)
    asked.surrogate_loss(2)
    asked.candidate_outputs(2)
    with pytest.raises(ConfigError, match="2 examples may still be evaluated at step 20"):
        asked.candidate_losses(2)
    assert asked.candidate_losses() == {"a": 1.0, "b": 1.0}
    with pytest.raises(ConfigError, match="raise budget= or every_n_steps="):
        asked.real_outputs()


def test_the_budget_is_three_forward_passes_per_trained_example():
    assert [forward_budget(0.02, draws) for draws in (0, 16, 17, 50, 1600)] == [0, 0, 1, 3, 96]


def test_registered_policies_are_found_by_id_and_options():
    class Named(ReselectionPolicy):
        id = "test_named"

        def __init__(self, rate: float = 1.0) -> None:
            self.rate = rate

        def propose(self, context: ReselectionContext) -> Proposal:
            return Proposal(context.weights)

    register_policy(Named)
    try:
        policy = get_policy("test_named:rate=0.5")
        assert isinstance(policy, Named)
        assert policy.rate == 0.5
        assert get_policy(policy) is policy
        assert "test_named" in policy_ids()
        with pytest.raises(ConfigError, match="has no option 'rat': did you mean 'rate'"):
            get_policy("test_named:rat=0.5")
    finally:
        del POLICIES._registered["test_named"]


def test_what_is_not_a_policy_is_refused():
    wrong: Any = 3
    with pytest.raises(ConfigError, match="policy=3"):
        get_policy(wrong)
    with pytest.raises(ConfigError, match="expected a subclass of ReselectionPolicy"):
        get_policy("synque_select.reselection.base:Proposal")
    with pytest.raises(ConfigError, match="does not define id, propose"):
        get_policy("synque_select.reselection.base:ReselectionPolicy")
