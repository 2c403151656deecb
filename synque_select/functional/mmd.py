"""Maximum mean discrepancy (MMD) computed in blocks, with one kernel for a whole ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.functional.pairwise import BLOCK_ROWS, row_blocks, sq_distances
from synque_select.functional.products import scaled_products
from synque_select.utils.device import batch_bytes

__all__ = [
    "BANK",
    "Kernel",
    "KernelName",
    "SelfMean",
    "kernel_contributions",
    "kernel_matrix",
    "mmd2_biased",
    "mmd2_unbiased",
    "mmd_permutation_p",
    "off_diagonal_matrix",
    "permutation_p_tensor",
    "random_blocks",
    "resampling_factor",
    "self_kernel_mean",
    "stacked_kernel_sums",
    "weighted_kernel_mean",
]

KernelName = Literal["rbf", "laplacian", "polynomial", "energy"]
# multiples of a median-based γ whose kernels are averaged: a single bandwidth sees differences at
# one scale only (Gretton et al. 2012, "Optimal kernel choice for large-scale two-sample tests")
BANK = (0.5, 1.0, 2.0, 4.0, 8.0)
# rows of a kernel block that are converted to float64 at once
_SUM_ROWS = 128
# rows and columns of a block of the kernel of a set with itself: few rows waste less of the blocks
# on the diagonal, of which both halves are computed, and many columns save calls
_HALF_ROWS, _HALF_COLUMNS = 256, 4_096


@dataclass(frozen=True)
class Kernel:
    """A kernel k(x, y); with several gammas, the mean of the kernels (a bank).

    Args:
        name: "rbf" exp(−γ‖x−y‖²); "laplacian" exp(−γ‖x−y‖₁); "polynomial" (γ x·y + c)^degree;
            "energy" −‖x−y‖, with which MMD² is the energy distance.
        gammas: One or several γ; empty for "energy".
        degree: Degree of the polynomial, at least 1.
        coef0: Constant c of the polynomial.
    """

    name: KernelName
    gammas: tuple[float, ...] = ()
    degree: int = 3
    coef0: float = 1.0


def kernel_matrix(kernel: Kernel, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the kernel of all pairs of one block.

    Args:
        kernel: The kernel.
        left: (..., p, d) float32 or float64.
        right: (..., q, d), same dtype and device, and as many dimensions, of which there are two or
            three.

    Returns:
        (..., p, q), in the dtype of the rows.

    Example:
        >>> kernel_matrix(Kernel("polynomial", (1.0,)), torch.ones(1, 1), torch.ones(1, 1))
        tensor([[8.]])
    """
    if kernel.name == "polynomial":
        constant = left.new_full(right.shape[:-1], kernel.coef0)
        base = scaled_products(left, right, kernel.gammas[0], constant)
        return _power(base, kernel.degree)
    if kernel.name == "energy":
        # a root has infinite slope at 0: equal rows that are at 1e-7 instead of 0 in float32
        # would be at 3e-4 after it, so distances are refined here
        return -sq_distances(left, right, refine=True).sqrt_()
    if kernel.name == "laplacian":
        return _bank_mean(torch.cdist(left, right, p=1.0), kernel.gammas)
    return _bank_mean(sq_distances(left, right), kernel.gammas)


def _power(base: torch.Tensor, degree: int) -> torch.Tensor:
    # torch.pow is several times slower than repeated products
    result = base if degree == 1 else base * base
    for _ in range(degree - 2):
        result.mul_(base)
    return result


def _bank_mean(distances: torch.Tensor, gammas: tuple[float, ...]) -> torch.Tensor:
    """Mean over γ of exp(−γ d)."""
    # if each γ is twice the one before, as in BANK, its term is the square of the last: one
    # exponential per entry instead of five
    term = torch.exp(distances * -gammas[0])
    total = term.clone()
    for before, gamma in pairwise(gammas):
        term = term.square_() if gamma == 2 * before else torch.exp(distances * -gamma)
        total += term
    return total.div_(len(gammas))


