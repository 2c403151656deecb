"""Correlation of proxies with validation: within one comparability key and kind, never pooled."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from synque_select.errors import ConfigError, RecordError, did_you_mean
from synque_select.functional.correlation import MIN_UNITS, Correlation, correlate_scores
from synque_select.types import RunKind, RunRecord, is_surrogate, labeled_name
from synque_select.utils.display import BLUE, Shown, drawable, new_axes
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "LABELED_VALIDATION",
    "UNTRAINED",
    "Correlations",
    "KeyCorrelations",
    "MeanCorrelation",
    "UnitPoint",
    "correlate",
    "distinct_units",
    "mean_correlations",
    "read_correlation",
    "reliability_messages",
    "surrogate_reliability",
]

UNTRAINED = "untrained"  # detail of a record: the model was measured as it is
LABELED_VALIDATION = "labeled_validation"  # detail of a record: hash of that validation data

_SURROGATE = "surrogate"  # the name of the score that is the metric on the surrogate
_KINDS: tuple[RunKind, ...] = ("probe", "mixture", "trial")
_MODES: tuple[Literal["max", "min"], ...] = ("max", "min")


@dataclass(frozen=True)
class UnitPoint:
    """A distinct candidate or mixture, averaged over its seeds.

    Args:
        unit: Its name.
        scores: Proxy key to mean raw score; NaN where undefined.
        validation: Mean of the monitored metric at the fixed end of the budget.
        n_seeds: Number of runs averaged.
    """

    unit: str
    scores: Mapping[str, float]
    validation: float
    n_seeds: int

    @classmethod
    def from_fields(cls, fields: JsonFields) -> UnitPoint:
        """Read one point of `correlations.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            unit=fields.text("unit"),
            scores=fields.numbers("scores"),
            validation=fields.number("validation"),
            n_seeds=fields.count("n_seeds"),
        )


@dataclass(frozen=True, repr=False)
class KeyCorrelations(Shown):
    """The correlations within one comparability key and one kind.

    `print` and a notebook show what was trained on, with the proxies' scores and the metric;
    `plot` draws one proxy against the metric.

    Args:
        key_hash: Hash of the key.
        kind: "probe", "mixture" or "trial".
        key: The comparability key.
        monitor: The validation metric.
        mode: "max" or "min".
        points: The units that were correlated.
        orientation: Proxy key to higher_is_better.
        proxies: Proxy key to its correlation; empty for fewer than 5 distinct units.
        messages: What is missing and how to get it, and what was left out.
        untrained: The metric of the model as it is, from the same weights; None if not measured.
    """

    key_hash: str
    kind: RunKind
    key: Mapping[str, Json]
    monitor: str
    mode: Literal["max", "min"]
    points: tuple[UnitPoint, ...]
    orientation: Mapping[str, bool]
    proxies: Mapping[str, Correlation]
    messages: tuple[str, ...] = ()
    untrained: float | None = None

    @property
    def headlines(self) -> tuple[str, ...]:
        """What was correlated, and the coefficient of each proxy."""
        better = "higher" if self.mode == "max" else "lower"
        units = distinct_units(self.kind, len(self.points))
        title = f"Proxies against {self.monitor} over {units}; {better} {self.monitor} is better."
        return (title, *(self._coefficient(key) for key in self.proxies))

    @property
    def notes(self) -> tuple[str, ...]:
        """The model as it is, what is missing, and what was left out."""
        if self.untrained is None:
            return self.messages
        return (f"{self.monitor} of the model as it is: {self.untrained:.4g}.", *self.messages)

    def _coefficient(self, key: str) -> str:
        one = self.proxies[key]
        value, low, high = one.spearman.value, one.spearman.low, one.spearman.high
        if math.isnan(value):
            return f"{key}: {one.message or one.verdict}"
        ends = "" if low is None or high is None or math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        return (
            f"{key}: Spearman {value:+.2f}{ends} over {counted(one.n, 'unit')}, "
            f"p {one.spearman.p:.2g}: {one.verdict}"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate or mixture, whose name is the index.

        The columns are the proxies' scores under their keys, the metric under its name, and
        `n_seeds`, the number of training seeds that the metric is the mean of.
        """
        import pandas as pd

        rows = [
            {**point.scores, self.monitor: point.validation, "n_seeds": point.n_seeds}
            for point in self.points
        ]
        return pd.DataFrame(rows, index=pd.Index([p.unit for p in self.points], name="unit"))

    def plot(self, proxy: str, *, ax: Axes | None = None) -> Axes:
        """Draw a proxy's scores against the metric, one dot per candidate or mixture.

        Args:
            proxy: Key of the proxy.
            ax: Axes of matplotlib to draw on; None for new ones.

        Returns:
            The axes. An axis on which lower is better is inverted: up and to the right is better.

        Raises:
            ConfigError: The proxy has no scores here.
            DependencyError: matplotlib is not installed.
        """
        if proxy not in self.orientation:
            raise ConfigError(f"unknown proxy {proxy!r}: {did_you_mean(proxy, self.orientation)}")
        ax = new_axes(ax)
        for point in self.points:
            place = (point.scores.get(proxy, math.nan), point.validation)
            ax.plot(*place, "o", color=BLUE)
            if math.isfinite(place[0]):
                ax.annotate(
                    drawable(point.unit), place, xytext=(6, 3), textcoords="offset points",
                    fontsize=8, parse_math=False,
                )  # fmt: skip
        if not self.orientation[proxy]:
            ax.invert_xaxis()
        if self.mode == "min":
            ax.invert_yaxis()
        higher = "higher is better" if self.orientation[proxy] else "lower is better, axis inverted"
        ax.set_xlabel(f"{drawable(proxy)} ({higher})", parse_math=False)
        ax.set_ylabel(drawable(self.monitor), parse_math=False)
        ax.set_title(self._coefficient(proxy) if proxy in self.proxies else "", parse_math=False)
        return ax

    @property
    def n_missing(self) -> int:
        """How many more distinct units a coefficient needs."""
        return max(0, MIN_UNITS - len(self.points))

    def to_dict(self) -> dict[str, object]:
        """Return the entry of `correlations.json`; NaN is left to the writer."""
        return {
            **vars(self),
            "points": [vars(point) for point in self.points],
            "proxies": {key: proxy.to_dict() for key, proxy in self.proxies.items()},
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> KeyCorrelations:
        """Read one entry of `correlations.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        proxies = fields.named_objects("proxies")
        return cls(
            key_hash=fields.text("key_hash"),
            kind=fields.choice("kind", _KINDS),
            key=fields.object("key").content,
            monitor=fields.text("monitor" if "monitor" in fields else "primary"),  # until 0.1
            mode=fields.choice("mode", _MODES),
            points=tuple(map(UnitPoint.from_fields, fields.objects("points"))),
            orientation=fields.flags("orientation"),
            proxies={key: read_correlation(proxy) for key, proxy in proxies.items()},
            messages=fields.texts("messages"),
            untrained=fields.optional_number("untrained"),
        )


