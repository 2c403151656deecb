"""What the charts of the page show: scores, arms, proxies against validation, the map, a study."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from synque_select.functional.paired import MIN_PAIRS, PairedComparison
from synque_select.records.correlation import KeyCorrelations, UnitPoint
from synque_select.records.experiment_result import ExperimentResult
from synque_select.report.charts import (
    DotChart,
    DotRow,
    Legend,
    MapChart,
    MapSet,
    PlotChart,
    PlotLine,
    PlotPoint,
    Scale,
    Tick,
    Tone,
)
from synque_select.report.correlation_tables import short_units
from synque_select.report.experiment_tables import arm_words
from synque_select.report.formats import (
    decimals_of,
    figure_decimals,
    format_number,
    format_ranks,
    format_signed,
    format_signed_estimate,
)
from synque_select.report.study_tables import Trial, trials_of
from synque_select.types import RankedCandidate, Ranking, SampleSizeAnalysis
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted

__all__ = [
    "arms_chart",
    "comparison_chart",
    "correlation_charts",
    "cost_chart",
    "map_chart",
    "mixture_chart",
    "order_chart",
    "sample_size_charts",
    "scale_chart",
    "score_charts",
    "stability_chart",
    "study_chart",
    "validation_chart",
]

_MOST_ROWS = 30
_TRACK = 110  # pixels of the narrowest axis of a dot chart
_MOST_NAMED = 200  # points whose names the page holds
_MOST_ON_MAP = 1000
_HIGHER, _LOWER = "higher is better", "lower is better"


def order_chart(ranking: Ranking, most: int = _MOST_ROWS) -> DotChart:
    """Draw what the candidates are ordered by: the mean rank of a consensus, or a proxy's values.

    Args:
        ranking: The ranking.
        most: Maximum number of rows, the best first.
    """
    if ranking.rank_by in ranking.proxies:
        return _score_chart(ranking, ranking.rank_by, most)
    order = ranking.order()
    members = [key for key, info in ranking.proxies.items() if info.in_consensus]
    means = [
        row.ranks[ranking.rank_by] if row.mean_rank is None else row.mean_rank for row in order
    ]
    scale = Scale.over(means[:most], low=1.0)
    rows = [
        _row(ranking, row, place, _at(scale, mean), format_number(mean))
        for row, place, mean in zip(order, _places(ranking), means, strict=True)
    ]
    of = f"the ranks by {', '.join(members)}" if members else "the ranks"
    return DotChart(
        f"Ranking by {ranking.rank_by}",
        f"mean of {of}; {_LOWER}",
        tuple(rows[:most]),
        scale.ticks(_TRACK, whole=True),
        notes=_cut(len(order), most),
    )


def score_charts(ranking: Ranking) -> list[DotChart]:
    """Draw each proxy's values with their intervals, the candidates in the order of the ranking."""
    return [_score_chart(ranking, key, _MOST_ROWS) for key in ranking.proxies]


def scale_chart(ranking: Ranking, most: int = _MOST_ROWS) -> DotChart | None:
    """Draw the first proxy that has the scale of further real examples, and is not what ranks.

    Args:
        ranking: The ranking.
        most: Maximum number of rows, the best first.

    Returns:
        The chart; None without such a proxy.
    """
    for key, info in ranking.proxies.items():
        if info.reference is not None and key != ranking.rank_by:
            return _score_chart(ranking, key, most)
    return None


def _score_chart(ranking: Ranking, key: str, most: int) -> DotChart:
    order, info = ranking.order()[:most], ranking.proxies[key]
    scores = [row.scores[key] for row in order]
    every = [value for s in scores for value in (s.value, s.low, s.high)]
    scale = Scale.over([*every, info.reference])
    decimals = decimals_of(score.value for score in scores)
    rows = [
        _row(
            ranking,
            row,
            place,
            _at(scale, score.value),
            format_number(score.value, decimals),
            span=(_at(scale, score.low), _at(scale, score.high)),
        )
        for row, score, place in zip(order, scores, _places(ranking), strict=False)
    ]
    words = _HIGHER if info.higher_is_better else _LOWER
    if info.reference is not None:
        value = format_number(info.reference, decimals)
        words += f"; dashed: further real examples score about {value}"
    return DotChart(
        key,
        words,
        tuple(rows),
        scale.ticks(_TRACK),
        None if info.reference is None else scale.at(info.reference),
        _cut(len(ranking), most),
    )