@dataclass(frozen=True)
class SelfMean:
    """Kernel means of one set with itself.

    Args:
        off_diagonal: Mean over the pairs i ≠ j; with groups, over pairs of different groups.
        diagonal: Mean of k(x_i, x_i); with groups, over all other pairs.
        n: Number of examples.
        standard_error: Upper bound of the standard error of `off_diagonal`; 0 if it is exact.
        n_diagonal: Number of pairs (i, j) of `diagonal`; None for n.
    """

    off_diagonal: float
    diagonal: float
    n: int
    standard_error: float = 0.0
    n_diagonal: int | None = field(default=None, repr=False)

    @classmethod
    def of_blocks(
        cls,
        off_diagonal: NDArray[np.float64],
        diagonal: NDArray[np.float64],
        sizes: NDArray[np.int64],
    ) -> SelfMean:
        """Return the estimate for a set from the exact means of random blocks of it.

        Args:
            off_diagonal: (S,) mean of each block over its pairs i ≠ j.
            diagonal: (S,) mean of each block over its diagonal.
            sizes: (S,) rows in each block; a single block is the whole set.
        """
        n, shares = int(sizes.sum()), sizes / sizes.sum()
        error = off_diagonal.std(ddof=1) / len(sizes) ** 0.5 if len(sizes) > 1 else 0.0
        return cls(float(shares @ off_diagonal), float(shares @ diagonal), n, float(error))

    @property
    def off_diagonal_share(self) -> float:
        """Share of the pairs of `off_diagonal` in all n² pairs."""
        if self.n_diagonal is None:
            return (self.n - 1) / self.n
        return 1 - self.n_diagonal / self.n**2

    @property
    def diagonal_part(self) -> float:
        """Mean of `diagonal`, times the share of its pairs in all n² pairs."""
        if self.n_diagonal is None:
            return self.diagonal / self.n
        return self.diagonal * (self.n_diagonal / self.n**2)

    @property
    def all_pairs(self) -> float:
        """Biased mean, over all n² pairs including the diagonal."""
        if self.n_diagonal is None:
            return (self.off_diagonal * (self.n - 1) + self.diagonal) / self.n
        return self.off_diagonal * self.off_diagonal_share + self.diagonal_part


def _shift(kernel: Kernel, points: torch.Tensor) -> torch.Tensor | None:
    """Return a vector to subtract from all rows; None for the polynomial kernel."""
    # kernels of x − y do not change under a shift, and rows near the origin keep their digits in
    # float32 products; (γ x·y + c)^degree would change. The mean of one block is near enough
    if kernel.name == "polynomial":
        return None
    return points[:BLOCK_ROWS].double().mean(0).to(points.dtype)


def kernel_contributions(
    kernel: Kernel, real: torch.Tensor, synthetic: torch.Tensor
) -> torch.Tensor:
    """Return the mean kernel of each real example with all synthetic ones, mean_s k(r_i, s).

    Time is linear in N, and memory does not grow with it.

    Args:
        kernel: The kernel.
        real: (n, d) float32 or float64; the computation runs on its device.
        synthetic: (N, d), any float dtype, any device; read in blocks.

    Returns:
        (n,) float64.

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> kernel_contributions(kernel, torch.ones(1, 1), torch.tensor([[1.0], [3.0]]))
        tensor([2.], dtype=torch.float64)
    """
    shift = _shift(kernel, real)
    total = torch.zeros(len(real), dtype=torch.float64, device=real.device)
    for block in row_blocks(synthetic, BLOCK_ROWS, real, shift):
        for first in range(0, len(real), BLOCK_ROWS):
            part = real[first : first + BLOCK_ROWS]
            part = part if shift is None else part - shift
            matrix = kernel_matrix(kernel, part, block)
            # products in float32, sums in float64: MMD² subtracts means that agree in 3 digits or
            # more, and a float32 running sum over 10⁶ rows loses those in which they differ
            total[first : first + BLOCK_ROWS] += matrix.double().sum(1)
    return total / len(synthetic)


