"""PruningCallback in a plain Trainer, without other parts of this library."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
import pytest

from synque_select.errors import DependencyError, LightningError
from tests.lightning_package import PruningCallback
from tests.training.tiny import TinyData, TinyModel, seen_by, trainer

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
OPTIONS = {"max_steps": 8, "val_check_interval": 2, "num_sanity_val_steps": 2}


def study(**threshold: float) -> optuna.Study:
    pruner = optuna.pruners.ThresholdPruner(**threshold)
    return optuna.create_study(pruner=pruner, direction="maximize")


def fit(trial: optuna.Trial, folder: Path, monitor: str = "val_acc") -> TinyModel:
    model = TinyModel()
    callback = PruningCallback(trial, monitor)
    trainer(folder, callback, **OPTIONS).fit(model, datamodule=TinyData())
    return model


def test_a_metric_is_reported_at_each_validation_but_not_in_the_sanity_check(tmp_path):
    trials = study(lower=-1.0)
    model = fit(trials.ask(), tmp_path)
    reported = trials.trials[0].intermediate_values
    assert list(reported) == [2, 4, 6, 8]
    assert all(0 <= value <= 1 for value in reported.values())
    assert len(seen_by(model)) == 8 * 8


def test_a_pruned_trial_ends_its_fit(tmp_path):
    trials = study(lower=2.0)
    steps = []

    def objective(trial: optuna.Trial) -> float:
        try:
            fit(trial, tmp_path)
        finally:
            steps.extend(trial.study.trials[trial.number].intermediate_values)
        return 1.0

    trials.optimize(objective, n_trials=1)
    assert trials.trials[0].state is optuna.trial.TrialState.PRUNED
    assert steps == [2]


def test_the_end_of_the_budget_is_not_pruned(tmp_path):
    """A fit at its last step is complete: pruning could not save anything."""
    pruner = optuna.pruners.ThresholdPruner(lower=2.0, n_warmup_steps=7)
    trials = optuna.create_study(pruner=pruner)
    fit(trials.ask(), tmp_path)
    assert list(trials.trials[0].intermediate_values) == [2, 4, 6, 8]


def test_a_metric_that_is_not_logged_is_an_error(tmp_path):
    with pytest.raises(LightningError, match=r"no metric 'accuracy'.*val_acc, val_loss"):
        fit(study(lower=0.0).ask(), tmp_path, "accuracy")


def test_a_storage_that_is_locked_costs_no_training(tmp_path, monkeypatch):
    trial = study(lower=2.0).ask()

    def locked(value: float, step: int) -> None:
        raise optuna.exceptions.StorageInternalError("database is locked")

    monkeypatch.setattr(trial, "report", locked)
    with pytest.warns(UserWarning, match=r"step \d was not reported.*database is locked"):
        model = fit(trial, tmp_path)
    assert len(seen_by(model)) == 8 * 8


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DependencyError, match=r"pip install 'synque-select\[tune\]'"):
        PruningCallback(None, "val_acc")
