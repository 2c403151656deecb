"""Short fits: one module and budget, several mixtures, each measured at the end of its fit.

Probes, tuning and experiments all train with this module.
"""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from synque_select.errors import ConfigError, LightningError
from synque_select.records.correlation import LABELED_VALIDATION, UNTRAINED
from synque_select.training.comparability import (
    comparability_key,
    content_sha256,
    hyper_parameters,
    validation_of,
    weights_sha256,
)
from synque_select.training.drawn_examples import DrawnExamples
from synque_select.training.lightning_compat import (
    check_package,
    is_lightning_module,
    lightning_module_of,
    package_of,
    trainer_class,
)
from synque_select.training.mixture_loader import MixtureDataset, MixtureLoader
from synque_select.training.module_identity import module_identity
from synque_select.types import Mixture, Ranking, RunKind, RunRecord, surrogate_name
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.process_state import free_device_memory, preserved_state, seeded
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyCallback, AnyModule, AnyTrainer

__all__ = [
    "Measured",
    "ModelFactory",
    "ShortFit",
    "ShortFitOptions",
    "ShortFits",
    "TrainerOptions",
    "check_mode",
    "drawn_sha256",
    "first_batch",
    "model_factory_of",
    "package_versions",
    "quiet_fits",
    "serving",
    "train_and_measure",
]

ModelFactory = Callable[..., "AnyModule"]
TrainerOptions = Mapping[str, Any]  # keyword arguments of the Trainer

_NEVER = 2**31
_LOGGERS = (
    "lightning.fabric",
    "lightning.pytorch",
    "lightning_fabric",
    "pytorch_lightning",
    "pytorch_lightning.utilities.rank_zero",
    "lightning.pytorch.utilities.rank_zero",
)
_N_HASHED = 8  # training examples, as they are served, that represent transforms and collation


@dataclass(frozen=True, kw_only=True)
class ShortFitOptions:
    """Options of short fits: the metric, the seed and the task.

    Args:
        monitor: The validation metric, as the module logs it.
        mode: "max" if a larger value of the metric is better, else "min".
        seed: Random seed of the initial weights and of everything else in a fit, except for the
            order of examples, which follows the DataModule's own seed.
        task: Name of the task, part of the comparability key; None for the module's class.

    Raises:
        ConfigError: `mode` or `seed` is not allowed.

    Example:
        >>> ShortFitOptions(monitor="val_loss", mode="min").seed
        0
    """

    monitor: str = "val_acc"
    mode: Literal["max", "min"] = "max"
    seed: int = 0
    task: str | None = None

    def __post_init__(self) -> None:
        check_mode(self.mode)
        check_int("seed", self.seed, 0)


def check_mode(mode: str) -> None:
    """Check that the mode of a metric is "max" or "min".

    Raises:
        ConfigError: The mode is neither.
    """
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode!r}: allowed are 'max' and 'min'")


def model_factory_of(model: AnyModule | ModelFactory) -> ModelFactory:
    """Return a function that makes the module of each fit: a copy of a module, or a given function.

    The module is copied when the fit begins, so it must stay untrained.
    """
    return functools.partial(copy.deepcopy, model) if is_lightning_module(model) else model


@dataclass(frozen=True)
class Measured:
    """The result of a training of fixed length.

    Args:
        metrics: Every metric at the end of the budget.
        parameters: Hyper-parameters of module, optimizers and trainer.
        seconds: Wall time.
    """

    metrics: Mapping[str, float]
    parameters: JsonObject
    seconds: float


