"""Probabilities of choices from the most probable tokens that a server shows beside its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from synque_select.utils.wording import listed, percent

__all__ = [
    "FRAMES",
    "ChoiceMass",
    "Step",
    "Token",
    "choice_probabilities",
    "frame_of",
    "is_of_answer",
    "read_choice_mass",
    "steps_of_answer",
]

# what may come before an answer: only quotation marks, or the beginning of a JSON object
FRAMES: Mapping[str, re.Pattern[bytes]] = {
    "text": re.compile(rb"[\s\"'*`]*"),
    "json": re.compile(rb"\s*(?:```\w*\s*)?\{\s*\"answer\"\s*:\s*\""),
}
# a share of the probability that is not worth another request
_NEGLIGIBLE = 0.01
# a share that may be missing, or divided evenly for want of knowledge; more is not an answer
_MAX_UNSEEN = 0.05
_MAX_UNDECIDED = 0.5
# log-probabilities of a server are rounded: their sum may exceed 1 by this
_ROUNDING = 0.02
# how vocabularies write a space and a line break, in tokens that are not decoded
_RAW = ((b"\xc4\xa0", b" "), (b"\xe2\x96\x81", b" "), (b"\xc4\x8a", b"\n"))
# the end of a token such as </think>, [/THINK] or <|message|>
_MARK_ENDS = (b">", b"]", "▷".encode())
_MARKS = re.compile(rb"<[^<>]*>|\[[^\[\]]*\]")


class Token(TypedDict):
    """A token and its log-probability, as in OpenAI's protocol."""

    token: str
    logprob: float | None
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
        outside: Probability of texts with which no choice begins.
        unseen: Probability of all tokens that were not shown where the answer is decided.
        smallest: Probability of the least probable token shown at the beginning of the answer; a
            choice that is not shown has no more than that.
        is_alone: Whether a token that decides between choices has a probability of 1, or nearly,
            and no other is shown that has one. Many servers then write 1, whatever the model
            thinks.
        written: The choices with which the tokens of the answer itself begin.
    """

    by_choice: dict[str, float] = field(default_factory=dict)
    by_group: dict[tuple[str, ...], float] = field(default_factory=dict)
    outside: float = 0.0
    unseen: float = 0.0
    smallest: float = 0.0
    is_alone: bool = False
    written: tuple[str, ...] = ()

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

    @property
    def bound(self) -> float:
        """The most that a choice may have that was not shown."""
        return min(self.unseen, self.smallest)

    def missing_choices(self, choices: Sequence[str]) -> list[str]:
        """Return the choices that were not shown but may have more than a negligible share."""
        if self.bound <= _NEGLIGIBLE * self.total:
            return []
        grouped = {choice for group in self.by_group for choice in group}
        return [c for c in choices if c not in self.by_choice and c not in grouped]

    def problem(self, choices: Sequence[str]) -> str | None:
        """Return why these numbers are not the probabilities of the choices; None if they are."""
        if self.total <= 0:
            return "no choice begins with any of the tokens that the server shows (logprobs)"
        missing = self.missing_choices(choices)
        unseen = min(self.unseen, self.bound * len(missing))
        if unseen > _MAX_UNSEEN * self.total:
            shown = self.total + self.outside
            return (
                f"the server shows tokens with only {percent(shown / (shown + self.unseen))} of "
                f"the probability (logprobs), and none for {listed([repr(c) for c in missing])}"
            )
        if self.outside >= self.total:
            share = percent(self.outside / (self.total + self.outside))
            if not self.written:
                return (
                    f"the answer is none of the choices, with a probability of {share} (logprobs)"
                )
            # scaled to sum to 1, a choice with less than half would look certain
            possible = [choice for choice, mass in self.by_choice.items() if mass > 0]
            if len(possible) == 1 and not self.by_group:
                return (
                    f"{share} of the probability goes to answers that are none of the choices, and "
                    f"the tokens shown give the rest to {possible[0]!r} alone (logprobs)"
                )
        if self.is_alone:
            return (
                "the server shows no token beside that of the answer (top_logprobs), so that the "
                "probabilities of the other choices are unknown"
            )
        undecided = sum(self.by_group[group] for group in self.undecided_groups())
        if undecided > _MAX_UNDECIDED * self.total:
            return (
                f"the tokens that the server shows do not distinguish the choices: "
                f"{percent(undecided / self.total)} of the probability is of beginnings of several"
            )
        return None


def frame_of(content: Iterable[Step]) -> str:
    """Return what comes before an answer with these tokens: a key of `FRAMES`.

    A server may ignore the form that it was asked for, or keep to one that was not asked for.

    Example:
        >>> frame_of([{"token": '{"answer": "', "logprob": 0.0}, {"token": "yes", "logprob": 0.0}])
        'json'
    """
    text = b"".join(map(_bytes, content))
    return "json" if FRAMES["json"].match(text) else "text"


def steps_of_answer(content: Sequence[Step], answer: str) -> Sequence[Step]:
    """Leave out the tokens before an answer, which some servers show: reasoning, and its end.

    Args:
        content: `choices[0].logprobs.content` of a chat completion.
        answer: The text of the answer, without its reasoning.

    Raises:
        ValueError: After the answer, the tokens go on with other words: they begin with reasoning.

    Example:
        >>> steps = [{"token": "hm</think>", "logprob": -0.1}, {"token": "yes", "logprob": -0.2}]
        >>> steps_of_answer(steps, "yes")
        [{'token': 'yes', 'logprob': -0.2}]
    """
    parts = [_bytes(step) for step in content]
    written, own = b"".join(parts), answer.strip().encode("utf-8", "replace")
    if not own:
        return content
    at = written.rfind(own)
    before = written[: max(at, 0)].rstrip()
    if before.endswith(_MARK_ENDS):
        end = 0
        for i, part in enumerate(parts):
            end += len(part)
            if end >= len(before):
                return content[i + 1 :] if end <= at else content
    compact, start = (b"".join(text.split()).lower() for text in (written, own))
    if compact.startswith(start):
        rest = _MARKS.sub(b"", compact[len(start) :]).decode("utf-8", "replace")
        if any(character.isalnum() for character in rest):
            raise ValueError("there are more tokens than those of the answer")
    return content


def read_choice_mass(
    content: Iterable[Step],
    choices: Sequence[str],
    frame: str,
    among: Sequence[str] | None = None,
) -> ChoiceMass:
    """Follow the tokens of an answer until only one choice is possible.

    Args:
        content: `choices[0].logprobs.content` of a chat completion.
        choices: Possible answers, none of them a prefix of another.
        frame: What comes before the answer: a key of `FRAMES`.
        among: The choices that the server was told to answer with; None for all.

    Raises:
        ValueError: The numbers are not log-probabilities.

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
    open_choices: Sequence[str] = choices if among is None else among
    for step in content:
        written, others = _shown(step)
        begins = False
        for raw, probability in others:
            # every token that was not written is a branch of the answer: it counts for the
            # choices that could still begin that way
            possible = _possible_choices(text + raw, choices, frame)
            if possible is not None:
                begins = True
                choice_mass.add(possible, path_probability * probability)
        text += _bytes(step)
        possible = _possible_choices(text, choices, frame)
        if possible is not None:
            left = [choice for choice in open_choices if choice in possible]
            is_certain = (written or 0.0) >= 1 - _NEGLIGIBLE
            is_alone = not any(probability > 0 for _, probability in others)
            choice_mass.is_alone |= is_certain and is_alone and len(left) < len(open_choices)
            open_choices = left
        if begins or possible is not None:
            _check_same(step, written)
        if written is None:
            if begins or possible is not None:
                raise ValueError("a token of the answer has no log-probability")
            continue  # a token before the answer: what all choices share does not matter
        # a text may begin with any token; the JSON around an answer is forced
        if frame == "text" or begins or possible is not None:
            shown = [written, *(probability for _, probability in others)]
            choice_mass.unseen += path_probability * max(0.0, 1 - sum(shown))
            choice_mass.smallest = choice_mass.smallest or path_probability * min(shown)
        path_probability *= written
        if possible is not None and len(possible) < 2:
            choice_mass.written = possible
            choice_mass.add(possible, path_probability)
            return choice_mass
    choice_mass.written = _possible_choices(text, choices, frame) or ()
    choice_mass.add(choice_mass.written, path_probability)
    return choice_mass


