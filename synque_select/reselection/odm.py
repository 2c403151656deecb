"""Online Data Mixing: candidates are the arms of a bandit, and the loss is the reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from synque_select.errors import ConfigError
from synque_select.functional.odm import exp3_weights, exploration_rate, smoothed_rewards
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.validation import is_number

__all__ = ["OdmPolicy"]


class OdmPolicy(ReselectionPolicy):
    r"""Draws more from candidates on which the loss is high: Exp3 as in Online Data Mixing.

    .. math::
        \hat R_i \leftarrow \alpha \hat R_i + (1 - \alpha) \frac{L_i}{\pi_i}, \quad
        \pi_i = (1 - K \mathcal E_t) \frac{e^{\mathcal E_{t-1} \hat R_i}}
            {\sum_j e^{\mathcal E_{t-1} \hat R_j}} + \mathcal E_t, \quad
        \mathcal E_t = \min\{1/K, \sqrt{\ln K / (K t)}\}

    t is the training step. Until step K ln K, the weights are equal, whatever they were at the
    start, and no candidate ever falls below the exploration rate. A high loss does not mean that a
    candidate is useful: one with false labels has it as well. The paper takes the losses of the
    batches that are trained on; here they are measured on fresh draws from every candidate, so that
    they are those of one model.

    Args:
        smoothing: α, the share of the old estimate of a reward, 0 to below 1.

    Raises:
        ConfigError: `smoothing` is not allowed.

    Source:
        Albalak et al., "Efficient Online Data Mixing For Language Model Pre-Training", 2023 (arXiv
        2312.02406), Algorithm 1.

    Example:
        >>> OdmPolicy(smoothing=0.5).id
        'odm'
    """

    id = "odm"

    def __init__(self, smoothing: float = 0.9) -> None:
        if not (is_number(smoothing) and 0 <= smoothing < 1):
            raise ConfigError(f"smoothing={smoothing!r}: allowed is 0 to below 1")
        self.smoothing = smoothing
        self._rewards: list[float] = []
        self._rate = math.nan

    def start(self, names: Sequence[str], weights: Mapping[str, float], seed: int) -> None:
        """Begin with rewards of 0 and the highest exploration rate."""
        self._rewards = [0.0] * len(names)
        self._rate = exploration_rate(0, len(names))

    def propose(self, context: ReselectionContext) -> Proposal:
        """Update the rewards by the losses, and return the weights that follow from them."""
        losses = context.candidate_losses()
        rewards = smoothed_rewards(
            self._rewards,
            [losses[name] for name in context.names],
            [context.weights[name] for name in context.names],
            self.smoothing,
        )
        rate = exploration_rate(context.step, len(context.names))
        weights = exp3_weights(rewards, rate, self._rate)
        self._rewards, self._rate = rewards.tolist(), rate
        return Proposal(dict(zip(context.names, weights.tolist(), strict=True)))

    def state_dict(self) -> dict[str, Json]:
        """Return the rewards and the exploration rate."""
        return {"rewards": self._rewards, "rate": self._rate}

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """Continue from what `state_dict` returned."""
        fields = JsonFields(state, "the state of the policy")
        self._rewards = list(fields.number_list("rewards"))
        self._rate = fields.number("rate")
