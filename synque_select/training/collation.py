"""Checks before training whether examples of several candidates can be in one batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch.utils.data import DataLoader, default_collate

from synque_select.data.candidate import Candidate
from synque_select.data.views import describe
from synque_select.errors import DataError
from synque_select.training.mixture_loader import Transform, training_example

__all__ = ["add_transform_note", "check_collatable", "check_collate", "first_examples"]

_MAX_SHOWN = 40
_REMEDY = (
    "give train_transform=, a function that turns one example of a dataset into a training "
    "example, or collate_fn=, one that turns a list of them into a batch"
)


def first_examples(
    candidates: Sequence[Candidate], transform: Transform | None
) -> dict[str, object]:
    """Return the first training example of each candidate by name.

    Raises:
        DataError: An example cannot be read, or the transform fails; the message names it.
    """
    return {candidate.name: training_example(candidate, 0, transform) for candidate in candidates}


def add_transform_note(error: BaseException, candidate: Candidate) -> None:
    """Add a hint to an error in training that a batch of untransformed examples may have caused.

    Example:
        >>> error = KeyError(0)
        >>> add_transform_note(error, Candidate("a", [{"text": "x", "label": 1}] * 2))
        >>> error.__notes__[0].partition(";")[0]
        "the batches of candidates have the fields 'text', 'label', as no train_transform is given"
    """
    if not isinstance(error, KeyError | IndexError | TypeError | AttributeError):
        return
    example = candidate[0]
    if isinstance(example, Mapping):
        what = f"the fields {', '.join(map(repr, example))}"
    else:
        what = f"examples of type {type(example).__name__}"
    error.add_note(
        f"the batches of candidates have {what}, as no train_transform is given; if the model "
        f"expects something else, {_REMEDY}"
    )


def check_collatable(examples: Mapping[str, object]) -> None:
    """Check whether the default collate_fn can make a batch of these examples.

    Args:
        examples: Candidate name to its first training example.

    Raises:
        DataError: Candidates differ in their fields, or a value has a type that cannot be batched
            (a PIL image, None); the message names candidates, fields and the remedy.

    Example:
        >>> check_collatable({"a": {"x": 1}, "b": {"x": 2, "y": 3}})
        Traceback (most recent call last):
        synque_select.errors.DataError: candidates differ in their fields: 'y' is in b, ...
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
                f"the first examples of {first} and {name} cannot be in one batch: "
                f"{error}; {_REMEDY}"
            ) from error


def check_collate(
    loader: DataLoader[object], examples: Mapping[str, object], *, has_transform: bool
) -> None:
    """Check whether the collate_fn of a wrapped DataModule takes the examples of candidates.

    Args:
        loader: Its training loader.
        examples: Candidate name to its first training example.
        has_transform: Whether `train_transform` made the examples.

    Raises:
        DataError: It fails; the message has an example, and a train_transform for it.
    """
    collate = loader.collate_fn
    for name, example in examples.items():
        try:
            # copies, because a collate_fn may take fields out of what it gets
            collate([copy.copy(example), copy.copy(example)])
        except Exception as error:
            own = _own_example(loader)
            given = " that train_transform returns" if has_transform else ""
            raise DataError(
                f"the collate_fn of the wrapped DataModule ({_name_of(collate)}) cannot take an "
                f"example of {name}{given}, {_shown(example)}: {type(error).__name__}: "
                f"{_first_line(error)}. "
                + ("" if own is None else f"Its own training examples are {_shown(own)}. ")
                + f"Give train_transform=, a function that turns one into the other, such as\n"
                f"{_transform_for(example, own)}"
            ) from error


def _own_example(loader: DataLoader[object]) -> object:
    try:
        return loader.dataset[0]
    except Exception:  # an iterable dataset, or one of the user's that fails
        return None


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _shown(example: object) -> str:
    if isinstance(example, Mapping):
        return "{" + ", ".join(f"{k!r}: {_value(v)}" for k, v in example.items()) + "}"
    if isinstance(example, tuple | list):
        return f"({', '.join(map(_value, example))})"
    return _value(example)


def _value(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…")
    if isinstance(value, int | float | bool):
        return repr(value)
    return f"<{describe(value)}>"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _transform_for(example: object, own: object) -> str:
    """Return the code of a transform from an example of a candidate to one of the wrapped data."""
    names = list(example) if isinstance(example, Mapping) else []
    text = next((n for n in names if isinstance(example, Mapping) and _is_text(example[n])), None)
    source = "example" if text is None else f"example[{text!r}]"
    wanted = list(own) if isinstance(own, Mapping) else []
    begin = "    def train_transform(example):\n        return "
    if isinstance(own, str):
        return f"{begin}{source}"
    if isinstance(own, tuple | list):
        parts = [source, *(f"example[{n!r}]" for n in names if n != text)]
        return f"{begin}({', '.join(parts[: len(own)])})"
    fields = [f"{n!r}: example[{_like(n, names)!r}]" for n in wanted if _like(n, names)]
    if not wanted or "input_ids" in wanted:
        if not wanted and "label" in names:
            fields = ["'labels': example['label']"]
        return f"{begin}{{{', '.join([f'**tokenizer({source}, truncation=True)', *fields])}}}"
    rest = [f"{n!r}: …" for n in wanted if not _like(n, names)]
    return f"{begin}{{{', '.join([*fields, *rest])}}}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _like(name: object, names: Sequence[object]) -> object:
    """Return the field that has the name, or that in the singular or plural."""
    forms = (name, f"{name}s", str(name).removesuffix("s"))
    return next((form for form in forms if form in names), None)


def _check_fields(first: str, example: object, name: str, other: object) -> None:
    fields = [set(x) if isinstance(x, Mapping) else set() for x in (example, other)]
    for (has, mine), (lacks, theirs) in (
        ((name, fields[1]), (first, fields[0])),
        ((first, fields[0]), (name, fields[1])),
    ):
        if mine - theirs:
            extra = ", ".join(sorted(map(repr, mine - theirs)))
            verb = "is" if len(mine - theirs) == 1 else "are"
            raise DataError(
                f"candidates differ in their fields: {extra} {verb} in {has}, not in {lacks}; "
                f"{_REMEDY}"
            )


def _check_values(name: str, example: object) -> None:
    for field, value in _parts(example):
        try:
            default_collate([value, value])
        except Exception as error:
            kind = (
                "a PIL image" if hasattr(value, "getpixel") else f"of type {type(value).__name__}"
            )
            where = f"{field} of {name}" if field else f"an example of {name}"
            raise DataError(f"{where} is {kind}, which cannot be batched; {_REMEDY}") from error


def _parts(example: object) -> list[tuple[str, object]]:
    if isinstance(example, Mapping):
        return [(f"field {key!r}", value) for key, value in example.items()]
    if isinstance(example, Sequence) and not isinstance(example, str):
        return [(f"part {place}", value) for place, value in enumerate(example)]
    return [("", example)]
