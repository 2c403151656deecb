"""Files of records as `datasets.Dataset` tables; large files are memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from synque_select.data.columns import JSON_FIELDS, NUMBER_FIELDS, Columns, value_of
from synque_select.data.compressed import is_compressed
from synque_select.errors import DataError, SynqueError
from synque_select.utils.cache_dir import (
    default_cache_dir,
    is_disk_full,
    reason_of,
    write_in_cache,
)
from synque_select.utils.checksums import (
    DamagedFileError,
    check_file,
    checksummed_path,
    remove_damaged,
)
from synque_select.utils.file_state import FileState, file_state, settled_state
from synque_select.utils.json_files import read_json_file
from synque_select.utils.progress import ProgressBar
from synque_select.utils.remote_cache import remote_of
from synque_select.utils.wording import counted
from synque_select.utils.written_number import WrittenNumber

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

__all__ = [
    "BATCH_ROWS",
    "SMALL_BYTES",
    "Block",
    "Row",
    "Rows",
    "TypesChangedError",
    "check_batch",
    "check_name",
    "check_names_differ",
    "check_schema",
    "check_times",
    "is_intact",
    "open_saved",
    "open_table",
    "quiet_datasets",
    "table_of_batches",
    "table_of_blocks",
    "table_of_rows",
    "unnamed_files",
    "write_rows",
    "write_table",
]

# files up to this size are held in memory; larger ones are converted once and memory-mapped
SMALL_BYTES = 8 << 20
_COMPRESSION = 8  # about the factor by which text shrinks
BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20
_MAX_FIELDS = 10_000
_FORMAT_VERSION = 5
_TRIES = 3
_OUR_KEYS = (JSON_FIELDS, NUMBER_FIELDS)

# Writes a whole file as an Arrow stream. It returns False if a type turned out to be too narrow
# after the first batch was written: then it must be called again with a new stream.
_Write: TypeAlias = "Callable[[pa.NativeFile], bool]"


class Row(NamedTuple):
    """One example of a file.

    Args:
        line: Number of the line on which it starts, counted from 1.
        n_bytes: Its approximate size in the file, for progress bars and batches.
        fields: The values of its fields.
    """

    line: int
    n_bytes: int
    fields: Mapping[str, object]


Rows: TypeAlias = Iterator[Row]


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file. Exactly one of the functions that give them is used to the end.

    Args:
        n_bytes: Their approximate size in the file.
        rows: Function that reads them one by one, and reports what is wrong with one.
        table: Function that reads them at once, as a table with the given schema. It returns None
            unless it is certain that the values are those of `rows`.
    """

    n_bytes: int
    rows: Callable[[], Rows]
    table: Callable[[pa.Schema], pa.Table | None]


class TypesChangedError(Exception):
    """The values of columns have other types than those of earlier blocks: read all again."""


def table_of_rows(
    path: Path, read: Callable[[Path], Rows], *, about: Sequence[str] = ()
) -> Dataset:
    """Return the rows of a file as a table.

    A file of up to 8 MiB is held in memory. A larger one is converted once into the cache and
    memory-mapped from there.

    Args:
        path: The file.
        read: Function that streams the rows of a file; it may be called more than once.
        about: Options on which `read` depends; they are part of the key of the cached table.

    Raises:
        DataError: The file is invalid or has no rows, or the cache cannot be written.
    """
    about = about or (getattr(read, "__name__", ""),)
    return _converted(path, partial(write_rows, path, read, Columns()), about)


def table_of_blocks(
    path: Path, read: Callable[[Path], Iterator[Block]], *, about: Sequence[str]
) -> Dataset:
    """Return the rows of a file, which come in blocks, as a table; see `table_of_rows`.

    Args:
        path: The file.
        read: Function that streams the blocks of a file; it may be called more than once. If it
            raises a `TypesChangedError`, what it gave is forgotten and it is called again.
        about: Options on which `read` depends; they are part of the key of the cached table.

    Raises:
        DataError: The file is invalid or has no rows, or the cache cannot be written.
    """
    return _converted(path, partial(_write_blocks, path, read, Columns()), about)


