"""A mixture as one candidate, so that proxies can score what was actually trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synque_select.types import Candidate, Mixture
from synque_select.views import View

__all__ = ["mixture_candidate"]


def mixture_candidate(
    name: str, candidates: Sequence[Candidate], mixture: Mixture, seed: int
) -> Candidate:
    """Return a sample of the mixture: from each part as many examples as its weight says.

    It is as large as can be without repeating an example, ⌊min_a N_a / w_a⌋ in all; which ones
    are taken from a larger part is drawn from the seed. Its examples are the candidates' views.

    Example:
        >>> a, b = Candidate("a", ["1", "2", "3", "4"]), Candidate("b", ["5", "6"])
        >>> sample = mixture_candidate("ab", [a, b], Mixture({"a": 0.5, "b": 0.5}), seed=0)
        >>> len(sample), sum(view in "56" for view in sample.views)
        (4, 2)
    """
    parts = [candidate for candidate in candidates if candidate.name in mixture.weights]
    size = min(len(part) / mixture.weights[part.name] for part in parts)
    generator = torch.Generator().manual_seed(seed)
    places: list[tuple[Candidate, int]] = []
    for part in parts:
        # rounding up, by a hair or by a fraction, must not ask for more than there is
        n = min(len(part), max(1, round(size * mixture.weights[part.name])))
        drawn = torch.randperm(len(part), generator=generator)[:n].sort().values
        places += [(part, int(i)) for i in drawn]
    return Candidate(name, _Places(places), view=_itself)


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
