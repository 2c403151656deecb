"""LENS: how real a candidate looks to a language model, corrected for the model's bias.

Judgments are tensors (n, 2, 2) with values 0..4. The dimensions are: the example that was
judged; the place of the synthetic set in the prompt (dataset A, dataset B); the question (is the
example real, is it synthetic). Values are the five labels or expectations over them.
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

# the constant in the denominators of the authors' code
_RELEASED_EPS = 1e-6
# float64 entries of a block of resamples: 64 MB
_MAX_CELLS = 2**23


def label_value(label: str) -> int:
    """Return the numeric value of a label, 0 to 4.

    Args:
        label: One of `LABELS`.

    Raises:
        ConfigError: `label` is not one of the five.

    Example:
        >>> label_value("very unlikely"), label_value("likely")
        (0, 3)
    """
    if label not in LABELS:
        raise ConfigError(f"judgment {label!r}: allowed are {', '.join(LABELS)}")
    return LABELS.index(label)


def lens_raw(synthetic: torch.Tensor, *, protocol: LensProtocol = "default") -> float:
    """LENS without debiasing: mean over examples and places of h_real / (h_real + h_synth).

    Args:
        synthetic: (N, 2, 2) judgments of the candidate's examples, values 0..4.
        protocol: How 0/0 counts: 0.5 with "default", 0 with "released", as in the authors' code.

    Returns:
        Score in 0..1, higher is better. It also measures the model's own inclination to call
        examples real.

    Raises:
        ConfigError: The judgments have another shape or range, or `protocol` is not allowed.

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
    """LENS: mean debiased probability that the candidate's examples are real.

    h̃ = h / mean over the real sample of h (same question, same place);
    p = h̃_real / (h̃_real + h̃_synth), averaged over both places and all examples.

    Args:
        real: (n, 2, 2) judgments of the real sample with this candidate's rubric, values 0..4.
        synthetic: (N, 2, 2) judgments of the candidate's examples, values 0..4.
        protocol: "default" computes p as h_real·m_synth / (h_real·m_synth + h_synth·m_real), m the
            real sample's means: the same value without constants; 0/0 counts 0.5. "released" is
            the authors' code: 0/0 counts 0, a mean of 0 becomes 1e-6, and 1e-6 is added to
            denominators.

    Returns:
        Score in 0..1, higher is better; about 0.5 if the examples are judged like real ones.

    Raises:
        ConfigError: The judgments have another shape or range, or `protocol` is not allowed.

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
    """LENS that also counts how likely the real sample is judged synthetic.

    The real sample's judgments are normalized by the candidate's means, as the candidate's are by
    the real sample's; the two scores are averaged, weighted by their numbers of examples.

    Args:
        real: (n, 2, 2) judgments of the real sample with this candidate's rubric, values 0..4.
        synthetic: (N, 2, 2) judgments of the candidate's examples, values 0..4.
        protocol: As for `lens_debiased`; with "released", a candidate's mean of 0 becomes 1.

    Returns:
        Score in 0..1, higher is better.

    Raises:
        ConfigError: The judgments have another shape or range, or `protocol` is not allowed.

    Source:
        The code released with SynQuE, arXiv 2511.03928.

    Example:
        >>> real = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[4.0, 1.0], [3.0, 2.0]]])
        >>> lens_balanced(real, real[:1])
        0.5
    """
    _check_both(real, synthetic, protocol)
    real, synthetic = real.double(), synthetic.double()
    synthetic_sum = _shares(synthetic, real.mean(dim=0), protocol).sum()
    real_sum = _real_shares(real, synthetic, protocol).sum()
    # each example has two shares, one per place
    return float((synthetic_sum + real_sum) / (2 * (len(real) + len(synthetic))))


def lens_example_scores(
    real: torch.Tensor | None, synthetic: torch.Tensor, *, protocol: LensProtocol = "default"
) -> torch.Tensor:
    """Return the probability that each of a candidate's examples is real.

    Args:
        real: (n, 2, 2) judgments of the real sample, used to debias; None for raw probabilities.
        synthetic: (N, 2, 2) judgments of the candidate's examples, values 0..4.
        protocol: As for `lens_debiased`.

    Returns:
        (N,) float64 in 0..1; their mean is `lens_debiased`, or `lens_raw` without `real`.

    Raises:
        ConfigError: The judgments have another shape or range, or `protocol` is not allowed.

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
    """LENS under bootstrap weights of the real examples, for intervals.

    LENS depends on the real sample only through mean judgments, so a resample is a weighting of
    these means and nothing is judged again. If only part of the candidate was judged, that part is
    redrawn as well, with the finite-population correction of `subsample_weights`. The rubric is
    held fixed: the interval does not contain that another real sample gives another rubric.

    Args:
        real: (n, 2, 2) judgments of the real sample, values 0..4.
        synthetic: (N, 2, 2) judgments of the candidate's examples that were judged.
        weights: (B, n) float64; each row sums to 1.
        kind: Which of the three scores to compute.
        protocol: As for `lens_debiased`.
        n_candidate: Size of the candidate; None if all of it was judged.
        seed: Random seed for redrawing the judged part.

    Returns:
        (B,) float64 scores in 0..1, higher is better.

    Raises:
        ConfigError: The judgments or weights have another shape or range, or `kind` or
            `protocol` is not allowed.

    Example:
        >>> real = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[2.0, 1.0], [3.0, 4.0]]])
        >>> equal = torch.full((1, 2), 0.5, dtype=torch.float64)
        >>> resampled = lens_resampled(real, real, equal, kind="balanced")
        >>> abs(float(resampled) - lens_balanced(real, real)) < 1e-12
        True
    """
    _check_both(real, synthetic, protocol)
    if kind not in get_args(LensKind):
        raise ConfigError(f"kind={kind!r}: allowed are {', '.join(get_args(LensKind))}")
    if weights.ndim != 2 or weights.shape[1] != len(real):
        raise ConfigError(
            f"weights have shape {tuple(weights.shape)}: allowed is (B, {len(real)}), "
            "one column per real example"
        )
    real, synthetic, weights = real.double(), synthetic.double(), weights.double()
    candidate_weights = subsample_weights(len(synthetic), n_candidate, len(weights), seed)
    # each resample normalizes all of the candidate's judgments anew, (B, N, 2, 2): in blocks, or
    # a thousand resamples of a large candidate would fill the memory
    step = max(1, _MAX_CELLS // (4 * len(synthetic)))
    blocks = [slice(start, start + step) for start in range(0, len(weights), step)]
    return torch.cat(
        [
            _resampled(real, synthetic, weights[b], candidate_weights[b], kind, protocol)
            for b in blocks
        ]
    )


def _resampled(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    weights: torch.Tensor,
    candidate_weights: torch.Tensor,
    kind: LensKind,
    protocol: LensProtocol,
) -> torch.Tensor:
    # the raw score does not depend on the real sample: its interval has the candidate's part only
    means = None
    if kind != "raw":
        means = torch.einsum("bn,nly->bly", weights, real)[:, None]
    shares = _shares(synthetic[None], means, protocol).mean(dim=-1)
    score = (shares * candidate_weights).sum(dim=1)
    if kind != "balanced":
        return score
    # the candidate's means change with the redrawn part: one normalization per resample
    candidate_means = torch.einsum("bn,nly->bly", candidate_weights, synthetic)[:, None]
    candidate_means = _synthetic_means(candidate_means, protocol)
    # flipped, because a real example is asked for its probability of being synthetic
    real_shares = _shares(real[None].flip(-1), candidate_means.flip(-1), protocol)
    real_score = (real_shares.mean(dim=-1) * weights).sum(dim=1)
    n, m = len(real), len(synthetic)
    return (m * score + n * real_score) / (m + n)


def subsample_weights(
    n_judged: int, n_candidate: int | None, n_resamples: int, seed: int
) -> torch.Tensor:
    """Return bootstrap weights of the judged part of a finite candidate.

    v = 1/m + √(1 − m/N) · (c/m − 1/m) · √(m/(m−1)) with c multinomial counts of m draws. The
    variance of Σ v_j p_j is (1 − m/N) s²/m, that of a mean of m of N drawn without replacement.

    Args:
        n_judged: m, the number of examples judged.
        n_candidate: N, the size of the candidate; None if it is m.
        n_resamples: B, the number of weightings.
        seed: Random seed for the draws.

    Returns:
        (B, m) float64; each row sums to 1. All weights are 1/m if everything was judged.

    Source:
        Rao and Wu 1988, JASA 83, the rescaling bootstrap.

    Example:
        >>> subsample_weights(4, 4, 1, seed=0).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    equal = torch.full((n_resamples, n_judged), 1 / n_judged, dtype=torch.float64)
    # a candidate judged as a whole has no sampling error of its own, and the variance of a single
    # judgment cannot be estimated
    if n_candidate is None or n_candidate <= n_judged or n_judged < 2:
        return equal
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n_judged, (n_resamples, n_judged), generator=generator)
    counts = torch.zeros_like(equal).scatter_add_(1, drawn, torch.ones_like(equal))
    # the plain bootstrap's variance is (m − 1)/m · s²/m and assumes an infinite population: one
    # factor corrects for each
    scale = ((1 - n_judged / n_candidate) * n_judged / (n_judged - 1)) ** 0.5
    weights: torch.Tensor = equal + scale * (counts / n_judged - equal)
    return weights


def _real_shares(
    real: torch.Tensor, synthetic: torch.Tensor, protocol: LensProtocol
) -> torch.Tensor:
    """Probability that each real example is synthetic, at each place."""
    means = _synthetic_means(synthetic.mean(dim=0), protocol)
    return _shares(real.flip(-1), means.flip(-1), protocol)


def _synthetic_means(means: torch.Tensor, protocol: LensProtocol) -> torch.Tensor:
    # the authors' code divides by 1 here and by 1e-6 for the real sample's means
    return torch.where(means == 0, 1.0, means) if protocol == "released" else means


def _shares(
    judgments: torch.Tensor, means: torch.Tensor | None, protocol: LensProtocol
) -> torch.Tensor:
    """Probability of the first entry of the last dimension, at each place."""
    if protocol == "released":
        return _released_shares(judgments, means)
    first, second = judgments.unbind(-1)
    if means is not None:
        # (a/m)/(a/m + b/k) = ak/(ak + bm): no division by a mean that may be 0, and no constant
        # that would change the result
        first, second = first * means[..., 1], second * means[..., 0]
    total = first + second
    # two judgments of 0 say nothing either way: 0.5. The inner `where` avoids 0/0 in the branch
    # that is not taken
    return torch.where(total == 0, 0.5, first / torch.where(total == 0, 1.0, total))


def _released_shares(judgments: torch.Tensor, means: torch.Tensor | None) -> torch.Tensor:
    if means is None:
        total = judgments.sum(-1)
        return torch.where(total == 0, 0.0, judgments[..., 0] / total.clamp_min(1e-300))
    scaled = judgments / torch.where(means == 0, _RELEASED_EPS, means)
    shares: torch.Tensor = scaled[..., 0] / (scaled.sum(-1) + _RELEASED_EPS)
    return shares


def _check_both(real: torch.Tensor, synthetic: torch.Tensor, protocol: LensProtocol) -> None:
    _check("real", real)
    _check("synthetic", synthetic)
    _check_protocol(protocol)


def _check_protocol(protocol: LensProtocol) -> None:
    if protocol not in get_args(LensProtocol):
        raise ConfigError(f"protocol={protocol!r}: allowed are {', '.join(get_args(LensProtocol))}")


def _check(name: str, judgments: torch.Tensor) -> None:
    if judgments.ndim != 3 or judgments.shape[1:] != (2, 2) or len(judgments) == 0:
        raise ConfigError(
            f"{name} has shape {tuple(judgments.shape)}: allowed is (n, 2, 2) with n >= 1 "
            "(example, place of the synthetic set, question)"
        )
    # written so that NaN fails too
    if not bool(((judgments >= 0) & (judgments <= 4)).all()):
        raise ConfigError(f"{name} contains a judgment outside 0..4")
