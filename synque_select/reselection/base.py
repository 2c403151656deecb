"""Interface of a policy: what is asked of it at each change, and what it answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synque_select.errors import ConfigError
from synque_select.utils.json_types import Json
from synque_select.utils.validation import check_int, is_number

if TYPE_CHECKING:
    from synque_select.reselection.context import ReselectionContext

__all__ = ["Proposal", "ReselectionPolicy", "StaticPolicy"]

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Proposal:
    """The weights that a policy proposes for the draws that follow.

    Args:
        weights: Weight of every candidate in `ReselectionContext.names`, 0 or more, with sum 1.
        hold: Optimizer steps until the policy is asked again; None for `every_n_steps`.

    Raises:
        ConfigError: A weight is negative or not finite, the sum is not 1, or `hold` is below 1.

    Example:
        >>> Proposal({"a": 0.75, "b": 0.25}).weights["a"]
        0.75
        >>> Proposal({"a": 0.75, "b": 0.75})
        Traceback (most recent call last):
        synque_select.errors.ConfigError: proposed weights must sum to 1, found 1.5
    """

    weights: Mapping[str, float]
    hold: int | None = None

    def __post_init__(self) -> None:
        given: Any = self.weights
        if not (isinstance(given, Mapping) and given and all(map(is_number, given.values()))):
            raise ConfigError(
                f"proposed weights: allowed is a mapping from name to number, found {given!r}"
            )
        weights = {str(name): float(weight) for name, weight in given.items()}
        bad = {name: w for name, w in weights.items() if not (math.isfinite(w) and w >= 0)}
        if bad:
            raise ConfigError(f"proposed weights must be finite and 0 or more, found {bad}")
        total = math.fsum(weights.values())
        if abs(total - 1) > _TOLERANCE:
            raise ConfigError(f"proposed weights must sum to 1, found {total:.6g}")
        if self.hold is not None:
            check_int("hold", self.hold, 1)
        object.__setattr__(self, "weights", weights)


class ReselectionPolicy(ABC):
    """Decides, while a model trains, with which weights its candidates are drawn.

    `ReselectionCallback` calls `start` once at the beginning of a run, and `propose` whenever
    `every_n_steps` optimizer steps (or those of `Proposal.hold`) have passed. Both run on rank 0
    alone; every rank uses the proposed weights. `state_dict` goes into every checkpoint, and
    `load_state_dict` is called after `start` when a run is resumed: after it, the policy must
    propose exactly what it would have proposed without the interruption. All that
    `propose` depends on is therefore the context, the arguments of the constructor, and the state;
    randomness comes from the seed of `start` and the step, or its state is part of the state.

    Where `propose` raises a `BudgetError`, as the context does for evaluations that the budget does
    not pay for, the state from before the question is restored, the weights stay, and the policy is
    asked again when the budget has grown.

    A policy does not change the module or the trainer, and evaluates the model through
    the context alone, which restores what an evaluation changes and counts it against the budget.

    Attributes:
        id: Key of the policy, as in `ReselectionCallback(policy="odm")`.
        needs_held_out: Whether `propose` measures losses on examples that are held out of training,
            so that the DataModule needs `val="surrogate"`.

    Example:
        >>> class Halve(ReselectionPolicy):
        ...     id = "halve"
        ...
        ...     def propose(self, context):
        ...         losses = context.candidate_losses()
        ...         easiest = min(losses, key=losses.get)
        ...         weights = {n: w / 2 if n == easiest else w for n, w in context.weights.items()}
        ...         total = sum(weights.values())
        ...         return Proposal({name: weight / total for name, weight in weights.items()})
        >>> Halve().state_dict()
        {}
    """

    id: ClassVar[str]
    needs_held_out: bool = False

    def start(  # noqa: B027 - most policies have nothing to set up
        self, names: Sequence[str], weights: Mapping[str, float], seed: int
    ) -> None:
        """Forget an earlier run and begin a new one.

        Args:
            names: The K candidates that may be drawn.
            weights: Their weights at the start of the run.
            seed: Random seed.
        """

    @abstractmethod
    def propose(self, context: ReselectionContext) -> Proposal:
        """Return the weights for the draws that follow.

        Args:
            context: The step, the weights in force, and ways to evaluate the current model.
        """

    def state_dict(self) -> dict[str, Json]:
        """Return what `propose` depends on besides the context, as plain JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Json]) -> None:  # noqa: B027 - stateless by default
        """Continue from what `state_dict` returned."""


class StaticPolicy(ReselectionPolicy):
    """The control: keeps the weights as they are, and evaluates nothing.

    Example:
        >>> policy = StaticPolicy()
        >>> policy.id
        'static'
    """

    id = "static"

    def propose(self, context: ReselectionContext) -> Proposal:
        """Return the weights in force."""
        return Proposal(context.weights)