def table_of_batches(path: Path, read: Callable[[Path], Iterator[pa.RecordBatch]]) -> Dataset:
    """Return the Arrow batches of a file as a table, in memory or memory-mapped.

    Args:
        path: The file.
        read: Function that streams the record batches of a file.

    Raises:
        DataError: The file is invalid or has no rows, or the cache cannot be written.
    """
    return _converted(path, partial(_write_batches, path, read), (read.__name__,))


def open_saved(path: Path) -> Dataset | DatasetDict:
    """Open a folder that `save_to_disk` wrote, memory-mapped in place.

    Args:
        path: The folder.

    Raises:
        DataError: The folder cannot be loaded.
    """
    from datasets import load_from_disk

    with _named(path, "not a usable saved dataset"), quiet_datasets():
        return load_from_disk(str(path))


def unnamed_files(path: Path) -> list[str]:
    """Return the Arrow files in a saved dataset that its state does not name, so are not read.

    Args:
        path: A folder that `open_saved` has opened.
    """
    names = []
    for state in sorted(path.glob("state.json")) + sorted(path.glob("*/state.json")):
        content = read_json_file(state)
        parts = content.get("_data_files") if isinstance(content, dict) else None
        known = {part.get("filename") for part in parts or () if isinstance(part, dict)}
        # `datasets` itself keeps cached results in the folder
        files = (file for file in state.parent.glob("*.arrow") if file.name[:6] != "cache-")
        names += [str(f.relative_to(path)) for f in sorted(files) if f.name not in known]
    return names


class quiet_datasets:
    """Context manager that silences the progress bars and the log of the `datasets` library."""

    def __enter__(self) -> None:
        import datasets

        self._level = datasets.logging.get_verbosity()
        self._bars = datasets.are_progress_bars_disabled()
        datasets.logging.set_verbosity_error()
        datasets.disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        import datasets

        datasets.logging.set_verbosity(self._level)
        if not self._bars:
            datasets.enable_progress_bars()


