"""Accelerated projected gradient on the capped simplex, ended by the optimality conditions."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from synque_select.functional.capped_simplex import project_from

__all__ = ["descend"]

_MAX_ROUNDS = 2000
# steps between two looks at which weights are 0 or capped
_STEPS = 10
# where no weight moves by more, the descent ends
_TOLERANCE = 1e-12
# share of the largest eigenvalue below which the objective is flat in a direction
_FLAT = 1e-10
# share of the largest entry of K and c by which the optimality conditions may be missed
_ROUNDING = 1e-12


def descend(
    quadratic: torch.Tensor,
    linear: torch.Tensor,
    upper: torch.Tensor,
    start: torch.Tensor,
    step: torch.Tensor,
) -> torch.Tensor:
    """Minimize wᵀKw − 2wᵀc over 0 ≤ w ≤ upper, Σ w = 1, for P problems at once.

    Optimal weights are mostly 0, and the steps find which ones long before they find the others. So
    weights that are 0 in all problems are left out of the steps until the gradient asks for them,
    and the others are solved for directly once the steps do not change anymore which these are.

    Args:
        quadratic: (K, K) for all problems, or (P, K, K); float64, positive semi-definite.
        linear: (P, K) float64.
        upper: (P, K) float64 caps on the weights.
        start: (P, K) float64 weights that meet the constraints.
        step: (P, 1) float64 length of a step along the gradient.

    Returns:
        (P, K) float64 weights.

    Source:
        Beck and Teboulle 2009 (FISTA); O'Donoghue and Candès 2015 (restarts); Moré and Toraldo
        1991, SIAM Journal on Optimization 1 (solving for the free weights).
    """
    result = start.clone()
    problems = torch.arange(len(start), device=start.device)
    state = _Problems.of(quadratic, linear, upper, start, step)
    for _ in range(_MAX_ROUNDS):
        moved = state.advance()
        is_done = state.examine(moved)
        result[problems] = state.weights
        if bool(is_done.all()):
            break
        if bool(is_done.any()):
            problems, state = problems[~is_done], state.part(~is_done)
    return result


@dataclass
class _Problems:
    """Problems that are not solved yet.

    Args:
        quadratic: As in `descend`.
        linear: As in `descend`.
        upper: As in `descend`.
        step: As in `descend`.
        weights: (P, K) the weights so far.
        ahead: (P, K) where the next gradient is taken.
        momentum: (P, 1) of the acceleration.
        threshold: (P, 1) of the last projection.
        rounding: (P, 1) by how much the optimality conditions may be missed.
        sides: (P, K) int8, −1 for a weight of 0, 1 for one at its cap, and 0 for a free one.
        is_tried: (P,) bool, the free weights at these sides have been solved for.
        columns: (K,) bool, the weights that are not 0 in all problems, or are to be more than 0.
    """

    quadratic: torch.Tensor
    linear: torch.Tensor
    upper: torch.Tensor
    step: torch.Tensor
    weights: torch.Tensor
    ahead: torch.Tensor
    momentum: torch.Tensor
    threshold: torch.Tensor
    rounding: torch.Tensor
    sides: torch.Tensor
    is_tried: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(
        cls,
        quadratic: torch.Tensor,
        linear: torch.Tensor,
        upper: torch.Tensor,
        start: torch.Tensor,
        step: torch.Tensor,
    ) -> _Problems:
        largest = linear.abs().amax(dim=1, keepdim=True)
        rounding = _ROUNDING * largest.maximum(quadratic.abs().amax(dim=(-2, -1)).view(-1, 1))
        return cls(
            quadratic=quadratic,
            linear=linear,
            upper=upper,
            step=step,
            weights=start,
            ahead=start,
            momentum=torch.ones_like(step),
            threshold=torch.zeros_like(step),
            rounding=rounding,
            sides=torch.full_like(start, 2, dtype=torch.int8),  # none yet
            is_tried=torch.zeros(len(start), dtype=torch.bool, device=start.device),
            columns=torch.ones(start.shape[1], dtype=torch.bool, device=start.device),
        )

    def part(self, rows: torch.Tensor) -> _Problems:
        """Return some of the problems."""
        shared = {"columns"} | ({"quadratic"} if self.quadratic.dim() == 2 else set())
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _Problems(**{k: v if k in shared else v[rows] for k, v in values.items()})

    def advance(self) -> torch.Tensor:
        """Take some steps, and return the largest change of a weight in the last one, (P,)."""
        at = slice(None) if self.quadratic.dim() > 2 else self.columns.nonzero().squeeze(1)
        quadratic = self.quadratic
        if quadratic.dim() == 2:
            quadratic = quadratic[at][:, at]
        linear, upper = self.linear[:, at], self.upper[:, at]
        weights, ahead = self.weights[:, at], self.ahead[:, at]
        for _ in range(_STEPS):
            gradient = 2 * (_products(quadratic, ahead) - linear)
            new, self.threshold = project_from(ahead - self.step * gradient, upper, self.threshold)
            moved = new - weights
            # K is often nearly singular (similar candidates), where plain gradient steps crawl and
            # momentum alone oscillates: restart it wherever it points uphill
            uphill = ((ahead - new) * moved).sum(dim=1, keepdim=True) > 0
            following = (1 + (1 + 4 * self.momentum**2).sqrt()) / 2
            factor = torch.where(uphill, 0.0, (self.momentum - 1) / following)
            self.momentum = torch.where(uphill, 1.0, following)
            ahead, weights = new + factor * moved, new
        self.weights, self.ahead = torch.zeros_like(self.weights), torch.zeros_like(self.ahead)
        self.weights[:, at], self.ahead[:, at] = weights, ahead
        return moved.abs().amax(dim=1)

    def examine(self, moved: torch.Tensor) -> torch.Tensor:
        """Solve for the free weights where the steps no longer change which are free.

        Args:
            moved: (P,) what `advance` returned.

        Returns:
            (P,) bool, the problems that are solved.
        """
        sides = (self.weights >= self.upper).to(torch.int8) - (self.weights <= 0).to(torch.int8)
        is_same = (sides == self.sides).all(dim=1)
        is_new = is_same & ~self.is_tried
        self.sides, self.is_tried = sides, is_same
        missed = self._missed(self.rounding)
        left_out = missed & (sides < 0)
        if self.quadratic.dim() == 2:
            is_done = (moved < _TOLERANCE) & ~(left_out & ~self.columns).any(dim=1)
        else:
            is_done = moved < _TOLERANCE
        self.columns = (self.ahead != 0).any(dim=0) | (sides >= 0).any(dim=0) | left_out.any(dim=0)
        rows = (is_new & ~is_done).nonzero().squeeze(1)
        if len(rows):
            solved = self.part(rows)
            solved.solve_free()
            is_best = ~solved._missed(solved.rounding).any(dim=1)
            self.weights[rows[is_best]] = solved.weights[is_best]
            is_done[rows] = is_best
        return is_done

    def solve_free(self) -> None:
        """Set the free weights to those with the least objective, the others being what they are.

        Where that takes a weight below 0 or above its cap, all weights are left as they are.
        """
        free = self.sides == 0
        n_free = free.sum(dim=1, keepdim=True)
        most = int(n_free.max())
        if not most:
            return
        at = free.to(torch.int8).topk(most, dim=1).indices  # the rest of a row is not free
        inside = free.gather(1, at).double()
        rows, columns = at.unsqueeze(2), at.unsqueeze(1)
        if self.quadratic.dim() == 2:
            block = self.quadratic[rows, columns]
        else:
            block = self.quadratic[
                torch.arange(len(at), device=at.device).view(-1, 1, 1), rows, columns
            ]
        # onto changes of the free weights that sum to 0
        onto = torch.diag_embed(inside) - inside.unsqueeze(2) * inside.unsqueeze(1) / n_free.clamp(
            min=1
        ).unsqueeze(2)
        values, vectors = torch.linalg.eigh(onto @ block @ onto)
        # the objective is flat along copies of each other: the steps have decided there
        is_flat = values <= _FLAT * values[:, -1:].clamp(min=1e-300)
        inverse = torch.where(is_flat, 0.0, 1 / values)
        gradient = (self._gradient().gather(1, at) * inside).unsqueeze(2)
        change = -(vectors @ (inverse.unsqueeze(2) * (vectors.mT @ (onto @ gradient)))).squeeze(2)
        new = self.weights.scatter_add(1, at, change * inside)
        is_allowed = ((new >= 0) & (new <= self.upper)).all(dim=1, keepdim=True)
        self.weights = torch.where(is_allowed, new, self.weights)

    def _gradient(self) -> torch.Tensor:
        """Half of the gradient at the weights, (P, K)."""
        return _products(self.quadratic, self.weights) - self.linear

    def _missed(self, rounding: torch.Tensor) -> torch.Tensor:
        """Return the weights that miss the optimality conditions, (P, K) bool.

        With a multiplier μ, the gradient is μ for free weights, at least that for weights of 0, and
        at most that for weights at their caps.
        """
        gradient, free = self._gradient(), self.sides == 0
        n_free = free.sum(dim=1, keepdim=True)
        of_free = torch.where(free, gradient, 0.0).sum(dim=1, keepdim=True) / n_free.clamp(min=1)
        at_cap = torch.where(self.sides > 0, gradient, -torch.inf).amax(dim=1, keepdim=True)
        above = gradient - torch.where(n_free > 0, of_free, at_cap)
        low, high = above < -rounding, above > rounding
        return (low & (self.sides <= 0)) | (high & (self.sides >= 0))


def _products(quadratic: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return the products of symmetric matrices with (P, K) vectors, in the same shape."""
    if quadratic.dim() == 2:
        return vectors @ quadratic  # for all at once: one by one, each would read the matrix
    return (quadratic @ vectors.unsqueeze(-1)).squeeze(-1)