class Correlations(Shown, tuple[KeyCorrelations, ...]):
    """The correlations of a run: a tuple with one entry per comparability key and kind.

    `print` and a notebook show all of them. Each entry has a `plot`.
    """

    @property
    def headlines(self) -> tuple[str, ...]:
        """What each entry says."""
        if not self:
            return ("No correlations: the run trained and validated no candidates",)
        return tuple(text for entry in self for text in entry.headlines)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing from each entry."""
        return tuple(dict.fromkeys(text for entry in self for text in entry.notes))

    def to_frame(self) -> pd.DataFrame:
        """Return the frames of all entries below each other; see `KeyCorrelations.to_frame`.

        With several entries, the columns `kind` and `key`, its hash, come first.
        """
        import pandas as pd

        if len(self) == 1:
            return self[0].to_frame()
        parts = []
        for entry in self:
            part = entry.to_frame()
            part.insert(0, "kind", entry.kind)
            part.insert(1, "key", entry.key_hash)
            parts.append(part)
        return pd.concat(parts) if parts else pd.DataFrame()


@dataclass(frozen=True)
class MeanCorrelation:
    """Mean over keys of one proxy's within-key coefficients; the points are never pooled."""

    n_keys: int
    pearson: float
    spearman: float
    kendall: float


def read_correlation(fields: JsonFields) -> Correlation:
    """Read what `Correlation.to_dict` wrote.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    for name in ("pearson", "spearman", "kendall"):
        fields.numbers(name)
        fields.object(name).number("value")
    fields.integer("n", least=0)
    try:
        return Correlation.from_dict(fields.content)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{fields.path('spearman')} must be a coefficient: {error}") from error


def correlate(records: Iterable[RunRecord], *, seed: int = 0) -> list[KeyCorrelations]:
    """Correlate every proxy with validation, within each comparability key and kind.

    Seeds are averaged first; the unit is the distinct candidate or mixture. Trials count only if
    `details["startup"]` is true: the others were chosen by the proxies themselves (the first of a
    study) or sampled adaptively by an optimizer, and both bias a correlation. Runs with
    `details["pruned"]`, and runs whose monitored metric is not finite, never count. Records with
    `details["untrained"]` are of no mixture at all and enter no correlation: their metric becomes
    the `untrained` of entries with the same validation data, module and initial weights.

    Args:
        records: Records of any keys and kinds, as `RunStore.read` returns them.
        seed: Random seed for the permutations.

    Returns:
        One entry per key and kind, in the order of their first records.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    untrained: dict[str, list[float]] = {}
    for record in records:
        if record.details.get(UNTRAINED):
            figure = record.metrics.get(record.monitor, math.nan)
            untrained.setdefault(_start(record), []).append(figure)
            continue
        group = (record.key_hash, record.kind, record.monitor, record.mode)
        groups.setdefault(group, []).append(record)
    return [_correlate_group(group, untrained, seed) for group in groups.values()]


