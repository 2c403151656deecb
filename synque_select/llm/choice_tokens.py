"""Choices as sequences of tokens, and their probabilities from those of the tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["branch_points", "choice_shares"]

# log-probabilities are rounded: their sum may exceed 0 by this
_ROUNDING = 0.02


def branch_points(continuations: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Return every beginning of a choice with the tokens that may follow it.

    Args:
        continuations: Tokens of each choice.

    Returns:
        For each beginning, as a tuple of tokens, the tokens with which some choice continues.

    Example:
        >>> branch_points([[1, 2], [1, 3], [4]])
        {(): [1, 4], (1,): [2, 3]}
    """
    nodes: dict[tuple[int, ...], list[int]] = {}
    for continuation in continuations:
        for i, token in enumerate(continuation):
            children = nodes.setdefault(tuple(continuation[:i]), [])
            if token not in children:
                children.append(token)
    return nodes


def choice_shares(
    log_p: Mapping[tuple[int, ...], Mapping[int, float]], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Return the probability of each choice, scaled to sum to 1.

    p(choice) ∝ Π_i p(token_i | tokens before it).

    Args:
        log_p: Log-probabilities of the next token, for each beginning in `branch_points`.
        continuations: Tokens of each choice.

    Returns:
        One probability per choice.

    Raises:
        ValueError: The numbers are not log-probabilities, or no choice has a probability above 0.

    Example:
        >>> halves = {(): {1: -0.7, 4: -0.7}, (1,): {2: -0.7, 3: -0.7}}
        >>> [round(p, 2) for p in choice_shares(halves, [[1, 2], [1, 3], [4]])]
        [0.25, 0.25, 0.5]
    """
    scores = [
        sum(log_p[tuple(choice[:i])][token] for i, token in enumerate(choice))
        for choice in continuations
    ]
    if not max(scores) > -math.inf or any(
        math.isnan(score) or score > _ROUNDING for score in scores
    ):
        raise ValueError(f"{scores} are not log-probabilities of choices")
    # less the maximum, or long choices underflow to 0 / 0
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]
