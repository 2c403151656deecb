"""Probabilities of choices from the most probable tokens that a server shows beside its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

__all__ = ["FRAMES", "ChoiceMass", "Step", "Token", "choice_probabilities", "read_choice_mass"]

# what may come before an answer: only quotation marks, or the beginning of a JSON object
FRAMES: Mapping[str, re.Pattern[bytes]] = {
    "text": re.compile(rb"[\s\"'*`]*"),
    "json": re.compile(rb"\s*\{\s*\"answer\"\s*:\s*\""),
}
# a share of the probability that is not worth another request
_NEGLIGIBLE = 0.01


class Token(TypedDict):
    """A token and its log-probability, as in OpenAI's protocol."""

    token: str
    logprob: float
    bytes: NotRequired[list[int] | None]


class Step(Token):
    """A token of an answer, with the most probable tokens at its place."""

    top_logprobs: NotRequired[list[Token] | None]


@dataclass
class ChoiceMass:
    """The probability that the tokens shown for one answer give to each choice.

    Args:
        by_choice: Probability of texts with which only this choice can begin.
        by_group: Probability of texts with which several choices begin, by those choices.
        outside: Probability of texts with which no choice begins. Above 0, the server shows the
            tokens of the unconstrained model.
        smallest: Probability of the least probable token shown at the beginning of the answer; a
            choice that is not shown has no more than that. 0 if all tokens were shown.
    """

    by_choice: dict[str, float] = field(default_factory=dict)
    by_group: dict[tuple[str, ...], float] = field(default_factory=dict)
    outside: float = 0.0
    smallest: float = 0.0

    def add(self, choices: tuple[str, ...], mass: float) -> None:
        """Add the probability of a text with which these choices begin."""
        if not choices:
            self.outside += mass
        elif len(choices) == 1:
            self.by_choice[choices[0]] = self.by_choice.get(choices[0], 0.0) + mass
        else:
            self.by_group[choices] = self.by_group.get(choices, 0.0) + mass

    @property
    def total(self) -> float:
        """Probability of all texts with which some choice begins."""
        return sum(self.by_choice.values()) + sum(self.by_group.values())

    def undecided_groups(self) -> list[tuple[str, ...]]:
        """Return the groups whose division is mostly unknown, and worth another request."""
        return [
            group
            for group, mass in self.by_group.items()
            if mass > _NEGLIGIBLE * self.total
            and mass > sum(self.by_choice.get(choice, 0.0) for choice in group)
        ]

    def missing_choices(self, choices: Sequence[str]) -> list[str]:
        """Return the choices that were not shown but may have more than a negligible share."""
        # among the tokens that a constraint allows, one that is not in the top 20 has almost no
        # probability; among those of the unconstrained model it may have
        if self.outside <= 0 or self.smallest <= _NEGLIGIBLE * self.total:
            return []
        grouped = {choice for group in self.by_group for choice in group}
        return [c for c in choices if c not in self.by_choice and c not in grouped]


def read_choice_mass(content: Iterable[Step], choices: Sequence[str], frame: str) -> ChoiceMass:
    """Follow the tokens of an answer until only one choice is possible.

    Args:
        content: `choices[0].logprobs.content` of a chat completion.
        choices: Possible answers, none of them a prefix of another.
        frame: What comes before the answer: a key of `FRAMES`.

    Example:
        >>> step = {"token": "un", "logprob": -0.7, "top_logprobs": [
        ...     {"token": "un", "logprob": -0.7}, {"token": "likely", "logprob": -0.9}]}
        >>> mass = read_choice_mass([step], ["likely", "unlikely", "unsure"], "text")
        >>> {c: round(p, 2) for c, p in mass.by_choice.items()}
        {'likely': 0.41}
        >>> {c: round(p, 2) for c, p in mass.by_group.items()}
        {('unlikely', 'unsure'): 0.5}
    """
    choice_mass = ChoiceMass()
    text, path_probability = b"", 1.0
    for step in content:
        others = [o for o in step.get("top_logprobs") or [] if o["token"] != step["token"]]
        begins = False
        for other in others:
            # every token that was not written is a branch of the answer: it counts for the
            # choices that could still begin that way
            possible = _possible_choices(text + _bytes(other), choices, frame)
            if possible is not None:
                begins = True
                choice_mass.add(possible, path_probability * math.exp(other["logprob"]))
        if begins and not choice_mass.smallest:
            least = min(math.exp(other["logprob"]) for other in others)
            choice_mass.smallest = path_probability * least
        text += _bytes(step)
        path_probability *= math.exp(step["logprob"])
        possible = _possible_choices(text, choices, frame)
        if possible is not None and len(possible) < 2:
            choice_mass.add(possible, path_probability)
            return choice_mass
    choice_mass.add(_possible_choices(text, choices, frame) or (), path_probability)
    return choice_mass


def _bytes(token: Token) -> bytes:
    """Return what a token writes; a token of half a character has no text, only bytes."""
    raw = token.get("bytes")
    return bytes(raw) if raw else str(token["token"]).encode()


def _possible_choices(text: bytes, choices: Sequence[str], frame: str) -> tuple[str, ...] | None:
    """Return the choices that a text may still become; None if the answer has not begun."""
    match = FRAMES[frame].match(text)
    answer = b"" if match is None else text[match.end() :].lower()
    if not answer:
        return None
    encoded = [(choice, choice.encode().lower()) for choice in choices]
    return tuple(c for c, raw in encoded if raw.startswith(answer) or answer.startswith(raw))


def choice_probabilities(choice_mass: ChoiceMass, choices: Sequence[str]) -> list[float] | None:
    """Return the probability of each choice, scaled to sum to 1.

    A group that is still undecided is divided in proportion to the known probabilities of its
    choices, or evenly if none is known.

    Args:
        choice_mass: Result of `read_choice_mass`.
        choices: Possible answers.

    Returns:
        One probability per choice; None if no choice was shown.

    Example:
        >>> mass = ChoiceMass({"a": 0.3, "b": 0.1}, {("b", "c"): 0.1})
        >>> choice_probabilities(mass, ["a", "b", "c"])
        [0.6, 0.4, 0.0]
    """
    weights = dict.fromkeys(choices, 0.0) | choice_mass.by_choice
    for group, mass in choice_mass.by_group.items():
        known = [choice_mass.by_choice.get(choice, 0.0) for choice in group]
        parts = known if sum(known) > 0 else [1.0] * len(group)
        for choice, part in zip(group, parts, strict=True):
            weights[choice] = weights.get(choice, 0.0) + mass * part / sum(parts)
    total = sum(weights[choice] for choice in choices)
    return [weights[choice] / total for choice in choices] if total > 0 else None
