"""The figures of a benchmark of tasks of your own, as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from synque_select.benchmark.case_scores import CONSENSUS
from synque_select.benchmark.task_mixtures import ARMS
from synque_select.benchmark.task_quality import Learner
from synque_select.benchmark.task_result import COMPARED, ArmFigures, Over, TaskFigures, TasksResult
from synque_select.functional.paired import PairedComparison
from synque_select.report.formats import (
    UNDEFINED,
    format_interval,
    format_number,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.utils.wording import counted

__all__ = ["render"]

_DECIMALS = 3
# names of the first column: what is compared with all the others, where it was computed
_AGAINST = ("transfer", CONSENSUS)


def render(result: TasksResult) -> str:
    """Return the tables of a benchmark of tasks as plain text.

    Args:
        result: What `run_tasks` returned.

    Example:
        >>> print(render(TasksResult(0, "letters", "1")))
        No tasks.
    """
    if not result.tasks:
        return "No tasks."
    parts = [_head(name, task) for name, task in result.tasks.items()]
    parts.append(_proxy_table(result))
    parts += [_by_task(result, truth) for truth in result.truths]
    parts += [_differences(result, key) for key in _AGAINST if key in result.keys]
    parts += _baseline_lines(result)
    parts += _left_out_lines(result)
    parts += [_mixture_table(result, learner) for learner in get_args(Learner)]
    parts += [_comparison_table(result), *_recommended_lines(result), *_filter_lines(result)]
    parts.append(_cost_line(result))
    return "\n\n".join(part for part in parts if part)


def _head(name: str, task: TaskFigures) -> str:
    test = "" if task.n_test is None else f", {task.n_test} test examples, {task.metric}"
    ceilings = ", ".join(f"{t} {_number(v)}" for t, v in task.noise_ceiling.items())
    head = (
        f"{name}: {counted(task.n_candidates, 'candidate')}, "
        f"{counted(len(task.seeds), 'real sample')}"
        f"{test}; noise ceiling of Spearman: {ceilings or 'unknown'}"
    )
    return "\n".join([head, *(f"- {message}" for message in task.messages)])


def _proxy_table(result: TasksResult) -> str:
    rows = []
    for key in result.keys:
        cells = [key]
        for truth in result.truths:
            over = result.spearman(key, truth)
            cells += [_number(over.mean), _interval(over), str(over.n_tasks)]
        rows.append(cells)
    titles = ["spearman over tasks"]
    for truth in result.truths:
        titles += [truth, "95 % interval", "tasks"]
    return _table(titles, rows)


def _by_task(result: TasksResult, truth: str) -> str:
    rows = [
        (
            key,
            *(
                f"{_number(value)} ({_number(task.seed_spread.get(key))})"
                if truth == result.truths[0]
                else _number(value)
                for value, task in zip(
                    result.coefficients(key, truth), result.tasks.values(), strict=True
                )
            ),
        )
        for key in result.keys
    ]
    ceilings = [_number(task.noise_ceiling.get(truth)) for task in result.tasks.values()]
    rows.append(("noise ceiling", *ceilings))
    spread = " (seed sd)" if truth == result.truths[0] else ""
    return _table((f"spearman with {truth}{spread}", *result.tasks), rows)


def _differences(result: TasksResult, first: str) -> str:
    rows = []
    for key in result.keys:
        if key == first:
            continue
        cells = [key]
        for truth in result.truths:
            minus = result.difference(first, key, truth)
            cells += [_signed(minus.difference), _interval(minus), str(minus.n)]
        rows.append(cells)
    titles = [f"spearman of {first} minus that of"]
    for truth in result.truths:
        titles += [truth, "95 % interval", "tasks"]
    return _table(titles, rows) if rows else ""


def _baseline_lines(result: TasksResult) -> list[str]:
    lines = []
    for truth in result.truths:
        best = result.best_baseline(truth)
        if best is None:
            continue
        line = (
            f"Best baseline that never reads the real sample, {truth}, chosen after the fact: "
            f"{best} ({_number(result.spearman(best, truth).mean)})."
        )
        for key in _AGAINST:
            if key in result.keys:
                minus = result.difference(key, best, truth)
                line += (
                    f" {key} minus it: {_signed(minus.difference)} {_interval(minus)}: "
                    f"{minus.verdict}."
                )
        lines.append(line)
    return lines


def _left_out_lines(result: TasksResult) -> list[str]:
    """Say what a column is worth on a task that it was not chosen on."""
    lines = []
    for truth in result.truths:
        chosen = result.left_out(truth)
        if not chosen:
            continue
        values = [value for _, value in chosen.values()]
        over = Over.of(values)
        keys = ", ".join(f"{task} {key} {_number(value)}" for task, (key, value) in chosen.items())
        lines.append(
            f"The column that is best on all other tasks, {truth}: {_number(over.mean)} "
            f"{_interval(over)} on the task that is left out, n = {counted(over.n_tasks, 'task')} "
            f"({keys})."
        )
    return lines


def _mixture_table(result: TasksResult, learner: Learner) -> str:
    tasks = {name: task for name, task in result.tasks.items() if learner in task.mixtures}
    if not tasks:
        return ""
    rows = [(arm, *(_arm(task.mixtures[learner][arm]) for task in tasks.values())) for arm in ARMS]
    totals = ("examples in each mixture", *(str(task.size) for task in tasks.values()))
    counts = ("replicates", *(str(task.mixtures[learner]["all"].n) for task in tasks.values()))
    return _table((f"mixtures, {learner} learner (sd)", *tasks), [*rows, totals, counts])


def _comparison_table(result: TasksResult) -> str:
    if not any(task.mixtures for task in result.tasks.values()):
        return ""
    rows = []
    for first, second in COMPARED:
        cells = [f"{first} minus {second}"]
        for learner in get_args(Learner):
            minus = result.comparison(first, second, learner)
            cells += [_signed(minus.difference), _interval(minus), str(minus.n)]
        rows.append(cells)
    titles = ["mixtures over tasks"]
    for learner in get_args(Learner):
        titles += [learner, "95 % interval", "tasks"]
    chosen = ", ".join(dict.fromkeys(task.ordered_by for task in result.tasks.values()))
    note = (
        "recommended is what a ranking selects without top_k; top3 and half are chosen by "
        f"{chosen}, which orders by default; oracle_half uses test labels. The filtered arms "
        "are what label_filter='auto' leaves, equal to the unfiltered arm where it is closed; "
        "all_filtered_always ignores its conditions. "
        f"{counted(len(COMPARED), 'comparison')}: an interval alone is a hint, as it is not "
        "corrected for their number."
    )
    return f"{_table(titles, rows)}\n\n{note}"


def _recommended_lines(result: TasksResult) -> list[str]:
    lines = []
    for name, task in result.tasks.items():
        counts = [len(each.names) for each in task.recommended.values()]
        seed, first = next(iter(task.recommended.items()))
        least, most = min(counts), max(counts)
        n = f"{least}" if least == most else f"{least} to {most}"
        lines.append(
            f"{name}, recommended by {task.ordered_by}: {n} of "
            f"{counted(task.n_candidates, 'candidate')}. "
            f"Real sample {seed}: {first.sentence}"
        )
    return lines


def _filter_lines(result: TasksResult) -> list[str]:
    lines = []
    for name, task in result.tasks.items():
        for seed, record in list(task.label_filters.items())[:1]:
            n_open = sum(each.is_open for each in task.label_filters.values())
            lines.append(
                f"{name}, label filter of all candidates: open for {n_open} of "
                f"{counted(len(task.label_filters), 'real sample')}. Real sample {seed}: "
                f"{record.sentence}"
            )
    return lines


def _cost_line(result: TasksResult) -> str:
    parts = ", ".join(f"{name} {task.seconds:.1f} s" for name, task in result.tasks.items())
    return f"Cost: {parts}."


def _arm(figures: ArmFigures) -> str:
    return f"{_number(figures.mean)} ({_number(figures.std)})"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = titles
    columns = (Column(first, is_name=True), *(Column(title) for title in others))
    return str(Table("", columns, tuple(map(tuple, rows))))


def _number(value: float | None) -> str:
    return format_number(value, _DECIMALS)


def _signed(value: float | None) -> str:
    return format_signed(value, _DECIMALS)


def _interval(row: Over | PairedComparison) -> str:
    return format_interval(row.low, row.high, _DECIMALS) or UNDEFINED
