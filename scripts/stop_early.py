"""What is lost by stopping probes early, replayed on learning curves; docs/performance.md.

On a recipe, for each seed (a real sample, initial weights), the model is trained on every candidate
alone, and the validation metric is measured at each step at which a rule may stop a fit. Then the
rules are replayed: `stop_early` of a sweep, and the pruners of `tune`, which see the candidates one
after another and compare each with those before it. A measurement at a step is a fit of its own
that is stopped there. Finished fits are in a file below `--root`, and a run that was stopped
continues; `--write` writes the table of the page.

    python -m scripts.stop_early digits --seeds 2 --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner

from scripts.docs_tables import ROOT, write_between
from scripts.influence_check import Work
from scripts.surrogate_reliability import task_of
from synque_select.experiment import BaseTask, TaskDataModule
from synque_select.probing.halving import best_third, budgets
from synque_select.training.comparability import content_sha256
from synque_select.training.short_fit import train_and_measure
from synque_select.types import Mixture
from synque_select.utils.process_state import seeded

PAGE = ROOT / "docs" / "performance.md"
N_REPORTS = 4  # what `tune` validates by default in a trial
Curve = Mapping[int, float]  # the metric after a number of steps, of a loss the negative one


@dataclass(frozen=True)
class Stopped:
    """What a rule did.

    Args:
        n_steps: Steps that were trained, of all candidates.
        best: Candidate with the best metric at the end, of those that were trained to the end.
    """

    n_steps: int
    best: str


def halve(curves: Mapping[str, Curve]) -> Stopped:
    """Replay `stop_early`: of each part of the budget, the best third goes on."""
    names, n_steps = list(curves), 0
    *early, last = budgets(max(next(iter(curves.values()))))
    for step in early:
        n_steps += step * len(names)
        names = best_third(names, {name: -curves[name][step] for name in names})
    return Stopped(n_steps + last * len(names), max(names, key=lambda name: curves[name][last]))


def prune(curves: Mapping[str, Curve], pruner: BasePruner) -> Stopped:
    """Replay a pruner: a trial per candidate, in their order, which reports at each quarter."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="probes", direction="maximize", pruner=pruner
    )  # hyperband assigns its brackets by the name
    n_steps = 0
    for name, curve in curves.items():
        trial, last = study.ask(), max(curve)
        trial.set_user_attr("name", name)
        for step in quarters(last):
            trial.report(curve[step], step)
            if step < last and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[last])
        n_steps += step
    return Stopped(n_steps, study.best_trial.user_attrs["name"])


def quarters(max_steps: int) -> list[int]:
    """Return the steps at which a trial of `tune` validates.

    Example:
        >>> quarters(80)
        [20, 40, 60, 80]
    """
    return [max_steps * i // N_REPORTS for i in range(1, N_REPORTS + 1)]


def rules(max_steps: int) -> dict[str, Callable[[Mapping[str, Curve]], Stopped]]:
    """Return what is replayed, by the words of the table."""
    shortest = max(1, max_steps // N_REPORTS)
    pruners: dict[str, Callable[[], BasePruner]] = {
        "median": MedianPruner,
        "successive_halving": SuccessiveHalvingPruner,
        "hyperband": lambda: HyperbandPruner(min_resource=shortest, max_resource=max_steps),
    }
    replayed: dict[str, Callable[[Mapping[str, Curve]], Stopped]] = {"`stop_early`": halve}
    for name, make in pruners.items():
        replayed[f'`pruner="{name}"`'] = lambda curves, make=make: prune(curves, make())
    return replayed


@dataclass
class Replicate:
    """The fits of one seed."""

    task: BaseTask
    seed: int
    work: Work

    @cached_property
    def data(self) -> TaskDataModule:
        """The task's data, with labeled validation data."""
        data = TaskDataModule(self.task, replicate=self.seed, seed=self.seed)
        data.setup("fit")
        return data

    def curves(self) -> tuple[dict[str, Curve], dict[str, float]]:
        """Return the curve of each candidate alone, and its test metric at the end."""
        sign = 1 if self.task.mode == "max" else -1
        last = self.task.max_steps
        steps = sorted({*budgets(last), *quarters(last)})
        curves: dict[str, Curve] = {}
        test: dict[str, float] = {}
        for candidate in self.task.candidates:
            fits = {step: self._metrics(candidate.name, step) for step in steps}
            validation = f"val_{self.task.metric}"
            curves[candidate.name] = {step: sign * fit[validation] for step, fit in fits.items()}
            test[candidate.name] = sign * fits[last][f"test_{self.task.metric}"]
        return curves, test

    def _metrics(self, name: str, step: int) -> Mapping[str, float]:
        made_with = [dict(self.task.fingerprint()), self.task.max_steps, self.task.n_distinct]
        key = content_sha256([made_with, self.seed, name, step])
        known = self.work.results.get(key)
        if known is not None:
            return known
        options = {"devices": 1, **self.task.trainer_options()}
        with seeded(self.seed):
            measured = train_and_measure(
                self.task.model(self.seed),
                self.data.with_mixture(Mixture.equal([name])),
                self.task.max_steps,
                options,
                ("validate", "test"),
                stop_after=step if step < self.task.max_steps else None,
            )
        what = f"seed {self.seed}, {name}, step {step}"
        return self.work.keep(key, dict(measured.metrics), what)


def table(config: str, task: BaseTask, replicates: Sequence[Replicate]) -> str:
    """Return the table of what each rule did, over the seeds."""
    measured = [replicate.curves() for replicate in replicates]
    n_seeds, all_steps = len(measured), task.max_steps * len(task.candidates)
    metric = f"test_{task.metric}"
    lines = [
        f"`{config}`: {len(task.candidates)} candidates, {task.max_steps} steps, {n_seeds} seeds.",
        "",
        f"| what is stopped | share of all steps | best by validation found | its {metric}, minus "
        "that of the best |",
        "| :-- | --: | --: | --: |",
    ]
    for name, replay in rules(task.max_steps).items():
        stopped = [replay(curves) for curves, _ in measured]
        best = [max(curves, key=lambda one: curves[one][task.max_steps]) for curves, _ in measured]
        lost = [
            test[rule.best] - test[one]
            for rule, one, (_, test) in zip(stopped, best, measured, strict=True)
        ]
        share = fmean(rule.n_steps for rule in stopped) / all_steps
        n_same = sum(rule.best == one for rule, one in zip(stopped, best, strict=True))
        spread = f" ± {stdev(lost):.3f}" if n_seeds > 1 else ""
        lines.append(
            f"| {name} | {share:.2f} | {n_same} of {n_seeds} | {fmean(lost):+.3f}{spread} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the curves and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="name of a packaged config of `synque-select experiment`")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("runs/stop-early"))
    parser.add_argument("--write", action="store_true", help="write the table of the page")
    given, overrides = parser.parse_known_args()
    task = task_of(given.config, overrides)
    work = Work(given.root / f"{given.config}.jsonl")
    text = table(given.config, task, [Replicate(task, seed, work) for seed in range(given.seeds)])
    print(text)
    if given.write:
        write_between(PAGE, f"stop early {given.config}", text)


if __name__ == "__main__":
    main()
