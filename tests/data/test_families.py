"""Families of candidates that judge each other's labels."""

from __future__ import annotations

import pytest

from synque_select.data import families
from synque_select.data.candidate import Candidate
from synque_select.data.families import judging_families, no_other_family


def candidate(name: str, views: str, family: str | None = None) -> Candidate:
    return Candidate(name, list(views), family=family)


def test_copies_are_of_one_family():
    parts = [candidate("a", "uvw"), candidate("b", "xyz"), candidate("again", "wvu")]
    assert judging_families(parts) == ("a", "b", "a")
    assert no_other_family(parts) is None


def test_a_copy_joins_the_families_that_it_is_listed_in():
    parts = [
        candidate("a1", "uvw", "a"),
        candidate("a2", "xyz", "a"),
        candidate("b1", "xyz", "b"),
        candidate("b2", "rst", "b"),
        candidate("c", "opq"),
    ]
    assert judging_families(parts) == ("a", "a", "a", "a", "c")


def test_why_there_is_no_other_family():
    given = [candidate("a", "uvw", "one"), candidate("b", "xyz", "one")]
    assert "of the family 'one'" in str(no_other_family(given))
    copies = [candidate("a", "uvw"), candidate("b", "uvx")]
    assert "copies or near copies of each other" in str(no_other_family(copies))


def test_the_work_grows_with_the_candidates_and_not_with_their_pairs(
    monkeypatch: pytest.MonkeyPatch,
):
    n_pairs: list[int] = []
    connected = families.connected_components
    monkeypatch.setattr(
        families,
        "connected_components",
        lambda pairs, **options: n_pairs.append(pairs.nnz) or connected(pairs, **options),
    )
    parts = [
        candidate(f"c{k}", chr(200 + k) + chr(900 + k), "one" if k < 100 else None)
        for k in range(200)
    ]
    assert judging_families(parts) == (*["one"] * 100, *(part.name for part in parts[100:]))
    assert sum(n_pairs) <= 2 * len(parts)
