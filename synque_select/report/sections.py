"""The sections of the page, from the content of a run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from synque_select.errors import RecordError
from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations, UnitPoint
from synque_select.records.experiment_result import ExperimentResult
from synque_select.records.influence_file import INFLUENCE_FILE
from synque_select.report.blocks import (
    Block,
    Charts,
    Code,
    Columns,
    Example,
    ExampleList,
    Fold,
    Paragraph,
    PointList,
    Section,
    TableBlock,
    example_of,
    limited,
    shown_example,
)
from synque_select.report.charts import Chart, DotChart, PlotChart
from synque_select.report.correlation_tables import (
    correlation_table,
    correlation_tables,
    mean_table,
    units_table,
)
from synque_select.report.experiment_tables import (
    arms_table,
    candidates_table,
    comparison_sentences,
    comparison_tables,
)
from synque_select.report.figures import (
    arms_chart,
    comparison_chart,
    correlation_charts,
    cost_chart,
    map_chart,
    mixture_chart,
    order_chart,
    sample_size_charts,
    scale_chart,
    score_charts,
    stability_chart,
    study_chart,
    validation_chart,
)
from synque_select.report.finding_tables import gaps_table, labels_table, sample_size_table
from synque_select.report.influence_tables import influence_table
from synque_select.report.lens import lens_sections
from synque_select.report.ranking_tables import pairs_table, ranking_table, scores_table
from synque_select.report.run_content import RunContent
from synque_select.report.study_tables import study_table
from synque_select.report.summary import INPUTS_ONLY, measured_reliability, notes_on_data
from synque_select.report.table import Column, Table
from synque_select.report.weight_sections import weights_section
from synque_select.types import (
    Gaps,
    LabelCheck,
    LabelChecks,
    ProxyInfo,
    Ranking,
    SampleSizeAnalysis,
)
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted, percent

__all__ = ["command_of", "sections_of", "top_charts", "weight_rows"]

_MOST_PAIRS = 40  # candidates of the matrix of pairs: its size is quadratic
_MOST_EXAMPLES = 5  # sets whose examples are not folded
_MOST_OPEN = 15  # rows of a table that is not folded
_MOST_SOURCES = 20  # paths in a command
_LINE = 88  # characters of a command
_MOST_AT_TOP = 8  # rows of a chart at the top
# characters of examples in a section, so that the page stays small whatever the candidates hold
_MOST_TEXT = 300_000
_GAPS = (
    "Real examples that no candidate covers, the worst first, each with the nearest synthetic "
    "example."
)
_DOUBTFUL = (
    "Read these before you train: labels that classifiers trained on the other candidates, or on "
    "the candidate's own other examples, contradict. First are those that both contradict. Either "
    "side may be wrong. Examples are counted from 0; in brackets is the mean probability that the "
    "classifiers of the other candidates give their class."
)
_CONTESTED = (
    "Examples that the two camps read differently, counted from 0. First are those on which most "
    "of the other camp's classifiers say the same."
)
_INTERVALS = (
    "Lines are 95 % intervals of each candidate alone over new real samples: do not compare by "
    "overlap, as the candidates share the real sample."
)
_GROUPS = {
    "nearest": "nearest to the real sample",
    "farthest": "farthest from the real sample",
}
_UNKNOWN_COMMAND = (
    "This ranking does not say how it was made. The command is built from what it has: fill "
    "in the words in capitals, and add the options that a ranking does not have, such as --split."
)
_T = TypeVar("_T")


def top_charts(content: RunContent) -> tuple[Chart, ...]:
    """Return the charts at the top of the page, at most three."""
    ranking, result = content.ranking, content.result
    charts: list[Chart | None] = []
    if ranking is not None:
        charts.append(order_chart(ranking, _MOST_AT_TOP))
    if result is not None and result.arms:
        charts.append(arms_chart(result))
    elif content.study is not None:
        study = content.study
        charts.append(_guard(content, "study.json", lambda: study_chart(study)))
    elif any(len(entry.points) > 1 for entry in content.correlations):
        charts.append(_correlation_at_top(content.correlations, ranking))
    elif ranking is not None:
        charts.append(stability_chart(ranking, _MOST_AT_TOP))
    if content.map is not None:
        points = content.map
        draw = lambda: map_chart(points, ranking, has_filter=False)  # noqa: E731
        charts.append(replace(_guard(content, "map.json", draw), notes=()))
    elif ranking is not None:
        charts.append(scale_chart(ranking, _MOST_AT_TOP) or mixture_chart(ranking, _MOST_AT_TOP))
    return tuple(chart for chart in charts if chart is not None)[:3]


def _correlation_at_top(
    entries: Sequence[KeyCorrelations], ranking: Ranking | None
) -> DotChart | PlotChart:
    """Return what ranks against validation, where there are units enough; else the validation."""
    entry = max(entries, key=lambda entry: len(entry.points))
    charts = correlation_charts(entry) if entry.n_missing == 0 else []
    by = None if ranking is None else ranking.rank_by
    for chart in charts:
        if chart.title == by:
            return replace(chart, title=f"{by} against {entry.monitor}")
    return validation_chart(entry, _MOST_AT_TOP)


def sections_of(content: RunContent) -> list[Block]:
    """Return the sections of the page, in their order.

    Args:
        content: The content of the run.

    Raises:
        RecordError: A part of the run is damaged; the message names its file.
    """
    ranking, result = content.ranking, content.result
    sections: list[Block] = []
    if ranking is not None:
        sections.append(_ranking_section(ranking, content, measured_reliability(content)))
    if result is not None and result.arms:
        sections.append(_arms_section(result))
    has_probes = result is not None and bool(result.correlations.proxies)
    if result is not None and has_probes:
        sections.append(_probes_section(result, ranking))
    if content.study is not None:
        study = content.study
        sections.append(_guard(content, "study.json", lambda: _study_section(study)))
    if content.weights is not None:
        sections.append(weights_section(content.weights))
    if content.influence is not None:
        table = influence_table(content.influence)
        sections.append(Section("Influence", tuple(_table(table, INFLUENCE_FILE))))
    if content.correlations:
        sections.append(_keys_section(content.correlations, is_detail=has_probes))
    sections += _findings(content)
    if content.map is not None:
        points = content.map
        chart = _guard(content, "map.json", lambda: map_chart(points, ranking))
        sections.append(Section(chart.title, (Charts((replace(chart, title=""),)),)))
    if content.examples is not None:
        examples = content.examples
        section = _guard(content, "examples.json", lambda: _examples_section(examples, ranking))
        sections.append(section)
    if ranking is not None:
        sections += _guard(content, "ranking.json", lambda: lens_sections(ranking))
        sections.append(_mixture_section(ranking, content))
    cost = _cost_section(content)
    if cost is not None:
        sections.append(cost)
    sections.append(_repeat_section(content))
    return sections


def _guard(content: RunContent, file: str, build: Callable[[], _T]) -> _T:
    """Build a part of the page; an error names the file that it is made from."""
    path = content.files.get(file, Path(file))
    try:
        return build()
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecordError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _ranking_section(
    ranking: Ranking, content: RunContent, reliability: Correlation | None
) -> Section:
    blocks: list[Block] = [Charts(tuple(score_charts(ranking)))]
    if any(score.low is not None for row in ranking.candidates for score in row.scores.values()):
        blocks.append(Paragraph(_INTERVALS, is_note=True))
    order = ranking_table(ranking, reliability=reliability)
    # what stands elsewhere on the page is not said again
    order = replace(order, notes=tuple(n for n in order.notes if n not in ranking.messages))
    blocks += _table(order, "ranking.csv")
    notes = notes_on_data(content)
    if notes:
        blocks.append(PointList("Notes on these data", notes))
    scores = scores_table(ranking)
    blocks.append(Fold(scores.title, (TableBlock(limited(scores, "ranking.csv")),)))
    if ranking.distinguished is not None and len(ranking) <= _MOST_PAIRS:
        pairs = pairs_table(ranking)
        if pairs is not None:
            blocks.append(Fold(pairs.title, (TableBlock(pairs),)))
    if not any(info.reads_labels for info in ranking.proxies.values()):
        blocks.append(Paragraph(INPUTS_ONLY))
    return Section("Ranking", tuple(blocks))


def _table(table: Table, rest: str = "") -> list[Block]:
    """Return a table, folded if it is long; its title then says what unfolds."""
    block = TableBlock(limited(table, rest))
    if len(table.rows) <= _MOST_OPEN:
        return [block]
    return [Fold(table.title or "All rows", (block,))]


def _arms_section(result: ExperimentResult) -> Section:
    charts = [arms_chart(result)]
    comparison = comparison_chart(result)
    if comparison is not None:
        charts.append(comparison)
    blocks: list[Block] = [Charts(tuple(charts))]
    if result.comparisons:
        blocks += map(Paragraph, comparison_sentences(result))
    tables = [arms_table(result)]
    if result.comparisons:
        tables += comparison_tables(result)
    if result.candidates:
        tables.append(candidates_table(result))
    blocks += [Fold(t.title, (TableBlock(limited(t, "result.json")),)) for t in tables]
    return Section("Did it pay? Arms of the experiment", tuple(blocks))


def _probes_section(result: ExperimentResult, ranking: Ranking | None) -> Section:
    blocks: list[Block] = []
    entry = None if ranking is None else _entry_of(result, ranking)
    if entry is not None:
        false = [name for name, single in result.candidates.items() if single.false_labels]
        blocks.append(Charts(tuple(correlation_charts(entry, false=false))))
    for title, part in (
        (f"Proxies against {result.metric.name} over the probes", result.correlations),
        ("Without the candidates that have false labels", result.without_false_labels),
    ):
        if part is None:
            continue
        tables = []
        if part.proxies:
            tables.append(TableBlock(correlation_table(part.proxies, title=title)))
        means = part.mean_over_real_samples
        if any(mean.n_keys > 1 for mean in means.values()):
            table = mean_table(means, title="The same, mean over the real samples")
            tables.append(TableBlock(table))
        shown: tuple[Block, ...] = (*tables, *map(Paragraph, part.messages))
        # the figures are in the charts, too
        blocks += shown if part is result.correlations else [Fold(title, shown)]
    if ranking is None:
        blocks.append(Paragraph(INPUTS_ONLY))
    return Section("Proxies against validation", tuple(blocks))


def _entry_of(result: ExperimentResult, ranking: Ranking) -> KeyCorrelations | None:
    """Join the scores of the ranking with the test figures of the single candidates."""
    singles = result.candidates
    rows = [row for row in ranking.candidates if row.name in singles]
    if len(rows) < 2:
        return None
    points = tuple(
        UnitPoint(
            row.name,
            {key: score.value for key, score in row.scores.items()}
            | {key: rank for key, rank in row.ranks.items() if key not in row.scores},
            singles[row.name].test,
            singles[row.name].n_seeds,
        )
        for row in rows
    )
    higher = {key: info.higher_is_better for key, info in ranking.proxies.items()}
    return KeyCorrelations(
        key_hash="",
        kind="probe",
        key={},
        monitor=result.metric.name,
        mode=result.metric.mode,
        points=points,
        orientation={key: higher.get(key, False) for key in points[0].scores},
        proxies=result.correlations.proxies,
    )


def _keys_section(entries: Sequence[KeyCorrelations], *, is_detail: bool) -> Block:
    """Show each comparability key; folded, without charts, if an experiment sums them up."""
    tables = [TableBlock(limited(table)) for table in correlation_tables(entries)]
    by_key, means = tables[: len(entries)], tables[len(entries) :]
    if is_detail:
        summary = (
            f"{counted(len(entries), 'table')}, one per comparability key (each real sample has "
            "its own)"
        )
        return Fold(summary, tuple(tables))
    blocks: list[Block] = []
    for entry, table in zip(entries, by_key, strict=True):
        blocks += [TableBlock(limited(units_table(entry), "correlations.json")), table]
        if entry.n_missing == 0:
            blocks.append(Charts(tuple(correlation_charts(entry))))
    title = "Proxies against validation, within each comparability key"
    return Section(title, (*blocks, *means))


def _study_section(state: JsonObject) -> Section:
    table = study_table(state)
    return Section(
        "Tuning: the trials of the search",
        (Charts((study_chart(state),)), *_table(table, "study.json")),
    )


def _findings(content: RunContent) -> Iterator[Section]:
    findings = content.findings
    if findings.gaps is not None:
        gaps = findings.gaps
        yield _guard(content, "gaps.json", lambda: _gaps_section(gaps))
    if findings.labels is not None:
        labels = findings.labels
        yield _guard(content, "labels.json", lambda: _labels_section(labels))
    if findings.real_size is not None:
        yield _sample_size_section(findings.real_size)


def _gaps_section(gaps: Gaps) -> Section:
    table = gaps_table(gaps)
    pairs = [
        (
            shown_example("the real sample", gap.real_view, caption=f"real example {gap.real}"),
            shown_example(
                gap.candidate,
                gap.synthetic_view,
                caption=f"nearest: {gap.candidate}, example {gap.synthetic}"
                + (f", {gap.distance / gap.radius:.2f}x" if gap.radius > 0 else ""),
            ),
        )
        for gap in gaps.worst
    ]
    # both examples of a row stand side by side, so that a table of the same would say it again
    blocks: list[Block] = [TableBlock(replace(table, columns=(), rows=()))]
    if pairs:
        shown = tuple(_within(pairs))
        blocks += [Paragraph(_GAPS), ExampleList(shown)]
    return Section("Gaps: what to generate next", tuple(blocks))


def _labels_section(labels: LabelChecks) -> Section:
    # warnings stay visible where the table is folded
    table = labels_table(labels)
    table = replace(table, notes=tuple(n for n in table.notes if n not in labels.messages))
    blocks: list[Block] = [*map(Paragraph, labels.messages)]
    doubtful = [] if labels.has_camps else [check for check in labels.checks if check.doubtful]
    if doubtful:
        blocks += [Paragraph(_DOUBTFUL), *map(_doubtful, doubtful)]
    if labels.contested:
        examples = [
            (
                shown_example(
                    each.candidate,
                    each.view,
                    caption=f"{each.candidate}, example {each.position}: labeled {each.label!r}, "
                    f"the other camp says {each.read_as!r}",
                ),
            )
            for each in labels.contested
        ]
        blocks += [Paragraph(_CONTESTED), ExampleList(tuple(_within(examples)))]
    return Section("Labels", (*blocks, *_table(table, "labels.json")))


def _doubtful(check: LabelCheck) -> ExampleList:
    """Show the labels of a candidate that are most in doubt, with what contradicts them."""
    examples = []
    for each in check.doubtful:
        against = []
        if each.others is not None:
            share = "" if each.votes is None else f" ({percent(each.votes)})"
            against.append(f"other candidates: {each.others!r}{share}")
        if each.held_out is not None:
            against.append(f"its other examples: {each.held_out!r}")
        against.append(f"example {each.position}")
        shown = shown_example(check.name, each.view, caption=f"labeled {each.label!r}")
        examples.append((replace(shown, note="; ".join(against)),))
    title = f"{check.name}: labels to read first"
    return ExampleList(tuple(_within(examples)), title=title)


def _within(items: Iterable[tuple[Example, ...]]) -> Iterator[tuple[Example, ...]]:
    """Yield examples until they would make the page large."""
    left = _MOST_TEXT
    for item in items:
        left -= sum(len(each.text or "") + len(each.image or "") for each in item)
        if left < 0:
            return
        yield item


def _sample_size_section(analysis: SampleSizeAnalysis) -> Section:
    table = TableBlock(sample_size_table(analysis))
    charts = Charts(tuple(sample_size_charts(analysis)))
    return Section("Would more real examples help?", (charts, table))


def _examples_section(state: JsonObject, ranking: Ranking | None) -> Section:
    fields = JsonFields(state)
    first = [] if ranking is None else [row.name for row in ranking.order()]
    lists: list[Block] = []
    left = _MOST_TEXT
    # the real sample first, then the candidates, best first
    for name in sorted(fields, key=lambda n: first.index(n) if n in first else -1):
        entries = fields.objects(name)
        examples = [
            replace(
                example_of(name, entry),
                caption=_GROUPS.get(entry.optional_text("group") or "", ""),
            )
            for entry in entries
        ]
        left -= sum(len(each.text or "") + len(each.image or "") for each in examples)
        if left < 0:
            break
        groups: dict[str, list[tuple[Example, ...]]] = {}
        for example in examples:
            groups.setdefault(example.caption, []).append((replace(example, caption=""),))
        if len(groups) == 1:
            lists += [ExampleList(tuple(items), title=name) for items in groups.values()]
            continue
        lists.append(
            Columns(
                tuple(
                    ExampleList(tuple(items), title=f"{name}: {caption}")
                    for caption, items in groups.items()
                )
            )
        )
    open_lists, folded = lists[:_MOST_EXAMPLES], lists[_MOST_EXAMPLES:]
    note = Paragraph(
        "Distances are those of the embeddings to the nearest real example; the other examples "
        "are drawn at random."
        if any("group" in entry for name in fields for entry in fields.objects(name))
        else "Drawn at random.",
        is_note=True,
    )
    rest = (Fold("Examples of the other candidates", tuple(folded)),) if folded else ()
    return Section("Examples", (note, *open_lists, *rest))


def _mixture_section(ranking: Ranking, content: RunContent) -> Section:
    rows = weight_rows(ranking)
    columns = (
        Column("candidate", is_name=True),
        Column("weight"),
        Column("N"),
        Column("sha256", is_name=True),
    )
    notes = [f"weight: share of {content.share_of}; sha256: hash of the candidate's content"]
    if curriculum := (content.sampling or {}).get("curriculum"):
        notes.append(f"curriculum: the examples of each candidate are ordered by {curriculum}")
    table = Table("Weights and hashes", columns, rows, tuple(notes))
    weights = set(ranking.top().weights.values())
    # equal weights are told by the table
    charts = (Charts((mixture_chart(ranking),)),) if len(weights) > 1 else ()
    return Section("Mixture", (*charts, *_table(table, "ranking.csv")))


def weight_rows(ranking: Ranking) -> tuple[tuple[str, ...], ...]:
    """Return name, weight, size and hash of each selected candidate, the largest weight first."""
    weights = ranking.top().weights
    selected = [row for row in ranking.candidates if row.name in weights]
    return tuple(
        (row.name, f"{weights[row.name]:.4g}", f"{row.n:,}", row.sha256)
        for row in sorted(selected, key=lambda row: -weights[row.name])
    )


def _cost_section(content: RunContent) -> Section | None:
    parts = []
    if content.ranking is not None and content.ranking.wall_s:
        parts.append(replace(cost_chart(content.ranking.wall_s), title="Ranking"))
    if content.result is not None and content.result.wall_s:
        parts.append(replace(cost_chart(content.result.wall_s), title="Experiment"))
    return Section("Wall-clock cost", (Charts(tuple(parts)),)) if parts else None


def _repeat_section(content: RunContent) -> Section:
    info = content.info
    title = "Command" if info is None or info.language == "shell" else "Call"
    blocks: list[Block] = [Code(command_of(content), title)]
    if info is None and content.ranking is not None:
        blocks.append(Paragraph(_UNKNOWN_COMMAND, is_note=True))
    if info is not None:
        blocks += [Fold(f"Config {name}", (Code(text),)) for name, text in info.configs.items()]
    facts = {**_ranking_facts(content.ranking), **_result_facts(content.result)}
    if info is not None:
        facts |= {"Python": info.python, "Finished": _time(info.created)}
    if content.files:
        facts["Files"] = ", ".join(path.name for path in content.files.values())
    rows = tuple(facts.items())
    columns = (Column("", is_name=True), Column("", is_name=True))
    blocks.append(TableBlock(Table("Versions, seeds and hashes", columns, rows)))
    return Section("How to reproduce it", tuple(blocks))


def command_of(content: RunContent) -> str:
    """Return the command or the call that makes the run again, where it was made.

    If it is not known, it is a command that ranks again, with words in capitals for what the
    ranking does not have.
    """
    info = content.info
    if info is not None and info.language == "python":
        return f"# in {info.folder}\n{info.command}" if info.folder else info.command
    if info is not None:
        command = _in_lines(info.command)
        return f"cd {shlex.quote(info.folder)}\n{command}" if info.folder else command
    if content.ranking is None:
        return "synque-select report RUN"
    return _command_to_rank(content.ranking)


def _command_to_rank(ranking: Ranking) -> str:
    origin = ranking.origin
    sources = [row.source for row in ranking.candidates]
    known = all(sources) and len(sources) <= _MOST_SOURCES
    options = [
        f"--candidates {shlex.join(sources) if known else 'CANDIDATES'}",
        f"--real {shlex.quote(origin.real_source) if origin.real_source else 'REAL'}",
    ]
    views = {row.view for row in ranking.candidates if row.view is not None}
    options += [f"--view {shlex.quote(str(view))}" for view in views if len(views) == 1]
    if origin.real_view is not None and views != {origin.real_view}:
        options.append(f"--real-view {shlex.quote(str(origin.real_view))}")
    labels = {row.label for row in ranking.candidates if row.label is not None}
    if any(proxy.reads_labels for proxy in ranking.proxies.values()):
        label = str(labels.pop()) if len(labels) == 1 else "LABEL"
        options.append(f"--label {shlex.quote(label)}")
    if ranking.encoder is not None:
        options.append(f"--encoder {shlex.quote(ranking.encoder.id)}")
    options.append(f"--proxies {' '.join(map(_with_options, ranking.proxies.values()))}")
    if "lens" not in origin.options and any(p.family == "lens" for p in ranking.proxies.values()):
        options.append("--lens CONFIG")
    options.append(f"--rank-by {shlex.quote(ranking.rank_by)}")
    if ranking.top_k is not None:
        options.append(f"--top-k {ranking.top_k}")
    for name, value in origin.options.items():
        option = f"--{name.replace('_', '-')}"
        options.append(option if value is True else f"{option} {shlex.quote(str(value))}")
    options.append(f"--seed {ranking.seed}")
    command = " \\\n  ".join(["synque-select rank", *options])
    return f"cd {shlex.quote(origin.working_dir)}\n{command}" if origin.working_dir else command


def _in_lines(command: str) -> str:
    """Begin a line with each option of a long command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if len(command) <= _LINE:
        return command
    starts = [0, *(i for i, word in enumerate(words) if word.startswith("--") and i), len(words)]
    parts = [shlex.join(words[i:j]) for i, j in itertools.pairwise(starts)]
    return " \\\n  ".join(parts)


