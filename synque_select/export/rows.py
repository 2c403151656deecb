"""Examples as records with a column of origin, and the Arrow types of such records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from synque_select.data.candidate import Candidate
from synque_select.data.label_sets import features_of
from synque_select.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import ClassLabel, Features

__all__ = ["ORIGIN", "Columns", "Drawn", "Record", "Rows", "batches", "class_labels", "record_of"]

ORIGIN = "synque_origin"
BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20

Record: TypeAlias = dict[str, object]
Drawn: TypeAlias = tuple[Candidate, object]  # a candidate and one of its examples
Rows: TypeAlias = Callable[[], Iterable[Record]]  # yields the same records at each call


def record_of(candidate: Candidate, example: object) -> Record:
    """Return an example as a record of plain values, with the name of its candidate.

    Args:
        candidate: The candidate.
        example: One of its examples. The parts of a tuple are named "text" or "image" and "label"
            if they are the view and the label, and by their position otherwise; an example that is
            a single value is named "text" or "image".

    Raises:
        DataError: The example has a field of the name of the column of origin.

    Example:
        >>> record_of(Candidate("a", [("x", 0), ("y", 1)], view=0, label=1), ("x", 0))
        {'text': 'x', 'label': 0, 'synque_origin': 'a'}
    """
    if isinstance(example, Mapping):
        fields = {str(name): value for name, value in example.items()}
    elif isinstance(example, list | tuple):
        names = {candidate.selector: candidate.modality, candidate.label: "label"}
        fields = {names.get(i, str(i)): value for i, value in enumerate(example)}
    else:
        fields = {candidate.modality: example}
    if ORIGIN in fields:
        raise DataError(
            f"{candidate.where}: an example has a field {ORIGIN!r}, the name of the column of "
            "origin: rename the field"
        )
    return {**{name: _plain(value) for name, value in fields.items()}, ORIGIN: candidate.name}


def _plain(value: Any) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield batches of at most 1,000 records, and fewer if these are large."""
    batch: list[Record] = []
    n_bytes = 0
    for record in records:
        batch.append(record)
        n_bytes += _size(record)
        if len(batch) == BATCH_ROWS or n_bytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(part) for part in value.values())
    if isinstance(value, list):
        return sum(_size(part) for part in value)
    return 4 * value.width * value.height if _is_image(value) else 8


def _is_image(value: object) -> bool:
    return hasattr(value, "getpixel")


@dataclass
class Columns:
    """The Arrow types of the fields seen so far, as `datasets` has them.

    Texts, numbers, lists and objects have native types, which trainers expect: an object gets the
    keys of its neighbors, and an integer beside a float becomes a float.

    Args:
        labels: What `class_labels` returned for the candidates.
    """

    labels: Mapping[str, ClassLabel]
    _schema: pa.Schema | None = None
    _images: dict[str, bool] = field(default_factory=dict)  # name to whether it is a list

    def grow(self, records: Sequence[Record]) -> bool:
        """Widen the types so that they hold these records too; return whether any type changed.

        Raises:
            DataError: A field has values of two types that no column holds.
        """
        import pyarrow as pa

        self._note_images(records)
        names = dict.fromkeys(name for record in records for name in record)
        new = pa.schema([(name, self._type_of(name, records)) for name in names])
        before = self._schema
        self._schema = new if before is None else _unified(before, new)
        return before is None or not self._schema.equals(before)

    def features(self) -> Features:
        """Return the types for `datasets`."""
        from datasets import Features, Image, List

        features = Features.from_arrow_schema(self._schema)
        for name, is_list in self._images.items():
            features[name] = List(Image()) if is_list else Image()
        return Features({name: self.labels.get(name, type_) for name, type_ in features.items()})

    def batch(self, records: Sequence[Record], schema: pa.Schema) -> pa.RecordBatch:
        """Return the records as one Arrow batch; a missing field is null.

        Args:
            records: The records.
            schema: That of `features`.
        """
        import pyarrow as pa

        arrays = [self._array(field.name, records, field.type) for field in schema]
        return pa.record_batch(arrays, schema=schema)

    def _note_images(self, records: Sequence[Record]) -> None:
        for record in records:
            for name, value in record.items():
                if _is_image(value):
                    self._images[name] = False
                elif isinstance(value, list) and value and _is_image(value[0]):
                    self._images[name] = True

    def _type_of(self, name: str, records: Sequence[Record]) -> pa.DataType:
        return self._array(name, records, None).type

    def _array(self, name: str, records: Sequence[Record], type_: pa.DataType | None) -> pa.Array:
        import pyarrow as pa

        values = [record.get(name) for record in records]
        if name in self._images:
            values = [_encoded(value) for value in values]
        try:
            return pa.array(values, type_)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise _mixed(name, str(error)) from error


def class_labels(parts: Sequence[Candidate]) -> dict[str, ClassLabel]:
    """Return the fields that are a `ClassLabel` with the same classes in every candidate.

    Raises:
        DataError: The numbers of a field mean other classes in some of the candidates.
    """
    from datasets import ClassLabel

    labels: dict[str, dict[str, ClassLabel]] = {}
    for part in parts:
        types = features_of(part.dataset)
        for name, type_ in types.items() if isinstance(types, Mapping) else ():
            if isinstance(type_, ClassLabel):
                labels.setdefault(name, {})[part.name] = type_
    for name, by_part in labels.items():
        if len({tuple(label.names) for label in by_part.values()}) > 1:
            shown = "; ".join(f"{part}: {', '.join(c.names[:5])}" for part, c in by_part.items())
            raise DataError(
                f"the numbers of {name!r} mean other classes in some candidates: {shown}. Give all "
                "the same ClassLabel (Dataset.cast_column), or texts as labels"
            )
    return {n: next(iter(c.values())) for n, c in labels.items() if len(c) == len(parts)}


def _encoded(value: Any) -> object:
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    if not _is_image(value):
        return value
    stream = BytesIO()
    value.save(stream, format="PNG")  # without loss, whatever the file was
    return {"bytes": stream.getvalue(), "path": None}


def _unified(before: pa.Schema, new: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas([before, new], promote_options="permissive")
    except pa.ArrowException as error:
        names = [n for n in new.names if n in before.names and before.field(n) != new.field(n)]
        raise _mixed(", ".join(names), str(error)) from error


def _mixed(name: str, reason: str) -> DataError:
    return DataError(
        f"field {name!r} holds values of several types, which one column cannot ({reason}): write "
        "JSON lines (.jsonl), or give all examples the same type"
    )
