"""Scores of the benchmark's cases; each is written to disk as soon as it is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.errors import RecordError
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.kernel import comparable_options
from synque_select.proxies.registry import default_suite, get_proxy
from synque_select.records.run_folder import read_json, write_json
from synque_select.selection.consensus import borda
from synque_select.selection.scoring import Scoring, labels_key, score
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json

__all__ = ["CONSENSUS", "Case", "CaseScorer", "CaseScores", "never_reads_real"]

CONSENSUS = "consensus"


@dataclass(frozen=True)
class Case:
    """One ranking of the benchmark.

    Args:
        task: Name of the task.
        group: Name of the group.
        seed: Seed of the real sample.
        what: "as released", or the name of the ablation.
        candidates: The candidates to rank.
        real: The real sample.
    """

    task: str
    group: str
    seed: str
    what: str
    candidates: Sequence[Candidate]
    real: RealSample


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case, by proxy.

    Args:
        values: Proxy key to (K,) raw scores, NaN where undefined.
        higher_is_better: Proxy key to orientation.
        seconds: Proxy key to wall time of scoring, without encoding.
        members: Proxy keys of the consensus; empty if the default suite was not run as a whole.
    """

    values: Mapping[str, NDArray[np.float64]]
    higher_is_better: Mapping[str, bool]
    seconds: Mapping[str, float]
    members: tuple[str, ...]

    def oriented(self, key: str, kept: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return a column with higher values better, for all candidates or for those kept.

        The consensus over some of the candidates is that of a ranking of only these.
        """
        if key == CONSENSUS:
            return -self._consensus(kept)
        values = self.values[key] if kept is None else self.values[key][kept]
        return values if self.higher_is_better[key] else -values

    def with_ties(self, share: float) -> CaseScores:
        """Return the scores with near ties made exact.

        Candidates of equal content differ by rounding only, which must not decide their order.

        Args:
            share: Values closer than this share of their column's range are made equal.
        """
        return replace(self, values={key: _tied(v, share) for key, v in self.values.items()})

    def joined(self, more: CaseScores | None) -> CaseScores:
        """Return the scores with the columns of another case added, if one is given."""
        if more is None:
            return self
        return CaseScores(
            {**self.values, **more.values},
            {**self.higher_is_better, **more.higher_is_better},
            {**self.seconds, **more.seconds},
            self.members,
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all columns, the consensus (if computed) first."""
        return (*([CONSENSUS] if self.members else []), *self.values)

    def _consensus(self, kept: NDArray[np.int64] | None) -> NDArray[np.float64]:
        import torch

        columns = {
            key: torch.from_numpy(self.values[key] if kept is None else self.values[key][kept])
            for key in self.members
        }
        return np.asarray(borda(columns, self.higher_is_better))


@dataclass(frozen=True)
class _KeptColumn:
    """The scores of one case by one proxy, as far as they are read back from disk."""

    values: NDArray[np.float64]
    reliable: bool
    seconds: float

    @classmethod
    def from_dict(cls, state: object) -> _KeptColumn:
        fields = JsonFields(state)
        values = np.array(fields.number_list("values"), dtype=np.float64)
        return cls(values, fields.flag("reliable"), fields.number("seconds"))


@dataclass
class CaseScorer:
    """Scores cases with a suite of proxies; scores found on disk are not computed again.

    Args:
        suite: The proxies.
        encoder: Encoder for the proxies that need embeddings.
        folder: Directory in which scores are kept; None to keep none.
        cache_dir: Directory of the embedding cache.
        seed: Seed of everything random.
        progress: Whether to show the progress of encoding.
        for_case: Takes a case and a proxy of the suite; returns the proxy that scores the case.

    `last_scoring` is the last case of which scores were computed, and what was computed.
    """

    suite: Sequence[BaseProxy]
    encoder: BaseEncoder
    folder: Path | None
    cache_dir: Path | None
    seed: int
    progress: bool
    for_case: Callable[[Case, BaseProxy], BaseProxy] = lambda _, proxy: proxy
    n_judged: int = field(default=0, init=False)
    n_encoded: int = field(default=0, init=False)
    n_resumed: int = field(default=0, init=False)
    encoder_key: str = field(default="", init=False)
    last_scoring: tuple[Case, Scoring] | None = field(default=None, init=False)
    _computed: dict[Path, _KeptColumn] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # read once, as loading the model may fix the precision, which is part of the key
        self.encoder_key = self.encoder.key

    def scores(self, case: Case) -> CaseScores:
        """Score one case, or read the scores of an earlier run."""
        suite = [self.for_case(case, proxy) for proxy in self.suite]
        places = {proxy.key: self._place(case, proxy) for proxy in suite}
        known = {
            proxy.key: self._known(places[proxy.key], self._folder_of(proxy)) for proxy in suite
        }
        missing = [proxy for proxy in suite if known[proxy.key] is None]
        if missing:
            known.update(self._compute(case, missing, places))
        columns = {key: column for key, column in known.items() if column is not None}
        return CaseScores(
            {key: column.values for key, column in columns.items()},
            {proxy.key: proxy.higher_is_better for proxy in self.suite},
            {key: column.seconds for key, column in columns.items()},
            self._members(columns),
        )

    def _compute(
        self, case: Case, proxies: Sequence[BaseProxy], places: Mapping[str, Path]
    ) -> dict[str, _KeptColumn]:
        scoring = score(
            list(case.candidates),
            case.real,
            proxies,
            encoder=self.encoder,
            seed=self.seed,
            cache_dir=self.cache_dir,
            progress=self.progress,
        )
        self.n_encoded += scoring.n_encoded
        self.last_scoring = case, scoring
        columns = {}
        for proxy in proxies:
            scores = scoring.scores[proxy.key]
            self.n_judged += scores.details.get("questions", {}).get("asked", 0)
            values = np.array(scores.values.tolist(), dtype=np.float64)
            column = _KeptColumn(values, scores.reliable, scoring.seconds[proxy.key])
            columns[proxy.key] = self._computed[places[proxy.key]] = column
            folder = self._folder_of(proxy)
            if folder is None:
                continue
            part: dict[str, Json] = {
                "case": [case.task, case.group, case.seed, case.what],
                "proxy": proxy.key,
                "options": dict(proxy.options()),
                "candidates": [candidate.name for candidate in case.candidates],
                "values": values.tolist(),
                "reliable": column.reliable,
                "seconds": column.seconds,
            }
            write_json(folder / places[proxy.key], part)
        return columns

    def _folder_of(self, proxy: BaseProxy) -> Path | None:
        """Return where a proxy's scores are kept.

        Nowhere for a proxy that reads whole examples: it may read other files too, which are not
        part of the name that scores are kept under.
        """
        return None if proxy.needs_records else self.folder

    def _known(self, place: Path, folder: Path | None) -> _KeptColumn | None:
        """Return what this run has computed or an earlier one left on disk."""
        if place not in self._computed and folder is not None:
            file = folder / place
            if file.is_file():
                self._computed[place] = _read_column(file)
                self.n_resumed += 1
        return self._computed.get(place)

    def _place(self, case: Case, proxy: BaseProxy) -> Path:
        """Return a file name that is a hash of everything that the scores depend on."""
        reads_real = not never_reads_real(proxy)
        depends = [
            version("synque-select"),
            proxy.key,
            dict(comparable_options(proxy.key, proxy.options(), max(map(len, case.candidates)))),
            self.encoder_key if proxy.needs_embeddings else None,
            self.seed,
            case.real.sha256 if reads_real else None,
            [candidate.sha256 for candidate in case.candidates],
            _records_sha256(case.candidates) if proxy.needs_records else None,
            # nothing for other proxies, whose scores of earlier runs keep their names
            *([labels_key(case.candidates)] if proxy.needs_labels else []),
            *([proxy.version] if proxy.version > 1 else []),
        ]
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        seed = case.seed if reads_real else "any"
        return Path(case.task, case.group, f"{seed}-{proxy.key}-{name}.json")

    def _members(self, columns: Mapping[str, _KeptColumn]) -> tuple[str, ...]:
        """Return the keys of the consensus: none unless the default suite ran with its defaults."""
        options = {proxy.key: proxy.options() for proxy in self.suite}
        keys = default_suite("text")
        if any(options.get(key) != get_proxy(key).options() for key in keys):
            return ()
        return tuple(
            key for key in keys if columns[key].reliable and np.isfinite(columns[key].values).all()
        )


def _records_sha256(candidates: Sequence[Candidate]) -> str:
    """Hash whole examples: the content hash of a candidate covers only its views."""
    examples = [list(candidate) for candidate in candidates]
    return hashlib.sha256(json.dumps(examples, sort_keys=True).encode()).hexdigest()


def never_reads_real(proxy: BaseProxy) -> bool:
    """Return whether a proxy scores candidates without the real sample, as a baseline does."""
    return proxy.family in ("baseline", "diversity")


def _tied(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Replace each value by the mean of its run of near neighbors."""
    order = np.argsort(values)
    opens = np.diff(values[order]) > share * np.ptp(values)
    runs = np.empty(len(values), dtype=np.int64)
    runs[order] = np.concatenate([[0], np.cumsum(opens)])
    return (np.bincount(runs, values) / np.bincount(runs))[runs]


def _read_column(path: Path) -> _KeptColumn:
    state = read_json(path)
    try:
        return _KeptColumn.from_dict(state)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
