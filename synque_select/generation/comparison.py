"""A paired comparison of old and new data on held-out real examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, ProxyError
from synque_select.generation.options import ImproveOptions
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import resolve_suite
from synque_select.selection.consensus import consensus_members, may_enter
from synque_select.selection.scorer import Scorer
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import (
    Influences,
    cluster_means,
    influences,
    multinomial_weights,
    score_interval,
    separation,
)
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import listed

__all__ = [
    "Comparison",
    "ProxyComparison",
    "Verdict",
    "check_suite",
    "compare",
    "rehearsal",
]

Verdict = Literal["better", "worse", "no improvement shown"]
_N_RESAMPLES = 2000


@dataclass(frozen=True)
class ProxyComparison:
    """The scores of old and new data by one proxy, on the held-out half.

    Args:
        key: Key of the proxy.
        higher_is_better: Orientation of the scores.
        old: Score of the old data.
        old_low: Lower end of its interval over new real samples, 95 %.
        old_high: Upper end.
        new: Score of the new data.
        new_low: Lower end of its interval.
        new_high: Upper end.
        difference: new − old, from the pairs of contributions of each real example.
        low: Lower end of its paired t-interval, at 1 − error / rounds.
        high: Upper end.
    """

    key: str
    higher_is_better: bool
    old: float
    old_low: float
    old_high: float
    new: float
    new_low: float
    new_high: float
    difference: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, with null for what is undefined."""
        return {
            name: null_if_undefined(value) if isinstance(value, float) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ProxyComparison:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        ends = ("old", "old_low", "old_high", "new", "new_low", "new_high", "difference")
        numbers = [fields.number(name) for name in (*ends, "low", "high")]
        return cls(fields.text("key"), fields.flag("higher_is_better"), *numbers)


@dataclass(frozen=True)
class Comparison:
    """Whether new data is better than old data.

    Args:
        verdict: "better" or "worse" where the paired test of all proxies together says so.
        proxies: The proxies of the test.
        level: Level of the test, and of the intervals of differences.
        n_real: Number of held-out real examples.
        n_groups: Number of independent groups among them.
        size: Number of examples at which both were compared, the smaller of their sizes.
    """

    verdict: Verdict
    proxies: tuple[ProxyComparison, ...]
    level: float
    n_real: int
    n_groups: int
    size: int

    def to_dict(self) -> dict[str, Json]:
        """Return plain values."""
        return {**vars(self), "proxies": [part.to_dict() for part in self.proxies]}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Comparison:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        verdicts: tuple[Verdict, ...] = ("better", "worse", "no improvement shown")
        return cls(
            fields.choice("verdict", verdicts),
            tuple(map(ProxyComparison.from_fields, fields.objects("proxies"))),
            fields.number("level"),
            fields.count("n_real"),
            fields.count("n_groups"),
            fields.count("size"),
        )


def check_suite(options: ImproveOptions) -> tuple[BaseProxy, ...]:
    """Return the proxies that compare, checked before anything is paid for.

    Raises:
        ConfigError: A proxy is unknown, asks a language model, or does not compare with the real
            sample.
        ProxyError: A proxy cannot score texts.
    """
    suite = resolve_suite(options.proxies, "text")
    asking = [proxy.key for proxy in suite if proxy.family == "lens"]
    if asking:
        raise ConfigError(
            f"proxies={asking}: LENS would show the held-out half to a language model, but no "
            "model may see the half that decides"
        )
    others = [proxy.key for proxy in suite if not may_enter(proxy)]
    if others:
        raise ConfigError(
            f"proxies={others}: they are in no consensus, as they do not compare inputs with the "
            "real sample; use proxies such as pad, mmd, coverage and ngram"
        )
    return suite


def compare(
    old: Candidate, new: Candidate, held_out: RealSample, options: ImproveOptions
) -> Comparison:
    """Compare old and new data on held-out real examples, by a paired test.

    The test is that of a ranking (`synque_select.selection.uncertainty.separation`): for each
    held-out example, the difference of its contributions to the two scores, in units of its
    standard error, summed over the proxies, one of each family. Its level is 1 − error / rounds:
    the loop ends at the first batch that is not better, so that the sequence of data that it tests
    depends on the held-out half by its length only, and at most `rounds` tests are made of it.

    Args:
        old: The data without the batch.
        new: The data with it, or the batch alone.
        held_out: Real examples that no model that writes has seen.
        options: Proxies, encoder, error and rounds.

    Raises:
        ProxyError: No proxy can compare them on this input; the message says why.
    """
    scorer = Scorer(
        options.proxies,
        encoder=options.encoder,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        progress=options.progress,
        keep_models=True,
    )
    scoring = scorer.score([old, new], held_out)
    members = _members(scoring)
    level = 1 - options.error / options.rounds
    parts = {key: _influences(scoring, key) for key in members}
    separated = separation(
        list(parts.values()),
        n_resamples=_N_RESAMPLES,
        seed=scoring.seed,
        level=level,
        groups=scoring.groups,
    )
    verdict: Verdict = "no improvement shown"
    if bool(separated.better[1, 0]):
        verdict = "better"
    elif bool(separated.better[0, 1]):
        verdict = "worse"
    groups = scoring.groups
    return Comparison(
        verdict,
        tuple(_compared(scoring, key, parts[key], level) for key in members),
        level,
        len(held_out),
        len(held_out) if groups is None else int(groups.max()) + 1,
        min(len(old), len(new)),
    )


def _members(scoring: Scoring) -> tuple[str, ...]:
    """Return the proxies of the test: one per family, reliable, with contributions."""
    if len(scoring.candidates) < 2:
        reasons = [f"{part.candidate.name}: {part.reason}" for part in scoring.degenerate]
        raise ProxyError(f"old and new data cannot be compared: {listed(reasons)}")
    members, left_out = consensus_members(scoring.suite, scoring.scores)
    silent = [key for key in members if scoring.scores[key].resample is None]
    if silent or not members:
        why = left_out or [f"{listed(silent)} cannot be scored again for redrawn real examples"]
        raise ProxyError(f"old and new data cannot be compared: {' '.join(why)}")
    return members


def _influences(scoring: Scoring, key: str) -> Influences:
    up = {proxy.key: proxy.higher_is_better for proxy in scoring.suite}
    n = len(scoring.real)
    return influences(scoring.scores[key], n, higher_is_better=up[key])


def _compared(scoring: Scoring, key: str, part: Influences, level: float) -> ProxyComparison:
    scores, groups = scoring.scores[key], scoring.groups
    up = next(proxy.higher_is_better for proxy in scoring.suite if proxy.key == key)
    weights = multinomial_weights(len(scoring.real), _N_RESAMPLES, scoring.seed, groups)
    assert scores.resample is not None  # `_members` has checked it
    low, high = score_interval(scores, weights, scores.resample(weights), groups)
    difference, half = _paired(part, groups, level)
    sign = -1.0 if up else 1.0  # influences are lower is better
    old, new = scores.values.tolist()
    return ProxyComparison(
        key, up,
        old, float(low[0]), float(high[0]),
        new, float(low[1]), float(high[1]),
        sign * difference, sign * difference - half, sign * difference + half,
    )  # fmt: skip


def _paired(
    part: Influences, groups: NDArray[np.int64] | None, level: float
) -> tuple[float, float]:
    """Return the mean difference new − old of the influences, and half its t-interval."""
    each = cluster_means(part.each, groups)
    differences = (each[:, 1] - each[:, 0]).to(torch.float64)
    n = len(differences)
    variance = float(differences.var() / n) + float(part.own_variance.sum())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * variance**0.5
    return float(differences.mean()), half


def rehearsal(old: Candidate, held_out: RealSample, options: ImproveOptions) -> None:
    """Compare the data with a half of it, to meet every error before anything is paid for.

    Args:
        old: The data.
        held_out: The held-out half.
        options: As for `compare`.

    Raises:
        ProxyError: No proxy can compare on this input.
    """
    half = range(len(old) // 2)
    if len(old) - len(half) >= 2:
        part = replace(old.without(half), name=f"{old.name} (half)")
        compare(old, part, held_out, options)
