"""LENS judgments that were released with the benchmark: how to find them, and LENS from them.

Judgments of examples are in `<task>/LENS/scores/<model>/seed=<s>/{synthetic_data,real_data}/`, one
file per candidate, in one folder per group if the task has groups. Models, seeds, groups and
candidates are read from the names; a folder `metadata` is skipped.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.benchmark.case_scores import Case, CaseScores
from synque_select.errors import ConfigError, DataError, RecordError
from synque_select.functional.lens import label_value, lens_balanced, lens_debiased, lens_raw
from synque_select.lens.rubric import Rubric, load_rubrics
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import read_json_file
from synque_select.utils.wording import counted

__all__ = [
    "JudgmentFiles",
    "find_judgments",
    "judged_columns",
    "lens_scores",
    "read_judgments",
    "released_rubrics",
]

_PORTION = re.compile(r".*_(portion=[^=]+)")
_PLACES = ("A", "B")
_ASKED = ("real", "synth")


@dataclass(frozen=True)
class JudgmentFiles:
    """The judgments of one ranking of the benchmark: one model, one group, one real sample.

    Args:
        model: Name of the model that judged.
        group: Name of the group: a database, a site, or the task if it has a single group.
        seed: Seed of the real sample.
        files: Candidate to its two files, the one on the real sample first.
    """

    model: str
    group: str
    seed: str
    files: Mapping[str, tuple[Path, Path]]


def find_judgments(task_folder: Path) -> list[JudgmentFiles]:
    """Find the judgments in a task's folder.

    A candidate is left out if only one of its two files exists.
    """
    by_ranking: dict[tuple[str, str, str], dict[str, tuple[Path, Path]]] = {}
    for folder in sorted(task_folder.glob("LENS/scores/*/seed=*")):
        model, seed = folder.parent.name, folder.name.partition("=")[2]
        for path, real in _pairs(folder):
            group = task_folder.name if path.parent.name == "synthetic_data" else path.parent.name
            match = _PORTION.fullmatch(path.stem)
            name = match[1] if match else path.stem
            by_ranking.setdefault((model, group, seed), {})[name] = (real, path)
    return [JudgmentFiles(*key, files) for key, files in by_ranking.items()]


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    root = folder / "synthetic_data"
    for path in sorted((*root.glob("*.json"), *root.glob("*/*.json"))):
        real = folder / "real_data" / path.relative_to(root)
        if path.parent.name != "metadata" and real.is_file():
            yield path, real


def read_judgments(path: Path) -> torch.Tensor:
    """Read a file of judgments.

    Returns:
        (n, 2, 2) float64, values 0..4: example, place of the synthetic set (A, B), set that was
        asked about (real, synthetic).

    Raises:
        DataError: The file is not a list of records with four judgments each; the message names
            the record.
    """
    records = read_json_file(path)
    if not isinstance(records, list) or not records:
        raise DataError(f"{path}: expected a list of records with judgments")
    return torch.tensor([_row(path, i, record) for i, record in enumerate(records)]).double()


def _row(path: Path, position: int, record: object) -> list[list[int]]:
    try:
        fields = JsonFields(record, "judgment")
        return [
            [label_value(fields.text(f"score_{y}_given_synth_loc_{loc}_judgement")) for y in _ASKED]
            for loc in _PLACES
        ]
    except (RecordError, ConfigError) as error:
        raise DataError(f"{path}, record {position} (counted from 0): {error}") from error


def lens_scores(
    judgments: JudgmentFiles,
    candidates: Sequence[str],
    rows: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Score candidates by their released judgments, in the authors' protocol.

    Args:
        judgments: The judgments of one ranking.
        candidates: Names of the candidates, in the order of the ranking.
        rows: Positions of the real examples that count; None for all.

    Returns:
        Proxy key (`lens_raw`, `lens_balanced`, `lens`) to (K,) scores, higher is better; NaN for
        a candidate without judgments.

    Raises:
        DataError: A file cannot be used.
    """
    scores = [_scores(judgments.files.get(name), rows) for name in candidates]
    keys = ("lens_raw", "lens_balanced", "lens")
    return {
        key: np.array(column) for key, column in zip(keys, zip(*scores, strict=True), strict=True)
    }


