"""Whether a study on changed candidates gains from the one before; docs/tuning.md has the results.

The candidates are generators of digits, the model is a perceptron on pixels, and every trial is a
real fit. For each seed (a real sample, initial weights, the seed of the sampler, and the candidate
that changes, drawn at random) a study is run on the candidates before the change. After it, one
study begins with its trials, and one without (`reuse=False`). Finished pairs are kept in `--out`,
and a run that was stopped continues.

    python scripts/mixture_reuse.py --seeds 8 --changes removed regenerated --out runs/reuse
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from optuna.storages import InMemoryStorage

from synque_select.data.candidate import Candidate
from synque_select.encoders import BaseEncoder
from synque_select.experiment import TaskDataModule
from synque_select.functional.paired import compare_paired, holm_verdicts
from synque_select.recipes.digits import DigitsTask
from synque_select.recipes.options import FitOptions
from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions, TuningResult, tune_mixture
from tests.benchmarks.bench_tuning import Perceptron, SmallDigits

CHANGES = ("added", "removed", "regenerated")
TOLERANCE = 0.01  # of the best value of both studies


class Pixels(BaseEncoder):
    """Images of 24 by 24 pixels, as averages over 8 by 8 parts."""

    id, modality, revision = "pixels-8x8", "image", "1"

    def encode(self, views: Any) -> torch.Tensor:
        """Return (n, 64) averages."""
        grey = torch.stack([torch.as_tensor(np.array(view.convert("L"))).float() for view in views])
        return torch.nn.functional.adaptive_avg_pool2d(grey / 255, 8).flatten(1)


class Digits(SmallDigits):
    """Digits with given candidates."""

    def __init__(self, max_steps: int, candidates: Sequence[Candidate] | None = None) -> None:
        super().__init__(max_steps)
        if candidates is not None:
            self._candidates = list(candidates)


@dataclass(frozen=True)
class Arm:
    """What a study after the change has found, without what it has cost before it."""

    reused: list[float]
    own: list[float]

    @classmethod
    def of(cls, result: TuningResult) -> Arm:
        """Read the values of a study; failed trials have none."""
        complete = [t for t in result.trials if t.value is not None and t.state == "complete"]
        reused = [float(t.value or 0) for t in complete if t.role == "reused"]
        return cls(reused, [float(t.value or 0) for t in complete if t.role != "reused"])

    def best(self, n: int) -> float:
        """Return the best value after n trials of its own."""
        return max([*self.reused, *self.own[:n]])

    def trials_to(self, value: float) -> int:
        """Return after how many trials of its own a value is reached; one more if never."""
        n = range(len(self.own) + 1)
        return next((i for i in n if (self.reused or i) and self.best(i) >= value), len(n))


def main() -> None:
    """Run the studies and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of a trial")
    parser.add_argument("--before", type=int, default=15, help="trials of the study before")
    parser.add_argument("--trials", type=int, default=15, help="trials of each study after")
    parser.add_argument("--startup", type=int, default=2, help="random trials after the starts")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=CHANGES)
    parser.add_argument("--out", type=Path, required=True, help="folder of studies and results")
    given = parser.parse_args()
    pairs: dict[str, list[tuple[Arm, Arm]]] = {change: [] for change in given.changes}
    for seed in range(given.seeds):
        for change in given.changes:
            pairs[change].append(_pair(given, seed, change))
    _report(pairs, given.trials)


def _pair(given: argparse.Namespace, seed: int, change: str) -> tuple[Arm, Arm]:
    folder = given.out / f"{change}-{seed}"
    done = folder / "pair.json"
    if not done.exists():
        before, after = _candidates(given.steps, seed, change)
        storage = InMemoryStorage()

        def study(candidates: Sequence[Candidate], n_trials: int, reuse: bool) -> TuningResult:
            options = TuneOptions(
                n_trials=n_trials,
                n_startup=given.startup,
                pruner="none",
                seed=seed,
                reuse=reuse,
                storage=storage,
            )
            return _study(given, folder, candidates, options)

        begun = study(before, given.before, False)
        arms = [study(after, given.trials, reuse) for reuse in (True, False)]
        print(f"seed {seed}, {change}: {arms[0].messages[0]}", flush=True)
        values = [vars(Arm.of(result)) for result in (begun, *arms)]
        done.write_text(json.dumps(values))
    _, reused, fresh = json.loads(done.read_text())
    return Arm(**reused), Arm(**fresh)


def _candidates(steps: int, seed: int, change: str) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates before and after a change of one of them."""
    everything = _generated(steps, 0)
    place = int(np.random.default_rng(seed).integers(len(everything)))
    without = [c for i, c in enumerate(everything) if i != place]
    if change == "added":
        return without, everything
    if change == "removed":
        return everything, without
    other = _generated(steps, 1)[place]
    return [other if i == place else c for i, c in enumerate(everything)], everything


@lru_cache
def _generated(steps: int, seed: int) -> list[Candidate]:
    fit = FitOptions(n_distinct=400, max_steps=steps, batch_size=32)
    return DigitsTask(fit, seed=seed).candidates


def _study(
    given: argparse.Namespace, folder: Path, candidates: Sequence[Candidate], options: TuneOptions
) -> TuningResult:
    cache, seed = given.out / "cache", options.seed
    return tune_mixture(
        Perceptron,
        TaskDataModule(Digits(given.steps, candidates), replicate=seed, seed=seed),
        max_steps=given.steps,
        options=options,
        scorer=Scorer(["mmd"], encoder=Pixels(), cache_dir=cache, seed=seed, progress=False),
        store=folder / "records.sqlite",
        trainer_options={"accelerator": "cpu"},
        progress=False,
    )


def _report(pairs: dict[str, list[tuple[Arm, Arm]]], n_trials: int) -> None:
    comparisons, figures = {}, {}
    for change, arms in pairs.items():
        targets = [max(a.best(n_trials), b.best(n_trials)) - TOLERANCE for a, b in arms]
        both = list(zip(arms, targets, strict=True))
        reach = [(with_.trials_to(t), without.trials_to(t)) for (with_, without), t in both]
        rows: dict[str, Sequence[tuple[float, float]]] = {"trials to reach it": reach}
        for n in (1, 5, n_trials):
            rows[f"best after {n}"] = [(with_.best(n), without.best(n)) for with_, without in arms]
        for what, values in rows.items():
            sign = -1 if what.startswith("trials") else 1
            first, second = ([sign * float(pair[i]) for pair in values] for i in (0, 1))
            comparisons[f"{change}, {what}"] = compare_paired(first, second, mode="max")
            figures[f"{change}, {what}"] = (sign, first, second)
        n_reached = [sum(pair[i] <= n_trials for pair in reach) for i in (0, 1)]
        print(f"{change}: reached by {n_reached[0]} and {n_reached[1]} of {len(arms)} studies")
    for name, pair in holm_verdicts(comparisons, mode="max").items():
        sign, first, second = figures[name]
        low, high = sorted((sign * pair.low, sign * pair.high))
        print(
            f"{name}: with the earlier trials {sign * fmean(first):.3f} (std {stdev(first):.3f}), "
            f"without {sign * fmean(second):.3f} (std {stdev(second):.3f}), difference "
            f"{sign * pair.difference:+.3f} [{low:+.3f}, {high:+.3f}], n = {pair.n}, "
            f"p (Holm) {pair.p_holm:.3f}: {pair.verdict}"
        )


if __name__ == "__main__":
    main()
