"""Candidates with a controlled share of corrupted examples."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, did_you_mean

__all__ = ["KINDS", "Corruption", "corrupted", "parse_corruption"]

DEFAULT_SHARE = 0.5

_NUMBER = re.compile(r"\d+")
# a capitalized word that does not begin the text: a name, as far as a pattern can tell
_NAME = re.compile(r"(?<=\s)[A-Z][\w-]+")
_Example: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Corruption:
    """What is done to a candidate.

    Args:
        kind: A key of `KINDS`.
        share: Share of the examples that are corrupted, in (0, 1].
    """

    kind: str
    share: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.share:g}"


@dataclass(frozen=True)
class _Material:
    """What a corruption may use.

    Args:
        examples: All examples of the candidate.
        view: Name of the field that proxies see.
        label: Name of the field that holds the label, None without labels.
        foreign: Texts of other groups.
        generator: Source of all random choices.
    """

    examples: Sequence[_Example]
    view: str
    label: str | None
    foreign: Sequence[str]
    generator: np.random.Generator

    def text(self, position: int) -> str:
        """Return the text that proxies see."""
        return str(self.examples[position][self.view])


_Corrupt = Callable[[_Material, Sequence[int]], Mapping[int, _Example]]


def parse_corruption(text: str) -> Corruption:
    """Read "kind" or "kind:share".

    Raises:
        ConfigError: The kind is unknown, or the share is not in (0, 1].

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
        raise ConfigError(f"corruption {text!r}: the share {given!r} is not a number") from error
    if not 0 < share <= 1:
        raise ConfigError(f"corruption {text!r}: allowed is a share above 0 and up to 1")
    return Corruption(kind, share)


def corrupted(
    candidate: Candidate, corruption: Corruption, foreign: Sequence[str], seed: int
) -> Candidate:
    """Return a twin of the candidate in which a random share of the examples is corrupted.

    Args:
        candidate: The candidate; its examples are mappings.
        corruption: What is done, and to which share of the examples.
        foreign: Texts of other groups, for "off_topic".
        seed: Random seed; the candidate's name and the corruption are hashed into it.

    Raises:
        DataError: The corruption needs labels or texts of other groups, and none exist.
    """
    view = str(candidate.selector)
    label = None if candidate.label is None else str(candidate.label)
    examples = [dict(candidate[i]) for i in range(len(candidate))]
    generator = np.random.default_rng([seed, zlib.crc32(f"{candidate.name} {corruption}".encode())])
    n_corrupted = max(1, round(corruption.share * len(examples)))
    chosen = generator.permutation(len(examples))[:n_corrupted]
    material = _Material(examples, view, label, foreign, generator)
    changed = KINDS[corruption.kind](material, chosen.tolist())
    twin = [changed.get(i, example) for i, example in enumerate(examples)]
    return Candidate(f"{candidate.name} [{corruption}]", twin, view, candidate.label)


def _false_facts(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Example]:
    """Replace every number by another of as many digits, every name by one of another example."""
    texts = [material.text(i) for i in range(len(material.examples))]
    names = [name for text in texts for name in _NAME.findall(text)]
    random = material.generator

    def number(match: re.Match[str]) -> str:
        digits = random.integers(0, 10, size=len(match[0]))
        return "".join(map(str, digits))

    def name(match: re.Match[str]) -> str:
        return str(names[int(random.integers(len(names)))])

    return _rewritten(material, chosen, lambda t: _NAME.sub(name, _NUMBER.sub(number, t)))


def _shuffled_labels(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Example]:
    """Permute the labels of the chosen examples among them."""
    label = material.label
    if label is None:
        raise DataError("shuffling needs labels, and the candidate has none")
    sources = material.generator.permutation(chosen).tolist()
    return {
        i: {**material.examples[i], label: material.examples[j][label]}
        for i, j in zip(chosen, sources, strict=True)
    }


def _near_duplicates(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Example]:
    """Replace the chosen examples by light edits of the others (of one, if all are chosen)."""
    kept = sorted({*range(len(material.examples))} - {*chosen}) or [chosen[0]]
    sources = material.generator.choice(kept, size=len(chosen)).tolist()
    changed = {}
    for i, j in zip(chosen, sources, strict=True):
        text = material.text(j)
        edited = text[:1].swapcase() + text[1:].rstrip(".?! ") + " ."
        changed[i] = {**material.examples[j], material.view: edited}
    return changed


def _off_topic(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Example]:
    """Replace the chosen texts by texts of other groups."""
    if not material.foreign:
        raise DataError("off-topic texts come from other groups, and none exist")
    sources = material.generator.integers(len(material.foreign), size=len(chosen)).tolist()
    return {
        i: {**material.examples[i], material.view: material.foreign[j]}
        for i, j in zip(chosen, sources, strict=True)
    }


def _truncated(material: _Material, chosen: Sequence[int]) -> Mapping[int, _Example]:
    """Cut the second half of the words off the chosen texts."""
    return _rewritten(material, chosen, _first_half)


def _first_half(text: str) -> str:
    words = text.split()
    return " ".join(words[: max(1, len(words) // 2)])


def _rewritten(
    material: _Material, chosen: Sequence[int], rewrite: Callable[[str], str]
) -> Mapping[int, _Example]:
    return {i: {**material.examples[i], material.view: rewrite(material.text(i))} for i in chosen}


KINDS: dict[str, _Corrupt] = {
    "false_facts": _false_facts,
    "near_duplicates": _near_duplicates,
    "off_topic": _off_topic,
    "shuffled_labels": _shuffled_labels,
    "truncated": _truncated,
}
