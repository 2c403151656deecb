"""What every policy of reselection must do, as tests, and a simulated training to try one on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from synque_select.errors import ConfigError, SynqueError
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext, forward_budget
from synque_select.reselection.registry import POLICIES
from synque_select.testing.process import unchanged_process

__all__ = ["PolicyConformance", "SimulatedTraining"]

_BATCH = 64
_WIDTH = 4
_LAG = 1  # steps after which a proposal takes effect


@dataclass
class SimulatedTraining:
    """A training whose truth is known: each loss falls with the draws from its candidate.

    It evaluates a model as `ReselectionContext` asks for it. The loss on candidate i after n_i
    draws is `floor + exp(−speed_i · n_i)`, plus noise that falls with the number of examples it is
    measured on. Outputs on the real sample are normal around 0, and on candidate i around
    `shift_i`.

    Args:
        names: Names of the candidates.
        speeds: How fast the loss on each falls per draw.
        shifts: How far the outputs on each are from those on the real sample.
        noise: Standard deviation of the loss of one example.
        seed: Seed of the noise and the outputs.

    Example:
        >>> training = SimulatedTraining(("a", "b"), (0.0, 1.0), (0.0, 1.0), noise=0.0)
        >>> training.advance({"a": 0.5, "b": 0.5}, n_steps=1)
        >>> round(training.candidate_loss("a", 8), 3), round(training.candidate_loss("b", 8), 3)
        (1.1, 0.1)
    """

    names: tuple[str, ...]
    speeds: Sequence[float]
    shifts: Sequence[float]
    noise: float = 0.1
    seed: int = 0
    floor: float = 0.1
    step: int = 0
    draws: dict[str, float] = field(default_factory=dict)

    def advance(self, weights: Mapping[str, float], n_steps: int) -> None:
        """Train a number of steps on a mixture."""
        self.step += n_steps
        for name in self.names:
            drawn = self.draws.get(name, 0.0) + weights[name] * n_steps * _BATCH
            self.draws[name] = drawn

    def n_candidate(self, name: str) -> int:
        """Return the number of training examples."""
        return 500

    def n_surrogate(self, name: str) -> int:
        """Return the number of held-out examples."""
        return 100

    def n_real(self) -> int:
        """Return the number of real examples."""
        return 60

    def candidate_loss(self, name: str, n: int) -> float:
        """Return the loss on n training examples."""
        return self._loss(name, n, 0)

    def surrogate_loss(self, name: str, n: int) -> float:
        """Return the loss on n held-out examples."""
        return self._loss(name, n, 1)

    def real_outputs(self, n: int) -> torch.Tensor:
        """Return outputs on n real examples."""
        return self._outputs(len(self.names), n, 0.0)

    def candidate_outputs(self, name: str, n: int) -> torch.Tensor:
        """Return outputs on n examples of a candidate."""
        place = self.names.index(name)
        return self._outputs(place, n, self.shifts[place])

    def _loss(self, name: str, n: int, kind: int) -> float:
        place = self.names.index(name)
        exact = self.floor + math.exp(-self.speeds[place] * self.draws.get(name, 0.0))
        noise = np.random.default_rng([self.seed, place, self.step, kind]).standard_normal()
        return exact + self.noise * float(noise) / math.sqrt(n)

    def _outputs(self, place: int, n: int, shift: float) -> torch.Tensor:
        generator = np.random.default_rng([self.seed, place, self.step])
        return torch.from_numpy(generator.normal(shift, 1, (n, _WIDTH))).float()


@dataclass
class _Run:
    """A policy in a simulated training, change by change."""

    policy: ReselectionPolicy
    training: SimulatedTraining
    weights: dict[str, float]
    every: int
    budget: float
    hold: int = 0

    def __post_init__(self) -> None:
        self.before = self.weights  # those in force before the last change

    def change(self) -> dict[str, float]:
        """Train up to the next change, ask the policy, and return what it proposes."""
        n_steps = self.hold or self.every
        lag = min(_LAG, n_steps)
        self.training.advance(self.before, lag)
        self.training.advance(self.weights, n_steps - lag)
        trained = {
            name: (lag * self.before[name] + (n_steps - lag) * self.weights[name]) / n_steps
            for name in self.training.names
        }
        context = ReselectionContext(
            step=self.training.step,
            max_steps=None,
            every_n_steps=self.every,
            names=self.training.names,
            weights=dict(self.weights),
            budget_examples=forward_budget(self.budget, n_steps * _BATCH),
            evaluation=self.training,
            trained_weights=trained,
        )
        before = dict(context.weights)
        proposal = self.policy.propose(context)
        assert dict(context.weights) == before, "the weights in force are not to be changed"
        assert isinstance(proposal, Proposal), f"propose() returned {proposal!r}, not a Proposal"
        assert set(proposal.weights) == set(context.names), (
            "a Proposal has a weight for each of context.names, and for nothing else"
        )
        assert context.used_examples <= context.budget_examples
        self.hold = proposal.hold or 0
        self.before, self.weights = self.weights, dict(proposal.weights)
        return self.weights


class PolicyConformance:
    """What every policy of reselection must do (`ReselectionPolicy`), as tests.

    The suite asks the policy in a simulated training with four candidates. A policy that needs
    another one overrides the fixture `training`.

    Attributes:
        n_changes: Number of changes in a run.
        every_n_steps: Steps between two changes.
        budget: Share of the training for evaluation.
    """

    n_changes = 30
    every_n_steps = 25
    budget = 0.1

    @pytest.fixture
    def policy(self) -> ReselectionPolicy:
        """Return a policy that has not been started; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def training(self) -> SimulatedTraining:
        """Return a training from its beginning; each call of a test makes one."""
        return SimulatedTraining(
            ("a", "b", "c", "d"), (1e-4, 2e-3, 5e-4, 0.0), (0.0, 0.5, 1.0, 3.0)
        )

    def test_states_what_it_is(self, policy: ReselectionPolicy) -> None:
        key = getattr(policy, "id", None)
        assert isinstance(key, str), "the class does not set id"
        assert key, "id is empty"
        assert not set(policy.id) & set(":=, /"), "an id is written before options and in lists"
        assert type(policy).__doc__, "the class has no docstring"
        assert POLICIES.check(type(policy)) is type(policy)

    def test_proposals_are_mixtures_within_the_budget(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        for weights in self._trajectory(policy, training):
            assert math.isclose(math.fsum(weights.values()), 1, abs_tol=1e-6)
            assert all(weight >= 0 for weight in weights.values())

    def test_equal_seeds_give_equal_weights_and_leave_the_process_as_it_was(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        torch.manual_seed(1)
        first = self._trajectory(policy, _fresh(training))
        torch.manual_seed(2)
        with unchanged_process():
            second = self._trajectory(policy, _fresh(training))
        assert first == second, "start() does not forget the run before, or something is random"

    def test_a_resumed_run_goes_on_as_if_undisturbed(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        expected = self._trajectory(policy, _fresh(training))
        run = self._started(policy, _fresh(training))
        weights = []
        for _ in range(self.n_changes):
            weights.append(run.change())
            state = json.loads(json.dumps(policy.state_dict(), allow_nan=False))
            # another training in between, as in another process
            self._started(policy, _fresh(training)).change()
            policy.load_state_dict(state)
        assert weights == expected, (
            "after state_dict() and load_state_dict(), propose() returns other weights: the state "
            "lacks something that it depends on"
        )

    def test_a_state_is_not_changed_by_what_follows(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        run = self._started(policy, training)
        run.change()
        state = policy.state_dict()
        before = json.dumps(state)
        for _ in range(self.n_changes):
            run.change()
        assert json.dumps(state) == before, "a checkpoint would be written with a later state"

    def test_one_candidate_keeps_all_the_weight(self, policy: ReselectionPolicy) -> None:
        training = SimulatedTraining(("a",), (1e-3,), (0.5,))
        for weights in self._trajectory(policy, training):
            assert weights == {"a": 1.0}

    def test_a_loss_that_is_not_finite_is_survived_or_refused(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        broken = _fresh(training)
        broken.noise = math.nan
        try:
            for weights in self._trajectory(policy, broken):
                assert all(math.isfinite(weight) for weight in weights.values())
            json.dumps(policy.state_dict(), allow_nan=False)
        except SynqueError:
            return  # a policy may refuse, by an error of the library

    def test_without_a_budget_it_keeps_to_it_or_says_so(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> None:
        run = self._started(policy, training)
        run.budget = 0.0
        with contextlib.suppress(ConfigError):  # a policy may refuse, and say so
            run.change()

    def _started(self, policy: ReselectionPolicy, training: SimulatedTraining) -> _Run:
        weights = {name: 1 / len(training.names) for name in training.names}
        policy.start(training.names, dict(weights), 0)
        return _Run(policy, training, weights, self.every_n_steps, self.budget)

    def _trajectory(
        self, policy: ReselectionPolicy, training: SimulatedTraining
    ) -> list[dict[str, float]]:
        run = self._started(policy, training)
        return [run.change() for _ in range(self.n_changes)]


def _fresh(training: SimulatedTraining) -> SimulatedTraining:
    """Return the same training from its beginning."""
    return SimulatedTraining(
        training.names, training.speeds, training.shifts, training.noise, training.seed
    )
