"""LENS from judgements: how real a candidate looks to a language model, freed of its bias.

Judgements are tensors (n, 2, 2) of values 0..4: one row a sample, then where the synthetic set
was shown (dataset A, dataset B), then what was asked for (real, synthetic). They are labels or
expectations of labels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from synque_select.errors import ConfigError

__all__ = [
    "LABELS",
    "LensKind",
    "LensProtocol",
    "label_value",
    "lens_balanced",
    "lens_debiased",
    "lens_example_scores",
    "lens_raw",
    "lens_resampled",
    "subsample_weights",
]

LABELS = ("very unlikely", "unlikely", "unsure", "likely", "very likely")
LensKind = Literal["raw", "debiased", "balanced"]
LensProtocol = Literal["default", "released"]

_RELEASED_EPS = 1e-6
_MAX_CELLS = 2**23


def label_value(label: str) -> int:
    """Return what a label is worth, 0 to 4.

    Raises:
        ConfigError: It is none of the five.

    Example:
        >>> label_value("very unlikely"), label_value("likely")
        (0, 3)
    """
    if label not in LABELS:
        raise ConfigError(f"judgement {label!r}: allowed is one of {', '.join(LABELS)}")
    return LABELS.index(label)


def lens_raw(synthetic: torch.Tensor, *, protocol: LensProtocol = "default") -> float:
    """Mean over samples and places of h_real / (h_real + h_synth), nothing debiased.

    Args:
        synthetic: (N, 2, 2) judgements of the candidate's samples, values 0..4.
        protocol: "default": 0/0 counts 0.5. "released": it counts 0, as in the authors' code.

    Returns:
        In 0..1, higher is better. Not debiased, it also measures the model's own leaning.

    Raises:
        ConfigError: The judgements are of another shape or range.

    Source:
        SynQuE, arXiv 2511.03928, the ablation without debiasing.

    Example:
        >>> lens_raw(torch.tensor([[[3.0, 1.0], [2.0, 2.0]]]))
        0.625
    """
    _check("synthetic", synthetic)
    _check_protocol(protocol)
    return float(_shares(synthetic.double(), None, protocol).mean())


def lens_debiased(
    real: torch.Tensor, synthetic: torch.Tensor, *, protocol: LensProtocol = "default"
) -> float:
    """LENS: mean over the candidate's samples of the debiased probability to be real.

    h̃ = h / mean over the real sample of h (same question, same place);
    p = h̃_real / (h̃_real + h̃_synth), averaged over both places and all samples.

    Args:
        real: (n, 2, 2) judgements of the real sample with this candidate's rubric, values 0..4.
        synthetic: (N, 2, 2) judgements of the candidate's samples.
        protocol: "default" computes p as h_real·m_synth / (h_real·m_synth + h_synth·m_real), m the
            real sample's means, which is the same and needs no constants; 0/0 counts 0.5.
            "released" is the authors' code: 0/0 counts 0, a mean of 0 becomes 1e-6, and 1e-6 is
            added to denominators.

    Returns:
        In 0..1, higher is better; samples judged as the real ones are give about 0.5.

    Raises:
        ConfigError: The judgements are of another shape or range.

    Source:
        SynQuE, arXiv 2511.03928.

    Example:
        >>> real = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[4.0, 1.0], [3.0, 2.0]]])
        >>> lens_debiased(real, real)
        0.5
    """
    _check_both(real, synthetic, protocol)
    means = real.double().mean(dim=0)
    return float(_shares(synthetic.double(), means, protocol).mean())


def lens_balanced(
    real: torch.Tensor, synthetic: torch.Tensor, *, protocol: LensProtocol = "default"
) -> float:
    """LENS of both sides: the real sample's probability to be synthetic counts too.

    The real side is normalised by the candidate's means, as the synthetic side is by the real
    sample's; the two are averaged with the numbers of samples as weights.

    Args:
        real: (n, 2, 2) judgements of the real sample with this candidate's rubric, values 0..4.
        synthetic: (N, 2, 2) judgements of the candidate's samples.
        protocol: As in `lens_debiased`; in "released", a mean of 0 on the synthetic side becomes 1.

    Returns:
        In 0..1, higher is better.

    Raises:
        ConfigError: The judgements are of another shape or range.

    Source:
        The code released with SynQuE, arXiv 2511.03928.

    Example:
        >>> real = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[4.0, 1.0], [3.0, 2.0]]])
        >>> lens_balanced(real, real[:1])
        0.5
    """
    _check_both(real, synthetic, protocol)
    real, synthetic = real.double(), synthetic.double()
    ours = _shares(synthetic, real.mean(dim=0), protocol).sum()
    theirs = _real_side(real, synthetic, protocol).sum()
    return float((ours + theirs) / (2 * (len(real) + len(synthetic))))


def lens_example_scores(
    real: torch.Tensor | None, synthetic: torch.Tensor, *, protocol: LensProtocol = "default"
) -> torch.Tensor:
    """Return the probability of each of a candidate's samples to be real, (N,) float64.

    Args:
        real: (n, 2, 2) judgements of the real sample, which debias; None for the raw ones.
        synthetic: (N, 2, 2) judgements of the candidate's samples.
        protocol: As in `lens_debiased`.

    Raises:
        ConfigError: The judgements are of another shape or range.

    Example:
        >>> lens_example_scores(None, torch.tensor([[[3.0, 1.0], [4.0, 0.0]]])).tolist()
        [0.875]
    """
    _check("synthetic", synthetic)
    _check_protocol(protocol)
    means = None
    if real is not None:
        _check("real", real)
        means = real.double().mean(dim=0)
    return _shares(synthetic.double(), means, protocol).mean(dim=-1)


def lens_resampled(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    weights: torch.Tensor,
    *,
    kind: LensKind = "debiased",
    protocol: LensProtocol = "default",
    n_candidate: int | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """LENS under weights of the real examples, for intervals.

    LENS depends on the real sample through its mean judgements (and, balanced, through a mean over
    it), so weights of a bootstrap may be put into these means. Where only a part of the candidate
    was judged, that part is redrawn as well, with the finite-population correction of
    `subsample_weights`. The rubric is held fixed: that it would differ for another real sample is
    not in the interval.

    Args:
        real: (n, 2, 2) judgements of the real sample.
        synthetic: (N, 2, 2) judgements of the judged samples of the candidate.
        weights: (B, n) float64, rows sum to 1.
        kind: Which of the three scores.
        protocol: As in `lens_debiased`.
        n_candidate: Size of the candidate; None where all of it was judged.
        seed: Of the redrawn part.

    Returns:
        (B,) float64.

    Raises:
        ConfigError: The judgements or weights are of another shape or range.

    Example:
        >>> real = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[2.0, 1.0], [3.0, 4.0]]])
        >>> equal = torch.full((1, 2), 0.5, dtype=torch.float64)
        >>> found = lens_resampled(real, real, equal, kind="balanced")
        >>> abs(float(found) - lens_balanced(real, real)) < 1e-12
        True
    """
    _check_both(real, synthetic, protocol)
    if kind not in get_args(LensKind):
        raise ConfigError(f"kind={kind!r}: allowed is {', '.join(get_args(LensKind))}")
    if weights.ndim != 2 or weights.shape[1] != len(real):
        raise ConfigError(
            f"weights of shape {tuple(weights.shape)}: allowed is (B, {len(real)}), one a real row"
        )
    real, synthetic, weights = real.double(), synthetic.double(), weights.double()
    parts = subsample_weights(len(synthetic), n_candidate, len(weights), seed)
    step = max(1, _MAX_CELLS // (4 * len(synthetic)))
    blocks = [slice(start, start + step) for start in range(0, len(weights), step)]
    return torch.cat(
        [_resampled(real, synthetic, weights[b], parts[b], kind, protocol) for b in blocks]
    )


def _resampled(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    weights: torch.Tensor,
    parts: torch.Tensor,
    kind: LensKind,
    protocol: LensProtocol,
) -> torch.Tensor:
    means = None
    if kind != "raw":
        means = torch.einsum("bn,nly->bly", weights, real)[:, None]
    shares = _shares(synthetic[None], means, protocol).mean(dim=-1)
    score = (shares * parts).sum(dim=1)
    if kind != "balanced":
        return score
    # the synthetic means move with the redrawn part: one normaliser a resample
    theirs = torch.einsum("bn,nly->bly", parts, synthetic)[:, None]
    flipped = _shares(real[None].flip(-1), _synthetic_means(theirs, protocol).flip(-1), protocol)
    other = (flipped.mean(dim=-1) * weights).sum(dim=1)
    n, m = len(real), len(synthetic)
    return (m * score + n * other) / (m + n)


def subsample_weights(
    n_judged: int, n_candidate: int | None, n_resamples: int, seed: int
) -> torch.Tensor:
    """Weights that redraw the judged part of a finite candidate.

    v = 1/m + √(1 − m/N) · (c/m − 1/m) · √(m/(m−1)) with c multinomial counts of m draws: the
    variance of Σ v_j p_j is (1 − m/N) s²/m, that of a mean of m of N drawn without replacement.

    Args:
        n_judged: m, how many were judged.
        n_candidate: N, how many there are; None for m.
        n_resamples: B.
        seed: Of the draws.

    Returns:
        (B, m) float64; rows sum to 1, all equal to 1/m where everything was judged.

    Source:
        Rao and Wu 1988, the rescaling bootstrap.

    Example:
        >>> subsample_weights(4, 4, 1, seed=0).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    equal = torch.full((n_resamples, n_judged), 1 / n_judged, dtype=torch.float64)
    if n_candidate is None or n_candidate <= n_judged or n_judged < 2:
        return equal
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n_judged, (n_resamples, n_judged), generator=generator)
    counts = torch.zeros_like(equal).scatter_add_(1, drawn, torch.ones_like(equal))
    scale = ((1 - n_judged / n_candidate) * n_judged / (n_judged - 1)) ** 0.5
    weights: torch.Tensor = equal + scale * (counts / n_judged - equal)
    return weights