def _with_options(info: ProxyInfo) -> str:
    # the options of LENS are in its config
    options = {} if info.family == "lens" else info.options
    plain = {k: v for k, v in options.items() if isinstance(v, str | int | float)}
    parts = [f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in plain.items()]
    return shlex.quote(":".join([info.key, *parts]))


def _time(created: str) -> str:
    try:
        time = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def _ranking_facts(ranking: Ranking | None) -> dict[str, str]:
    if ranking is None:
        return {}
    n_synthetic = sum(row.n for row in ranking.candidates)
    encoder = ranking.encoder
    return {
        "Real sample": f"{ranking.real_words}, sha256 {ranking.real_sha256}",
        "Candidates": f"{len(ranking):,} with "
        f"{counted(n_synthetic, 'example')}, {ranking.modality}",
        "Encoder": "none"
        if encoder is None
        else f"{encoder.id}, revision {encoder.revision}, {counted(encoder.dim, 'dimension')}",
        "Proxies": "; ".join(
            key + (f" ({_named(info.options)})" if info.options else "")
            for key, info in ranking.proxies.items()
        ),
        "Seed": str(ranking.seed),
        "Packages": ", ".join(f"{k} {v}" for k, v in ranking.packages.items()),
    }


def _result_facts(result: ExperimentResult | None) -> dict[str, str]:
    if result is None:
        return {}
    facts = {"Replicates": str(result.replicates)}
    for part, title in ((result.budget, "Budget of a fit"), (result.data, "Data")):
        if part is not None:
            facts[title] = _named(vars(part))
    return facts


def _named(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
