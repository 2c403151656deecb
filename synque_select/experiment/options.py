"""The options of an experiment, shared by `run_experiment`, YAML and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synque_select.errors import ConfigError, did_you_mean
from synque_select.experiment.result import ARMS
from synque_select.records.store import RunStore
from synque_select.utils.validation import check_int

__all__ = ["ExperimentOptions"]

_DEFAULT_ARMS = tuple(arm for arm in ARMS if arm != "tuned")  # "tuned" needs optuna


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """Options of an experiment: its arms, its replicates, and where its files are written.

    Args:
        top_k: Number of candidates to select; fewer than there are candidates.
        rank_by: Key of the proxy that selects, or "consensus"; None for the default of the ranking.
        arms: The arms to compare; "chosen" must be one of them. The candidates alone are always
            trained on in the first replicate, for the correlations. "tuned" needs optuna and is
            run only if it is named.
        replicates: Largest number of replicates, from 2.
        single_replicates: Number of replicates in which every candidate is trained on alone; None
            for all.
        n_random: Number of random mixtures per replicate; the arm's figure is their mean.
        n_tuned: Number of trials of the arm "tuned". The trials together take half of the steps of
            a fit, and the mixture that they find is trained for the other half.
        time_limit_s: Start nothing that would run past this many seconds; None for no limit. The
            first replicate with its candidates alone, and the second replicate, always run.
        run_dir: Directory for the files of the run; None for a new one under `root`.
        root: Directory of all runs.
        store: The run store or its path; None for the default one.
        device: Device for encoding and scoring; fits follow the trainer options of the task.
        cache_dir: Directory of cached embeddings; None for the default.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> ExperimentOptions(arms=["chosen", "all"], replicates=3).top_k
        3
        >>> ExperimentOptions(replicates=1)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: replicates=1: allowed is a whole number from 2
    """

    top_k: int = 3
    rank_by: str | None = None
    arms: Sequence[str] = _DEFAULT_ARMS
    replicates: int = 5
    single_replicates: int | None = None
    n_random: int = 5
    n_tuned: int = 10
    time_limit_s: float | None = None
    run_dir: str | Path | None = None
    root: str | Path = "runs"
    store: RunStore | str | Path | None = None
    device: str | None = None
    cache_dir: str | Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("top_k", 1), ("replicates", 2), ("n_random", 1), ("n_tuned", 1)):
            check_int(name, getattr(self, name), least)
        for arm in self.arms:
            if arm not in ARMS:
                raise ConfigError(f"unknown arm {arm!r}: {did_you_mean(arm, ARMS)}")
        if "chosen" not in self.arms:
            raise ConfigError(
                f"arms={list(self.arms)}: 'chosen' is missing; every other arm is compared with it"
            )
        singles = self.single_replicates
        if singles is not None and not 1 <= singles <= self.replicates:
            raise ConfigError(f"single_replicates={singles}: allowed is 1 to {self.replicates}")
        if self.time_limit_s is not None and not self.time_limit_s >= 0:
            raise ConfigError(
                f"time_limit_s={self.time_limit_s}: allowed is 0 or more, or null for no limit"
            )