def stability_chart(ranking: Ranking, most: int = _MOST_ROWS) -> DotChart | None:
    """Draw the selection stability of each candidate; None if it is not known."""
    rows = [
        (row, place)
        for row, place in zip(ranking.order(), _places(ranking), strict=True)
        if row.selection_stability is not None
    ]
    if not rows:
        return None
    scale = Scale(0.0, 1.0)
    return DotChart(
        f"In the top {ranking.stability_k} by {ranking.rank_by}",
        "share of redrawn real samples; not the chance of being truly best",
        tuple(
            _row(
                ranking,
                row,
                place,
                _at(scale, row.selection_stability),
                format_number(row.selection_stability),
                is_bar=True,
            )
            for row, place in rows[:most]
        ),
        scale.ticks(_TRACK),
        notes=_cut(len(rows), most),
    )


def mixture_chart(ranking: Ranking, most: int = _MOST_ROWS) -> DotChart:
    """Draw the weights of the mixture, the largest first."""
    mixture = ranking.top()
    shares = sorted(((n, 100 * w) for n, w in mixture.weights.items()), key=lambda item: -item[1])
    scale = Scale.over([share for _, share in shares], low=0.0)
    return DotChart(
        "Mixture to train on",
        "% of the training draws",
        tuple(
            DotRow(name, f"{share:.3g} %", scale.at(share), bar=True, tone="on")
            for name, share in shares[:most]
        ),
        scale.ticks(_TRACK),
        notes=_cut(len(shares), most),
    )


def _row(
    ranking: Ranking,
    row: RankedCandidate,
    place: str,
    at: float | None,
    text: str,
    *,
    span: tuple[float | None, float | None] = (None, None),
    is_bar: bool = False,
) -> DotRow:
    tone: Tone = "on" if row.name in ranking.top().weights else "off"
    return DotRow(row.name, text, at, *span, bar=is_bar, tone=tone, place=place)


def _places(ranking: Ranking) -> list[str]:
    return [p.strip() for p in format_ranks([r.ranks[ranking.rank_by] for r in ranking.order()])]


