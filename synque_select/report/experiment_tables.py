"""The result of an experiment as tables."""

from __future__ import annotations

from collections.abc import Mapping

from synque_select.functional.paired import MIN_PAIRS, PairedComparison
from synque_select.records.experiment_result import ExperimentResult
from synque_select.report.formats import (
    UNDEFINED,
    figure_decimals,
    format_interval,
    format_number,
    format_p,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.report.untrained import UNTRAINED_NAME, against_untrained

__all__ = [
    "arm_words",
    "arms_table",
    "candidates_table",
    "comparison_sentences",
    "comparison_tables",
    "cost_table",
    "verdict_words",
]

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
    "none": UNTRAINED_NAME,
}


def arm_words(name: str) -> str:
    """Return what an arm of `result.json` is called in tables and figures."""
    if name.startswith("policy:"):
        return f"policy {name.removeprefix('policy:')}"
    if name.startswith("sampling:"):
        return name.removeprefix("sampling:").replace(":", " ")
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


def comparison_tables(result: ExperimentResult) -> list[Table]:
    """Return the paired comparisons of an experiment, those with the model as it is apart."""
    notes = (
        f"difference of {result.metric.name}, paired over replicates; its interval is for this "
        "comparison alone",
        _rule(result),
    )
    tables = [
        _comparison_table(
            "Paired comparisons", "selected mixture against", result.chosen_against, notes
        )
    ]
    others = {arm: pair for arm, pair in result.against_none.items() if arm != "chosen"}
    if others:
        title = "Other arms against the model as it is"
        tables.append(_comparison_table(title, "arm", others, (_against_none(result), *notes[1:])))
    if result.policy_comparisons:
        title = "Policies against a mixture that stays as it is"
        pairs = result.policy_comparisons
        tables.append(_comparison_table(title, "policy, against", pairs, notes))
    if result.sampling_comparisons:
        title = "Other samplings of the same mixture against weights of examples in random order"
        pairs = result.sampling_comparisons
        tables.append(_comparison_table(title, "sampling, against", pairs, notes))
    return tables


def _comparison_table(
    title: str, head: str, pairs: Mapping[str, PairedComparison], notes: tuple[str, ...]
) -> Table:
    heads = ("difference", "95 % interval", "pairs", "p (Holm)", "verdict")
    rows = tuple(
        (
            _words_of_pair(arm),
            format_signed(pair.difference, 4),
            format_interval(pair.low, pair.high, 4) or UNDEFINED,
            str(pair.n),
            format_p(pair.p_holm),
            verdict_words(pair),
        )
        for arm, pair in pairs.items()
    )
    return Table(title, (Column(head, is_name=True), *map(Column, heads)), rows, notes)


def _words_of_pair(name: str) -> str:
    """Return the words of an arm, or of both arms of a comparison of a policy or a sampling."""
    arm, against, other = name.rpartition("_vs_")
    return f"{arm_words(arm)}, {arm_words(other)}" if against else arm_words(name)


def _rule(result: ExperimentResult) -> str:
    """Say when a comparison has a verdict."""
    tested = sum(pair.n >= MIN_PAIRS for pair in result.comparisons.values())
    rule = (
        f'"beats", "is beaten by": p below 0.05 after Holm over the {tested} '
        f"comparison{'s' * (tested != 1)} of at least {MIN_PAIRS} pairs"
    )
    if tested < len(result.comparisons):
        few = f"fewer than {MIN_PAIRS} pairs are a hint, not a finding"
        return f"{rule}; {few}" if tested else few
    return rule


def verdict_words(pair: PairedComparison) -> str:
    """Return the verdict as tables show it.

    Example:
        >>> verdict_words(PairedComparison(0.1, 0.05, 0.15, 2, "hint only"))
        'hint only (2 pairs)'
    """
    if pair.verdict != "hint only":
        return pair.verdict
    return f"hint only ({pair.n} pair{'s' * (pair.n != 1)})"


def _against_none(result: ExperimentResult) -> str:
    """Say whether any arm is shown to beat the model as it is."""
    pairs = {arm_words(arm): pair for arm, pair in result.against_none.items()}
    return against_untrained(pairs, result.metric.name, result.metric.mode)


def comparison_sentences(result: ExperimentResult) -> list[str]:
    """Return the verdicts of an experiment, one sentence per verdict, and when there is one."""
    by_verdict: dict[str, list[str]] = {}
    for name, pair in result.chosen_against.items():
        other = arm_words(name)
        interval = format_interval(pair.low, pair.high, 3)
        shown = " ".join(filter(None, (format_signed(pair.difference, 3), interval)))
        by_verdict.setdefault(pair.verdict, []).append(
            other if pair.verdict in ("no difference shown", "not compared") else f"{other} {shown}"
        )
    metric = result.metric.name
    heads = {
        "beats": f"By {metric}, the selected mixture beats",
        "is beaten by": f"By {metric}, the selected mixture is beaten by",
        "hint only": f"Fewer than {MIN_PAIRS} pairs, a hint only: {metric} minus that of",
        "no difference shown": f"By {metric}, no difference is shown from",
        "not compared": "Not compared with",
    }
    lines = [
        f"{head}: {', '.join(by_verdict[verdict])}."
        for verdict, head in heads.items()
        if verdict in by_verdict
    ]
    if result.against_none:
        sentence = _against_none(result)
        lines.append(f"{sentence[0].upper()}{sentence[1:]}.")
    has_verdicts = any(pair.n >= MIN_PAIRS for pair in result.comparisons.values())
    return [*lines, f"{_rule(result)}."] if has_verdicts else lines


def cost_table(wall_s: Mapping[str, float]) -> Table:
    """Return the seconds of each stage and their share of the total."""
    total = sum(wall_s.values())
    rows = tuple(
        (stage, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %" if total else UNDEFINED)
        for stage, seconds in wall_s.items()
    )
    columns = (Column("stage", is_name=True), Column("seconds"), Column("share"))
    return Table("Wall-clock cost", columns, (*rows, ("all", f"{total:.1f}", "")), ())