def train_and_measure(
    module: AnyModule,
    data: AnySynqueDataModule,
    max_steps: int,
    trainer_options: TrainerOptions,
    stages: Sequence[Literal["validate", "test"]] = ("validate",),
    stop_after: int | None = None,
) -> Measured:
    """Train a module for a fixed number of optimizer steps, or not at all, then measure it.

    Metrics on a surrogate validation set are named "surrogate/…". If the DataModule has labeled
    validation data beside it, the module is measured on both.

    The caller seeds the random generators. No logger, checkpoint, progress bar or summary is
    used.

    Args:
        module: A fresh module.
        data: Data to train and measure on.
        max_steps: Optimizer steps; with 0, the module is measured as it is, without a fit.
        trainer_options: Arguments of the Trainer beyond the budget.
        stages: Stages to measure, in this order: "validate", "test".
        stop_after: Number of steps after which the fit is stopped and measured, while schedules
            count to `max_steps`; None to train to the end.

    Raises:
        LightningError: Training ended before the last step, or the module comes from another
            package of Lightning than the DataModule.
    """
    check_package(data, "the model", module)
    started = time.perf_counter()
    with quiet_fits():
        # module, data and Trainer come from one package; the types of the other are the same
        module = cast("pl.LightningModule", module)
        datamodule = cast("pl.LightningDataModule", data)
        trainer = cast("type[pl.Trainer]", trainer_class(data))(
            **{
                "max_steps": max_steps,
                "max_epochs": -1,
                # measured once, at the fixed end of the budget: by the calls below
                "check_val_every_n_epoch": _NEVER,
                "num_sanity_val_steps": 0,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **trainer_options,
            }
        )
        if stop_after is not None:
            callback = lightning_module_of(data, "callbacks").LambdaCallback
            stop = functools.partial(_stop, stop_after)
            trainer.callbacks.append(callback(on_train_batch_end=stop))  # type: ignore[attr-defined]
        if max_steps:
            trainer.fit(module, datamodule=datamodule)
        n_steps = max_steps if stop_after is None else stop_after
        if trainer.global_step < n_steps:
            raise LightningError(
                f"a fit stopped after {trainer.global_step} of {counted(n_steps, 'step')}: fits "
                "are compared at a fixed budget, so nothing may end training early (a callback, "
                "max_time)"
            )
        parameters = hyper_parameters(trainer, module)
        metrics: dict[str, float] = {}
        for stage in stages:
            is_marked = stage == "validate" and data.uses_surrogate
            for part in getattr(trainer, stage)(module, datamodule=datamodule, verbose=False):
                metrics |= {
                    surrogate_name(n) if is_marked else n: float(v) for n, v in part.items()
                }
        if "validate" in stages and (labeled := data.on_labeled_validation()) is not None:
            datamodule = cast("pl.LightningDataModule", labeled)
            for part in trainer.validate(module, datamodule=datamodule, verbose=False):
                metrics |= {name: float(value) for name, value in part.items()}
    del trainer
    free_device_memory()
    return Measured(metrics, parameters, time.perf_counter() - started)


def _stop(n_steps: int, trainer: AnyTrainer, *_: object, **__: object) -> None:
    trainer.should_stop = trainer.should_stop or trainer.global_step >= n_steps


@dataclass(frozen=True)
class ShortFit:
    """The outcome of one short fit.

    Args:
        fit_id: Hash of everything that affects the outcome.
        metrics: Every validation metric at the end of the budget.
        parameters: Hyper-parameters of module, optimizers and trainer.
        seconds: Wall time of the training.
        created: When an earlier run finished the fit; None if this run trained it.
    """

    fit_id: str
    metrics: Mapping[str, float]
    parameters: JsonObject
    seconds: float
    created: str | None = None


