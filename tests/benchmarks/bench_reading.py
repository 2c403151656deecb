"""Files of a million rows, read with a cold cache, against `datasets`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from datasets import disable_progress_bars, load_dataset

from synque_select.data.readers import read_file
from tests.benchmarks.base import Result, compare, peak_bytes

N_ROWS, REPEATS = 1_000_000, 3
TARGET = 1 / 1.5  # ours may take one and a half times as long
NAMES = {"jsonl": "json"}  # as `datasets` calls the format


def _rows() -> Iterator[dict[str, Any]]:
    draw = random.Random(0)
    words = [f"word{number}" for number in range(3000)]
    for number in range(N_ROWS):
        text = " ".join(draw.choices(words, k=draw.randint(5, 12)))
        score, source = round(draw.random(), 4), f"generator {number % 7}"
        label = draw.choice(["pos", "neg", "neutral"])
        yield {"id": number, "text": text, "label": label, "score": score, "source": source}


def _write(folder: Path) -> dict[str, Path]:
    """Write the files; returns what each holds, and its path."""
    paths = {
        "texts as JSON Lines": folder / "texts.jsonl",
        "records of 5 fields as JSON Lines": folder / "records.jsonl",
        "rows of 5 columns as CSV": folder / "rows.csv",
        "rows of 5 columns as Parquet": folder / "table.parquet",
    }
    texts, records, rows, table = paths.values()
    with texts.open("w") as short, records.open("w") as long:
        for row in _rows():
            short.write(json.dumps({"text": row["text"]}) + "\n")
            long.write(json.dumps(row) + "\n")
    whole = pa.Table.from_pylist(list(_rows()))
    pyarrow.csv.write_csv(whole, rows)
    pyarrow.parquet.write_table(whole, table)
    return paths


@contextlib.contextmanager
def _empty_cache(variable: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get(variable)
        os.environ[variable] = folder
        try:
            yield folder
        finally:
            os.environ.pop(variable)
            if before is not None:
                os.environ[variable] = before


def _ours(path: Path) -> None:
    with _empty_cache("SYNQUE_CACHE"):
        assert len(read_file(path, path.suffix[1:])) == N_ROWS


def _theirs(path: Path) -> None:
    kind = path.suffix[1:]
    with tempfile.TemporaryDirectory() as folder:
        files = {"data_files": str(path), "cache_dir": folder, "split": "train"}
        assert len(load_dataset(NAMES.get(kind, kind), **files)) == N_ROWS


def _prepared(path: Path) -> tuple[Path]:
    disable_progress_bars()
    return (path,)


def run() -> Iterator[Result]:
    """Read each file in alternation, each time into an empty cache."""
    disable_progress_bars()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as name:
        for what, path in _write(Path(name)).items():
            seconds = compare(partial(_ours, path), partial(_theirs, path), REPEATS)
            works: tuple[Callable[[Path], None], ...] = (_ours, _theirs)
            peaks = [peak_bytes(work, partial(_prepared, path)) for work in works]
            yield Result(
                name=f"read {N_ROWS:,} {what}",
                ratio=seconds[1] / seconds[0],
                target=TARGET,
                rival="datasets.load_dataset",
                seconds=seconds[0],
                rival_seconds=seconds[1],
                peak_bytes=peaks[0],
                rival_peak_bytes=peaks[1],
            )
