"""Importance weights p_real / p_synthetic of synthetic examples, from a cross-fitted classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synque_select.functional.logistic import (
    LeftOut,
    fit_logistic_regressions,
    inverse_curvature_root,
    inverse_hessian_products,
    leave_groups_out,
)
from synque_select.utils.device import batch_bytes

__all__ = ["ImportanceWeights", "fit_importance_weights", "kish_size"]

# bytes of the rows' weights in a batch of fits
_BATCH_BYTES = 2**25
# a row or group is undone at most tenfold: beyond that the linear approximation has nothing left
# to say
_LEAST_FREE = 0.1


@dataclass(frozen=True)
class ImportanceWeights:
    """Importance weights of N synthetic rows in E pools, each of which leaves out some rows.

    Args:
        weights: (E, N) float64, ω · w: a row's share of its pool before weighting, times its
            clipped ratio p_real / p_synthetic; 0 for rows outside the pool.
        clipped: (E, N) bool, whether the ratio was clipped.
        features: (n + N, d) rows, the n real ones first.
        folds: (n + N,) int64 fold of each row.
        shares: (E, N) float64 share of each row in its pool; rows sum to 1.
        coefficients: (E, F, d + 1) of the classifiers, the intercept last.
        l2: Strength of the penalty in the units of the features.
    """

    weights: torch.Tensor
    clipped: torch.Tensor
    features: torch.Tensor
    folds: torch.Tensor
    shares: torch.Tensor
    coefficients: torch.Tensor
    l2: float = 1.0

    @property
    def n_real(self) -> int:
        """Number of real rows."""
        return len(self.features) - self.shares.shape[1]

    def real_influences(
        self, slopes: torch.Tensor, pools: torch.Tensor, groups: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return how each real example moves scores that are functions of the weights.

        By the chain rule, to first order: the derivative of a score in the weights, of the weights
        in the classifiers, and of the classifiers in the weights of the real examples they were
        trained on, as if each, or each group, were left out (one Newton step, with its leverage).
        Nothing is fitted again.

        Args:
            slopes: (K, N) derivatives of K scores in the logarithms of `weights`, each in one pool.
            pools: (K,) int64 pool of each score.
            groups: (n,) int64 group of each real example, from 0 on; None if they are independent.

        Returns:
            (n, K) float64 with a mean of 0 in each column. Under weights v of the real examples
            that sum to 1, the same within a group, score k changes by Σ_i v_i times its column.

        Source: Giordano et al. 2019 (arXiv 1806.00550), the infinitesimal jackknife; Pregibon 1981
            for leaving one row out; Preisser and Qaqish 1996 for a group.
        """
        left_out = self._left_out(groups)
        # where a ratio is clipped, it does not follow the classifier
        slopes = slopes * ~self.clipped[pools]
        parts = []
        at_once = _at_once(self.features, self.coefficients.shape[1])
        for first in range(0, len(pools), at_once):
            chosen = slice(first, first + at_once)
            parts.append(self._influences(slopes[chosen], pools[chosen], left_out))
        return torch.cat(parts).T.contiguous()

    def _left_out(self, groups: torch.Tensor | None) -> LeftOut:
        """Return what turns residuals of real rows into those without them, in the mean pool."""
        # pools differ by one family, and a Hessian for each of them would take most of the time
        n_folds = self.coefficients.shape[1]
        weights = _training_weights(self.shares, self.folds, self.n_real, n_folds).mean(0)
        mean = self.coefficients.nanmean(0).nan_to_num()
        logits = mean[:, :-1] @ self.features.T + mean[:, -1:]
        device = self.features.device
        alone = torch.arange(self.n_real, device=device) if groups is None else groups.to(device)
        return leave_groups_out(
            self.features, weights, logits, alone, least_free=_LEAST_FREE, l2=self.l2
        )

    def _influences(
        self, slopes: torch.Tensor, pools: torch.Tensor, left_out: LeftOut
    ) -> torch.Tensor:
        """(k, n) of some of the scores."""
        n, n_folds = self.n_real, self.coefficients.shape[1]
        x, real = self.features, self.features[: self.n_real]
        numbers = torch.arange(n_folds, device=x.device)
        held_out = self.folds[n:] == numbers.unsqueeze(1)
        by_fold = (slopes.unsqueeze(1) * held_out).to(x)
        vectors = torch.cat((by_fold @ x[n:], by_fold.sum(2, keepdim=True)), 2)
        coefficients = self.coefficients[pools]
        logits = coefficients[..., :-1] @ x.T + coefficients[..., -1:]
        weights = _training_weights(self.shares[pools], self.folds, n, n_folds).to(x)
        solved = inverse_hessian_products(
            x.unsqueeze(0),
            weights.flatten(0, 1).unsqueeze(0),
            logits.flatten(0, 1).unsqueeze(0),
            vectors.flatten(0, 1).unsqueeze(0),
            l2=self.l2,
        ).view_as(vectors)
        along = (solved[..., :-1] @ real.T + solved[..., -1:]).double()
        chance = torch.sigmoid(logits[..., :n].double())
        # rows that pull the fit towards themselves have small residuals of their own making
        moved = left_out(weights[..., :n].double() * (1 - chance)) * along
        # after a resample the real rows of a training part are scaled to their total again, so
        # that only the deviation from the mean has an effect
        trained = (self.folds[:n] != numbers.unsqueeze(1)).double()
        moved = moved - trained * moved.sum(2, keepdim=True) / trained.sum(1).unsqueeze(1)
        return n * moved.sum(1)


