"""What the labels of candidates are: classes, several classes per example, numbers, or texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from synque_select.errors import DataError
from synque_select.utils.json_files import parse_json
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.written_number import WrittenNumber

__all__ = [
    "MAX_CLASSES",
    "NO_LABEL",
    "LabelKind",
    "LabelSets",
    "class_names",
    "features_of",
    "label_kind",
    "label_text",
    "labeled_positions",
    "named_label",
    "without_empty_lists",
]

MAX_CLASSES = 100
NO_LABEL = "(no label)"
LabelKind = Literal["classes", "lists", "numbers", "texts"]

# white space and characters without a width, at either end; not a pattern, which takes quadratic
# time on spaces inside
_AROUND = "".join(
    chr(code)
    for first, last in (
        *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680)),
        *((0x180E, 0x180E), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064)),
        *((0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
    for code in range(first, last + 1)
)
# 1.0 beside texts, where a reader cannot take the column for numbers
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")


def label_text(label: object) -> str:
    """Return a label as text; several labels of one example become a JSON list.

    Labels that mean the same have the same text: 1, 1.0, the text "1.0" and a tensor of it; true
    in JSON and the texts "true" and "True"; bytes and the text that they encode in UTF-8; and texts
    that differ only in their Unicode form, or in white space and invisible characters at their
    ends. A missing label (None, NaN or a blank text) is `NO_LABEL`, and no part of a list, in which
    each label counts once.

    Args:
        label: A text, number, or a list, tuple or set of labels.

    Raises:
        DataError: The label is bytes that are not UTF-8.

    Example:
        >>> label_text(3.0), label_text(None), label_text(("sport", "news"))
        ('3', '(no label)', '["news", "sport"]')
        >>> label_text(True), label_text("True "), label_text(b"pos")
        ('true', 'true', 'pos')
    """
    if isinstance(label, list | tuple | set | frozenset):
        parts = {label_text(part) for part in label}
        return json.dumps(sorted(parts - {NO_LABEL}), ensure_ascii=False)
    if math.prod(getattr(label, "shape", (0,))) == 1:
        label = label.item()  # type: ignore[attr-defined]
    if label is None or (isinstance(label, float | Decimal) and math.isnan(label)):
        return NO_LABEL
    text = normalized(_plain(label)).strip(_AROUND)
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    whole = _WHOLE.fullmatch(text)
    if whole:  # not int(), which refuses thousands of digits
        return "0" if whole[1] == "-0" else whole[1]
    return text or NO_LABEL


def _plain(label: object) -> str:
    if isinstance(label, bytes):
        try:
            return label.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"the label is bytes that are not UTF-8: {label[:40]!r}") from error
    if isinstance(label, Decimal) and label.is_finite():
        # normalize() would round to 28 digits; abs: no "-0"
        text = format(label if label else abs(label), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(label, float) and label.is_integer() and not isinstance(label, WrittenNumber):
        return str(int(label))
    return str(label)


def without_empty_lists(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels in which an empty list is a missing label, unless others are lists.

    Among lists, an empty one is a label: none of the classes.

    Args:
        labels: The labels of one candidate, as `label_text` writes them.

    Example:
        >>> without_empty_lists(["a", "[]"]), without_empty_lists(['["a"]', "[]"])
        (('a', '(no label)'), ('["a"]', '[]'))
    """
    if "[]" not in labels or any(_as_list(label) for label in {*labels}):
        return tuple(labels)
    return tuple(NO_LABEL if label == "[]" else label for label in labels)