def _real_side(real: torch.Tensor, synthetic: torch.Tensor, protocol: LensProtocol) -> torch.Tensor:
    means = _synthetic_means(synthetic.mean(dim=0), protocol)
    return _shares(real.flip(-1), means.flip(-1), protocol)


def _synthetic_means(means: torch.Tensor, protocol: LensProtocol) -> torch.Tensor:
    return torch.where(means == 0, 1.0, means) if protocol == "released" else means


def _shares(
    judgements: torch.Tensor, means: torch.Tensor | None, protocol: LensProtocol
) -> torch.Tensor:
    """Probability of what stands first in the last dimension, at each place."""
    if protocol == "released":
        return _released_shares(judgements, means)
    first, second = judgements.unbind(-1)
    if means is not None:
        first, second = first * means[..., 1], second * means[..., 0]
    total = first + second
    return torch.where(total == 0, 0.5, first / torch.where(total == 0, 1.0, total))


def _released_shares(judgements: torch.Tensor, means: torch.Tensor | None) -> torch.Tensor:
    if means is None:
        total = judgements.sum(-1)
        return torch.where(total == 0, 0.0, judgements[..., 0] / total.clamp_min(1e-300))
    scaled = judgements / torch.where(means == 0, _RELEASED_EPS, means)
    shares: torch.Tensor = scaled[..., 0] / (scaled.sum(-1) + _RELEASED_EPS)
    return shares


def _check_both(real: torch.Tensor, synthetic: torch.Tensor, protocol: LensProtocol) -> None:
    _check("real", real)
    _check("synthetic", synthetic)
    _check_protocol(protocol)


def _check_protocol(protocol: LensProtocol) -> None:
    if protocol not in get_args(LensProtocol):
        raise ConfigError(f"protocol={protocol!r}: allowed is {', '.join(get_args(LensProtocol))}")


def _check(name: str, judgements: torch.Tensor) -> None:
    if judgements.ndim != 3 or judgements.shape[1:] != (2, 2) or len(judgements) == 0:
        raise ConfigError(
            f"{name} of shape {tuple(judgements.shape)}: allowed is (n, 2, 2) with n from 1: "
            "sample, place of the synthetic set, what was asked for"
        )
    if not bool(((judgements >= 0) & (judgements <= 4)).all()):
        raise ConfigError(f"{name} holds a judgement outside 0..4")