def is_of_answer(written: Sequence[str], answer: str, choices: Sequence[str]) -> bool:
    """Return whether the choices that the tokens write may be those of the answer's text.

    Example:
        >>> is_of_answer(["likely"], '{"answer": "unlikely"}', ["likely", "unlikely"])
        False
    """
    raw = answer.strip().encode("utf-8", "replace")
    texts = [_possible_choices(raw, choices, frame) or () for frame in FRAMES]
    return not written or any(choice in written for text in texts for choice in text)


def _shown(step: Step) -> tuple[float | None, list[tuple[bytes, float]]]:
    """Return the probability of the written token, and the other tokens with theirs.

    A token without a log-probability, which means -inf or NaN, is left out.

    Raises:
        ValueError: The numbers are not log-probabilities.
    """
    written, own = _probability(step), _bytes(step)
    tops = step.get("top_logprobs") or []
    pairs = [(_bytes(other), _probability(other)) for other in tops]
    others = [(raw, p) for raw, p in pairs if raw != own and p is not None]
    if written is None:  # it may be in the list all the same
        written = next((p for raw, p in pairs if raw == own and p is not None), None)
    total = (written or 0.0) + sum(p for _, p in others)
    if total > 1 + _ROUNDING:
        raise ValueError(f"the probabilities of tokens sum to {total:.3g}")
    return written, others


def _check_same(step: Step, written: float | None) -> None:
    """Check that a token has the same probability in the list beside it.

    Raises:
        ValueError: It has another one.
    """
    own, tops = _bytes(step), step.get("top_logprobs") or []
    same = [p for p in (_probability(t) for t in tops if _bytes(t) == own) if p is not None]
    if written is not None and same and all(abs(p - written) > _ROUNDING for p in same):
        raise ValueError(
            f"the written token has the probability {written:.3g}, and {same[0]:.3g} in the list"
        )


def _probability(token: Token) -> float | None:
    value = token["logprob"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"the log-probability {value!r} is not a number")
    if math.isnan(value):
        return None
    if value > _ROUNDING:
        raise ValueError(f"the log-probability {value!r} is above 0")
    return math.exp(min(value, 0.0))


def _bytes(token: Token) -> bytes:
    """Return what a token writes; a token of half a character has no text, only bytes."""
    raw: object = token.get("bytes")
    if not isinstance(raw, list):  # a number would be that many bytes
        raw = None
    if not raw and not isinstance(token["token"], str):
        raise TypeError(f"the token {token['token']!r} is not a text")
    written = bytes(raw) if raw else token["token"].encode("utf-8", "replace")
    for encoded, plain in _RAW:
        written = written.replace(encoded, plain)
    return written


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