def _start(record: RunRecord) -> str:
    """Return what a fit has in common with the measurement of its model before training."""
    names = ("task", "validation_sha256", "metric", "model", "initial_weights_sha256")
    return json.dumps([record.key.get(name) for name in names])


def _correlate_group(
    records: Sequence[RunRecord], untrained: Mapping[str, Sequence[float]], seed: int
) -> KeyCorrelations:
    first = records[0]
    measured = untrained.get(_start(first))
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
        messages=(
            *_left_out(records),
            *conflicts,
            *_missing(first.kind, len(points)),
            *([_NO_LABELS] if is_surrogate(first.monitor) else []),
        ),
        untrained=None if measured is None else fmean(measured),
    )


_NO_LABELS = (
    "measured on examples of the candidates, without any labeled real example: agreement with it "
    "says nothing of errors that the candidates share"
)


def surrogate_reliability(records: Iterable[RunRecord], *, seed: int = 0) -> list[KeyCorrelations]:
    """Correlate the surrogate with labeled validation, over runs that were measured on both.

    The rules are those of `correlate`, with the metric on the surrogate validation set as the only
    score, so that + means that the surrogate was right.

    Args:
        records: Records of any keys and kinds.
        seed: Random seed for the permutations.

    Returns:
        One entry per key of the labeled validation and kind; empty if no run was measured on both.
    """
    labeled = [_against_labels(r) for r in records if LABELED_VALIDATION in r.details]
    return correlate([record for record in labeled if record is not None], seed=seed)


def _against_labels(record: RunRecord) -> RunRecord | None:
    """Return the record with the labeled metric monitored, and the surrogate as its score."""
    name = labeled_name(record.monitor)
    if name not in record.metrics and not record.details.get("pruned"):
        return None
    key = {**record.key, "metric": name, "validation_sha256": record.details[LABELED_VALIDATION]}
    scores = {_SURROGATE: record.metrics.get(record.monitor, math.nan)}
    orientation = {_SURROGATE: record.mode == "max"}
    return replace(record, monitor=name, key=key, scores=scores, orientation=orientation)


