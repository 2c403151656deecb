"""Scores of the benchmark's cases, each kept on disk as it arrives."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import default_suite, get_proxy
from synque_select.records.run_folder import read_json, write_json
from synque_select.selection.consensus import borda
from synque_select.selection.scoring import score

__all__ = ["CONSENSUS", "Case", "CaseScorer", "CaseScores", "never_reads_real"]

CONSENSUS = "consensus"


@dataclass(frozen=True)
class Case:
    """One ranking that the benchmark makes.

    Args:
        task: The task's name.
        group: The group's name.
        seed: Of the real sample.
        what: "as released", or which ablation this is.
        candidates: Those to be ranked.
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
        seconds: Proxy key to wall time of scoring, encoding left out.
        members: Keys of the consensus; empty where the default suite was not run as a whole.
    """

    values: Mapping[str, NDArray[np.float64]]
    higher_is_better: Mapping[str, bool]
    seconds: Mapping[str, float]
    members: tuple[str, ...]

    def oriented(self, key: str, kept: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return a column so that higher is better, of all candidates or of those that are kept.

        The consensus of some candidates is that of a ranking that holds only them.
        """
        if key == CONSENSUS:
            return -self._consensus(kept)
        values = self.values[key] if kept is None else self.values[key][kept]
        return values if self.higher_is_better[key] else -values

    def with_ties(self, share: float) -> CaseScores:
        """Return the same with values closer than that share of their column's range made equal.

        Two candidates of equal content are told apart by nothing but rounding.
        """
        return replace(self, values={key: _tied(v, share) for key, v in self.values.items()})

    def joined(self, more: CaseScores | None) -> CaseScores:
        """Return the same with the columns of another, if there is one."""
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
        """Keys of all columns, the consensus first where there is one."""
        return (*([CONSENSUS] if self.members else []), *self.values)

    def _consensus(self, kept: NDArray[np.int64] | None) -> NDArray[np.float64]:
        import torch

        columns = {
            key: torch.from_numpy(self.values[key] if kept is None else self.values[key][kept])
            for key in self.members
        }
        return np.asarray(borda(columns, self.higher_is_better))


@dataclass
class CaseScorer:
    """Scores cases with a suite of proxies; what is on disk already is not computed again.

    Args:
        suite: The proxies.
        encoder: Used by those that need embeddings.
        folder: Where scores are kept; None keeps them nowhere.
        cache_dir: Where embeddings are kept.
        seed: Seed of everything random.
        progress: Whether encoding shows its progress.
        for_case: Takes a case and a proxy of the suite, and gives the one to score it with.
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
    _computed: dict[Path, dict[str, Any]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # taken once: loading the model may settle the precision, and the key with it
        self.encoder_key = self.encoder.key

    def scores(self, case: Case) -> CaseScores:
        """Score one case, or read what an earlier run left."""
        suite = [self.for_case(case, proxy) for proxy in self.suite]
        places = {proxy.key: self._place(case, proxy) for proxy in suite}
        found = {
            proxy.key: self._known(places[proxy.key], self._folder_of(proxy)) for proxy in suite
        }
        left = [proxy for proxy in suite if found[proxy.key] is None]
        if left:
            found.update(self._compute(case, left, places))
        columns = {key: part for key, part in found.items() if part is not None}
        return CaseScores(
            {key: _as_array(part["values"]) for key, part in columns.items()},
            {proxy.key: proxy.higher_is_better for proxy in self.suite},
            {key: float(part["seconds"]) for key, part in columns.items()},
            self._members(columns),
        )

    def _compute(
        self, case: Case, proxies: Sequence[BaseProxy], places: Mapping[str, Path]
    ) -> dict[str, dict[str, Any]]:
        scoring = score(
            list(case.candidates),
            case.real,
            encoder=self.encoder,
            proxies=proxies,
            seed=self.seed,
            cache_dir=self.cache_dir,
            progress=self.progress,
        )
        self.n_encoded += scoring.n_encoded
        parts = {}
        for proxy in proxies:
            scores = scoring.scores[proxy.key]
            self.n_judged += scores.details.get("questions", {}).get("asked", 0)
            part = {
                "case": [case.task, case.group, case.seed, case.what],
                "proxy": proxy.key,
                "options": dict(proxy.options()),
                "candidates": [candidate.name for candidate in case.candidates],
                "values": scores.values.tolist(),
                "reliable": scores.reliable,
                "seconds": scoring.seconds[proxy.key],
            }
            parts[proxy.key] = self._computed[places[proxy.key]] = part
            folder = self._folder_of(proxy)
            if folder is not None:
                write_json(folder / places[proxy.key], part)
        return parts

    def _folder_of(self, proxy: BaseProxy) -> Path | None:
        """Where a proxy's scores are kept; one that reads records may read other files too."""
        return None if proxy.needs_records else self.folder

    def _known(self, place: Path, folder: Path | None) -> dict[str, Any] | None:
        """What this run has computed, or an earlier one left on disk."""
        if place not in self._computed and folder is not None:
            file = folder / place
            if file.is_file():
                self._computed[place] = read_json(file)
                self.n_resumed += 1
        return self._computed.get(place)

    def _place(self, case: Case, proxy: BaseProxy) -> Path:
        """Name a file after all that its scores depend on."""
        reads_real = not never_reads_real(proxy)
        depends = [
            version("synque-select"),
            proxy.key,
            dict(proxy.options()),
            self.encoder_key if proxy.needs_embeddings else None,
            self.seed,
            case.real.sha256 if reads_real else None,
            [candidate.sha256 for candidate in case.candidates],
            _records_sha256(case.candidates) if proxy.needs_records else None,
        ]
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        seed = case.seed if reads_real else "any"
        return Path(case.task, case.group, f"{seed}-{proxy.key}-{name}.json")

    def _members(self, columns: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        """Keys of the default suite, where all of it was run with its default options."""
        options = {proxy.key: proxy.options() for proxy in self.suite}
        keys = default_suite("text")
        if any(options.get(key) != get_proxy(key).options() for key in keys):
            return ()
        return tuple(
            key
            for key in keys
            if columns[key]["reliable"] and np.isfinite(_as_array(columns[key]["values"])).all()
        )


def _records_sha256(candidates: Sequence[Candidate]) -> str:
    """Hash whole records, as the content hash of a candidate knows only its views."""
    records = [list(candidate) for candidate in candidates]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def never_reads_real(proxy: BaseProxy) -> bool:
    """Whether a proxy scores a candidate alone: a baseline, or diversity, which is one here."""
    return proxy.family in ("baseline", "diversity")


def _tied(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Replace values by the mean of their run of near neighbours."""
    order = np.argsort(values)
    opens = np.diff(values[order]) > share * np.ptp(values)
    runs = np.empty(len(values), dtype=np.int64)
    runs[order] = np.concatenate([[0], np.cumsum(opens)])
    return (np.bincount(runs, values) / np.bincount(runs))[runs]


def _as_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
