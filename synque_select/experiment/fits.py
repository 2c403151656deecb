"""The fits of an experiment; a fit that has finished is taken from the run store."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.execution import Executor
from synque_select.experiment.policies import HELD_OUT, PolicyRun, train_with_policy
from synque_select.experiment.sampling import SamplingRun
from synque_select.experiment.task import BaseTask, sized, sized_positions
from synque_select.probing.processes import WorkerPool
from synque_select.records.correlation import UNTRAINED
from synque_select.records.store import RunStore
from synque_select.selection.surrogate import MIN_HELD_OUT, check_held_out
from synque_select.training.bookkeeping import store_record
from synque_select.training.comparability import (
    comparability_key,
    content_sha256,
    weights_sha256,
)
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import Measured, package_versions, train_and_measure
from synque_select.types import Mixture, Ranking, RunKind, RunRecord
from synque_select.utils.json_types import JsonObject
from synque_select.utils.process_state import seeded
from synque_select.utils.wording import counted, percent

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["Fit", "FitStore", "Outcome", "PlannedFit", "shares"]


@dataclass(frozen=True)
class Fit:
    """Everything that distinguishes one fit of a task from another.

    Args:
        mixture: What to train on; the candidates, if nothing is trained.
        seed: Random seed of the initial weights and of the order of the examples.
        max_steps: Number of optimizer steps; 0 to measure the model as it is.
        n_distinct: Number of distinct examples; None for all examples of the candidates.
        policy: How a policy changes the mixture during the fit; None for a static mixture.
        sampling: How it draws from the mixture; None for examples in random order.
    """

    mixture: Mixture
    seed: int
    max_steps: int
    n_distinct: int | None
    policy: PolicyRun | None = None
    sampling: SamplingRun | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a fit.

    Args:
        metrics: Every validation and test metric at the end of the budget.
        seconds: Wall time of training and measuring.
        reused: Whether the fit had finished before.
        error: Why the model could not be measured before a fit; None if it was measured.
    """

    metrics: Mapping[str, float]
    seconds: float
    reused: bool
    error: str | None = None


@dataclass(frozen=True)
class PlannedFit:
    """A fit, and what its run records say of it.

    Args:
        fit: What to train.
        kind: Kind of the run records.
        rankings: One record is kept per ranking, with the scores of its proxies.
    """

    fit: Fit
    kind: RunKind
    rankings: Sequence[Ranking]


