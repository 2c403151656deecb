"""Whether examples of several candidates can stand in one batch, asked before training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate

from synque_select.data.candidate import Candidate
from synque_select.errors import DataError
from synque_select.training.mixture_loader import training_example

__all__ = ["check_collatable", "first_examples"]

_WAY_OUT = (
    "give train_transform=, a function that makes a training example of a record, or collate_fn=, "
    "one that makes a batch of a list of them"
)


def first_examples(
    candidates: Sequence[Candidate], transform: Callable[[Any], Any] | None
) -> dict[str, Any]:
    """Return each candidate's name and its first training example.

    Raises:
        DataError: One cannot be read, or the transform fails; the message names it.
    """
    return {candidate.name: training_example(candidate, 0, transform) for candidate in candidates}


def check_collatable(examples: Mapping[str, Any]) -> None:
    """Refuse examples of which the default collate_fn cannot make a batch.

    Args:
        examples: Candidate name to its first training example.

    Raises:
        DataError: Fields differ between candidates, or a value is of a kind that cannot be batched
            (a PIL image, None); the message names candidates and fields, and the way out.

    Example:
        >>> check_collatable({"a": {"x": 1}, "b": {"x": 2, "y": 3}})
        Traceback (most recent call last):
        synque_select.errors.DataError: candidates differ in their fields: b has 'y', a has not; ...
    """
    (first, example), *others = examples.items()
    _check_values(first, example)
    for name, other in others:
        _check_fields(first, example, name, other)
        _check_values(name, other)
        try:
            default_collate([example, other])
        except Exception as error:
            raise DataError(
                f"the first examples of {first} and {name} cannot stand in one batch: "
                f"{error}; {_WAY_OUT}"
            ) from error


def _check_fields(first: str, example: Any, name: str, other: Any) -> None:
    fields = [set(x) if isinstance(x, Mapping) else set() for x in (example, other)]
    for (has, mine), (lacks, theirs) in (
        ((name, fields[1]), (first, fields[0])),
        ((first, fields[0]), (name, fields[1])),
    ):
        if mine - theirs:
            extra = ", ".join(sorted(map(repr, mine - theirs)))
            raise DataError(
                f"candidates differ in their fields: {has} has {extra}, {lacks} has not; {_WAY_OUT}"
            )


def _check_values(name: str, example: Any) -> None:
    for field, value in _parts(example):
        try:
            default_collate([value, value])
        except Exception as error:
            kind = "a PIL image" if hasattr(value, "getpixel") else f"a {type(value).__name__}"
            where = f"{field} of {name}" if field else f"an example of {name}"
            raise DataError(f"{where} is {kind}, which cannot be batched; {_WAY_OUT}") from error


def _parts(example: Any) -> list[tuple[str, Any]]:
    if isinstance(example, Mapping):
        return [(f"field {key!r}", value) for key, value in example.items()]
    if isinstance(example, Sequence) and not isinstance(example, str):
        return [(f"part {place}", value) for place, value in enumerate(example)]
    return [("", example)]
