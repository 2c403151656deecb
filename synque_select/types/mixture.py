"""Mixtures: the selected candidates and their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synque_select.errors import ConfigError
from synque_select.utils.display import BLUE, Shown, new_axes, set_names
from synque_select.utils.validation import is_number
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Mixture"]


@dataclass(frozen=True)
class Mixture(Shown):
    """Selected candidates with weights that sum to 1.

    Args:
        weights: Candidate name to its positive weight.
        source: How the mixture was selected, for reports ("top 3 by consensus", "equal", …).

    Raises:
        ConfigError: `weights` is not a mapping from names to numbers, is empty, has a weight that
            is not positive and finite, or does not sum to 1.

    Example:
        >>> Mixture.equal(["a", "b"]).weights
        {'a': 0.5, 'b': 0.5}
    """

    weights: Mapping[str, float]
    source: str = ""

    def __post_init__(self) -> None:
        given: Any = self.weights
        if not (isinstance(given, Mapping) and all(map(is_number, given.values()))):
            raise ConfigError(
                f"a mixture's weights: allowed is a mapping from name to number, found {given!r}"
            )
        weights = {str(name): float(weight) for name, weight in given.items()}
        if not weights:
            raise ConfigError("a mixture needs at least one candidate")
        bad = {name: w for name, w in weights.items() if not (math.isfinite(w) and w > 0)}
        if bad:
            raise ConfigError(f"a mixture's weights must be positive and finite, found {bad}")
        if abs(sum(weights.values()) - 1) > 1e-6:
            raise ConfigError(
                f"a mixture's weights must sum to 1, found {sum(weights.values()):.6g}"
            )
        object.__setattr__(self, "weights", weights)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the selected candidates, in the order given."""
        return tuple(self.weights)

    @property
    def headlines(self) -> tuple[str, ...]:
        """How many candidates there are, and how they were selected."""
        how = f": {self.source}" if self.source else ""
        return (f"Mixture of {counted(len(self.weights), 'candidate')}{how}",)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate, whose name is the index, with its `weight`."""
        import pandas as pd

        index = pd.Index(list(self.weights), name="candidate")
        return pd.DataFrame({"weight": list(self.weights.values())}, index=index)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the weight of each candidate.

        Args:
            ax: Axes of matplotlib to draw on; None for new ones.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        names = list(self.weights)
        ax = new_axes(ax, n_rows=len(names))
        heights = [-i for i in range(1, len(names) + 1)]
        ax.barh(heights, list(self.weights.values()), height=0.5, color=BLUE)
        set_names(ax, names)
        ax.set_xlabel("weight: share of the training draws")
        return ax

    @classmethod
    def equal(cls, names: Sequence[str], source: str = "equal") -> Mixture:
        """Return a mixture in which all candidates have the same weight."""
        if not names:
            raise ConfigError("a mixture needs at least one candidate")
        return cls(dict.fromkeys(names, 1 / len(names)), source)

    def to_dict(self) -> dict[str, Any]:
        """Return the mixture as plain values: {"weights": {name: weight}, "source": text}."""
        return {"weights": dict(self.weights), "source": self.source}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Mixture:
        """Return the mixture that `to_dict` wrote."""
        return cls(state["weights"], state.get("source", ""))