@dataclass
class ShortFits:
    """Fits of one module at one budget, each measured once, at the fixed end of the budget.

    Args:
        datamodule: A DataModule that is set up for fit; fits train on its candidates.
        ranking: The ranking of these candidates.
        options: The metric, the seed and the task.
        max_steps: Optimizer steps of each fit.
        trainer_options: Arguments of the Trainer beyond the budget.
        validation: Hash of the validation data.
        drawn: Hashes of what fits draw, computed as they are needed.
    """

    datamodule: AnySynqueDataModule
    ranking: Ranking
    options: ShortFitOptions
    max_steps: int
    trainer_options: TrainerOptions
    validation: str
    drawn: DrawnExamples = field(default_factory=DrawnExamples, repr=False)

    @property
    def monitor(self) -> str:
        """The monitored metric as it is recorded: marked if validation is a surrogate."""
        name = self.options.monitor
        return surrogate_name(name) if self.datamodule.uses_surrogate else name

    @cached_property
    def details(self) -> dict[str, Json]:
        """Details of each record: the hash of labeled validation data beside a surrogate."""
        labeled = self.datamodule.on_labeled_validation()
        return {} if labeled is None else {LABELED_VALIDATION: validation_of(labeled)}

    def run(
        self,
        model_factory: ModelFactory,
        mixture: Mixture,
        *,
        finished: Callable[[str], RunRecord | None],
        callbacks: Sequence[AnyCallback] = (),
        stop_after: int | None = None,
    ) -> tuple[ShortFit, JsonObject]:
        """Train a fresh module on a mixture, unless the same fit has finished before.

        Args:
            model_factory: Makes the module; called with the random generators seeded.
            mixture: The mixture to train on.
            finished: Takes the id of a fit and returns the record of a finished fit with this id,
                or None.
            callbacks: Callbacks of the Trainer.
            stop_after: As in `train_and_measure`.

        Returns:
            The fit and its comparability key.

        Raises:
            LightningError: The module does not log the monitored metric.
        """
        with seeded(self.options.seed):
            module = model_factory()
            planned = self._planned(mixture, _Fresh.of(module), stop_after)
            fit = _known(planned, finished)
            if fit is None:
                fit = self._train(planned, module, callbacks, stop_after)
        return fit, self._key_of(planned, fit, type(module), stop_after)

    def find(
        self,
        model_factory: ModelFactory,
        mixtures: Iterable[Mixture],
        *,
        finished: Callable[[str], RunRecord | None],
        stop_after: int | None = None,
    ) -> list[tuple[ShortFit, JsonObject] | None]:
        """Return what `run` would return for each mixture if it has finished before, else None.

        Nothing is trained, and one module is made for all mixtures.

        Args:
            model_factory: As for `run`.
            mixtures: The mixtures.
            finished: As for `run`.
            stop_after: As in `train_and_measure`.

        Raises:
            LightningError: A finished fit has not logged the monitored metric.
        """
        kind, plans = self._plans(model_factory, mixtures, stop_after)
        fits: list[tuple[ShortFit, JsonObject] | None] = []
        for planned in plans:
            fit = _known(planned, finished)
            known = None if fit is None else (fit, self._key_of(planned, fit, kind, stop_after))
            fits.append(known)
        return fits

    def drawn_sha256(self, name: str) -> str:
        """Hash the examples of a candidate that a fit on it alone draws, without transforms.

        A fit on a mixture of this candidate with others draws some of these examples.
        """
        loader = serving(self.datamodule, Mixture.equal([name])).mixture_loader()
        return drawn_sha256(loader, self.max_steps, self.trainer_options, self.drawn)

    def fit_ids(self, model_factory: ModelFactory, mixtures: Iterable[Mixture]) -> list[str]:
        """Return the ids that `run` gives the fits on these mixtures; nothing is trained.

        Args:
            model_factory: Makes the module, which is the same for all fits.
            mixtures: The mixtures.
        """
        return [planned.fit_id for planned in self._plans(model_factory, mixtures)[1]]

    @property
    def no_mixture(self) -> Mixture:
        """What the record of an untrained module has in place of a mixture: all candidates."""
        return Mixture.equal([row.name for row in self.ranking.candidates], "none, untrained")

    def untrained(
        self,
        model_factory: ModelFactory,
        *,
        finished: Callable[[str], RunRecord | None],
    ) -> RunRecord | str:
        """Measure a fresh module as it is, without training, unless this has been done before.

        Args:
            model_factory: Makes the module; called with the random generators seeded.
            finished: As for `run`.

        Returns:
            The record, of kind "mixture", as it is neither a probe nor a trial; or a sentence that
            says why the module cannot be measured before a fit.
        """
        mixture = self.no_mixture
        try:
            fit, key = replace(self, max_steps=0).run(model_factory, mixture, finished=finished)
        except Exception as error:  # whatever a module of the user raises before it is trained
            return (
                "the model as it is is left out, as it cannot be measured before a fit: "
                f"{type(error).__name__}: {error}"
            )
        return self.record(fit, key, mixture, kind="mixture", details={UNTRAINED: True})

    def record(
        self,
        fit: ShortFit,
        key: JsonObject,
        mixture: Mixture,
        *,
        kind: RunKind,
        scores: Mapping[str, float] | None = None,
        details: JsonObject | None = None,
    ) -> RunRecord:
        """Return the record of a fit; the same fit has the same id again.

        Args:
            fit: The fit.
            key: Its comparability key.
            mixture: What it was trained on.
            kind: As in `RunRecord.of`.
            scores: Proxy key to the score of the mixture; None if it was not scored.
            details: What to store beside the fit.
        """
        return RunRecord.of(
            self.ranking,
            mixture,
            run_id=content_sha256([fit.fit_id, key])[:32],
            kind=kind,
            key=key,
            scores=scores or {},
            metrics=fit.metrics,
            monitor=self.monitor,
            mode=self.options.mode,
            seed=self.options.seed,
            created=fit.created,
            details={
                **self.details,
                "probe": fit.fit_id,
                "seconds": fit.seconds,
                **(details or {}),
            },
        )

    def _plans(
        self,
        model_factory: ModelFactory,
        mixtures: Iterable[Mixture],
        stop_after: int | None = None,
    ) -> tuple[type, list[_Planned]]:
        """Return the class of the module, and each fit as `run` would plan it."""
        plans = []
        with seeded(self.options.seed):
            module = model_factory()
            fresh = _Fresh.of(module)
            for mixture in mixtures:
                with preserved_state():  # as if the module had just been made
                    plans.append(self._planned(mixture, fresh, stop_after))
        return type(module), plans

    def _planned(self, mixture: Mixture, fresh: _Fresh, stop_after: int | None) -> _Planned:
        data = serving(self.datamodule, mixture)
        fit_ids = self._fit_ids(mixture, data, fresh)
        if stop_after is not None:
            fit_ids = [content_sha256([fit_id, stop_after]) for fit_id in fit_ids]
        return _Planned(fit_ids[0], fit_ids[1], data, fresh.weights)

    def _key_of(
        self, planned: _Planned, fit: ShortFit, model: type, stop_after: int | None
    ) -> JsonObject:
        if self.monitor not in fit.metrics:
            raise LightningError(
                f"{model.__name__} does not log {self.options.monitor!r} in validation; "
                f"logged are: {', '.join(sorted(fit.metrics)) or 'none'}"
            )
        ended = self if stop_after is None else replace(self, max_steps=stop_after)
        return ended.key(model, planned.data.batch_size, fit.parameters, planned.weights)

    def _fit_ids(self, mixture: Mixture, data: AnySynqueDataModule, fresh: _Fresh) -> list[str]:
        """Hash everything that affects the outcome of a fit, and what version 0.1.0 hashed."""
        loader = data.mixture_loader()
        drawn = drawn_sha256(loader, self.max_steps, self.trainer_options, self.drawn)
        parts = [
            self.options.task,
            sorted((self.ranking[name].sha256, w) for name, w in mixture.weights.items()),
            *fresh.known_by_0_1,
            fresh.weights,
            self.validation,
            [self.max_steps, self.options.seed, loader.batch_size],
            {key: str(value) for key, value in self.trainer_options.items()},
            first_batch(loader),
            *self.details.values(),
            *([self.datamodule.sampling] if self.datamodule.sampling else []),
            package_versions(data),
        ]
        return [content_sha256([drawn, fresh.identity, *parts]), content_sha256(parts)]

    def _train(
        self,
        planned: _Planned,
        module: AnyModule,
        callbacks: Sequence[AnyCallback],
        stop_after: int | None,
    ) -> ShortFit:
        # callbacks that the module brings, such as early stopping, would change the budget
        module.configure_callbacks = list  # type: ignore[method-assign]
        own = self.trainer_options.get("callbacks") or []
        options = {**self.trainer_options, "callbacks": [*own, *callbacks]}
        measured = train_and_measure(
            module, planned.data, self.max_steps, options, stop_after=stop_after
        )
        return ShortFit(planned.fit_id, measured.metrics, measured.parameters, measured.seconds)

    def key(self, model: type, batch_size: int, parameters: JsonObject, weights: str) -> JsonObject:
        """Return the comparability key of a fit of a module of this class."""
        accumulated = parameters["accumulate_grad_batches"]
        assert isinstance(accumulated, int)
        batches = self.max_steps * accumulated
        return comparability_key(
            task=model.__name__ if self.options.task is None else self.options.task,
            validation=self.validation,
            monitor=self.monitor,
            mode=self.options.mode,
            model=model,
            weights=weights,
            examples_drawn=batches * batch_size,
            optimizer_steps=self.max_steps,
            hyper_parameters=parameters,
            ranking=self.ranking,
            sampling=self.datamodule.sampling,
        )


