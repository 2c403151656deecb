"""The figures of a benchmark run as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from synque_select.benchmark.result import (
    BenchmarkResult,
    Comparison,
    Difference,
    ProxyFigures,
    ReactionFigures,
    TaskResult,
)
from synque_select.report.formats import (
    UNDEFINED,
    format_interval,
    format_number,
    format_p,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.utils.wording import counted

__all__ = ["render"]

_DECIMALS = 3


def render(result: BenchmarkResult) -> str:
    """Return the tables of a benchmark run as plain text.

    Args:
        result: What `run_released` returned, or `BenchmarkResult.from_dict` read from its file.

    Example:
        >>> print(render(BenchmarkResult(0, "letters", "1", ("web_agent: no such folder.",))))
        web_agent: no such folder.
    """
    parts = ["\n".join(result.absent)]
    parts += [_task(name, task) for name, task in result.tasks.items()]
    return "\n\n".join(part for part in parts if part)


def _task(name: str, task: TaskResult) -> str:
    head = (
        f"{name}: {_count(len(task.groups), 'group')} ({', '.join(task.groups)}), "
        f"{_count(len(task.seeds), 'seed')} ({', '.join(map(str, task.seeds))}); "
        f"noise ceiling of Spearman {_number(task.noise_ceiling)}"
    )
    comparison = task.analysis.comparison
    sections = [head, *task.absent, _main_table(task), _difference_table(comparison)]
    if len(task.groups) > 1:
        sections.append(_group_table(task))
    sections += [_top_table(task), *_consensus_lines(task.proxies, comparison), _cost_line(task)]
    sections += _cross_group(task) + _sizes(task) + _corruptions(task)
    return "\n\n".join(section for section in sections if section)


def _main_table(task: TaskResult) -> str:
    n_groups = len(task.groups)
    rows = [
        (
            key if row.n_groups == n_groups else f"{key} (in {row.n_groups} of {n_groups})",
            _number(row.pearson),
            _number(row.spearman),
            _interval(row),
            _number(row.seed_spread),
        )
        for key, row in task.proxies.items()
    ]
    return _table(("proxy", "pearson", "spearman", "95 % interval", "seed sd"), rows)


def _difference_table(comparison: Comparison | None) -> str:
    rows = [
        (key, _signed(minus.difference), _interval(minus), format_p(minus.p_holm), minus.verdict)
        for key, minus in (comparison.consensus_minus.items() if comparison else ())
    ]
    if not rows:
        return ""
    titles = ("spearman of the consensus minus that of", "difference", "95 % interval")
    n_tested = sum(row[-1] != "undefined" for row in rows)
    note = f"interval: of this difference alone; verdict: Holm over these {n_tested}"
    return _table((*titles, "p (Holm)", "consensus"), rows, note)


def _group_table(task: TaskResult) -> str:
    rows = [
        (key, *(_number(row.by_group[group].spearman) for group in task.groups))
        for key, row in task.proxies.items()
    ]
    ceilings = task.noise_ceiling_by_group
    rows.append(("noise ceiling", *(_number(ceilings[group].spearman) for group in task.groups)))
    return _table(("spearman by group", *task.groups), rows)


def _top_table(task: TaskResult) -> str:
    rows = []
    for key, row in task.proxies.items():
        top = row.top3
        if _number(top.chosen) == UNDEFINED:
            continue
        ends = top.share_without_a_group
        rows.append(
            (
                key,
                *(_number(value) for value in (top.chosen, top.blind, top.oracle, top.share)),
                format_p(top.p),
                UNDEFINED if ends is None else f"{_number(ends[0])} to {_number(ends[1])}",
            )
        )
    titles = ("top 3", "chosen", "blind", "oracle", "share", "p", "share without a group")
    return _table(titles, rows) if rows else ""


def _consensus_lines(
    proxies: Mapping[str, ProxyFigures], comparison: Comparison | None
) -> list[str]:
    if comparison is None:
        return ["No consensus: the default suite was not run as a whole."]
    lines = []
    best = comparison.best_baseline
    if best is not None:
        minus = comparison.consensus_minus[best]
        lines.append(
            f"Best baseline that never reads the real sample, chosen after the fact: {best} "
            f"({_number(proxies[best].spearman)}). Consensus minus it: "
            f"{_signed(minus.difference)} {_interval(minus)}: {minus.verdict}."
        )
    below = comparison.groups_below_the_median_proxy
    lines.append(
        "Groups in which the consensus is below the median single proxy: "
        + (", ".join(below) if below else "none")
        + "."
    )
    return lines


def _cost_line(task: TaskResult) -> str:
    cost = task.cost
    seconds = ", ".join(
        f"{key} {format_number(row.seconds)}"
        for key, row in task.proxies.items()
        if row.seconds is not None
    )
    return (
        f"Cost: {cost.seconds:.1f} s in total, {counted(cost.encoder_calls, 'text')} encoded now "
        f"of {cost.views} distinct ones, {cost.judge_calls} judge calls, "
        f"{counted(cost.scores_resumed, 'column')} read from an earlier run. "
        f"Seconds to score one ranking: {seconds}."
    )


def _cross_group(task: TaskResult) -> list[str]:
    decoys = task.cross_group
    if decoys is None or isinstance(decoys, str):
        return [] if decoys is None else [decoys]
    rows = [
        (key, _number(row.auc), *(_number(row.by_group.get(group)) for group in task.groups))
        for key, row in decoys.items()
    ]
    return [_table(("own before decoys (AUC)", "mean", *task.groups), rows)]


def _sizes(task: TaskResult) -> list[str]:
    messages = [part for part in task.sample_sizes.values() if isinstance(part, str)]
    tried = {size: part for size, part in task.sample_sizes.items() if not isinstance(part, str)}
    if not tried:
        return messages
    rows = [
        (
            key,
            *(_spearman(part.proxies.get(key)) for part in tried.values()),
            _number(row.spearman),
        )
        for key, row in task.proxies.items()
    ]
    return [*messages, _table(("spearman by real sample size", *tried, "all"), rows)]


def _spearman(figures: ProxyFigures | None) -> str:
    return UNDEFINED if figures is None else _number(figures.spearman)


def _corruptions(task: TaskResult) -> list[str]:
    messages = [part for part in task.corruptions.values() if isinstance(part, str)]
    tried = {name: part for name, part in task.corruptions.items() if not isinstance(part, str)}
    if not tried:
        return messages
    keys = dict.fromkeys(key for part in tried.values() for key in part)
    rows = [(key, *(_reaction(part.get(key)) for part in tried.values())) for key in keys]
    return [*messages, _table(("corrupted twin scores worse (shift)", *tried), rows)]


def _reaction(figures: ReactionFigures | None) -> str:
    if figures is None:
        return UNDEFINED
    return f"{_number(figures.mean.noticed)} ({_signed(figures.mean.shift)} sd)"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *notes: str) -> str:
    first, *others = titles
    columns = (Column(first, is_name=True), *(Column(title) for title in others))
    return str(Table("", columns, tuple(map(tuple, rows)), notes))


def _number(value: float | None) -> str:
    return format_number(value, _DECIMALS)


def _signed(value: float | None) -> str:
    return format_signed(value, _DECIMALS)


def _interval(row: ProxyFigures | Difference) -> str:
    return format_interval(row.low, row.high, _DECIMALS) or UNDEFINED


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
