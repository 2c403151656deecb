"""Correlation of proxies with validation, within one key and kind, never pooled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from synque_select.functional.correlation import MIN_UNITS, Correlation, correlate_scores
from synque_select.types import RunKind, RunRecord

__all__ = ["KeyCorrelations", "MeanCorrelation", "UnitPoint", "correlate", "mean_correlations"]


@dataclass(frozen=True)
class UnitPoint:
    """A distinct candidate or mixture, its seeds averaged.

    Args:
        unit: Its name.
        scores: Proxy key to mean raw score; NaN where undefined.
        validation: Mean of the monitored metric at the fixed end of the budget.
        n_seeds: How many runs were averaged.
    """

    unit: str
    scores: Mapping[str, float]
    validation: float
    n_seeds: int


@dataclass(frozen=True)
class KeyCorrelations:
    """The correlations within one comparability key and one kind.

    Args:
        key_hash: Hash of the key.
        kind: "probe", "mixture" or "trial".
        key: The key itself.
        monitor: The validation metric.
        mode: "max" or "min".
        points: What was correlated.
        orientation: Proxy key to higher_is_better.
        proxies: Proxy key to its correlation; empty under 5 distinct units.
        messages: What is missing and how to get it, what was left out.
    """

    key_hash: str
    kind: RunKind
    key: Mapping[str, Any]
    monitor: str
    mode: Literal["max", "min"]
    points: tuple[UnitPoint, ...]
    orientation: Mapping[str, bool]
    proxies: Mapping[str, Correlation]
    messages: tuple[str, ...] = ()

    @property
    def n_missing(self) -> int:
        """How many more distinct units a coefficient needs."""
        return max(0, MIN_UNITS - len(self.points))


@dataclass(frozen=True)
class MeanCorrelation:
    """The mean over keys of one proxy's within-key coefficients; the points are never pooled."""

    n_keys: int
    pearson: float
    spearman: float
    kendall: float


def correlate(records: Iterable[RunRecord], *, seed: int = 0) -> list[KeyCorrelations]:
    """Correlate every proxy with validation, within each comparability key and kind.

    Seeds are averaged first; the unit is the distinct candidate or mixture. Trials enter only
    where `details["startup"]` is true, because the others are chosen by the proxies themselves (the
    first ones of a study) or sampled adaptively by an optimiser; runs
    with `details["pruned"]`, and runs whose monitored metric is not finite, never do.

    Args:
        records: Of any keys and kinds, as `RunStore.read` gives them.
        seed: Of random permutations.

    Returns:
        One entry a key and kind, in the order of their first records.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        group = (record.key_hash, record.kind, record.monitor, record.mode)
        groups.setdefault(group, []).append(record)
    return [_correlate_group(group, seed) for group in groups.values()]


def _correlate_group(records: Sequence[RunRecord], seed: int) -> KeyCorrelations:
    first = records[0]
    used = [record for record in records if _exclusion(record) is None]
    points = _points(used)
    orientation, conflicts = _orientation(used)
    proxies = {}
    if len(points) >= MIN_UNITS:
        validation = [point.validation for point in points]
        proxies = {
            key: correlate_scores(
                [point.scores.get(key, math.nan) for point in points],
                validation,
                higher_is_better=higher,
                mode=first.mode,
                seed=seed,
            )
            for key, higher in orientation.items()
        }
    return KeyCorrelations(
        key_hash=first.key_hash,
        kind=first.kind,
        key=first.key,
        monitor=first.monitor,
        mode=first.mode,
        points=points,
        orientation=orientation,
        proxies=proxies,
        messages=(*_left_out(records), *conflicts, *_missing(first.kind, len(points))),
    )


def _exclusion(record: RunRecord) -> str | None:
    """Return why a run may not enter a correlation; None where it may."""
    if record.details.get("pruned"):
        return "pruned"
    if record.kind == "trial" and not record.details.get("startup"):
        return "no random start-up trials, but chosen by proxies or sampled adaptively"
    if not math.isfinite(record.metrics.get(record.monitor, math.nan)):
        return f"without a finite {record.monitor}"
    return None


def _left_out(records: Sequence[RunRecord]) -> list[str]:
    reasons = [reason for record in records if (reason := _exclusion(record))]
    counts = {reason: reasons.count(reason) for reason in reasons}
    return [f"{n} {'run' if n == 1 else 'runs'} left out: {why}" for why, n in counts.items()]


def _points(records: Sequence[RunRecord]) -> tuple[UnitPoint, ...]:
    units: dict[str, list[RunRecord]] = {}
    for record in records:
        units.setdefault(record.unit, []).append(record)
    return tuple(_point(unit, runs) for unit, runs in units.items())


def _point(unit: str, runs: Sequence[RunRecord]) -> UnitPoint:
    keys = dict.fromkeys(key for run in runs for key in run.scores)
    scores = {key: fmean(run.scores.get(key, math.nan) for run in runs) for key in keys}
    return UnitPoint(unit, scores, fmean(run.metrics[run.monitor] for run in runs), len(runs))


def _orientation(records: Sequence[RunRecord]) -> tuple[dict[str, bool], list[str]]:
    found: dict[str, set[bool]] = {}
    for record in records:
        for key in record.scores:
            if key in record.orientation:
                found.setdefault(key, set()).add(record.orientation[key])
    clear = {key: next(iter(ways)) for key, ways in found.items() if len(ways) == 1}
    conflicts = sorted(key for key, ways in found.items() if len(ways) > 1)
    return clear, [f"{key} left out: its records disagree on what is better" for key in conflicts]


def _missing(kind: RunKind, n_units: int) -> list[str]:
    if n_units >= MIN_UNITS:
        return []
    unit, units = {"probe": ("candidate", "candidates")}.get(kind, ("mixture", "mixtures"))
    found = f"{n_units} distinct {unit if n_units == 1 else units}"
    missing = MIN_UNITS - n_units
    return [
        f"No correlation yet: {found} of this kind ({kind}) in this store, and a coefficient "
        f"needs {MIN_UNITS}, so {missing} more {'is' if missing == 1 else 'are'} missing. "
        "To get them, train a short probe on every candidate: `synque-select sweep`, or "
        "ProxyCorrelationCallback(probes=...)."
    ]


def mean_correlations(
    correlations: Iterable[KeyCorrelations],
) -> dict[RunKind, dict[str, MeanCorrelation]]:
    """Return the mean of the within-key coefficients, by kind and proxy.

    Only keys where the coefficient is defined count; there is no entry for a proxy that has none.
    """
    groups: dict[RunKind, dict[str, list[Correlation]]] = {}
    for entry in correlations:
        for key, found in entry.proxies.items():
            if not math.isnan(found.spearman.value):
                groups.setdefault(entry.kind, {}).setdefault(key, []).append(found)
    return {
        kind: {key: _mean(found) for key, found in proxies.items()}
        for kind, proxies in groups.items()
    }


def _mean(found: Sequence[Correlation]) -> MeanCorrelation:
    return MeanCorrelation(
        len(found),
        fmean(one.pearson.value for one in found),
        fmean(one.spearman.value for one in found),
        fmean(one.kendall.value for one in found),
    )
