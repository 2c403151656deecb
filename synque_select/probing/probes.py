"""Probes: the same short fit on each candidate alone, for a correlation over all of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lightning_utilities.core.rank_zero import rank_zero_info

from synque_select.errors import LightningError
from synque_select.execution import Executor, ExecutorSpec, opened_executor
from synque_select.probing.processes import WorkerPool, check_sendable
from synque_select.probing.worker_process import ProbeWork, run_in_worker
from synque_select.records.store import RunStore
from synque_select.training.bookkeeping import known_records, store_record
from synque_select.training.comparability import validation_of
from synque_select.training.datamodule import attached_datamodule
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import (
    ModelFactory,
    ShortFit,
    ShortFitOptions,
    ShortFits,
    TrainerOptions,
    model_factory_of,
)
from synque_select.types import Mixture, Ranking, RunRecord
from synque_select.utils.json_types import JsonObject
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = [
    "Probe",
    "ProbeSweep",
    "check_weights",
    "measure_untrained",
    "opened_fits",
    "probe_pool",
    "run_probes",
    "tell_reused",
    "train_probes",
]


class ProbeSweep:
    """Trains a fresh copy of the module on each candidate alone; for `ProxyCorrelationCallback`.

    Every probe starts from the same weights and has the same budget: optimizer steps, batch size,
    seed. The copy is taken in `setup("fit")`, before anything is trained, or made by
    `model_factory`. Probes run after the fit, on its device, without loggers or checkpoints. A
    finished probe is in the run store and is not trained again. With more than one rank, probes run
    on the device of rank 0, in a separate process without the rank variables, while the other ranks
    wait; model and data must be picklable, as for `ddp_spawn`.

    Args:
        max_steps: Optimizer steps of each probe.
        model_factory: Makes a fresh module, with the same weights for the same seed; None
            for a copy of the module passed to `fit`.
        seed: Random seed of a probe, except for the order of examples, which follows the
            DataModule's own seed.
        trainer_options: Arguments of the probes' Trainer, in addition to those of the fit.
        progress: Whether to show a progress bar over the probes.

    Raises:
        ConfigError: `max_steps` is not a positive whole number.

    Example:
        >>> from synque_select.callbacks import ProxyCorrelationCallback
        >>> callback = ProxyCorrelationCallback("val_acc", probes=ProbeSweep(max_steps=80))
    """

    def __init__(
        self,
        max_steps: int,
        *,
        model_factory: ModelFactory | None = None,
        seed: int = 0,
        trainer_options: TrainerOptions | None = None,
        progress: bool = True,
    ) -> None:
        check_int("max_steps", max_steps, 1)
        self._max_steps, self._seed, self._progress = max_steps, seed, progress
        self._model_factory = model_factory
        self._trainer_options = dict(trainer_options or {})
        self._untrained: AnyModule | None = None

    def prepare(self, trainer: AnyTrainer, module: AnyModule) -> None:
        """Copy the module before it is trained; called by the callback in `setup("fit")`.

        Raises:
            LightningError: The module cannot be copied, or, with more than one rank, model and data
                cannot be sent to another process.
        """
        if self._model_factory is None:
            try:
                self._untrained = copy.deepcopy(module)
            except (TypeError, RuntimeError, ValueError) as error:
                raise LightningError(
                    f"{type(module).__name__} cannot be copied for the probes ({error}): give "
                    "ProbeSweep(model_factory=…), a function that makes a fresh one"
                ) from error
        if trainer.world_size > 1:
            datamodule = attached_datamodule(trainer)
            check_sendable((self, None if datamodule is None else datamodule.detached()))

    def run(
        self,
        trainer: AnyTrainer,
        datamodule: AnySynqueDataModule,
        *,
        ranking: Ranking,
        monitor: str,
        mode: Literal["max", "min"],
        task: str,
        store: RunStore,
    ) -> list[RunRecord]:
        """Train the probes that are not in the store; called by the callback on fit end."""
        fits = ShortFits(
            datamodule=datamodule,
            ranking=ranking,
            options=ShortFitOptions(monitor=monitor, mode=mode, seed=self._seed, task=task),
            max_steps=self._max_steps,
            trainer_options={**_options_of(trainer), **self._trainer_options},
            validation=validation_of(datamodule),
        )
        model_factory = self._model_factory or partial(copy.deepcopy, self._require_untrained())
        if trainer.world_size > 1:
            sent = replace(fits, datamodule=datamodule.detached())
            run_ids = run_in_worker(ProbeWork(sent, model_factory, store, self._progress))
            records = {record.run_id: record for record in known_records(store, "probe")}
            return [records[run_id] for run_id in run_ids if run_id in records]
        try:
            return train_probes(fits, model_factory, store, progress=self._progress)
        finally:
            datamodule.trainer = trainer

    def _require_untrained(self) -> AnyModule:
        if self._untrained is None:
            raise LightningError("ProbeSweep.run before ProbeSweep.prepare: no module to copy")
        return self._untrained


def run_probes(
    model: AnyModule | ModelFactory,
    datamodule: AnySynqueDataModule,
    ranking: Ranking,
    *,
    max_steps: int,
    options: ShortFitOptions | None = None,
    store: RunStore | None = None,
    trainer_options: TrainerOptions | None = None,
    n_workers: int = 1,
    executor: ExecutorSpec = None,
    progress: bool = True,
) -> list[RunRecord]:
    """Train a fresh module on each candidate alone, outside of any fit.

    Args:
        model: An untrained module, of which each probe trains a copy; or a function that makes a
            fresh module, with the same weights for the same seed.
        datamodule: Probes train on its candidates and are validated on its validation loaders.
        ranking: The ranking of the candidates.
        max_steps: Optimizer steps of each probe.
        options: Metric, its direction, seed and task; None for the defaults.
        store: Where finished probes are looked up and stored; None for the default store.
        trainer_options: Arguments of the probes' Trainer: accelerator, precision, ….
        n_workers: As in `SweepOptions`.
        executor: As in `SweepOptions`, or an executor, which stays open.
        progress: Whether to show a progress bar.

    Returns:
        One record per candidate, of kind "probe", in the order of the ranking's rows; all are in
        the store.

    Raises:
        ConfigError: `max_steps` is not a positive whole number.
        LightningError: The module does not log the metric, or the factory does not reproduce its
            weights.
    """
    check_int("n_workers", n_workers, 1)
    runs = RunStore() if store is None else store
    with (
        opened_fits(
            datamodule,
            ranking,
            max_steps=max_steps,
            options=options,
            trainer_options=trainer_options,
        ) as fits,
        opened_executor(executor) as where,
    ):
        return train_probes(
            fits,
            model_factory_of(model),
            runs,
            progress=progress,
            n_workers=n_workers,
            executor=where,
        )


@contextmanager
def opened_fits(
    datamodule: AnySynqueDataModule,
    ranking: Ranking,
    *,
    max_steps: int,
    options: ShortFitOptions | None,
    trainer_options: TrainerOptions | None,
) -> Iterator[ShortFits]:
    """Set up the data for short fits outside of any fit, and tear it down afterwards."""
    check_int("max_steps", max_steps, 1)
    datamodule.prepare_data()
    datamodule.setup("fit")
    try:
        yield ShortFits(
            datamodule=datamodule,
            ranking=ranking,
            options=ShortFitOptions() if options is None else options,
            max_steps=max_steps,
            trainer_options={"devices": 1, **(trainer_options or {})},
            validation=validation_of(datamodule),
        )
    finally:
        datamodule.teardown("fit")


@dataclass(frozen=True)
class Probe:
    """A probe to train.

    Args:
        name: Name of the candidate.
        stop_after: As in `train_and_measure`.
    """

    name: str
    stop_after: int | None = None


@dataclass(frozen=True)
class _ProbeTraining:
    """Trains probes that have not finished before."""

    fits: ShortFits
    model_factory: ModelFactory
    finished: Mapping[str, RunRecord]

    def __call__(self, probe: Probe) -> tuple[ShortFit, JsonObject]:
        """Return the fit of a probe, and its comparability key."""
        return self.fits.run(
            self.model_factory,
            Mixture.equal([probe.name], "probe"),
            finished=self.finished.get,
            stop_after=probe.stop_after,
        )


def probe_pool(
    fits: ShortFits,
    model_factory: ModelFactory,
    store: RunStore,
    n_workers: int,
    executor: Executor | None = None,
) -> WorkerPool[Probe, tuple[ShortFit, JsonObject]]:
    """Return the pool that trains the probes that are not in the store."""
    finished = _finished(fits, store)
    if n_workers > 1 or (executor is not None and executor.is_remote):
        fits = replace(fits, datamodule=fits.datamodule.detached())
    return WorkerPool(
        _ProbeTraining(fits, model_factory, finished),
        n_workers,
        name_of=lambda probe: f"the probe of {probe.name}",
        package=package_of(fits.datamodule) or "pytorch_lightning",
        executor=executor,
    )


def tell_reused(
    fits: ShortFits, model_factory: ModelFactory, store: RunStore, stop_after: int | None = None
) -> None:
    """Tell the user how many probes are in the store, and which are not; nothing if none is.

    Args:
        fits: What the probes have in common.
        model_factory: Makes the module.
        store: The run store.
        stop_after: As in `train_and_measure`.
    """
    finished = _finished(fits, store)
    names = [row.name for row in fits.ranking.candidates]
    if not finished:
        return
    probes = [Mixture.equal([name], "probe") for name in names]
    fits_of = fits.find(model_factory, probes, finished=finished.get, stop_after=stop_after)
    missing = [name for name, fit in zip(names, fits_of, strict=True) if fit is None]
    if len(missing) < len(names):
        rank_zero_info(_reused_sentence(len(names) - len(missing), names, missing))


def _reused_sentence(n: int, names: Sequence[str], missing: Sequence[str]) -> str:
    are = "is" if n == 1 else "are"
    rest = f"; trained now: {listed(missing)}" if missing else ""
    return f"{n} of {counted(len(names), 'probe')} {are} reused from the run store{rest}"


def _finished(fits: ShortFits, store: RunStore) -> dict[str, RunRecord]:
    """Return the finished fits in the store by their ids."""
    names = {row.name for row in fits.ranking.candidates}
    return {
        str(record.details.get("probe")): record
        for record in store.read()
        if set(record.mixture.names) <= names
    }


def train_probes(
    fits: ShortFits,
    model_factory: ModelFactory,
    store: RunStore,
    *,
    progress: bool,
    n_workers: int = 1,
    executor: Executor | None = None,
) -> list[RunRecord]:
    """Train on each candidate alone, except for probes in the store, and store each as a record."""
    names = [row.name for row in fits.ranking.candidates]
    records: dict[str, RunRecord] = {}
    tell_reused(fits, model_factory, store)
    with (
        ProgressBar(total=len(names), desc="probes", unit="probe", disable=not progress) as bar,
        probe_pool(fits, model_factory, store, n_workers, executor) as pool,
    ):
        for probe, (fit, key) in pool.map(map(Probe, names)):
            check_weights(key, list(records.values()))
            scores = {proxy: s.value for proxy, s in fits.ranking[probe.name].scores.items()}
            mixture = Mixture.equal([probe.name], "probe")
            record = fits.record(fit, key, mixture, kind="probe", scores=scores)
            records[probe.name] = record
            store_record(store, record)
            bar.update()
    return [records[name] for name in names]


def measure_untrained(
    fits: ShortFits, model_factory: ModelFactory, store: RunStore
) -> RunRecord | str:
    """Measure the model as it is, and store the record; or return why it cannot be measured."""
    finished = {r.details.get("probe"): r for r in known_records(store, "mixture")}
    record = fits.untrained(model_factory, finished=finished.get)
    if isinstance(record, RunRecord):
        store_record(store, record)
    return record


def check_weights(key: JsonObject, records: Sequence[RunRecord]) -> None:
    """Check that a probe has started from the same weights as those before it.

    Raises:
        LightningError: It has not.
    """
    field = "initial_weights_sha256"
    if records and key[field] != records[0].key[field]:
        raise LightningError(
            "model_factory made a module with other initial weights than before: probes are "
            "comparable only if all start from the same weights; seed inside the factory, or load "
            "the weights there"
        )


def _options_of(trainer: AnyTrainer) -> dict[str, Any]:
    """Return what a probe's Trainer must share with the fit that it belongs to."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": 1 if device.index is None else [device.index],
        "precision": trainer.precision,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm,
        "default_root_dir": trainer.default_root_dir,
    }
