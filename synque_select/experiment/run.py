"""Run the arms of an experiment in paired replicates, and say what was shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from synque_select.data.candidate import RealSample
from synque_select.errors import ConfigError, did_you_mean
from synque_select.experiment.fits import Fit, FitStore, Outcome
from synque_select.experiment.result import ARMS, experiment_result, probe_correlations
from synque_select.experiment.summary import summary, write_run
from synque_select.experiment.task import BaseTask, check_task
from synque_select.records.run_folder import make_folder, new_run_folder
from synque_select.records.store import RunStore
from synque_select.selection.ranking import rank
from synque_select.tuning.search import search_mixtures
from synque_select.tuning.space import MixtureSpace, starting_mixtures
from synque_select.tuning.studies import optuna_module
from synque_select.types import Mixture, Ranking, RunKind, RunRecord
from synque_select.utils.progress import ProgressBar

__all__ = ["ARMS", "Experiment", "run_experiment"]

_DEFAULT_ARMS = tuple(arm for arm in ARMS if arm != "tuned")  # which needs optuna
_SINGLE_ARMS = ("mean_single", "best_single", "best_single_by_validation", "oracle_k")


@dataclass(frozen=True)
class Experiment:
    """A finished run.

    Args:
        folder: Where its files and `report.html` are.
        result: What stands in `result.json`.
        rankings: One a replicate.
    """

    folder: Path
    result: Mapping[str, Any]
    rankings: tuple[Ranking, ...]

    def __str__(self) -> str:
        """Return the tables that a run ends with, and the name of its page."""
        return f"{summary(self.result, self.rankings[0])}\n\nreport: {self.folder / 'report.html'}"


def run_experiment(
    task: BaseTask,
    *,
    k: int = 3,
    rank_by: str | None = None,
    arms: Sequence[str] = _DEFAULT_ARMS,
    replicates: int = 5,
    single_replicates: int | None = None,
    n_random: int = 5,
    n_tuned: int = 10,
    time_limit_s: float | None = None,
    folder: str | Path | None = None,
    root: str | Path = "runs",
    store: RunStore | str | Path | None = None,
    device: str | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Experiment:
    """Run the arms of a task and write the run's folder.

    A replicate is a new real sample and a new training seed; all arms of a replicate share the
    initial weights and the budget. A fit that has finished once, in this run or an earlier one, is
    taken from the store. Work is done in the order of what is needed most: chosen, random and all
    of every replicate, with the singles of the first one; then the singles of the other replicates;
    then the rest. What the time does not allow is left out and named.

    Args:
        task: Candidates, real samples, model, budget.
        k: How many candidates are chosen.
        rank_by: A proxy's key or "consensus"; None for the ranking's default.
        arms: Which arms; the singles of the first replicate are always run, for the correlations.
            "tuned" needs optuna and is run only where it is named.
        replicates: How many at most, from 2.
        single_replicates: In how many of them every candidate is trained on alone; None for all.
        n_random: Random mixtures a replicate; the arm's figure is their mean.
        n_tuned: Trials of the arm "tuned": they take half of the steps of a fit, what they choose
            is trained with the other half.
        time_limit_s: Begin nothing that would pass this; None for no limit. The first replicate
            with its singles, and the second, are run whatever it says.
        folder: The run's folder; None for a new one under `root`.
        root: Where runs are kept.
        store: The run store; None for the default.
        device: Where to encode and score; fits follow the task's trainer options.
        cache_dir: Where embeddings are kept; None for the default.
        progress: Whether to show progress.

    Raises:
        ConfigError: An argument is not allowed.
        DataError: Real examples are in validation or test, or a candidate is too small.
    """
    _check(task, k, arms, replicates, single_replicates, n_random)
    _check_tuned(arms, n_tuned)
    if time_limit_s is not None and not time_limit_s >= 0:
        raise ConfigError(f"time_limit_s={time_limit_s}: allowed is 0 or more, or null for none")
    started = time.monotonic()
    samples = [task.real_sample(replicate) for replicate in range(replicates)]
    check_task(task, samples)
    # made before hours of training, whose results must have a place
    where = new_run_folder(root, task.name) if folder is None else make_folder(folder)
    run = _Run(
        task,
        k=k,
        arms=arms,
        n_random=n_random,
        n_tuned=n_tuned,
        book=FitStore(task, store if isinstance(store, RunStore) else RunStore(store)),
        rankings=_rankings(task, samples, k, rank_by, device, cache_dir, progress),
        deadline=math.inf if time_limit_s is None else started + time_limit_s,
        progress=progress,
    )
    run.all(replicates if single_replicates is None else single_replicates)
    result = experiment_result(
        task,
        run.rankings,
        run.outcomes,
        run.records,
        arms=arms,
        k=k,
        n_random=n_random,
        messages=[*_overlap(samples[: len(run.outcomes["chosen"])]), *run.messages],
    )
    result["seconds"] = time.monotonic() - started
    probes = probe_correlations(task, run.records)
    write_run(where, task, samples[0], run.rankings, result, probes, cache_dir)
    return Experiment(where, result, tuple(run.rankings))


def _check(
    task: BaseTask,
    k: int,
    arms: Sequence[str],
    replicates: int,
    single_replicates: int | None,
    n_random: int,
) -> None:
    n_candidates = len(task.candidates)
    if n_candidates < 2:
        (only,) = task.candidates
        raise ConfigError(f"one candidate ({only.where}): an experiment compares two or more")
    if not 1 <= k < n_candidates:
        raise ConfigError(f"k={k}: allowed is 1 to {n_candidates - 1}, fewer than all candidates")
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"unknown arm {arm!r}: {did_you_mean(arm, ARMS)}")
    if "chosen" not in arms:
        raise ConfigError(f"arms={list(arms)}: 'chosen' is needed, the others are compared with it")
    if replicates < 2:
        raise ConfigError(f"replicates={replicates}: allowed is 2 or more, a pair needs two")
    if single_replicates is not None and not 1 <= single_replicates <= replicates:
        raise ConfigError(f"single_replicates={single_replicates}: allowed is 1 to {replicates}")
    if n_random < 1:
        raise ConfigError(f"n_random={n_random}: allowed is 1 or more")


def _check_tuned(arms: Sequence[str], n_tuned: int) -> None:
    if n_tuned < 1:
        raise ConfigError(f"n_tuned={n_tuned}: allowed is 1 or more")
    if "tuned" in arms:
        optuna_module()  # missing now, and not after all other fits


def _overlap(samples: Sequence[RealSample]) -> list[str]:
    """Say how much of the real samples is the same: such replicates are no independent draws."""
    contents = [{row.tobytes() for row in sample.digests} for sample in samples]
    shares = [len(a & b) / min(len(a), len(b)) for a, b in combinations(contents, 2)]
    mean, n = fmean(shares), len(samples)
    if min(shares) == 1:
        return [
            f"all {n} replicates have the same real sample: they differ by the training seed "
            "alone, and no interval over them covers another real sample"
        ]
    if mean == 0:
        return []
    return [
        f"two real samples share {100 * mean:.0f} % of their examples on average: "
        "intervals over replicates may be too narrow for wholly new samples"
    ]


def _rankings(
    task: BaseTask,
    samples: Sequence[RealSample],
    k: int,
    rank_by: str | None,
    device: str | None,
    cache_dir: str | Path | None,
    progress: bool,
) -> list[Ranking]:
    return [
        rank(
            task.candidates,
            sample,
            encoder=task.encoder,
            proxies=task.proxies,
            rank_by=rank_by,
            top_k=k,
            seed=replicate,
            device=device,
            cache_dir=cache_dir,
            progress=progress,
        )
        for replicate, sample in enumerate(samples)
    ]


@dataclass
class _Step:
    """Some fits that are run together or not at all; what they are may depend on earlier ones."""

    words: str
    n_optimizer_steps: int
    run: Callable[[], None]
    is_needed: bool = False


@dataclass
class _Run:
    """The state of an experiment: arm -> replicate -> outcomes."""

    task: BaseTask
    k: int
    arms: Sequence[str]
    n_random: int
    n_tuned: int
    book: FitStore
    rankings: Sequence[Ranking]
    deadline: float
    progress: bool
    outcomes: dict[str, dict[int, list[Outcome]]] = field(default_factory=dict)
    records: list[RunRecord] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    trained_s: float = 0.0
    trained_steps: int = 0
    bar: Any = None

    def all(self, single_replicates: int) -> None:
        """Run every step that the time allows, what is needed most first."""
        steps = list(self._steps(single_replicates))
        n_run = 0
        total = sum(step.n_optimizer_steps for step in steps)
        with ProgressBar(
            total=total, unit=" steps", disable=not self.progress, delay=2
        ) as self.bar:
            for step in steps:
                if not (step.is_needed or self._has_time(step)):
                    break
                self.bar.set_description(f"training, {step.words}")
                step.run()
                n_run += 1
        found = [o for by_replicate in self.outcomes.values() for o in by_replicate.values()]
        n_reused = sum(outcome.reused for of_replicate in found for outcome in of_replicate)
        if n_reused:
            self.messages.append(
                f"{n_reused} of {sum(map(len, found))} fits had finished before: they are taken "
                "from the store, with the seconds that they took then"
            )
        if n_run < len(steps):
            left_out = "; ".join(step.words for step in steps[n_run:])
            self.messages.append(f"left out, as the time did not allow it: {left_out}")

    def _has_time(self, step: _Step) -> bool:
        if not self.trained_steps:
            return True
        expected_s = step.n_optimizer_steps * self.trained_s / self.trained_steps
        return time.monotonic() + expected_s < self.deadline

    def _steps(self, single_replicates: int) -> Iterable[_Step]:
        cost, n = self.task.max_steps, len(self.task.candidates)
        mixed = [arm for arm in ("chosen", "random_k", "all") if arm in self.arms]
        n_mixed = len(mixed) + (self.n_random - 1) * ("random_k" in mixed)
        replicates = range(len(self.rankings))
        for r in replicates:
            words = f"mixtures of replicate {r + 1}"
            yield _Step(words, n_mixed * cost, partial(self._mixtures, r), is_needed=r < 2)
            if r == 0:
                yield _Step("singles of replicate 1", n * cost, partial(self._singles, 0), True)
        if any(arm in self.arms for arm in _SINGLE_ARMS):
            for r in range(1, single_replicates):
                yield _Step(f"singles of replicate {r + 1}", n * cost, partial(self._singles, r))
        for arm, run, price in (
            ("oracle_k", self._oracle, cost),
            ("probed_k", self._probed, n * self._short_steps() + cost),
            ("tuned", self._tuned, cost),
            ("all_unequal", self._unequal, cost),
        ):
            if arm in self.arms:
                for r in replicates[:single_replicates] if arm == "oracle_k" else replicates:
                    yield _Step(f"{arm} of replicate {r + 1}", price, partial(run, r))

    def _fit(
        self,
        arm: str,
        replicate: int,
        mixture: Mixture,
        *,
        kind: RunKind = "mixture",
        max_steps: int | None = None,
        equal_size: bool = True,
        rankings: Sequence[Ranking] | None = None,
    ) -> None:
        fit = Fit(
            mixture,
            seed=replicate,
            max_steps=max_steps or self.task.max_steps,
            n_distinct=self.task.n_distinct if equal_size else None,
        )
        rankings = [self.rankings[replicate]] if rankings is None else rankings
        outcome = self.book.run(fit, kind, rankings)
        if not outcome.reused:
            self.trained_s += outcome.seconds
            self.trained_steps += fit.max_steps
        self.bar.update(fit.max_steps)
        self.records += [self.book.record(fit, kind, ranking, outcome) for ranking in rankings]
        self.outcomes.setdefault(arm, {}).setdefault(replicate, []).append(outcome)

    def _mixtures(self, replicate: int) -> None:
        names = [candidate.name for candidate in self.task.candidates]
        if "chosen" in self.arms:
            self._fit("chosen", replicate, self.rankings[replicate].top(self.k))
        if "random_k" in self.arms:
            rng = np.random.default_rng([replicate, self.k])
            for _ in range(self.n_random):
                drawn = sorted(rng.choice(len(names), self.k, replace=False))
                mixture = Mixture.equal([names[i] for i in drawn], f"random {self.k}")
                self._fit("random_k", replicate, mixture)
        if "all" in self.arms:
            self._fit("all", replicate, Mixture.equal(names, "all, equal"))

    def _singles(self, replicate: int) -> None:
        # what a single comes to does not depend on the real sample: it counts under each
        for candidate in self.task.candidates:
            self._fit(
                "single",
                replicate,
                Mixture.equal([candidate.name], "single"),
                kind="probe",
                rankings=self.rankings,
            )

    def _oracle(self, replicate: int) -> None:
        singles = self.outcomes["single"].get(replicate)
        if singles is not None:
            best = self._best_by_validation(singles, self.k)
            self._fit("oracle_k", replicate, Mixture.equal(best, f"top {self.k} by validation"))

    def _probed(self, replicate: int) -> None:
        """Choose by K short probes that together cost one fit, then train on the choice."""
        for candidate in self.task.candidates:
            mixture = Mixture.equal([candidate.name], "short probe")
            short = self._short_steps()
            self._fit("short", replicate, mixture, kind="probe", max_steps=short)
        best = self._best_by_validation(self.outcomes["short"][replicate], self.k)
        self._fit("probed_k", replicate, Mixture.equal(best, f"top {self.k} by short probes"))

    def _tuned(self, replicate: int) -> None:
        """Choose by trials in half of the steps of a fit, train with the other half."""
        half = self.task.max_steps // 2
        n_trials = max(1, min(self.n_tuned, half))
        short, ranking = max(1, half // n_trials), self.rankings[replicate]
        space = MixtureSpace(tuple(row.name for row in ranking.order()), (1, len(ranking)))

        def value(mixture: Mixture) -> float:
            self._fit("trial", replicate, mixture, kind="trial", max_steps=short)
            outcome = self.outcomes["trial"][replicate][-1]
            return outcome.metrics[f"val_{self.task.metric}"]

        found = search_mixtures(
            value,
            space,
            n_trials=n_trials,
            mode=self.task.mode,
            starts=starting_mixtures(ranking, space),
            seed=replicate,
        )
        choose = max if self.task.mode == "max" else min
        best, _ = choose(found, key=lambda one: one[1])
        rest = max(1, self.task.max_steps - n_trials * short)
        self._fit("tuned", replicate, best, max_steps=rest)

    def _short_steps(self) -> int:
        return max(1, self.task.max_steps // len(self.task.candidates))

    def _unequal(self, replicate: int) -> None:
        sizes = {candidate.name: len(candidate) for candidate in self.task.candidates}
        total = sum(sizes.values())
        mixture = Mixture({name: n / total for name, n in sizes.items()}, "all, unequal size")
        self._fit("all_unequal", replicate, mixture, equal_size=False)

    def _best_by_validation(self, outcomes: Sequence[Outcome], k: int) -> list[str]:
        sign = -1 if self.task.mode == "max" else 1
        name = f"val_{self.task.metric}"
        order = sorted(range(len(outcomes)), key=lambda i: sign * outcomes[i].metrics[name])
        return [self.task.candidates[i].name for i in order[:k]]
