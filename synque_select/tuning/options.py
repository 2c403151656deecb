"""The options of a study, shared by `tune_mixture`, YAML and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.execution import check_workers, get_executor
from synque_select.training.short_fit import ShortFitOptions
from synque_select.tuning.samplers import check_pruner, check_sampler
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

__all__ = ["TuneOptions"]


@dataclass(frozen=True, kw_only=True)
class TuneOptions(ShortFitOptions):
    """Options of a study: its objective, its search and its storage.

    Args:
        monitor: The validation metric that trials are compared by, as the module logs it.
        mode: "max" if a larger value of the metric is better, else "min".
        seed: Random seed of the initial weights and of the sampler.
        task: Name of the task, part of the comparability key; None for the module's class.
        n_trials: Number of complete or pruned trials in the study when it ends, including those of
            other workers, but not those that `reuse` takes from earlier fits.
        proxy: Key of a proxy of the suite to optimize instead of a metric; nothing is trained.
        hyper_parameters: A function that takes the `optuna.Trial` and returns keyword arguments for
            the model factory.
        k_range: Smallest and largest number of candidates in a mixture; None for 1 to all.
        sampler: "tpe", "random", "gp", "cmaes", "qmc", or a sampler of Optuna.
        n_startup: Number of random trials after those that the proxies suggest.
        pruner: "median", "hyperband", "successive_halving", "none", or a pruner of Optuna.
        n_workers: Number of trials that are trained at the same time, each in a process of its own
            with an equal share of the threads of torch, or with one of several GPUs; model and data
            must be picklable. This process alone writes the study. With several, nothing is pruned.
        executor: Where to encode, judge and train, such as "local:devices=0,1" or
            "ray://HOST:PORT"; see `synque_select.execution.get_executor`. It replaces `n_workers`.
        n_reports: Number of validations in a trial, including the last; with 1, nothing is pruned.
        study_name: Name of the study; the same name continues it. None for a name made from the
            task and a hash of data and budget.
        storage: A path (SQLite, or a journal if it ends in .journal, .log or .jsonl), the URL of a
            database, or a storage of Optuna; None for `studies.sqlite` beside the run store.
        reuse: Whether a new study takes finished probes of the run store as trials, and the trials
            of the newest study in the storage that differs only in its candidates: as trials where
            the same fit would be run again, else as priors for the sampler.
        heartbeat_s: Seconds between heartbeats of a worker; a worker that misses three of them is
            considered dead.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> TuneOptions(n_trials=20, monitor="val_loss", mode="min").sampler
        'tpe'
        >>> TuneOptions(sampler="tpee")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: sampler='tpee': did you mean 'tpe'? ...
    """

    n_trials: int = 30
    proxy: str | None = None
    hyper_parameters: Callable[[Trial], Mapping[str, object]] | None = None
    k_range: tuple[int, int] | None = None
    sampler: str | BaseSampler = "tpe"
    n_startup: int = 5
    pruner: str | BasePruner = "median"
    n_workers: int = 1
    executor: str | None = None
    n_reports: int = 4
    study_name: str | None = None
    storage: str | Path | BaseStorage | None = None
    reuse: bool = True
    heartbeat_s: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("n_trials", 1),
            ("n_reports", 1),
            ("n_startup", 0),
            ("heartbeat_s", 1),
        ):
            check_int(name, getattr(self, name), least)
        if self.hyper_parameters is not None and not callable(self.hyper_parameters):
            raise ConfigError(
                f"hyper_parameters={self.hyper_parameters!r}: allowed is a function of a trial"
            )
        check_workers(self.n_workers, self.executor)
        check_sampler(self.sampler)
        check_pruner(self.pruner)

    @property
    def n_validations(self) -> int:
        """Number of validations in a trial; 1 if nothing is pruned."""
        return 1 if self.pruner == "none" or self.is_side_by_side else self.n_reports

    @property
    def is_side_by_side(self) -> bool:
        """Whether trials are trained in other processes, which cannot ask the pruner."""
        return self.n_workers > 1 or get_executor(self.executor).is_remote
