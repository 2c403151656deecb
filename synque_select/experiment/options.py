"""The options of an experiment, shared by `run_experiment`, YAML and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synque_select.errors import ConfigError, did_you_mean
from synque_select.execution import check_workers
from synque_select.experiment.policies import check_policies
from synque_select.experiment.result import ARMS
from synque_select.experiment.sampling import check_sampling
from synque_select.records.run_folder import check_run_name
from synque_select.records.store import RunStore
from synque_select.utils.validation import check_int

__all__ = ["ExperimentOptions"]

_DEFAULT_ARMS = tuple(arm for arm in ARMS if arm != "tuned")  # "tuned" needs optuna


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """Options of an experiment: its arms, its replicates and its files.

    Args:
        top_k: Number of candidates to select; must be less than the number of candidates.
        rank_by: Key of the proxy that selects, or "consensus"; None for the default of the ranking.
        arms: The arms to compare, including "chosen". In the first replicate, the model is always
            trained on every candidate alone, for the correlations. "none" is the model as it is,
            measured without training. "tuned" needs optuna and only runs if it is listed.
        replicates: Maximum number of replicates, at least 2.
        policies: Policies of reselection, each an arm of its own: "static", "odm", "aioli",
            "surrogate", "agreement", or the dotted name of a class, with options after colons
            ("aioli:rate=1"). They start from the mixture of
            the arm `policy_start`, which is their static control, and are compared with it and
            with the mixture of all.
        policy_start: "chosen" for the selected mixture, or "all"; also for `sampling`.
        every_n_steps: Optimizer steps between two changes by a policy; None for a tenth of a fit.
        policy_budget: Share of the training time in which a policy may evaluate the model.
        sampling: Other ways of drawing from the mixture of the arm `policy_start`, each an arm of
            its own that is compared with that one: "tokens" for weights that are shares of tokens
            ("tokens:max_length=512"), or a curriculum ("curriculum:by=surrogate_loss",
            "curriculum:by=pad:order=descending"; see `Curriculum`).
        single_replicates: Number of replicates in which every candidate is trained on alone; None
            for all.
        n_random: Number of random mixtures per replicate, whose mean is the result of the arm.
        n_tuned: Number of trials of the arm "tuned". All trials together take half of the steps of
            a fit; the other half trains on the mixture that they find.
        n_workers: Number of fits that are trained at the same time, each in a process of its own
            with an equal share of the threads of torch, or with one of several GPUs; the task must
            be picklable. With 1, no process is started.
        executor: Where to encode, judge and train, such as "local:devices=0,1" or
            "ray://HOST:PORT"; see `synque_select.execution.get_executor`. It replaces `n_workers`.
        time_limit_s: Time limit in seconds; None for no limit. Work that would exceed it is not
            started, except the first replicate with every candidate alone, and the second
            replicate.
        run_dir: Run directory; None for a new one under `root`.
        root: Parent directory of all runs.
        name: Name of the run, in the name of a new directory; None for two words.
        store: The run store or its path; None for the default one.
        device: Device for encoding and scoring; fits use the trainer options of the task.
        cache_dir: Directory of cached embeddings; None for the default one.
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
    policies: Sequence[str] = ()
    policy_start: Literal["chosen", "all"] = "chosen"
    every_n_steps: int | None = None
    policy_budget: float = 0.02
    sampling: Sequence[str] = ()
    replicates: int = 5
    single_replicates: int | None = None
    n_random: int = 5
    n_tuned: int = 10
    n_workers: int = 1
    executor: str | None = None
    time_limit_s: float | None = None
    run_dir: str | Path | None = None
    root: str | Path = "runs"
    name: str | None = None
    store: RunStore | str | Path | None = None
    device: str | None = None
    cache_dir: str | Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_run_name(self.name, self.run_dir)
        check_workers(self.n_workers, self.executor)
        counts = {"top_k": 1, "replicates": 2, "n_random": 1, "n_tuned": 1, "n_workers": 1}
        for name, least in counts.items():
            check_int(name, getattr(self, name), least)
        for arm in self.arms:
            if arm not in ARMS:
                raise ConfigError(f"unknown arm {arm!r}: {did_you_mean(arm, ARMS)}")
        if "chosen" not in self.arms:
            raise ConfigError(
                f"arms={list(self.arms)}: 'chosen' is missing; every other arm is compared with it"
            )
        self._check_policies()
        singles = self.single_replicates
        if singles is not None and not 1 <= singles <= self.replicates:
            raise ConfigError(f"single_replicates={singles}: allowed is 1 to {self.replicates}")
        if self.time_limit_s is not None and not self.time_limit_s >= 0:
            raise ConfigError(
                f"time_limit_s={self.time_limit_s}: allowed is 0 or more, or null for no limit"
            )

    def _check_policies(self) -> None:
        check_policies(self.policies)
        check_sampling(self.sampling)
        if self.policy_start not in ("chosen", "all"):
            raise ConfigError(f"policy_start={self.policy_start!r}: allowed is 'chosen' or 'all'")
        what = "policies" if self.policies else "sampling"
        if (self.policies or self.sampling) and self.policy_start not in self.arms:
            raise ConfigError(
                f"arms={list(self.arms)}: {self.policy_start!r} is missing, the static control of "
                f"the {what}"
            )
        if self.every_n_steps is not None:
            check_int("every_n_steps", self.every_n_steps, 1)
        if not 0 < self.policy_budget <= 1:
            raise ConfigError(
                f"policy_budget={self.policy_budget}: allowed is a share above 0 and up to 1"
            )
