"""A ranking and the scores behind it, as tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from synque_select.functional.correlation import Correlation
from synque_select.report.formats import (
    decimals_of,
    format_interval,
    format_number,
    format_p,
    format_rank,
    format_signed,
)
from synque_select.report.table import Column, Table
from synque_select.types import ProxyScore, RankedCandidate, Ranking

__all__ = [
    "ranking_table",
    "ranking_tables",
    "real_sample_words",
    "reliability_words",
    "scores_table",
]


def ranking_tables(ranking: Ranking, *, reliability: Correlation | None = None) -> list[Table]:
    """Return the table of a ranking and that of its scores; see `ranking_table`."""
    return [ranking_table(ranking, reliability=reliability), scores_table(ranking)]


def ranking_table(ranking: Ranking, *, reliability: Correlation | None = None) -> Table:
    """Return a ranking as a table: best first, the rank by each proxy, and how stable it is.

    Args:
        ranking: The ranking.
        reliability: Measured correlation of the ranking's `rank_by` with validation on this task;
            None if it was not measured, which the table then says.
    """
    order = ranking.order()
    columns, parts = _order_columns(ranking)
    if _has_mean_rank(ranking):
        columns.append(Column("mean rank"))
        parts.append([format_number(row.mean_rank) for row in order])
    if any(row.selection_stability is not None for row in order):
        columns.append(Column("selection_stability"))
        parts.append([format_number(row.selection_stability) for row in order])
    if ranking.own_mixture is not None:
        columns.append(Column("weight"))
        parts.append([_weight(ranking.own_mixture.weights.get(row.name)) for row in order])
    for key in ranking.proxies if tuple(ranking.proxies) != (ranking.rank_by,) else ():
        columns.append(Column(key))
        parts.append([format_rank(row.ranks[key]) for row in order])
    return Table(
        title=f"Ranking by {ranking.rank_by} against {real_sample_words(ranking)}",
        columns=tuple(columns),
        rows=tuple(zip(*parts, strict=True)),
        notes=_ranking_notes(ranking, reliability),
    )


def scores_table(ranking: Ranking) -> Table:
    """Return each proxy's value, interval, test and gap to the next, in the ranking's order."""
    order = ranking.order()
    deciding = _deciding(ranking)
    columns, parts = _order_columns(ranking)
    columns[-1] = Column("candidate", is_name=True, is_reminder=True)
    for key, info in ranking.proxies.items():
        columns.append(Column(key))
        parts.append(_value_cells(order, key))
        if any(row.scores[key].p_value is not None for row in order):
            columns.append(Column("p", stays=True))
            parts.append([format_p(row.scores[key].p_value) for row in order])
        if key in deciding:
            columns.append(Column("to next", stays=True))
            parts.append(_gap_cells(order, key, info.higher_is_better))
    columns.append(Column("N"))
    parts.append([f"{row.n:,}" for row in order])
    return Table(
        title="Scores of the proxies",
        columns=tuple(columns),
        rows=tuple(zip(*parts, strict=True)),
        notes=_score_notes(ranking, deciding),
    )


def real_sample_words(ranking: Ranking) -> str:
    """Return the size of the real sample, with its groups if it has any.

    Returns:
        Such as "60 real examples in 20 groups (effective n 18.5)".
    """
    words = f"{ranking.n_real:,} real examples"
    if ranking.n_groups is None or ranking.effective_n is None:
        return words
    if ranking.n_groups == ranking.n_real:
        return words
    groups = "1 group" if ranking.n_groups == 1 else f"{ranking.n_groups:,} groups"
    return f"{words} in {groups} (effective n {ranking.effective_n:,.1f})"


def _order_columns(ranking: Ranking) -> tuple[list[Column], list[list[str]]]:
    """Return the first columns of both tables, and their cells."""
    order = ranking.order()
    selected = ranking.top().weights
    ranks = [
        format_rank(row.ranks[ranking.rank_by]) + (" *" if row.name in selected else "")
        for row in order
    ]
    columns = [Column("#", is_name=True), Column("candidate", is_name=True)]
    return columns, [ranks, [row.name for row in order]]


def _has_mean_rank(ranking: Ranking) -> bool:
    is_consensus = ranking.rank_by not in ranking.proxies
    return is_consensus and any(row.mean_rank is not None for row in ranking.candidates)


def _weight(weight: float | None) -> str:
    return "" if weight is None else format_number(weight, 3)


def _deciding(ranking: Ranking) -> tuple[str, ...]:
    """Return the proxies that decide the order."""
    if ranking.rank_by in ranking.proxies:
        return (ranking.rank_by,)
    return tuple(key for key, info in ranking.proxies.items() if info.in_consensus)


def _value_cells(order: Sequence[RankedCandidate], key: str) -> list[str]:
    scores = [row.scores[key] for row in order]
    decimals = decimals_of(score.value for score in scores)
    values = [format_number(score.value, decimals) + _spread(score, decimals) for score in scores]
    intervals = [format_interval(score.low, score.high, decimals) for score in scores]
    widest = max(map(len, intervals))
    return [
        f"{value} {interval:>{widest}}" if widest else value
        for value, interval in zip(values, intervals, strict=True)
    ]


def _has_spread(score: ProxyScore) -> bool:
    return score.spread is not None and score.low is None and math.isfinite(score.value)


def _spread(score: ProxyScore, decimals: int) -> str:
    return f" ± {format_number(score.spread, decimals)}" if _has_spread(score) else ""


def _gap_cells(order: Sequence[RankedCandidate], key: str, higher: bool) -> list[str]:
    values = [row.scores[key].value * (1 if higher else -1) for row in order]
    gaps = [first - second for first, second in itertools.pairwise(values)]
    decimals = decimals_of(values)
    return [*(format_signed(gap, decimals) for gap in gaps), ""]


def _ranking_notes(ranking: Ranking, reliability: Correlation | None) -> tuple[str, ...]:
    notes = [f"*: selected, {_selection_words(ranking)}", *ranking.messages]
    members = [key for key, info in ranking.proxies.items() if info.in_consensus]
    if _has_mean_rank(ranking):
        notes.append(
            f"mean rank: mean of the ranks by {', '.join(members)}; it orders the consensus, and "
            "depends on which other candidates are present"
        )
    if any(row.selection_stability is not None for row in ranking.candidates):
        notes.append(
            "selection_stability: share of redrawn real samples in which the candidate stays in "
            f"the top {ranking.stability_k} by {ranking.rank_by}, not the chance of being truly "
            f"best; {reliability_words(ranking.rank_by, reliability)}"
        )
    return tuple(notes)


def _score_notes(ranking: Ranking, deciding: Sequence[str]) -> tuple[str, ...]:
    notes = []
    for higher, words in ((True, "higher"), (False, "lower")):
        keys = [k for k, info in ranking.proxies.items() if info.higher_is_better == higher]
        if keys:
            notes.append(f"{words} is better: {', '.join(keys)}")
    if deciding:
        notes.append(
            "to next: by how much the candidate is better than the next one in this order, in the "
            "proxy's own unit"
        )
    if any(s.low is not None for row in ranking.candidates for s in row.scores.values()):
        notes.append("[low, high]: 95 % interval over new real samples")
    if any(_has_spread(s) for row in ranking.candidates for s in row.scores.values()):
        notes.append("±: standard deviation over seeds, which is not an interval")
    if any(s.p_value is not None for row in ranking.candidates for s in row.scores.values()):
        notes.append(
            "p: permutation test that real sample and candidate come from one distribution; it "
            "shrinks with size and never ranks"
        )
    return tuple(notes)


def _selection_words(ranking: Ranking) -> str:
    mixture = ranking.top()
    if ranking.own_mixture is not None:
        return f"{mixture.source}; weight: its share of the training draws"
    return f"{mixture.source}, weight {1 / len(mixture.names):.3g} each"


def reliability_words(key: str, reliability: Correlation | None) -> str:
    """Return what must stand beside every `selection_stability`.

    Example:
        >>> reliability_words("pad", None)
        'reliability on your task unknown'
    """
    if reliability is None or math.isnan(reliability.spearman.value):
        return "reliability on your task unknown"
    spearman = reliability.spearman
    interval = format_interval(spearman.low, spearman.high)
    return (
        f"measured reliability of {key} on this task: Spearman {format_signed(spearman.value)} "
        f"{interval + ' ' if interval else ''}over {reliability.n} units, {reliability.verdict}"
    )
