"""Does changing the mixture during training pay? The table of docs/in-the-loop.md.

Each policy is an arm of an experiment with paired replicates, and is compared with the static
mixture that it starts from and with the mixture of all, at equal steps. Finished fits are kept
under `--root`, so a run that was stopped continues; tasks that were not run are named as not
measured.

    python -m scripts.in_the_loop digits sentiment-small --replicates 5
    python -m scripts.in_the_loop --tasks PATH/TO/TASKS ag_news atis
    python -m scripts.in_the_loop text2sql-small --starts chosen --policies odm agreement

`digits` needs no data; `sentiment-small` needs SYNQUE_BENCHMARK_DATA; other names are folders of
tasks in `--tasks` (or SYNQUE_TASKS_DATA), in the layout of `synque-select benchmark tasks`. With
`--write-only` nothing is trained, and the table is written from what has finished.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from scripts.docs_tables import ROOT, write_between
from synque_select.benchmark.task_folders import LabeledTask, find_labeled_tasks
from synque_select.cli import experiment
from synque_select.cli.options import packaged_config
from synque_select.errors import ConfigError
from synque_select.experiment import BaseTask, ExperimentOptions, run_experiment
from synque_select.experiment.policies import policy_arm
from synque_select.experiment.task import part_of
from synque_select.functional.paired import MIN_PAIRS, PairedComparison, holm_verdicts
from synque_select.recipes._real_data import RealDraws, union
from synque_select.recipes._task import ClassifiedTask, RecipeData
from synque_select.recipes.options import FitOptions
from synque_select.recipes.sentiment import SentimentTask
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.report.experiment_tables import verdict_words
from synque_select.report.formats import (
    figure_decimals,
    format_interval,
    format_number,
    format_p,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.reselection import get_policy
from synque_select.utils.wording import counted, percent

PAGE = ROOT / "docs" / "in-the-loop.md"
TASKS_DATA = "SYNQUE_TASKS_DATA"
RECIPES = ("digits", "sentiment-small", "text2sql-small")
FOLDERS = ("ag_news", "atis", "imdb")
POLICIES = ("surrogate", "odm", "aioli", "agreement")
STARTS: tuple[Literal["all", "chosen"], ...] = ("all", "chosen")
_LEAST = 35  # examples of each candidate: about a fifth, and at least 5, are held out


@dataclass(frozen=True)
class _Short:
    """How the experiment of a recipe that takes long is made shorter."""

    options: tuple[str, ...]
    every_n_steps: int
    budget: float


# half of the config's steps and examples, and no queries written, which the loss does not need; in
# steps of 8 examples, a tenth of the time would not pay for one example of each candidate
_SHORT = {
    "text2sql-small": _Short(
        (
            "--task.init_args.fit.n_distinct=80",
            "--task.init_args.fit.max_steps=10",
            "--task.init_args.n_generated=0",
        ),
        every_n_steps=2,
        budget=0.5,
    )
}
_START_WORDS = {"all": "all", "chosen": "selected"}
_START_IN_FULL = {"all": "the mixture of all", "chosen": "the selected mixture"}


class FolderTask(SentimentTask):
    """A folder of a task: a linear head on frozen embeddings, macro-F1 on its test set.

    Args:
        folder: The candidates, the real samples and the labeled examples.
        fit: The budget of a fit.
    """

    def __init__(self, folder: LabeledTask, fit: FitOptions) -> None:
        test = folder.test
        if test is None:
            raise ConfigError(f"{folder.name}: the task has no test.jsonl")
        reals = list(folder.reals.values())
        data = RecipeData(
            list(folder.candidates),
            RealDraws(union(reals), min(map(len, reals)), reals),
            part_of(test.examples, test.positions.tolist()),
            messages=folder.messages,
        )
        ClassifiedTask.__init__(self, data, fit, None, None)
        view, label = test.examples.selector, test.examples.label
        assert isinstance(view, str)
        assert isinstance(label, str)
        self._view, self._label, self.fine_tune = view, label, None
        self.name = folder.name  # type: ignore[misc]  # a class is one recipe, but not this one


@dataclass(frozen=True)
class Row:
    """One comparison of the table."""

    task: str
    start: str
    policy: str
    against: str
    result: ExperimentResult
    pair: PairedComparison


def main() -> int:
    """Run the tasks that are named, and write the table of all that have finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="tasks; none for all that have their data")
    parser.add_argument("--tasks", type=Path, help=f"folder of tasks (default: ${TASKS_DATA})")
    parser.add_argument("--replicates", type=int, default=5, help="at least 5 for a verdict")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--budget", type=float, default=0.1, help="share of the training time")
    parser.add_argument("--root", type=Path, default=Path("runs/in-the-loop"))
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is written")
    parser.add_argument("--write-only", action="store_true", help="train nothing")
    given = parser.parse_args()
    names = given.names or [*RECIPES, *FOLDERS]
    torch.set_num_threads(1)
    for name in () if given.write_only else names:
        task = _task(name, given.tasks)
        if task is None:
            print(f"{name}: skipped, its data is not given", file=sys.stderr)
            continue
        for start in given.starts:
            _run(name, task, start, given)
    write_between(given.page, "in-the-loop", text(_results(given.root)))
    return 0


