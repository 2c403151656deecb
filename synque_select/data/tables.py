"""Files of records as datasets of the `datasets` library, large ones memory-mapped."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from synque_select.data.columns import JSON_FIELDS, Columns
from synque_select.data.csv_reader import read_csv
from synque_select.data.json_reader import Row, Rows, read_json, read_jsonl
from synque_select.errors import DataError
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "TABLE_SUFFIXES",
    "open_saved",
    "open_table",
    "quiet_datasets",
    "read_table",
    "write_atomically",
    "write_rows",
]

TABLE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")

# files up to this size are held in memory; larger ones are converted once and memory-mapped
SMALL_BYTES = 8 << 20
_BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20
_FORMAT_VERSION = 1
_ARROW_FILE_MAGIC = b"ARROW1"

# writes a whole file as an Arrow stream; False: the types it needs were found too late, once more
_Write: TypeAlias = Callable[[Any], bool]


def read_table(path: Path, as_text: frozenset[str] = frozenset()) -> Dataset:
    """Read a file of records; a large one is converted once and memory-mapped from the cache.

    Args:
        path: A JSON, JSONL, CSV, TSV, Parquet or Arrow file.
        as_text: CSV columns that are text even if they look like numbers.

    Raises:
        DataError: The file is empty, broken or of an unknown kind.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{path}: the suffix {path.suffix!r} is not known; "
            f"allowed are {', '.join(TABLE_SUFFIXES)} and folders"
        )
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if suffix == ".arrow" and not _starts_with(path, _ARROW_FILE_MAGIC):
            return open_table(path, path)
        if suffix not in (".csv", ".tsv"):
            as_text = frozenset()  # the other kinds say themselves what is a text
        return _converted(path, _writer(path, suffix, as_text), as_text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_first_line(error)}") from error


def open_saved(path: Path) -> Dataset:
    """Open a folder that `Dataset.save_to_disk` wrote; it is memory-mapped where it lies.

    Raises:
        DataError: It holds several splits, or is broken.
    """
    from datasets import Dataset, load_from_disk

    try:
        with quiet_datasets():
            found = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise DataError(f"{path}: not a usable saved dataset: {_first_line(error)}") from error
    if not isinstance(found, Dataset):
        folders = ", ".join(str(path / split) for split in found)
        raise DataError(f"{path}: holds several splits; give one of {folders}")
    return found


class quiet_datasets:
    """Switch the progress bars and the log of the `datasets` library off, and back as they were."""

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


def _writer(path: Path, suffix: str, as_text: frozenset[str]) -> _Write:
    if suffix in (".parquet", ".arrow"):
        batches = _parquet_batches if suffix == ".parquet" else _arrow_file_batches
        return partial(_write_batches, path, batches)
    readers: dict[str, Callable[[Path], Rows]] = {
        ".json": read_json,
        ".csv": partial(read_csv, delimiter=",", as_text=as_text),
        ".tsv": partial(read_csv, delimiter="\t", as_text=as_text),
    }
    return partial(write_rows, path, readers.get(suffix, read_jsonl), Columns())


def _converted(path: Path, write: _Write, as_text: frozenset[str]) -> Dataset:
    if path.stat().st_size > SMALL_BYTES:
        target = _cache_path(path, as_text)
        if not target.exists():
            write_atomically(target, write)
        return open_table(target, path)
    import pyarrow as pa
    from datasets import Dataset

    complete = False
    while not complete:
        sink = pa.BufferOutputStream()
        complete = write(sink)
    buffer = sink.getvalue()
    with pa.ipc.open_stream(buffer) as stream:
        return _decoded(Dataset.from_buffer(buffer), stream.schema)


def _cache_path(path: Path, as_text: frozenset[str]) -> Path:
    stat = path.stat()
    key = [_FORMAT_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns, sorted(as_text)]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return default_cache_dir() / "tables" / f"{name}.arrow"


def write_atomically(target: Path, write: _Write) -> None:
    """Write a file of the cache whole or not at all.

    Raises:
        DataError: The cache folder cannot be written.
    """
    import pyarrow as pa

    # a name of its own, so that two processes that convert one file do not meet
    part = target.with_name(f"{target.stem}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise DataError(
            f"the cache folder {target.parent} cannot be written ({error.strerror}); "
            "set SYNQUE_CACHE to one that can"
        ) from error
    try:
        complete = False
        while not complete:
            with pa.OSFile(str(part), "wb") as sink:
                complete = write(sink)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def open_table(path: Path, origin: Path) -> Dataset:
    """Open an Arrow stream, memory-mapped.

    Args:
        path: The Arrow file.
        origin: What it was made of, for messages.

    Raises:
        DataError: It is broken.
    """
    import pyarrow as pa
    from datasets import Dataset

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            schema = stream.schema
        return _decoded(Dataset.from_file(str(path)), schema)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{origin}: not a usable Arrow file: {_first_line(error)}") from error


def _decoded(dataset: Dataset, schema: Any) -> Dataset:
    names = json.loads((schema.metadata or {}).get(JSON_FIELDS, b"[]"))
    return dataset.with_transform(_DecodeJson(frozenset(names))) if names else dataset


class _DecodeJson:
    """Give back, as they stood in the file, fields whose values are not all of one type."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            name: [json.loads(value) for value in values] if name in self._names else values
            for name, values in batch.items()
        }


def write_rows(path: Path, read: Callable[[Path], Rows], columns: Columns, sink: Any) -> bool:
    """Write the rows of a file as an Arrow stream.

    Returns:
        Whether it is complete; if not, `columns` knows the types by now: once more.

    Raises:
        DataError: The file holds no rows.
    """
    import pyarrow as pa

    writer, complete = None, True
    for rows in _batches(_with_progress(read(path), path)):
        grown = columns.grow(rows)
        # types that change after the first batch was written: look on, and write it all once more
        complete = complete and not (grown and writer)
        if complete:
            writer = writer or pa.ipc.new_stream(sink, columns.schema())
            writer.write_batch(columns.batch(rows))
    if writer is None:
        raise DataError(f"{path}: the file holds no examples")
    writer.close()
    return complete


def _with_progress(rows: Rows, path: Path) -> Rows:
    size = path.stat().st_size
    with ProgressBar(
        total=size, unit="B", unit_scale=True, delay=2, desc=path.name, leave=False
    ) as bar:
        for row in rows:
            bar.update(row.n_bytes)
            yield row


def _batches(rows: Iterable[Row]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    n_bytes = 0
    for row in rows:
        batch.append(row.fields)
        n_bytes += row.n_bytes
        if len(batch) == _BATCH_ROWS or n_bytes > _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _write_batches(path: Path, batches: Callable[[Path], Iterator[Any]], sink: Any) -> bool:
    import pyarrow as pa

    writer = None
    try:
        for batch in batches(path):
            writer = writer or pa.ipc.new_stream(sink, batch.schema)
            writer.write_batch(batch)
    except (pa.ArrowException, OSError, NotImplementedError) as error:
        raise DataError(f"{path}: broken: {_first_line(error)}") from error
    if writer is None:
        raise DataError(f"{path}: the file holds no examples")
    writer.close()
    return True


def _parquet_batches(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS)


def _arrow_file_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
