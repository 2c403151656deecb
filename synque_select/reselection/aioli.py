"""Aioli: fits a linear mixing law to short perturbations of the mixture, and follows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from synque_select.errors import ConfigError
from synque_select.functional.mixing_law import (
    exponentiated_gradient,
    fit_linear_law,
    law_gradient,
    normalized_law,
    perturbation_mixtures,
)
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.validation import check_int, is_number

__all__ = ["AioliPolicy"]


class AioliPolicy(ReselectionPolicy):
    r"""Learns how the losses depend on the weights by changing them, and then improves them.

    A round first trains a few steps on each of K perturbed mixtures in a random order; each gives
    its candidate the weight `focus`. The decreases of the losses under the known mixtures give the
    linear law A, in which entry (i, j) is how much training on candidate j lowers the loss on
    candidate i. Its entries are normalized to sum to 1, the weights p from before the round take a
    step of exponentiated gradient, and `every_n_steps` steps are trained with the result:

    .. math:: p_j \leftarrow p_j \exp(\eta \sum_i A_{ij}) / \sum_k p_k \exp(\eta \sum_i A_{ik})

    The perturbations are part of the training: they cost no step, but the model is trained on
    other mixtures meanwhile. A round that could not finish before training ends is not started.
    The law is fitted to the mixtures that were actually trained on, as the first batches after a
    proposal are still those of the mixture before. A candidate without weight at the start takes
    no part.

    Args:
        rate: Step size η, above 0.
        focus: Weight of one candidate in its perturbed mixture, above 1/K and at most 1.
        sweeps: Number of perturbations per candidate and round.
        n_examples: Number of examples of each candidate on which a loss is measured, at least; it
            decides, with the budget, after how many steps that is.
        held_out: Whether the losses are those on held-out examples, as in the paper, for which
            `SynqueDataModule(val="surrogate")` is needed; else on training examples.

    Raises:
        ConfigError: An argument is not allowed.

    Source:
        Chen et al., "Aioli: A unified optimization framework for language model data mixing", 2024
        (arXiv 2411.05735), Algorithms 1 and 2; η and `focus` as in its code.

    Example:
        >>> AioliPolicy(rate=0.5).id
        'aioli'
    """

    id = "aioli"

    def __init__(
        self,
        rate: float = 0.2,
        focus: float = 0.75,
        sweeps: int = 1,
        n_examples: int = 4,
        held_out: bool = False,
    ) -> None:
        if not (is_number(rate) and rate > 0 and math.isfinite(rate)):
            raise ConfigError(f"rate={rate!r}: allowed is a number above 0")
        if not (is_number(focus) and 0 < focus <= 1):
            raise ConfigError(f"focus={focus!r}: allowed is above 1/K and at most 1")
        if not isinstance(held_out, bool):
            raise ConfigError(f"held_out={held_out!r}: allowed are true and false")
        check_int("sweeps", sweeps, 1)
        check_int("n_examples", n_examples, 1)
        self.rate, self.focus, self.sweeps = rate, focus, sweeps
        self.n_examples, self.needs_held_out = n_examples, held_out
        self.start((), {}, 0)

    def start(self, names: Sequence[str], weights: Mapping[str, float], seed: int) -> None:
        """Begin before the first round."""
        self._seed, self._round, self._hold = seed, 0, 1
        self._weights = [float(weights[name]) for name in names]
        self._order: list[int] = []  # the candidates of this round's perturbations
        self._before: list[float] = []
        self._drops: list[list[float]] = []
        self._mixtures: list[list[float]] = []  # those that the drops belong to

    def propose(self, context: ReselectionContext) -> Proposal:
        """Return the next perturbed mixture, or the weights that follow from the round."""
        active = np.flatnonzero(self._weights)
        if len(active) < 2:
            return self._kept(context)
        if not self._order:
            self._hold = self._steps_of_one(context)
            if not self._has_time(context, len(active)):
                return self._kept(context)
            self._begin(self._losses(context), len(active))
        else:
            losses = self._losses(context)
            trained = context.trained_weights or context.weights
            self._mixtures.append([float(trained[name]) for name in context.names])
            self._drops.append((np.array(self._before) - losses).tolist())
            self._before = losses.tolist()
        if len(self._drops) < len(self._order):
            mixtures = perturbation_mixtures(len(active), self.focus)
            weights = np.zeros(len(self._weights))
            weights[active] = mixtures[self._order[len(self._drops)]]
            return Proposal(self._named(context, weights), self._hold)
        self._end(active)
        return self._kept(context)

    def _kept(self, context: ReselectionContext) -> Proposal:
        return Proposal(self._named(context, np.array(self._weights)))

    def _named(self, context: ReselectionContext, weights: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(context.names, weights.tolist(), strict=True))

    def _losses(self, context: ReselectionContext) -> NDArray[np.float64]:
        losses = context.surrogate_loss() if self.needs_held_out else context.candidate_losses()
        return np.array([losses[name] for name in context.names])

    def _steps_of_one(self, context: ReselectionContext) -> int:
        """Return after how many steps the budget pays for measuring the losses."""
        per_step = context.budget_examples / (context.waited_steps or context.every_n_steps)
        needed = self.n_examples * len(context.names)
        return math.ceil(needed / per_step) if per_step > 0 else context.every_n_steps

    def _has_time(self, context: ReselectionContext, n_active: int) -> bool:
        needed = self.sweeps * n_active * self._hold
        return context.max_steps is None or context.step + needed < context.max_steps

    def _begin(self, losses: NDArray[np.float64], n_active: int) -> None:
        generator = np.random.default_rng([self._seed, self._round])
        sweeps = [generator.permutation(n_active).tolist() for _ in range(self.sweeps)]
        self._order = [place for sweep in sweeps for place in sweep]
        self._before, self._drops, self._mixtures = losses.tolist(), [], []

    def _end(self, active: NDArray[np.intp]) -> None:
        """Fit the law to the round, and take a step."""
        drops, mixtures = np.array(self._drops), np.array(self._mixtures)[:, active]
        known = np.isfinite(drops).all(axis=0)  # a loss that diverged says nothing
        # perturbations that are shorter than the lag may leave a candidate undetermined
        if known.any() and np.linalg.matrix_rank(mixtures, tol=1e-6) == len(active):
            gradient = law_gradient(normalized_law(fit_linear_law(mixtures, drops[:, known])))
            weights = np.array(self._weights)
            weights[active] = exponentiated_gradient(weights[active], gradient, self.rate)
            self._weights = weights.tolist()
        self._round += 1
        self._order, self._drops, self._mixtures = [], [], []

    def state_dict(self) -> dict[str, Json]:
        """Return the weights, and what this round has measured."""
        return {
            "seed": self._seed,
            "round": self._round,
            "hold": self._hold,
            "weights": self._weights,
            "order": self._order,
            "before": _plain(self._before),
            "drops": [_plain(row) for row in self._drops],
            "mixtures": [list(row) for row in self._mixtures],
        }

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """Continue from what `state_dict` returned."""
        fields = JsonFields(state, "the state of the policy")
        self._seed, self._round = fields.integer("seed"), fields.integer("round")
        self._hold = fields.integer("hold")
        self._weights = list(fields.number_list("weights"))
        self._order = [int(place) for place in fields.number_list("order")]
        self._before = list(fields.number_list("before"))
        self._drops, self._mixtures = _rows(fields, "drops"), _rows(fields, "mixtures")


def _plain(values: Sequence[float]) -> list[Json]:
    """Return numbers as JSON has them: null for those that are not finite."""
    return [value if math.isfinite(value) else None for value in values]


def _rows(fields: JsonFields, name: str) -> list[list[float]]:
    rows = {str(i): row for i, row in enumerate(fields.list(name))}
    each = JsonFields(rows, fields.path(name))
    return [list(each.number_list(place)) for place in rows]