class _Fresh(NamedTuple):
    """Hashes of an untrained module, and what version 0.1.0 knew it by."""

    identity: str
    weights: str
    known_by_0_1: tuple[object, ...]

    @classmethod
    def of(cls, module: AnyModule) -> _Fresh:
        before = (_code(type(module)), dict(module.hparams))
        return cls(content_sha256(module_identity(module)), weights_sha256(module), before)


@dataclass(frozen=True)
class _Planned:
    """A fit before it is trained.

    Args:
        fit_id: Its id.
        old_id: The id that version 0.1.0 gave it, which does not cover all that affects it.
        data: What it draws from.
        weights: Hash of its first weights.
    """

    fit_id: str
    old_id: str
    data: AnySynqueDataModule
    weights: str


def _known(planned: _Planned, finished: Callable[[str], RunRecord | None]) -> ShortFit | None:
    for fit_id in (planned.fit_id, planned.old_id):
        if (record := finished(fit_id)) is not None:
            parameters, seconds = record.key["hyper_parameters"], record.details["seconds"]
            return ShortFit(fit_id, record.metrics, parameters, seconds, record.created)
    return None


def _n_devices(options: TrainerOptions) -> int:
    """Return the number of devices if the options say it, else 1."""
    devices = options.get("devices", 1)
    n = len(devices) if isinstance(devices, list | tuple) else devices
    return n if isinstance(n, int) and n > 0 else 1


