"""`report.html`: one self-contained page of a run, rebuilt from what its folder holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from synque_select.errors import RecordError
from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations, UnitPoint
from synque_select.records.correlation_file import load_correlations
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.records.findings_file import load_findings
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import read_json, write_text
from synque_select.report.correlation_tables import (
    correlation_table,
    correlation_tables,
    mean_table,
    units_table,
)
from synque_select.report.experiment_tables import (
    arms_table,
    candidates_table,
    comparison_table,
    cost_table,
)
from synque_select.report.finding_tables import gaps_table, labels_table, sample_size_table
from synque_select.report.html import example_html, figure_html, page_html, section_html, table_html
from synque_select.report.lens import lens_sections
from synque_select.report.ranking_tables import ranking_tables
from synque_select.report.study_tables import study_table
from synque_select.types import Findings, Gaps, Ranking, SampleSizeAnalysis
from synque_select.utils.validation import kind_of

__all__ = ["write_report"]

_PARTS = (
    "ranking.json",
    "labels.json",
    "gaps.json",
    "real_size.json",
    "result.json",
    "study.json",
    "correlations.json",
    "map.json",
    "examples.json",
)
_WORDS: dict[type, str] = {dict: "an object", list: "a list", int: "a whole number"}
_FIELDS: dict[str, dict[str, type]] = {
    "study.json": {"trials": list, "budget": dict, "messages": list},
    "map.json": {"points": list},
    "examples.json": {},
}
_INPUTS_ONLY = (
    "Proxies read inputs only: they cannot see wrong labels. A candidate with good inputs and "
    "false labels can rank high."
)

_MOST_NAMED = 10
_GAPS = (
    "Real examples that no candidate covers, the worst first, each with the synthetic example that "
    "comes nearest."
)


def write_report(folder: str | Path) -> Path:
    """Write `report.html` from the files of a run's folder and return its path.

    Read are `ranking.json`, `labels.json`, `gaps.json`, `real_size.json`, `result.json`,
    `study.json`, `correlations.json`, `map.json` and `examples.json`; what is absent is left out of
    the page. The page loads nothing from anywhere, and every text of the data is escaped. Without
    matplotlib it has its tables and says what its figures need.

    Raises:
        RecordError: There is no such folder, it holds none of the files, or one of them is damaged;
            the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RecordError(f"{folder} {what}: allowed is the folder of a run")
    present = [name for name in _PARTS if (folder / name).is_file()]
    if not present:
        raise RecordError(f"{folder}: none of {', '.join(_PARTS)}: nothing to report")
    ranking = load_ranking(folder) if "ranking.json" in present else None
    result = load_result(folder) if "result.json" in present else None
    entries = load_correlations(folder) if "correlations.json" in present else []
    sections = []
    if ranking is not None:
        sections.append(_ranking_section(ranking, _reliability(ranking, result, entries)))
    sections += _finding_sections(folder, load_findings(folder))
    if result is not None:
        sections += _result_sections(result)
    if result is not None and result.correlations.proxies:
        sections.append(_probes_section(result, ranking))
    if "study.json" in present:
        study = _read_object(folder / "study.json")
        sections.append(_guard(folder / "study.json", lambda: _study_section(study)))
    if entries:
        is_detail = result is not None and bool(result.correlations.proxies)
        sections.append(_keys_section(entries, is_detail=is_detail))
    if ranking is not None:
        sections += _guard(folder / "ranking.json", lambda: lens_sections(ranking))
    if "map.json" in present:
        state = _read_object(folder / "map.json")
        sections.append(_guard(folder / "map.json", lambda: _map_section(state, ranking)))
    if "examples.json" in present:
        state_of_examples = _read_object(folder / "examples.json")
        sections.append(
            _guard(folder / "examples.json", lambda: _examples_section(state_of_examples))
        )
    title = f"{folder.resolve().parent.name} / {folder.resolve().name}"
    head = _header(title, ranking, result)
    return write_text(folder / "report.html", page_html(title, head, sections, present))


def _read_object(path: Path) -> dict[str, Any]:
    """Read one of the parts, whose fields must be of the right types where they are there."""
    state = read_json(path)
    if not isinstance(state, dict):
        raise RecordError(f"{path} is damaged: found {kind_of(state)}; allowed is an object")
    for field, kind in _FIELDS[path.name].items():
        if field in state and not isinstance(state[field], kind):
            raise RecordError(
                f"{path} is damaged: {field!r} is {kind_of(state[field])}; "
                f"allowed is {_WORDS[kind]}"
            )
    return state


