"""The study of `synque-select tune`, written to a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.records.correlation import correlate, surrogate_reliability
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import (
    check_plain_name,
    check_run_name,
    make_folder,
    new_run_folder,
    write_json,
)
from synque_select.records.store import RunStore
from synque_select.report.study_tables import study_table
from synque_select.report.table import terminal_width, wrap_text
from synque_select.selection.decision import tuned
from synque_select.selection.scorer import Scorer
from synque_select.training.bookkeeping import known_records
from synque_select.training.run_page import write_page
from synque_select.training.short_fit import ModelFactory, TrainerOptions
from synque_select.tuning.options import TuneOptions
from synque_select.tuning.result import TuningResult
from synque_select.tuning.run import tune_mixture
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["run_tuning"]


def run_tuning(
    module: AnyModule,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int,
    options: TuneOptions | None = None,
    model_factory: ModelFactory | None = None,
    scorer: Scorer | None = None,
    store: str | None = None,
    run_dir: str | None = None,
    name: str | None = None,
    trainer_options: TrainerOptions | None = None,
) -> Path:
    """Tune a mixture, print its trials, and write them and a report page to a run directory.

    Its `ranking.json` contains the tuned mixture, so that
    `SelectionCallback(ranking="…/ranking.json")` trains on it.

    Args:
        module: An untrained module; each trial trains a copy of it, from the same weights.
        datamodule: Trials train on its candidates and are validated on its validation loaders.
        max_steps: Optimizer steps of a trial.
        options: Options of the study; None for the defaults.
        model_factory: Makes the module from hyper-parameters; None if there are none.
        scorer: How candidates are scored, for example `SelectionCallback.scorer`; None for the
            default suite and encoder.
        store: Path of the run store; None for the default one.
        run_dir: Run directory; None for a new one under `runs/`.
        name: Name of the run, in the name of a new directory; None for two words.
        trainer_options: Arguments of the trials' Trainer: accelerator, precision, ….

    Returns:
        The run directory.

    Raises:
        ConfigError: An argument is not allowed, or the study of this name has other settings.
        RecordError: The run directory cannot be written; the results are printed all the same.
        LightningError: The DataModule is not a SynqueDataModule, or has no real sample.
    """
    options = TuneOptions() if options is None else options
    # checked before hours of trials, not after them
    task = type(module).__name__ if options.task is None else options.task
    check_plain_name("task", task)
    check_run_name(name, run_dir)
    if run_dir is not None:
        make_folder(run_dir)
    runs = RunStore(store, run_dir=None if run_dir is None else Path(run_dir))
    is_trained = options.proxy is None
    result = tune_mixture(
        (model_factory or module) if is_trained else None,
        datamodule,
        max_steps=max_steps if is_trained else None,
        options=options,
        scorer=scorer,
        store=runs,
        trainer_options=trainer_options,
    )
    try:
        run = new_run_folder("runs", task, name) if run_dir is None else make_folder(run_dir)
        _write(result, runs, run, datamodule)
    finally:  # what cannot be saved is printed
        print(study_table(result.to_dict()))
        print("", *wrap_text(_best(result), terminal_width()), sep="\n")
    print(f"report: {run / 'report.html'}")
    return run


def _write(
    result: TuningResult, store: RunStore, run_dir: Path, datamodule: AnySynqueDataModule
) -> None:
    how = f"the best of {counted(len(result.trials), 'trial')} by {result.metric}"
    save_ranking(tuned(result.ranking, result.mixture, how), run_dir)
    write_json(run_dir / "study.json", result.to_dict())
    trials = [
        r for r in known_records(store, "trial") if r.details.get("study") == result.study_name
    ]
    if trials:
        save_correlations([*correlate(trials), *surrogate_reliability(trials)], run_dir)
    write_page(run_dir, datamodule, None)


def _best(result: TuningResult) -> str:
    parts = ", ".join(f"{name} {weight:.3g}" for name, weight in result.mixture.weights.items())
    return f"best {result.metric} {result.value:.4g}: {parts}"