def fit_importance_weights(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    shares: torch.Tensor,
    folds: torch.Tensor,
    *,
    l2: float = 1.0,
) -> ImportanceWeights:
    """Estimate p_real / p_synthetic of synthetic rows by a cross-fitted logistic regression.

    The ratio of a row is exp(logit) of the classifier that was not trained on it. Each real example
    has weight 1 in a fit, and the pool as much in total as the real sample: the amount of
    information is that of the real sample, however many synthetic examples there are, and the
    penalty must not fade with their number. The penalty is fixed: if it is chosen by the held-out
    log loss, it jumps between real samples, which no linear approximation follows (measured
    coverage of nominal 95 %: 0.78 instead of 0.94, n = 60). Ratios are clipped at √N times their
    mean (N rows in the pool): the bias vanishes with N, and the variance is finite whatever the
    tail of the ratio is.

    Args:
        real: (n, d) rows, float32 or float64.
        synthetic: (N, d) rows of the same dtype and device.
        shares: (E, N) float64 share of each row in each of E pools, 0 for rows left out.
        folds: (n + N,) int64 fold of each row, the real ones first; equal rows share a fold. Each
            fold must leave real rows, and rows of each pool, outside.
        l2: Strength of the penalty, 1 / C in scikit-learn's terms, for rows whose root mean square
            norm is 1, as that of normalized embeddings is. Other rows are treated as if they were
            scaled to it: with long rows the penalty would not matter, and the ratios of a few dozen
            real examples would be extreme.

    Source: Sugiyama, Krauledat and Müller 2007, "Covariate shift adaptation by importance weighted
    cross validation"; Bickel, Brückner and Scheffer 2007 (the ratio from a classifier); Ionides
    2008, "Truncated importance sampling" (the bound).

    Example:
        >>> real = torch.tensor([[1.0], [2.0]])
        >>> synthetic = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> folds = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> weights = fit_importance_weights(real, synthetic, torch.full((1, 4), 0.25), folds)
        >>> (weights.weights[0].diff() > 0).tolist()
        [True, True, True]
    """
    n, n_folds = len(real), int(folds.max()) + 1
    shares = shares.double() / shares.double().sum(1, keepdim=True)
    features = torch.cat((real, synthetic))
    # the penalty of the coefficients of x is that of x / s times s²
    l2 = l2 * float(features.double().square().sum(1).mean())
    targets = (torch.arange(len(features), device=real.device) < n).to(features)
    root, coefficients = None, []
    at_once = _at_once(features, n_folds)
    for first in range(0, len(shares), at_once):
        weights = _training_weights(shares[first : first + at_once], folds, n, n_folds)
        flat = weights.to(features).flatten(0, 1).unsqueeze(0)
        if root is None:
            root = inverse_curvature_root(features.unsqueeze(0), flat, l2=l2)
        fits = fit_logistic_regressions(features.unsqueeze(0), targets, flat, l2=l2, root=root)
        coefficients.append(fits.view(-1, n_folds, fits.shape[2]))
    fitted = torch.cat(coefficients)
    ratios = _ratios(synthetic, fitted, folds[n:])
    inside = shares > 0
    bound = (shares * ratios).sum(1, keepdim=True) * inside.sum(1, keepdim=True).sqrt()
    clipped = inside & (ratios > bound)
    return ImportanceWeights(
        weights=shares * torch.minimum(ratios, bound),
        clipped=clipped,
        features=features,
        folds=folds,
        shares=shares,
        coefficients=fitted,
        l2=l2,
    )


def _ratios(rows: torch.Tensor, coefficients: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
    """(E, N) float64 exp(logit) of each row by the classifier that was not trained on it."""
    ratios = coefficients.new_empty(len(coefficients), len(rows), dtype=torch.float64)
    # read once: the host waits for a device to learn how many rows a mask has
    on_host = folds.cpu()
    for fold in range(coefficients.shape[1]):
        held_out = (on_host == fold).nonzero().flatten().to(rows.device)
        logits = coefficients[:, fold, :-1] @ rows[held_out].T + coefficients[:, fold, -1:]
        # a ratio beyond e^50 says the same, and its square must not overflow
        ratios[:, held_out] = logits.double().clamp(-50, 50).exp()
    return ratios


def _at_once(features: torch.Tensor, n_folds: int) -> int:
    """Number of pools whose fits make a batch."""
    n_bytes = 4 * len(features) * n_folds
    if features.is_cuda:
        # some 16 numbers of each row and fold, most of them float64
        return max(1, batch_bytes(features) // (2 * 16 * n_bytes))
    return max(1, _BATCH_BYTES // n_bytes)


def _training_weights(
    shares: torch.Tensor, folds: torch.Tensor, n_real: int, n_folds: int
) -> torch.Tensor:
    """(E, F, n + N) float64: 0 for the fold that is held out, equal totals of the two sides."""
    trained = (folds != torch.arange(n_folds, device=folds.device).unsqueeze(1)).double()
    real = trained[:, :n_real].expand(len(shares), -1, -1)
    pool = trained[:, n_real:] * shares.unsqueeze(1)
    pool = pool * (real.sum(2, keepdim=True) / pool.sum(2, keepdim=True))
    return torch.cat((real, pool), 2)


def kish_size(weights: torch.Tensor) -> torch.Tensor:
    """Return Kish's effective number of rows, (Σ w)² / Σ w², along the last dimension.

    Args:
        weights: (..., N) weights of at least 0.

    Source: Kish 1965, "Survey Sampling".

    Example:
        >>> kish_size(torch.tensor([1.0, 1.0, 0.0]))
        tensor(2.)
    """
    return weights.sum(-1).square() / weights.square().sum(-1)