def _converted(path: Path, write: _Write, about: Sequence[str]) -> Dataset:
    if path.stat().st_size > (SMALL_BYTES // _COMPRESSION if is_compressed(path) else SMALL_BYTES):
        return open_table(_converted_file(path, write, about), path)
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    complete = False
    while not complete:
        sink = pa.BufferOutputStream()
        complete = write(sink)
    buffer = sink.getvalue()
    with _named(path, "cannot be read as a table"):
        table = InMemoryTable.from_buffer(buffer)
        # without it, `datasets` pickles the whole table to compute one
        fingerprint = hashlib.sha256(buffer).hexdigest()[:16]
        return _decoded(Dataset(table, fingerprint=fingerprint), table.schema)


def _converted_file(path: Path, write: _Write, about: Sequence[str]) -> Path:
    """Return the file of the cache that a file was converted to, which is made if it is missing."""
    for _ in range(_TRIES):
        state = settled_state(path)
        target = _cached_table(_cache_path(path, state, about), write)
        # a file that changed while it was read has left a mixture of both contents
        if file_state(path) == state:
            return target
        with suppress(OSError):
            target.unlink()
    raise DataError(
        f"{path}: the file changes while it is read; wait until it is written completely"
    )


def _cache_path(path: Path, state: FileState, about: Sequence[str]) -> Path:
    folder = default_cache_dir() / "tables"
    # the path and the times of a file are those of this machine; another one has the same content
    of_file = [str(path.resolve()), *state] if remote_of(folder) is None else [_hash(path, state)]
    name = hashlib.sha256(json.dumps([_FORMAT_VERSION, *of_file, *about]).encode()).hexdigest()
    return folder / f"{name[:32]}.arrow"


@lru_cache(maxsize=256)
def _hash(path: Path, _state: FileState) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cached_table(target: Path, write: _Write) -> Path:
    """Return a file of the cache, or a temporary one in its place where it cannot be written."""
    if is_intact(target):
        return target

    def converted(folder: Path) -> Path:
        place = folder / target.name
        if not is_intact(place):
            write_table(place, write)
        return place

    try:
        return write_in_cache(target.parent, converted)
    except OSError as error:
        raise DataError(
            f"neither the cache folder {target.parent} nor a temporary one can be written "
            f"({reason_of(error)}); set SYNQUE_CACHE to a folder that can"
        ) from error


def is_intact(path: Path) -> bool:
    """Whether a file of the cache is there and whole; a damaged one is removed with a warning."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            check_file(path)
            return True
        except DamagedFileError as error:
            remove_damaged(path, error)
    return False


def write_table(target: Path, write: _Write) -> None:
    """Write a file of the cache completely or not at all, with a checksum.

    Args:
        target: The file; missing folders are created.
        write: Function that writes an Arrow stream, called until it returns True.

    Raises:
        DataError: The data cannot be read.
        OSError: The file of the cache cannot be written.
    """
    import pyarrow as pa

    with checksummed_path(target) as part:
        complete = False
        while not complete:
            with pa.OSFile(str(part), "wb") as sink:
                try:
                    complete = write(sink)
                except OSError as error:
                    if is_disk_full(error):
                        raise
                    # of what is read, not of the cache
                    raise DataError(f"cannot read the data: {error}") from error


def open_table(path: Path, origin: Path, *, is_ours: bool = True) -> Dataset:
    """Open a file in Arrow's stream format, memory-mapped.

    Args:
        path: The Arrow file.
        origin: The file from which it was converted, named in error messages.
        is_ours: Whether this library wrote it: then fields may be stored as JSON texts.

    Raises:
        DataError: The file cannot be read as an Arrow stream.
    """
    import pyarrow as pa
    from datasets import Dataset

    with _named(origin, "cannot be read as a table"):
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            schema = stream.schema
        check_schema(origin, schema)
        table = Dataset.from_file(str(path))
        return _decoded(table, schema) if is_ours else table


@contextmanager
def _named(path: Path, problem: str) -> Iterator[None]:
    """Turn whatever Arrow or `datasets` raises into one DataError that names the file."""
    try:
        yield
    except (SynqueError, PermissionError, MemoryError):
        raise
    except Exception as error:  # the types differ between versions of both libraries
        if isinstance(error, OSError) and is_disk_full(error):  # of what is written, not of `path`
            raise
        raise DataError(f"{path}: {problem}: {_first_line(error)}") from error


def check_names_differ(where: str, names: Sequence[str]) -> None:
    """Check that no two columns of a table have one name, of which one would be lost.

    Args:
        where: The file or dataset, for the message.
        names: Names of the columns.
    """
    for name, n_columns in Counter(names).items():
        if n_columns > 1:
            raise DataError(
                f"{where}: {counted(n_columns, 'column')} are named {name!r}; names of columns "
                "must differ: rename or drop one of them"
            )


def check_times(where: str, table: pa.Table) -> None:
    """Check that Python can hold the dates and times of a table in memory.

    Args:
        where: The dataset, for the message.
        table: The table.

    Raises:
        DataError: It cannot; the message names the column.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        for chunk in column.chunks:
            _check_times(where, name, chunk)


def check_schema(path: Path | str, schema: pa.Schema) -> None:
    """Refuse columns that `datasets` cannot hold, by their names.

    Args:
        path: The file or dataset, for the message.
        schema: The columns.

    Raises:
        DataError: A name occurs twice, or a column has a type that cannot be read.
    """
    import pyarrow as pa
    from datasets import Features

    check_names_differ(str(path), schema.names)
    for field in schema:
        try:
            Features.from_arrow_schema(pa.schema([field.remove_metadata()]))
            _check_type(field.type)
        except Exception as error:  # the types differ between versions
            raise DataError(
                f"{path}: the column {field.name!r} has the type {field.type}, which cannot be "
                "read; drop the column, or cast it to texts, numbers, lists or structs"
            ) from error
    try:
        Features.from_arrow_schema(schema)
    except Exception as error:
        raise DataError(
            f"{path}: the metadata that `datasets` wrote into it cannot be read: "
            f"{_first_line(error)}; install a newer version of datasets"
        ) from error


def _check_type(type_: pa.DataType) -> None:
    """Raise an error if values of a type are lost, or cannot be read, as values of Python."""
    import pyarrow as pa

    if pa.types.is_timestamp(type_):
        pa.scalar(0, type_).as_py()  # fails if the time zone does not exist
    if pa.types.is_struct(type_):
        parts = [type_.field(number) for number in range(type_.num_fields)]
        if len({part.name for part in parts}) < len(parts):
            raise ValueError("two fields of a struct have one name")
        for part in parts:
            _check_type(part.type)
    elif isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        _ = type_.value_field.name  # fails if it is not UTF-8, as `datasets` would later
        _check_type(type_.value_type)


def check_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Check that the values of an Arrow batch are whole; a file may be damaged or hostile.

    Args:
        path: The file, for the message.
        batch: Some of its rows.

    Raises:
        DataError: A text is not UTF-8, a position points beyond the data, or Python cannot hold a
            date or time; the message names the column.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        with _named(path, f"the column {name!r} is broken"):
            column.validate(full=True)
        _check_times(path, name, column)


def _check_times(where: Path | str, name: str, column: pa.Array) -> None:
    problem = _time_problem(column)
    if problem is not None:
        raise DataError(
            f"{where}: the column {name!r} holds {problem}, which Python cannot hold; drop the "
            "column, or cast it to texts"
        )


def _time_problem(column: pa.Array) -> str | None:
    """Say which dates or times of a column would be lost, or cannot be read as values of Python."""
    import pyarrow as pa
    import pyarrow.compute as pc

    type_ = column.type
    if isinstance(column, pa.DictionaryArray):
        return _time_problem(column.dictionary)
    if isinstance(
        column, pa.StructArray | pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray
    ):
        parts = column.flatten() if isinstance(column, pa.StructArray) else [column.flatten()]
        return next(filter(None, map(_time_problem, parts)), None)
    if not pa.types.is_temporal(type_):
        return None
    days = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
    if pa.types.is_date32(type_):
        column, per_day = column.cast(pa.int32()), 1
    elif pa.types.is_date64(type_):
        column, per_day = column.cast(pa.int64()), days["ms"]
    elif type_.id in (pa.lib.Type_TIMESTAMP, pa.lib.Type_DURATION, pa.lib.Type_TIME64):
        column, per_day = column.cast(pa.int64()), days[type_.unit]
    else:
        return None
    if pa.types.is_time64(type_):
        lost = type_.unit == "ns" and pc.any(pc.not_equal(_rest(column, 1000), 0)).as_py()
        return "times with nanoseconds" if lost else None
    ends = pc.min_max(column).as_py()
    if ends["min"] is None:
        return None
    if pa.types.is_duration(type_):
        most = timedelta.max.days
        return (
            None
            if -most < ends["min"] // per_day <= ends["max"] // per_day < most
            else (f"durations of more than {most:,} days")
        )
    first, last = (day.toordinal() - date(1970, 1, 1).toordinal() for day in (date.min, date.max))
    is_in = first <= ends["min"] // per_day and ends["max"] // per_day <= last
    return None if is_in else "dates outside of the years 1 to 9999"


def _rest(column: pa.Array, divisor: int) -> pa.Array:
    import pyarrow.compute as pc

    return pc.subtract(column, pc.multiply(pc.divide(column, divisor), divisor))


def _decoded(dataset: Dataset, schema: pa.Schema) -> Dataset:
    decoders: dict[str, Callable[[str], object]] = {
        name: decode
        for key, decode in ((JSON_FIELDS, value_of), (NUMBER_FIELDS, WrittenNumber))
        for name in json.loads((schema.metadata or {}).get(key, b"[]"))
    }
    return dataset.with_transform(_Decode(decoders)) if decoders else dataset


class _Decode:
    """Restore the original values of fields that are stored as texts."""

    is_by_field = True  # so that `field_alone` may read one field without the others

    def __init__(self, decoders: Mapping[str, Callable[[str], object]]) -> None:
        self._decoders = decoders

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[object]]:
        return {name: self._decoded(name, values) for name, values in batch.items()}

    def _decoded(self, name: str, values: list[Any]) -> list[object]:
        decode = self._decoders.get(name)
        if decode is None:
            return values
        return [None if value is None else decode(value) for value in values]


