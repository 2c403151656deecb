"""What an experiment came to, as tables, from the content of its `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synque_select.report.formats import (
    UNDEFINED,
    figure_decimals,
    format_interval,
    format_number,
    format_signed,
)
from synque_select.report.table import Column, Table

__all__ = ["arm_words", "arms_table", "candidates_table", "comparison_table", "cost_table"]

_FEWEST_PAIRS = 5

_ARM_WORDS = {
    "chosen": "chosen: mixture of the top k",
    "random_k": "mixture of k at random",
    "all": "mixture of all",
    "mean_single": "mean single candidate",
    "best_single": "best single by proxy",
    "best_single_by_validation": "best single by validation",
    "oracle_k": "best k by validation",
    "probed_k": "best k by short probes",
    "tuned": "tuned: half of the steps for trials",
    "all_unequal": "all data, unequal sizes",
}


def arm_words(name: str) -> str:
    """Return how an arm of `result.json` is called in tables and figures."""
    return _ARM_WORDS.get(name, name)


def arms_table(result: Mapping[str, Any]) -> Table:
    """Return the arms of an experiment, in the form that `result.json` has them.

    Arms that used labels of real data are marked: they are no rivals, but bounds.
    """
    metric, arms = result["metric"], result["arms"]
    uses_labels = {name: bool(arm.get("uses_labels")) for name, arm in arms.items()}
    heads = [f"mean {metric['name']}", "std", "n", *["labels"] * any(uses_labels.values())]
    columns = (Column("arm", is_name=True), *map(Column, heads))
    decimals = figure_decimals(arm["mean"] for arm in arms.values())
    rows = []
    for name, arm in arms.items():
        row = [arm_words(name), format_number(arm["mean"], decimals)]
        row += [format_number(arm["std"], decimals), str(arm["n"])]
        row += ["uses labels" if uses_labels[name] else ""] * any(uses_labels.values())
        rows.append(tuple(row))
    better = "higher" if metric["mode"] == "max" else "lower"
    note = f"{better} is better; std over replicates (a new real sample and training seed each)"
    title = f"Arms, {result['replicates']} paired replicates"
    return Table(title, columns, tuple(rows), (note, *result.get("messages", ())))


def candidates_table(result: Mapping[str, Any]) -> Table:
    """Return what training on each candidate alone came to, best first, from `result.json`."""
    metric = result["metric"]
    sign = -1 if metric["mode"] == "max" else 1
    singles = sorted(result["candidates"].items(), key=lambda item: sign * item[1]["test"])
    decimals = figure_decimals(single["test"] for _, single in singles)
    heads = (metric["name"], "std over seeds", "seeds", "N", "")
    columns = (Column("candidate", is_name=True), *map(Column, heads))
    rows = tuple(
        (
            name,
            format_number(single["test"], decimals),
            format_number(single["std"], decimals),
            str(single["n_seeds"]),
            f"{single['n']:,}",
            "false labels" if single.get("false_labels") else "",
        )
        for name, single in singles
    )
    return Table("Each candidate alone", columns, rows)


def comparison_table(result: Mapping[str, Any]) -> Table:
    """Return the paired comparisons of an experiment, in the form that `result.json` has them."""
    columns = (
        Column("comparison", is_name=True),
        *map(Column, ("difference", "95 % interval", "pairs", "verdict")),
    )
    comparisons = result["comparisons"]
    pairs = [found.get("n", result["replicates"]) for found in comparisons.values()]
    rows = tuple(
        (
            " vs ".join(arm_words(arm).partition(":")[0] for arm in name.split("_vs_")),
            format_signed(found["difference"], 4),
            format_interval(found["low"], found["high"], 4) or UNDEFINED,
            str(n),
            found["verdict"],
        )
        for (name, found), n in zip(comparisons.items(), pairs, strict=True)
    )
    notes = [
        f'difference of {result["metric"]["name"]}, paired over replicates; "beats" means that '
        "the paired 95 % t-interval excludes 0"
    ]
    if any(n < _FEWEST_PAIRS for n in pairs):
        notes.append(f"a comparison over fewer than {_FEWEST_PAIRS} pairs is a hint, no finding")
    return Table("Paired comparisons", columns, rows, tuple(notes))


def cost_table(wall_s: Mapping[str, float]) -> Table:
    """Return the seconds of each stage and their share of the whole."""
    total = sum(wall_s.values())
    rows = tuple(
        (stage, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %" if total else UNDEFINED)
        for stage, seconds in wall_s.items()
    )
    columns = (Column("stage", is_name=True), Column("seconds"), Column("share"))
    return Table("Wall-clock cost", columns, (*rows, ("all", f"{total:.1f}", "")), ())
