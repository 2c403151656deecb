"""Curricula: the order of a candidate's examples by their scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, RealSample, check_not_drawn
from synque_select.data.examples import selected_values
from synque_select.data.views import select
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.proxies.registry import proxy_keys
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.scorer import Scorer
from synque_select.selection.surrogate_loss import (
    check_surrogate_labels,
    surrogate_example_losses,
)
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.validation import check_int, is_number

__all__ = [
    "Curriculum",
    "CurriculumScores",
    "check_curriculum",
    "curriculum_scores",
    "is_by_field",
    "ramp_scores",
    "with_scores",
]

By = str | Callable[[Any], float] | Mapping[str, Sequence[float]]
CurriculumScores = dict[str, NDArray[np.float64]]

_KEY = "curriculum"
_LABELS = "label_consistency"
_LOSS = "surrogate_loss"


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The order in which training draws the examples of each candidate.

    It changes nothing else: the weights hold in every 1,000 draws, and no example comes again
    before its candidate is used up. A ramp from the first to the last in the order takes as many
    draws as training plans, at most one epoch, and is then repeated; each ramp has a random part
    of the examples if a candidate has more than are drawn.

    Args:
        by: What the examples are ordered by:

            - a field of an example, such as "difficulty", or a function of an example;
            - the key of a proxy, such as "pad", "mmd", "coverage" or "ngram": how real the proxy
              finds each example (higher is more real), so that "descending" is near to far;
            - "label_consistency": the share of the other candidates' classifiers that predict the
              example's label, so that "descending" is easy to hard by models trained on the others;
            - "surrogate_loss": the cross-entropy of the example's label under classifiers of the
              other families, so that "ascending" is easy to hard;
            - a mapping from candidate name to one number per example, such as its loss.
        order: "ascending" begins with the lowest score, "descending" with the highest.
        draws: Draws in a ramp, over all candidates and ranks; None for those that training plans,
            at most one epoch.
        encoder: Model id or encoder for a proxy that uses embeddings, and for "surrogate_loss";
            None for the default of the modality.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> Curriculum(by="pad", order="descending").order
        'descending'
    """

    by: By
    order: Literal["ascending", "descending"] = "ascending"
    draws: int | None = None
    encoder: str | BaseEncoder | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.by, str | Mapping) or callable(self.by)) or self.by == "":
            raise ConfigError(
                f"curriculum: by={self.by!r}: allowed are a field, the key of a proxy, a function "
                "of an example, and a mapping from candidate name to scores"
            )
        if self.order not in ("ascending", "descending"):
            raise ConfigError(
                f"curriculum: order={self.order!r}: allowed are 'ascending' and 'descending'"
            )
        if self.draws is not None:
            check_int("draws", self.draws, 1)

    @property
    def description(self) -> str:
        """The order in a few words, such as "pad, descending"."""
        by = self.by if isinstance(self.by, str) else "given scores"
        return f"{by}, {self.order}"

    @property
    def key(self) -> JsonObject:
        """The part of a comparability key that says what order this is."""
        key: dict[str, Json] = {"curriculum": self.description}
        if self.draws is not None:
            key["draws"] = self.draws
        if self.encoder is not None:
            key["encoder"] = self.encoder if isinstance(self.encoder, str) else self.encoder.id
        return key


def check_curriculum(curriculum: Curriculum, candidates: Sequence[Candidate]) -> None:
    """Refuse a curriculum by something unknown, without computing its scores.

    Raises:
        ConfigError: `by` is a text that is neither a field nor a score of examples, or
            "surrogate_loss" for candidates whose labels do not allow it.
    """
    check_not_drawn(candidates, "a curriculum")
    by = curriculum.by
    if not isinstance(by, str) or _is_field(by, candidates):
        return
    if by == _LOSS:
        check_surrogate_labels(candidates)
    elif not _are_scored(by, candidates):
        _check_known(by)


def is_by_field(curriculum: Curriculum, candidates: Sequence[Candidate]) -> bool:
    """Return whether the scores are numbers of the examples themselves."""
    return isinstance(curriculum.by, str) and _is_field(curriculum.by, candidates)


