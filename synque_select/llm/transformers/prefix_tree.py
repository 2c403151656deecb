"""Token sequences with common beginnings, packed so that each beginning is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

__all__ = ["TokenTree", "common_length"]


def common_length(sequences: Iterable[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share.

    Example:
        >>> common_length([[1, 2, 3], [1, 2, 4, 5]])
        2
    """
    rows = [list(sequence) for sequence in sequences]
    # of sorted sequences, the first and the last differ first
    first, last = min(rows), max(rows)
    for i, token in enumerate(first):
        if last[i] != token:
            return i
    return len(first)


@dataclass
class TokenTree:
    """A prefix tree of token sequences behind a prefix that stands in a model's cache.

    Each node is a token that sees the cached prefix, its ancestors and itself: one row of a batch
    holds many prompts, none of them padded, and what they share is there once.

    Args:
        n_prefix: Tokens before the tree, which every node sees.

    Attributes:
        tokens: Token of each node, in the order of the row.
        parents: Node before it, −1 for the prefix.
        depths: Position in its own sequence.

    Example:
        >>> tree = TokenTree(n_prefix=2)
        >>> tree.add([7, 8]), tree.add([7, 9])
        ([0, 1], [0, 2])
        >>> tree.mask().int().tolist()
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]
    """

    n_prefix: int
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Add the tokens behind the prefix, and return the node of each."""
        node, path = -1, []
        for depth, token in enumerate(sequence, start=self.n_prefix):
            child = self._children.get((node, token))
            if child is None:
                child = len(self.tokens)
                self._children[node, token] = child
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(depth)
            node = child
            path.append(node)
        return path

    def mask(self) -> torch.Tensor:
        """Return what each node sees, (nodes, n_prefix + nodes) bool."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return torch.cat([torch.ones(len(self), self.n_prefix, dtype=torch.bool), seen], dim=1)
