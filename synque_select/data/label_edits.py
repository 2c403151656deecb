"""Candidates without the examples that the label filter dropped, or with other labels for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.data.examples import MapDataset
from synque_select.data.label_sets import class_names, features_of
from synque_select.errors import ConfigError
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json

__all__ = ["LabelEdits"]


@dataclass(frozen=True)
class LabelEdits:
    """Examples that training leaves out, or trains on with another label.

    Args:
        voted: Candidate name to the position of an example to the label that the other candidates
            vote for.
        relabel: Whether the examples get that label; otherwise they are dropped.

    Example:
        >>> a = Candidate("a", [{"text": t, "label": 0} for t in "xyz"], "text", "label")
        >>> list(LabelEdits({"a": {1: "4"}}).apply(a).views)
        ['x', 'z']
        >>> LabelEdits({"a": {1: "4"}}, relabel=True).apply(a).labels
        ('0', '4', '0')
    """

    voted: Mapping[str, Mapping[int, str]]
    relabel: bool = False

    def apply(self, candidate: Candidate, *, of: Candidate | None = None) -> Candidate:
        """Return the candidate as training sees it; itself if nothing is changed.

        Args:
            candidate: The candidate, or what `Candidate.without` and the like made of it.
            of: The candidate whose positions were judged; None for `candidate` itself.

        Raises:
            ConfigError: Labels should be changed, but the label is a function of the example.
        """
        votes = self.voted.get(candidate.name)
        if votes and of is not None:
            places = candidate.positions_in(of).tolist()
            votes = {i: votes[place] for i, place in enumerate(places) if place in votes}
        if not votes:
            return candidate
        check_not_drawn([candidate], "the label filter")
        if not self.relabel:
            return candidate.without(sorted(votes))
        if not isinstance(candidate.label, str | int):
            raise ConfigError(
                f"{candidate.where}: relabel=True needs a label that is a field or a position, "
                f"found {candidate.label!r}"
            )
        examples = _Relabeled(candidate.dataset, candidate.label, votes, _values(candidate))
        return replace(candidate, dataset=examples, view=candidate.selector)

    def to_dict(self) -> dict[str, Json]:
        """Return plain values."""
        voted: dict[str, Json] = {
            name: {str(position): label for position, label in votes.items()}
            for name, votes in self.voted.items()
        }
        return {"voted": voted, "relabel": self.relabel}

    @classmethod
    def from_dict(cls, state: object) -> LabelEdits:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        return cls(
            {
                name: {int(position): votes.text(position) for position in votes}
                for name, votes in fields.named_objects("voted").items()
            },
            fields.flag("relabel"),
        )


def _values(candidate: Candidate) -> dict[str, Any]:
    """Return the candidate's labels as they are in its examples, by their text."""
    names = class_names(candidate.dataset, candidate.label)
    values: dict[str, Any] = {name: number for number, name in enumerate(names)}
    for label, example in zip(candidate.labels, candidate, strict=True):
        values.setdefault(label, example[candidate.label])
    return values


@dataclass(frozen=True, eq=False)
class _Relabeled:
    """A dataset in which some examples have another label, of the type that the others have."""

    dataset: MapDataset
    label: str | int
    votes: Mapping[int, str]
    values: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def features(self) -> object:
        """The types of the fields, if the dataset knows them."""
        return features_of(self.dataset)

    def __getitem__(self, index: int, /) -> object:
        example = self.dataset[index]
        voted = self.votes.get(index)
        if voted is None:
            return example
        value = self.values.get(voted, voted)
        if isinstance(example, Mapping):
            return {**example, self.label: value}
        parts: Sequence[Any] = example
        changed = list(parts)
        changed[int(self.label)] = value
        return type(example)(changed)
