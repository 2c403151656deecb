"""Labeled real data as a fixed part of what is trained on: never ranked, never chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, LightningError
from synque_select.types import Mixture

__all__ = ["LabeledRealData", "check_labeled", "load_labeled", "same_part", "with_new_names"]


@dataclass(frozen=True)
class LabeledRealData:
    """Data that takes a fixed share of the draws, beside whatever mixture is chosen.

    Args:
        data: The labeled real examples.
        share: Of all draws, between 0 and 1.
    """

    data: Candidate
    share: float

    def beside(self, mixture: Mixture) -> Mixture:
        """Return what is drawn: the mixture with its weights scaled down, and this part.

        Example:
            >>> part = LabeledRealData(Candidate("real", ["x", "y"]), 0.25)
            >>> dict(part.beside(Mixture({"a": 0.5, "b": 0.5})).weights)
            {'a': 0.375, 'b': 0.375, 'real': 0.25}
        """
        weights = {name: weight * (1 - self.share) for name, weight in mixture.weights.items()}
        source = f"{mixture.source}, and labeled real data"
        return Mixture({**weights, self.data.name: self.share}, source)


def check_labeled(source: Any, share: Any) -> None:
    """Refuse one without the other, and a share that is none.

    Raises:
        ConfigError: The message names the argument, what was found and what is allowed.
    """
    if (source is None) != (share is None):
        raise ConfigError(
            "labeled_real and real_share belong together: the labeled real data, and the share "
            "of all draws that it takes"
        )
    if share is not None and not (isinstance(share, float) and 0 < share < 1):
        raise ConfigError(f"real_share={share!r}: allowed is a share above 0 and below 1")


def load_labeled(
    source: Any, candidates: Sequence[Candidate], view: Selector | None, label: Selector | None
) -> Candidate:
    """Load labeled real data from anything that is one candidate for `load_candidates`.

    Raises:
        ConfigError: It is several, or has the name of a candidate.
        DataError: It cannot be read.
    """
    if isinstance(source, Candidate):
        loaded = [source]
    else:
        has_name = isinstance(source, str | os.PathLike | Mapping)
        given = source if has_name else {"labeled_real": source}
        loaded = load_candidates(given, view=view, label=label)
    if len(loaded) != 1:
        raise ConfigError(f"labeled_real: found {len(loaded)} datasets; allowed is one")
    if loaded[0].name in {candidate.name for candidate in candidates}:
        raise ConfigError(
            f"labeled_real has the name of a candidate, {loaded[0].name!r}: give it another, as "
            "in {'labeled': …}"
        )
    return loaded[0]


def with_new_names(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a DataModule's state with the names that the labeled real data has since 0.2.

    Example:
        >>> with_new_names({"labelled_real": {"name": "labelled_real", "share": 0.25}})
        {'labeled_real': {'name': 'labeled_real', 'share': 0.25}}
    """
    if "labelled_real" not in state:
        return state
    part = state["labelled_real"]
    if part is not None and part["name"] == "labelled_real":  # the default name
        part = {**part, "name": "labeled_real"}
    rest = {key: value for key, value in state.items() if key != "labelled_real"}
    return {**rest, "labeled_real": part}


def same_part(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
    """Refuse to go on from a checkpoint that was trained on another fixed part.

    Args:
        then: Name and share in the checkpoint; None for none.
        now: Those of this run.

    Raises:
        LightningError: Name or share differ.
    """
    told = [
        "none" if part is None else f"{part['name']!r} with real_share={part['share']}"
        for part in (then, now)
    ]
    if told[0] != told[1]:
        raise LightningError(
            f"the checkpoint was trained with labeled real data {told[0]}, this run has "
            f"{told[1]}: give labeled_real= and real_share= as they were"
        )
