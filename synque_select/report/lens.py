"""LENS in a report: rubrics, and the most and least real examples of each candidate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from synque_select.errors import ConfigError
from synque_select.lens.feedback import Feedback, feedback_of
from synque_select.lens.rubric import Rubric, save_rubrics
from synque_select.records.run_folder import write_text
from synque_select.report.blocks import (
    Block,
    Columns,
    ExampleList,
    Fold,
    Paragraph,
    PointList,
    Section,
    example_of,
)
from synque_select.types import Ranking
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

__all__ = ["feedback", "lens_sections", "lens_text", "write_rubrics"]

_LISTS = (
    ("similarities", "In common"),
    ("only_real", "Typical of the real sample only"),
    ("only_synthetic", "Typical of the candidate only"),
)
_EXAMPLES = (("most_real", "Most real examples"), ("least_real", "Least real examples"))
_MOST_CANDIDATES = 20  # on a page, the best first
_REAL, _SYNTHETIC = "the real sample", "the candidate"
_INTRO = (
    "A language model judged by these rubrics how likely it is that each example is real. They "
    "describe what that model saw in a few examples of each set: read them as hints, not as "
    "findings."
)


def lens_sections(ranking: Ranking) -> list[Section]:
    """Return a page's section on LENS, candidates in the ranking's order; none without LENS."""
    details = _details(ranking)
    if details is None:
        return []
    candidates = details.named_objects("candidates")
    folds = [
        _candidate(row.name, candidates[row.name])
        for row in [row for row in ranking.order() if row.name in candidates][:_MOST_CANDIDATES]
    ]
    intro = (Paragraph(_INTRO), Paragraph(_about(details)))
    return [
        Section("LENS: what distinguishes the candidates from the real sample", (*intro, *folds))
    ]


def _details(ranking: Ranking) -> JsonFields | None:
    """Return the details of the first LENS proxy; those of others differ in their scores only."""
    for key, state in ranking.details.items():
        info = ranking.proxies.get(key)
        if info is not None and info.family == "lens" and "candidates" in state:
            return JsonFields(state, f"details.{key}")
    return None


def _about(details: JsonFields) -> str:
    rubrics = details.optional_text("reasoner") or "nobody: judged without rubrics"
    readout = details.text("readout" if "readout" in details else "way")  # its name in 0.1
    counts = details.object("questions")
    asked = counted(counts.integer("asked"), "question")
    kept = counted(counts.integer("kept"), "answer")
    return (
        f"Judged by {details.text('scorer')} ({readout}), rubrics by {rubrics}; "
        f"{asked} asked, {kept} reused from earlier runs, {counts.integer('failed'):,} failed."
    )


def _candidate(name: str, fields: JsonFields) -> Fold:
    blocks: list[Block] = [PointList(title, points) for title, points in _points(fields)]
    examples = tuple(
        ExampleList(
            tuple((example_of(name, entry),) for entry in fields.objects(field)),
            title=title,
            is_small=True,
        )
        for field, title in _EXAMPLES
    )
    blocks.append(Columns(examples))
    of = counted(fields.integer("n"), "example")
    judged = f"{fields.integer('n_judged'):,} of {of} judged"
    return Fold(f"{name}: {judged}", tuple(blocks))


def _rubric_of(fields: JsonFields) -> Rubric | None:
    """Return the rubric in a candidate's details, None if it was judged without one."""
    state = fields.optional_object("rubric")
    if state is None:
        return None
    return Rubric(
        similarities=state.texts("similarities"),
        only_synthetic=state.texts("only_synthetic"),
        only_real=state.texts("only_real"),
    )


def _points(fields: JsonFields) -> Iterator[tuple[str, tuple[str, ...]]]:
    rubric = _rubric_of(fields)
    if rubric is not None:
        told = rubric.with_names(_REAL, _SYNTHETIC)
        for field, title in _LISTS:
            yield title, getattr(told, field)


def lens_text(ranking: Ranking) -> str:
    """Return the content of the section as Markdown, for loggers; empty without LENS."""
    details = _details(ranking)
    if details is None:
        return ""
    candidates = details.named_objects("candidates")
    lines = [_INTRO, "", _about(details)]
    for row in ranking.order():
        if row.name in candidates:
            fields = candidates[row.name]
            lines += ["", f"## {row.name}", *_rubric_lines(fields), *_example_lines(fields)]
    return "\n".join(lines)


def _rubric_lines(fields: JsonFields) -> Iterator[str]:
    for title, points in _points(fields):
        yield from ("", f"### {title}", *(f"{i}. {p}" for i, p in enumerate(points, 1)))


def _example_lines(fields: JsonFields) -> Iterator[str]:
    for field, title in _EXAMPLES:
        yield from ("", f"### {title}")
        for entry in fields.objects(field):
            view = entry.value("view")
            shown = " ".join(view.split()) if isinstance(view, str) else "(image)"
            realness, position = entry.number("realness"), entry.integer("position")
            yield f"- {realness:.3g}, example {position}: {shown}"


def feedback(ranking: Ranking, candidate: str | None = None) -> list[Feedback]:
    """Return what the generators of the candidates should change, best candidate first.

    Args:
        ranking: A ranking with the details of LENS.
        candidate: Name of the only candidate wanted; None for all.

    Raises:
        ConfigError: The ranking has no LENS proxy, LENS judged without rubrics, or the candidate
            is unknown.
        RecordError: The details of LENS are damaged.
    """
    details = _details(ranking)
    if details is None:
        raise ConfigError(
            f"the ranking was made by {', '.join(ranking.proxies)}: feedback needs a LENS proxy, "
            "as in `rank --proxies lens --json …`"
        )
    rows = ranking.order() if candidate is None else (ranking[candidate],)
    candidates = details.object("candidates")
    return [feedback_of(row.name, _entry(candidates, row.name)) for row in rows]


def _entry(candidates: JsonFields, name: str) -> JsonObject:
    fields = candidates.object(name) if name in candidates else JsonFields({})
    return {field: fields.value(field) for field in fields}


def write_rubrics(run_dir: str | Path, ranking: Ranking) -> Path | None:
    """Write a run's rubrics: `rubrics/rubrics.json` to edit and reuse, and a text file for each.

    Args:
        run_dir: The run's directory.
        ranking: A ranking with the details of LENS.

    Returns:
        The JSON file, which `LensConfig(rubrics=…)` accepts; None without rubrics.

    Raises:
        RecordError: A file cannot be written.
    """
    details = _details(ranking)
    if details is None:
        return None
    candidates = details.named_objects("candidates")
    every = {name: _rubric_of(fields) for name, fields in candidates.items()}
    rubrics = {name: rubric for name, rubric in every.items() if rubric is not None}
    if not rubrics:
        return None
    root = Path(run_dir) / "rubrics"
    for name, stem in zip(rubrics, _file_names(rubrics), strict=True):
        lines = [f"# {name}", *_rubric_lines(candidates[name])]
        write_text(root / f"{stem}.txt", "\n".join(lines) + "\n")
    about = {
        "model": details.optional_text("reasoner"),
        "prompts": details.optional_text("prompts"),
    }
    return save_rubrics(root / "rubrics.json", rubrics, about)


def _file_names(names: Iterable[str]) -> list[str]:
    """Return a plain file name for each name; underscores at the end keep them distinct."""
    stems: list[str] = []
    for name in names:
        stem = re.sub(r"[^\w=.-]+", "_", name)[:100].lstrip(".") or "_"
        while stem in stems:
            stem += "_"
        stems.append(stem)
    return stems
