"""LENS in a report: rubrics, and the most and least real samples of each candidate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, RecordError
from synque_select.lens.feedback import Feedback, feedback_of
from synque_select.lens.rubric import Rubric, save_rubrics
from synque_select.records.run_folder import write_text
from synque_select.report.html import example_html, section_html
from synque_select.types import Ranking

__all__ = ["feedback", "lens_sections", "lens_text", "rubric_of", "write_rubrics"]

_LISTS = (
    ("similarities", "In common"),
    ("only_real", "Typical of the real sample only"),
    ("only_synthetic", "Typical of the candidate only"),
)
_SAMPLES = (("most_real", "Most real samples"), ("least_real", "Least real samples"))
_REAL, _SYNTHETIC = "the real sample", "the candidate"
_INTRO = (
    "A language model judged how likely each sample is to be real, by these rubrics. They are what "
    "that model saw in a few samples of each side: read them as hints, not as findings."
)


def lens_sections(ranking: Ranking) -> list[str]:
    """Return a page's section on LENS, candidates in the ranking's order; none without LENS."""
    found = _details(ranking)
    if found is None:
        return []
    body = f"<p>{escape(_INTRO)}</p><p>{escape(_about(found))}</p>"
    for row in ranking.order():
        entry = found["candidates"].get(row.name)
        if entry is not None:
            body += _candidate(row.name, entry)
    return [section_html("LENS: what told the candidates from the real sample", body)]


def _details(ranking: Ranking) -> Mapping[str, Any] | None:
    """Details of the first LENS proxy; those of the others differ in their scores alone."""
    for key, found in ranking.details.items():
        info = ranking.proxies.get(key)
        if info is not None and info.family == "lens" and "candidates" in found:
            return found
    return None


def _about(found: Mapping[str, Any]) -> str:
    rubrics = found["reasoner"] or "nobody: judged without rubrics"
    counts = found["questions"]
    readout = found["readout"] if "readout" in found else found["way"]  # its name until 0.1
    return (
        f"Judged by {found['scorer']} ({readout}), rubrics by {rubrics}; "
        f"{counts['asked']:,} questions asked, {counts['kept']:,} answers kept from earlier, "
        f"{counts['failed']:,} failed."
    )


def _candidate(name: str, entry: Mapping[str, Any]) -> str:
    judged = f"{int(entry['n_judged']):,} of {int(entry['n']):,} samples judged"
    body = "".join(
        f"<h4>{escape(title)}</h4><ol>{''.join(f'<li>{escape(p)}</li>' for p in points)}</ol>"
        for title, points in _points(entry)
    )
    for field, title in _SAMPLES:
        items = "".join(f"<li>{example_html(name, sample)}</li>" for sample in entry[field])
        body += f"<h4>{escape(title)}</h4><ul class='examples'>{items}</ul>"
    return f"<details><summary>{escape(name)}: {judged}</summary>{body}</details>"


def rubric_of(entry: Mapping[str, Any]) -> Rubric | None:
    """Return the rubric in a candidate's details, None where it was judged without one."""
    state = entry["rubric"]
    return None if state is None else Rubric(**{f: tuple(state[f]) for f, _ in _LISTS})


def _points(entry: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    rubric = rubric_of(entry)
    if rubric is not None:
        told = rubric.told(_REAL, _SYNTHETIC)
        for field, title in _LISTS:
            yield title, getattr(told, field)


def lens_text(ranking: Ranking) -> str:
    """Return the same as Markdown, for loggers; empty where LENS was not computed."""
    found = _details(ranking)
    if found is None:
        return ""
    lines = [_INTRO, "", _about(found)]
    for row in ranking.order():
        entry = found["candidates"].get(row.name)
        if entry is not None:
            lines += ["", f"## {row.name}", *_rubric_lines(entry), *_sample_lines(entry)]
    return "\n".join(lines)


def _rubric_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    for title, points in _points(entry):
        yield from ("", f"### {title}", *(f"{i}. {p}" for i, p in enumerate(points, 1)))


def _sample_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    for field, title in _SAMPLES:
        yield from ("", f"### {title}")
        for sample in entry[field]:
            view = sample["view"]
            shown = " ".join(view.split()) if isinstance(view, str) else "(image)"
            yield f"- {sample['realness']:.3g}, example {sample['position']}: {shown}"


def feedback(ranking: Ranking, candidate: str | None = None) -> list[Feedback]:
    """Return what the generators of the candidates should change, best candidate first.

    Args:
        ranking: With what LENS found.
        candidate: Only this one; None for all.

    Raises:
        ConfigError: LENS was not computed, or without rubrics, or there is no such candidate.
        RecordError: What was kept of LENS is damaged.
    """
    found = _details(ranking)
    if found is None:
        raise ConfigError(
            f"the ranking was made by {', '.join(ranking.proxies)}: feedback needs a LENS proxy, "
            "as in `rank --proxies lens --json …`"
        )
    rows = ranking.order() if candidate is None else (ranking[candidate],)
    entries = found["candidates"]
    if not isinstance(entries, Mapping):
        raise RecordError(f"details: the candidates of LENS are a {type(entries).__name__}")
    return [feedback_of(row.name, entries.get(row.name, {})) for row in rows]


def write_rubrics(folder: str | Path, ranking: Ranking) -> Path | None:
    """Write a run's rubrics: `rubrics/rubrics.json` to edit and use again, and a text for each.

    Args:
        folder: The run's folder.
        ranking: With what LENS found.

    Returns:
        The JSON file, which `LensConfig(rubrics=…)` takes; None where there are no rubrics.

    Raises:
        RecordError: A file cannot be written.
    """
    found = _details(ranking)
    entries = {} if found is None else found["candidates"]
    rubrics = {name: rubric_of(entry) for name, entry in entries.items()}
    known = {name: rubric for name, rubric in rubrics.items() if rubric is not None}
    if found is None or not known:
        return None
    root = Path(folder) / "rubrics"
    for name, stem in zip(known, _file_names(known), strict=True):
        lines = [f"# {name}", *_rubric_lines(entries[name])]
        write_text(root / f"{stem}.txt", "\n".join(lines) + "\n")
    about = {"model": found["reasoner"], "prompts": found["prompts"]}
    return save_rubrics(root / "rubrics.json", known, about)


def _file_names(names: Iterable[str]) -> list[str]:
    """Plain names of files; what two names have in common after that gets a number."""
    found: list[str] = []
    for name in names:
        stem = re.sub(r"[^\w=.-]+", "_", name)[:100].lstrip(".") or "_"
        while stem in found:
            stem += "_"
        found.append(stem)
    return found
