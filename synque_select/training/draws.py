"""The draws of a mixture outside of a fit: what a ranking says to train on, and its export."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.data.label_edits import LabelEdits
from synque_select.data.source_paths import absolute_source, find_source, places_of_sources
from synque_select.data.sources import load_candidates
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, DataError
from synque_select.export.rows import Record, record_of
from synque_select.export.writers import Output
from synque_select.records.dropped_labels_file import DROPPED_LABELS, load_dropped_labels
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import file_beside
from synque_select.selection.label_filter import edits_of
from synque_select.selection.ranking import content_differences
from synque_select.training.mixture_loader import (
    MixtureDataset,
    chosen_candidates,
    training_example,
)
from synque_select.types import Mixture, RankedCandidate, Ranking
from synque_select.utils.validation import check_int

__all__ = [
    "Export",
    "RankedMixture",
    "export_draws",
    "load_ranked_mixture",
    "ranked_mixture",
    "read_label_edits",
]


@dataclass(frozen=True)
class RankedMixture:
    """What a ranking says to train on.

    Args:
        ranking: The ranking.
        candidates: The selected candidates without the examples that its label filter drops, and
            with the labels that it changes.
        mixture: Their weights.
        edits: What the label filter changes; None without one.
    """

    ranking: Ranking
    candidates: list[Candidate]
    mixture: Mixture
    edits: LabelEdits | None = None


def load_ranked_mixture(
    ranking: str | Path | Ranking,
    candidates: Any = None,
    *,
    view: Selector | None = None,
    label: Selector | None = None,
) -> RankedMixture:
    """Load the candidates that a ranking selects, as training sees them.

    Args:
        ranking: A `ranking.json`, the directory that holds it, or a Ranking.
        candidates: Anything that `load_candidates` takes; None to load them from where the ranking
            says that they were.
        view: What was ranked, as for `load_candidates`; None for what the ranking says.
        label: Field with the label, as for `load_candidates`; None for what the ranking says.

    Raises:
        ConfigError: The ranking does not say where a candidate is, a selected candidate is not
            among those given, or a label filter needs the path of the ranking.
        DataError: A candidate cannot be loaded, or is not what was ranked.
        RecordError: The ranking cannot be read.
    """
    read = ranking if isinstance(ranking, Ranking) else load_ranking(ranking)
    mixture = read.top()
    rows = [read[name] for name in mixture.names]
    path = None if isinstance(ranking, Ranking) else _file_of(Path(ranking))
    if candidates is None:
        places = places_of_sources(read.origin.working_dir, path)
        loaded = [_from_source(row, places, view, label) for row in rows]
    else:
        given = load_candidates(
            candidates,
            view=rows[0].view if view is None else view,
            label=rows[0].label if label is None else label,
        )
        loaded = chosen_candidates(given, mixture)
    differences = content_differences(rows, {part.name: part for part in loaded})
    if differences:
        raise DataError(
            "the ranking was made on other data:\n- "
            + "\n- ".join(differences)
            + "\nRank again, or give the candidates, and the view, that were ranked."
        )
    return ranked_mixture(read, loaded, path)


def _file_of(path: Path) -> Path:
    return path if path.suffix == ".json" else path / "ranking.json"


def ranked_mixture(
    ranking: Ranking, candidates: Sequence[Candidate], path: Path | None
) -> RankedMixture:
    """Return what a ranking says to train on, of candidates that are already loaded.

    Args:
        ranking: The ranking.
        candidates: At least the selected candidates.
        path: The file of the ranking, or its directory; None if there is none.

    Raises:
        ConfigError: A label filter dropped examples, and its file is not given.
        RecordError: The file of the dropped examples, beside the ranking, cannot be read.
    """
    mixture = ranking.top()
    loaded = chosen_candidates(candidates, mixture)
    edits = read_label_edits(ranking, path)
    kept = loaded if edits is None else [edits.apply(part) for part in loaded]
    return RankedMixture(ranking, kept, mixture, edits)


def _from_source(
    row: RankedCandidate, places: Sequence[str], view: Selector | None, label: Selector | None
) -> Candidate:
    hint = "give the candidates (--candidates, candidates=)"
    if not row.source:
        raise ConfigError(
            f"the ranking does not say where {row.name!r} is, because it was ranked from memory or "
            f"by an older version: {hint}"
        )
    source = find_source(row.source, places)
    if source is None:
        raise DataError(
            f"{row.name!r} is no longer where it was ranked: "
            f"{absolute_source(row.source, places[0])} does not exist, and {row.source} was not "
            f"found from the working directory, nor from the folders around the ranking; {hint}"
        )
    try:
        (candidate,) = load_candidates(
            {row.name: source},
            view=row.view if view is None else view,
            label=row.label if label is None else label,
        )
    except (ConfigError, DataError) as error:
        raise DataError(
            f"{row.name!r} cannot be loaded from where it was ranked: {error}; {hint}"
        ) from error
    return candidate


def read_label_edits(ranking: Ranking, path: Path | None) -> LabelEdits | None:
    """Return what the label filter of a ranking changes in the candidates; None if nothing.

    Args:
        ranking: The ranking.
        path: The file that it was read from, or its directory.

    Raises:
        ConfigError: The path is None, but the filter dropped or changed examples that the ranking
            does not hold.
        RecordError: The file of the dropped examples, beside the ranking, cannot be read.
    """
    record = ranking.label_filter
    if record is None or not record.is_open:
        return None
    if ranking.findings.dropped is not None:
        return edits_of(ranking.findings.dropped, relabel=record.relabel)
    if path is None:
        raise ConfigError(
            "the labels of this ranking were filtered, but it does not hold the dropped examples: "
            "give the path of its ranking.json"
        )
    dropped = load_dropped_labels(file_beside(_file_of(path), DROPPED_LABELS))
    return edits_of(dropped, relabel=record.relabel)


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        path: The file or folder.
        n: Number of examples, which are in the order of the draws.
        drawn: Name of a candidate to the number of its draws.
        most_repeated: Name of a candidate to how often its most frequent example occurs.
    """

    path: Path
    n: int
    drawn: Mapping[str, int]
    most_repeated: Mapping[str, int]