def _task(name: str, tasks: Path | None) -> BaseTask | None:
    """Return a task; None if its data is not there."""
    if name in RECIPES:
        if name == "sentiment-small" and not os.environ.get("SYNQUE_BENCHMARK_DATA"):
            return None
        return _recipe(name)
    folder = tasks or (Path(os.environ[TASKS_DATA]) if os.environ.get(TASKS_DATA) else None)
    if folder is None:
        return None
    (labeled,) = find_labeled_tasks(folder, [name])
    return FolderTask(labeled, FitOptions(max_steps=200, batch_size=32))


def _recipe(name: str) -> BaseTask:
    """Return the task of a packaged config."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser()
    experiment.arguments(parser)
    options = _SHORT[name].options if name in _SHORT else ()
    config = parser.parse_args(["--config", str(packaged_config(name)), *options])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    task: BaseTask = instantiate(config).task
    return task


def _run(
    name: str, task: BaseTask, start: Literal["all", "chosen"], given: argparse.Namespace
) -> None:
    short = _SHORT.get(name)
    too_few = _has_too_few(start, len(task.candidates), task.n_distinct)
    options = ExperimentOptions(
        arms=["chosen", "all"],
        policies=[p for p in given.policies if not (too_few and get_policy(p).needs_held_out)],
        policy_start=start,
        policy_budget=short.budget if short else given.budget,
        every_n_steps=short.every_n_steps if short else None,
        replicates=given.replicates,
        single_replicates=1,
        run_dir=given.root / f"{name}-{start}",
        store=given.root / "records.sqlite",
    )
    run_experiment(task, options)


def _has_too_few(start: str, n_candidates: int, n_distinct: int) -> bool:
    """Return whether a candidate has too few examples to hold a fifth of them out."""
    return n_distinct // (n_candidates if start == "all" else ExperimentOptions.top_k) < _LEAST


def _file(root: Path, name: str, start: str) -> Path:
    return root / f"{name}-{start}" / "result.json"


def _results(root: Path) -> dict[tuple[str, str], ExperimentResult]:
    """Return the finished experiments by task and start."""
    return {
        (name, start): load_result(_file(root, name, start).parent)
        for name in (*RECIPES, *FOLDERS)
        for start in STARTS
        if _file(root, name, start).is_file()
    }


def rows_of(results: Mapping[tuple[str, str], ExperimentResult]) -> list[Row]:
    """Return all comparisons, with verdicts that hold for them together."""
    rows = []
    for (task, start), result in results.items():
        for name, pair in result.policy_comparisons.items():
            policy, _, against = name.removeprefix("policy:").rpartition("_vs_")
            rows.append(Row(task, start, policy, against, result, pair))
    # all rows are read together; a loss is turned around for that, as lower is better
    turned = {str(i): _turned(row.pair, row.result) for i, row in enumerate(rows)}
    pairs = holm_verdicts(turned, mode="max")
    return [
        replace(row, pair=replace(row.pair, p_holm=pair.p_holm, verdict=pair.verdict))
        for row, pair in zip(rows, pairs.values(), strict=True)
    ]


def _turned(pair: PairedComparison, result: ExperimentResult) -> PairedComparison:
    return pair if result.metric.mode == "max" else replace(pair, difference=-pair.difference)


def text(results: Mapping[tuple[str, str], ExperimentResult]) -> str:
    """Return the sentences and the table of all finished experiments."""
    missing = [name for name in (*RECIPES, *FOLDERS) if not any(name == t for t, _ in results)]
    missing += [_unmeasured(*key, results.get(key)) for key in _expected(results)]
    missing = [words for words in missing if words]
    not_measured = f"Not measured: {'; '.join(missing)}.\n" if missing else ""
    if not results:
        return not_measured
    rows = rows_of(results)
    return "\n".join(
        [_summary(rows), "", *_budgets(results), not_measured, _table(rows).markdown()]
    )


def _expected(results: Mapping[tuple[str, str], ExperimentResult]) -> list[tuple[str, str]]:
    return [(task, start) for task in dict.fromkeys(t for t, _ in results) for start in STARTS]


def _unmeasured(task: str, start: str, result: ExperimentResult | None) -> str:
    """Name the policies without a result on a task from a start, with the reason."""
    where = f"on {task} from {_START_IN_FULL[start]}"
    if result is None:
        return f"all policies {where} (not run)"
    absent = [policy for policy in POLICIES if policy_arm(policy) not in result.arms]
    budget, data = result.budget, result.data
    assert budget is not None
    assert data is not None
    too_few = _has_too_few(start, data.n_candidates, budget.n_distinct)
    reasons = {
        policy: f"under {_LEAST} examples of each candidate"
        if too_few and get_policy(policy).needs_held_out
        else "not run"
        for policy in absent
    }
    return "; ".join(f"{policy} {where} ({reason})" for policy, reason in reasons.items())


def _summary(rows: Sequence[Row]) -> str:
    """Say how many policies are better or worse than the static mixture that they start from."""
    against = [row for row in rows if row.against == row.start]
    n = {verdict: sum(r.pair.verdict == verdict for r in against) for verdict in _VERDICTS}
    parts = [f"{words} in {n[verdict]}" for verdict, words in _VERDICTS.items() if n[verdict]]
    tasks = len({row.task for row in rows})
    return (
        f"Against the static mixture of the same start, in {counted(len(against), 'comparison')} "
        f"on {counted(tasks, 'task')}: {', '.join(parts)}."
    )


_VERDICTS = {
    "beats": "a policy beats it",
    "is beaten by": "a policy is beaten by it",
    "no difference shown": "no difference is shown",
    "hint only": f"there are fewer than {MIN_PAIRS} pairs",
}


def _budgets(results: Mapping[tuple[str, str], ExperimentResult]) -> list[str]:
    lines = []
    for name in dict.fromkeys(task for task, _ in results):
        result = next(r for (task, _), r in results.items() if task == name)
        budget, data = result.budget, result.data
        if budget is None or data is None:
            continue
        lines.append(
            f"- `{name}`: {counted(data.n_candidates, 'candidate')}, "
            f"{counted(budget.n_distinct, 'distinct example')}, "
            f"{counted(budget.max_steps, 'step')} of {budget.batch_size}, "
            f"{counted(data.n_test, 'test example')}, "
            f"{counted(result.replicates, 'replicate')}, {result.metric.name}"
            f"{_changes(name, result)}"
        )
    return [*lines, ""]


def _changes(name: str, result: ExperimentResult) -> str:
    """Say what else differs from the other tasks."""
    lower = ", a loss: lower is better" if result.metric.mode == "min" else ""
    short = _SHORT.get(name)
    if short is None:
        return lower
    return (
        f"{lower}; policies are asked every {short.every_n_steps} steps, and evaluation may take "
        f"{percent(short.budget)} of the training time"
    )


def _table(rows: Sequence[Row]) -> Table:
    heads = ("task", "start", "policy", "against", "mean", "static", "difference")
    columns = (*(Column(head, is_name=i < 4) for i, head in enumerate(heads)),)
    columns += tuple(map(Column, ("95 % interval", "pairs", "p (Holm)", "verdict")))
    return Table("", columns, tuple(map(_cells, rows)))


def _cells(row: Row) -> tuple[str, ...]:
    mine, other = (row.result.arms[name] for name in (f"policy:{row.policy}", row.against))
    decimals = figure_decimals([mine.mean, other.mean])
    return (
        row.task,
        _START_WORDS[row.start],
        row.policy,
        _START_WORDS[row.against],
        format_number(mine.mean, decimals),
        format_number(other.mean, decimals),
        format_signed(row.pair.difference, 4),
        format_interval(row.pair.low, row.pair.high, 4),
        str(row.pair.n),
        format_p(row.pair.p_holm),
        verdict_words(row.pair),
    )


if __name__ == "__main__":
    sys.exit(main())
