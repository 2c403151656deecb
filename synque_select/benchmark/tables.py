"""The benchmark's figures as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synque_select.report.formats import (
    UNDEFINED,
    format_interval,
    format_number,
    format_p,
    format_signed,
)
from synque_select.report.table import Column, Table

__all__ = ["render"]

_DECIMALS = 3


def render(result: Mapping[str, Any]) -> str:
    """Return the tables of what `run_released` gave.

    Args:
        result: The result, or what was read from its JSON file.

    Example:
        >>> print(render({"version": 1, "absent": ["web_agent: no such folder."], "tasks": {}}))
        web_agent: no such folder.
    """
    parts = ["\n".join(result.get("absent", ()))]
    parts += [_task(name, task) for name, task in result["tasks"].items()]
    return "\n\n".join(part for part in parts if part)


def _task(name: str, task: Mapping[str, Any]) -> str:
    ceiling = task["noise_ceiling"]
    head = (
        f"{name}: {_count(len(task['groups']), 'group')} ({', '.join(task['groups'])}), "
        f"{_count(len(task['seeds']), 'seed')} ({', '.join(map(str, task['seeds']))}); "
        f"noise ceiling of Spearman {_number(ceiling)}"
    )
    sections = [head, *task["absent"], _main_table(task), _difference_table(task)]
    if len(task["groups"]) > 1:
        sections.append(_group_table(task))
    sections += [_top_table(task), *_consensus_lines(task), _cost_line(task)]
    sections += _cross_group(task) + _sizes(task) + _corruptions(task)
    return "\n\n".join(section for section in sections if section)


def _main_table(task: Mapping[str, Any]) -> str:
    n_groups = len(task["groups"])
    rows = [
        (
            key if row["n_groups"] == n_groups else f"{key} (in {row['n_groups']} of {n_groups})",
            _number(row["pearson"]),
            _number(row["spearman"]),
            _interval(row),
            _number(row["seed_spread"]),
        )
        for key, row in task["proxies"].items()
    ]
    return _table(("proxy", "pearson", "spearman", "95 % interval", "seed sd"), rows)


def _difference_table(task: Mapping[str, Any]) -> str:
    rows = [
        (key, _signed(minus["difference"]), _interval(minus), minus["verdict"])
        for key, minus in task.get("consensus_minus", {}).items()
    ]
    titles = ("spearman of the consensus minus that of", "difference", "95 % interval", "consensus")
    return _table(titles, rows) if rows else ""


def _group_table(task: Mapping[str, Any]) -> str:
    rows = [
        (key, *(_number(row["by_group"][group]["spearman"]) for group in task["groups"]))
        for key, row in task["proxies"].items()
    ]
    ceilings = task["noise_ceiling_by_group"]
    rows.append(
        ("noise ceiling", *(_number(ceilings[group]["spearman"]) for group in task["groups"]))
    )
    return _table(("spearman by group", *task["groups"]), rows)


def _top_table(task: Mapping[str, Any]) -> str:
    rows = []
    for key, row in task["proxies"].items():
        top = row["top3"]
        if top["chosen"] is not None:
            ends = top.get("share_without_a_group")
            rows.append(
                (
                    key,
                    *(_number(top[name]) for name in ("chosen", "blind", "oracle", "share")),
                    format_p(top["p"]),
                    UNDEFINED if ends is None else f"{_number(ends[0])} to {_number(ends[1])}",
                )
            )
    titles = ("top 3", "chosen", "blind", "oracle", "share", "p", "share without a group")
    return _table(titles, rows) if rows else ""


def _consensus_lines(task: Mapping[str, Any]) -> list[str]:
    if "consensus_minus" not in task:
        return ["No consensus: the default suite was not run as a whole."]
    lines = []
    best = task["best_baseline"]
    if best is not None:
        minus = task["consensus_minus"][best]
        lines.append(
            f"Best baseline that never reads the real sample, chosen after the fact: {best} "
            f"({_number(task['proxies'][best]['spearman'])}). Consensus minus it: "
            f"{_signed(minus['difference'])} {_interval(minus)}: {minus['verdict']}."
        )
    worse = task["groups_below_the_median_proxy"]
    lines.append(
        "Groups in which the consensus is below the median single proxy: "
        + (", ".join(worse) if worse else "none")
        + "."
    )
    return lines


def _cost_line(task: Mapping[str, Any]) -> str:
    cost = task["cost"]
    seconds = ", ".join(
        f"{key} {row['seconds']:.2f}" for key, row in task["proxies"].items() if "seconds" in row
    )
    return (
        f"Cost: {cost['seconds']:.1f} s in all, {cost['encoder_calls']} texts encoded now of "
        f"{cost['views']} distinct ones, {cost['judge_calls']} judge calls, "
        f"{cost['scores_resumed']} columns read from an earlier run. "
        f"Seconds of scoring a ranking: {seconds}."
    )


def _cross_group(task: Mapping[str, Any]) -> list[str]:
    found = task.get("cross_group")
    if found is None or "message" in found:
        return [] if found is None else [found["message"]]
    rows = [
        (key, _number(row["auc"]), *(_number(_auc(row, group)) for group in task["groups"]))
        for key, row in found.items()
    ]
    return [_table(("own before decoys (AUC)", "mean", *task["groups"]), rows)]


def _auc(row: Mapping[str, Any], group: str) -> float | None:
    found: float | None = row["by_group"].get(group, {}).get("auc")
    return found


def _sizes(task: Mapping[str, Any]) -> list[str]:
    found = task.get("sample_sizes", {})
    said = [part["message"] for part in found.values() if "message" in part]
    tried = {size: part for size, part in found.items() if "message" not in part}
    if not tried:
        return said
    rows = [
        (
            key,
            *(_number(part["proxies"].get(key, {}).get("spearman")) for part in tried.values()),
            _number(row["spearman"]),
        )
        for key, row in task["proxies"].items()
    ]
    return [*said, _table(("spearman by real sample size", *tried, "all"), rows)]


def _corruptions(task: Mapping[str, Any]) -> list[str]:
    found = task.get("corruptions", {})
    said = [part["message"] for part in found.values() if "message" in part]
    tried = {name: part for name, part in found.items() if "message" not in part}
    if not tried:
        return said
    keys = dict.fromkeys(key for part in tried.values() for key in part)
    rows = [(key, *(_reaction(part.get(key)) for part in tried.values())) for key in keys]
    return [*said, _table(("spoilt twin scores worse (shift)", *tried), rows)]


def _reaction(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return UNDEFINED
    return f"{_number(row['noticed'])} ({_signed(row['shift'])} sd)"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = titles
    columns = (Column(first, is_name=True, is_whole=True), *(Column(title) for title in others))
    return str(Table("", columns, tuple(map(tuple, rows))))


def _number(value: float | None) -> str:
    return format_number(value, _DECIMALS)


def _signed(value: float | None) -> str:
    return format_signed(value, _DECIMALS)


def _interval(row: Mapping[str, Any]) -> str:
    return format_interval(row["low"], row["high"], _DECIMALS) or UNDEFINED


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