def self_kernel_mean(
    kernel: Kernel,
    points: torch.Tensor,
    *,
    max_exact: int = 4_096,
    order: torch.Tensor | None = None,
    like: torch.Tensor | None = None,
    groups: NDArray[np.int64] | None = None,
) -> SelfMean:
    """Return the kernel means of a set with itself.

    Above `max_exact` rows, the rows are split in random order into blocks of about 1,024, and only
    pairs within a block are evaluated: an unbiased estimate in linear time that uses every row.
    Its standard error is at most the standard deviation of the blocks' means over the root of
    their number.

    Args:
        kernel: The kernel.
        points: (N, d), any float dtype, N ≥ 2; on any device, or memory-mapped.
        max_exact: Largest N for which all pairs are evaluated.
        order: (N,) int64 random order of the rows, for the blocks; None draws one with seed 0.
        like: Tensor that gives the dtype (float32 or float64) and device of the computation; None
            for those of the points.
        groups: (N,) int64 group of each row, of at least 2 groups; the mean is then over pairs of
            different groups, and always exact. None if all rows are independent.

    Returns:
        Means over the pairs and over the diagonal, float64.

    Source: Zaremba, Gretton and Blaschko 2013 (B-tests: MMD from blocks).

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> self_kernel_mean(kernel, torch.tensor([[1.0], [3.0]]))
        SelfMean(off_diagonal=3.0, diagonal=5.0, n=2, standard_error=0.0)
    """
    like = points if like is None else like
    if groups is not None or len(points) <= max(max_exact, BLOCK_ROWS):
        return _exact_self_mean(kernel, points.to(like), groups)
    if order is None:
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    blocks = random_blocks(order)
    means = [_exact_self_mean(kernel, points[block.to(points.device)].to(like)) for block in blocks]
    return SelfMean.of_blocks(
        np.array([mean.off_diagonal for mean in means]),
        np.array([mean.diagonal for mean in means]),
        np.array([len(block) for block in blocks]),
    )


