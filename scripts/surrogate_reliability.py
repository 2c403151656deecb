"""How well surrogate validation agrees with labels, on a recipe; docs/tuning.md has the results.

For each seed (a real sample, initial weights, a draw of the surrogate set) the model is trained on
every candidate alone, and on the mixtures of two searches of equal size: one by the surrogate, one
by labeled validation data. Every fit is measured on both, and on the test data, by which nothing is
chosen. Options after the config, such as `--task.fit.max_steps 40`, override it. With `--fits`,
finished fits are kept in a file, and a run that was stopped continues.

    python scripts/surrogate_reliability.py digits --seeds 3 --random 8 --trials 14
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from synque_select.cli import experiment
from synque_select.cli.options import packaged_config
from synque_select.experiment import BaseTask, TaskDataModule
from synque_select.functional.correlation import Correlation, correlate_scores
from synque_select.selection.scorer import Scorer
from synque_select.training.comparability import content_sha256
from synque_select.training.short_fit import train_and_measure
from synque_select.training.surrogate import SurrogateOptions
from synque_select.tuning import MixtureSpace, starting_mixtures
from synque_select.tuning.search import search_mixtures
from synque_select.types import Mixture, Ranking, surrogate_name
from synque_select.utils.process_state import seeded

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """The metric that a surrogate is asked to predict."""

    name: str
    mode: Literal["max", "min"]

    @property
    def names(self) -> tuple[str, str, str]:
        """Its names on surrogate, labeled validation and test data."""
        return surrogate_name(f"val_{self.name}"), f"val_{self.name}", f"test_{self.name}"

    def best(self, rows: Sequence[Metrics], name: str) -> Metrics:
        """Return the row with the best value of a metric; the mean of rows with the same value."""
        top = (max if self.mode == "max" else min)(row[name] for row in rows)
        tied = [row for row in rows if row[name] == top]
        return {name: fmean(row[name] for row in tied) for name in self.names}

    def correlation(self, rows: Sequence[Metrics], to: str) -> Correlation:
        """Correlate the surrogate with a metric."""
        scores, labels = ([row[name] for row in rows] for name in (self.names[0], to))
        return correlate_scores(scores, labels, higher_is_better=self.mode == "max", mode=self.mode)


@dataclass
class Replicate:
    """The fits of one seed; each mixture is trained once."""

    task: BaseTask
    seed: int
    size: int
    file: Path | None
    fits: dict[str, Metrics] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            self.fits = dict(map(json.loads, self.file.read_text().splitlines()))

    @cached_property
    def data(self) -> TaskDataModule:
        """The task's data, with the surrogate set drawn."""
        options = SurrogateOptions(size=self.size, seed=self.seed)
        data = TaskDataModule(self.task, replicate=self.seed, seed=self.seed, val=options)
        data.setup("fit")
        return data

    @cached_property
    def ranking(self) -> Ranking:
        """The consensus ranking, for the mixtures that a search starts with."""
        scorer = Scorer(encoder=self.task.encoder, top_k=3, seed=self.seed, progress=False)
        return scorer.rank(self.task.candidates, self.task.real_sample(self.seed))

    def metrics(self, mixture: Mixture) -> Metrics:
        """Train on a mixture, and return its metrics on surrogate, validation and test data."""
        made_with = [dict(self.task.fingerprint()), self.task.max_steps, self.task.n_distinct]
        key = content_sha256([made_with, self.seed, self.size, sorted(mixture.weights.items())])
        if key not in self.fits:
            options = {"devices": 1, **self.task.trainer_options()}
            with seeded(self.seed):
                module, data = self.task.model(self.seed), self.data.with_mixture(mixture)
                measured = train_and_measure(
                    module, data, self.task.max_steps, options, ("validate", "test")
                )
            self.fits[key] = {n: v for n, v in measured.metrics.items() if "_of_" not in n}
            if self.file is not None:
                with self.file.open("a") as file:
                    file.write(json.dumps([key, self.fits[key]]) + "\n")
            shown = {name: round(value, 4) for name, value in self.fits[key].items()}
            print(f"  seed {self.seed}, {mixture.names}: {shown}", file=sys.stderr, flush=True)
        return self.fits[key]

    def search(
        self, metric: Metric, name: str, given: argparse.Namespace
    ) -> tuple[int, list[Mixture]]:
        """Return the mixtures of a search by a metric, and how many of them are starts."""
        names = tuple(row.name for row in self.ranking.order())
        space = MixtureSpace(names, (given.k or 1, given.k or len(names)))
        # the ranking's top 3 and all candidates, if the space has them
        starts = dict(list(starting_mixtures(self.ranking, space).items())[:2])
        trials = search_mixtures(
            lambda mixture: self.metrics(mixture)[name],
            space,
            n_trials=given.trials,
            mode=metric.mode,
            starts=starts,
            n_startup=given.random,
            seed=self.seed,
        )
        return len(starts), [mixture for mixture, _ in trials]


