"""Experiments: does selecting the data pay? Arms, paired replicates, correlations of proxies."""

from typing import TYPE_CHECKING

from synque_select.experiment.options import ExperimentOptions
from synque_select.experiment.result import ARMS
from synque_select.experiment.run import Experiment, run_experiment
from synque_select.experiment.task import BaseTask, unseen
from synque_select.records.experiment_result import ExperimentResult
from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.experiment.pytorch_lightning import TaskDataModule

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

# the rest needs no package of Lightning to be imported
__getattr__ = lazy_names(__name__, {"TaskDataModule": "pytorch_lightning"})
