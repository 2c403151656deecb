"""Experiments: did choosing the data pay? Arms, paired replicates, what proxies foretold."""

from synque_select.experiment.run import ARMS, Experiment, run_experiment
from synque_select.experiment.task import BaseTask, unseen

__all__ = ["ARMS", "BaseTask", "Experiment", "run_experiment", "unseen"]
