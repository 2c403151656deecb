"""Trials from where the proxies point, against random trials; and what tuning is worth on test.

The candidates are the digit generators, the real sample is 100 handwritten digits, the model is a
perceptron on pixels, every trial a real fit. The result is whatever it is: the ratio is that of
the mean best-so-far values, and the note has the paired 95 % interval over five seeds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pytorch_lightning import LightningModule

from synque_select.experiment import ExperimentOptions, run_experiment
from synque_select.experiment.fits import Fit, FitStore
from synque_select.functional.paired import compare_paired
from synque_select.recipes.digits import DigitsTask
from synque_select.recipes.options import FitOptions
from synque_select.records.store import RunStore
from synque_select.selection.mixture import mmd_optimal_mixture
from synque_select.selection.scorer import Scorer
from synque_select.tuning import MixtureSpace, starting_mixtures
from synque_select.tuning.search import search_mixtures
from synque_select.types import Mixture
from tests.benchmarks.base import Result, cpu_seconds

N_SEEDS, N_TRIALS, AFTER = 5, 10, (5, 10)
SIDE = 24


class Perceptron(LightningModule):
    """Pixels, one hidden layer of 64, ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(SIDE * SIDE, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images (n, 24, 24) uint8 into logits (n, 10)."""
        logits: torch.Tensor = self.layers(images.flatten(1).float() / 255)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        return torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log `val_acc`."""
        self._log("val_acc", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log `test_acc`."""
        self._log("test_acc", batch)

    def _log(self, name: str, batch: Any) -> None:
        right = (self(batch["image"]).argmax(1) == batch["label"]).float().mean()
        self.log(name, right, batch_size=len(batch["label"]))

    def configure_optimizers(self) -> Any:
        """Adam at its default."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class SmallDigits(DigitsTask):
    """The digits with fits of a second."""

    name = "digits-perceptron"

    def __init__(self, max_steps: int) -> None:
        fit = FitOptions(n_distinct=400, max_steps=max_steps, batch_size=32)
        super().__init__(fit, proxies=["pad", "mmd", "coverage"])

    def model(self, seed: int) -> LightningModule:
        """Make a fresh perceptron."""
        return Perceptron()


def run() -> Iterator[Result]:
    """Yield best-so-far after 5 and 10 trials, then the arms on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _best_so_far(Path(folder))
        yield from _on_the_test_split(Path(folder))


def _best_so_far(folder: Path) -> Iterator[Result]:
    task = SmallDigits(max_steps=100)
    book = FitStore(task, RunStore(folder / "store.sqlite"))
    curves: dict[str, list[list[float]]] = {"starts": [], "random": []}
    seconds: dict[str, float] = dict.fromkeys(curves, 0.0)
    for seed in range(N_SEEDS):
        scorer = Scorer(
            task.proxies, encoder=task.encoder, seed=seed, progress=False, keep_models=True
        )
        scoring = scorer.score(task.candidates, task.real_sample(seed))
        ranking = scorer.order(scoring)
        space = MixtureSpace(tuple(row.name for row in ranking.order()), (1, len(ranking)))

        def value(mixture: Mixture, seed: int = seed) -> float:
            return book.run(Fit(mixture, seed, task.max_steps, 400), "trial", []).metrics["val_acc"]

        starts = starting_mixtures(ranking, space, mmd_optimal_mixture(scoring))
        for arm, options in (
            ("starts", {"starts": starts, "sampler": "tpe"}),
            ("random", {"starts": {}, "sampler": "random"}),
        ):
            begun = cpu_seconds()
            trials = search_mixtures(
                value, space, n_trials=N_TRIALS, mode="max", seed=seed, **options
            )
            seconds[arm] += cpu_seconds() - begun
            curves[arm].append([figure for _, figure in trials])
    for n in AFTER:
        ours, rival = ([max(values[:n]) for values in curves[arm]] for arm in ("starts", "random"))
        paired = compare_paired(ours, rival, mode="max")
        yield Result(
            name=f"best val_acc after {n} trials, digits, {N_SEEDS} paired seeds",
            ratio=fmean(ours) / fmean(rival),
            target=1.0,
            rival="RandomSampler, nothing enqueued",
            seconds=seconds["starts"] / N_SEEDS,
            rival_seconds=seconds["random"] / N_SEEDS,
            note=f"{fmean(ours):.3f} against {fmean(rival):.3f}, {_words(vars(paired))}",
        )


def _on_the_test_split(folder: Path) -> Iterator[Result]:
    begun = cpu_seconds()
    options = ExperimentOptions(
        arms=["chosen", "random_k", "all", "tuned"],
        replicates=N_SEEDS,
        single_replicates=1,
        n_random=5,
        n_tuned=10,
        run_dir=folder / "run",
        store=folder / "experiment.sqlite",
        progress=False,
    )
    arms = run_experiment(SmallDigits(max_steps=400), options).result.arms
    tuned, seconds = arms["tuned"], cpu_seconds() - begun
    for arm in ("chosen", "random_k", "all"):
        other = arms[arm]
        paired = compare_paired(tuned.values, other.values, mode="max")
        yield Result(
            name=f"test_acc of tuned at the same steps in all, digits, {N_SEEDS} paired replicates",
            ratio=tuned.mean / other.mean,
            target=1.0,
            rival=arm,
            seconds=seconds,
            rival_seconds=seconds,
            note=f"{tuned.mean:.3f} (std {tuned.std:.3f}) against {other.mean:.3f} "
            f"(std {other.std:.3f}), {_words(vars(paired))}",
        )
    print(json.dumps({name: arm.values for name, arm in arms.items()}))


def _words(paired: Any) -> str:
    ends = f"[{paired['low']:+.3f}, {paired['high']:+.3f}]"
    return f"difference {paired['difference']:+.3f} {ends}, n = {paired['n']}: {paired['verdict']}"
