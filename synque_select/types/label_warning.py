"""What is said against labels: of one candidate, and of several in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted, percent

__all__ = ["LabelWarning", "shown_worst", "warning_lines"]

_Kind: TypeAlias = Literal["contradicted", "unpredicted", "random", "same", "alone", "chance"]

# candidates that one line names
_MOST_SHOWN = 3


@dataclass(frozen=True)
class _Words:
    """Sentences, in which {0} and {1} are the figures of a warning.

    Args:
        one: About one candidate.
        several: About several; {which} is how many of how many, {shown} the worst of them.
        each: What stands behind the name of each of several.
        sign: 1 if the candidate with the largest first figure is the worst, -1 with the smallest.
    """

    one: str
    several: str
    each: str = " {0}"
    sign: int = -1


_WORDS: Mapping[_Kind, _Words] = {
    "contradicted": _Words(
        "labels may be wrong: the other candidates contradict {0} of them, {1} in the median "
        "candidate.",
        "The labels of {which} may be wrong: the other candidates contradict more of them "
        "({shown}) than in the median candidate ({1}).",
        sign=1,
    ),
    "unpredicted": _Words(
        "labels may be wrong: held out, {0} of them follow from the inputs, {1} in the median "
        "candidate.",
        "The labels of {which} may be wrong: held out, fewer of them follow from the inputs "
        "({shown}) than in the median candidate ({1}).",
    ),
    "random": _Words(
        "labels may be wrong: held out, {0} of them follow from the inputs, and {1} of what the "
        "other candidates' classifiers call them.",
        "The labels of {which} may be wrong: held out, fewer of them follow from the inputs than "
        "of what the other candidates' classifiers call them ({shown}).",
        each=" {0} against {1}",
    ),
    "same": _Words(
        "all labels are {label!r}: nothing to check.",
        "Nothing to check in {which}, which have one class each: {shown}.",
        each="",
    ),
    "alone": _Words(
        "no other candidate has the same classes, so its labels were not compared with others.",
        "The labels of {which} were not compared with others, as no other candidate has the same "
        "classes: {shown}.",
        each="",
    ),
    "chance": _Words(
        "labels hardly follow from the inputs: held-out agreement {0}, chance {1}.",
        "The labels of {which} hardly follow from the inputs: held-out agreement {shown}.",
        each=" {0} (chance {1})",
    ),
}


@dataclass(frozen=True)
class LabelWarning:
    """One warning of the labels of a candidate.

    Args:
        kind: What was found.
        figures: The shares that its sentence names; the first says how bad it is.
    """

    kind: _Kind
    figures: tuple[float, ...] = ()

    def sentence(self, name: str, label: str = "") -> str:
        """Return the sentence about one candidate.

        Args:
            name: Name of the candidate.
            label: Its label, if it has only one.

        Example:
            >>> LabelWarning("chance", (0.52, 0.5)).sentence("a")
            'a: labels hardly follow from the inputs: held-out agreement 52 %, chance 50 %.'
        """
        return f"{name}: {_WORDS[self.kind].one.format(*self.percents, label=label)}"

    @property
    def percents(self) -> list[str]:
        """The figures as sentences write them."""
        return [percent(figure) for figure in self.figures]

    def to_dict(self) -> dict[str, Json]:
        """Return the warning as JSON values."""
        return {"kind": self.kind, "figures": list(self.figures)}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> LabelWarning:
        """Read one warning of `labels.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        kind = fields.choice("kind", get_args(_Kind))
        figures = fields.number_list("figures")
        n_figures = 0 if kind in ("same", "alone") else 2
        fields.expect(len(figures) == n_figures, "figures", f"a list of {n_figures}")
        return cls(kind, figures)


def warning_lines(reasons: Mapping[str, Sequence[LabelWarning]]) -> dict[str, str]:
    """Return one line for each kind of warning that several candidates have.

    Args:
        reasons: Candidate name to its warnings, for all candidates.

    Returns:
        Kind to a line that names the worst candidates, and says how many there are.

    Example:
        >>> chance = {name: [LabelWarning("chance", (share, 0.5))] for name, share in
        ...     {"a": 0.52, "b": 0.48}.items()}
        >>> warning_lines({**chance, "c": []})["chance"]
        'The labels of 2 of 3 candidates hardly follow from the inputs: held-out agreement b 48 % \
(chance 50 %), a 52 % (chance 50 %).'
    """
    lines: dict[str, str] = {}
    for kind, words in _WORDS.items():
        of_kind = {n: w for n, each in reasons.items() for w in each if w.kind == kind}
        if len(of_kind) < 2:
            continue
        names = [*of_kind]
        if all(w.figures for w in of_kind.values()):
            names.sort(key=lambda name: -words.sign * of_kind[name].figures[0])
        shown = [f"{n}{words.each.format(*of_kind[n].percents)}" for n in names]
        lines[kind] = words.several.format(
            *of_kind[names[0]].percents,
            which=_which(len(names), len(reasons)),
            shown=shown_worst(shown),
        )
    return lines


def _which(n: int, n_all: int) -> str:
    if n < n_all:
        return f"{n:,} of {counted(n_all, 'candidate')}"
    return "both candidates" if n == 2 else f"all {counted(n, 'candidate')}"


def shown_worst(shown: Sequence[str]) -> str:
    """Join what is shown of candidates, the worst first; of many, the first and their number.

    Example:
        >>> shown_worst(["a 0.4", "b 0.3", "c 0.2", "d 0.1", "e 0.0"])
        'a 0.4, b 0.3, c 0.2 and 2 more, which are in labels.json (--json)'
    """
    rest = len(shown) - _MOST_SHOWN
    more = f" and {rest} more, which are in labels.json (--json)" if rest > 0 else ""
    return f"{', '.join(shown[:_MOST_SHOWN])}{more}"
