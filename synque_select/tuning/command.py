"""A study with the folder of a run: what `synque-select tune` does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule

from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import (
    check_plain_name,
    make_folder,
    new_run_folder,
    write_json,
)
from synque_select.records.store import RunStore
from synque_select.report.study_tables import study_table
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.run_page import write_page
from synque_select.tuning.result import TuningResult
from synque_select.tuning.run import tune_mixture

__all__ = ["run_tuning"]


def run_tuning(
    module: LightningModule,
    datamodule: SynqueDataModule,
    *,
    max_steps: int,
    factory: Callable[..., LightningModule] | None = None,
    n_trials: int = 30,
    primary: str = "val_acc",
    mode: Literal["max", "min"] = "max",
    proxy: str | None = None,
    hyper_parameters: Callable[[Any], Mapping[str, Any]] | None = None,
    k_range: tuple[int, int] | None = None,
    scorer: Scorer | None = None,
    sampler: str = "tpe",
    n_startup: int = 5,
    pruner: str = "median",
    n_reports: int = 4,
    study_name: str | None = None,
    storage: str | None = None,
    heartbeat_s: int = 30,
    seed: int = 0,
    task: str | None = None,
    store: str | None = None,
    folder: str | None = None,
    trainer_options: Mapping[str, Any] | None = None,
) -> Path:
    """Tune a mixture, print its trials, and write them with a page into a run's folder.

    The folder's `ranking.json` has the tuned mixture as the one to train on:
    `SelectionCallback(ranking="…/ranking.json")` uses it.

    Args:
        module: Untrained; each trial trains a copy of it, from the same weights.
        datamodule: Its candidates are trained on, its validation loaders are validated on.
        max_steps: Optimiser steps of a trial.
        factory: Makes the module from hyper-parameters, where there are any.
        n_trials: Trials in the study when it ends, of all workers: complete or pruned.
        primary: The validation metric.
        mode: "max" where a larger value is better, else "min".
        proxy: Key of a proxy of the suite to tune for, in place of fits.
        hyper_parameters: Path of a function that takes an Optuna trial and returns arguments of
            the model.
        k_range: Least and largest number of candidates; None for 1 to all.
        scorer: How candidates are scored, such as `SelectionCallback.scorer` gives; None for the
            default suite and encoder.
        sampler: "tpe", "random", "gp", "cmaes" or "qmc".
        n_startup: Number of random trials after those that the proxies advise.
        pruner: "median", "hyperband", "successive_halving" or "none".
        n_reports: Validations of a trial, the last one included; 1 leaves nothing to prune by.
        study_name: To go on with; None for the task and a hash of data and budget.
        storage: A path (SQLite; a journal where it ends in .journal, .log or .jsonl) or a
            database's URL; None for `studies.sqlite` beside the run store.
        heartbeat_s: A worker that has been silent for three times this counts as killed.
        seed: Of the trials and of the sampler.
        task: Name of the task, part of the comparability key; None for the module's class.
        store: Path of the run store; None for the default one.
        folder: The run's folder; None for a new one under `runs/`.
        trainer_options: Arguments of the trials' Trainer: accelerator, precision, ….

    Returns:
        The run's folder.

    Raises:
        ConfigError: An argument is not allowed, or the study of this name is about other trials.
        LightningError: The DataModule is another than SynqueDataModule, or has no real sample.
    """
    # before hours of trials, not behind them
    name = type(module).__name__ if task is None else task
    check_plain_name("task", name)
    if folder is not None:
        make_folder(folder)
    runs = RunStore(store)
    result = tune_mixture(
        None if proxy else (factory or (lambda: copy.deepcopy(module))),
        datamodule,
        max_steps=None if proxy else max_steps,
        n_trials=n_trials,
        primary=primary,
        mode=mode,
        proxy=proxy,
        hyper_parameters=hyper_parameters,
        k_range=k_range,
        scorer=scorer,
        sampler=sampler,
        n_startup=n_startup,
        pruner=pruner,
        n_reports=n_reports,
        study_name=study_name,
        storage=storage,
        heartbeat_s=heartbeat_s,
        seed=seed,
        task=task,
        store=runs,
        trainer_options=trainer_options,
    )
    run = new_run_folder("runs", name) if folder is None else make_folder(folder)
    _write(result, runs, run, datamodule)
    print(study_table(result.to_dict()))
    print(f"\n{_words(result)}\nreport: {run / 'report.html'}")
    return run


def _write(
    result: TuningResult, store: RunStore, folder: Path, datamodule: SynqueDataModule
) -> None:
    save_ranking(replace(result.ranking, mixture=result.mixture), folder)
    write_json(folder / "study.json", result.to_dict())
    trials = [r for r in store.read(kind="trial") if r.details.get("study") == result.study_name]
    if trials:
        save_correlations(correlate(trials), folder)
    write_page(folder, datamodule, None)


def _words(result: TuningResult) -> str:
    parts = ", ".join(f"{name} {weight:.3g}" for name, weight in result.mixture.weights.items())
    return f"best {result.metric} {result.value:.4g}: {parts}"
