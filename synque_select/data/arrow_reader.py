"""Readers of Parquet and Arrow files, which are read in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from synque_select.data.compressed import is_compressed, open_data
from synque_select.data.readers import BaseReader
from synque_select.data.tables import BATCH_ROWS, check_batch, open_table, table_of_batches
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["ArrowReader", "ParquetReader"]

_ARROW_FILE_MAGIC = b"ARROW1"


class ParquetReader(BaseReader):
    """Reads Parquet files."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    reads_compressed: ClassVar[bool] = True

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and memory-mapped from the cache."""
        return table_of_batches(path, _parquet_batches)


class ArrowReader(BaseReader):
    """Reads Arrow files, in the IPC file format or the IPC stream format."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow",)
    reads_compressed: ClassVar[bool] = True

    def read(self, path: Path) -> Dataset:
        """Read a file; a stream is memory-mapped in place."""
        with open_data(path) as file:
            is_stream = file.read(len(_ARROW_FILE_MAGIC)) != _ARROW_FILE_MAGIC
        if not is_stream:
            return table_of_batches(path, _file_batches)
        if is_compressed(path):
            return table_of_batches(path, _stream_batches)
        table = open_table(path, path, is_ours=False)
        blocks = table.data.to_batches()
        for block in ProgressBar(blocks, path.name, unit="block", delay=2, leave=False):
            check_batch(path, block)
        return table


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with _source(path) as source, pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS)


def _file_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with _source(path) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with _source(path) as source, pa.ipc.open_stream(source) as reader:
        yield from reader


def _source(path: Path) -> pa.NativeFile:
    """Return the content for random access: mapped, or unpacked in memory."""
    import pyarrow as pa

    if not is_compressed(path):
        return pa.memory_map(os.fsencode(path))
    with open_data(path) as file:
        return pa.BufferReader(file.read())
