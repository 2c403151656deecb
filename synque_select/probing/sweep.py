"""A sweep: rank all candidates, train one probe on each, and correlate proxies with probes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from synque_select.data.candidate import RealSample
from synque_select.errors import LightningError
from synque_select.execution import check_workers, opened_executor
from synque_select.probing.halving import HalvedProbe, probes_table, train_and_stop_probes
from synque_select.probing.probes import measure_untrained, opened_fits, train_probes
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
from synque_select.report.correlation_tables import correlation_tables, units_table
from synque_select.report.terminal import print_ranking
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import is_synque_datamodule
from synque_select.training.run_page import write_page
from synque_select.training.short_fit import ShortFitOptions, TrainerOptions, model_factory_of
from synque_select.types import Ranking
from synque_select.utils.json_types import JsonObject
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["SweepOptions", "check_rankable", "run_sweep", "scorer_of_sweep"]


@dataclass(frozen=True, kw_only=True)
class SweepOptions(ShortFitOptions):
    """Options of a sweep: the metric, the seed, the task, and how probes are trained.

    Args:
        monitor: The validation metric, as the module logs it.
        mode: "max" if a larger value of the metric is better, else "min".
        seed: Random seed of the initial weights and of everything else in a fit, except for the
            order of examples, which follows the DataModule's own seed.
        task: Name of the task, part of the comparability key; None for the module's class.
        n_workers: Number of probes that are trained at the same time, each in a process of its own
            with an equal share of the threads of torch, or with one of several GPUs; model and data
            must be picklable. With 1, no process is started.
        executor: Where to encode, judge and train, such as "local:devices=0,1" or
            "ray://HOST:PORT"; see `synque_select.execution.get_executor`. It replaces `n_workers`.
            None for this process, or `n_workers` of them for probes.
        stop_early: Whether to stop probes that are not among the best third after a ninth of the
            steps, and again after a third. Correlations are not computed then.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> SweepOptions(n_workers=0)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: n_workers=0: allowed is a whole number from 1
    """

    n_workers: int = 1
    executor: str | None = None
    stop_early: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_workers(self.n_workers, self.executor)


def run_sweep(
    module: AnyModule,
    datamodule: AnySynqueDataModule,
    *,
    max_steps: int,
    options: SweepOptions | None = None,
    scorer: Scorer | None = None,
    store: str | None = None,
    run_dir: str | None = None,
    name: str | None = None,
    trainer_options: TrainerOptions | None = None,
    ranking: Ranking | None = None,
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
        options: Options of the sweep; None for the defaults.
        scorer: How candidates are scored, for example `SelectionCallback.scorer`; None for the
            default suite and encoder.
        store: Path of the run store; None for the default one.
        run_dir: Run directory; None for a new one under `runs/`.
        name: Name of the run, in the name of a new directory; None for two words.
        trainer_options: Arguments of the probes' Trainer: accelerator, precision, ….
        ranking: The ranking, if the candidates were ranked before; None to rank them.

    Returns:
        The run directory.

    Raises:
        RecordError: The run directory cannot be written; the results are printed all the same.
        LightningError: The DataModule is not a SynqueDataModule, or has no real sample.
        ConfigError: `max_steps` is not positive, or the task is not a plain name.
        RecordError: The directory cannot be created.
    """
    options = SweepOptions() if options is None else options
    real = check_rankable(datamodule)
    check_int("max_steps", max_steps, 1)
    # checked before an hour of probes, not after it
    task = type(module).__name__ if options.task is None else options.task
    check_plain_name("task", task)
    check_run_name(name, run_dir)
    if run_dir is not None:
        make_folder(run_dir)
    scorer = scorer_of_sweep(scorer, options)
    if ranking is None:
        ranking = scorer.cached_ranking(datamodule.candidates, real)
    print_ranking(ranking)
    sys.stdout.flush()
    runs = RunStore(store, run_dir=None if run_dir is None else Path(run_dir))
    model_factory = model_factory_of(module)
    with (
        opened_fits(
            datamodule,
            ranking,
            max_steps=max_steps,
            options=options,
            trainer_options=trainer_options,
        ) as fits,
        opened_executor(options.executor) as executor,
    ):
        n_workers, records, halved = options.n_workers, [], []
        if options.stop_early:
            halved = train_and_stop_probes(
                fits, model_factory, runs, progress=True, n_workers=n_workers, executor=executor
            )
        else:
            records = train_probes(
                fits, model_factory, runs, progress=True, n_workers=n_workers, executor=executor
            )
        untrained = measure_untrained(fits, model_factory, runs)
        monitor = fits.monitor
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
        if halved:
            write_json(run / "probes.json", _halved_json(halved, monitor, options.mode))
        write_page(run, datamodule, scorer)
    finally:  # what cannot be saved is printed
        if messages:
            print("", *messages, sep="\n")
        tables = [*map(units_table, correlations), *correlation_tables(correlations)]
        for table in [probes_table(halved, monitor)] if halved else tables:
            print(f"\n{table}")
    print(f"\nreport: {run / 'report.html'}")
    return run


def check_rankable(datamodule: AnySynqueDataModule) -> RealSample:
    """Return the real sample of the data of a sweep.

    Raises:
        LightningError: The DataModule is not a SynqueDataModule, or has no real sample.
    """
    if not is_synque_datamodule(datamodule) or datamodule.real is None:
        raise LightningError(
            "a sweep needs candidates and a real sample: "
            "data = SynqueDataModule(wraps=…, candidates=…, real=…)"
        )
    return datamodule.real


def scorer_of_sweep(scorer: Scorer | None, options: SweepOptions) -> Scorer:
    """Return the scorer that was given, or the default one, on the executor of the options."""
    scorer = scorer or Scorer(seed=options.seed, notify=rank_zero_info)
    return scorer.on_executor(options.executor)


def _halved_json(probes: Sequence[HalvedProbe], monitor: str, mode: str) -> JsonObject:
    return {
        "version": 1,
        "monitor": monitor,
        "mode": mode,
        "probes": [
            {"name": p.name, "step": p.step, "value": p.value, "finished": p.is_finished}
            for p in probes
        ],
    }
