"""Iterable datasets, which are written once to the cache and are map-style from then on."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import IterableDataset

from synque_select.data.columns import Columns, with_texts
from synque_select.data.examples import MapDataset
from synque_select.data.json_reader import read_stored_jsonl
from synque_select.data.label_sets import class_names, features_of
from synque_select.data.tables import (
    check_name,
    is_intact,
    open_table,
    write_rows,
    write_table,
)
from synque_select.errors import DataError, DependencyError
from synque_select.utils.cache_dir import (
    default_cache_dir,
    note_not_written,
    reason_of,
    temporary_twin,
    writable_twin,
    write_in_cache,
)
from synque_select.utils.checksums import (
    DamagedFileError,
    check_file,
    checksummed_file,
    read_checked,
)
from synque_select.utils.json_types import JsonObject
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_EXAMPLES",
    "is_iterable",
    "is_map_style",
    "open_stored",
    "read_examples",
    "store_iterable",
]

MAX_EXAMPLES = 1_000_000
_FORMAT_VERSION = 4
# field with the names of a record's own fields, where they are not those of the first record
_NAMES = "synque_select: fields"
_SPOOLED_BYTES = 1 << 20


def is_iterable(source: object) -> TypeGuard[Iterable[object]]:
    """Whether a source can only be read from beginning to end, like a generator.

    Example:
        >>> is_iterable(iter(["x", "y"])), is_iterable(["x", "y"]), is_iterable("a.json")
        (True, False, False)
    """
    # checked first and by type: torch's IterableDataset inherits a __getitem__ that only raises
    if isinstance(source, IterableDataset):
        return True
    other_kind = isinstance(source, str | bytes | os.PathLike | Mapping | MapDataset)
    return isinstance(source, Iterable) and not other_kind


def is_map_style(dataset: object) -> TypeGuard[MapDataset]:
    """Whether a dataset has a length and its examples can be accessed by position.

    Example:
        >>> is_map_style(["x", "y"]), is_map_style(iter(["x", "y"]))
        (True, False)
    """
    return isinstance(dataset, MapDataset) and not is_iterable(dataset)


def store_iterable(name: str, examples: Iterable[object]) -> Path:
    """Read a finite iterable to its end and write its examples to the cache.

    The file is named by a hash of the examples, so that the same examples are stored only once and
    an iterable that yields others gets a new file.

    Args:
        name: Name of the dataset, for error messages and the progress bar.
        examples: Records, tuples, texts, images, arrays or tensors; all of the same kind.

    Returns:
        Path of the Arrow file, which `open_stored` opens.

    Raises:
        DataError: The iterable is a set, is empty, yields more than `MAX_EXAMPLES` examples or
            one that cannot be stored, or raises; or the cache cannot be written. The message names
            the example.

    Example:
        >>> import tempfile, unittest.mock
        >>> with (
        ...     tempfile.TemporaryDirectory() as folder,
        ...     unittest.mock.patch.dict(os.environ, {"SYNQUE_CACHE": folder}),
        ... ):
        ...     open_stored(store_iterable("a", ({"text": t} for t in "xy")))[1]
        {'text': 'y'}
    """
    if isinstance(examples, set | frozenset):
        raise DataError(
            f"{name}: found a set, which has no order, so that a run could not be repeated; give a "
            "list"
        )
    folder = default_cache_dir() / "iterables"
    spool = _Spool(folder)
    try:
        layout, sha256 = _spool(name, examples, spool)

        def stored(parent: Path) -> Path:
            target = parent / f"{sha256[:32]}.arrow"
            if not (is_intact(target.with_suffix(".json")) and is_intact(target)):
                with checksummed_file(target.with_suffix(".json")) as stream:
                    stream.write(json.dumps(layout.state()).encode())
                write_table(target, partial(write_rows, spool.path, read_stored_jsonl, Columns()))
            return target

        return write_in_cache(folder, stored)
    except OSError as error:
        raise DataError(
            f"{name}: neither the cache folder {folder} nor a temporary one can be written "
            f"({reason_of(error)}); set SYNQUE_CACHE to a folder that can"
        ) from error
    finally:
        spool.remove()


def open_stored(path: Path) -> MapDataset:
    """Open a file that `store_iterable` wrote, memory-mapped.

    Args:
        path: Path of the Arrow file.

    Returns:
        The examples as the iterable yielded them.

    Raises:
        DataError: The file is missing, usually because another machine wrote it to its own cache,
            or is damaged.
    """
    try:
        layout = _Layout(**json.loads(read_checked(path.with_suffix(".json"))))
        check_file(path)
    except OSError as error:
        raise DataError(
            f"{path}: the stored dataset is missing; set SYNQUE_CACHE to a folder that all "
            "machines of the run share"
        ) from error
    except DamagedFileError as error:
        raise DataError(
            f"{path}: the stored dataset is damaged ({error}); load the iterable again, which "
            "stores it again"
        ) from error
    table = open_table(path, path)
    is_plain = layout.shape == "record" and not layout.kinds and not layout.classes
    # a table gives every record all fields, and without a value None
    return _Stored(table, layout) if not is_plain or _NAMES in table.column_names else table


class _Spool:
    """A file in a folder of the cache, continued in a temporary one if that cannot be written.

    An iterable may be read only once: what was written before the disk was full is copied.

    Args:
        folder: The folder of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._waiting = bytearray()
        self._n_written = 0

    @property
    def path(self) -> Path:
        return self._paths[-1]

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) > _SPOOLED_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._paths:
            self._begin(writable_twin(self._folder))
        try:
            self._append()
        except OSError as error:
            twin = temporary_twin(self._folder)
            if self.path.parent == twin:
                raise
            note_not_written(self._folder, error)
            twin.mkdir(parents=True, exist_ok=True)
            before = self.path
            self._begin(twin)
            if self._n_written:
                shutil.copyfile(before, self.path)
            self._append()

    def remove(self) -> None:
        for path in self._paths:
            with suppress(OSError):
                path.unlink()

    def _begin(self, folder: Path) -> None:
        self._paths.append(folder / f"{uuid.uuid4().hex}.part")

    def _append(self) -> None:
        with self.path.open("ab") as file:
            file.truncate(self._n_written)  # a write that failed may have left a part
            file.write(self._waiting)
        self._n_written += len(self._waiting)
        self._waiting.clear()


