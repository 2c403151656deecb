"""A sweep: all candidates ranked, one probe each at equal budget, and how each proxy did."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule

from synque_select.errors import ConfigError, LightningError
from synque_select.probing.probes import run_probes
from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import check_plain_name, make_folder, new_run_folder
from synque_select.records.store import RunStore
from synque_select.report.correlation_tables import correlation_tables, units_table
from synque_select.report.ranking_tables import ranking_tables
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import SynqueDataModule
from synque_select.training.run_page import write_page

__all__ = ["run_sweep"]


def run_sweep(
    module: LightningModule,
    datamodule: SynqueDataModule,
    *,
    max_steps: int,
    primary: str = "val_acc",
    mode: Literal["max", "min"] = "max",
    scorer: Scorer | None = None,
    seed: int = 0,
    task: str | None = None,
    store: str | None = None,
    folder: str | None = None,
    trainer_options: Mapping[str, Any] | None = None,
) -> Path:
    """Rank all candidates, train a copy of the module on each alone, and correlate.

    Prints the ranking, the figures and the correlations, and writes them with a page into a run's
    folder. Probes that are finished are in the run store and are not trained again.

    Args:
        module: Untrained; each probe trains a copy of it, from the same weights.
        datamodule: Its candidates are trained on, its validation loaders are validated on.
        max_steps: Optimiser steps of each probe.
        primary: The validation metric that correlations are about.
        mode: "max" where a larger value is better, else "min".
        scorer: How candidates are scored, such as `SelectionCallback.scorer` gives; None for the
            default suite and encoder.
        seed: Of the probes.
        task: Name of the task, part of the comparability key; None for the module's class.
        store: Path of the run store; None for the default one.
        folder: The run's folder; None for a new one under `runs/`.
        trainer_options: Arguments of the probes' Trainer: accelerator, precision, ….

    Returns:
        The run's folder.

    Raises:
        LightningError: The DataModule is another than SynqueDataModule, or has no real sample.
        ConfigError: max_steps is not positive, or the task is no plain name.
        RecordError: The folder cannot be made.
    """
    if not isinstance(datamodule, SynqueDataModule) or datamodule.real is None:
        raise LightningError(
            "a sweep needs candidates and a real sample: "
            "data = SynqueDataModule(wraps=…, candidates=…, real=…)"
        )
    if max_steps < 1:
        raise ConfigError(f"max_steps={max_steps}: a sweep needs a budget of optimiser steps")
    # before an hour of probes, not behind them
    name = type(module).__name__ if task is None else task
    check_plain_name("task", name)
    if folder is not None:
        make_folder(folder)
    candidates = datamodule.candidates
    scorer = scorer or Scorer(top_k=min(3, len(candidates)), seed=seed)
    ranking = scorer.ranking(candidates, datamodule.real)
    print(*ranking_tables(ranking), sep="\n\n")
    sys.stdout.flush()
    records = run_probes(
        lambda: copy.deepcopy(module),
        datamodule,
        ranking,
        max_steps=max_steps,
        primary=primary,
        mode=mode,
        task=task,
        seed=seed,
        store=RunStore(store),
        trainer_options=trainer_options,
    )
    found = correlate(records, seed=seed)
    for table in (*map(units_table, found), *correlation_tables(found)):
        print(f"\n{table}")
    run = new_run_folder("runs", name) if folder is None else Path(folder)
    save_ranking(ranking, run)
    save_correlations(found, run)
    write_page(run, datamodule, scorer)
    print(f"\nreport: {run / 'report.html'}")
    return run
