"""How well influence predicts what happens when candidates are left out; docs/influence.md.

On a recipe, for each seed (a real sample, initial weights, a fit): the influence of each candidate,
in four forms; the fit on all candidates, on all but one, on each alone (a probe), and on random
halves of the candidates, all with the same number of steps. What influence predicts for a half is
the mean over its candidates; the linear datamodeling score (LDS; TRAK, arXiv 2303.14186, section 4)
is the Spearman correlation of that with the test loss, over the halves. Figures are averaged over
seeds first, and the units of the intervals are halves, or candidates left out: they hold for these
candidates and seeds. Finished work is in the directory `--root`, and a run that was stopped
continues; `--write` writes the table of the page.

    python -m scripts.influence_check digits --seeds 3 --halves 24 --write
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader

from scripts.docs_tables import ROOT, write_between
from scripts.surrogate_reliability import task_of
from synque_select.experiment import BaseTask, TaskDataModule
from synque_select.experiment.task import Transformed
from synque_select.functional.benchmark_statistics import (
    Estimate,
    GroupJackknife,
    agreement,
    stratified_jackknife,
)
from synque_select.functional.correlation import Coefficient, correlate_scores
from synque_select.probing.influence import InfluenceOptions, measure_influence
from synque_select.training.comparability import content_sha256, module_sha256
from synque_select.training.module_state import unchanged_module
from synque_select.training.short_fit import train_and_measure
from synque_select.training.surrogate import SurrogateOptions
from synque_select.types import Mixture
from synque_select.utils.process_state import seeded
from synque_select.utils.wording import counted

PAGE = ROOT / "docs" / "influence.md"
FORMS = {
    "labeled, unit length": (False, True),
    "labeled, lengths as they are": (False, False),
    "surrogate, unit length": (True, True),
    "surrogate, lengths as they are": (True, False),
}
PROBES = "K probes"
Rows = Sequence[Sequence[float]]  # per seed, a figure of each unit: a half, or what is left out


@dataclass
class Work:
    """Results by key, in a file with one line per result."""

    file: Path
    results: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                with suppress(ValueError):  # a line that was cut by a kill is computed again
                    key, result = json.loads(line)
                    self.results[key] = result

    def keep(self, key: str, result: dict[str, float], what: str) -> dict[str, float]:
        """Keep a result, and show it."""
        self.results[key] = result
        with self.file.open("a") as file:
            file.write("\n" + json.dumps([key, result]))  # the line before may have been cut
        shown = {name: round(value, 4) for name, value in result.items()}
        print(f"  {what}: {shown}", file=sys.stderr, flush=True)
        return result


@dataclass
class Replicate:
    """The fits and influences of one seed."""

    task: BaseTask
    seed: int
    work: Work

    @cached_property
    def data(self) -> TaskDataModule:
        """The task's data, with labeled validation data."""
        data = TaskDataModule(self.task, replicate=self.seed, seed=self.seed)
        data.setup("fit")
        _ = data.mixture_loader().dataset[0]  # features that the task computes once are not timed
        return data

    def _key(self, *parts: object) -> str:
        return content_sha256([self._made_with, self.seed, *parts])

    @cached_property
    def _made_with(self) -> str:
        task = self.task
        module = module_sha256(self._model())
        return content_sha256([dict(task.fingerprint()), module, task.max_steps, task.n_distinct])

    def _model(self) -> LightningModule:
        with seeded(self.seed):  # all fits and influences of a seed begin with the same weights
            return self.task.model(self.seed)

    def _options(self) -> dict[str, object]:
        return {"devices": 1, "accelerator": "cpu", **self.task.trainer_options()}

    def fit(self, names: Sequence[str]) -> dict[str, float]:
        """Train on candidates in equal shares: metrics, test loss, processor seconds."""
        key = self._key("fit", sorted(names))
        if key in self.work.results:
            return self.work.results[key]
        mine = self.data
        started = time.process_time()
        with seeded(self.seed):
            module = self.task.model(self.seed)
            data = mine.with_mixture(Mixture.equal(sorted(names)))
            measured = train_and_measure(
                module, data, self.task.max_steps, self._options(), ("validate",)
            )
            seconds = time.process_time() - started
            metrics = {**measured.metrics, "test_loss": self._test_loss(module)}
        what = f"seed {self.seed}, {len(names)} candidates"
        return self.work.keep(key, {**metrics, "seconds": seconds}, what)

    def _test_loss(self, module: LightningModule) -> float:
        test = Transformed(self.task.test, self.task.transform)
        loader = DataLoader(test, batch_size=256, collate_fn=self.task.collate_fn)
        total = 0.0
        with unchanged_module(module.trainer, module, self.seed):  # also without gradients
            for batch in loader:
                total += float(module.training_step(batch, 0)) * len(batch["label"])
        return total / len(test)

    def influence(self, form: str) -> dict[str, float]:
        """Return the influence of each candidate, and "seconds" with an empty cache."""
        is_surrogate, _ = FORMS[form]
        key = self._key("influence", form)
        if key in self.work.results:
            return self.work.results[key]
        val = SurrogateOptions(seed=self.seed) if is_surrogate else None
        data = TaskDataModule(self.task, replicate=self.seed, seed=self.seed, val=val)
        data.setup("fit")  # the embeddings that it needs are not part of the cost
        seconds = None
        with TemporaryDirectory() as folder:  # so that the cost is that of all of the work
            for other, (needs_surrogate, unit_length) in FORMS.items():
                if needs_surrogate != is_surrogate:
                    continue
                result = measure_influence(
                    self._model(),
                    data,
                    max_steps=self.task.max_steps,
                    options=InfluenceOptions(seed=self.seed, unit_length=unit_length),
                    trainer_options=self._options(),
                    cache_dir=folder,
                    progress=False,
                )
                # the second form uses the gradients of the first one, and alone costs the same
                seconds = result.seconds if seconds is None else seconds
                values = {**result.values, "seconds": seconds}
                what = f"seed {self.seed}, {other}"
                self.work.keep(self._key("influence", other), values, what)
        return self.work.results[key]


