"""Tuning: a search with Optuna for the candidates, their number and their weights."""

from synque_select.records.tuning_result import TrialRow, TuningResult
from synque_select.tuning.options import TuneOptions
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
