"""How well influence predicts what happens when candidates are left out; docs/influence.md.

On a recipe, for each seed (a real sample, initial weights, a fit): the influence of each candidate,
in four forms; the fit on all candidates, on all but one, on each alone (a probe), and on random
halves of the candidates, all with the same number of steps. What influence predicts for a half is
the mean over its candidates; the linear datamodeling score (LDS; TRAK, arXiv 2303.14186, section 4)
is the Spearman correlation of that with the test loss, over the halves. Finished work is in the
directory `--root`, and a run that was stopped continues; `--write` writes the table of the page.

    python -m scripts.influence_check digits --seeds 3 --halves 24 --write
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from scripts.docs_tables import ROOT, write_between
from scripts.surrogate_reliability import task_of
from synque_select.experiment import BaseTask, TaskDataModule
from synque_select.experiment.task import Transformed
from synque_select.functional.correlation import Coefficient, correlate_scores
from synque_select.probing.example_gradients import as_in_evaluation
from synque_select.probing.influence import InfluenceOptions, measure_influence
from synque_select.training.comparability import content_sha256
from synque_select.training.short_fit import train_and_measure
from synque_select.training.surrogate import SurrogateOptions
from synque_select.types import Mixture
from synque_select.utils.process_state import seeded

PAGE = ROOT / "docs" / "influence.md"
FORMS = {
    "labeled, unit length": (False, True),
    "labeled, lengths as they are": (False, False),
    "surrogate, unit length": (True, True),
    "surrogate, lengths as they are": (True, False),
}
PROBES = "K probes"


@dataclass
class Work:
    """Results by key, in a file with one line per result."""

    file: Path
    results: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                if line.endswith("]"):  # a line that was cut by a kill is computed again
                    key, result = json.loads(line)
                    self.results[key] = result

    def keep(self, key: str, result: dict[str, float], what: str) -> dict[str, float]:
        """Keep a result, and show it."""
        self.results[key] = result
        with self.file.open("a") as file:
            file.write(json.dumps([key, result]) + "\n")
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
        made_with = [dict(self.task.fingerprint()), self.task.max_steps, self.task.n_distinct]
        return content_sha256([made_with, self.seed, *parts])

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

    def _test_loss(self, module: torch.nn.Module) -> float:
        test = Transformed(self.task.test, self.task.transform)
        loader = DataLoader(test, batch_size=256, collate_fn=self.task.collate_fn)
        total = 0.0
        with as_in_evaluation(module), torch.no_grad():
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
                    self.task.model(self.seed),
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


def score(predicted: Sequence[float], loss: Sequence[float]) -> Coefficient:
    """Return the Spearman correlation of predictions with a loss, positive if they agree."""
    return correlate_scores(predicted, loss, higher_is_better=True, mode="min").spearman


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
        gains = [[one - all_ for one in row] for row, all_ in zip(left_out, whole, strict=True)]
        lines = []
        for form, figures in self.predictors.items():
            predicted = [[fmean(row[n] for n in half) for half in chosen] for row in figures]
            alone = [[row[n] for n in self.names] for row in figures]
            lds = self._cell(predicted, by_half)
            # a useful candidate is missed: leaving it out raises the loss
            leave_one_out = self._cell(alone, [[-gain for gain in row] for row in gains])
            seconds = mean_of(figures, "seconds")
            lines.append(f"| {form} | {lds} | {leave_one_out} | {seconds:.0f} |")
        return lines

    def _cell(self, predicted: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]) -> str:
        within = [score(p, loss).value for p, loss in zip(predicted, losses, strict=True)]
        over_means = score(*(np.mean(rows, axis=0).tolist() for rows in (predicted, losses)))
        cell = f"{over_means.value:+.2f} [{over_means.low:+.2f}, {over_means.high:+.2f}]"
        if len(within) == 1:
            return cell
        return f"{cell}; {fmean(within):+.2f} ± {stdev(within):.2f}"

    def text(self) -> str:
        """Return the section of the page."""
        k, n_seeds = len(self.names), len(self.replicates)
        one_fit = mean_of(self.predictors[PROBES], "seconds") / k
        seeds, within = "seed 0", ""
        if n_seeds > 1:
            seeds = f"means over {n_seeds} seeds"
            within = "; then the mean and standard deviation of those within seeds"
        return "\n".join(
            [
                f"`{self.config}`: {k} candidates, {self.task.max_steps} steps per fit, {seeds} (a "
                "seed has a real sample, initial weights and an order of examples of its own); "
                f"test loss on {len(self.task.test):,} labeled real examples. LDS over n = "
                f"{self.n_halves} random halves of the candidates, leaving one out over n = {k} "
                "candidates: Spearman correlation with its 95 % interval over the halves or "
                f"candidates{within}. Processor seconds per seed, of one thread; one fit takes "
                f"{one_fit:.1f}.",
                "",
                "| predictor | LDS | leaving one out | processor seconds |",
                "| --- | --- | --- | --: |",
                *self.lines(),
            ]
        )


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
