"""A ranking and the scores behind it, as tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from synque_select.functional.correlation import Correlation
from synque_select.report.formats import (
    UNDEFINED,
    decimals_of,
    format_interval,
    format_number,
    format_p,
    format_ranks,
    format_signed_estimate,
)
from synque_select.report.table import Column, Table
from synque_select.types import ProxyScore, RankedCandidate, Ranking
from synque_select.utils.wording import counted

__all__ = [
    "pairs_table",
    "ranking_table",
    "ranking_tables",
    "ranks_table",
    "reliability_words",
    "scores_table",
    "summary_table",
    "warnings_of",
]

_CONSENSUS = "consensus"
_ANSWERS = "answers"
_WORSE = "worse than"
# short, as names are: the note below the table says what it means
_REFERENCE = "more real"
# proxies that the row of further real examples has by extrapolation
_EXTRAPOLATED = frozenset(("coverage", "ngram"))
_R2 = "R²"
# what the scores that read labels mean, where these are classes and where they are numbers
_FROM_LABELS = {
    "transfer": (
        "share of the other candidates' labels, weighted towards the real sample, that a "
        "classifier trained on the candidate predicts, mean over classes",
        f"{_R2} of the other candidates' labels, weighted towards the real sample, by a regression "
        "trained on the candidate",
    ),
    "agreement": (
        "share of the real examples of which that classifier says the same as those of the others, "
        "mean over the classes that these predict",
        f"{_R2} of what the regressions of the others predict for the real examples, by the "
        "candidate's",
    ),
}
# messages that describe what was done, and no problem: a terminal shows them on request
_DESCRIPTIONS = re.compile(
    r"The labels of .+ (?:was|were) checked: |The label filter is off|"
    r"[\w., :]+: (?:examples of the others that test|estimated from random blocks of|judged by |"
    r"scored at a common size of|adaptive judging stopped|the share of your real examples)|"
    r"[\w., :]+ (?:compares? [\d,]+ examples? of every|is shown but not in the consensus)|"
    r"The order is by consensus, not by transfer"
)
# families of proxies whose values shift with the number of examples that they are computed from
_SIZED = frozenset(("coverage", "divergence", "diversity", "domain", "lexical"))
# of these families: its expected value is the same at every size; takes no more synthetic examples
# than there are real ones
_OF_ANY_SIZE, _OF_REAL_SIZE = "density", "knn_coverage"


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
    for name, cells in _selection_columns(ranking):
        columns.append(Column(name))
        parts.append(cells)
    for key in _ranked_by(ranking):
        columns.append(Column(key))
        parts.append(format_ranks([row.ranks[key] for row in order]))
    return Table(
        title=f"Ranking {ranking.by_words}",
        columns=tuple(columns),
        rows=tuple(zip(*parts, strict=True)),
        notes=_ranking_notes(ranking, reliability),
    )


def summary_table(ranking: Ranking, *, reliability: Correlation | None = None) -> Table:
    """Return what was decided and by which figures, in a table for terminals of 80 columns.

    The figures are what orders the candidates (the mean rank of a consensus, or the score of a
    proxy), and how many of the others are shown better, which decides whether one is left out.

    Args:
        ranking: The ranking.
        reliability: As for `ranking_table`.
    """
    order = ranking.order()
    columns, parts = _order_columns(ranking)
    for more in (_selection_columns(ranking), _deciding_columns(ranking)):
        columns += [Column(name) for name, _ in more]
        parts += [cells for _, cells in more]
    notes = [] if ranking.decision is None else [*ranking.decision.reasons]
    if ranking.own_mixture is not None:
        notes.append(f"weight: share of the training draws; {ranking.own_mixture.source}")
    stated = [_stability_note(ranking, reliability, is_short=True)]
    if not any(row.selection_stability is not None for row in order):
        words = reliability_words(ranking.rank_by, reliability)
        stated = [f"{words[0].upper()}{words[1:]}."]
    if any(column.name == _WORSE for column in columns):
        stated.append(f"{_WORSE}: how many of the others are shown better")
    return Table(
        title=f"Ranking {ranking.by_words}",
        columns=tuple(columns),
        rows=tuple(zip(*parts, strict=True)),
        notes=(*notes, *stated),
    )


def warnings_of(ranking: Ranking) -> tuple[str, ...]:
    """Return the messages of a ranking that are about a problem, not about what was done.

    What a label filter changed comes first.
    """
    texts = [text for text in ranking.messages if not _DESCRIPTIONS.match(text)]
    first = None if ranking.label_filter is None else ranking.label_filter.sentence
    return tuple(sorted(texts, key=lambda text: text != first))


def ranks_table(ranking: Ranking, *, reliability: Correlation | None = None) -> Table:
    """Return the ranks by each proxy, with all that is to say about the ranking.

    Args:
        ranking: The ranking.
        reliability: As for `ranking_table`.
    """
    order = ranking.order()
    columns, parts = _order_columns(ranking)
    for key in _ranked_by(ranking):
        columns.append(Column(key))
        parts.append(format_ranks([row.ranks[key] for row in order]))
    return Table(
        title="Ranks by each proxy",
        columns=tuple(columns) if _ranked_by(ranking) else (),
        rows=tuple(zip(*parts, strict=True)),
        notes=_ranking_notes(ranking, reliability),
    )


def scores_table(ranking: Ranking) -> Table:
    """Return each proxy's value, interval and test, in the ranking's order.

    The last row is the scale: about what a candidate of further real examples would score.
    """
    order = ranking.order()
    columns, parts = _order_columns(ranking)
    for key in ranking.proxies:
        columns.append(Column(key))
        parts.append(_value_cells(order, key))
        if any(row.scores[key].p_value is not None for row in order):
            columns.append(Column("p", stays=True))
            parts.append([format_p(row.scores[key].p_value) for row in order])
    columns.append(Column("N"))
    parts.append([f"{row.n:,}" for row in order])
    if any(info.reference is not None for info in ranking.proxies.values()):
        for column, part in zip(columns, parts, strict=True):
            part.append(_reference_cell(ranking, column))
    rows = tuple(zip(*parts, strict=True))
    return Table(
        title="Scores of the proxies",
        columns=tuple(columns),
        rows=rows,
        sparse_rows=frozenset(range(len(order), len(rows))),
        notes=_score_notes(ranking),
    )


def pairs_table(ranking: Ranking) -> Table | None:
    """Return which candidates are shown better than which others, as a matrix.

    Args:
        ranking: The ranking.

    Returns:
        The table; None if the candidates were not compared.
    """
    pairs = ranking.distinguished
    if pairs is None or ranking.decision is None:
        return None
    evidence = ranking.decision.evidence
    names = [row.name for row in ranking.order() if row.name not in evidence.copies]
    better = frozenset(pairs)
    marks = {(a, b): "+" for a, b in better} | {(b, a): "\N{MINUS SIGN}" for a, b in better}
    numbers = [str(i) for i in range(1, len(names) + 1)]
    return Table(
        title=f"Pairs distinguished by {ranking.rank_by}: {len(pairs)} of {evidence.n_pairs:,}",
        columns=(
            Column("", is_name=True),
            Column("candidate", is_name=True),
            *map(Column, numbers),
        ),
        rows=tuple(
            (number, name, *(marks.get((name, other), "") for other in names))
            for number, name in zip(numbers, names, strict=True)
        ),
        notes=(
            "+: the candidate of the row is shown better than that of the column; \N{MINUS SIGN}: "
            "shown worse (simultaneous 95 % over all pairs); empty: not distinguished",
        ),
    )


def _order_columns(ranking: Ranking) -> tuple[list[Column], list[list[str]]]:
    """Return the first columns of both tables, and their cells."""
    order = ranking.order()
    ranks = format_ranks([row.ranks[ranking.rank_by] for row in order])
    columns = [Column("#", is_name=True), Column("candidate", is_name=True)]
    return columns, [ranks, [row.name for row in order]]


def _selection_columns(ranking: Ranking) -> list[tuple[str, list[str]]]:
    """Return the columns on what is selected, each with its cells."""
    order, selected = ranking.order(), ranking.top().weights
    columns = [("selected", ["yes" if row.name in selected else "" for row in order])]
    if ranking.own_mixture is not None:
        weights = ranking.own_mixture.weights
        columns.append(("weight", [_weight(weights.get(row.name)) for row in order]))
    if any(row.selection_stability is not None for row in order):
        stability = [format_number(row.selection_stability) for row in order]
        columns.append(("selection_stability", stability))
    return columns


def _deciding_columns(ranking: Ranking) -> list[tuple[str, list[str]]]:
    """Return the columns of figures that decided, each with its cells."""
    order, by = ranking.order(), ranking.rank_by
    columns = []
    if by in ranking.proxies:
        keys = [by, *(key for key in (_ANSWERS,) if key in ranking.proxies and key != by)]
        for key in keys:
            values = [row.scores[key].value for row in order]
            decimals = decimals_of(values)
            columns.append((key, [format_number(value, decimals) for value in values]))
    elif any(row.mean_rank is not None for row in order):
        columns.append(("mean rank", [format_number(row.mean_rank) for row in order]))
    pairs = ranking.distinguished
    if pairs:
        left_out = () if ranking.decision is None else ranking.decision.evidence.copies
        n_others = len(order) - len(left_out) - 1
        n_better = Counter(worse for _, worse in pairs)
        cells = [
            UNDEFINED if row.name in left_out else f"{n_better[row.name]} of {n_others}"
            for row in order
        ]
        columns.append((_WORSE, cells))
    return columns


def _ranked_by(ranking: Ranking) -> tuple[str, ...]:
    """Return what has a column with its ranks."""
    keys = tuple(ranking.proxies)
    if keys == (ranking.rank_by,):
        return ()
    own = ranking.proxies.get(ranking.rank_by)
    # an order by labels says nothing of the inputs, which the consensus compares
    if own is not None and own.reads_labels and _CONSENSUS in ranking.candidates[0].ranks:
        return (*keys, _CONSENSUS)
    return keys


def _weight(weight: float | None) -> str:
    return "" if weight is None else format_number(weight, 3)


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


def _reference_cell(ranking: Ranking, column: Column) -> str:
    if column.name == "candidate":
        return _REFERENCE
    info = ranking.proxies.get(column.name)
    if info is None or info.reference is None:
        return ""
    values = [row.scores[column.name].value for row in ranking.candidates]
    return format_number(info.reference, decimals_of([*values, info.reference]))


def _has_spread(score: ProxyScore) -> bool:
    return score.spread is not None and score.low is None and math.isfinite(score.value)


def _spread(score: ProxyScore, decimals: int) -> str:
    return f" ± {format_number(score.spread, decimals)}" if _has_spread(score) else ""


def _ranking_notes(ranking: Ranking, reliability: Correlation | None) -> tuple[str, ...]:
    notes = [f"selected: {_selection_words(ranking)}", *ranking.messages]
    members = [key for key, info in ranking.proxies.items() if info.in_consensus]
    if members and _CONSENSUS in (ranking.rank_by, *_ranked_by(ranking)):
        mean = f"mean of the ranks by {', '.join(members)}; it depends on which other candidates"
        alone = f"the rank by {members[0]}, as no other proxy here may enter it"
        notes.append(f"{_CONSENSUS}: {f'{mean} are present' if len(members) > 1 else alone}")
    if any(row.selection_stability is not None for row in ranking.candidates):
        notes.append(_stability_note(ranking, reliability))
    notes.append(f"these files are ranked, not their generators, and {_measured(ranking)}")
    return tuple(notes)


def _stability_note(
    ranking: Ranking, reliability: Correlation | None, *, is_short: bool = False
) -> str:
    trust = reliability_words(ranking.rank_by, reliability)
    if is_short:
        return (
            "selection_stability: estimated share of new real samples in which it is in the top "
            f"{ranking.stability_k}, not the chance of being truly best; {trust}"
        )
    return (
        f"selection_stability: estimated share of {_redrawn(ranking)} in which the candidate "
        f"is in the top {_of_places(ranking)}; too high near ties, and not the chance of being "
        f"truly best; {trust}"
    )


def _of_places(ranking: Ranking) -> str:
    """Say which places the stability is about."""
    n = sum(row.selection_stability is not None for row in ranking.candidates)
    of = "" if n == len(ranking) else f" of the {n} that can be selected"
    return f"{ranking.stability_k} by {ranking.rank_by}{of}"


def _redrawn(ranking: Ranking) -> str:
    """Say what the stability is about: what is drawn again."""
    info = ranking.proxies.get(ranking.rank_by)
    judged = "" if info is None or not info.reads_labels else ", judged by other candidates,"
    return f"new real samples of {counted(ranking.n_real, 'example')}{judged}"


def _measured(ranking: Ranking) -> str:
    """Say what the order is by, and what it is not."""
    info = ranking.proxies.get(ranking.rank_by)
    if info is None:
        return "by proxies only: closeness to the real inputs, not quality"
    if info.key == "agreement":
        return (
            "by agreement: how far the candidates' classifiers agree on the real inputs; an error "
            "that most of them share counts as right"
        )
    if info.reads_labels:
        return (
            f"by {info.key}: how well the candidates predict each other's labels on inputs like "
            "the real ones; an error that most of them share counts as right"
        )
    if not info.reads_real:
        return f"by {info.key}, which never reads the real sample"
    what = "closeness" if info.is_distance else "likeness"
    return f"by {info.key} only: {what} to the real inputs, not quality"


def _score_notes(ranking: Ranking) -> tuple[str, ...]:
    notes = []
    for higher, words in ((True, "higher"), (False, "lower")):
        keys = [k for k, info in ranking.proxies.items() if info.higher_is_better == higher]
        if keys:
            notes.append(f"{words} is better: {', '.join(keys)}")
    notes += _label_notes(ranking)
    notes += _size_notes(ranking)
    if any(s.low is not None for row in ranking.candidates for s in row.scores.values()):
        answered = (
            "; those of answers are for this real sample" if "answers" in ranking.proxies else ""
        )
        notes.append(
            "[low, high]: 95 % interval of one candidate over new real samples; do not compare by "
            f"overlap: the candidates share the real sample{answered}"
        )
    scaled = [key for key, info in ranking.proxies.items() if info.reference is not None]
    if scaled:
        notes.append(_reference_note(scaled))
    if any(_has_spread(s) for row in ranking.candidates for s in row.scores.values()):
        notes.append("±: standard deviation over seeds, which is not an interval")
    if any(s.p_value is not None for row in ranking.candidates for s in row.scores.values()):
        notes.append(
            "p: permutation test that real sample and candidate come from one distribution; it "
            "shrinks with size and never ranks"
        )
    return tuple(notes)


def _label_notes(ranking: Ranking) -> list[str]:
    """Say what the scores that read labels are shares of."""
    is_number = {key: info.unit == _R2 for key, info in ranking.proxies.items()}
    notes = [
        f"{key}: {(numbers if is_number[key] else classes)}"
        for key, (classes, numbers) in _FROM_LABELS.items()
        if key in is_number
    ]
    if any(is_number[key] for key in _FROM_LABELS if key in is_number):
        notes.append(f"{_R2}: 1 is perfect, 0 is as good as a constant, below 0 is worse")
    return notes


def _reference_note(scaled: Sequence[str]) -> str:
    note = (
        f"{_REFERENCE}: about what a candidate of further real examples would score, estimated "
        "from your real sample"
    )
    rough = [key for key in scaled if key in _EXTRAPOLATED]
    if not rough:
        return note
    return (
        f"{note}; that of {' and '.join(rough)} is extrapolated to the candidates' size, and rough "
        "where that is many times the size of the real sample"
    )


def _size_notes(ranking: Ranking) -> list[str]:
    """Say at which size the proxies were scored whose values depend on it."""
    smallest = min(row.n for row in ranking.candidates)
    by_size: dict[tuple[int, bool], list[str]] = {}
    for key, info in ranking.proxies.items():
        if info.family in _SIZED and key != _OF_ANY_SIZE:
            size = min(smallest, info.options.get("max_examples", smallest))
            size = min(size, ranking.n_real) if key == _OF_REAL_SIZE else size
            by_size.setdefault((size, info.reads_real), []).append(key)
    notes = []
    for (size, reads_real), keys in by_size.items():
        against = f", against {ranking.n_real:,} real ones" if reads_real else ""
        sizes = "both sizes" if reads_real else "that size"
        notes.append(
            f"{', '.join(keys)}: from at most {counted(size, 'example')} per candidate{against}; "
            f"the values depend on {sizes}, so compare them only within this table"
        )
    return notes


def _selection_words(ranking: Ranking) -> str:
    mixture = ranking.top()
    if ranking.own_mixture is not None:
        return f"{mixture.source}; a weight is a share of the training draws"
    if len(mixture.names) == 1:
        return mixture.source
    return f"{mixture.source}, each with weight {1 / len(mixture.names):.3g}"


_VERDICTS = {
    "agrees": "so that its order agrees with validation",
    "contradicts": "so that its order contradicts validation",
    "too few to tell": "too few to tell whether its order agrees with validation",
    "no coefficient": "too few to tell whether its order agrees with validation",
}


def reliability_words(key: str, reliability: Correlation | None) -> str:
    """Return what must stand beside every `selection_stability`.

    Example:
        >>> reliability_words("pad", None)
        'reliability of pad on your task is unknown'
    """
    if reliability is None or math.isnan(reliability.spearman.value):
        return f"reliability of {key} on your task is unknown"
    spearman = reliability.spearman
    estimate = format_signed_estimate(spearman.value, spearman.low, spearman.high)
    return (
        f"measured reliability of {key} on this task: Spearman {estimate} "
        f"(n = {reliability.n}), {_VERDICTS[reliability.verdict]}"
    )
