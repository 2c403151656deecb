"""Weights by the slope of the learning curve of each candidate's held-out loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from synque_select.errors import ConfigError
from synque_select.functional.learning_speed import curve_slopes, learning_speed_weights
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.validation import check_int, is_number

__all__ = ["SurrogatePolicy"]


class SurrogatePolicy(ReselectionPolicy):
    r"""Draws more from candidates on whose held-out examples the loss is falling fast.

    .. math:: w_i = (1 - \kappa) \frac{p_i \max(-b_i, 0)}{\sum_j p_j \max(-b_j, 0)} + \kappa p_i

    p are the weights at the start and b the least-squares slopes of the surrogate losses over the
    last changes. The first change only measures, and keeps the weights. It needs
    `SynqueDataModule(val="surrogate")`. A candidate without weight at the start gets none.

    Args:
        window: Number of changes that the slope is fitted to, at least 2.
        keep: κ, the share of the weights at the start in every proposal, 0 to 1.

    Raises:
        ConfigError: An argument is not allowed.

    Source:
        `synque_select.functional.learning_speed_weights`.

    Example:
        >>> SurrogatePolicy(window=3).id
        'surrogate'
    """

    id = "surrogate"
    needs_held_out = True

    def __init__(self, window: int = 5, keep: float = 0.2) -> None:
        check_int("window", window, 2)
        if not (is_number(keep) and 0 <= keep <= 1):
            raise ConfigError(f"keep={keep!r}: allowed is 0 to 1")
        self.window, self.keep = window, keep
        self._prior: list[float] = []
        self._steps: list[int] = []
        self._losses: list[list[float]] = []

    def start(self, names: Sequence[str], weights: Mapping[str, float], seed: int) -> None:
        """Begin with empty learning curves."""
        self._prior = [float(weights[name]) for name in names]
        self._steps, self._losses = [], []

    def propose(self, context: ReselectionContext) -> Proposal:
        """Measure the losses, and return the weights that follow from the slopes so far."""
        losses = context.surrogate_loss()
        self._steps = [*self._steps, context.step][-self.window :]
        row = [loss if math.isfinite(loss) else math.nan for loss in losses.values()]
        self._losses = [*self._losses, row][-self.window :]
        if len(set(self._steps)) < 2:
            return Proposal(context.weights)
        slopes = curve_slopes(self._steps, np.array(self._losses))
        weights = learning_speed_weights(self._prior, slopes, self.keep)
        return Proposal(dict(zip(context.names, weights.tolist(), strict=True)))

    def state_dict(self) -> dict[str, Json]:
        """Return the weights at the start, and the learning curves within the window."""
        curves = [[null_if_undefined(loss) for loss in row] for row in self._losses]
        return {"prior": self._prior, "steps": self._steps, "losses": curves}

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """Continue from what `state_dict` returned."""
        fields = JsonFields(state, "the state of the policy")
        self._prior = list(fields.number_list("prior"))
        self._steps = [int(step) for step in fields.number_list("steps")]
        rows = {str(i): row for i, row in enumerate(fields.list("losses"))}
        curves = JsonFields(rows, fields.path("losses"))
        self._losses = [list(curves.number_list(place)) for place in rows]
