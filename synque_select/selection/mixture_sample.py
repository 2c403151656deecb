"""A mixture as a single candidate, so that proxies can score what was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from synque_select.data.candidate import Candidate
from synque_select.data.views import View
from synque_select.types import Mixture

__all__ = ["mixture_candidate", "mixture_positions"]


def mixture_candidate(
    name: str, candidates: Sequence[Candidate], mixture: Mixture, seed: int
) -> Candidate:
    """Return a sample of the mixture: from each part, examples in proportion to its weight.

    It is as large as possible without repeating an example, ⌊min_a N_a / w_a⌋ examples in all. The
    examples of a larger part are drawn with the seed. Its examples are the candidates' views.

    Example:
        >>> a, b = Candidate("a", ["1", "2", "3", "4"]), Candidate("b", ["5", "6"])
        >>> sample = mixture_candidate("ab", [a, b], Mixture({"a": 0.5, "b": 0.5}), seed=0)
        >>> len(sample), sum(view in "56" for view in sample.views)
        (4, 2)
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    sizes = {candidate.name: len(candidate) for candidate in candidates}
    positions = mixture_positions(sizes, mixture, seed)
    places = [(by_name[part], i) for part, drawn in positions.items() for i in drawn.tolist()]
    return Candidate(name, _Places(places), view=_itself)


def mixture_positions(
    sizes: Mapping[str, int], mixture: Mixture, seed: int
) -> dict[str, torch.Tensor]:
    """Return which examples of each part make up a sample of the mixture, without repeating one.

    Args:
        sizes: Number of examples of each candidate, in the order in which they are drawn from.
        mixture: A mixture of some of these candidates.
        seed: Random seed for the draws.

    Example:
        >>> drawn = mixture_positions({"a": 4, "b": 2}, Mixture({"a": 0.5, "b": 0.5}), seed=0)
        >>> {name: len(positions) for name, positions in drawn.items()}
        {'a': 2, 'b': 2}
    """
    parts = {name: n for name, n in sizes.items() if name in mixture.weights}
    size = min(n / mixture.weights[name] for name, n in parts.items())
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, n in parts.items():
        # rounding up, by a hair or by a fraction, must not ask for more than there is
        n_drawn = min(n, max(1, round(size * mixture.weights[name])))
        drawn[name] = torch.randperm(n, generator=generator)[:n_drawn].sort().values
    return drawn


class _Places:
    """Views of several candidates, read when they are asked for."""

    def __init__(self, places: Sequence[tuple[Candidate, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> View:
        part, i = self._places[index]
        view: View = part.views[i]
        return view


def _itself(view: View) -> View:
    return view
