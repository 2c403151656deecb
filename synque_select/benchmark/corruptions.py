"""Candidates with a controlled share of spoilt examples."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, did_you_mean

__all__ = ["KINDS", "Corruption", "corrupted", "parse_corruption"]

DEFAULT_SHARE = 0.5

_NUMBER = re.compile(r"\d+")
# a capitalised word that does not open the text: a name, as far as one can see without a model
_NAME = re.compile(r"(?<=\s)[A-Z][\w-]+")
_Record = dict[str, Any]


@dataclass(frozen=True)
class Corruption:
    """What is done to a candidate.

    Args:
        kind: A key of `KINDS`.
        share: Share of the examples that are spoilt, in (0, 1].
    """

    kind: str
    share: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.share:g}"


@dataclass(frozen=True)
class _Material:
    """What a corruption may draw on.

    Args:
        records: All examples of the candidate.
        view: Field that a proxy sees.
        label: Field that holds the label, None where there is none.
        foreign: Texts of other groups.
        generator: Source of all draws.
    """

    records: Sequence[_Record]
    view: str
    label: str | None
    foreign: Sequence[str]
    generator: np.random.Generator


def parse_corruption(text: str) -> Corruption:
    """Read "kind" or "kind:share".

    Raises:
        ConfigError: There is no such kind, or the share is not in (0, 1].

    Example:
        >>> parse_corruption("truncated:0.25")
        Corruption(kind='truncated', share=0.25)
    """
    kind, _, given = text.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"unknown corruption {kind!r}: {did_you_mean(kind, KINDS)}")
    try:
        share = float(given) if given else DEFAULT_SHARE
    except ValueError as error:
        raise ConfigError(f"corruption {text!r}: the share {given!r} is no number") from error
    if not 0 < share <= 1:
        raise ConfigError(f"corruption {text!r}: allowed is a share above 0 and up to 1")
    return Corruption(kind, share)


def corrupted(
    candidate: Candidate, corruption: Corruption, foreign: Sequence[str], seed: int
) -> Candidate:
    """Return a twin of the candidate in which a random share of the examples is spoilt.

    Args:
        candidate: Its examples are records.
        corruption: What is done, and to how many.
        foreign: Texts of other groups, for "off_topic".
        seed: Seed of all draws, together with the candidate's name.

    Raises:
        DataError: The corruption needs labels or texts of other groups, and there are none.
    """
    view = str(candidate.selector)
    label = None if candidate.label is None else str(candidate.label)
    records = [dict(candidate[i]) for i in range(len(candidate))]
    generator = np.random.default_rng([seed, zlib.crc32(f"{candidate.name} {corruption}".encode())])
    n_spoilt = max(1, round(corruption.share * len(records)))
    chosen = generator.permutation(len(records))[:n_spoilt]
    material = _Material(records, view, label, foreign, generator)
    changed = KINDS[corruption.kind](material, chosen.tolist())
    twin = [changed.get(i, record) for i, record in enumerate(records)]
    return Candidate(f"{candidate.name} [{corruption}]", twin, view, candidate.label)


def _false_facts(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Record]:
    """Every number becomes another of as many digits, every name one of another example."""
    names = [name for r in material.records for name in _NAME.findall(r[material.view])]
    draw = material.generator

    def number(match: re.Match[str]) -> str:
        digits = draw.integers(0, 10, size=len(match[0]))
        return "".join(map(str, digits))

    def name(match: re.Match[str]) -> str:
        return str(names[int(draw.integers(len(names)))])

    return _rewritten(material, chosen, lambda t: _NAME.sub(name, _NUMBER.sub(number, t)))


def _shuffled_labels(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Record]:
    """The labels of the chosen examples are dealt out among them anew."""
    if material.label is None:
        raise DataError("there are no labels to shuffle")
    dealt = material.generator.permutation(chosen).tolist()
    label = material.label
    return {
        i: {**material.records[i], label: material.records[j][label]}
        for i, j in zip(chosen, dealt, strict=True)
    }


def _near_duplicates(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Record]:
    """The chosen examples become light edits of the others, or of one if all are chosen."""
    kept = sorted({*range(len(material.records))} - {*chosen}) or [chosen[0]]
    sources = material.generator.choice(kept, size=len(chosen)).tolist()
    found = {}
    for i, j in zip(chosen, sources, strict=True):
        text = material.records[j][material.view]
        edited = text[:1].swapcase() + text[1:].rstrip(".?! ") + " ."
        found[i] = {**material.records[j], material.view: edited}
    return found


def _off_topic(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Record]:
    """The chosen texts are replaced by texts of other groups."""
    if not material.foreign:
        raise DataError("there is no other group to take texts from")
    drawn = material.generator.integers(len(material.foreign), size=len(chosen)).tolist()
    return {
        i: {**material.records[i], material.view: material.foreign[j]}
        for i, j in zip(chosen, drawn, strict=True)
    }


def _truncated(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Record]:
    """The chosen texts lose the second half of their words."""
    return _rewritten(material, chosen, _first_half)


def _first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: max(1, len(words) // 2)])


def _rewritten(
    material: _Material, chosen: Sequence[int], rewrite: Callable[[str], str]
) -> Mapping[int, _Record]:
    view = material.view
    return {i: {**material.records[i], view: rewrite(material.records[i][view])} for i in chosen}


KINDS: dict[str, Callable[[_Material, Sequence[int]], Mapping[int, _Record]]] = {
    "false_facts": _false_facts,
    "near_duplicates": _near_duplicates,
    "off_topic": _off_topic,
    "shuffled_labels": _shuffled_labels,
    "truncated": _truncated,
}
