"""Writing records to Parquet, JSON lines or a folder of `datasets`, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from synque_select.data.candidate import Candidate
from synque_select.data.tables import quiet_datasets
from synque_select.errors import ConfigError, DataError, RecordError
from synque_select.export.rows import Columns, Record, Rows, batches, class_labels
from synque_select.records.run_folder import to_jsonable
from synque_select.utils.atomic import atomic_path
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["Output", "arrow_dataset"]

_SUFFIXES = (".parquet", ".jsonl")
# what Dataset.save_to_disk writes
_SAVED = ("dataset_info.json", "state.json")


@dataclass(frozen=True)
class Output:
    """Where records are written: a .parquet or .jsonl file, or a folder for `load_from_disk`.

    Args:
        path: The file or folder.
        force: Whether an existing file, or folder of a saved dataset, is replaced.

    Raises:
        ConfigError: The path has another suffix.
        RecordError: It exists and will not be replaced, or cannot be written.
    """

    path: Path
    force: bool = False

    def __post_init__(self) -> None:
        path = self.path
        if path.suffix.lower() not in ("", *_SUFFIXES):
            raise ConfigError(
                f"{path}: the suffix {path.suffix!r} is not known; allowed are "
                f"{' and '.join(_SUFFIXES)}, and a folder without a suffix"
            )
        if path.is_symlink() or path.exists():
            self._check_existing()
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise RecordError(f"{path} cannot be written: {parent} is not a writable directory")

    def _check_existing(self) -> None:
        path = self.path
        if not self.force:
            raise RecordError(
                f"{path} exists already: give another path, or --force (force=True) to replace it"
            )
        is_folder = not path.suffix
        saved = is_folder and all((path / name).is_file() for name in _SAVED)
        if not (saved if is_folder else path.is_file()):
            kind = "a saved dataset" if is_folder else "a file"
            raise RecordError(f"{path} exists already and is not {kind}: give another path")

    def write(self, rows: Rows, n: int, parts: list[Candidate], *, progress: bool = True) -> None:
        """Write records in batches, so that memory is bounded; nothing is left if it fails.

        Args:
            rows: Called again if a type changes after the first batch was written.
            n: Number of records, for the progress bar.
            parts: The candidates that the records come from.
            progress: Whether to show progress that takes more than two seconds.

        Raises:
            DataError: A record cannot be read or written.
            RecordError: The disk cannot be written.
        """
        kind, columns = self.path.suffix.lower(), Columns(class_labels(parts))

        def shown() -> Iterator[Record]:
            with ProgressBar(
                rows(),
                f"writing {self.path.name}",
                total=n,
                delay=2,
                leave=False,
                unit="example",
                disable=not progress,
            ) as bar:
                yield from bar

        try:
            if kind == ".jsonl":
                with atomic_path(self.path) as part:
                    _write_jsonl(part, shown())
            elif kind == ".parquet":
                with atomic_path(self.path) as part:
                    _write_table(shown, columns, _Parquet(part))
            else:
                with _atomic_folder(self.path) as part:
                    _save_dataset(part, shown, columns)
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error}") from error


def _write_jsonl(path: Path, records: Iterator[Record]) -> None:
    with path.open("xb") as stream:
        for number, record in enumerate(records):
            try:
                line = json.dumps(to_jsonable(record, where=f"example {number}"))
            except RecordError as error:
                raise DataError(f"{error}: write a .parquet file or a folder instead") from error
            stream.write(line.encode() + b"\n")


class _Sink(Protocol):
    def open(self, schema: pa.Schema) -> Any:
        """Return a writer with `write_batch` and `close`, at the beginning of the file."""
        ...


@dataclass(frozen=True)
class _Parquet:
    path: Path

    def open(self, schema: pa.Schema) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self.path, schema)


@dataclass(frozen=True)
class _Stream:
    path: Path

    def open(self, schema: pa.Schema) -> Any:
        import pyarrow as pa

        return pa.ipc.new_stream(str(self.path), schema)


def _write_table(rows: Rows, columns: Columns, sink: _Sink) -> None:
    complete = False
    while not complete:
        complete = _write_once(rows, columns, sink)


def _write_once(rows: Rows, columns: Columns, sink: _Sink) -> bool:
    """Write all batches; False if a type changed after the first, so that all must be repeated."""
    writer, schema, complete = None, None, True
    try:
        for batch in batches(rows()):
            grown = columns.grow(batch)
            complete = complete and not (grown and writer)
            if complete:
                if writer is None:
                    schema = columns.features().arrow_schema
                    writer = sink.open(schema)
                writer.write_batch(columns.batch(batch, schema))
    finally:
        if writer is not None:
            writer.close()
    return complete


def _save_dataset(folder: Path, rows: Rows, columns: Columns) -> None:
    stream = folder.with_name(f"{folder.name}.arrow")
    try:
        arrow_dataset(stream, rows, columns).save_to_disk(str(folder))
    finally:
        stream.unlink(missing_ok=True)


def arrow_dataset(path: Path, rows: Rows, columns: Columns) -> Dataset:
    """Write records to an Arrow file and open it, memory-mapped.

    Args:
        path: The file; an existing one is overwritten.
        rows: As for `Output.write`.
        columns: The types known so far; they are widened in place.

    Raises:
        DataError: A record cannot be read or written.
        OSError: The disk cannot be written.
    """
    from datasets import Dataset

    _write_table(rows, columns, _Stream(path))
    return Dataset.from_file(str(path))


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder's path, and rename it to `path` when the body ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = (path.with_name(f".{uuid.uuid4().hex}.{end}") for end in ("tmp", "old"))
    try:
        with quiet_datasets():
            yield part
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
