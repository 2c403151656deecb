"""Labeled real data as a fixed part of the training data: never ranked, never selected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, LightningError
from synque_select.training.fingerprints import Fingerprint
from synque_select.types import Mixture
from synque_select.utils.wording import counted

__all__ = [
    "LabeledRealData",
    "LabeledRealState",
    "check_labeled",
    "check_same_labeled",
    "load_labeled",
    "with_new_names",
]


@dataclass(frozen=True)
class LabeledRealData:
    """Data that takes a fixed share of the draws, beside any mixture.

    Args:
        data: The labeled real examples.
        share: Its share of all draws, above 0 and below 1.
    """

    data: Candidate
    share: float

    def beside(self, mixture: Mixture) -> Mixture:
        """Return the mixture with its weights scaled down, and this data beside it.

        Example:
            >>> labeled = LabeledRealData(Candidate("real", ["x", "y"]), 0.25)
            >>> dict(labeled.beside(Mixture({"a": 0.5, "b": 0.5})).weights)
            {'a': 0.375, 'b': 0.375, 'real': 0.25}
        """
        weights = {name: weight * (1 - self.share) for name, weight in mixture.weights.items()}
        source = f"{mixture.source}, and labeled real data"
        return Mixture({**weights, self.data.name: self.share}, source)


class LabeledRealState(Fingerprint):
    """What a checkpoint stores of labeled real data."""

    name: str
    share: float


def check_labeled(source: object, share: object) -> None:
    """Check that data and share are given together, and that the share is one.

    Raises:
        ConfigError: The message names the argument, the value and what is allowed.
    """
    if (source is None) != (share is None):
        raise ConfigError(
            "labeled_real and real_share belong together: the labeled real data, and the share "
            "of all draws that it takes"
        )
    if share is not None and not (isinstance(share, float) and 0 < share < 1):
        raise ConfigError(f"real_share={share!r}: allowed is a number above 0 and below 1")


def load_labeled(
    source: object, candidates: Sequence[Candidate], view: Selector | None, label: Selector | None
) -> Candidate:
    """Load labeled real data from anything that is one candidate for `load_candidates`.

    Raises:
        ConfigError: It is several datasets, or has the name of a candidate.
        DataError: It cannot be read.
    """
    if isinstance(source, Candidate):
        loaded = [source]
    else:
        has_name = isinstance(source, str | os.PathLike | Mapping)
        given = source if has_name else {"labeled_real": source}
        loaded = load_candidates(given, view=view, label=label)
    if len(loaded) != 1:
        raise ConfigError(f"labeled_real: found {counted(len(loaded), 'dataset')}; allowed is one")
    if loaded[0].name in {candidate.name for candidate in candidates}:
        raise ConfigError(
            f"labeled_real has the name of a candidate, {loaded[0].name!r}: give it another name, "
            "as in {'labeled': …}"
        )
    return loaded[0]


def with_new_names(state: Mapping[str, object]) -> Mapping[str, object]:
    """Return a DataModule's state with the names that labeled real data has since version 0.2.

    Example:
        >>> with_new_names({"labelled_real": {"name": "labelled_real", "share": 0.25}})
        {'labeled_real': {'name': 'labeled_real', 'share': 0.25}}
    """
    if "labelled_real" not in state:
        return state
    labeled = state["labelled_real"]
    if isinstance(labeled, Mapping) and labeled["name"] == "labelled_real":  # the default name
        labeled = {**labeled, "name": "labeled_real"}
    rest = {key: value for key, value in state.items() if key != "labelled_real"}
    return {**rest, "labeled_real": labeled}


def check_same_labeled(then: LabeledRealState | None, now: LabeledRealState | None) -> None:
    """Check that a run resumes with the labeled real data of its checkpoint.

    Args:
        then: The state in the checkpoint; None for no labeled real data.
        now: The state of this run.

    Raises:
        LightningError: Name or share differ.
    """
    before, after = (
        "none" if labeled is None else f"{labeled['name']!r} with real_share={labeled['share']}"
        for labeled in (then, now)
    )
    if before != after:
        raise LightningError(
            f"the checkpoint was trained with labeled real data {before}, this run has {after}: "
            "give labeled_real= and real_share= as they were"
        )
