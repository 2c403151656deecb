"""Heads: one linear classifier per candidate, trained on its own labels, all fitted at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.logistic import fit_logistic_regressions, inverse_curvature_root
from synque_select.utils.device import batch_bytes, in_batches

__all__ = [
    "Heads",
    "balanced_accuracy",
    "correct_shares",
    "fit_heads",
    "fit_ridge_heads",
    "stratified_rows",
    "votes_of_others",
    "weighted_r2",
]


@dataclass(frozen=True)
class Heads:
    """Linear heads of K candidates over C classes; a candidate has one head per draw.

    Args:
        coefficients: (H, C, d + 1), one-vs-rest logistic regressions, the intercept last.
        known: (H, C) bool, whether the head's training rows contained the class.
        owners: (H,) int64 position of the candidate that each head was trained on.
        exclusive: Whether an example has exactly one class; False for several labels per example.
    """

    coefficients: torch.Tensor
    known: torch.Tensor
    owners: torch.Tensor
    exclusive: bool = True

    def __len__(self) -> int:
        return len(self.owners)

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Return each head's probability of each class.

        Args:
            features: (n, d) rows, on the device of the heads.

        Returns:
            (H, n, C) in the dtype of the features. If classes are exclusive, they sum to 1 over the
            classes that the head knows. A class that a head does not know has probability 0.

        Example:
            >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([[True, False], [False, True]])
            >>> fit_heads([x], [y]).probabilities(x).argmax(2)
            tensor([[0, 1]])
        """
        coefficients = self.coefficients.to(features)
        # (H, C, n) first: one product with the rows for all heads and classes
        logits = coefficients[..., :-1] @ features.mT + coefficients[..., -1:]
        chances = (torch.sigmoid(logits) * self.known.unsqueeze(2)).mT
        if not self.exclusive:
            return chances
        # a tiny denominator: all sigmoids may underflow far away from every class
        return chances / chances.sum(2, keepdim=True).clamp_min(torch.finfo(chances.dtype).tiny)

    def numbers(self, features: torch.Tensor) -> torch.Tensor:
        """Return the predictions of ridge heads.

        Args:
            features: (n, d) rows, on the device of the heads.

        Returns:
            (H, n) in the dtype of the features.
        """
        coefficients = self.coefficients[:, 0].to(features)
        return coefficients[:, :-1] @ features.T + coefficients[:, -1:]

    def by_candidate(self, predictions: torch.Tensor) -> torch.Tensor:
        """Return the mean over each candidate's heads, (K, ...).

        Args:
            predictions: (H, ...) one per head.
        """
        if self._has_one_each:
            return predictions
        sizes = self._n_heads.to(predictions)
        sums = predictions.new_zeros(len(sizes), *predictions.shape[1:])
        sums = sums.index_add_(0, self.owners, predictions)
        return sums / sizes.view(-1, *[1] * (predictions.dim() - 1))

    @cached_property
    def _n_heads(self) -> torch.Tensor:
        """(K,) number of heads of each candidate."""
        # counted once: the host waits for a device to learn how many candidates there are
        return torch.bincount(self.owners)

    @cached_property
    def _has_one_each(self) -> bool:
        """Whether head k is the only one of candidate k."""
        # a copy of the predictions would be no other; on a GPU, the host would wait for the answer
        owners = self.owners
        return not owners.is_cuda and torch.equal(owners, torch.arange(len(owners)))

    def batches(self, n_rows: int) -> Iterator[Heads]:
        """Yield the heads in groups whose probabilities of n rows fit into about 64 MiB.

        Args:
            n_rows: Number of rows to predict.
        """
        at_once = max(1, 2**24 // (n_rows * self.known.shape[1]))
        for first in range(0, len(self), at_once):
            part = slice(first, first + at_once)
            yield Heads(
                self.coefficients[part], self.known[part], self.owners[part], self.exclusive
            )


def stratified_rows(
    targets: torch.Tensor, size: int, *, seed: int, order: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Draw rows without replacement, each with the same probability, stratified by class.

    Systematic sampling from the rows sorted by class: the number of rows of each class is its
    share of the total, rounded up or down.

    Args:
        targets: (N, C) bool classes of each row.
        size: Number of rows to draw, at most N.
        seed: Random seed for the draw.
        order: (N,) int64 order of the rows that does not depend on their positions, such as by
            content, so that rearranging a file does not change the draw; None for the given one.

    Returns:
        (size,) int64 positions.

    Example:
        >>> targets = torch.tensor([[True, False]] * 6 + [[False, True]] * 3)
        >>> rows = stratified_rows(targets, 3, seed=0)
        >>> sorted(int(row > 5) for row in rows)
        [0, 0, 1]
    """
    generator = np.random.default_rng(seed)
    order = np.arange(len(targets)) if order is None else order
    shuffled = order[generator.permutation(len(order))]
    kinds = np.unique(targets.cpu().numpy(), axis=0, return_inverse=True)[1].ravel()
    by_class = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    places = (np.arange(size) + generator.random()) * (len(order) / size)
    return by_class[np.minimum(places.astype(np.int64), len(order) - 1)]


# position of a candidate, and the rows of it that a head is trained on
_Draw = tuple[int, torch.Tensor]


def fit_heads(
    features: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    *,
    size: int | None = None,
    n_draws: int = 3,
    seed: int = 0,
    orders: Sequence[NDArray[np.int64]] | None = None,
    exclusive: bool = True,
    l2: float = 1.0,
    like: torch.Tensor | None = None,
) -> Heads:
    """Fit a linear head for each candidate on its own labels, all of them at a common size.

    One-vs-rest logistic regressions with an L2 penalty. Classes have equal total weight, so a head
    does not learn its candidate's class mix. A candidate that is larger than the common size gets
    one head per draw, each on another stratified subsample: average what is computed from the
    heads, not their probabilities, which would let larger candidates use more data.

    Args:
        features: K tensors (N_k, d), float32 or float64, of one dtype and device.
        targets: K tensors (N_k, C) bool, the classes of each row; at least one class per head.
        size: Common number of training rows; None for the smallest candidate.
        n_draws: Number of heads of a candidate that is larger than the common size.
        seed: Random seed for the subsamples.
        orders: K orders of the rows that do not depend on their positions; see `stratified_rows`.
        exclusive: Whether each row has exactly one class; False for several labels per row, each
            of which is then balanced against its absence.
        l2: Strength of the penalty: 1 / C in scikit-learn's terms.
        like: Tensor that gives the device and dtype of the computation; None for those of the
            features.

    Returns:
        The heads, those of a candidate next to each other.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> right, swapped = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0])
        >>> one_hot = torch.nn.functional.one_hot
        >>> heads = fit_heads([x, x], [one_hot(right).bool(), one_hot(swapped).bool()])
        >>> heads.probabilities(x).argmax(2).tolist()
        [[0, 0, 1, 1], [1, 1, 0, 0]]
    """
    m = min(map(len, features)) if size is None else size
    draws = _draws(targets, m, n_draws, seed, orders)
    like = features[0] if like is None else like
    roots: list[torch.Tensor] = []

    def fit(part: Sequence[_Draw], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, used = _padded_targets(part, targets, x)
        weights = _balanced(y, used, exclusive=exclusive).to(x)
        if not roots:
            # at equal weights: those of a class without contrast are all 0
            roots.append(inverse_curvature_root(x, used.unsqueeze(1).to(x), l2=l2))
        return _fit(x, y, weights, roots[0], exclusive=exclusive, l2=l2), y.any(1)

    n_bytes = m * features[0].shape[1] * like.element_size()
    if like.is_cuda:
        # the rows twice, in the preconditioner and ahead; some 16 numbers of each row and class
        n_bytes = 6 * n_bytes + 16 * 8 * m * targets[0].shape[1]
    fits = in_batches(
        draws, batch_bytes(like) // n_bytes, like, lambda part: _padded_rows(part, features), fit
    )
    return Heads(
        torch.cat([coefficients for coefficients, _ in fits]),
        torch.cat([known for _, known in fits]),
        torch.tensor([k for k, _ in draws]).to(like.device),
        exclusive,
    )


def _draws(
    targets: Sequence[torch.Tensor],
    m: int,
    n_draws: int,
    seed: int,
    orders: Sequence[NDArray[np.int64]] | None,
) -> list[_Draw]:
    """Candidate and rows of each head."""
    draws = []
    for k, part in enumerate(targets):
        order = None if orders is None else orders[k]
        if len(part) <= m:  # all rows are one draw: more would be copies
            rows = np.arange(len(part)) if order is None else order
            draws.append((k, torch.from_numpy(rows)))
            continue
        for i in range(n_draws):
            rows = stratified_rows(part, m, seed=seed + i, order=order)
            draws.append((k, torch.from_numpy(rows)))
    return draws


def _padded_rows(draws: Sequence[_Draw], features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows (G, m, d) of the draws, the shorter ones followed by 0."""
    parts = [features[k][rows.to(features[k].device)] for k, rows in draws]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