def drawn_sha256(
    loader: MixtureLoader, max_steps: int, trainer_options: TrainerOptions, drawn: DrawnExamples
) -> str:
    """Hash the examples that a fit of this length draws, in their order, without transforms.

    Args:
        loader: What the fit trains on.
        max_steps: Optimizer steps.
        trainer_options: Arguments of the Trainer.
        drawn: Hashes of examples, computed as they are needed.
    """
    batches = max_steps * trainer_options.get("accumulate_grad_batches", 1)
    n_draws = batches * (loader.batch_size or 1) * _n_devices(trainer_options)
    return drawn.sha256(_served(loader), n_draws)


def first_batch(loader: MixtureLoader) -> object:
    """Return the first examples of a fit as a batch, which represents transforms and collation."""
    served = _served(loader)
    return loader.collate_fn([served[i] for i in range(min(_N_HASHED, len(served)))])


def _served(loader: MixtureLoader) -> MixtureDataset:
    served = loader.dataset
    assert isinstance(served, MixtureDataset)
    return served


def serving(datamodule: AnySynqueDataModule, mixture: Mixture) -> AnySynqueDataModule:
    """Return a DataModule of another mixture with data that is and stays set up."""
    data = datamodule.with_mixture(mixture)
    for hook in ("prepare_data", "setup", "teardown", "on_exception"):
        setattr(data, hook, _nothing)
    return data


def package_versions(part: object) -> list[str]:
    """Return the versions of torch and of the package of Lightning that an object comes from."""
    lightning = "lightning" if package_of(part) == "lightning" else "pytorch-lightning"
    return [importlib.metadata.version(name) for name in ("torch", lightning)]


def _nothing(*_: object, **__: object) -> None:
    pass


def _code(cls: type) -> str:
    """Return the source of a class, as version 0.1.0 read it."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return cls.__qualname__


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Hide Lightning's notes on devices, tips and workers: a short fit is one of many."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            # Lightning itself calls a function that torch has deprecated
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
