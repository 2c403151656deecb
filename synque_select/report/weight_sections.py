"""The section of the page on weights that changed while a model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from synque_select.report.blocks import Charts, Fold, Paragraph, Section, TableBlock, limited
from synque_select.report.charts import AreaChart, AreaLayer, Scale, Tick
from synque_select.report.table import Column, Table
from synque_select.types import WeightTrajectory
from synque_select.utils.wording import counted, percent

__all__ = ["weights_chart", "weights_section"]

_MOST_LAYERS = 8
_MOST_POINTS = 200  # of a layer, so that the page stays small
_REST = "all others"


def weights_section(trajectory: WeightTrajectory) -> Section:
    """Return the weights over the steps as a chart, and what it took to choose them."""
    table = weights_table(trajectory)
    return Section(
        "Weights over the steps",
        (
            Charts((weights_chart(trajectory),)),
            Paragraph(_cost(trajectory)),
            Fold(table.title, (TableBlock(limited(table, "weights.json")),)),
        ),
    )


def weights_chart(trajectory: WeightTrajectory) -> AreaChart:
    """Draw the weights as stacked areas over the steps, the candidate with the most at the bottom.

    Example:
        >>> from synque_select.types import WeightPoint
        >>> points = (WeightPoint(0, 0, {"a": 0.4, "b": 0.6}), WeightPoint(5, 48, {"a": 1, "b": 0}))
        >>> chart = weights_chart(WeightTrajectory("odm", 5, 0.02, 10, points, 1, 0.1, 9.0))
        >>> [(layer.name, layer.detail) for layer in chart.layers]
        [('a', '40 % at the start, 100 % at the end'), ('b', '60 % at the start, 0 % at the end')]
    """
    points = trajectory.points
    last = max(trajectory.steps, points[-1].step, 1)
    steps = [point.step for point in points] + [last]
    order = _by_mean(trajectory, steps)
    shares = {name: [point.weights[name] for point in points] for name in order}
    if len(order) > _MOST_LAYERS:
        others = order[_MOST_LAYERS - 1 :]
        rest = [sum(values) for values in zip(*(shares.pop(n) for n in others), strict=True)]
        shares[_REST] = rest
    kept = _thinned(len(points))
    x, y = Scale(0.0, float(last)), Scale(0.0, 1.0, is_reversed=True)
    return AreaChart(
        title=f"Weights by the policy {trajectory.policy}",
        subtitle="share of the draws; each area is a candidate",
        x_label="optimizer step at which the weights were set",
        y_label="weight",
        x_ticks=x.ticks(whole=True),
        y_ticks=tuple(Tick(y.at(share), percent(share)) for share in (0.0, 0.5, 1.0)),
        layers=_layers(shares, [steps[i] for i in kept] + [last], kept, x, y),
        notes=(
            ()
            if len(kept) == len(points)
            else (f"{len(kept)} of {counted(len(points), 'change')} are drawn",)
        ),
    )


def weights_table(trajectory: WeightTrajectory) -> Table:
    """Return the weights after each change, one row per change."""
    names = trajectory.names
    return Table(
        "All weights",
        (Column("step"), Column("draw"), *(Column(name) for name in names)),
        tuple(
            (f"{p.step:,}", f"{p.draw:,}", *(f"{p.weights[name]:.4f}" for name in names))
            for p in trajectory.points
        ),
        (
            "step: when the weights were set; draw: the first draw that they hold for, as batches "
            "are fetched ahead",
        ),
    )


def _layers(
    shares: dict[str, list[float]], steps: Sequence[int], kept: Sequence[int], x: Scale, y: Scale
) -> tuple[AreaLayer, ...]:
    stacked = [list(accumulate(values)) for values in zip(*shares.values(), strict=True)]
    layers = []
    for layer, (name, values) in enumerate(shares.items()):
        upper = [min(1.0, stacked[i][layer]) for i in kept]
        lower = [min(1.0, stacked[i][layer - 1]) if layer else 0.0 for i in kept]
        corners = _stairs(steps, upper) + _stairs(steps, lower)[::-1]
        detail = f"{percent(values[0])} at the start, {percent(values[-1])} at the end"
        path = " ".join(f"{x.at(step)},{y.at(share)}" for step, share in corners)
        layers.append(AreaLayer(name, detail, path))
    return tuple(layers)


def _stairs(steps: Sequence[int], values: Sequence[float]) -> list[tuple[int, float]]:
    """Return the corners of a line that keeps each value until the next step."""
    corners = []
    for (begin, end), value in zip(pairwise(steps), values, strict=True):
        corners += [(begin, value), (end, value)]
    return corners


def _by_mean(trajectory: WeightTrajectory, steps: Sequence[int]) -> list[str]:
    """Return the candidates, the one with the largest mean weight over the steps first."""
    lengths = [end - begin for begin, end in pairwise(steps)]
    means = {
        name: sum(n * p.weights[name] for n, p in zip(lengths, trajectory.points, strict=True))
        for name in trajectory.names
    }
    return sorted(means, key=lambda name: -means[name])


def _thinned(n: int) -> list[int]:
    """Return evenly spaced positions, at most so many as are drawn, with the first and the last."""
    if n <= _MOST_POINTS:
        return list(range(n))
    return sorted({round(i * (n - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)})


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _cost(trajectory: WeightTrajectory) -> str:
    changes = len(trajectory.points) - 1
    return (
        f"The policy {trajectory.policy} was asked {counted(trajectory.asked, 'time')} in "
        f"{counted(trajectory.steps, 'step')} and changed the weights {counted(changes, 'time')}. "
        f"Asking took {_seconds(trajectory.evaluation_s)}, {percent(trajectory.overhead, 1)} of "
        f"the {_seconds(trajectory.training_s)} of all else; the budget is "
        f"{percent(trajectory.budget, 1)}."
        " The page does not say whether it paid: compare with the policy `static` from the same "
        "start."
    )
