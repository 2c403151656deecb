"""Token sequences with common prefixes, packed so that each prefix is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

__all__ = ["TokenTree", "common_length"]


def common_length(sequences: Iterable[Sequence[int]]) -> int:
    """Return the number of leading tokens that all sequences share.

    Args:
        sequences: At least one sequence of tokens.

    Example:
        >>> common_length([[1, 2, 3], [1, 2, 4, 5]])
        2
    """
    rows = [list(sequence) for sequence in sequences]
    # in sorted order, the first and the last sequence share least
    first, last = min(rows), max(rows)
    for i, token in enumerate(first):
        if last[i] != token:
            return i
    return len(first)


@dataclass
class TokenTree:
    """A prefix tree of token sequences that follow a prefix in a model's cache.

    Each node is a token that attends to the cached prefix, to its ancestors and to itself. One row
    of a batch then contains many prompts without padding, and what they share only once.

    Args:
        n_prefix: Number of tokens in the cached prefix, which every node attends to.

    Attributes:
        tokens: Token of each node, in the order of the row.
        parents: Node before each node; −1 for the prefix.
        depths: Position of each node in its own sequence.

    Source: Miao et al. 2024 (SpecInfer, arXiv 2305.09781), tree attention.

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
        """Add a sequence of tokens that follows the prefix, and return the node of each token."""
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
        """Return the attention mask, (nodes, n_prefix + nodes) bool: True where a node attends."""
        attends = torch.eye(len(self), dtype=torch.bool)
        # a parent always comes before its children, so its row is complete already
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                attends[node] |= attends[parent]
        return torch.cat([torch.ones(len(self), self.n_prefix, dtype=torch.bool), attends], dim=1)
