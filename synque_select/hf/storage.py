"""The examples of several candidates as one `datasets.Dataset`, stored in the cache."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.data.candidate import Candidate
from synque_select.errors import DataError
from synque_select.export.rows import Columns, Record, class_labels, record_of
from synque_select.export.writers import arrow_dataset
from synque_select.training.mixture_loader import training_example
from synque_select.utils.cache_dir import default_cache_dir, write_in_cache
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ROW", "stored_rows"]

ROW = "synque_row"


def stored_rows(candidates: Sequence[Candidate]) -> Dataset:
    """Write the examples of the candidates to the cache, and open them memory-mapped.

    The file is named by its content, so that ranks and later runs share it, and what
    `datasets` computes from it.

    Args:
        candidates: The candidates; their examples follow each other, in this order.

    Raises:
        DataError: An example cannot be read or stored.
    """
    from datasets import Dataset

    def rows() -> Iterator[Record]:
        places = ((part, i) for part in candidates for i in range(len(part)))
        n = sum(map(len, candidates))
        bar = ProgressBar(
            places, "reading the mixture", total=n, delay=2, leave=False, unit="example"
        )
        for row, (candidate, position) in enumerate(bar):
            example = training_example(candidate, position, None)
            yield {**record_of(candidate, example), ROW: row}

    def write(folder: Path) -> Path:
        part = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            arrow_dataset(part, rows, Columns(class_labels(candidates)))
            with part.open("rb") as stream:
                name = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
            target = folder / f"{name}.arrow"
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target

    try:
        path = write_in_cache(default_cache_dir() / "hf", write)
    except OSError as error:
        raise DataError(f"the examples of the mixture cannot be stored: {error}") from error
    return Dataset.from_file(str(path))