def reliability_messages(reliability: Iterable[KeyCorrelations]) -> list[str]:
    """Return a sentence on each result of `surrogate_reliability`."""
    return [_reliability(entry) for entry in reliability]


def _reliability(entry: KeyCorrelations) -> str:
    what = f"the surrogate against labeled validation ({entry.monitor})"
    units = distinct_units(entry.kind, len(entry.points))
    one = entry.proxies.get(_SURROGATE)
    if one is None:
        return f"{what}: {units}, too few for a coefficient, which needs {MIN_UNITS}"
    spearman = one.spearman
    if math.isnan(spearman.value):
        return f"{what}: {units}, {one.message}"
    low, high = (math.nan if end is None else end for end in (spearman.low, spearman.high))
    interval = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
    return f"{what}: Spearman {spearman.value:+.2f}{interval} over {units}"


def _exclusion(record: RunRecord) -> str | None:
    """Return why a run does not enter a correlation; None if it does."""
    if record.details.get("pruned"):
        return "pruned"
    if record.kind == "trial" and not record.details.get("startup"):
        return "trials chosen by proxies or sampled adaptively, not at random"
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
    """Return the orientation of each proxy, and sentences on those whose records disagree."""
    by_key: dict[str, set[bool]] = {}
    for record in records:
        for key in record.scores:
            if key in record.orientation:
                by_key.setdefault(key, set()).add(record.orientation[key])
    clear = {key: next(iter(values)) for key, values in by_key.items() if len(values) == 1}
    conflicts = sorted(key for key, values in by_key.items() if len(values) > 1)
    return clear, [f"{key} left out: its records disagree on what is better" for key in conflicts]


def _missing(kind: RunKind, n_units: int) -> list[str]:
    if n_units >= MIN_UNITS:
        return []
    missing = MIN_UNITS - n_units
    # a sweep over too few candidates must not be told to run a sweep
    what = "add candidates, or probe" if kind == "probe" else "train a short probe on"
    return [
        f"No correlation yet: the comparable runs of this kind ({kind}) cover "
        f"{distinct_units(kind, n_units)}, and a coefficient needs {MIN_UNITS}, so {missing} more "
        f"{'is' if missing == 1 else 'are'} missing. To get them, {what} "
        "every candidate: `synque-select sweep`, or ProxyCorrelationCallback(probes=...)."
    ]


def distinct_units(kind: RunKind, n: int) -> str:
    """Return a number of units in words: the candidates of probes, the mixtures of other runs.

    Example:
        >>> distinct_units("probe", 3), distinct_units("mixture", 1)
        ('3 distinct candidates', '1 distinct mixture')
    """
    unit = "candidate" if kind == "probe" else "mixture"
    return f"{n} distinct {unit if n == 1 else f'{unit}s'}"


def mean_correlations(
    correlations: Iterable[KeyCorrelations],
) -> dict[RunKind, dict[str, MeanCorrelation]]:
    """Return the mean of the within-key coefficients, by kind and proxy.

    Only keys with a defined coefficient count; a proxy without any has no entry. What was measured
    on a surrogate validation set is not averaged with what was measured on labels: it is left out.
    """
    groups: dict[RunKind, dict[str, list[Correlation]]] = {}
    for entry in correlations:
        if is_surrogate(entry.monitor):
            continue
        for key, correlation in entry.proxies.items():
            if not math.isnan(correlation.spearman.value):
                groups.setdefault(entry.kind, {}).setdefault(key, []).append(correlation)
    return {
        kind: {key: _mean(of_proxy) for key, of_proxy in proxies.items()}
        for kind, proxies in groups.items()
    }


def _mean(correlations: Sequence[Correlation]) -> MeanCorrelation:
    return MeanCorrelation(
        len(correlations),
        fmean(one.pearson.value for one in correlations),
        fmean(one.spearman.value for one in correlations),
        fmean(one.kendall.value for one in correlations),
    )