def random_blocks(order: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Divide rows in random order into blocks of about 1,024, for `self_kernel_mean`.

    Args:
        order: (N,) int64 random order of the rows.
    """
    # blocks whose sizes differ by one at most: a short last block would have a much larger
    # variance than the others
    return order.tensor_split(-(-len(order) // BLOCK_ROWS))


def _exact_self_mean(
    kernel: Kernel, points: torch.Tensor, groups: NDArray[np.int64] | None = None
) -> SelfMean:
    shift = _shift(kernel, points)
    points = points if shift is None else points - shift
    # sums stay on the device: reading a number after each block would wait for a GPU every time
    off_diagonal = torch.zeros((), dtype=torch.float64, device=points.device)
    diagonal = torch.zeros((), dtype=torch.float64, device=points.device)
    same = _SameGroup(groups, points)
    for rows, columns, matrix in _half_blocks(kernel, points):
        # the kernel is symmetric: an entry beside the diagonal block counts for (i, j) and (j, i)
        n_once = len(matrix) if rows.start == columns.start else 0
        once, twice = matrix[:, :n_once], matrix[:, n_once:]
        off_diagonal += _sum(once) + 2 * _sum(twice)
        if groups is not None:
            within = matrix.double() * same.block(rows, columns)
            part = within[:, :n_once].sum() + 2 * within[:, n_once:].sum()
        else:
            part = once.diagonal().double().sum()
        diagonal += part
        off_diagonal -= part
    n = len(points)
    if groups is None:
        return SelfMean(float(off_diagonal) / (n * (n - 1)), float(diagonal) / n, n)
    n_within = same.n_pairs
    return SelfMean(
        off_diagonal=float(off_diagonal) / (n * n - n_within),
        diagonal=float(diagonal) / n_within,
        n=n,
        n_diagonal=n_within,
    )


class _SameGroup:
    """Which pairs of rows are of one group, in the blocks of `_half_blocks`."""

    def __init__(self, groups: NDArray[np.int64] | None, points: torch.Tensor) -> None:
        numbers = np.arange(len(points)) if groups is None else groups
        self.n_pairs = int((np.bincount(numbers) ** 2).sum())
        self._numbers = torch.from_numpy(numbers).to(points.device)

    def block(self, rows: slice, columns: slice) -> torch.Tensor:
        same: torch.Tensor = self._numbers[rows].unsqueeze(1) == self._numbers[columns]
        return same


def _sum(matrix: torch.Tensor) -> torch.Tensor:
    """Sum in float64, converting few rows at a time so that the copy stays in the CPU's cache."""
    return torch.stack([part.double().sum() for part in torch.split(matrix, _SUM_ROWS)]).sum()


def stacked_kernel_sums(
    kernel: Kernel, stacked: torch.Tensor, sizes: torch.Tensor | None, real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the kernel sums of several sets at once, each with itself and with the real sample.

    For GPUs, which sets of a few thousand rows do not fill one by one.

    Args:
        kernel: The kernel.
        stacked: (G, N, d) float32 or float64 rows of G sets; the smaller ones end with other rows.
        sizes: (G,) int64 number of rows of each set; None if all have N.
        real: (n, d) real examples, same dtype and device.

    Returns:
        Σ_{i≠j} k(s_i, s_j) and Σ_i k(s_i, s_i) of each set, (G,) float64 each, and Σ_s k(r_i, s) of
        each real example with each set, (G, n) float64.

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> sets = torch.tensor([[[1.0], [3.0]], [[2.0], [9.0]]])
        >>> sums = stacked_kernel_sums(kernel, sets, torch.tensor([2, 1]), torch.ones(1, 1))
        >>> [part.flatten().tolist() for part in sums]
        [[6.0, 0.0], [10.0, 4.0], [4.0, 2.0]]
    """
    n_sets, n_rows, _ = stacked.shape
    places = torch.arange(n_rows, device=stacked.device)
    used = None if sizes is None else (places < sizes.unsqueeze(1)).to(stacked.dtype)
    shift = _shift(kernel, real)
    sample = (real if shift is None else real - shift).expand(n_sets, -1, -1)
    # a set is centered on a row of its own: far from the real sample, it would lose its digits
    own = stacked if shift is None else stacked - stacked[:, :1]
    totals = torch.zeros(n_sets, dtype=torch.float64, device=stacked.device)
    diagonal, to_real = torch.zeros_like(totals), totals.new_zeros(n_sets, len(real))
    # up to 4 numbers for each entry of a kernel, in half of the memory: the rows take the rest
    per_row = 4 * n_sets * max(n_rows, len(real)) * stacked.element_size()
    step = max(1, batch_bytes(stacked) // (2 * per_row))
    for start in range(0, n_rows, step):
        part = slice(start, start + step)
        near = stacked[:, part] if shift is None else stacked[:, part] - shift
        matrix = kernel_matrix(kernel, near, sample)
        if used is not None:
            matrix.mul_(used[:, part].unsqueeze(2))
        to_real += matrix.sum(1, dtype=torch.float64)
        matrix = kernel_matrix(kernel, own[:, part], own)
        if used is not None:
            matrix.mul_(used[:, part].unsqueeze(2)).mul_(used.unsqueeze(1))
        diagonal += matrix.diagonal(start, 1, 2).sum(1, dtype=torch.float64)
        totals += matrix.sum((1, 2), dtype=torch.float64)
        del matrix
    return totals - diagonal, diagonal, to_real


def _half_blocks(
    kernel: Kernel, points: torch.Tensor
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Yield rows, columns and blocks of the upper half of the symmetric kernel matrix.

    The first columns of a block whose rows and columns start at the same place are the diagonal
    block of these rows, which is computed whole.
    """
    n = len(points)
    for start in range(0, n, _HALF_ROWS):
        rows = slice(start, min(start + _HALF_ROWS, n))
        for first in range(start, n, _HALF_COLUMNS):
            columns = slice(first, min(first + _HALF_COLUMNS, n))
            yield rows, columns, kernel_matrix(kernel, points[rows], points[columns])


def off_diagonal_matrix(
    kernel: Kernel, points: torch.Tensor, groups: NDArray[np.int64] | None = None
) -> torch.Tensor:
    """Return the kernel of all pairs of a small set, with 0 on the diagonal.

    Args:
        kernel: The kernel.
        points: (n, d) float32 or float64.
        groups: (n,) int64 group of each row; then all pairs of one group are 0.

    Returns:
        (n, n), in the dtype of the points.

    Example:
        >>> off_diagonal_matrix(Kernel("energy"), torch.tensor([[0.0], [2.0]]))
        tensor([[ 0., -2.],
                [-2.,  0.]])
    """
    shift = _shift(kernel, points)
    points = points if shift is None else points - shift
    matrix = kernel_matrix(kernel, points, points).fill_diagonal_(0)
    if groups is not None:
        numbers = torch.from_numpy(groups).to(points.device)
        matrix.masked_fill_(numbers.unsqueeze(1) == numbers, 0)
    return matrix


def resampling_factor(n: int, groups: NDArray[np.int64] | None = None) -> float:
    """Return the factor that makes Σ_{i≠j} w_i w_j k_ij of a resample an unbiased kernel mean.

    (n / (n − 1))² for n independent rows; n² / (n² − Σ n_g²) · G / (G − 1) for G groups of n_g
    rows, over pairs of different groups, which is the same for groups of one.

    Args:
        n: Number of rows.
        groups: (n,) int64 group of each row, of at least 2 groups; None if they are independent.

    Example:
        >>> resampling_factor(2), resampling_factor(4, np.array([0, 0, 1, 1]))
        (4.0, 4.0)
    """
    # E[c_i c_j] = n (n − 1) / n² for the counts of two rows: copies of a row meet each other less
    # often than two different rows do
    if groups is None:
        return (n / (n - 1)) ** 2
    sizes = np.bincount(groups).astype(np.float64)
    return float(n**2 / (n**2 - (sizes**2).sum()) * len(sizes) / (len(sizes) - 1))


def weighted_kernel_mean(
    kernel: Kernel,
    points: torch.Tensor,
    weights: torch.Tensor,
    groups: NDArray[np.int64] | None = None,
) -> torch.Tensor:
    """Return the unbiased kernel mean of bootstrap resamples, from their multinomial weights.

    Σ_{i≠j} c_i c_j k_ij / (n (n − 1) (1 − 1/n)) with counts c = n w; with groups, over pairs of
    different groups and with the factor of `resampling_factor`.

    Args:
        kernel: The kernel.
        points: (n, d) float32 or float64, n ≥ 2.
        weights: (B, n) float64, counts of a resample divided by n.
        groups: (n,) int64 group of each row; None if they are independent.

    Returns:
        (B,) float64.

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> even = torch.full((1, 2), 0.5, dtype=torch.float64)
        >>> weighted_kernel_mean(kernel, torch.tensor([[1.0], [3.0]]), even)
        tensor([6.], dtype=torch.float64)
    """
    # the plain bootstrap of an unbiased MMD is biased upwards: copies of an example meet each
    # other as pairs with the kernel's maximum. Pairs i ≠ j leave them out
    factor = resampling_factor(len(points), groups)
    return _quadratic_forms(kernel, points, weights, groups) * factor


def _quadratic_forms(
    kernel: Kernel,
    points: torch.Tensor,
    weights: torch.Tensor,
    groups: NDArray[np.int64] | None = None,
) -> torch.Tensor:
    """Σ_{i≠j} w_i w_j k_ij for each row of the weights (B, n), float64; over different groups."""
    shift = _shift(kernel, points)
    points = points if shift is None else points - shift
    weights = weights.to(points.device)
    total = torch.zeros(len(weights), dtype=torch.float64, device=points.device)
    same = _SameGroup(groups, points)
    for rows, columns, matrix in _half_blocks(kernel, points):
        n_once = len(matrix) if rows.start == columns.start else 0
        if groups is not None:
            matrix = matrix.masked_fill(same.block(rows, columns), 0)
        elif n_once:
            matrix = matrix.clone().fill_diagonal_(0)
        products = (weights[:, rows] @ matrix.double()) * weights[:, columns]
        total += products[:, :n_once].sum(1) + 2 * products[:, n_once:].sum(1)
    return total


def mmd2_unbiased(
    real: torch.Tensor, synthetic: torch.Tensor, kernel: Kernel, *, max_exact: int = 4_096
) -> float:
    """Unbiased squared maximum mean discrepancy; lower is closer, may be below 0.

    MMD² = mean_{i≠j} k(r_i, r_j) + mean_{i≠j} k(s_i, s_j) − 2 mean k(r_i, s_j). Its expectation
    does not depend on the two sizes, so candidates of different size can be compared.

    Args:
        real: (n, d) float32 or float64, n ≥ 2.
        synthetic: (N, d), any float dtype, N ≥ 2.
        kernel: The same kernel for all candidates of a ranking.
        max_exact: Largest size for which all pairs within a set are evaluated.

    Returns:
        MMD², in units of the kernel.

    Source: Gretton et al. 2012, JMLR 13, equation 3.

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> mmd2_unbiased(torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [4.0]]), kernel)
        2.0
    """
    return _mmd2(real, synthetic, kernel, max_exact, unbiased=True)


def mmd2_biased(
    real: torch.Tensor, synthetic: torch.Tensor, kernel: Kernel, *, max_exact: int = 4_096
) -> float:
    """Biased squared maximum mean discrepancy; lower is closer, never below 0.

    MMD² = mean_{i,j} k(r_i, r_j) + mean_{i,j} k(s_i, s_j) − 2 mean k(r_i, s_j), the diagonal
    included. Its expectation grows as sets become smaller: do not compare sets of different size.

    Args:
        real: (n, d) float32 or float64, n ≥ 2.
        synthetic: (N, d), any float dtype, N ≥ 2.
        kernel: The same kernel for all candidates of a ranking.
        max_exact: Largest size for which all pairs within a set are evaluated.

    Returns:
        MMD², in units of the kernel.

    Source: Gretton et al. 2012, JMLR 13, equation 5.

    Example:
        >>> kernel = Kernel("polynomial", (1.0,), degree=1, coef0=0.0)
        >>> mmd2_biased(torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [4.0]]), kernel)
        4.0
    """
    return _mmd2(real, synthetic, kernel, max_exact, unbiased=False)


def _mmd2(
    real: torch.Tensor, synthetic: torch.Tensor, kernel: Kernel, max_exact: int, *, unbiased: bool
) -> float:
    means = [self_kernel_mean(kernel, points, max_exact=max_exact) for points in (real, synthetic)]
    within = sum(mean.off_diagonal if unbiased else mean.all_pairs for mean in means)
    return within - 2 * float(kernel_contributions(kernel, real, synthetic).mean())


def mmd_permutation_p(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    kernel: Kernel,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> float:
    """Return the permutation p-value of the unbiased MMD².

    (1 + number of permutations with an MMD² at least as large) / (1 + n_permutations). It tests
    whether the sets differ at all. Its power grows with their size, so it must not be used to
    rank candidates.

    Args:
        real: (n, d) float32 or float64, n ≥ 2.
        synthetic: (N, d), same dtype and device, N ≥ 2; the cost grows with (n + N)².
        kernel: A kernel whose bandwidth does not depend on which examples are real.
        n_permutations: Number of random permutations.
        seed: Random seed for the permutations.

    Returns:
        One-sided p-value in (0, 1].

    Source: Gretton et al. 2012, section 5; Phipson and Smyth 2010 (why p is never 0).

    Example:
        >>> x = torch.linspace(0, 1, 20).unsqueeze(1)
        >>> mmd_permutation_p(x, x + 5, Kernel("rbf", (1.0,)), n_permutations=99)
        0.01
    """
    p = permutation_p_tensor(real, synthetic, kernel, n_permutations=n_permutations, seed=seed)
    return float(p)


def permutation_p_tensor(
    real: torch.Tensor,
    synthetic: torch.Tensor,
    kernel: Kernel,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> torch.Tensor:
    """Return `mmd_permutation_p` as a float64 scalar on the device, without waiting for it.

    Args:
        real: As for `mmd_permutation_p`.
        synthetic: As for `mmd_permutation_p`.
        kernel: As for `mmd_permutation_p`.
        n_permutations: As for `mmd_permutation_p`.
        seed: As for `mmd_permutation_p`.
    """
    n, total = len(real), len(real) + len(synthetic)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n_permutations + 1, total, dtype=torch.float64)
    labels[0, :n] = 1
    for row in labels[1:]:
        row[torch.randperm(total, generator=generator)[:n]] = 1
    # with 0/1 labels z, zᵀKz sums the kernel within the real part, (1−z)ᵀK(1−z) within the
    # synthetic one, and what is left of 1ᵀK1 is between them: one pass over the kernel matrix
    # serves all permutations
    every = torch.ones(1, total, dtype=torch.float64)
    forms = _quadratic_forms(
        kernel, torch.cat((real, synthetic)), torch.cat((labels, 1 - labels, every))
    )
    among_real, among_synthetic = forms[:-1].chunk(2)
    between = (forms[-1] - among_real - among_synthetic) / 2
    m = total - n
    values = among_real / (n * (n - 1)) + among_synthetic / (m * (m - 1)) - 2 * between / (n * m)
    # sums in another order differ in their last digits, and ties must count as at least as large
    at_least = values[1:] >= values[0] - 1e-12 * values.abs().max()
    return (1 + at_least.sum()).double() / (1 + n_permutations)