def _at(scale: Scale, value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else scale.at(value)


def _cut(n: int, most: int) -> tuple[str, ...]:
    return (f"the first {most} of {n:,}",) if n > most else ()


def arms_chart(result: ExperimentResult) -> DotChart:
    """Draw the mean of each arm over its replicates, which are drawn too; the best is on top."""
    metric = result.metric
    sign = -1 if metric.mode == "max" else 1
    arms = {name: arm for name, arm in result.arms.items() if not math.isnan(arm.mean)}
    values = [value for arm in arms.values() for value in (arm.mean, *arm.values)]
    scale, decimals = Scale.over(values), figure_decimals(arm.mean for arm in arms.values())
    rows = tuple(
        DotRow(
            arm_words(name),
            format_number(arm.mean, decimals),
            scale.at(arm.mean),
            dots=tuple(scale.at(v) for v in arm.values if math.isfinite(v)) if arm.n > 1 else (),
            tone="on" if name == "chosen" else "off",
            is_hollow=arm.uses_labels,
        )
        for name, arm in sorted(arms.items(), key=lambda item: sign * item[1].mean)
    )
    notes = []
    if any(row.dots for row in rows):
        notes.append("large: the mean; small: the replicates, which are paired between arms")
    if any(arm.uses_labels for arm in arms.values()):
        notes.append("hollow: uses labels of real data")
    better = _HIGHER if metric.mode == "max" else _LOWER
    return DotChart(
        f"{metric.name} of each arm",
        f"{counted(result.replicates, 'replicate')}; {better}",
        rows,
        scale.ticks(_TRACK),
        notes=tuple(notes),
    )


def comparison_chart(result: ExperimentResult) -> DotChart | None:
    """Draw the paired difference of the selected mixture from each other arm, with its interval."""
    pairs = {n: p for n, p in result.chosen_against.items() if math.isfinite(p.difference)}
    if not pairs:
        return None
    ends = [v for p in pairs.values() for v in (p.difference, *_ends(p)) if v is not None]
    scale = Scale.over([0.0, *ends])
    rows = []
    for name, pair in pairs.items():
        low, high = _ends(pair)
        tones: dict[str, Tone] = {"beats": "on", "is beaten by": "warn"}
        rows.append(
            DotRow(
                arm_words(name),
                format_signed(pair.difference, 3),
                scale.at(pair.difference),
                _at(scale, low),
                _at(scale, high),
                tone=tones.get(pair.verdict, "off"),
            )
        )
    better = "right" if result.metric.mode == "max" else "left"
    verdicts = {pair.verdict for pair in pairs.values()}
    legend: tuple[tuple[Tone, str], ...] = (("on", "beats"), ("warn", "is beaten by"))
    notes = []
    if verdicts - {"hint only"}:
        notes.append("95 % interval of each comparison alone")
    if "hint only" in verdicts:
        notes.append(f"without an interval: fewer than {MIN_PAIRS} pairs, a hint only")
    return DotChart(
        "The selected mixture against",
        f"difference of {result.metric.name}, paired; {better} of the line: the selected is better",
        tuple(rows),
        scale.ticks(_TRACK),
        scale.at(0.0),
        tuple(notes),
        (
            *(part for part in legend if part[1] in verdicts),
            *((("off", "no difference shown"),) if "no difference shown" in verdicts else ()),
        ),
    )


def _ends(pair: PairedComparison) -> tuple[float | None, float | None]:
    # of fewer pairs than a verdict needs, the interval is as wide as the metric: it says nothing
    return (None, None) if pair.verdict == "hint only" else (pair.low, pair.high)


def validation_chart(entry: KeyCorrelations, most: int = _MOST_ROWS) -> DotChart:
    """Draw the validation figure of each unit of a comparability key, best first."""
    points = _best_first(entry)
    names = short_units([point.unit for point in points])
    scale = Scale.over([*(point.validation for point in points), entry.untrained])
    decimals = figure_decimals(point.validation for point in points)
    rows = tuple(
        DotRow(
            name,
            format_number(point.validation, decimals),
            _at(scale, point.validation),
            tone="on",
        )
        for name, point in zip(names[:most], points, strict=False)
    )
    notes = _cut(len(points), most)
    if entry.untrained is not None:
        untrained = format_number(entry.untrained, decimals)
        notes = (f"dashed: the model as it is ({untrained})", *notes)
    return DotChart(
        f"{entry.monitor} of each {entry.kind}",
        _HIGHER if entry.mode == "max" else _LOWER,
        rows,
        scale.ticks(_TRACK),
        _at(scale, entry.untrained),
        notes,
    )


def _best_first(entry: KeyCorrelations) -> list[UnitPoint]:
    sign = -1 if entry.mode == "max" else 1
    return sorted(entry.points, key=lambda point: sign * point.validation)


def correlation_charts(entry: KeyCorrelations, *, false: Collection[str] = ()) -> list[PlotChart]:
    """Draw each proxy against validation, with the name of every unit to read on hovering.

    An axis is reversed if lower values are better, so that up and to the right is better.

    Args:
        entry: The units and their correlations.
        false: Names of candidates with false labels, which are drawn in another color.
    """
    points = _best_first(entry)
    units = dict(zip([p.unit for p in points], short_units([p.unit for p in points]), strict=True))
    return [_correlation_chart(entry, key, points, units, false) for key in entry.orientation]


def _correlation_chart(
    entry: KeyCorrelations,
    key: str,
    points: Sequence[UnitPoint],
    units: Mapping[str, str],
    false: Collection[str],
) -> PlotChart:
    higher = entry.orientation[key]
    known = [p for p in points if math.isfinite(p.scores.get(key, math.nan))]
    x = Scale.over((p.scores[key] for p in known), is_reversed=not higher)
    # a page grows downwards
    y = Scale.over((p.validation for p in known), is_reversed=entry.mode == "max")
    decimals = figure_decimals(p.validation for p in points)
    x_decimals = decimals_of(p.scores[key] for p in known)
    is_named = len(known) <= _MOST_NAMED
    notes = () if is_named else (f"names are left out of more than {_MOST_NAMED} points",)
    return PlotChart(
        key,
        _coefficient(entry, key),
        f"{key}{'' if higher else ', lower is better: reversed'}",
        f"{entry.monitor}{'' if entry.mode == 'max' else ', lower is better: reversed'}",
        x.ticks(),
        y.ticks(),
        tuple(
            PlotPoint(
                x.at(p.scores[key]),
                y.at(p.validation),
                units[p.unit] if is_named else "",
                f"{entry.monitor} {format_number(p.validation, decimals)}, {key} "
                f"{format_number(p.scores[key], x_decimals)}"
                if is_named
                else "",
                "warn" if p.unit in false else "on",
            )
            for p in known
        ),
        legend=(("warn", "false labels"),) if any(p.unit in false for p in known) else (),
        notes=notes,
    )


def _coefficient(entry: KeyCorrelations, key: str) -> str:
    measured = entry.proxies.get(key)
    if measured is None or math.isnan(measured.spearman.value):
        return f"{counted(len(entry.points), 'unit')}: no coefficient"
    spearman = measured.spearman
    estimate = format_signed_estimate(spearman.value, spearman.low, spearman.high)
    return f"Spearman {estimate}, n = {measured.n}: {measured.verdict}"


def sample_size_charts(analysis: SampleSizeAnalysis) -> list[PlotChart]:
    """Draw how far disjoint real samples agree, and the error of the gap at the border."""
    sizes = [row.m for row in analysis.measured]
    x = Scale.over([*map(math.log, sizes), *map(math.log, analysis.extrapolated)])
    x_ticks = [Tick(x.at(math.log(n)), f"{n:,}") for n in [*sizes, *analysis.extrapolated]]
    x_ticks = x_ticks[:: max(1, math.ceil(len(x_ticks) / 5))]
    overlap = Scale(0.0, 1.0, is_reversed=True)
    errors = [row.border_error for row in analysis.measured]
    later = (
        [(sizes[-1], errors[-1]), *analysis.extrapolated.items()] if analysis.extrapolated else []
    )
    error = Scale.over(
        [*errors, *analysis.extrapolated.values(), analysis.gap], low=0.0, is_reversed=True
    )

    def line(pairs: Sequence[tuple[int, float]], y: Scale) -> str:
        return " ".join(
            f"{x.at(math.log(n))},{y.at(value)}" for n, value in pairs if math.isfinite(value)
        )

    def level(value: float, y: Scale) -> str:
        return f"0,{y.at(value)} 100,{y.at(value)}"

    def marks(values: Sequence[float], y: Scale) -> tuple[PlotPoint, ...]:
        return tuple(
            PlotPoint(x.at(math.log(n)), y.at(v), counted(n, "real example"), format_number(v, 3))
            for n, v in zip(sizes, values, strict=True)
            if math.isfinite(v)
        )

    overlaps = [row.overlap for row in analysis.measured]
    ahead: Legend = (("warn", "extrapolated as 1/√n"),) if later else ()
    return [
        PlotChart(
            f"Shared by the top {analysis.top_k} of two disjoint real samples",
            "",
            "real examples in each",
            "share",
            tuple(x_ticks),
            overlap.ticks(),
            marks(overlaps, overlap),
            (
                PlotLine(line(list(zip(sizes, overlaps, strict=True)), overlap)),
                PlotLine(level(analysis.chance, overlap), "off", is_dashed=True),
            ),
            legend=(("on", "measured"), ("off", "by chance")),
        ),
        PlotChart(
            "Standard error of the gap at the border",
            "",
            "real examples",
            analysis.unit or "units of what ranks",
            tuple(x_ticks),
            error.ticks(),
            marks(errors, error),
            (
                PlotLine(line(list(zip(sizes, errors, strict=True)), error)),
                *([PlotLine(line(later, error), "warn", is_dashed=True)] if later else []),
                PlotLine(level(max(analysis.gap, 0.0), error), "off", is_dashed=True),
            ),
            legend=(
                ("on", "measured"),
                *ahead,
                ("off", "the gap"),
            ),
        ),
    ]


def map_chart(state: JsonObject, ranking: Ranking | None, *, has_filter: bool = True) -> MapChart:
    """Draw the content of `map.json`.

    Args:
        state: The content.
        ranking: Its selected candidates are marked; None without.
        has_filter: Whether the reader can choose a candidate.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    fields = JsonFields(state)
    points: dict[str, list[tuple[float, float]]] = {}
    for point in fields.objects("points"):
        points.setdefault(point.text("set"), []).append((point.number("x"), point.number("y")))
    real = fields.text("real", "real")
    ordered = [] if ranking is None else [row.name for row in ranking.order() if row.name in points]
    names = list(dict.fromkeys([*ordered, *(name for name in points if name != real)]))
    selected = () if ranking is None else ranking.top().weights
    everything = [xy for of_set in points.values() for xy in of_set]
    x, y = Scale.over(a for a, _ in everything), Scale.over(b for _, b in everything)
    tones: dict[str, Tone] = {n: "on" if n in selected else "off" for n in names}
    sets = [
        MapSet(n, MapChart.dots(points[n], x, y), tones[n])
        # the selected are drawn on top of the others
        for n in sorted(names[:_MOST_ON_MAP], key=lambda n: tones[n] == "on")
    ]
    if real in points:
        sets.append(MapSet(real, MapChart.dots(points[real], x, y), "real"))
    method = fields.text("method", "")
    not_all = any(tone == "off" for tone in tones.values())
    return MapChart(
        "Map of the real sample and the candidates",
        tuple(sets),
        legend=(
            *((("real", real),) if real in points else ()),
            *((("on", "selected"),) if selected else ()),
            *((("off", "not selected" if selected else "candidates"),) if not_all else ()),
        ),
        has_filter=has_filter,
        notes=tuple(filter(None, (method, *_cut(len(names), _MOST_ON_MAP)))),
    )


def study_chart(state: JsonObject) -> PlotChart:
    """Draw the value of each trial of a `study.json`, and the best so far.

    Raises:
        RecordError: A field is missing or of the wrong type.
    """
    fields = JsonFields(state)
    trials, metric = trials_of(fields), fields.text("metric")
    is_max = fields.text("mode") == "max"
    shown = [(trial, *_trial_tone(trial)) for trial in trials if math.isfinite(trial.value)]
    best = [t for t in trials if math.isfinite(t.best_so_far)]
    x = Scale.over([float(trial.number) for trial in trials])
    y = Scale.over(
        [*(trial.value for trial, *_ in shown), *(t.best_so_far for t in best)], is_reversed=True
    )
    decimals = figure_decimals(trial.value for trial, *_ in shown)
    legend: dict[Tone, str] = {tone: words for _, tone, words in shown}
    path: list[str] = []
    for before, trial in zip([None, *best], best, strict=False):
        if before is not None:
            path.append(f"{x.at(trial.number)},{y.at(before.best_so_far)}")
        path.append(f"{x.at(trial.number)},{y.at(trial.best_so_far)}")
    return PlotChart(
        f"{metric} of each trial",
        f"{_HIGHER if is_max else _LOWER}; the line is the best so far",
        "trial",
        metric,
        x.ticks(whole=True),
        y.ticks(),
        tuple(
            PlotPoint(
                x.at(trial.number),
                y.at(trial.value),
                f"trial {trial.number}",
                f"{format_number(trial.value, decimals)}, {words}",
                tone,
            )
            for trial, tone, words in shown
        ),
        (PlotLine(" ".join(path), "real"),) if len(best) > 1 else (),
        legend=tuple(legend.items()),
    )


def _trial_tone(trial: Trial) -> tuple[Tone, str]:
    if trial.state == "pruned":
        return "warn", "pruned, last value reported"
    roles: dict[str, tuple[Tone, str]] = {
        "start": ("start", "from the proxies"),
        "random": ("off", "random start-up"),
        "reused": ("real", "measured before the study"),
    }
    return roles.get(trial.role, ("on", "by the sampler"))


def cost_chart(wall_s: Mapping[str, float]) -> DotChart:
    """Draw the seconds of each stage as bars."""
    total = sum(wall_s.values())
    scale = Scale.over(wall_s.values(), low=0.0)
    rows = tuple(
        DotRow(
            stage,
            f"{seconds:,.1f} s" + (f" ({100 * seconds / total:.0f} %)" if total else ""),
            scale.at(seconds),
            bar=True,
            tone="on",
        )
        for stage, seconds in wall_s.items()
    )
    return DotChart("Wall-clock cost", f"{total:,.1f} seconds in all", rows)