def _padded_targets(
    draws: Sequence[_Draw], targets: Sequence[torch.Tensor], x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes (G, m, C) of the draws, and which of the rows x are not padding (G, m)."""
    parts = [targets[k][rows.to(targets[k].device)] for k, rows in draws]
    y = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(x.device)
    sizes = torch.tensor([len(rows) for _, rows in draws]).to(x.device)
    return y, torch.arange(x.shape[1], device=x.device) < sizes.unsqueeze(1)


def _balanced(targets: torch.Tensor, used: torch.Tensor, *, exclusive: bool) -> torch.Tensor:
    """(G, C, m) float64 weights with mean 1 over the rows used; 0 for a class without contrast."""
    present = targets.double().mT * used.unsqueeze(1)
    absent = (1 - targets.double().mT) * used.unsqueeze(1)
    n_present, n_absent = present.sum(2, keepdim=True), absent.sum(2, keepdim=True)
    n = used.double().sum(1).view(-1, 1, 1)
    if exclusive:
        n_classes = (n_present > 0).sum(1, keepdim=True)
        per_row = (present / n_present.clamp_min(1)).sum(1, keepdim=True) * n / n_classes
        weights = per_row.expand_as(present)
    else:
        weights = n / 2 * (present / n_present.clamp_min(1) + absent / n_absent.clamp_min(1))
    # with rows of one side only there is nothing to fit, and the intercept would run away
    return weights * ((n_present > 0) & (n_absent > 0))


def _fit(
    features: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    root: torch.Tensor,
    *,
    exclusive: bool,
    l2: float,
) -> torch.Tensor:
    """(G, C, d + 1) coefficients of the one-vs-rest problems."""
    wanted = targets.mT.to(features)
    # the regression of the second of two exclusive classes is that of the first with its sign
    # turned, and need not be computed
    mirrored = exclusive and targets.shape[2] == 2
    if mirrored:
        wanted, weights = wanted[:, :1], weights[:, :1]
    coefficients = fit_logistic_regressions(features, wanted, weights, l2=l2, root=root)
    if mirrored:
        coefficients = torch.cat((coefficients, -coefficients), 1)
    if not exclusive:
        # a label that every row has is predicted for every row; without it, 0 logits say one half
        always = ~(targets.mT * (weights > 0)).any(2) & targets.any(1)
        coefficients[..., -1] += 20.0 * always
    return coefficients


def fit_ridge_heads(
    features: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    *,
    size: int | None = None,
    n_draws: int = 3,
    seed: int = 0,
    like: torch.Tensor | None = None,
) -> Heads:
    """Fit a ridge regression for each candidate on its own numeric labels, at a common size.

    The intercept is not penalized. The penalty of each head is the one with the smallest
    generalized cross-validation error, Σ e² / (1 − tr(A)/m)², among 10^-4 to 10^4 times the mean
    squared singular value: a fixed one would depend on the units of features and labels.

    Args:
        features: K tensors (N_k, d), float32 or float64, of one dtype and device.
        targets: K tensors (N_k, 1) of numbers.
        size: Common number of training rows; None for the smallest candidate.
        n_draws: Number of heads of a candidate that is larger than the common size.
        seed: Random seed for the subsamples.
        like: Tensor that gives the device and dtype of the computation; None for those of the
            features.

    Returns:
        Heads with one output, to be used with `Heads.numbers`.

    Source: Golub, Heath and Wahba 1979 (generalized cross-validation).

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> heads = fit_ridge_heads([x], [2 * x.double()])
        >>> [round(value) for value in heads.numbers(x)[0].tolist()]
        [0, 2, 4, 6]
    """
    m = min(map(len, features)) if size is None else size
    one_class = [torch.ones(len(part), 1, dtype=torch.bool) for part in features]
    draws = _draws(one_class, m, n_draws, seed, None)
    like = features[0] if like is None else like
    n_bytes = 8 * 6 * m * features[0].shape[1]
    at_once = batch_bytes(like) // n_bytes if like.is_cuda else 1

    def fit(part: Sequence[int], x: torch.Tensor) -> torch.Tensor:
        y = [targets[draws[i][0]][draws[i][1], 0] for i in part]
        return _ridge(x, torch.stack(y).to(x.device, torch.float64))

    fits: dict[int, torch.Tensor] = {}
    # candidates of fewer rows have draws of their own length
    for length in sorted({len(rows) for _, rows in draws}):
        chosen = [i for i, (_, rows) in enumerate(draws) if len(rows) == length]
        results = in_batches(
            chosen,
            at_once,
            like,
            lambda part: _padded_rows([draws[i] for i in part], features),
            fit,
        )
        fits |= dict(zip(chosen, torch.cat(results), strict=True))
    owners = torch.tensor([k for k, _ in draws]).to(like.device)
    known = torch.ones(len(draws), 1, dtype=torch.bool, device=like.device)
    coefficients = torch.stack([fits[i] for i in range(len(draws))])
    return Heads(coefficients.unsqueeze(1), known, owners, exclusive=False)


def _ridge(features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(G, d + 1) coefficients, the intercept last, of rows (G, m, d) and values (G, m)."""
    x, y, m = features.double(), values, values.shape[1]
    center, level = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    left, singular, right = torch.linalg.svd(x - center, full_matrices=False)
    squares = singular.square()
    projected = (left.mT @ (y - level).unsqueeze(2)).squeeze(2)
    outside = (y - level).square().sum(1) - projected.square().sum(1)
    steps = torch.logspace(-4, 4, 33, dtype=torch.float64, device=x.device)
    penalties = squares.mean(1, keepdim=True) * steps
    kept = squares.unsqueeze(1) / (squares.unsqueeze(1) + penalties.unsqueeze(2))
    errors = ((1 - kept) * projected.unsqueeze(1)).square().sum(2)
    errors = errors + outside.clamp_min(0).unsqueeze(1)
    # one degree of freedom for the mean
    freedom = (m - 1 - kept.sum(2)).clamp_min(1e-9 * m)
    best = (errors / freedom.square()).argmin(1, keepdim=True)
    scaled = singular / (squares + penalties.gather(1, best)) * projected
    slopes = (right.mT @ scaled.unsqueeze(2)).squeeze(2)
    intercepts = level - (center.squeeze(1) * slopes).sum(1, keepdim=True)
    return torch.cat((slopes, intercepts), 1).to(features)


def correct_shares(
    heads: Heads, features: torch.Tensor, targets: torch.Tensor, classes: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield, for each cell of examples, its mask and how often each candidate's heads are right.

    A cell is a class, whose examples are right where the class is predicted. With several labels
    per example, each label has two cells: the examples that have it and those that do not.

    Args:
        heads: Heads of K candidates.
        features: (N, d) rows.
        targets: (N, C) bool classes of each row.
        classes: (C,) bool, the classes to yield cells of; heads may predict the others as well.

    Yields:
        (N,) bool, and (K, N) float64 share of a candidate's heads that are right, by row.
    """
    batches = heads.batches(len(features))
    if heads.exclusive:
        label = targets.int().argmax(1)
        parts = [part.probabilities(features).argmax(2) == label for part in batches]
        right = heads.by_candidate(torch.cat(parts).double())
        for c in classes.nonzero()[:, 0].cpu().tolist():
            yield targets[:, c], right
        return
    predicted = torch.cat([part.probabilities(features) > 0.5 for part in batches])
    for c in classes.nonzero()[:, 0].cpu().tolist():
        right = heads.by_candidate((predicted[..., c] == targets[:, c]).double())
        yield targets[:, c], right
        yield ~targets[:, c], right


def balanced_accuracy(
    cells: Iterable[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over cells of the weighted share of right predictions, and its derivatives.

    Args:
        cells: Mask (N,) or (K, N) and share of right predictions (K, N) of each cell; see
            `correct_shares`.
        weights: (K, N) weights of the rows for each candidate. A cell without weight is left out.

    Returns:
        (K,) float64 scores, NaN without any cell, and (K, N) their derivatives in the logarithms
        of the weights.

    Example:
        >>> mask, right = torch.tensor([True, True, False]), torch.tensor([[1.0, 0.0, 1.0]])
        >>> cells = [(mask, right), (~mask, right)]
        >>> balanced_accuracy(cells, torch.tensor([[3.0, 1.0, 1.0]]))[0]
        tensor([0.8750], dtype=torch.float64)
    """
    total = weights.new_zeros(len(weights), dtype=torch.float64)
    slopes = torch.zeros_like(weights, dtype=torch.float64)
    n_cells = torch.zeros_like(total)
    for mask, right in cells:
        inside = weights.double() * mask
        size = inside.sum(1, keepdim=True)
        share = (inside * right).sum(1, keepdim=True) / size
        there = size > 0
        total += torch.where(there, share, 0.0)[:, 0]
        slopes += torch.where(there, inside * (right - share) / size, 0.0)
        n_cells += there[:, 0]
    return total / n_cells, slopes / n_cells.clamp_min(1).unsqueeze(1)


def weighted_r2(
    predicted: torch.Tensor, values: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 1 − Σ w (y − ŷ)² / Σ w (y − ȳ)², and its derivatives; 1 is best, 0 the mean of y.

    Args:
        predicted: (K, N) predictions ŷ of each candidate.
        values: (N,) or (K, N) numbers y.
        weights: (K, N) weights of the rows for each candidate.

    Returns:
        (K,) float64 scores, and (K, N) their derivatives in the logarithms of the weights.

    Example:
        >>> y = torch.tensor([0.0, 1.0, 2.0])
        >>> weighted_r2(torch.stack((y, torch.ones(3))), y, torch.ones(2, 3))[0]
        tensor([1., 0.], dtype=torch.float64)
    """
    weights, values = weights.double(), values.double().expand_as(weights)
    mean = (weights * values).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    error, spread = (values - predicted.double()).square(), (values - mean).square()
    size = (weights * spread).sum(1, keepdim=True)
    ratio = (weights * error).sum(1, keepdim=True) / size
    return 1 - ratio[:, 0], weights * (ratio * spread - error) / size


def votes_of_others(votes: torch.Tensor, families: torch.Tensor) -> torch.Tensor:
    """Return, for each candidate, the mean vote of the other families, one vote per family.

    Args:
        votes: (K, ...) prediction of each candidate, such as its heads' mean probabilities.
        families: (K,) int64 family of each candidate, 0 to F − 1, F ≥ 2.

    Returns:
        (K, ...) of the same dtype.

    Example:
        >>> votes_of_others(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 1, 1]))
        tensor([1., 0., 0.])
    """
    n_families = int(families.max()) + 1
    sizes = torch.bincount(families, minlength=n_families).to(votes)
    by_family = votes.new_zeros(n_families, *votes.shape[1:]).index_add_(0, families, votes)
    by_family = by_family / sizes.view(-1, *[1] * (votes.dim() - 1))
    others: torch.Tensor = (by_family.sum(0) - by_family[families]) / (n_families - 1)
    return others
