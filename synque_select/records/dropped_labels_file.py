"""`dropped_labels.jsonl`: the examples that the label filter dropped or relabeled, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.run_folder import write_text
from synque_select.types.label_filter import DroppedLabel
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.text_files import read_text
from synque_select.utils.wording import percent

__all__ = ["DROPPED_LABELS", "load_dropped_labels", "save_dropped_labels"]

DROPPED_LABELS = "dropped_labels.jsonl"


def save_dropped_labels(
    path: str | Path, dropped: Mapping[str, Sequence[DroppedLabel]], *, relabel: bool
) -> Path:
    """Write one line per example, with the reason as a sentence, and return the path.

    Args:
        path: The file.
        dropped: Candidate name to its examples.
        relabel: Whether they were relabeled rather than dropped.

    Raises:
        RecordError: The file cannot be written.
    """
    lines = [
        json.dumps({"candidate": name, **vars(each), "reason": _reason(each, relabel)})
        for name, examples in dropped.items()
        for each in examples
    ]
    return write_text(path, "".join(f"{line}\n" for line in lines))


def _reason(each: DroppedLabel, relabel: bool) -> str:
    end = f"it is trained on as {each.voted!r}" if relabel else "it is dropped"
    # among three classes or more, over half of the votes may contradict the label that has the most
    most = "which" if each.voted == each.label else f"and {each.voted!r}"
    return (
        f"{percent(each.contradicted)} of the other candidates' votes contradict the label "
        f"{each.label!r}, {most} has the most votes of all classes: {end}"
    )


def load_dropped_labels(path: str | Path) -> dict[str, tuple[DroppedLabel, ...]]:
    """Read what `save_dropped_labels` wrote.

    Raises:
        RecordError: The file is missing or damaged; the message names the line.
    """
    path = Path(path)
    dropped: dict[str, list[DroppedLabel]] = {}
    try:
        lines = read_text(path, error=RecordError).splitlines()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            fields = JsonFields(parse_json(line, "the line", error=RecordError))
            name, each = fields.text("candidate"), _dropped(fields)
        except RecordError as error:
            raise RecordError(f"{path}, line {number}, is damaged: {error}") from error
        dropped.setdefault(name, []).append(each)
    return {name: tuple(examples) for name, examples in dropped.items()}


def _dropped(fields: JsonFields) -> DroppedLabel:
    return DroppedLabel(
        fields.integer("position", least=0),
        fields.text("label"),
        fields.text("voted"),
        fields.number("contradicted"),
    )