def write_rows(
    path: Path, read: Callable[[Path], Rows], columns: Columns, sink: pa.NativeFile
) -> bool:
    """Write the rows of a file as an Arrow stream.

    Args:
        path: The file.
        read: Function that streams the rows of a file.
        columns: The types known so far; they are widened in place.
        sink: Where the stream is written.

    Returns:
        Whether the stream is complete. If not, a type changed after the first batch was written;
        `columns` now holds the final types, so the next call succeeds.

    Raises:
        DataError: The file has no rows, a name that is not valid Unicode, or too many fields.
    """

    def one_block(path: Path) -> Iterator[Block]:
        yield Block(0, partial(read, path), lambda _schema: None)

    return _write_blocks(path, one_block, columns, sink)


def _write_blocks(
    path: Path, read: Callable[[Path], Iterator[Block]], columns: Columns, sink: pa.NativeFile
) -> bool:
    try:
        return _try_blocks(path, read, columns, sink)
    except TypesChangedError:
        columns.clear()
        return False


def _try_blocks(
    path: Path, read: Callable[[Path], Iterator[Block]], columns: Columns, sink: pa.NativeFile
) -> bool:
    import pyarrow as pa

    writer, complete = None, True
    names: set[str] = set()
    with _progress(path) as bar:
        for block in read(path):
            table = block.table(columns.schema()) if columns.are_plain else None
            if table is not None:
                bar.update(block.n_bytes)
                if complete:
                    writer = writer or pa.ipc.new_stream(sink, columns.schema())
                    writer.write_table(table)
                continue
            for rows in _batches(_checked_rows(block.rows(), path, names, bar)):
                grown = columns.grow(rows)
                # the schema of a stream is fixed by its first batch: after a change of types only
                # the remaining types are collected, and everything is written again
                complete = complete and not (grown and writer)
                if complete:
                    writer = writer or pa.ipc.new_stream(sink, columns.schema())
                    writer.write_batch(columns.batch(rows))
    if writer is None:
        raise DataError(f"{path}: the file contains no examples")
    writer.close()
    return complete


