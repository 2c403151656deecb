"""The influence of training examples on a loss, from gradients at checkpoints of a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit

__all__ = ["InfluenceEstimate", "adam_direction", "estimate_influence"]

_MIN_UNITS = 3
_LEVEL = 0.95


@dataclass(frozen=True)
class InfluenceEstimate:
    """The influence of one candidate, with its 95 % interval.

    Args:
        value: The influence; positive if a small step on the candidate lowers the loss.
        low: Lower end of the interval; NaN for fewer than 3 units.
        high: Upper end.
        n_units: Number of independent units of the validation data.
    """

    value: float
    low: float
    high: float
    n_units: int


def estimate_influence(
    candidate: Sequence[torch.Tensor],
    validation: Sequence[torch.Tensor],
    rates: Sequence[float],
    *,
    units: torch.Tensor | None = None,
    n_all: int | None = None,
) -> InfluenceEstimate:
    r"""Estimate the influence of a candidate on the validation loss.

    With :math:`\hat g` the gradients at one scale, such as length 1, at checkpoints t with learning
    rates :math:`\eta_t`, the influence of candidate C is

    .. math:: I(C) = \sum_t \frac{\eta_t}{\sum_s \eta_s}\;
        \frac{1}{|C|} \sum_{z \in C}\; \frac{1}{U} \sum_{u} \frac{1}{|u|} \sum_{v \in u}
        \langle \hat g_t(z), \hat g_t(v) \rangle,

    to first order, up to a factor, the decrease of the validation loss by a small step on it.
    The units u are independent parts of the validation data: its examples, or families of
    examples. The interval is :math:`I \pm t_{U-1}\sqrt{s_U^2/U + (1 - m/N)\,s_m^2/m}`. The first
    term is that of other validation data, and the limit of the bootstrap over units; the second one
    is that of the m examples drawn from the N of the candidate, and is 0 if all were.

    Args:
        candidate: For each checkpoint, (m, k) scaled gradients of examples of the candidate.
        validation: For each checkpoint, (n, k) scaled gradients of the validation examples.
        rates: Learning rate of each checkpoint, at least one of them positive.
        units: (n,) int64 unit of each validation example, from 0; None if each is one.
        n_all: Number of examples of the candidate, N; None for m.

    Returns:
        The estimate; its ends are NaN for fewer than 3 units, which have no useful interval.

    Source:
        TracIn (arXiv 2002.08484); gradients of length 1: LESS (arXiv 2402.04333, equation 3).

    Example:
        >>> same = [torch.eye(2)[:1]]
        >>> estimate_influence(same, same, [0.1]).value
        1.0
        >>> estimate_influence([-same[0]], same, [0.1]).value
        -1.0
    """
    if units is None:
        units = torch.arange(len(validation[0]))
    n_units = int(units.max()) + 1
    per_unit, per_example = torch.zeros(n_units).double(), torch.zeros(len(candidate[0])).double()
    for mine, theirs, rate in zip(candidate, validation, rates, strict=True):
        means = _means(theirs.double(), units, n_units)
        share = rate / math.fsum(rates)
        per_unit += share * (means @ mine.double().mean(dim=0))
        per_example += share * (mine.double() @ means.mean(dim=0))
    value = float(per_unit.mean())
    if n_units < _MIN_UNITS:
        return InfluenceEstimate(value, math.nan, math.nan, n_units)
    m = len(per_example)
    unseen = 1 - m / (m if n_all is None else n_all)
    drawn = unseen * float(per_example.var()) / m if unseen > 0 and m > 1 else 0.0
    half = stdtrit(n_units - 1, (1 + _LEVEL) / 2) * np.sqrt(float(per_unit.var()) / n_units + drawn)
    return InfluenceEstimate(value, value - float(half), value + float(half), n_units)


def _means(rows: torch.Tensor, units: torch.Tensor, n_units: int) -> torch.Tensor:
    totals = rows.new_zeros(n_units, rows.shape[1]).index_add_(0, units, rows)
    return totals / torch.bincount(units, minlength=n_units).unsqueeze(1)


def adam_direction(
    gradients: torch.Tensor, second_moment: torch.Tensor, step: float, beta2: float, eps: float
) -> torch.Tensor:
    r"""Return the direction in which a step of Adam would move on each gradient.

    .. math:: \frac{g}{\sqrt{v' / (1 - \beta_2^{\,\text{step} + 1})} + \varepsilon},
        \qquad v' = \beta_2 v + (1 - \beta_2) g^2

    The running mean of earlier gradients, which LESS adds to g, is left out: it is the same for all
    examples, so that it says nothing about one of them and would hide the sign of its influence.

    Args:
        gradients: (n, d) gradients.
        second_moment: (d,) Adam's running mean of squared gradients, v.
        step: Number of steps that Adam has taken.
        beta2: Decay of the running mean.
        eps: Adam's ε.

    Returns:
        (n, d) directions, of the gradients' dtype.

    Source:
        LESS (arXiv 2402.04333, section 3.1); Kingma and Ba 2015 (arXiv 1412.6980), Algorithm 1.

    Example:
        >>> adam_direction(torch.tensor([[0.5, -2.0]]), torch.zeros(2), 0, 0.999, 0.0)
        tensor([[ 1., -1.]])
    """
    moment = second_moment.mul(beta2) + gradients.square().mul(1 - beta2)
    corrected: torch.Tensor = moment / (1 - beta2 ** (step + 1))
    return gradients / (corrected.sqrt() + eps)