def class_names(dataset: object, label: object) -> tuple[str, ...]:
    """Return the names of the classes that a field's numbers represent; () for other labels.

    Such a field has the type `ClassLabel` of the library `datasets`, or is a list of them.

    Args:
        dataset: A dataset, or a part of one.
        label: Selector of the label.

    Example:
        >>> from datasets import ClassLabel, Dataset, Features
        >>> kinds = Features({"label": ClassLabel(names=["neg", "pos"])})
        >>> class_names(Dataset.from_dict({"label": [1, 0]}, features=kinds), "label")
        ('neg', 'pos')
    """
    features = features_of(dataset)
    kind: object = features.get(label) if isinstance(features, Mapping) else None
    names: object = getattr(getattr(kind, "feature", kind), "names", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def features_of(dataset: object) -> object:
    """Return the types of a dataset's fields, which `datasets` keeps; None without.

    Args:
        dataset: A dataset, or a `torch.utils.data.Subset` of one.

    Example:
        >>> from datasets import Dataset
        >>> features_of(Dataset.from_dict({"n": [1]}))
        {'n': Value('int64')}
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return getattr(dataset, "features", None)


def named_label(label: object, names: Sequence[str]) -> object:
    """Return the name of a class instead of its number; other labels as they are.

    Args:
        label: A number or a list of numbers; −1, which `datasets` writes for a missing label,
            becomes None.
        names: What `class_names` returned.

    Example:
        >>> named_label(1, ["neg", "pos"]), named_label([0, 1], ["a", "b"]), named_label(3, ())
        ('pos', ['a', 'b'], 3)
    """
    if not names:
        return label
    if hasattr(label, "tolist"):  # datasets may return arrays or tensors
        label = label.tolist()
    if isinstance(label, list | tuple):
        return [named_label(part, names) for part in label]
    if not isinstance(label, int) or isinstance(label, bool):
        return label
    if label == -1:
        return None
    if not 0 <= label < len(names):
        raise DataError(f"the class {label} has no name; there are {len(names)}, from 0 on")
    return names[label]


def labeled_positions(labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of the examples that have a label: a missing one is not a class.

    Args:
        labels: Labels as `label_text` writes them.

    Example:
        >>> labeled_positions(["a", NO_LABEL, "b"]).tolist()
        [0, 2]
    """
    return np.flatnonzero(np.array([label != NO_LABEL for label in labels], dtype=bool))


def label_kind(labels: Sequence[Sequence[str]]) -> LabelKind:
    """Return what the labels of all candidates together are.

    "lists" if all are JSON lists of at most 100 classes; "classes" if there are at most 100
    different ones and they are not fractions; "numbers" if all are finite numbers; else "texts".
    Missing labels are not counted.

    Args:
        labels: The labels of each candidate, as `label_text` writes them.

    Example:
        >>> label_kind([["0", "1"], ["1"]]), label_kind([["0.25", "0.5"]])
        ('classes', 'numbers')
        >>> label_kind([['["a"]', '["a", "b"]', "[]"]])
        'lists'
    """
    distinct = {label for part in labels for label in part} - {NO_LABEL}
    lists = [_as_list(label) for label in distinct]
    if all(part is not None for part in lists):
        n_classes = len({name for part in lists for name in part or ()})
        return "lists" if 0 < n_classes <= MAX_CLASSES else "texts"
    numbers = [_as_number(label) for label in distinct]
    are_numbers = all(map(math.isfinite, numbers))
    if are_numbers and not all(number.is_integer() for number in numbers):
        return "numbers"
    if len(distinct) <= MAX_CLASSES:
        return "classes"
    return "numbers" if are_numbers else "texts"


@dataclass(frozen=True)
class LabelSets:
    """The labels of K candidates as tensors.

    Args:
        kind: What the labels are; not "texts".
        names: The C classes, sorted; ("value",) for numbers.
        targets: For each candidate (N, C) bool, the classes of each example, or (N, 1) float64 for
            numbers.
    """

    kind: LabelKind
    names: tuple[str, ...]
    targets: tuple[torch.Tensor, ...]

    @classmethod
    def read(cls, labels: Sequence[Sequence[str]], kind: LabelKind) -> LabelSets:
        """Read labels of a known kind.

        Args:
            labels: The labels of each candidate, without missing ones.
            kind: The result of `label_kind` for them; not "texts".

        Example:
            >>> LabelSets.read([["b", "a"]], "classes").targets[0].tolist()
            [[False, True], [True, False]]
        """
        if kind == "numbers":
            values = (np.array([float(label) for label in part])[:, None] for part in labels)
            return cls(kind, ("value",), tuple(map(torch.from_numpy, values)))
        read = _as_list if kind == "lists" else _alone
        rows = [[read(label) or () for label in part] for part in labels]
        names = sorted({name for part in rows for row in part for name in row})
        places = {name: place for place, name in enumerate(names)}
        targets = [torch.zeros(len(part), len(names), dtype=torch.bool) for part in rows]
        for target, part in zip(targets, rows, strict=True):
            for i, row in enumerate(part):
                target[i, [places[name] for name in row]] = True
        return cls(kind, tuple(names), tuple(targets))


def _alone(label: str) -> Sequence[str]:
    return (label,)


def _as_list(label: str) -> Sequence[str] | None:
    if not label.startswith("["):
        return None
    try:
        value = parse_json(label, "the label")
    except DataError:
        return None
    return [str(part) for part in value] if isinstance(value, list) else None


def _as_number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return math.nan
