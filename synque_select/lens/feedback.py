"""Turns the rubric of a candidate into an instruction for its generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synque_select.errors import ConfigError, RecordError
from synque_select.lens.rubric import Rubric
from synque_select.lens.samples import quote_sample

__all__ = ["Feedback", "feedback_of"]

_REAL, _SYNTHETIC = "the real data", "your data"
_MAX_CHARS = 400


@dataclass(frozen=True)
class Feedback:
    """What the generator of a candidate should change.

    Args:
        candidate: Name of the candidate.
        keep: What its examples have in common with the real ones.
        more: What is typical of the real data and not of the candidate.
        less: What is typical of the candidate and not of the real data.
        least_real: Texts of the candidate that were judged least real, with their realness in
            [0, 1].
        n_images: Number of images among the least real examples, which a text cannot show.
    """

    candidate: str
    keep: tuple[str, ...]
    more: tuple[str, ...]
    less: tuple[str, ...]
    least_real: tuple[tuple[str, float], ...]
    n_images: int = 0

    def instruction(self) -> str:
        """Return the instruction for a generator, as text.

        It contains no real example: the points are a model's words, and the quoted examples are
        the candidate's own, escaped so that nothing in them can be taken for an instruction.
        """
        parts = [
            "You generate synthetic data that is to look like a real data set. A judge compared "
            "samples of your data with samples of the real data.",
            _listed("Make it more like this, as the real data is:", self.more),
            _listed("Make it less like this, as only your data is:", self.less),
            _listed("Keep what both have in common:", self.keep),
        ]
        if self.least_real:
            quoted = [quote_sample(text, _MAX_CHARS).text for text, _ in self.least_real]
            parts.append(_listed("These samples of yours gave themselves away most:", quoted))
        parts.append("Do not copy any of these sentences into the data.")
        return "\n\n".join(part for part in parts if part)

    def to_dict(self) -> dict[str, object]:
        """Return JSON values: {"version": 1, "candidate", "keep", "more", …, "instruction"}."""
        return {
            "version": 1,
            "candidate": self.candidate,
            "keep": list(self.keep),
            "more": list(self.more),
            "less": list(self.less),
            "least_real": [{"text": text, "realness": value} for text, value in self.least_real],
            "instruction": self.instruction(),
        }


def _listed(title: str, points: Sequence[str]) -> str:
    return "\n".join([title, *(f"- {point}" for point in points)]) if points else ""


def feedback_of(candidate: str, details: Mapping[str, Any]) -> Feedback:
    """Build the feedback for a candidate from the details of a LENS ranking.

    Args:
        candidate: Name of the candidate.
        details: The candidate's entry in `Ranking.details["lens"]["candidates"]`.

    Raises:
        ConfigError: The candidate was judged without a rubric.
        RecordError: The entry is damaged.

    Example:
        >>> rubric = {
        ...     "similarities": ["Both are short."],
        ...     "only_real": ["Dataset B names years, dataset A never does."],
        ...     "only_synthetic": ["Dataset B is polite."],
        ... }
        >>> feedback = feedback_of("a", {"rubric": rubric, "least_real": []})
        >>> feedback.more, feedback.less
        (('The real data names years, your data never does.',), ('Your data is polite.',))
    """
    try:
        if details["rubric"] is None:
            raise ConfigError(
                f"{candidate} was judged without a rubric, which feedback is made from"
            )
        rubric = Rubric(
            **{
                field: tuple(map(str, details["rubric"][field]))
                for field in ("similarities", "only_real", "only_synthetic")
            }
        ).with_names(_REAL, _SYNTHETIC)
        samples = [(entry["view"], float(entry["realness"])) for entry in details["least_real"]]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RecordError(f"the LENS details of {candidate} are damaged: {reason}") from error
    texts = tuple((view, value) for view, value in samples if isinstance(view, str))
    return Feedback(
        candidate,
        rubric.similarities,
        rubric.only_real,
        rubric.only_synthetic,
        texts,
        len(samples) - len(texts),
    )
