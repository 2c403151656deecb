"""The weights of a mixture over the steps of a training in which they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synque_select.utils.display import Shown
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["WeightPoint", "WeightTrajectory"]


@dataclass(frozen=True)
class WeightPoint:
    """Weights, and from when on they hold.

    Args:
        step: Number of optimizer steps when they were set.
        draw: The first draw, over all ranks, that they hold for.
        weights: Candidate name to weight; they sum to 1.
    """

    step: int
    draw: int
    weights: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class WeightTrajectory(Shown):
    """The weights from the start of a training on, and what it took to choose them.

    `print` and a notebook show one row per change.

    Args:
        policy: Id of the policy that chose them.
        every_n_steps: Optimizer steps between two questions to the policy.
        budget: Share of the training time that evaluation may take.
        steps: Optimizer steps so far.
        points: The weights at the start, and after each change.
        asked: How often the policy was asked.
        evaluation_s: Seconds in which the policy was asked.
        training_s: All other seconds since training began, with those of validation.

    Example:
        >>> points = (WeightPoint(0, 0, {"a": 1.0}), WeightPoint(8, 72, {"a": 1.0}))
        >>> WeightTrajectory("odm", 8, 0.02, 16, points, 1, 0.1, 10.0).overhead
        0.01
    """

    policy: str
    every_n_steps: int
    budget: float
    steps: int
    points: Sequence[WeightPoint]
    asked: int
    evaluation_s: float
    training_s: float

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates that may be drawn."""
        return tuple(self.points[0].weights)

    @property
    def overhead(self) -> float:
        """Time in which the policy was asked, as a share of all other time of the training."""
        return self.evaluation_s / self.training_s if self.training_s > 0 else 0.0

    @property
    def headlines(self) -> tuple[str, ...]:
        """How often which policy changed the weights."""
        changes = counted(len(self.points) - 1, "change")
        return (
            f"Weights of {counted(len(self.names), 'candidate')} by the policy {self.policy}: "
            f"{changes} in {counted(self.steps, 'step')}.",
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for the start and per change; its optimizer step is the index.

        The columns are `draw` and one per candidate for its weight (`weight of a`).
        """
        import pandas as pd

        rows = [
            {"draw": point.draw, **{f"weight of {n}": w for n, w in point.weights.items()}}
            for point in self.points
        ]
        return pd.DataFrame(rows, index=pd.Index([p.step for p in self.points], name="step"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        points = [
            {"step": point.step, "draw": point.draw, "weights": dict(point.weights)}
            for point in self.points
        ]
        return {**vars(self), "points": points}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> WeightTrajectory:
        """Return what `to_dict` wrote.

        Raises:
            RecordError: A field is missing or has a wrong type; the message names it.
        """
        points = [
            WeightPoint(
                part.integer("step", least=0),
                part.integer("draw", least=0),
                part.numbers("weights"),
            )
            for part in fields.objects("points")
        ]
        names = set(points[0].weights) if points else set()
        same = bool(names) and all(set(point.weights) == names for point in points)
        fields.expect(same, "points", "a list of weights of the same candidates, at least one")
        return cls(
            policy=fields.text("policy"),
            every_n_steps=fields.count("every_n_steps"),
            budget=fields.number("budget"),
            steps=fields.integer("steps", least=0),
            points=tuple(points),
            asked=fields.integer("asked", least=0),
            evaluation_s=fields.number("evaluation_s"),
            training_s=fields.number("training_s"),
        )