def shares(mixture: Mixture, n: int) -> dict[str, int]:
    """Split n examples by the weights, by largest remainder, with at least two each.

    What a share lacks to two is taken from the largest one.

    Example:
        >>> shares(Mixture.equal(["a", "b", "c"]), 100)
        {'a': 34, 'b': 33, 'c': 33}
    """
    exact = {name: weight * n for name, weight in mixture.weights.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    # the sort is stable, so equal remainders are rounded up in the order of the mixture
    by_remainder = sorted(exact, key=lambda name: counts[name] - round(exact[name], 6))
    for name in by_remainder[: n - sum(counts.values())]:
        counts[name] += 1
    for name in counts:
        lack = max(0, 2 - counts[name])
        largest = max(counts, key=lambda other: counts[other])
        counts[largest] -= lack
        counts[name] += lack
    return counts


class FitStore:
    """Runs the fits of one task, and keeps them as run records so that none runs twice.

    As a context manager, it ends its processes.

    Args:
        task: The task.
        store: Where finished fits are looked up and kept.
        n_workers: Number of fits that are trained at the same time, each in a process of its own;
            with 1, this process trains.
        executor: Where to train instead; None for `n_workers`.
        cache_dir: Directory of cached embeddings; None for the default one.
    """

    def __init__(
        self,
        task: BaseTask,
        store: RunStore,
        n_workers: int = 1,
        executor: Executor | None = None,
        *,
        cache_dir: str | Path | None = None,
    ) -> None:
        self._task = task
        self._store = store
        self._training = _Training(task, cache_dir)
        self._pool: WorkerPool[Fit, Outcome] = WorkerPool(
            self._training,
            n_workers,
            name_of=_words,
            package=package_of(task.datamodule_class) or "pytorch_lightning",
            executor=executor,
        )
        self._sha256 = {candidate.name: candidate.sha256 for candidate in task.candidates}
        self._weights: dict[int, str] = {}
        self._finished: dict[str, Outcome] = {}
        self._written: set[str] = set()
        for record in store.read():
            if "fit" in record.details:
                outcome = Outcome(record.metrics, record.details["seconds"], reused=True)
                self._finished[record.details["fit"]] = outcome
                self._written.add(record.run_id)

    def __enter__(self) -> FitStore:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, _)

    def check_held_out(self, fit: Fit) -> None:
        """Refuse a fit whose policy would hold out too few examples, before anything is trained.

        Raises:
            ConfigError: Fewer than 5 distinct examples of a candidate would be held out.
        """
        policy = fit.policy
        if policy is None or not policy.holds_out:
            return
        for part in self._training.parts(fit):
            try:
                check_held_out(part, HELD_OUT, seed=policy.real)
            except DataError as error:
                n = counted(len(part), "example")
                raise ConfigError(
                    f"the policy {policy.policy!r} needs {MIN_HELD_OUT} distinct held-out examples "
                    f"of each candidate; {percent(HELD_OUT)} of the {n} of {part.name} that it "
                    "draws from are fewer: raise n_distinct of the task, start from fewer "
                    "candidates (policy_start: chosen), or leave it out"
                ) from error

    def run(self, fit: Fit, kind: RunKind, rankings: Sequence[Ranking]) -> Outcome:
        """Return the outcome of a fit, which is trained unless it has finished before.

        Args:
            fit: What to train.
            kind: Kind of the run records.
            rankings: One record is kept per ranking, with the scores of its proxies.

        Raises:
            LightningError: The module does not log the task's metric, or training ended early.
        """
        ((_, outcome),) = self.run_all([PlannedFit(fit, kind, rankings)])
        return outcome

    def run_all(self, planned: Iterable[PlannedFit]) -> Iterator[tuple[PlannedFit, Outcome]]:
        """Yield each fit with its outcome, as they finish; see `run`.

        A planned fit is only taken when there is a process to train it.

        Raises:
            LightningError: A fit failed; those that had finished are in the store.
        """
        waiting: dict[str, list[PlannedFit]] = {}
        known: list[tuple[PlannedFit, Outcome]] = []

        def unfinished() -> Iterator[Fit]:
            for one in planned:
                fit_id = self._fit_id(one.fit)
                if fit_id in self._finished:
                    known.append((one, self._finished[fit_id]))
                else:
                    waiting.setdefault(fit_id, []).append(one)
                    if len(waiting[fit_id]) == 1:
                        yield one.fit

        for fit, outcome in self._pool.map(unfinished()):
            fit_id = self._fit_id(fit)
            again = replace(outcome, reused=True)
            if outcome.error is None:
                self._finished[fit_id] = again
            first, *others = waiting.pop(fit_id)
            known += [(first, outcome), *((one, again) for one in others)]
            yield from self._kept(known)
        yield from self._kept(known)

    def _kept(
        self, finished: list[tuple[PlannedFit, Outcome]]
    ) -> Iterator[tuple[PlannedFit, Outcome]]:
        """Write the records of finished fits, and empty the list."""
        while finished:
            planned, outcome = finished.pop(0)
            for ranking in planned.rankings if outcome.error is None else ():
                record = self.record(planned.fit, planned.kind, ranking, outcome)
                if record.run_id not in self._written:
                    store_record(self._store, record)
                    self._written.add(record.run_id)
            yield planned, outcome

    def record(self, fit: Fit, kind: RunKind, ranking: Ranking, outcome: Outcome) -> RunRecord:
        """Return the run record of a fit under one real sample."""
        task, fit_id = self._task, self._fit_id(fit)
        key = comparability_key(
            task=task.name,
            validation=content_sha256([task.validation.sha256, task.test.sha256]),
            monitor=f"test_{task.metric}",
            mode=task.mode,
            model=self._model_class,
            # seeds are averaged within a key, so all of them share the weights of seed 0 in it
            weights=self._weights_of(0),
            examples_drawn=fit.max_steps * task.batch_size,
            optimizer_steps=fit.max_steps,
            # the values of a fingerprint are plain, as its contract says
            hyper_parameters=cast(
                "JsonObject",
                {
                    **self._fingerprint,
                    "n_distinct": fit.n_distinct,
                    **({} if fit.policy is None else {"policy": fit.policy.key(task)}),
                },
            ),
            ranking=ranking,
            sampling=None if fit.sampling is None else fit.sampling.description,
        )
        record = RunRecord.of(
            ranking,
            fit.mixture,
            run_id=content_sha256([fit_id, key])[:32],
            kind=kind,
            key=key,
            scores=_scores(ranking, fit.mixture),
            metrics=outcome.metrics,
            monitor=f"test_{task.metric}",
            mode=task.mode,
            seed=fit.seed,
            details={
                "fit": fit_id,
                "seconds": outcome.seconds,
                **({} if fit.max_steps else {UNTRAINED: True}),
            },
        )
        return replace(record, orientation={**record.orientation, "consensus": False})

    def _model(self, seed: int) -> AnyModule:
        with seeded(seed):
            return self._task.model(seed)

    @cached_property
    def _model_class(self) -> type[AnyModule]:
        # once, and not for every record: to build a model may take seconds
        return type(self._model(0))

    def _weights_of(self, seed: int) -> str:
        if seed not in self._weights:
            self._weights[seed] = weights_sha256(self._model(seed))
        return self._weights[seed]

    @cached_property
    def _fingerprint(self) -> Mapping[str, object]:
        # once: a task may build a model to know its hyper-parameters
        return self._task.fingerprint()

    def _fit_id(self, fit: Fit) -> str:
        task = self._task
        return content_sha256(
            [
                task.name,
                self._fingerprint,
                task.validation.sha256,
                task.test.sha256,
                task.batch_size,
                sorted((n, w, self._sha256[n]) for n, w in fit.mixture.weights.items()),
                self._weights_of(fit.seed),
                [fit.seed, fit.max_steps, fit.n_distinct],
                package_versions(task.datamodule_class),
                # nothing is added to a static fit, so that those of earlier versions are found
                *([] if fit.policy is None else [fit.policy.key(task)]),
                *([] if fit.sampling is None else [fit.sampling.key(task)]),
            ]
        )[:32]