def _progress(path: Path) -> ProgressBar:
    size = None if is_compressed(path) else path.stat().st_size
    return ProgressBar(total=size, unit="B", unit_scale=True, delay=2, desc=path.name, leave=False)


def _checked_rows(rows: Rows, path: Path, names: set[str], bar: ProgressBar) -> Rows:
    """Yield rows whose names of fields can be written; `names` are those seen so far."""
    for row in rows:
        bar.update(row.n_bytes)
        if not names.issuperset(row.fields):
            for name in row.fields:
                check_name(name, f"{path}, line {row.line}")
            names.update(row.fields)
            if len(names) > _MAX_FIELDS:
                raise DataError(
                    f"{path}, line {row.line}: more than {_MAX_FIELDS:,} different fields; is a "
                    "key of the records a value, such as an id?"
                )
        yield row


def check_name(name: str, where: str) -> None:
    """Check that the name of a field can be written to a file.

    Args:
        name: The name.
        where: Where it is, for the message.

    Raises:
        DataError: It is not valid Unicode, or holds a NUL character.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the field {name!a} holds half of a surrogate pair, which is not valid "
            "Unicode; rename the field"
        ) from error
    if "\0" in name:  # Arrow ends a name there
        raise DataError(f"{where}: the field {name!a} holds a NUL character; rename the field")


def _batches(rows: Iterable[Row]) -> Iterator[list[Mapping[str, object]]]:
    batch: list[Mapping[str, object]] = []
    n_bytes = 0
    for row in rows:
        batch.append(row.fields)
        n_bytes += row.n_bytes
        if len(batch) == BATCH_ROWS or n_bytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _write_batches(
    path: Path, batches: Callable[[Path], Iterator[pa.RecordBatch]], sink: pa.NativeFile
) -> bool:
    import pyarrow as pa

    writer = None
    with _named(path, "the file is broken"):
        for batch in batches(path):
            if writer is None:
                check_schema(path, batch.schema)
                # a file of the user's own has no fields that were stored as JSON by `write_rows`
                given = batch.schema.metadata or {}
                about = {key: value for key, value in given.items() if key not in _OUR_KEYS}
                writer = pa.ipc.new_stream(sink, batch.schema.with_metadata(about))
            check_batch(path, batch)
            writer.write_batch(batch)
    if writer is None:
        raise DataError(f"{path}: the file contains no examples")
    writer.close()
    return True


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
