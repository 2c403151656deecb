"""What the label filter decided, and the examples that it dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json

__all__ = ["DroppedLabel", "LabelFilterRecord"]


@dataclass(frozen=True)
class DroppedLabel:
    """An example that the label filter dropped or relabeled.

    Args:
        position: Position in the candidate, counted from 0.
        label: Its label.
        voted: The class with the most votes of the other candidates.
        contradicted: Share of the votes against its label, in 0..1.
    """

    position: int
    label: str
    voted: str
    contradicted: float


@dataclass(frozen=True)
class LabelFilterRecord:
    """The decision of the label filter.

    Args:
        choice: "auto", or the share of votes against a label from which an example is dropped.
        is_open: Whether the filter was applied.
        sentence: What it did, or why it did nothing.
        accuracy: Mean balanced accuracy of the candidates' heads on each other's labels; NaN with
            fewer than two candidates.
        supported: Share of all labels that most votes support.
        supported_by_class: The same for each class.
        dropped: Candidate name to the number of its examples that were dropped, or relabeled.
        relabel: Whether these examples got the class with the most votes instead of being dropped.
    """

    choice: str | float
    is_open: bool
    sentence: str
    accuracy: float
    supported: float
    supported_by_class: Mapping[str, float]
    dropped: Mapping[str, int]
    relabel: bool = False

    def to_dict(self) -> dict[str, Json]:
        """Return the decision as JSON values, None for undefined."""
        return {
            "choice": self.choice,
            "is_open": self.is_open,
            "sentence": self.sentence,
            "accuracy": null_if_undefined(self.accuracy),
            "supported": null_if_undefined(self.supported),
            "supported_by_class": dict(self.supported_by_class),
            "dropped": dict(self.dropped),
            "relabel": self.relabel,
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> LabelFilterRecord:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        choice = fields.value("choice")
        return cls(
            choice=fields.text("choice") if isinstance(choice, str) else fields.number("choice"),
            is_open=fields.flag("is_open"),
            sentence=fields.text("sentence"),
            accuracy=fields.number("accuracy"),
            supported=fields.number("supported"),
            supported_by_class=fields.numbers("supported_by_class"),
            dropped={name: int(n) for name, n in fields.numbers("dropped").items()},
            relabel=fields.flag("relabel", False),
        )
