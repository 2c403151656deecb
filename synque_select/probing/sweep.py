"""A sweep: rank all candidates, train one probe on each, and correlate proxies with probes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from synque_select.errors import LightningError
from synque_select.probing.probes import measure_untrained, opened_fits, train_probes
from synque_select.records.correlation import correlate, surrogate_reliability
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import (
    check_plain_name,
    check_run_name,
    make_folder,
    new_run_folder,
)
from synque_select.records.store import RunStore
from synque_select.report.correlation_tables import correlation_tables, units_table
from synque_select.report.terminal import print_ranking
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import is_synque_datamodule
from synque_select.training.run_page import write_page
from synque_select.training.short_fit import ShortFitOptions, TrainerOptions, model_factory_of
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["run_sweep"]


def run_sweep(
    module: AnyModule,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int,
    options: ShortFitOptions | None = None,
    scorer: Scorer | None = None,
    store: str | None = None,
    run_dir: str | None = None,
    name: str | None = None,
    trainer_options: TrainerOptions | None = None,
) -> Path:
    """Rank all candidates, train a copy of the module on each alone, and correlate.

    Prints the ranking, the metrics and the correlations, and writes them and a report page to a run
    directory. The module is also measured as it is, without training, and a note says whether any
    candidate beats it. Finished probes are in the run store and are not trained again.

    Args:
        module: An untrained module; each probe trains a copy of it, from the same weights.
        datamodule: Probes train on its candidates and are validated on its validation loaders. If
            these are a surrogate and there is labeled validation data beside it, probes are
            measured on both, and the surrogate is correlated with the labels.
        max_steps: Optimizer steps of each probe.
        options: Metric, its direction, seed and task; None for the defaults.
        scorer: How candidates are scored, for example `SelectionCallback.scorer`; None for the
            default suite and encoder.
        store: Path of the run store; None for the default one.
        run_dir: Run directory; None for a new one under `runs/`.
        name: Name of the run, in the name of a new directory; None for two words.
        trainer_options: Arguments of the probes' Trainer: accelerator, precision, ….

    Returns:
        The run directory.

    Raises:
        RecordError: The run directory cannot be written; the results are printed all the same.
        LightningError: The DataModule is not a SynqueDataModule, or has no real sample.
        ConfigError: `max_steps` is not positive, or the task is not a plain name.
        RecordError: The directory cannot be created.
    """
    options = ShortFitOptions() if options is None else options
    if not is_synque_datamodule(datamodule) or datamodule.real is None:
        raise LightningError(
            "a sweep needs candidates and a real sample: "
            "data = SynqueDataModule(wraps=…, candidates=…, real=…)"
        )
    check_int("max_steps", max_steps, 1)
    # checked before an hour of probes, not after it
    task = type(module).__name__ if options.task is None else options.task
    check_plain_name("task", task)
    check_run_name(name, run_dir)
    if run_dir is not None:
        make_folder(run_dir)
    candidates = datamodule.candidates
    scorer = scorer or Scorer(seed=options.seed, notify=rank_zero_info)
    ranking = scorer.cached_ranking(candidates, datamodule.real)
    print_ranking(ranking)
    sys.stdout.flush()
    runs = RunStore(store, run_dir=None if run_dir is None else Path(run_dir))
    model_factory = model_factory_of(module)
    with opened_fits(
        datamodule,
        ranking,
        max_steps=max_steps,
        options=options,
        trainer_options=trainer_options,
    ) as fits:
        records = train_probes(fits, model_factory, runs, progress=True)
        untrained = measure_untrained(fits, model_factory, runs)
    messages = [] if datamodule.surrogate is None else [*datamodule.surrogate.messages]
    if isinstance(untrained, str):
        messages.append(untrained)
    else:
        records.append(untrained)
    correlations = correlate(records, seed=options.seed)
    correlations += surrogate_reliability(records, seed=options.seed)
    try:
        run = new_run_folder("runs", task, name) if run_dir is None else Path(run_dir)
        save_ranking(ranking, run)
        save_correlations(correlations, run)
        write_page(run, datamodule, scorer)
    finally:  # what cannot be saved is printed
        if messages:
            print("", *messages, sep="\n")
        for table in (*map(units_table, correlations), *correlation_tables(correlations)):
            print(f"\n{table}")
    print(f"\nreport: {run / 'report.html'}")
    return run
