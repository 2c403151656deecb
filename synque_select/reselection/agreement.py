"""Weights by how similar the model's outputs on a candidate are to those on the real sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from synque_select.errors import BudgetError, ConfigError
from synque_select.functional.learning_speed import closeness_weights
from synque_select.functional.mmd import Kernel, mmd2_unbiased
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.validation import is_number

__all__ = ["AgreementPolicy"]

_ENERGY = Kernel("energy")  # needs no bandwidth, which would change with the model
_LEAST = 2  # outputs of a set between which there is a distance


class AgreementPolicy(ReselectionPolicy):
    r"""Draws more from candidates on which the model's outputs are like those on real examples.

    .. math:: w_i \propto p_i \exp(-\beta d_i / \bar d)

    p are the weights at the start, and d_i is the energy distance between the outputs of the model
    on the candidate and on the real sample: features or predictions, as the user's module returns
    them. No label is read, so false labels are not detected. A candidate without weight at
    the start gets none.

    Args:
        sharpness: β, at least 0: how fast the weight falls with the distance.

    Raises:
        ConfigError: `sharpness` is not allowed.

    Source:
        Székely and Rizzo, "Energy statistics", Journal of Statistical Planning and Inference 2013,
        for the distance; the weights are our choice.

    Example:
        >>> AgreementPolicy(sharpness=2.0).id
        'agreement'
    """

    id = "agreement"

    def __init__(self, sharpness: float = 1.0) -> None:
        if not (is_number(sharpness) and 0 <= sharpness < math.inf):
            raise ConfigError(f"sharpness={sharpness!r}: allowed is a finite number from 0")
        self.sharpness = sharpness
        self._prior: list[float] = []

    def start(self, names: Sequence[str], weights: Mapping[str, float], seed: int) -> None:
        """Remember the weights at the start."""
        self._prior = [float(weights[name]) for name in names]

    def propose(self, context: ReselectionContext) -> Proposal:
        """Compare the outputs, and return the weights that follow from their distances."""
        n_parts = len(context.names) + 1
        n = context.remaining_examples // n_parts
        if n < _LEAST:
            raise BudgetError(
                f"the policy 'agreement' needs at least {_LEAST} outputs on each candidate and on "
                f"the real sample, but only {context.remaining_examples} in total may be "
                f"computed at step {context.step}: raise budget= or every_n_steps= of "
                "ReselectionCallback",
                context.used_examples + _LEAST * n_parts,
            )
        real = context.real_outputs(n)
        distances = [_distance(real, own) for own in context.candidate_outputs(n).values()]
        weights = closeness_weights(self._prior, distances, self.sharpness)
        return Proposal(dict(zip(context.names, weights.tolist(), strict=True)))

    def state_dict(self) -> dict[str, Json]:
        """Return the weights at the start."""
        return {"prior": self._prior}

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """Continue from what `state_dict` returned."""
        fields = JsonFields(state, "the state of the policy")
        self._prior = list(fields.number_list("prior"))


def _distance(real: torch.Tensor, own: torch.Tensor) -> float:
    """Return the energy distance of two sets of outputs; NaN if it is not defined."""
    real, own = (outputs.detach().float().flatten(1) for outputs in (real, own))
    if min(len(real), len(own)) < _LEAST or not bool(torch.cat([real, own]).isfinite().all()):
        return math.nan
    # the unbiased estimate of a distance of 0 is below 0 in half of all draws
    return max(0.0, mmd2_unbiased(real, own, _ENERGY))
