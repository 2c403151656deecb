"""Tuning: which candidates, how many and with which weights, searched by Optuna."""

from synque_select.tuning.options import TuneOptions
from synque_select.tuning.result import TrialRow, TuningResult
from synque_select.tuning.run import tune_mixture
from synque_select.tuning.space import MixtureSpace, starting_mixtures

__all__ = [
    "MixtureSpace",
    "TrialRow",
    "TuneOptions",
    "TuningResult",
    "starting_mixtures",
    "tune_mixture",
]