def export_draws(
    dataset: MixtureDataset,
    out: str | os.PathLike[str],
    *,
    n: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> Export:
    """Write the first draws of a mixture, in their order, with a column of origin.

    Args:
        dataset: The mixture.
        out: A `.parquet` or `.jsonl` file, or a folder for `datasets.load_from_disk`.
        n: Number of draws; None for one epoch.
        force: Whether an existing file, or folder of a saved dataset, is replaced.
        progress: Whether to show progress that takes more than two seconds.

    Raises:
        ConfigError: `out` has another suffix, or n is below 1.
        DataError: An example cannot be read or written.
        RecordError: `out` exists and will not be replaced, or cannot be written.
    """
    output = Output(Path(out), force)
    n = len(dataset) if n is None else check_int("n", n, 1)
    drawn = [np.zeros(candidate.n_all, dtype=np.int64) for candidate in dataset.candidates]

    def rows() -> Iterator[Record]:
        for counts in drawn:
            counts[:] = 0
        for draw in range(n):
            which, example = dataset.schedule.locate(draw)
            drawn[which][example] += 1
            candidate = dataset.candidates[which]
            yield record_of(
                candidate, training_example(candidate, example, None, dataset.rows[which])
            )

    output.write(rows, n, dataset.candidates, progress=progress)
    names = [candidate.name for candidate in dataset.candidates]
    return Export(
        output.path,
        n,
        {name: int(counts.sum()) for name, counts in zip(names, drawn, strict=True)},
        {name: int(counts.max()) for name, counts in zip(names, drawn, strict=True)},
    )
