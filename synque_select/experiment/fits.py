"""The fits of an experiment; a fit that has finished is taken from the run store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from synque_select.data.candidate import Candidate
from synque_select.errors import LightningError
from synque_select.experiment.task import BaseTask, sized
from synque_select.records.correlation import UNTRAINED
from synque_select.records.store import RunStore
from synque_select.training.bookkeeping import store_record
from synque_select.training.comparability import (
    comparability_key,
    content_sha256,
    weights_sha256,
)
from synque_select.training.short_fit import package_versions, train_and_measure
from synque_select.types import Mixture, Ranking, RunKind, RunRecord
from synque_select.utils.json_types import JsonObject
from synque_select.utils.process_state import seeded

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["Fit", "FitStore", "Outcome", "shares"]


@dataclass(frozen=True)
class Fit:
    """Everything that distinguishes one fit of a task from another.

    Args:
        mixture: What to train on; the candidates, if nothing is trained.
        seed: Random seed of the initial weights and of the order of the examples.
        max_steps: Number of optimizer steps; 0 to measure the model as it is.
        n_distinct: Number of distinct examples; None for all examples of the candidates.
    """

    mixture: Mixture
    seed: int
    max_steps: int
    n_distinct: int | None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a fit.

    Args:
        metrics: Every validation and test metric at the end of the budget.
        seconds: Wall time of training and measuring.
        reused: Whether the fit had finished before.
    """

    metrics: Mapping[str, float]
    seconds: float
    reused: bool


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

    Args:
        task: The task.
        store: Where finished fits are looked up and kept.
    """

    def __init__(self, task: BaseTask, store: RunStore) -> None:
        self._task = task
        self._store = store
        self._candidates = {candidate.name: candidate for candidate in task.candidates}
        self._sha256 = {name: c.sha256 for name, c in self._candidates.items()}
        self._weights: dict[int, str] = {}
        self._finished: dict[str, Outcome] = {}
        self._written: set[str] = set()
        for record in store.read():
            if "fit" in record.details:
                outcome = Outcome(record.metrics, record.details["seconds"], reused=True)
                self._finished[record.details["fit"]] = outcome
                self._written.add(record.run_id)

    def run(self, fit: Fit, kind: RunKind, rankings: Sequence[Ranking]) -> Outcome:
        """Return the outcome of a fit, which is trained unless it has finished before.

        Args:
            fit: What to train.
            kind: Kind of the run records.
            rankings: One record is kept per ranking, with the scores of its proxies.

        Raises:
            LightningError: The module does not log the task's metric, or training ended early.
        """
        fit_id = self._fit_id(fit)
        outcome = self._finished.get(fit_id)
        if outcome is None:
            outcome = self._train(fit)
            self._finished[fit_id] = Outcome(outcome.metrics, outcome.seconds, reused=True)
        for ranking in rankings:
            record = self.record(fit, kind, ranking, outcome)
            if record.run_id not in self._written:
                store_record(self._store, record)
                self._written.add(record.run_id)
        return outcome

    def record(self, fit: Fit, kind: RunKind, ranking: Ranking, outcome: Outcome) -> RunRecord:
        """Return the run record of a fit under one real sample."""
        task, fit_id = self._task, self._fit_id(fit)
        key = comparability_key(
            task=task.name,
            validation=content_sha256([task.validation.sha256, task.test.sha256]),
            monitor=f"test_{task.metric}",
            mode=task.mode,
            model=type(self._model(0)),
            # seeds are averaged within a key, so all of them share the weights of seed 0 in it
            weights=self._weights_of(0),
            examples_drawn=fit.max_steps * task.batch_size,
            optimizer_steps=fit.max_steps,
            # the values of a fingerprint are plain, as its contract says
            hyper_parameters=cast(
                "JsonObject", {**task.fingerprint(), "n_distinct": fit.n_distinct}
            ),
            ranking=ranking,
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

    def _train(self, fit: Fit) -> Outcome:
        task, started = self._task, time.perf_counter()
        # fits of an experiment are too small for several processes
        options = {"devices": 1, **task.trainer_options()}
        with seeded(fit.seed):
            module = task.model(fit.seed)
            data = task.datamodule(self._parts(fit), _realized(fit), seed=fit.seed)
            measured = train_and_measure(
                module, data, fit.max_steps, options, stages=("validate", "test")
            )
        for name in (f"val_{task.metric}", f"test_{task.metric}"):
            if name not in measured.metrics:
                raise LightningError(
                    f"{type(module).__name__} does not log {name!r}; logged: "
                    f"{sorted(measured.metrics)}"
                )
        return Outcome(measured.metrics, time.perf_counter() - started, reused=False)

    def _parts(self, fit: Fit) -> list[Candidate]:
        chosen = [self._candidates[name] for name in fit.mixture.names]
        if fit.n_distinct is None:
            return chosen
        counts = shares(fit.mixture, fit.n_distinct)
        return [sized(c, counts[c.name], seed=fit.seed) for c in chosen]

    def _model(self, seed: int) -> AnyModule:
        with seeded(seed):
            return self._task.model(seed)

    def _weights_of(self, seed: int) -> str:
        if seed not in self._weights:
            self._weights[seed] = weights_sha256(self._model(seed))
        return self._weights[seed]

    def _fit_id(self, fit: Fit) -> str:
        task = self._task
        return content_sha256(
            [
                task.name,
                task.fingerprint(),
                task.validation.sha256,
                task.test.sha256,
                task.batch_size,
                sorted((n, w, self._sha256[n]) for n, w in fit.mixture.weights.items()),
                self._weights_of(fit.seed),
                [fit.seed, fit.max_steps, fit.n_distinct],
                package_versions(task.datamodule_class),
            ]
        )[:32]


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