@dataclass(frozen=True)
class _Training:
    """Trains and measures the fits of a task."""

    task: BaseTask
    cache_dir: str | Path | None

    def __call__(self, fit: Fit) -> Outcome:
        try:
            return self._trained(fit)
        except Exception as error:
            if fit.max_steps:
                raise
            # whatever a module of the user raises before it is trained
            return Outcome({}, 0.0, reused=False, error=f"{type(error).__name__}: {error}")

    def _trained(self, fit: Fit) -> Outcome:
        task, started = self.task, time.perf_counter()
        # fits of an experiment are too small for several processes
        options = {"devices": 1, **task.trainer_options()}
        with seeded(fit.seed):
            module = task.model(fit.seed)
            measured = self._measured(fit, module, options)
        for name in (f"val_{task.metric}", f"test_{task.metric}"):
            if name not in measured.metrics:
                raise LightningError(
                    f"{type(module).__name__} does not log {name!r}; logged: "
                    f"{sorted(measured.metrics)}"
                )
        return Outcome(measured.metrics, time.perf_counter() - started, reused=False)

    def _measured(self, fit: Fit, module: AnyModule, options: Mapping[str, Any]) -> Measured:
        parts, mixture = self.parts(fit), _realized(fit)
        if fit.policy is None:
            sampling = {} if fit.sampling is None else fit.sampling.datamodule_options(self.task)
            data = self.task.datamodule(parts, mixture, seed=fit.seed, **sampling)
            stages: tuple[Literal["validate", "test"], ...] = ("validate", "test")
            return train_and_measure(module, data, fit.max_steps, options, stages=stages)
        return train_with_policy(
            self.task,
            fit.policy,
            parts,
            mixture,
            module=module,
            max_steps=fit.max_steps,
            options=options,
            cache_dir=self.cache_dir,
        )

    @cached_property
    def _candidates(self) -> dict[str, Candidate]:
        return {candidate.name: candidate for candidate in self.task.candidates}

    def parts(self, fit: Fit) -> list[Candidate]:
        """Return the examples that a fit may draw, by candidate."""
        chosen = [self._candidates[name] for name in fit.mixture.names]
        if fit.n_distinct is None:
            return chosen
        counts = shares(fit.mixture, fit.n_distinct)
        if fit.policy is not None and fit.policy.holds_out:
            # others take the place of those that are held out, so that as many are trained on
            counts = {name: math.ceil(n / (1 - HELD_OUT)) for name, n in counts.items()}
        parts = [sized(c, counts[c.name], seed=fit.seed) for c in chosen]
        if fit.sampling is None:
            return parts
        at = [sized_positions(len(c), counts[c.name], seed=fit.seed) for c in chosen]
        return fit.sampling.scored(self.task, parts, at, cache_dir=self.cache_dir)


def _words(fit: Fit) -> str:
    """Name a fit in an error message."""
    policy = "" if fit.policy is None else f", with the policy {fit.policy.policy}"
    sampling = "" if fit.sampling is None else f", sampled by {fit.sampling.sampling}"
    return f"the fit on {', '.join(fit.mixture.names)} (seed {fit.seed}){policy}{sampling}"


def _realized(fit: Fit) -> Mixture:
    """Return the mixture with the weights that the rounded counts of examples have."""
    if fit.n_distinct is None:
        return fit.mixture
    counts = shares(fit.mixture, fit.n_distinct)
    total = sum(counts.values())
    return Mixture({name: n / total for name, n in counts.items()}, fit.mixture.source)


def _scores(ranking: Ranking, mixture: Mixture) -> dict[str, float]:
    """Return the scores of a candidate alone; a mixture as a whole has none."""
    if len(mixture.weights) > 1:
        return {}
    row = ranking[mixture.names[0]]
    scores = {key: score.value for key, score in row.scores.items()}
    return scores | ({"consensus": row.ranks["consensus"]} if "consensus" in row.ranks else {})
