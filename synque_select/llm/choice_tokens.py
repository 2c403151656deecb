"""Choices as the tokens that a model may write, and their probability from those of the tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["choice_shares", "nodes_of"]


def nodes_of(continuations: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Return what is written so far, and the tokens that may follow, wherever there is one.

    Example:
        >>> nodes_of([[1, 2], [1, 3], [4]])
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
    """Return the probability of each choice by all of its tokens, scaled to sum to 1.

    Args:
        log_p: Logarithm of the probability of each token behind what is written so far.
        continuations: Tokens of each choice.

    Example:
        >>> halves = {(): {1: -0.7, 4: -0.7}, (1,): {2: -0.7, 3: -0.7}}
        >>> [round(p, 2) for p in choice_shares(halves, [[1, 2], [1, 3], [4]])]
        [0.25, 0.25, 0.5]
    """
    scores = [
        sum(log_p[tuple(choice[:i])][token] for i, token in enumerate(choice))
        for choice in continuations
    ]
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]
