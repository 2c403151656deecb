"""What a few labels of real examples say about the candidates."""

from __future__ import annotations

from dataclasses import dataclass

from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json

__all__ = ["AnswerEvidence"]


@dataclass(frozen=True)
class AnswerEvidence:
    """Which candidates a few labels of real examples show to be worse.

    Args:
        n: Number of real examples that were labeled.
        worse: The candidates whose classifier is shown to be right less often than the mean of the
            others (simultaneous 95 % over all candidates), without those of `wrong_camp`.
        right_camp: Of two camps of candidates whose labels contradict each other, the candidates
            that the answers support (the wrong camp with a probability of at most 5 %); empty
            without camps, or if nothing is shown.
        wrong_camp: The candidates of the other camp.
        is_open: Whether there are two camps and the answers do not settle which one is right.

    Example:
        >>> AnswerEvidence(12, ("e",), right_camp=("a", "b"), wrong_camp=("c", "d")).left_out
        ('c', 'd', 'e')
    """

    n: int
    worse: tuple[str, ...] = ()
    right_camp: tuple[str, ...] = ()
    wrong_camp: tuple[str, ...] = ()
    is_open: bool = False

    @property
    def left_out(self) -> tuple[str, ...]:
        """The candidates that the answers give a reason to leave out."""
        return (*self.wrong_camp, *self.worse)

    def to_dict(self) -> dict[str, Json]:
        """Return the values as JSON."""
        return {
            "n": self.n,
            "worse": list(self.worse),
            "right_camp": list(self.right_camp),
            "wrong_camp": list(self.wrong_camp),
            "is_open": self.is_open,
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> AnswerEvidence:
        """Read what `to_dict` wrote.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            n=fields.integer("n", least=0),
            worse=fields.texts("worse"),
            right_camp=fields.texts("right_camp"),
            wrong_camp=fields.texts("wrong_camp"),
            is_open=fields.flag("is_open"),
        )