def halves(names: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return n distinct random halves of the candidates, the same for all seeds."""
    generator = np.random.default_rng(0)
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < n:
        chosen = generator.choice(len(names), len(names) // 2, replace=False)
        drawn[tuple(sorted(names[int(i)] for i in chosen))] = None
    return list(drawn)


def mean_of(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the mean of a figure over seeds."""
    return fmean(row[name] for row in rows)


def over_seeds(rows: Rows) -> NDArray[np.float64]:
    """Return the mean over the seeds of each unit's figure."""
    return np.mean(np.asarray(rows, dtype=np.float64), axis=0)


def lead(predicted: Rows, rival: Rows, losses: Rows) -> Estimate:
    """Return how much better than a rival predictions correlate with losses, from paired units."""
    first, second, loss = map(over_seeds, (predicted, rival, losses))

    def difference(kept: NDArray[np.int64]) -> float:
        return agreement(first[kept], -loss[kept])[1] - agreement(second[kept], -loss[kept])[1]

    units = np.arange(len(loss))
    deleted = np.array([difference(np.delete(units, i)) for i in units])
    return stratified_jackknife([GroupJackknife(difference(units), deleted)])


@dataclass(frozen=True)
class Study:
    """All fits and influences of a recipe."""

    config: str
    task: BaseTask
    replicates: Sequence[Replicate]
    n_halves: int

    @cached_property
    def names(self) -> list[str]:
        """The names of the candidates."""
        return [candidate.name for candidate in self.task.candidates]

    @cached_property
    def predictors(self) -> dict[str, list[dict[str, float]]]:
        """For each predictor and seed, a figure of each candidate, and the processor seconds."""
        forms = {form: [r.influence(form) for r in self.replicates] for form in FORMS}
        metric, sign = f"val_{self.task.metric}", 1 if self.task.mode == "max" else -1
        forms[PROBES] = []
        for replicate in self.replicates:
            fits = {name: replicate.fit([name]) for name in self.names}
            figures = {name: sign * fit[metric] for name, fit in fits.items()}
            seconds = sum(fit["seconds"] for fit in fits.values())
            forms[PROBES].append({**figures, "seconds": seconds})
        return forms

    def losses(self, subsets: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the test loss after training on each subset, per seed."""
        return [[r.fit(subset)["test_loss"] for subset in subsets] for r in self.replicates]

    def lines(self) -> list[str]:
        """Return the table."""
        chosen = halves(self.names, self.n_halves)
        without = [[n for n in self.names if n != left_out] for left_out in self.names]
        by_half, left_out = self.losses(chosen), self.losses(without)
        whole = [r.fit(self.names)["test_loss"] for r in self.replicates]
        # a useful candidate is missed: leaving it out raises the loss
        gains = [[all_ - one for one in row] for row, all_ in zip(left_out, whole, strict=True)]
        of_halves = {
            form: [[fmean(row[n] for n in half) for half in chosen] for row in figures]
            for form, figures in self.predictors.items()
        }
        alone = {
            form: [[row[n] for n in self.names] for row in figures]
            for form, figures in self.predictors.items()
        }
        lines = []
        for form, figures in self.predictors.items():
            cells = [*_cells(of_halves, form, by_half), *_cells(alone, form, gains)]
            cells.append(f"{mean_of(figures, 'seconds'):.0f}")
            lines.append(f"| {form} | {' | '.join(cells)} |")
        return lines

    def text(self) -> str:
        """Return the section of the page."""
        k, n_seeds = len(self.names), len(self.replicates)
        one_fit = mean_of(self.predictors[PROBES], "seconds") / k
        return "\n".join(
            [
                f"`{self.config}`: {k} candidates, {self.task.max_steps} steps per fit, "
                f"{counted(n_seeds, 'seed')} (a seed has a real sample, initial weights and an "
                f"order of examples of its own); test loss on {len(self.task.test):,} labeled real "
                "examples. Predictions and losses are averaged over the seeds, then correlated "
                f"(Spearman): over n = {self.n_halves} random halves of the candidates (LDS), over "
                f"n = {k} candidates for leaving one out. Brackets are 95 % intervals over the "
                "halves or candidates, for these candidates and seeds; the difference from the K "
                "probes has a paired jackknife interval. Within seeds: mean and standard deviation "
                "of the correlations of single seeds. Processor seconds per seed, of one thread; "
                f"one fit takes {one_fit:.1f}.",
                "",
                "| predictor | LDS | minus K probes | within seeds | leaving one out "
                "| minus K probes | within seeds | processor seconds |",
                "| --- | --- | --- | --- | --- | --- | --- | --: |",
                *self.lines(),
            ]
        )


def _cells(predicted: Mapping[str, Rows], form: str, losses: Rows) -> list[str]:
    """Return the correlation, the difference from that of the probes, and those within seeds."""
    mine = predicted[form]
    whole = correlate_scores(
        over_seeds(mine), over_seeds(losses), higher_is_better=True, mode="min"
    ).spearman
    within = [agreement(p, np.negative(loss))[1] for p, loss in zip(mine, losses, strict=True)]
    spread = f"{within[0]:+.2f}"
    if len(within) > 1:
        spread = f"{fmean(within):+.2f} ± {stdev(within):.2f}"
    ahead = "" if form == PROBES else _interval(lead(mine, predicted[PROBES], losses))
    return [_interval(whole), ahead, spread]


def _interval(figure: Coefficient | Estimate) -> str:
    return f"{figure.value:+.2f} [{figure.low:+.2f}, {figure.high:+.2f}]"


def main() -> None:
    """Run what is not finished, and print or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="name of a packaged config of `synque-select experiment`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--halves", type=int, default=24)
    parser.add_argument("--root", type=Path, default=Path("runs/influence"))
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    given, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    task = task_of(given.config, overrides)
    work = Work(given.root / f"{given.config}.jsonl")
    replicates = [Replicate(task, seed, work) for seed in range(given.seeds)]
    text = Study(given.config, task, replicates, given.halves).text()
    print(text)
    if given.write:
        write_between(PAGE, f"lds {given.config}", text)


if __name__ == "__main__":
    main()
