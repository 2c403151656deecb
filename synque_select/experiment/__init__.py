"""Experiments: does selecting the data pay? Arms, paired replicates, correlations of proxies."""

from synque_select.experiment.datamodule import TaskDataModule
from synque_select.experiment.options import ExperimentOptions
from synque_select.experiment.result import ARMS
from synque_select.experiment.run import Experiment, run_experiment
from synque_select.experiment.task import BaseTask, unseen
from synque_select.records.experiment_result import ExperimentResult

__all__ = [
    "ARMS",
    "BaseTask",
    "Experiment",
    "ExperimentOptions",
    "ExperimentResult",
    "TaskDataModule",
    "run_experiment",
    "unseen",
]