@dataclass(frozen=True)
class _Layout:
    """How examples were split into fields.

    Args:
        shape: "record", "tuple", or "one" for an example that is a single value.
        kinds: The kind of each field that JSON cannot hold: "image", "array", "tensor", or
            "tensor:<dtype>" for a dtype that NumPy lacks.
        names: The fields of a record. A record with other fields names its own in `_NAMES`.
        classes: Field to the names of its classes, of the type `ClassLabel` of `datasets`.
    """

    shape: str
    kinds: dict[str, str]
    names: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)

    def state(self) -> JsonObject:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Stored:
    """Examples as the iterable yielded them."""

    table: MapDataset
    layout: _Layout

    def __len__(self) -> int:
        return len(self.table)

    @property
    def features(self) -> Mapping[str, object]:
        """The fields that hold classes, as `datasets` writes them."""
        from datasets import ClassLabel

        return {name: ClassLabel(names=names) for name, names in self.layout.classes.items()}

    def __getitem__(self, index: int, /) -> object:
        row = self.table[index]
        own = row.pop(_NAMES, None)
        names = row if self.layout.shape != "record" else self.layout.names
        fields = {
            name: _restored(row[name], self.layout.kinds.get(name))
            for name in (names if own is None else json.loads(own))
        }
        if self.layout.shape == "record":
            return fields
        parts = tuple(fields[str(place)] for place in range(len(fields)))
        return parts if self.layout.shape == "tuple" else parts[0]


def _spool(name: str, examples: Iterable[object], spool: _Spool) -> tuple[_Layout, str]:
    """Write one JSON line per example; return the layout and a hash of the lines and the layout."""
    layout: _Layout | None = None
    width = 0
    hashed = hashlib.sha256()
    for number, example in enumerate(read_examples(name, examples)):
        where = f"{name}, example {number} (counted from 0)"
        if number == MAX_EXAMPLES:
            raise DataError(
                f"{name}: the iterable yields more than {MAX_EXAMPLES:,} examples; it must be "
                "finite: draw from it (reservoir=, --reservoir), or give a part of it (.take(n), "
                "itertools.islice) or a file"
            )
        shape, fields = _fields(example, where)
        layout = layout or _Layout(shape, _kinds(fields), [*fields], _classes(examples))
        if (shape, _kinds(fields)) != (layout.shape, layout.kinds):
            raise DataError(
                f"{where}: found {_described(shape, _kinds(fields))}, but the first example is "
                f"{_described(layout.shape, layout.kinds)}; all examples must be of the same "
                "kind"
            )
        width = width or len(fields)
        if shape == "tuple" and len(fields) != width:
            raise DataError(
                f"{where}: found {counted(len(fields), 'part')}, but the first example has "
                f"{width}; all examples must have the same number"
            )
        line = _line(where, fields, layout)
        hashed.update(line)
        spool.write(line)
    if layout is None:
        raise DataError(f"{name}: the iterable yields no examples")
    spool.flush()
    hashed.update(json.dumps([_FORMAT_VERSION, layout.state()], sort_keys=True).encode())
    return layout, hashed.hexdigest()


