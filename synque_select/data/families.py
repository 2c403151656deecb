"""Families: candidates that come from the same generator and may share its mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from synque_select.errors import ConfigError, did_you_mean

__all__ = ["FamilySpec", "candidate_families"]

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
        for name in family:
            if name not in names:
                raise ConfigError(
                    f"family: {name!r} is not a candidate: {did_you_mean(name, names)}"
                )
        return {name: str(family.get(name, name)) for name in names}
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
