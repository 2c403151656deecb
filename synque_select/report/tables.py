"""Tables as plain text for terminals and as Markdown for loggers, without any package."""

from __future__ import annotations

import itertools
import math
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations, MeanCorrelation, mean_correlations
from synque_select.types import ProxyScore, RankedCandidate, Ranking

__all__ = [
    "Column",
    "Table",
    "arm_words",
    "arms_table",
    "candidates_table",
    "comparison_table",
    "correlation_table",
    "correlation_tables",
    "cost_table",
    "decimals_of",
    "figure_decimals",
    "format_interval",
    "format_number",
    "mean_table",
    "ranking_table",
    "ranking_tables",
    "reliability_words",
    "scores_table",
    "shorten",
]

_UNDEFINED = "-"
_MIN_NAME = 10
_MAX_NAME = 60
_FEWEST_PAIRS = 5


@dataclass(frozen=True)
class Column:
    """A column's head and how it is set.

    Args:
        name: The head.
        is_name: Set to the left, cut in the middle where the line is too long, and repeated where
            the table is broken into several blocks. Other columns hold figures.
        stays: Whether the column is kept in one block with the one before it.
        is_reminder: Whether names may be cut until they look alike, for fewer blocks: a table
            above has them in the same order.
        is_whole: Whether names are cut only where a line cannot hold them: what they say
            matters, not only which they are.
    """

    name: str
    is_name: bool = False
    stays: bool = False
    is_reminder: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Table:
    """A title, heads, cells that are formatted already, and the notes that must go with them.

    `str(table)` is its plain text at the width of the terminal.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return plain text, no line longer than the width where its columns allow it.

        Args:
            width: In characters; None for the terminal's, 100 where there is none.
        """
        width = width or shutil.get_terminal_size((100, 24)).columns
        lines = [_clean(self.title), ""] if self.title else []
        if self.columns:
            cells = [[_clean(column.name) for column in self.columns]]
            cells += [[_clean(cell) for cell in row] for row in self.rows]
            for block in self._blocks(cells, width):
                lines += [*block, ""]
        for note in self.notes:
            lines += textwrap.wrap(
                _clean(note),
                max(width, 20),
                initial_indent="- ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
        return "\n".join(lines).rstrip("\n")

    def _blocks(self, cells: list[list[str]], width: int) -> list[list[str]]:
        """Break the columns into blocks that fit the width, each led by the names."""
        heads = [[head] for head in cells[0]]
        widths = _widths(heads, cells[1:])
        if sum(widths) + 2 * len(widths) - 2 > width:
            heads = [_in_two(head[0]) for head in heads]
            widths = _widths(heads, cells[1:])
        names = self._names()
        if names:  # the longest name gives way
            longest = max(names, key=lambda i: widths[i])
            widths[longest] = self._name_width(longest, cells, widths, width)
        groups = self._groups(widths, width)
        return [self._lines(heads, cells[1:], group, widths) for group in groups]

    def _name_width(self, name: int, cells: list[list[str]], widths: list[int], width: int) -> int:
        """Return the greatest width for names with which there are as few blocks as can be."""
        spans = [sum(widths[i] + 2 for i in unit) for unit in self._units()]
        others = sum(widths[i] + 2 for i in self._names() if i != name)
        most = max(_MIN_NAME, width - others - max(spans, default=0) - 2)
        natural = min(widths[name], _MAX_NAME, most)
        apart = _apart([row[name] for row in cells])
        is_cut = self.columns[name].is_reminder or apart > natural
        least = min(natural, _MIN_NAME if is_cut else apart)
        if self.columns[name].is_whole:
            least = natural

        def n_blocks(tried: int) -> int:
            return len(self._groups([*widths[:name], tried, *widths[name + 1 :]], width))

        fewest = n_blocks(least)
        return next(tried for tried in range(natural, -1, -1) if n_blocks(tried) == fewest)

    def _groups(self, widths: list[int], width: int) -> list[list[int]]:
        """Return the columns of each block."""
        names = self._names()
        lead = sum(widths[i] + 2 for i in names)
        groups, used = [list(names)], lead
        for unit in self._units():
            span = sum(widths[i] + 2 for i in unit)
            if used + span - 2 > width and len(groups[-1]) > len(names):
                groups.append(list(names))
                used = lead
            groups[-1] += unit
            used += span
        return groups

    def _names(self) -> list[int]:
        return [i for i, column in enumerate(self.columns) if column.is_name]

    def _units(self) -> list[list[int]]:
        """Return the columns of figures, those that stay together in one list."""
        units: list[list[int]] = []
        for i, column in enumerate(self.columns):
            if column.is_name:
                continue
            if column.stays and units:
                units[-1].append(i)
            else:
                units.append([i])
        return units

    def _lines(
        self, heads: list[list[str]], rows: list[list[str]], group: list[int], widths: list[int]
    ) -> list[str]:
        def line(row: Sequence[str]) -> str:
            parts = [
                _pad(shorten(row[i], widths[i]), widths[i], left=self.columns[i].is_name)
                for i in group
            ]
            return "  ".join(parts).rstrip()

        depth = max(len(heads[i]) for i in group)
        raised = [[""] * (depth - len(head)) + head for head in heads]
        rule = "  ".join("-" * widths[i] for i in group)
        return [*(line(row) for row in zip(*raised, strict=False)), rule, *map(line, rows)]

    def markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown; names cannot break out of their cell."""
        heads = [_escape(column.name) for column in self.columns]
        rules = [":--" if column.is_name else "--:" for column in self.columns]
        rows = [heads, rules, *([_escape(cell) for cell in row] for row in self.rows)]
        lines = [f"**{_escape(self.title)}**", ""] if self.title else []
        lines += ["| " + " | ".join(row) + " |" for row in rows] if self.columns else []
        if self.notes:
            lines += ["", *(f"- {_escape(note)}" for note in self.notes)]
        return "\n".join(lines)


def _clean(text: str) -> str:
    """Make a text harmless for a terminal: one line, no control or direction characters."""
    text = re.sub(r"\s+", " ", text)
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _escape(text: str) -> str:
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", _clean(text))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _width(text: str) -> int:
    """Return the columns of a terminal that a text takes: wide characters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _widths(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(*rows, strict=True) if rows else ((),) * len(heads)
    return [max(map(_width, (*head, *cells))) for head, cells in zip(heads, columns, strict=True)]


def _in_two(head: str) -> list[str]:
    """Break a head into two lines, as even as its spaces and underscores allow.

    Example:
        >>> _in_two("p_top_k_by_proxy"), _in_two("mean rank"), _in_two("pad")
        (['p_top_k_', 'by_proxy'], ['mean', 'rank'], ['pad'])
    """
    places = [match.end() for match in re.finditer(r"[ _]", head[:-1])]
    if not places:
        return [head]
    place = min(places, key=lambda at: max(at, len(head) - at))
    return [head[:place].rstrip(), head[place:]]


def _apart(names: Sequence[str]) -> int:
    """Return the least width at which names that differ are not cut to the same text."""
    longest = max(map(_width, names))
    n_names = len(set(names))
    widths = range(_MIN_NAME, longest)
    return next((w for w in widths if len({shorten(n, w) for n in names}) == n_names), longest)


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * max(0, width - _width(text))
    return text + space if left else space + text


def shorten(text: str, width: int) -> str:
    """Cut a text in its middle: the ends of names, such as a seed or a model, tell them apart.

    Example:
        >>> shorten("gpt-4o_temperature=1.0_seed=42", 19)
        'gpt-4o_t..._seed=42'
    """
    if _width(text) <= width:
        return text
    if width < 5:
        return text[:width]
    head, tail = "", ""
    room = width - 3
    for i in range(len(text)):
        taken = text[len(text) - 1 - i // 2] if i % 2 else text[i // 2]
        if _width(head + tail + taken) > room:
            break
        head, tail = (head, taken + tail) if i % 2 else (head + taken, tail)
    return f"{head}...{tail}"


def decimals_of(values: Iterable[float | None]) -> int:
    """Return how many decimals show three digits of the range of the values.

    Example:
        >>> decimals_of([0.1234, 0.1301]), decimals_of([812.0, 15.0])
        (5, 0)
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return 2
    scale = max(finite) - min(finite) or max(map(abs, finite)) or 1.0
    return min(6, max(0, 2 - math.floor(math.log10(scale))))


def figure_decimals(values: Iterable[float | None]) -> int:
    """Return how many decimals validation figures are given: two digits of their range, from 3.

    Example:
        >>> figure_decimals([0.83, 0.79])
        3
    """
    return max(3, decimals_of(values) - 1)


def format_number(value: float | None, decimals: int = 2) -> str:
    """Return a figure with these decimals, in scientific form where they cannot show it.

    Example:
        >>> format_number(0.5), format_number(2.5e-9, 6), format_number(float("nan"))
        ('0.50', '2.5e-09', '-')
    """
    if value is None or not math.isfinite(value):
        return _UNDEFINED
    if value != 0 and not 0.5 * 10**-decimals <= abs(value) < 1e7:
        return f"{value:.3g}" if decimals >= 6 or abs(value) >= 1e7 else f"{0:.{decimals}f}"
    return f"{value:.{decimals}f}"


def format_interval(low: float | None, high: float | None, decimals: int = 2) -> str:
    """Return "[low, high]", or an empty text where an end is missing or undefined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{format_number(low, decimals)}, {format_number(high, decimals)}]"


def _signed(value: float | None, decimals: int = 2) -> str:
    text = format_number(value, decimals)
    return text if text == _UNDEFINED or text.startswith("-") else f"+{text}"


def _p(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return _UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _rank(rank: float) -> str:
    return _UNDEFINED if math.isnan(rank) else f"{rank:g}"


def ranking_tables(ranking: Ranking, *, reliability: Correlation | None = None) -> list[Table]:
    """Return what a ranking comes to, and the scores that it is made of; see `ranking_table`."""
    return [ranking_table(ranking, reliability=reliability), scores_table(ranking)]


def ranking_table(ranking: Ranking, *, reliability: Correlation | None = None) -> Table:
    """Return a ranking as a table: best first, the rank by each proxy, and how stable it is.

    Args:
        ranking: What to show.
        reliability: The measured correlation of the ranking's `rank_by` with validation on this
            task; None where it was not measured, and then the table says so.
    """
    order = ranking.order()
    columns, parts = _order_columns(ranking)
    if _has_mean_rank(ranking):
        columns.append(Column("mean rank"))
        parts.append([format_number(row.mean_rank) for row in order])
    if any(row.p_top_k_by_proxy is not None for row in order):
        columns.append(Column("p_top_k_by_proxy"))
        parts.append([format_number(row.p_top_k_by_proxy) for row in order])
    if ranking.mixture is not None:
        columns.append(Column("weight"))
        parts.append([_weight(ranking.mixture.weights.get(row.name)) for row in order])
    for key in ranking.proxies if tuple(ranking.proxies) != (ranking.rank_by,) else ():
        columns.append(Column(key))
        parts.append([_rank(row.ranks[key]) for row in order])
    return Table(
        title=f"Ranking by {ranking.rank_by} against {ranking.n_real:,} real examples",
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
            parts.append([_p(row.scores[key].p_value) for row in order])
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


def _order_columns(ranking: Ranking) -> tuple[list[Column], list[list[str]]]:
    """Return the columns that both tables begin with, and their cells."""
    order = ranking.order()
    selected = ranking.top().weights
    ranks = [
        _rank(row.ranks[ranking.rank_by]) + (" *" if row.name in selected else "") for row in order
    ]
    columns = [Column("#", is_name=True), Column("candidate", is_name=True)]
    return columns, [ranks, [row.name for row in order]]


def _has_mean_rank(ranking: Ranking) -> bool:
    is_consensus = ranking.rank_by not in ranking.proxies
    return is_consensus and any(row.mean_rank is not None for row in ranking.candidates)


def _weight(weight: float | None) -> str:
    return "" if weight is None else format_number(weight, 3)


def _deciding(ranking: Ranking) -> tuple[str, ...]:
    """Return the proxies that the order is made of."""
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
    return [*(_signed(gap, decimals) for gap in gaps), ""]


def _ranking_notes(ranking: Ranking, reliability: Correlation | None) -> tuple[str, ...]:
    notes = [f"*: selected, {_selection_words(ranking)}", *ranking.messages]
    members = [key for key, info in ranking.proxies.items() if info.in_consensus]
    if _has_mean_rank(ranking):
        notes.append(
            f"mean rank: of the ranks by {', '.join(members)}; it orders the consensus, and "
            "depends on who else is present"
        )
    if any(row.p_top_k_by_proxy is not None for row in ranking.candidates):
        notes.append(
            f"p_top_k_by_proxy: how often the candidate is among the best {ranking.top_k} by "
            f"{ranking.rank_by} when the real sample is redrawn, not the chance of being truly "
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
            "to next: by how much the candidate is better than the next one of this order, in the "
            "proxy's own unit"
        )
    if any(s.low is not None for row in ranking.candidates for s in row.scores.values()):
        notes.append("[low, high]: 95 % interval over new real samples")
    if any(_has_spread(s) for row in ranking.candidates for s in row.scores.values()):
        notes.append("±: standard deviation over seeds, which is no interval")
    if any(s.p_value is not None for row in ranking.candidates for s in row.scores.values()):
        notes.append(
            "p: permutation test that real sample and candidate come from one distribution; it "
            "grows small with size and never ranks"
        )
    return tuple(notes)


def _selection_words(ranking: Ranking) -> str:
    if ranking.mixture is not None:
        return f"{ranking.mixture.source}; weight: its share of the training draws"
    return f"the top {ranking.top_k} by {ranking.rank_by}, weight {1 / ranking.top_k:.3g} each"


def reliability_words(key: str, reliability: Correlation | None) -> str:
    """Return what must stand beside every `p_top_k_by_proxy`.

    Example:
        >>> reliability_words("pad", None)
        'reliability on your task unknown'
    """
    if reliability is None or math.isnan(reliability.spearman.value):
        return "reliability on your task unknown"
    found = reliability.spearman
    interval = format_interval(found.low, found.high)
    return (
        f"measured reliability of {key} on this task: Spearman {_signed(found.value)} "
        f"{interval + ' ' if interval else ''}over {reliability.n} units, {reliability.verdict}"
    )


def correlation_table(proxies: Mapping[str, Correlation], *, title: str = "") -> Table:
    """Return the correlation of each proxy with validation over the same units.

    Args:
        proxies: Proxy key to its correlation.
        title: Of the table: what the units are and which metric is meant.
    """
    heads = ("n", "Pearson", "p", "Spearman", "95 % interval", "p", "Kendall", "p")
    kept = ("p", "95 % interval")
    columns = (
        Column("proxy", is_name=True),
        *(Column(head, stays=head in kept) for head in heads),
        Column("with validation"),
    )
    methods = dict.fromkeys(found.p_method for found in proxies.values() if found.p_method)
    notes = ["+ means that the proxy was right: a better score went with a better figure"]
    notes += [f"p: two-sided permutation test, {method}" for method in methods]
    notes += [f"{key}: {found.message}" for key, found in proxies.items() if found.message]
    rows = tuple(_correlation_row(key, found) for key, found in proxies.items())
    return Table(title or "Correlation of proxies with validation", columns, rows, tuple(notes))


def _correlation_row(key: str, found: Correlation) -> tuple[str, ...]:
    spearman = found.spearman
    return (
        key,
        str(found.n),
        _signed(found.pearson.value),
        _p(found.pearson.p),
        _signed(spearman.value),
        format_interval(spearman.low, spearman.high) or _UNDEFINED,
        _p(spearman.p),
        _signed(found.kendall.value),
        _p(found.kendall.p),
        found.verdict,
    )


def correlation_tables(correlations: Sequence[KeyCorrelations]) -> list[Table]:
    """Return a table for each comparability key and kind, and the means of the within-key values.

    A key under 5 distinct units has no figures, only the sentence that says what is missing.
    """
    tables = [_key_table(entry) for entry in correlations]
    for kind, proxies in mean_correlations(correlations).items():
        several = {key: mean for key, mean in proxies.items() if mean.n_keys > 1}
        if several:
            tables.append(mean_table(several, title=f"Mean over keys, kind {kind}"))
    return tables


def mean_table(proxies: Mapping[str, MeanCorrelation], *, title: str) -> Table:
    """Return the means of the values within each key."""
    heads = ("keys", "Pearson", "Spearman", "Kendall")
    rows = tuple(
        (key, str(m.n_keys), _signed(m.pearson), _signed(m.spearman), _signed(m.kendall))
        for key, m in proxies.items()
    )
    note = "means of the values within each key; the points of several keys are not pooled"
    return Table(title, (Column("proxy", is_name=True), *map(Column, heads)), rows, (note,))


def _key_table(entry: KeyCorrelations) -> Table:
    task = entry.key.get("task")
    units = f"{len(entry.points)} {'unit' if len(entry.points) == 1 else 'units'}"
    title = (
        f"{f'{task}: ' if task else ''}{units} of kind {entry.kind}, "
        f"{entry.primary} ({entry.mode}), key {entry.key_hash[:8]}"
    )
    if not entry.proxies:
        return Table(title, (), (), entry.messages)
    table = correlation_table(entry.proxies, title=title)
    return Table(title, table.columns, table.rows, (*table.notes, *entry.messages))


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
            _signed(found["difference"], 4),
            format_interval(found["low"], found["high"], 4) or _UNDEFINED,
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
        (stage, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %" if total else _UNDEFINED)
        for stage, seconds in wall_s.items()
    )
    columns = (Column("stage", is_name=True), Column("seconds"), Column("share"))
    return Table("Wall-clock cost", columns, (*rows, ("all", f"{total:.1f}", "")), ())
