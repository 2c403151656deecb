"""How probable answers are, from the tokens that a server shows beside the ones it wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FRAMES", "Seen", "read_path", "shares"]

# what may stand before an answer: nothing but quotes, or the beginning of a JSON object
FRAMES: Mapping[str, re.Pattern[bytes]] = {
    "text": re.compile(rb"[\s\"'*`]*"),
    "json": re.compile(rb"\s*\{\s*\"answer\"\s*:\s*\""),
}
_NEGLIGIBLE = 0.01


@dataclass
class Seen:
    """Where the probability of one answer's tokens goes.

    Args:
        of_choice: By choice: of texts that only this choice can begin with.
        of_group: Of texts that several choices begin with, by these choices.
        outside: Of texts that begin no choice; above 0, the server shows what the model would do
            if it were free.
        smallest: The least probable token that was shown, where the answer begins: a choice that
            was not shown has no more. 0 where all tokens were shown.
    """

    of_choice: dict[str, float] = field(default_factory=dict)
    of_group: dict[tuple[str, ...], float] = field(default_factory=dict)
    outside: float = 0.0
    smallest: float = 0.0

    def add(self, found: tuple[str, ...], mass: float) -> None:
        """Count the probability of a text that these choices begin with."""
        if not found:
            self.outside += mass
        elif len(found) == 1:
            self.of_choice[found[0]] = self.of_choice.get(found[0], 0.0) + mass
        else:
            self.of_group[found] = self.of_group.get(found, 0.0) + mass

    @property
    def total(self) -> float:
        """Probability of all texts that begin some choice."""
        return sum(self.of_choice.values()) + sum(self.of_group.values())

    def unclear(self) -> list[tuple[str, ...]]:
        """Return the groups of which most is undecided: worth a question of their own."""
        return [
            group
            for group, mass in self.of_group.items()
            if mass > _NEGLIGIBLE * self.total
            and mass > sum(self.of_choice.get(choice, 0.0) for choice in group)
        ]

    def hidden(self, choices: Sequence[str]) -> list[str]:
        """Return the choices that were not shown, and may have more than a negligible share.

        Only where the server shows a free model's tokens: among the tokens that a constraint
        leaves, a choice that is not shown has next to nothing.
        """
        if self.outside <= 0 or self.smallest <= _NEGLIGIBLE * self.total:
            return []
        grouped = {choice for group in self.of_group for choice in group}
        return [c for c in choices if c not in self.of_choice and c not in grouped]


def read_path(content: Iterable[Mapping[str, Any]], choices: Sequence[str], frame: str) -> Seen:
    """Walk along an answer's tokens, up to where only one choice is left.

    Args:
        content: `choices[0].logprobs.content` of a chat completion.
        choices: Possible answers, none the beginning of another.
        frame: What stands before the answer: a key of `FRAMES`.

    Example:
        >>> step = {"token": "un", "logprob": -0.7, "top_logprobs": [
        ...     {"token": "un", "logprob": -0.7}, {"token": "likely", "logprob": -0.9}]}
        >>> seen = read_path([step], ["likely", "unlikely", "unsure"], "text")
        >>> {c: round(p, 2) for c, p in seen.of_choice.items()}
        {'likely': 0.41}
        >>> {c: round(p, 2) for c, p in seen.of_group.items()}
        {('unlikely', 'unsure'): 0.5}
    """
    seen = Seen()
    text, mass = b"", 1.0
    for step in content:
        others = [o for o in step.get("top_logprobs") or [] if o["token"] != step["token"]]
        begins = False
        for other in others:
            found = _fitting(text + _bytes(other), choices, frame)
            if found is not None:
                begins = True
                seen.add(found, mass * math.exp(other["logprob"]))
        if begins and not seen.smallest:
            seen.smallest = mass * min(math.exp(other["logprob"]) for other in others)
        text += _bytes(step)
        mass *= math.exp(step["logprob"])
        found = _fitting(text, choices, frame)
        if found is not None and len(found) < 2:
            seen.add(found, mass)
            return seen
    seen.add(_fitting(text, choices, frame) or (), mass)
    return seen


def _bytes(token: Mapping[str, Any]) -> bytes:
    """What a token writes; half a character only its bytes can tell."""
    given = token.get("bytes")
    return bytes(given) if given else str(token["token"]).encode()


def _fitting(text: bytes, choices: Sequence[str], frame: str) -> tuple[str, ...] | None:
    """Choices that an answer may still become; None where it has not begun."""
    match = FRAMES[frame].match(text)
    answer = b"" if match is None else text[match.end() :].lower()
    if not answer:
        return None
    known = [(choice, choice.encode().lower()) for choice in choices]
    return tuple(c for c, raw in known if raw.startswith(answer) or answer.startswith(raw))


def shares(seen: Seen, choices: Sequence[str]) -> list[float] | None:
    """Return each choice's share of the probability, None where no choice was shown.

    A group that is still undecided is divided like what is known of its choices, else evenly.

    Example:
        >>> shares(Seen({"a": 0.3, "b": 0.1}, {("b", "c"): 0.1}), ["a", "b", "c"])
        [0.6, 0.4, 0.0]
    """
    weights = dict.fromkeys(choices, 0.0) | seen.of_choice
    for group, mass in seen.of_group.items():
        known = [seen.of_choice.get(choice, 0.0) for choice in group]
        parts = known if sum(known) > 0 else [1.0] * len(group)
        for choice, part in zip(group, parts, strict=True):
            weights[choice] = weights.get(choice, 0.0) + mass * part / sum(parts)
    total = sum(weights[choice] for choice in choices)
    return [weights[choice] / total for choice in choices] if total > 0 else None
