"""Messages about what was left out when data was read, and about labels that are missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.label_sets import NO_LABEL, class_names
from synque_select.data.views import digest
from synque_select.utils.wording import counted, listed

__all__ = ["left_out_messages"]

_SPLIT = re.compile(r"the split '[^']*' is read; left out: ")
_JOINED = re.compile(r"[\d,]+ (?:files|parts) are read as one dataset \(")
_SIZE = re.compile(r" \([^()]*\)")
# what programs write for a missing value; "none" in lower case is often a class
_WRITTEN_NULLS = ("nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "N/A", "NaT")


def left_out_messages(candidates: Sequence[Candidate], real: RealSample) -> tuple[str, ...]:
    r"""Report in plain sentences the files that were left out, and examples without text or label.

    Args:
        candidates: The candidates; labels are read of those that have a label.
        real: The real sample, whose labels are not read.

    Example:
        >>> a = Candidate("a", [("x", 0), ("y", None)], 0, 1, notes=("left out: 1 file",))
        >>> print(*left_out_messages([a], RealSample("real", ["p", "q"])), sep="\n")
        a: left out: 1 file.
        a: no label (null, NaN or blank) for 1 of 2 examples. Neither transfer nor a check of labels
        counts them.
    """
    parts = (real, *candidates)
    messages = _note_messages(parts)
    for part in parts:
        n_empty = 0 if part.modality == "image" else _n_empty(part)
        if n_empty:
            messages.append(
                f"{part.name}: no text (the view is empty) for {n_empty:,} of "
                f"{counted(len(part), 'example')}. Proxies count them as they are."
            )
    for candidate in candidates:
        n_missing, n = _n_without_label(candidate)
        if n_missing:
            messages.append(
                f"{candidate.name}: no label (null, NaN or blank) for {n_missing:,} of "
                f"{counted(n, 'example')}. Neither transfer nor a check of labels "
                "counts them."
            )
        nulls = Counter(() if candidate.label is None else candidate.labels)
        for text in (text for text in _WRITTEN_NULLS if nulls[text]):
            have = counted(nulls[text], "example has", "examples have")
            messages.append(
                f"{candidate.name}: {have} the label {text!r}, which is a class like any other "
                "text. If the label is missing there, write null."
            )
        merged = {} if candidate.label is None else candidate.merged_labels
        if merged:
            shown = [f"{name!r} ({listed([*map(repr, texts)])})" for name, texts in merged.items()]
            messages.append(
                f"{candidate.name}: labels that differ only in white space or invisible characters "
                "at their ends, in their Unicode form, or in how a number or true and false are "
                f"written, are one class: {listed(shown)}."
            )
    return (*messages, *_class_number_messages(candidates))


def _n_without_label(candidate: Candidate) -> tuple[int, int]:
    """Return how many examples have no label, and of how many: of all, if these were counted."""
    if candidate.label is None:
        return 0, len(candidate)
    population = candidate.population
    if population is not None and population.labels is not None:
        return population.labels.get(NO_LABEL, 0), population.n
    return candidate.labels.count(NO_LABEL), len(candidate)


def _note_messages(parts: Sequence[Examples]) -> list[str]:
    """Return the notes on what was read, each once with the names of all that it is about."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for part in parts:
        for note in part.notes:
            by_kind.setdefault(_kind_of_note(note), []).append((part.name, note))
    messages = []
    for kind, entries in by_kind.items():
        notes = {note for _, note in entries}
        text = notes.pop() if len(notes) == 1 else kind
        messages.append(f"{listed([name for name, _ in entries])}: {text}.")
    return messages


def _kind_of_note(note: str) -> str:
    """Return a note without the sizes and names that differ between datasets of one layout."""
    if _JOINED.match(note):
        return "the files of each are read as one dataset"
    return _SIZE.sub("", note) if _SPLIT.match(note) else note


def _n_empty(part: Examples) -> int:
    """Return how many views are the empty text, by their hashes, which may be cached."""
    return int((part.digests == np.frombuffer(digest(""), dtype=np.uint8)).all(axis=1).sum())


def _class_number_messages(candidates: Sequence[Candidate]) -> list[str]:
    """Say where one number is the label of different classes, which training would mix up."""
    by_name = [(c.name, class_names(c.dataset, c.label)) for c in candidates]
    known = [(name, classes) for name, classes in by_name if classes]
    for name, classes in known[1:]:
        first, first_classes = known[0]
        for number, (one, other) in enumerate(zip(first_classes, classes, strict=False)):
            if one != other:
                return [
                    f"The numbers of the labels differ in meaning: {number} is {one!r} in {first} "
                    f"and {other!r} in {name}. Rankings compare the names, but training gets the "
                    "numbers: give all candidates one order with align_labels_with_mapping of "
                    "datasets."
                ]
    return []
