"""The result of an experiment as tables."""

from __future__ import annotations

from collections.abc import Mapping

from synque_select.records.experiment_result import ExperimentResult
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
    "chosen": "selected: mixture of the top k",
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
    """Return what an arm of `result.json` is called in tables and figures."""
    return _ARM_WORDS.get(name, name)


def arms_table(result: ExperimentResult) -> Table:
    """Return the arms of an experiment.

    Arms that use labels of real data are marked: they are bounds and not competitors.
    """
    metric, arms = result.metric, result.arms
    has_labels = any(arm.uses_labels for arm in arms.values())
    heads = [f"mean {metric.name}", "std", "n", *["labels"] * has_labels]
    columns = (Column("arm", is_name=True), *map(Column, heads))
    decimals = figure_decimals(arm.mean for arm in arms.values())
    rows = []
    for name, arm in arms.items():
        row = [arm_words(name), format_number(arm.mean, decimals)]
        row += [format_number(arm.std, decimals), str(arm.n)]
        row += ["uses labels" if arm.uses_labels else ""] * has_labels
        rows.append(tuple(row))
    better = "higher" if metric.mode == "max" else "lower"
    note = f"{better} is better; std over replicates (a new real sample and training seed each)"
    title = f"Arms, {result.replicates} paired replicates"
    return Table(title, columns, tuple(rows), (note, *result.messages))


def candidates_table(result: ExperimentResult) -> Table:
    """Return the figures of training on each candidate alone, best first."""
    sign = -1 if result.metric.mode == "max" else 1
    singles = sorted(result.candidates.items(), key=lambda item: sign * item[1].test)
    decimals = figure_decimals(single.test for _, single in singles)
    heads = (result.metric.name, "std over seeds", "seeds", "N", "")
    columns = (Column("candidate", is_name=True), *map(Column, heads))
    rows = tuple(
        (
            name,
            format_number(single.test, decimals),
            format_number(single.std, decimals),
            str(single.n_seeds),
            f"{single.n:,}",
            "false labels" if single.false_labels else "",
        )
        for name, single in singles
    )
    return Table("Each candidate alone", columns, rows)


def comparison_table(result: ExperimentResult) -> Table:
    """Return the paired comparisons of an experiment."""
    columns = (
        Column("comparison", is_name=True),
        *map(Column, ("difference", "95 % interval", "pairs", "verdict")),
    )
    rows = tuple(
        (
            " vs ".join(arm_words(arm).partition(":")[0] for arm in name.split("_vs_")),
            format_signed(pair.difference, 4),
            format_interval(pair.low, pair.high, 4) or UNDEFINED,
            str(pair.n),
            pair.verdict,
        )
        for name, pair in result.comparisons.items()
    )
    notes = [
        f'difference of {result.metric.name}, paired over replicates; "beats" means that the '
        "paired 95 % t-interval excludes 0"
    ]
    if any(pair.n < _FEWEST_PAIRS for pair in result.comparisons.values()):
        notes.append(f"a comparison over fewer than {_FEWEST_PAIRS} pairs is a hint, not a finding")
    return Table("Paired comparisons", columns, rows, tuple(notes))


def cost_table(wall_s: Mapping[str, float]) -> Table:
    """Return the seconds of each stage and their share of the total."""
    total = sum(wall_s.values())
    rows = tuple(
        (stage, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %" if total else UNDEFINED)
        for stage, seconds in wall_s.items()
    )
    columns = (Column("stage", is_name=True), Column("seconds"), Column("share"))
    return Table("Wall-clock cost", columns, (*rows, ("all", f"{total:.1f}", "")), ())