def released_rubrics(task_folder: Path, group: str, seed: str) -> dict[str, Rubric]:
    """Read the released rubrics of one ranking of the benchmark.

    Args:
        task_folder: Folder of the task.
        group: Name of the group.
        seed: Seed of the real sample.

    Returns:
        Candidate name to rubric.

    Raises:
        DataError: No rubrics exist for this seed or group.
    """
    paths = sorted((task_folder / "LENS" / "rubrics").glob(f"*seed={seed}.json"))
    if not paths:
        raise DataError(f"{task_folder}: no released rubrics of seed {seed}")
    rubrics = load_rubrics(paths[0], group)
    portions = {name: _PORTION.fullmatch(name) for name in rubrics}
    return {m[1] if (m := portions[name]) else name: rubric for name, rubric in rubrics.items()}


def judged_columns(
    task_folder: Path,
    cases: Sequence[Case],
    keys: Sequence[str],
    rows: Mapping[tuple[str, str], NDArray[np.int64]] | None = None,
) -> tuple[dict[tuple[str, str], CaseScores], tuple[str, ...]]:
    """Score the rankings of a task by LENS from released judgments.

    Args:
        task_folder: Folder of the task.
        cases: Its rankings.
        keys: Which of `lens`, `lens_raw`, `lens_balanced` to compute.
        rows: (group, seed) to the positions of the real examples that count; None for all. The
            released rubrics were written from all of them in either case.

    Returns:
        (group, seed) to these columns, and plain sentences on what is missing. A ranking has no
        columns unless all of its candidates were judged. If several models judged, the one with
        the most rankings is used.

    Raises:
        DataError: A file cannot be used.
    """
    if not keys:
        return {}, ()
    every = find_judgments(task_folder)
    models = Counter(judgments.model for judgments in every).most_common()
    messages = [f"lens: judgments of {models[0][0]} used, not of {m}." for m, _ in models[1:]]
    known = {(j.group, j.seed): j for j in every if j.model == models[0][0]}
    columns = {}
    for case in cases:
        place = (case.group, case.seed)
        started = time.perf_counter()
        used = None if rows is None else rows[place]
        values = _columns(known.get(place), [c.name for c in case.candidates], keys, used)
        if values is None:
            messages.append(
                f"{case.group}: no LENS judgments of all candidates for seed {case.seed}."
            )
            continue
        seconds = (time.perf_counter() - started) / len(keys)
        better = dict.fromkeys(keys, True)
        columns[place] = CaseScores(values, better, dict.fromkeys(keys, seconds), ())
    return columns, tuple(messages)


def _columns(
    judgments: JudgmentFiles | None,
    candidates: Sequence[str],
    keys: Sequence[str],
    rows: NDArray[np.int64] | None,
) -> dict[str, NDArray[np.float64]] | None:
    if judgments is None:
        return None
    table = lens_scores(judgments, candidates, rows)
    return None if np.isnan(table["lens"]).any() else {key: table[key] for key in keys}


def _scores(
    files: tuple[Path, Path] | None, rows: NDArray[np.int64] | None
) -> tuple[float, float, float]:
    if files is None:
        return math.nan, math.nan, math.nan
    real, synthetic = map(read_judgments, files)
    if rows is not None:
        if len(real) <= rows.max():
            raise DataError(
                f"{files[0]}: found judgments of {counted(len(real), 'real example')}, but example "
                f"{int(rows.max())} (counted from 0) of the task is needed too: the file belongs "
                "to another version of the data"
            )
        real = real[torch.from_numpy(rows)]
    return (
        lens_raw(synthetic, protocol="released"),
        lens_balanced(real, synthetic, protocol="released"),
        lens_debiased(real, synthetic, protocol="released"),
    )
