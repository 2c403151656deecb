"""What of a model's examples is used: generated text is not trusted."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.contamination import duplicate_groups, duplicates_in
from synque_select.data.examples import Examples
from synque_select.generation.record_form import Record, RecordForm
from synque_select.utils.wording import listed

__all__ = ["DROP_REASONS", "DropReason", "Screened", "dropped_words", "replace_data", "screen"]

DropReason = Literal[
    "no_answer", "wrong_form", "empty", "too_long", "unknown_label",
    "copy_of_real", "copy_of_data", "repeated",
]  # fmt: skip
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)
_WORDS: Mapping[DropReason, str] = {
    "no_answer": "no answer",
    "wrong_form": "not in the form of an example",
    "empty": "empty",
    "too_long": "too long",
    "unknown_label": "label that the candidate does not have",
    "copy_of_real": "copy or near copy of a real example",
    "copy_of_data": "copy or near copy of an example that is there already",
    "repeated": "copy or near copy of another new one",
}


@dataclass(frozen=True)
class Screened:
    """The examples of a batch that are used.

    Args:
        records: The examples.
        dropped: Number of the others by reason, of those that occur.
    """

    records: tuple[Record, ...]
    dropped: Mapping[DropReason, int]


def dropped_words(dropped: Mapping[DropReason, int]) -> str:
    """Return why examples were dropped, as a part of a sentence.

    Example:
        >>> dropped_words({"empty": 2, "repeated": 1})
        '2 empty, 1 copy or near copy of another new one'
    """
    return listed([f"{n:,} {_WORDS[reason]}" for reason, n in dropped.items() if n], 8)


def screen(
    written: Sequence[tuple[RecordForm, Record]],
    data: Candidate,
    real: Sequence[RealSample],
) -> Screened:
    """Drop the examples that must not be trained on, in the order of `DROP_REASONS`.

    Args:
        written: The examples that have the form of the data, each with its form.
        data: The examples that are there already.
        real: Both halves of the real sample.
    """
    dropped: dict[DropReason, int] = {}
    kept: list[Record] = []
    for form, record in written:
        reason = _alone(form, record)
        if reason is None:
            kept.append(record)
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    searched: tuple[tuple[DropReason, Sequence[Examples]], ...] = (
        ("copy_of_real", real),
        ("copy_of_data", (data,)),
        ("repeated", ()),
    )
    for kind, others in searched:
        is_bad = _copies(kept, data, others)
        if is_bad.any():
            dropped[kind] = int(is_bad.sum())
        kept = [record for record, bad in zip(kept, is_bad.tolist(), strict=True) if not bad]
    ordered = {reason: dropped[reason] for reason in DROP_REASONS if reason in dropped}
    return Screened(tuple(kept), ordered)


def _alone(form: RecordForm, record: Record) -> DropReason | None:
    texts = form.texts(record)
    if any(map(_is_blank, texts.values())):
        return "empty"
    if any(len(text) > form.max_chars for text in texts.values()):
        return "too_long"
    if form.label is not None and texts[form.label.field] not in form.label.values:
        return "unknown_label"
    return None


def _is_blank(text: str) -> bool:
    """Return whether nothing of a text can be seen: spaces, control and format characters."""
    return all(unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp") for c in text)


def _copies(
    records: Sequence[Record], data: Candidate, others: Sequence[Examples]
) -> NDArray[np.bool_]:
    """Return which records have a duplicate in other data; without any, in an earlier record."""
    if not records:
        return np.zeros(0, dtype=bool)
    # one example is not a dataset, and a dataset of two equal ones is
    batch = replace_data(data, [*records, *records])
    if others:
        is_copy = np.zeros(len(batch), dtype=bool)
        for other in others:
            is_copy |= duplicates_in(batch, other)
        return is_copy[: len(records)]
    groups = duplicate_groups(batch).groups[: len(records)]
    is_repeated = np.ones(len(records), dtype=bool)
    is_repeated[np.unique(groups, return_index=True)[1]] = False
    return is_repeated


def replace_data(data: Candidate, records: Sequence[Record], name: str | None = None) -> Candidate:
    """Return a candidate with other examples that are read in the same way.

    Args:
        data: The candidate.
        records: Its new examples, at least 2.
        name: Its new name; None for the same.
    """
    return replace(
        data,
        name=data.name if name is None else name,
        dataset=list(records),
        view=data.selector,
        source="",
        example_scores={},
    )