def read_examples(name: str, examples: Iterable[object]) -> Iterator[object]:
    """Yield the examples of an iterable, with progress.

    Args:
        name: Name of the dataset, for error messages and the progress bar.
        examples: The iterable.

    Raises:
        DataError: The iterable raises; the message names the example.
    """
    number = 0
    try:
        for example in ProgressBar(
            examples, desc=f"reading {name}", unit="example", delay=2, leave=False
        ):
            yield example
            number += 1
    # a user's iterable may raise anything
    except Exception as error:
        raise DataError(
            f"{name}, example {number} (counted from 0): reading it failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _fields(example: object, where: str) -> tuple[str, dict[str, object]]:
    if isinstance(example, Mapping):
        fields: dict[str, object] = {}
        for key, value in example.items():
            check_name(_checked_key(key, where), where)
            fields[str(key)] = value
        return "record", fields
    if isinstance(example, list | tuple):
        return "tuple", {str(place): value for place, value in enumerate(example)}
    return "one", {"0": example}


def _checked_key(key: object, where: str) -> str:
    # a JSON object has texts as keys: 1 and "1" would be one key, and one value would be lost
    if not isinstance(key, str):
        raise DataError(
            f"{where}: the key {key!r} is of type {type(key).__name__}; allowed are texts: write "
            "it as one, or give a list of pairs"
        )
    return key


def _kinds(fields: Mapping[str, object]) -> dict[str, str]:
    kinds = {name: _kind(value) for name, value in fields.items()}
    return {name: kind for name, kind in kinds.items() if kind}


def _kind(value: object) -> str:
    if hasattr(value, "getpixel"):
        return "image"
    if isinstance(value, np.ndarray):
        return "array"
    if isinstance(value, torch.Tensor):
        return f"tensor:{value.dtype}" if value.dtype == torch.bfloat16 else "tensor"
    return ""


def _described(shape: str, kinds: Mapping[str, str]) -> str:
    parts = "".join(f", {name} {kind.partition(':')[0]}" for name, kind in kinds.items())
    return {"record": "a record", "tuple": "a tuple", "one": "a single value"}[shape] + parts


def _classes(examples: object) -> dict[str, list[str]]:
    features = features_of(examples)
    fields = features if isinstance(features, Mapping) else {}
    names = {str(name): class_names(examples, name) for name in fields}
    return {name: list(classes) for name, classes in names.items() if classes}


def _line(where: str, fields: Mapping[str, object], layout: _Layout) -> bytes:
    encoded: dict[str, object] = {}
    if layout.shape == "record" and [*fields] != layout.names:
        encoded[_NAMES] = json.dumps([*fields])
    for name, value in fields.items():
        try:
            _check_keys(value, f"{where}, field {name!r}")
            encode = _ENCODERS.get(layout.kinds.get(name, "").partition(":")[0], _plain)
            encoded[name] = encode(value)
        except DataError:
            raise
        except (TypeError, ValueError, OSError, RecursionError) as error:
            raise DataError(
                f"{where}: the value of field {name!r}, of type {type(value).__name__}, cannot be "
                f"stored: {error}"
            ) from error
    return json.dumps(encoded).encode() + b"\n"


def _check_keys(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _checked_key(key, where)
            _check_keys(part, where)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_keys(part, where)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    json.dumps(value)
    return with_texts(value)


def _array_text(value: object) -> str:
    file = io.BytesIO()
    np.save(file, np.asarray(value), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def _tensor_text(value: torch.Tensor) -> str:
    value = value.detach().cpu()
    return _array_text((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def _image_text(value: Image) -> str:
    file = io.BytesIO()
    value.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


_ENCODERS: dict[str, Callable[[Any], object]] = {
    "image": _image_text,
    "array": _array_text,
    "tensor": _tensor_text,
}


def _restored(value: Any, kind: str | None) -> object:
    if kind is None:
        return value
    file = io.BytesIO(base64.b64decode(value))
    if kind == "image":
        return _opened(file)
    array = np.load(file, allow_pickle=False)
    if kind == "array":
        return array
    tensor = torch.from_numpy(array)
    return tensor.bfloat16() if kind != "tensor" else tensor


def _opened(file: io.BytesIO) -> Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise DependencyError("pillow", extra="image", purpose="stored images") from error
    with Image.open(file) as image:
        image.load()
        return image.copy()
