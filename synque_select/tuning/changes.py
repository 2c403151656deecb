"""How the candidates of two studies differ, and what a mixture of the first is in the second."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from synque_select.utils.wording import listed

__all__ = ["Changes", "Content", "carried_mixture", "changes_between"]


class Content(NamedTuple):
    """Hashes of a candidate.

    Args:
        views: Hash of what proxies see of it.
        drawn: Hash of the examples that a fit on it alone draws, with their labels.
    """

    views: str
    drawn: str


@dataclass(frozen=True)
class Changes:
    """What has changed between the candidates of two studies.

    Args:
        carried: Name before to name now, of candidates with the same content.
        removed: Names that are gone.
        regenerated: Names whose content is another.
        added: Names that are new.
    """

    carried: Mapping[str, str]
    removed: tuple[str, ...]
    regenerated: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def new(self) -> frozenset[str]:
        """Names of the candidates whose content the first study did not have."""
        return frozenset((*self.regenerated, *self.added))

    @property
    def words(self) -> str:
        """The changes in words; "" if there are none."""
        renamed = [f"{old} to {new}" for old, new in self.carried.items() if old != new]
        kinds = {
            "added": self.added,
            "removed": self.removed,
            "regenerated": self.regenerated,
            "renamed": renamed,
        }
        return "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)


def changes_between(before: Mapping[str, Content], now: Mapping[str, Content]) -> Changes:
    """Compare candidates by name and content.

    A candidate is renamed if its name is gone and a new name has the same views.

    Example:
        >>> before = {"a": Content("1", "1"), "b": Content("2", "2"), "c": Content("3", "3")}
        >>> now = {"a": Content("1", "1"), "b": Content("9", "9"), "d": Content("3", "3")}
        >>> changes_between(before, now).words
        'regenerated: b; renamed: c to d'
    """
    carried = {name: name for name, content in before.items() if now.get(name) == content}
    by_views = {content.views: name for name, content in now.items() if name not in before}
    for name, content in before.items():
        if name not in now and content.views in by_views:
            carried[name] = by_views.pop(content.views)
    return Changes(
        carried,
        removed=tuple(name for name in before if name not in now and name not in carried),
        regenerated=tuple(name for name in before if name in now and name not in carried),
        added=tuple(n for n in now if n not in before and n not in carried.values()),
    )


def carried_mixture(
    weights: Mapping[str, float], carried: Mapping[str, str], allowed: Collection[str]
) -> tuple[dict[str, float], float]:
    """Return a mixture under the names of now, and the share of it that is lost.

    The weights of what is left are scaled to sum to 1; without a loss they stay as they are, bit
    by bit. All of it may be lost.

    Args:
        weights: Name before to weight.
        carried: Name before to name now.
        allowed: Names that a mixture may have.

    Example:
        >>> carried_mixture({"a": 0.25, "b": 0.25, "c": 0.5}, {"a": "a", "b": "x"}, ["a", "x"])
        ({'a': 0.5, 'x': 0.5}, 0.5)
    """
    kept = {carried[n]: w for n, w in weights.items() if carried.get(n) in allowed}
    if len(kept) == len(weights):
        return kept, 0.0
    total = sum(kept.values())
    return {name: weight / total for name, weight in kept.items()}, 1 - total
