"""Files of records as datasets of the `datasets` library, large ones memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from synque_select.data.columns import JSON_FIELDS, Columns
from synque_select.errors import DataError
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
from synque_select.utils.atomic import atomic_path

__all__ = [
    "BATCH_ROWS",
    "SMALL_BYTES",
    "Row",
    "Rows",
    "open_saved",
    "open_table",
    "quiet_datasets",
    "table_of_batches",
    "table_of_rows",
    "write_atomically",
    "write_rows",
]

# files up to this size are held in memory; larger ones are converted once and memory-mapped
SMALL_BYTES = 8 << 20
BATCH_ROWS = 1000
_BATCH_BYTES = 8 << 20
_FORMAT_VERSION = 1

# writes a whole file as an Arrow stream; False: the types it needs were found too late, once more
_Write: TypeAlias = Callable[[Any], bool]


class Row(NamedTuple):
    """One example of a file: the line on which it starts, its rough size in bytes, its fields."""

    line: int
    n_bytes: int
    fields: dict[str, Any]


Rows: TypeAlias = Iterator[Row]


def table_of_rows(
    path: Path, read: Callable[[Path], Rows], *, about: Sequence[str] = ()
) -> Dataset:
    """Make a table of a file's rows; a large one is written once and memory-mapped from the cache.

    Args:
        path: The file.
        read: Streams its rows; may be called more than once.
        about: What `read` depends on besides the file; the cached table is kept by it.

    Raises:
        DataError: The file is broken, or holds no rows.
    """
    about = about or (getattr(read, "__name__", ""),)
    return _converted(path, partial(write_rows, path, read, Columns()), about)


def table_of_batches(path: Path, read: Callable[[Path], Iterator[pa.RecordBatch]]) -> Dataset:
    """Make a table of a file's Arrow batches, as `table_of_rows` does of rows.

    Raises:
        DataError: The file is broken, or holds no rows.
    """
    return _converted(path, partial(_write_batches, path, read), (read.__name__,))


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


def _converted(path: Path, write: _Write, about: Sequence[str]) -> Dataset:
    if path.stat().st_size > SMALL_BYTES:
        target = _cache_path(path, about)
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


def _cache_path(path: Path, about: Sequence[str]) -> Path:
    stat = path.stat()
    key = [_FORMAT_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *about]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return default_cache_dir() / "tables" / f"{name}.arrow"


def write_atomically(target: Path, write: _Write) -> None:
    """Write a file of the cache whole or not at all.

    Raises:
        DataError: The cache folder cannot be written.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        try:
            part = stack.enter_context(atomic_path(target))
            part.touch()
        except OSError as error:
            raise DataError(
                f"the cache folder {target.parent} cannot be written ({error.strerror}); "
                "set SYNQUE_CACHE to one that can"
            ) from error
        complete = False
        while not complete:
            with pa.OSFile(str(part), "wb") as sink:
                complete = write(sink)


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
        if len(batch) == BATCH_ROWS or n_bytes > _BATCH_BYTES:
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


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