def curriculum_scores(
    curriculum: Curriculum,
    candidates: Sequence[Candidate],
    real: RealSample | None,
    *,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> CurriculumScores:
    """Return the scores of each candidate's examples, (N,), in the order of a curriculum.

    Scores of a proxy that the candidates have (`with_example_scores`) are used; else they are
    computed, with cached embeddings.

    Args:
        curriculum: The curriculum.
        candidates: The candidates.
        real: The real sample, which proxies need; "surrogate_loss" reads none.
        seed: Random seed of the proxies and the classifiers.
        cache_dir: Directory of cached embeddings; None for the default one.
        progress: Whether to show progress that takes more than two seconds.

    Returns:
        Candidate name to scores; the lowest are drawn first.

    Raises:
        ConfigError: `by` is neither a field nor a proxy that scores examples, scores are missing,
            a proxy is named without a real sample, or "surrogate_loss" for candidates whose labels
            are missing or not classes, or that are all of one family.
        DataError: A score is not a finite number.

    Example:
        >>> a = Candidate("a", [{"text": "x", "level": 2}, {"text": "y", "level": 1}], view="text")
        >>> curriculum = Curriculum(by="level", order="descending")
        >>> curriculum_scores(curriculum, [a], None)["a"].tolist()
        [-2.0, -1.0]
    """
    check_not_drawn(candidates, "a curriculum")
    sign = -1.0 if curriculum.order == "descending" else 1.0
    by = curriculum.by
    if isinstance(by, Mapping):
        scores = {part.name: _given(by, part) for part in candidates}
    elif callable(by) or _is_field(by, candidates):
        scores = {part.name: _of_field(by, part) for part in candidates}
    elif by == _LOSS:
        scores = surrogate_example_losses(
            candidates,
            encoder=curriculum.encoder,
            seed=seed,
            cache_dir=cache_dir,
            progress=progress,
        )
    else:
        scorer = Scorer(
            encoder=curriculum.encoder, seed=seed, cache_dir=cache_dir, progress=progress
        )
        scores = _of_proxy(by, candidates, real, scorer)
    return {name: sign * values for name, values in scores.items()}


def with_scores(candidates: Sequence[Candidate], scores: CurriculumScores) -> list[Candidate]:
    """Return the candidates with the scores of a curriculum, which parts of them keep."""
    scored = []
    for candidate in candidates:
        part = copy.copy(candidate)  # with what was computed of it, such as hashes
        own = {**candidate.example_scores, _KEY: scores[candidate.name]}
        object.__setattr__(part, "example_scores", own)
        scored.append(part)
    return scored


def ramp_scores(candidate: Candidate) -> NDArray[np.float64] | None:
    """Return the scores that `with_scores` set; None for another candidate."""
    return candidate.example_scores.get(_KEY)


def _given(by: Mapping[str, Sequence[float]], candidate: Candidate) -> NDArray[np.float64]:
    if candidate.name not in by:
        raise ConfigError(
            f"curriculum: by= has no scores of {candidate.name!r}; it has those of: "
            f"{', '.join(by) or 'none'}"
        )
    values = np.asarray(by[candidate.name], dtype=np.float64)
    if values.shape != (len(candidate),):
        raise ConfigError(
            f"curriculum: by= has scores of shape {values.shape} for {candidate.name!r}: needed is "
            f"one per example, ({len(candidate)},)"
        )
    return _finite(values, candidate)


def _is_field(by: str, candidates: Sequence[Candidate]) -> bool:
    try:
        select(candidates[0][0], by)
    except DataError:
        return False
    return True


def _of_field(by: str | Callable[[Any], float], candidate: Candidate) -> NDArray[np.float64]:
    def read(value: object, _: int) -> float:
        if not is_number(value):  # the caller says where
            raise DataError(f"the score is {value!r}: allowed is a number")
        return float(value)  # type: ignore[arg-type]

    return _finite(np.array(selected_values(candidate, by, "curriculum", read)), candidate)


def _finite(values: NDArray[np.float64], candidate: Candidate) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{candidate.where}, example {bad[0]} (counted from 0): the score for the curriculum "
            f"is {values[bad[0]]}: allowed is a finite number"
        )
    return values


def _are_scored(key: str, candidates: Sequence[Candidate]) -> bool:
    return all(key in candidate.example_scores for candidate in candidates)


def _check_known(key: str) -> None:
    known = (*proxy_keys(), _LABELS, _LOSS)
    if key not in known:
        raise ConfigError(
            f"curriculum: by={key!r} is neither a field of the examples nor the key of a proxy: "
            f"{did_you_mean(key, known)}"
        )


def _of_proxy(
    key: str,
    candidates: Sequence[Candidate],
    real: RealSample | None,
    scorer: Scorer,
) -> CurriculumScores:
    if _are_scored(key, candidates):
        return {c.name: _finite(c.example_scores[key], c) for c in candidates}
    _check_known(key)
    if real is None:
        raise ConfigError(f"curriculum: by={key!r} compares examples with real ones: give real=")
    # labels are judged by classifiers of embeddings, which this proxy has computed
    scorer = replace(scorer, proxies=["pad" if key == _LABELS else key])
    scored = with_example_scores(candidates, scorer.score(candidates, real))
    missing = [part.name for part in scored if key not in part.example_scores]
    if missing:
        raise ConfigError(
            f"curriculum: {key!r} has no scores of single examples of {', '.join(missing)}; "
            "proxies such as pad, mmd, coverage and ngram have"
        )
    return {part.name: _finite(part.example_scores[key], part) for part in scored}
