"""`report.html`: one self-contained page of a run, rebuilt from the files in its directory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from synque_select.errors import RecordError
from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations, UnitPoint
from synque_select.records.experiment_result import ExperimentResult
from synque_select.records.run_folder import write_text
from synque_select.report.blocks import (
    Block,
    ExampleList,
    Fold,
    Paragraph,
    Section,
    TableBlock,
    draw_figure,
    example_of,
    shown_example,
)
from synque_select.report.correlation_tables import (
    correlation_table,
    correlation_tables,
    mean_table,
    units_table,
)
from synque_select.report.decision import decision_lines
from synque_select.report.experiment_tables import (
    arms_table,
    candidates_table,
    comparison_sentences,
    comparison_tables,
    cost_table,
)
from synque_select.report.finding_tables import gaps_table, labels_table, sample_size_table
from synque_select.report.html import page_html
from synque_select.report.lens import lens_sections
from synque_select.report.ranking_tables import pairs_table, ranking_tables
from synque_select.report.run_content import RunContent, load_run
from synque_select.report.study_tables import study_table
from synque_select.types import Findings, Gaps, LabelChecks, Ranking, SampleSizeAnalysis
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page_of", "ranking_page", "write_report"]

_INPUTS_ONLY = (
    "Proxies read inputs only: they cannot see wrong labels. A candidate with good inputs and "
    "false labels can rank high."
)
_GAPS = (
    "Real examples that no candidate covers, the worst first, each with the nearest synthetic "
    "example."
)
_CONTESTED = (
    "Examples that the two camps read differently, counted from 0. First are those on which most "
    "of the other camp's classifiers say the same."
)
_T = TypeVar("_T")


def write_report(run: str | Path) -> Path:
    """Write the page of a run, and return its path.

    The page is made from `ranking.json`, `labels.json`, `gaps.json`, `real_size.json`,
    `result.json`, `study.json`, `correlations.json`, `map.json` and `examples.json`; it leaves out
    whatever is missing. It loads nothing from anywhere, and every text of the data is escaped.

    Args:
        run: The run's directory, which gets `report.html`; or the JSON file of a ranking:
            `ranking.json` gets `report.html` beside it, `mine.json` gets `mine.report.html`.

    Raises:
        RecordError: The path does not exist or has nothing to report, or a file is damaged; the
            message names it.
    """
    content = load_run(run)
    assert content.page is not None
    return write_text(content.page, page_of(content))


def ranking_page(ranking: Ranking, findings: Findings | None = None, name: str = "ranking") -> str:
    """Return the page of a ranking as HTML.

    Args:
        ranking: The ranking.
        findings: What scoring found beside the order.
        name: Name that the page has.
    """
    return page_of(RunContent(name, ranking, findings or Findings()))


def page_of(content: RunContent) -> str:
    """Return the page of a run as HTML.

    Args:
        content: The content of the run.

    Raises:
        RecordError: A part of the run is damaged; the message names its file.
    """
    ranking, result, entries = content.ranking, content.result, content.correlations
    has_probes = result is not None and bool(result.correlations.proxies)
    sections: list[Block] = []
    reliability = None if ranking is None else _reliability(ranking, result, entries)

    def guarded(file: str, build: Callable[[], _T]) -> _T:
        return _guard(content.files.get(file, Path(file)), build)

    if ranking is not None:
        sections.append(_ranking_section(ranking, reliability))
    sections += _finding_sections(content.findings, guarded)
    if result is not None:
        sections += _result_sections(result)
        if has_probes:
            sections.append(_probes_section(result, ranking))
    if content.study is not None:
        study = content.study
        sections.append(guarded("study.json", lambda: _study_section(study)))
    if entries:
        sections.append(_keys_section(entries, is_detail=has_probes))
    if ranking is not None:
        sections += guarded("ranking.json", lambda: lens_sections(ranking))
    if content.map is not None:
        points = content.map
        sections.append(guarded("map.json", lambda: _map_section(points, ranking)))
    if content.examples is not None:
        examples = content.examples
        sections.append(guarded("examples.json", lambda: _examples_section(examples)))
    return page_html(
        content.name,
        answer=_answer(ranking, result, reliability),
        facts={**_ranking_facts(ranking), **_result_facts(result)},
        sections=sections,
        files=[path.name for path in content.files.values()],
    )


def _guard(path: Path, build: Callable[[], _T]) -> _T:
    """Build a part of the page; an error names the file that it is made from."""
    try:
        return build()
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecordError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _reliability(
    ranking: Ranking, result: ExperimentResult | None, entries: Sequence[KeyCorrelations]
) -> Correlation | None:
    """Return the measured correlation of what the ranking is ordered by, probes before mixtures."""
    for kind in ("probe", "mixture"):
        for entry in entries:
            measured = entry.proxies.get(ranking.rank_by)
            if entry.kind == kind and measured and not math.isnan(measured.spearman.value):
                return measured
    return None if result is None else result.correlations.proxies.get(ranking.rank_by)


def _ranking_facts(ranking: Ranking | None) -> dict[str, str]:
    if ranking is None:
        return {}
    n_synthetic = sum(row.n for row in ranking.candidates)
    encoder = ranking.encoder
    return {
        "Real sample": f"{ranking.real_words}, sha256 {ranking.real_sha256[:12]}",
        "Candidates": f"{len(ranking)} with {counted(n_synthetic, 'example')}, {ranking.modality}",
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


def _answer(
    ranking: Ranking | None, result: ExperimentResult | None, reliability: Correlation | None
) -> list[str]:
    """Say first what was selected, how certain that is, and whether it paid off."""
    lines = []
    if ranking is not None:
        lines += [*decision_lines(ranking, reliability), *ranking.messages]
    if result is not None and result.comparisons:
        lines += comparison_sentences(result)
    return lines


def _ranking_section(ranking: Ranking, reliability: Correlation | None) -> Section:
    def draw() -> Figure:
        from synque_select.report.plots import ranking_figure

        return ranking_figure(ranking)

    best = ranking.order()[0].name
    alt = (
        f"Scores of each proxy with intervals, {counted(len(ranking), 'candidate')}, {best} on top"
    )
    order, scores = ranking_tables(ranking, reliability=reliability)
    # the messages are at the top of the page
    order = replace(order, notes=tuple(n for n in order.notes if n not in ranking.messages))
    blocks: list[Block] = [TableBlock(order), draw_figure(draw, alt), TableBlock(scores)]
    pairs = pairs_table(ranking)
    if pairs is not None:
        blocks.append(Fold(pairs.title, (TableBlock(pairs),)))
    if ranking.wall_s:
        blocks.append(TableBlock(cost_table(ranking.wall_s)))
    if _reads_inputs_only(ranking):
        blocks.append(Paragraph(_INPUTS_ONLY))
    return Section("Ranking", tuple(blocks))


def _finding_sections(
    findings: Findings, guarded: Callable[[str, Callable[[], Section]], Section]
) -> list[Section]:
    sections = []
    if findings.labels is not None:
        labels = findings.labels
        sections.append(guarded("labels.json", lambda: _labels_section(labels)))
    if findings.gaps is not None:
        gaps = findings.gaps
        sections.append(guarded("gaps.json", lambda: _gaps_section(gaps)))
    if findings.real_size is not None:
        sections.append(_sample_size_section(findings.real_size))
    return sections


def _labels_section(labels: LabelChecks) -> Section:
    blocks: list[Block] = [TableBlock(labels_table(labels))]
    if labels.contested:
        examples = tuple(
            (
                shown_example(
                    each.candidate,
                    each.view,
                    caption=f"{each.candidate}, example {each.position}: labeled {each.label!r}, "
                    f"the other camp says {each.read_as!r}",
                ),
            )
            for each in labels.contested
        )
        blocks += [Paragraph(_CONTESTED), ExampleList(examples)]
    return Section("Labels", tuple(blocks))


def _gaps_section(gaps: Gaps) -> Section:
    pairs = tuple(
        (
            shown_example("the real sample", gap.real_view, caption=f"real example {gap.real}"),
            shown_example(
                gap.candidate,
                gap.synthetic_view,
                caption=f"nearest: {gap.candidate}, example {gap.synthetic}",
            ),
        )
        for gap in gaps.worst
    )
    blocks: list[Block] = [TableBlock(gaps_table(gaps))]
    if pairs:
        blocks += [Paragraph(_GAPS), ExampleList(pairs)]
    return Section("Gaps: what to generate next", tuple(blocks))


def _sample_size_section(analysis: SampleSizeAnalysis) -> Section:
    def draw() -> Figure:
        from synque_select.report.plots import sample_size_figure

        return sample_size_figure(analysis)

    alt = f"Agreement of disjoint real samples of {counted(len(analysis.measured), 'size')}"
    table = TableBlock(sample_size_table(analysis))
    return Section("Would more real examples help?", (table, draw_figure(draw, alt)))


def _result_sections(result: ExperimentResult) -> list[Section]:
    sections = []
    if result.arms:

        def draw() -> Figure:
            from synque_select.report.plots import arms_figure

            return arms_figure(result)

        blocks: list[Block] = [TableBlock(arms_table(result))]
        blocks.append(draw_figure(draw, "Mean of each arm with its interval"))
        if result.comparisons:
            blocks += map(TableBlock, comparison_tables(result))
        if result.candidates:
            blocks.append(TableBlock(candidates_table(result)))
        sections.append(Section("Arms of the experiment", tuple(blocks)))
    if result.wall_s:
        cost = TableBlock(cost_table(result.wall_s))
        sections.append(Section("Cost of the experiment", (cost,)))
    return sections


def _probes_section(result: ExperimentResult, ranking: Ranking | None) -> Section:
    blocks: list[Block] = []
    for title, part in (
        (f"Proxies against {result.metric.name} over the probes", result.correlations),
        ("Without the candidates that have false labels", result.without_false_labels),
    ):
        if part is None:
            continue
        if part.proxies:
            blocks.append(TableBlock(correlation_table(part.proxies, title=title)))
        means = part.mean_over_real_samples
        if any(mean.n_keys > 1 for mean in means.values()):
            table = mean_table(means, title="The same, mean over the real samples")
            blocks.append(TableBlock(table))
        blocks += map(Paragraph, part.messages)
    entry = None if ranking is None else _entry_of(result, ranking)
    if entry is not None:
        false = [name for name, single in result.candidates.items() if single.false_labels]
        alt = f"Each proxy against {entry.monitor} over {counted(len(entry.points), 'candidate')}"
        blocks.append(draw_figure(_drawing(entry, false), alt))
    if ranking is None or _reads_inputs_only(ranking):
        blocks.append(Paragraph(_INPUTS_ONLY))
    return Section("Proxies against validation", tuple(blocks))


def _reads_inputs_only(ranking: Ranking) -> bool:
    return not any(info.reads_labels for info in ranking.proxies.values())


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
    """Show each comparability key; folded, without figures, if an experiment sums them up."""
    tables = list(map(TableBlock, correlation_tables(entries)))
    by_key, means = tables[: len(entries)], tables[len(entries) :]
    if is_detail:
        tables_of = "1 table" if len(entries) == 1 else f"{counted(len(entries), 'table')}"
        summary = f"{tables_of}, one per comparability key (each real sample has its own)"
        return Fold(summary, tuple(tables))
    blocks: list[Block] = []
    for entry, table in zip(entries, by_key, strict=True):
        blocks += [TableBlock(units_table(entry)), table]
        if entry.n_missing == 0:
            alt = f"Each proxy against {entry.monitor} over {counted(len(entry.points), 'unit')}"
            blocks.append(draw_figure(_drawing(entry), alt))
    title = "Proxies against validation, within each comparability key"
    return Section(title, (*blocks, *means))


def _study_section(state: JsonObject) -> Section:
    def draw() -> Figure:
        from synque_select.report.plots import study_figure

        return study_figure(state)

    n_trials = len(JsonFields(state).list("trials"))
    alt = f"Value of each of {counted(n_trials, 'trial')} and the best so far"
    blocks = (draw_figure(draw, alt), TableBlock(study_table(state)))
    return Section("Tuning: the trials of the search", blocks)


def _drawing(entry: KeyCorrelations, false: Sequence[str] = ()) -> Callable[[], Figure]:
    def draw() -> Figure:
        from synque_select.report.plots import correlation_figure

        return correlation_figure(entry, marked=false, mark="false labels")

    return draw


def _map_section(state: JsonObject, ranking: Ranking | None) -> Section:
    fields = JsonFields(state)
    points: dict[str, list[tuple[float, float]]] = {}
    for point in fields.objects("points"):
        points.setdefault(point.text("set"), []).append((point.number("x"), point.number("y")))
    real = fields.text("real", "real")
    rows = () if ranking is None else ranking.order()
    names = [row.name for row in rows if row.name in points]
    names += [name for name in points if name not in names and name != real]
    selected = [] if ranking is None else list(ranking.top().weights)

    def draw() -> Figure:
        from synque_select.report.plots import map_figure

        ordered = {real: points[real], **{name: points[name] for name in names}}
        return map_figure(ordered, real=real, selected=selected)

    alt = f"{counted(len(names), 'panel')}: the real sample and each candidate in two dimensions"
    blocks = (draw_figure(draw, alt), Paragraph(fields.text("method", "")))
    return Section("Map of the real sample and the candidates", blocks)


def _examples_section(state: JsonObject) -> Section:
    fields = JsonFields(state)
    lists = [
        ExampleList(tuple((example_of(name, entry),) for entry in fields.objects(name)), title=name)
        for name in fields
    ]
    return Section("Examples", (Paragraph("Drawn at random."), *lists))
