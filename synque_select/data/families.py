"""Families: candidates that come from the same generator and may share its mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from synque_select.data.duplicates import copy_groups
from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils.unicode_forms import normalized

__all__ = ["FamilySpec", "candidate_families", "judging_families", "no_other_family"]

FamilySpec = str | Mapping[str, str]


def candidate_families(names: Sequence[str], family: FamilySpec | None) -> dict[str, str]:
    """Return the family of each candidate.

    Args:
        names: Names of the candidates.
        family: A regular expression, whose first group (or whole match, if it has no group) in a
            candidate's name is its family; or a mapping from names to families. Candidates that
            it does not match or list are families of their own. None if all are.

    Raises:
        ConfigError: The expression is invalid or matches no candidate, or the mapping lists an
            unknown candidate.

    Example:
        >>> candidate_families(["gpt4_a", "gpt4_b", "llama_a"], "^[^_]+")
        {'gpt4_a': 'gpt4', 'gpt4_b': 'gpt4', 'llama_a': 'llama'}
    """
    if family is None:
        return {name: name for name in names}
    if isinstance(family, Mapping):
        family = {normalized(str(k)): normalized(str(v)) for k, v in family.items()}
        for name in family:
            if name not in names:
                raise ConfigError(
                    f"family: {name!r} is not a candidate: {did_you_mean(name, names)}"
                )
        return {name: family.get(name, name) for name in names}
    try:
        pattern = re.compile(family)
    except (re.error, TypeError) as error:
        raise ConfigError(
            f"family={family!r}: {error}; allowed is a regular expression, such as '^[^_]+', or a "
            "mapping from candidates to families"
        ) from error
    matches = {name: pattern.search(name) for name in names}
    if not any(matches.values()):
        raise ConfigError(f"family={family!r} matches no candidate: {', '.join(names)}")
    return {name: _family(name, match) for name, match in matches.items()}


def _family(name: str, match: re.Match[str] | None) -> str:
    if match is None:
        return name
    return (match[1] if match.re.groups else match[0]) or name


class _Judge(Protocol):
    """A candidate, as far as families depend on it."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str | None: ...

    @property
    def digests(self) -> NDArray[np.uint8]: ...


def judging_families(candidates: Sequence[_Judge]) -> tuple[str, ...]:
    """Return the family of each candidate; candidates of one family do not judge each other.

    Copies and near copies of each other (see `copy_groups`) are of one family, together with all
    that are of a given family with one of them: a classifier knows the labels of the examples that
    it was trained on, so a candidate that is listed twice would vote for itself.

    Args:
        candidates: The candidates, each with a name, a given family or None, and digests.

    Returns:
        K names, those of given families if there are any.

    Example:
        >>> from synque_select.data.candidate import Candidate
        >>> a, b = Candidate("a", ["x", "y"]), Candidate("b", ["z", "w"])
        >>> judging_families([a, b, Candidate("a_again", ["y", "x"])])
        ('a', 'b', 'a')
    """
    given = [part.family or part.name for part in candidates]
    copies = copy_groups([part.digests for part in candidates]).tolist()
    places = range(len(given))
    # each with the first of its family, and with the first copy
    first = {name: i for i, name in reversed([*enumerate(given)])}
    first_copy = {number: i for i, number in reversed([*enumerate(copies)])}
    others = [*(first[name] for name in given), *(first_copy[number] for number in copies)]
    together = coo_array(
        (np.ones(len(others), dtype=bool), ([*places, *places], others)),
        shape=(len(given), len(given)),
    )
    numbers = connected_components(together, directed=False)[1].tolist()
    # any name of a member would do; the first is the same however often a copy is listed
    names: dict[int, str] = {}
    return tuple(
        names.setdefault(number, name) for number, name in zip(numbers, given, strict=True)
    )


def no_other_family(candidates: Sequence[_Judge]) -> str | None:
    """Return why no candidate can be judged by another one, as part of a sentence; None if it can.

    Args:
        candidates: The candidates; see `judging_families`.
    """
    names = judging_families(candidates)
    if len(set(names)) > 1:
        return None
    what = f"of the family {names[0]!r}"
    if len({part.family or part.name for part in candidates}) > 1:
        what = "copies or near copies of each other, which count as one family"
    return (
        f"all candidates are {what}; each is judged by the other families, so that at least 2 are "
        "needed"
    )