def _guard(path: Path, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RecordError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _reliability(
    ranking: Ranking, result: ExperimentResult | None, entries: Sequence[KeyCorrelations]
) -> Correlation | None:
    """Return the measured correlation of what the ranking is ordered by, probes before mixtures."""
    for kind in ("probe", "mixture"):
        for entry in entries:
            found = entry.proxies.get(ranking.rank_by)
            if entry.kind == kind and found is not None and not math.isnan(found.spearman.value):
                return found
    return None if result is None else result.correlations.proxies.get(ranking.rank_by)


def _header(title: str, ranking: Ranking | None, result: ExperimentResult | None) -> str:
    facts: dict[str, str] = {}
    if ranking is not None:
        facts["Real sample"] = f"{ranking.n_real:,} examples, sha256 {ranking.real_sha256[:12]}"
        n_synthetic = sum(row.n for row in ranking.candidates)
        facts["Candidates"] = f"{len(ranking)} with {n_synthetic:,} examples, {ranking.modality}"
        encoder = ranking.encoder
        facts["Encoder"] = (
            "none"
            if encoder is None
            else f"{encoder.id}, revision {encoder.revision}, {encoder.dim} dimensions"
        )
        facts["Proxies"] = "; ".join(
            key + (f" {_options(info.options)}" if info.options else "")
            for key, info in ranking.proxies.items()
        )
        facts["Seed"] = str(ranking.seed)
        facts["Packages"] = ", ".join(f"{k} {v}" for k, v in ranking.packages.items())
    if result is not None:
        facts["Replicates"] = str(result.replicates)
        for part, words in ((result.budget, "Budget of a fit"), (result.data, "Data")):
            if part is not None:
                facts[words] = ", ".join(f"{k}={v}" for k, v in vars(part).items())
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    made = f"<details><summary>How it was made</summary><dl>{rows}</dl></details>"
    return f"<header><h1>{escape(title)}</h1>{_answer(ranking, result)}{made}</header>"


def _answer(ranking: Ranking | None, result: ExperimentResult | None) -> str:
    """Say first what was chosen, how sure that is, and whether it paid."""
    said = []
    if ranking is not None:
        chosen = ranking.top()
        names = ", ".join(list(chosen.weights)[:_MOST_NAMED])
        more = len(chosen.weights) - _MOST_NAMED
        said.append(f"Train on {names}{f' and {more} more' if more > 0 else ''}: {chosen.source}.")
        said += ranking.messages
    if result is not None and result.comparisons:
        said += _paid(result)
    return f"<ul class='answer'>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>"


def _paid(result: ExperimentResult) -> list[str]:
    table = comparison_table(result)
    lines = [
        f"{name}: {gap} {interval}, {verdict} ({pairs} pairs)."
        for name, gap, interval, pairs, verdict in table.rows
    ]
    return [*lines, f"{table.notes[0]}."]


def _options(options: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{key}={value}" for key, value in options.items()) + ")"


def _ranking_section(ranking: Ranking, reliability: Correlation | None) -> str:
    def draw() -> Any:
        from synque_select.report.plots import ranking_figure

        return ranking_figure(ranking)

    best = ranking.order()[0].name
    alt = f"Scores of each proxy with intervals, {len(ranking)} candidates, {best} on top"
    result, scores = map(table_html, ranking_tables(ranking, reliability=reliability))
    body = result + figure_html(draw, alt) + scores
    if ranking.wall_s:
        body += table_html(cost_table(ranking.wall_s))
    return section_html("Ranking", f"{body}<p>{escape(_INPUTS_ONLY)}</p>")


def _finding_sections(run_dir: Path, findings: Findings) -> list[str]:
    sections = []
    if findings.labels is not None:
        sections.append(section_html("Labels", table_html(labels_table(findings.labels))))
    if findings.gaps is not None:
        gaps = findings.gaps
        sections.append(_guard(run_dir / "gaps.json", lambda: _gaps_section(gaps)))
    if findings.real_size is not None:
        sections.append(_sample_size_section(findings.real_size))
    return sections


def _gaps_section(gaps: Gaps) -> str:
    pairs = "".join(
        f"<li><b>real example {gap.real}</b>"
        + example_html("the real sample", {"view": gap.real_view})
        + f"<b>nearest: {escape(gap.candidate)}, example {gap.synthetic}</b>"
        + example_html(gap.candidate, {"view": gap.synthetic_view})
        + "</li>"
        for gap in gaps.worst
    )
    body = f"<p>{escape(_GAPS)}</p><ul class='examples'>{pairs}</ul>" if pairs else ""
    return section_html("Gaps: what to generate next", table_html(gaps_table(gaps)) + body)


def _sample_size_section(analysis: SampleSizeAnalysis) -> str:
    def draw() -> Any:
        from synque_select.report.plots import sample_size_figure

        return sample_size_figure(analysis)

    alt = f"Agreement of disjoint real samples of {len(analysis.measured)} sizes"
    body = table_html(sample_size_table(analysis)) + figure_html(draw, alt)
    return section_html("Would more real examples help?", body)


def _result_sections(result: ExperimentResult) -> list[str]:
    sections = []
    if result.arms:

        def draw() -> Any:
            from synque_select.report.plots import arms_figure

            return arms_figure(result)

        body = table_html(arms_table(result)) + figure_html(
            draw, "Mean of each arm with its interval"
        )
        if result.comparisons:
            body += table_html(comparison_table(result))
        if result.candidates:
            body += table_html(candidates_table(result))
        sections.append(section_html("Arms of the experiment", body))
    if result.wall_s:
        sections.append(
            section_html("Cost of the experiment", table_html(cost_table(result.wall_s)))
        )
    return sections


def _probes_section(result: ExperimentResult, ranking: Ranking | None) -> str:
    titles = (
        f"Proxies against {result.metric.name} over the probes",
        "Without the candidates that have false labels",
    )
    body = ""
    for title, found in zip(
        titles, (result.correlations, result.without_false_labels), strict=True
    ):
        if found is None:
            continue
        if found.proxies:
            body += table_html(correlation_table(found.proxies, title=title))
        means = found.mean_over_real_samples
        if any(mean.n_keys > 1 for mean in means.values()):
            body += table_html(mean_table(means, title="The same, mean over the real samples"))
        body += "".join(f"<p>{escape(message)}</p>" for message in found.messages)
    entry = None if ranking is None else _entry_of(result, ranking)
    if entry is not None:
        false = [name for name, single in result.candidates.items() if single.false_labels]
        alt = f"Each proxy against {entry.monitor} over {len(entry.points)} candidates"
        body += figure_html(_drawing(entry, false), alt)
    return section_html("Proxies against validation", f"{body}<p>{escape(_INPUTS_ONLY)}</p>")


def _entry_of(result: ExperimentResult, ranking: Ranking) -> KeyCorrelations | None:
    """Join the scores of the ranking with the test figures of the candidates alone."""
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


def _keys_section(entries: Sequence[KeyCorrelations], *, is_detail: bool) -> str:
    """Show each comparability key; folded, without figures, where an experiment sums them up."""
    tables = correlation_tables(entries)
    means = "".join(map(table_html, tables[len(entries) :]))
    if is_detail:
        body = "".join(map(table_html, tables[: len(entries)]))
        words = f"{len(entries)} tables, one a comparability key (each real sample is one)"
        return f"<details><summary>{words}</summary>{body}{means}</details>"
    body = ""
    for entry, table in zip(entries, tables, strict=False):
        body += table_html(units_table(entry)) + table_html(table)
        if entry.n_missing == 0:
            alt = f"Each proxy against {entry.monitor} over {len(entry.points)} units"
            body += figure_html(_drawing(entry), alt)
    return section_html("Proxies against validation, within each comparability key", body + means)


def _study_section(state: Mapping[str, Any]) -> str:
    def draw() -> Any:
        from synque_select.report.plots import study_figure

        return study_figure(state)

    alt = f"Value of each of {len(state['trials'])} trials and the best so far"
    body = figure_html(draw, alt) + table_html(study_table(state))
    return section_html("Tuning: trials sampled adaptively, no runs to be correlated", body)


def _drawing(entry: KeyCorrelations, false: Sequence[str] = ()) -> Callable[[], Any]:
    def draw() -> Any:
        from synque_select.report.plots import correlation_figure

        return correlation_figure(entry, marked=false, mark="false labels")

    return draw


def _map_section(state: Mapping[str, Any], ranking: Ranking | None) -> str:
    points: dict[str, list[tuple[float, float]]] = {}
    for point in state["points"]:
        points.setdefault(str(point["set"]), []).append((float(point["x"]), float(point["y"])))
    real = str(state.get("real", "real"))
    rows = () if ranking is None else ranking.order()
    names = [row.name for row in rows if row.name in points]
    names += [name for name in points if name not in names and name != real]
    selected = [] if ranking is None else list(ranking.top().weights)

    def draw() -> Any:
        from synque_select.report.plots import map_figure

        ordered = {real: points[real], **{name: points[name] for name in names}}
        return map_figure(ordered, real=real, selected=selected)

    alt = f"{len(names)} panels: the real sample and each candidate in two dimensions"
    body = figure_html(draw, alt) + f"<p>{escape(str(state.get('method', '')))}</p>"
    return section_html("Map of the real sample and the candidates", body)


def _examples_section(state: Mapping[str, Any]) -> str:
    body = ""
    for name, shown in state.items():
        items = "".join(f"<li>{example_html(str(name), entry)}</li>" for entry in shown)
        body += f"<h3>{escape(str(name))}</h3><ul class='examples'>{items}</ul>"
    return section_html("Examples", f"<p>Drawn at random.</p>{body}")
