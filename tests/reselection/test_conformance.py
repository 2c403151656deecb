"""Every built-in policy inherits the suite of policies."""

from __future__ import annotations

import pytest

from synque_select.reselection import Proposal, ReselectionPolicy, get_policy, policy_ids
from synque_select.reselection.registry import POLICIES
from synque_select.testing import PolicyConformance

SPECS = ("agreement", "aioli", "odm", "static", "surrogate")


def test_every_built_in_policy_is_tested():
    assert set(SPECS) == set(filter(POLICIES.is_built_in, policy_ids()))


class TestBuiltIn(PolicyConformance):
    @pytest.fixture(params=[*SPECS, "aioli:sweeps=2:held_out=true:n_examples=1"])
    def policy(self, request) -> ReselectionPolicy:
        return get_policy(request.param)


class Forgetful(ReselectionPolicy):
    """A policy whose state lacks what it proposes."""

    id = "forgetful"

    def start(self, names, weights, seed) -> None:
        self.n = 0

    def propose(self, context):
        self.n += 1
        share = self.n / (self.n + 1)
        first, *others = context.names
        rest = {name: (1 - share) / len(others) for name in others} if others else {}
        return Proposal({first: share if others else 1.0, **rest})


def test_the_suite_notices_a_state_that_is_not_whole():
    suite = PolicyConformance()
    training = PolicyConformance.training.__wrapped__(suite)  # the function behind the fixture
    with pytest.raises(AssertionError, match="the state lacks something that it depends on"):
        suite.test_a_resumed_run_goes_on_as_if_undisturbed(Forgetful(), training)
    suite.test_equal_seeds_give_equal_weights_and_leave_the_process_as_it_was(Forgetful(), training)


class Plain(ReselectionPolicy):
    """A policy that forgets what it must return, and what it is called."""

    def propose(self, context):
        return dict(context.weights)


def test_the_suite_says_what_is_missing():
    suite = PolicyConformance()
    training = PolicyConformance.training.__wrapped__(suite)
    with pytest.raises(AssertionError, match=r"returned {'a': 0.25, .*, not a Proposal"):
        suite.test_proposals_are_mixtures_within_the_budget(Plain(), training)
    with pytest.raises(AssertionError, match="the class does not set id"):
        suite.test_states_what_it_is(Plain())
