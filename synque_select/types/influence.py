"""What candidates do to a validation loss, to first order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from synque_select.utils.display import Shown
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CandidateInfluence", "GradientKind", "InfluenceResult", "ValidationKind"]

ValidationKind: TypeAlias = Literal["surrogate", "labeled"]
GradientKind: TypeAlias = Literal["lora", "last_layer", "all"]
_VALIDATIONS: tuple[ValidationKind, ...] = get_args(ValidationKind)
_GRADIENTS: tuple[GradientKind, ...] = get_args(GradientKind)


@dataclass(frozen=True)
class CandidateInfluence:
    """The influence of one candidate.

    Args:
        name: Name of the candidate.
        value: Mean inner product of its gradients with those of the validation data; positive if a
            small step on it lowers the validation loss.
        low: Lower end of the 95 % interval; NaN where there are too few units.
        high: Upper end.
        n: Number of its examples whose gradients were taken.
        n_all: Number of all of its examples.
        n_units: Number of independent units of the validation data: examples of labeled data,
            other families of a surrogate.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    n_all: int
    n_units: int

    @property
    def verdict(self) -> str:
        """Whether the interval excludes 0: "lowers the loss", "raises the loss" or "unclear"."""
        if self.low > 0:
            return "lowers the loss"
        return "raises the loss" if self.high < 0 else "unclear"

    def to_dict(self) -> dict[str, Json]:
        """Return plain values; an undefined end is None."""
        ends = {"low": null_if_undefined(self.low), "high": null_if_undefined(self.high)}
        return {**vars(self), **ends}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> CandidateInfluence:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or has another type.
        """
        return cls(
            fields.text("name"),
            fields.number("value"),
            fields.number("low"),
            fields.number("high"),
            fields.count("n"),
            fields.count("n_all"),
            fields.count("n_units"),
        )


@dataclass(frozen=True, repr=False)
class InfluenceResult(Shown):
    """The influence of all candidates, and how it was measured.

    `print` and a notebook show one row per candidate.

    Args:
        candidates: One entry per candidate, in the order of the candidates.
        validation: Whether the validation data is a surrogate or labeled.
        n_validation: Number of validation examples whose gradients were taken.
        gradients: The parameters whose gradients were taken.
        n_parameters: Number of these parameters, before the projection.
        n_dims: Number of dimensions after the projection; `n_parameters` if there was none.
        is_preconditioned: Whether gradients of candidates are scaled as steps of Adam are.
        unit_length: Whether each gradient was scaled to length 1, so that a value is a mean cosine;
            otherwise it is an inner product of gradients whose root mean square length is 1.
        steps: Optimizer step of each checkpoint.
        rates: Mean learning rate up to each checkpoint since the one before it.
        max_steps: Optimizer steps of the fit.
        seed: Random seed of the fit, of the drawn examples and of the projection.
        seconds: Processor time of this process: of the fit, and of the gradients that were not
            kept from an earlier run.
        messages: What a reader of the figures must know.
    """

    candidates: tuple[CandidateInfluence, ...]
    validation: ValidationKind
    n_validation: int
    gradients: GradientKind
    n_parameters: int
    n_dims: int
    is_preconditioned: bool
    unit_length: bool
    steps: tuple[int, ...]
    rates: tuple[float, ...]
    max_steps: int
    seed: int
    seconds: float
    messages: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> CandidateInfluence:
        return {one.name: one for one in self.candidates}[name]

    @property
    def values(self) -> dict[str, float]:
        """Candidate name to its influence."""
        return {one.name: one.value for one in self.candidates}

    def order(self) -> tuple[CandidateInfluence, ...]:
        """Return the candidates, the largest influence first."""
        return tuple(sorted(self.candidates, key=lambda one: -one.value))

    @property
    def headlines(self) -> tuple[str, ...]:
        """How many candidates there are, and for how many the interval excludes 0."""
        verdicts = [one.verdict for one in self.candidates]
        lower, higher = verdicts.count("lowers the loss"), verdicts.count("raises the loss")
        return (
            f"Influence of {counted(len(verdicts), 'candidate')} on the {self.validation} "
            f"validation loss: {lower} would lower it, {higher} would raise it, "
            f"{len(verdicts) - lower - higher} unclear.",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know."""
        return (
            "each 95 % interval is for one candidate alone, and for one fit: it does not say which "
            "of two candidates is better",
            *self.messages,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate, the largest influence first; its name is the index.

        The columns are those of `CandidateInfluence`, and `verdict`.
        """
        import pandas as pd

        rows = [{**vars(one), "verdict": one.verdict} for one in self.order()]
        return pd.DataFrame(rows).set_index("name").rename_axis("candidate")

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `influence.json`."""
        parts = {"candidates": [one.to_dict() for one in self.candidates]}
        lists = {name: list(getattr(self, name)) for name in ("steps", "rates", "messages")}
        return {"version": 1, **vars(self), **parts, **lists}

    @classmethod
    def from_dict(cls, state: Mapping[str, Json]) -> InfluenceResult:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or has another type, or the version is unknown.
        """
        fields = JsonFields(state)
        fields.version(1)
        return cls(
            tuple(map(CandidateInfluence.from_fields, fields.objects("candidates"))),
            fields.choice("validation", _VALIDATIONS),
            fields.count("n_validation"),
            fields.choice("gradients", _GRADIENTS),
            fields.count("n_parameters"),
            fields.count("n_dims"),
            fields.flag("is_preconditioned"),
            fields.flag("unit_length"),
            tuple(map(int, fields.number_list("steps"))),
            fields.number_list("rates"),
            fields.count("max_steps"),
            fields.integer("seed", least=0),
            fields.number("seconds"),
            fields.texts("messages"),
        )
