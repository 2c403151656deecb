"""Readers of Parquet and Arrow files, which are read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

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

    def read(self, path: Path) -> Dataset:
        """Read a file; a large file is converted once and memory-mapped from the cache."""
        return table_of_batches(path, _parquet_batches)


class ArrowReader(BaseReader):
    """Reads Arrow files, in the IPC file format or the IPC stream format."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow",)

    def read(self, path: Path) -> Dataset:
        """Read a file; a stream is memory-mapped in place."""
        with path.open("rb") as file:
            is_stream = file.read(len(_ARROW_FILE_MAGIC)) != _ARROW_FILE_MAGIC
        if not is_stream:
            return table_of_batches(path, _file_batches)
        table = open_table(path, path)
        blocks = table.data.to_batches()
        for block in ProgressBar(blocks, path.name, unit="block", delay=2, leave=False):
            check_batch(path, block)
        return table


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS)


def _file_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
