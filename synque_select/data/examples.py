"""Named datasets, and the views of their examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from synque_select.data.plain_rows import PlainRows, plain_rows
from synque_select.data.record_formats import ViewChoice, choose_view
from synque_select.data.selectors import find_selector, find_view
from synque_select.data.views import (
    Selector,
    View,
    as_view,
    describe,
    digest,
    modality_of,
    select,
)
from synque_select.errors import ConfigError, DataError, DependencyError, SynqueError
from synque_select.types.modality import Modality
from synque_select.utils.progress import ProgressBar
from synque_select.utils.text_files import valid_name
from synque_select.utils.wording import counted

__all__ = [
    "Examples",
    "MapDataset",
    "Views",
    "error_reason",
    "field_alone",
    "selected_values",
    "without_format",
]

Value = TypeVar("Value")


@runtime_checkable
class MapDataset(Protocol):
    """Any dataset with a length and integer indexing: a torch or Hugging Face Dataset, a list."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one example."""
        ...


class Views(Sequence[View]):
    """The views of examples as a lazy sequence; an error names the example.

    A slice returns a list. From a `datasets.Dataset`, only the field of the view is read, in
    blocks.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self.modality: Modality = examples.modality
        is_text = examples.modality == "text"
        self._column = field_alone(examples.readable, examples.selector) if is_text else None

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._block(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        # torch datasets need not support negative positions
        return self._view(int(index) % len(self))

    def __iter__(self) -> Iterator[View]:
        # one image at a time: a block of photographs would not fit into memory
        step = _BLOCK if self.modality == "text" else 1
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def _block(self, positions: range) -> list[View]:
        if self._column is not None and positions.step == 1 and positions:
            # what cannot be read, or is of another type, is left to the slow path, whose error
            # names the example
            with suppress(Exception):
                values = self._column[positions.start : positions.stop][self._examples.selector]
                return [_text(value) for value in values]
        return [self._view(position) for position in positions]

    def _view(self, position: int) -> View:
        examples = self._examples
        try:
            example = examples.readable[position]
            value = select(example, examples.selector)
            return as_view(value, examples.modality, example=example)
        except DependencyError:
            raise
        # a user's dataset or view function may raise anything
        except Exception as error:
            raise DataError(
                f"{examples.where}, example {position} (counted from 0): {error_reason(error)}"
            ) from error


_BLOCK = 1024


def _text(value: object) -> View:
    # ASCII is valid Unicode and in composed form
    return value if type(value) is str and value.isascii() else as_view(value, "text")


def field_alone(dataset: Any, field: Selector) -> Any:
    """Return a dataset with only one field, or None if the dataset cannot read a field alone.

    Args:
        dataset: A dataset; one with `column_names` and `select_columns`, such as a
            `datasets.Dataset`, can read a field alone.
        field: Name of the field.
    """
    if field not in getattr(dataset, "column_names", ()):
        return None
    # a format or transform may compute one field from others
    given = getattr(dataset, "format", {"type": None})
    transform = given.get("format_kwargs", {}).get("transform")
    alone = given["type"] is None or getattr(transform, "is_by_field", False)
    return dataset.select_columns([field]) if alone else None


def error_reason(error: Exception) -> str:
    """Return what a message says of an error: the type too, unless the error is ours."""
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True, eq=False)
class Examples:
    """A named map-style dataset, with the view that proxies see of its examples.

    Args:
        name: Name of the dataset, unique among the candidates of a ranking.
        dataset: Any dataset with a length and integer indexing.
        view: A field name, a position in a tuple, a function of the example, or a text such as
            "chat:user" or "turns.0.text"; see `find_view`. None for the only text or image of the
            first example, label aside, or the view of its format; see `choose_view`.
        label: Selector of an example's label, like `view`; None if examples have no labels.
            Proxies never read labels.
        source: Where the dataset comes from, such as a file, for error messages.
        notes: What was left out when it was read, in sentences that follow its name.

    Raises:
        DataError: There are fewer than 2 examples, or the first one does not have the view.
        ConfigError: No view is given and the first example is ambiguous.

    Example:
        >>> a = Examples("a", [{"text": "x", "label": 0}, {"text": "y", "label": 1}])
        >>> len(a), a.views[1], a.modality
        (2, 'y', 'text')
    """

    name: str
    dataset: MapDataset
    view: Selector | None = None
    label: Selector | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=(), kw_only=True, repr=False)
    selector: Selector = field(init=False, repr=False)
    modality: Modality = field(init=False)
    readable: MapDataset = field(init=False, repr=False)
    choice: ViewChoice | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            hint = "" if isinstance(self.name, str) else "; put it in quotes"
            raise ConfigError(f"a name must be a non-empty text, found {self.name!r}{hint}")
        object.__setattr__(self, "name", valid_name(self.name))
        self._check_dataset()
        first, value = self._resolve(self.dataset)
        modality = modality_of(value)
        if modality is None:
            raise DataError(
                f"{self.where}: the view of the first example must be a text or an image, "
                f"found {describe(value, first)}"
            )
        object.__setattr__(self, "modality", modality)

    def _resolve(self, dataset: MapDataset) -> tuple[object, object]:
        """Set the selectors by the first example; return it, and its view."""
        try:
            first = dataset[0]
            resolved = {
                name: find(first, given)
                for name, find, given in (
                    ("view", find_view, self.view),
                    ("label", find_selector, self.label),
                )
                if given is not None
            }
            choice = None
            if self.view is None:
                choice = choose_view(first, resolved.get("label"))
            selector = resolved["view"] if choice is None else choice.selector
            value = select(first, selector)
            if "label" in resolved:
                select(first, resolved["label"])
        except DependencyError:
            raise
        except Exception as error:
            whole = without_format(dataset)
            if whole is not None:
                with suppress(SynqueError):
                    return self._resolve(whole)
            if isinstance(error, ConfigError):
                raise ConfigError(f"{self.where}: {error}") from None
            raise DataError(f"{self.where}: the first example: {error_reason(error)}") from error
        for name, part in (*resolved.items(), ("selector", selector), ("choice", choice)):
            object.__setattr__(self, name, part)
        object.__setattr__(self, "readable", dataset)
        return first, value

    def _check_dataset(self) -> None:
        kind = type(self.dataset).__name__
        if isinstance(self.dataset, str | bytes | Mapping):
            raise DataError(
                f"{self.where}: an object of type {kind} is not a dataset; allowed is a list of "
                "records or another map-style dataset (load_candidates reads files)"
            )
        if not isinstance(self.dataset, MapDataset):
            raise DataError(
                f"{self.where}: an object of type {kind} has no length or no indexing; "
                "allowed is a map-style dataset (load_candidates and SynqueDataModule also accept "
                "finite iterables)"
            )
        if len(self.dataset) < 2:
            raise DataError(
                f"{self.where}: {counted(len(self.dataset), 'example')}; at least 2 are required"
            )

    @property
    def where(self) -> str:
        """The name and, if there is one, the source, for error messages."""
        return f"{self.name} ({self.source})" if self.source else self.name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]

    @cached_property
    def _rows(self) -> MapDataset | PlainRows:
        rows = plain_rows(self.dataset)
        return self.dataset if rows is None else rows

    def __iter__(self) -> Iterator[Any]:
        # not by Python's default for __getitem__: indexing past the end need not raise IndexError
        return (self.dataset[position] for position in range(len(self)))

    @cached_property
    def views(self) -> Views:
        """The views of all examples, as a lazy sequence."""
        return Views(self)

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each view, (n, 32) uint8; computed once, by reading every example."""
        # not a dataclass field: `dataclasses.replace` must not copy it to other examples
        read = vars(self).get("_read_digests", _computed)
        digests: NDArray[np.uint8] = read(self._hash_views)
        return digests

    def read_digests_with(
        self, read: Callable[[Callable[[], NDArray[np.uint8]]], NDArray[np.uint8]]
    ) -> None:
        """Set the function that provides the digests, such as a cache.

        Args:
            read: Called with the function that computes the digests.
        """
        vars(self)["_read_digests"] = read

    def _hash_views(self) -> NDArray[np.uint8]:
        hashes = bytearray()  # a list of a million hashes would take twice as much
        for one in map(digest, self.views):
            hashes += one
        return np.frombuffer(bytes(hashes), dtype=np.uint8).reshape(-1, 32)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all views in their order, in hexadecimal."""
        return hashlib.sha256(self.digests.tobytes()).hexdigest()

    @property
    def content(self) -> tuple[str, ...]:
        """The name and hashes of all that scores depend on, for keys of cached results."""
        return self.name, self.sha256


def without_format(dataset: object) -> MapDataset | None:
    """Return a dataset with the columns that its format or transform hides; None if there is none.

    Args:
        dataset: A `datasets.Dataset`, or a part of one.

    Example:
        >>> from datasets import Dataset
        >>> data = Dataset.from_dict({"text": ["x", "y"], "input_ids": [[1], [2]]})
        >>> data.set_format("torch", columns=["input_ids"])
        >>> without_format(data)[0]
        {'text': 'x', 'input_ids': [1]}
    """
    of_part = getattr(dataset, "without_format", None)
    if of_part is not None:
        part: MapDataset | None = of_part()
        return part
    if isinstance(dataset, Subset):
        inner = without_format(dataset.dataset)
        return None if inner is None else Subset(cast("Dataset[object]", inner), dataset.indices)
    form = getattr(dataset, "format", None)
    if not isinstance(form, Mapping) or not hasattr(dataset, "with_format"):
        return None
    transform = form.get("format_kwargs", {}).get("transform")
    names = getattr(dataset, "column_names", ())
    is_plain = form.get("type") is None and set(form.get("columns", ())) == {*names}
    if is_plain or getattr(transform, "is_by_field", False):
        return None
    whole: MapDataset = dataset.with_format(None)
    return whole


def _computed(compute: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return compute()


def selected_values(
    examples: Examples,
    selector: Selector,
    option: str,
    read: Callable[[object, int], Value],
) -> list[Value]:
    """Read one field of every example, or what a function returns.

    Args:
        examples: The examples.
        selector: Field, position or function.
        option: Name of the option that gave the selector, for errors.
        read: Called with the value and the position of an example.

    Returns:
        What `read` returned, one per example.

    Raises:
        DataError: An example has no such field, or a function fails; the message names the example.
    """
    alone = field_alone(examples.readable, selector)  # avoids decoding images to read a field
    source = examples.readable if alone is None else alone
    bar = ProgressBar(
        total=len(examples),
        desc=f"{option} of {examples.name}",
        delay=2,
        leave=False,
        unit="example",
    )
    values: list[Value] = []
    with bar:
        for start in range(0, len(examples), _BLOCK):
            positions = range(start, min(start + _BLOCK, len(examples)))
            block: list[Any] | None = None
            if alone is not None:
                # what cannot be read is left to the slow path, whose error names the example
                with suppress(Exception):
                    block = list(alone[start : positions.stop][selector])
            for place, position in enumerate(positions):
                try:
                    part = select(source[position], selector) if block is None else block[place]
                    values.append(read(part, position))
                except DependencyError:
                    raise
                except Exception as error:  # a user's dataset or function may raise anything
                    raise DataError(
                        f"{examples.where}, example {position} (counted from 0): "
                        f"{option}={selector!r}: {error_reason(error)}"
                    ) from error
                if block is None:
                    bar.update()
            if block is not None:
                bar.update(len(positions))
    return values