def main() -> None:
    """Run the fits and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="name of a packaged config of `synque-select experiment`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1000, help="examples of the surrogate set")
    parser.add_argument("--random", type=int, default=8, help="random mixtures per seed")
    parser.add_argument("--trials", type=int, default=14, help="trials of each search; 0 for none")
    parser.add_argument("--k", type=int, help="candidates per mixture; no single ones then")
    parser.add_argument("--metric", help="without val_ and test_; the default is the task's")
    parser.add_argument("--mode", choices=("max", "min"), help="of that metric")
    parser.add_argument("--fits", type=Path, help="file of finished fits")
    given, overrides = parser.parse_known_args()
    task = task_of(given.config, overrides)
    metric = Metric(given.metric or task.metric, given.mode or task.mode)
    replicates = [Replicate(task, seed, given.size, given.fits) for seed in range(given.seeds)]
    if given.k is None:
        singles = [Mixture.equal([candidate.name]) for candidate in task.candidates]
        rows = [[r.metrics(mixture) for mixture in singles] for r in replicates]
        _report_candidates(task, metric, rows)
    if given.trials:
        _report_trials(metric, replicates, given)


def task_of(config: str, overrides: Sequence[str]) -> BaseTask:
    """Return the task of a packaged config, with options that override it."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    experiment.arguments(parser)
    options = parser.parse_args(["--config", str(packaged_config(config)), *overrides])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    task: BaseTask = instantiate(options).task
    return task


def _spread(values: Sequence[float]) -> str:
    std = stdev(values) if len(values) > 1 else math.nan
    return f"{fmean(values):.3f} (std {std:.3f}, n = {len(values)})"


def _report_candidates(task: BaseTask, metric: Metric, rows: Sequence[Sequence[Metrics]]) -> None:
    surrogate, validation, test = metric.names
    means = [
        {name: fmean(row[k][name] for row in rows) for name in (surrogate, validation, test)}
        for k in range(len(task.candidates))
    ]
    print(f"{len(means)} candidates alone, means over {len(rows)} seeds:")
    for candidate, mean in zip(task.candidates, means, strict=True):
        print("  ", candidate.name, json.dumps({n: round(v, 4) for n, v in mean.items()}))
    for to in (validation, test):
        one = metric.correlation(means, to).spearman
        within = [metric.correlation(row, to).spearman.value for row in rows]
        print(
            f"Spearman of the surrogate with {to}: {one.value:+.2f} [{one.low}, {one.high}] "
            f"over means; within seeds {_spread(within)}"
        )
    for candidate, twin in task.false_labels.items():
        places = [[c.name for c in task.candidates].index(name) for name in (candidate, twin)]
        sign = -1 if metric.mode == "max" else 1
        behind = sum(
            sign * row[places[0]][surrogate] > sign * row[places[1]][surrogate] for row in rows
        )
        print(f"{candidate} is behind its clean twin {twin} in {behind} of {len(rows)} seeds")
    for what, name in (("surrogate", surrogate), ("labeled validation", validation)):
        chosen = [metric.best(row, name)[test] for row in rows]
        print(f"{test} of the candidate chosen by {what}: {_spread(chosen)}")
    print(f"{test} of a random candidate: {_spread([fmean(m[test] for m in row) for row in rows])}")


def _report_trials(
    metric: Metric, replicates: Sequence[Replicate], given: argparse.Namespace
) -> None:
    surrogate, validation, test = metric.names
    within: dict[str, list[float]] = {validation: [], test: []}
    chosen: dict[str, list[float]] = {}
    for replicate in replicates:
        for name in (surrogate, validation):
            n_starts, mixtures = replicate.search(metric, name, given)
            rows = [replicate.metrics(mixture) for mixture in mixtures]
            figure = metric.best(rows, name)[test]
            chosen.setdefault(f"the mixture tuned by {name}", []).append(figure)
        # the starts and the random trials of both searches are the same
        sampled = rows[n_starts : n_starts + given.random]
        for to, values in within.items():
            values += [metric.correlation(sampled, to).spearman.value] if sampled else []
        for mixture, row in zip(mixtures[:n_starts], rows, strict=False):
            k = len(mixture.names)
            chosen.setdefault(f"the start of {k} candidates", []).append(row[test])
        if sampled:
            chosen.setdefault("a random mixture", []).append(fmean(row[test] for row in sampled))
    for to, values in within.items() if given.random else ():
        print(f"Spearman with {to}, {given.random} random trials within seeds: {_spread(values)}")
    for what, figures in chosen.items():
        print(f"{test} of {what}, {given.trials} trials: {_spread(figures)}")


if __name__ == "__main__":
    main()
