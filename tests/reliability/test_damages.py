"""Damaged derived files: the same numbers or one clean error, never other numbers."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.reliability.counts import record_counts
from tests.reliability.damages import (
    Case,
    Outcome,
    World,
    cases,
    kind_of,
    sample_of_each_kind,
)

pytest.importorskip("optuna")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("damages"))


def outcomes(world: World, chosen: list[Case]) -> dict[Case, Outcome]:
    return {case: world.outcome(case) for case in chosen}


def assert_right(results: dict[Case, Outcome]) -> None:
    wrong = [f"{case}: {o.verdict}: {o.message}" for case, o in results.items() if not o.is_right]
    assert not wrong, "\n".join(wrong)


def test_every_kind_of_file_with_two_damages(world: World):
    chosen = sample_of_each_kind([*cases(world.here)], seed=0)
    assert len({kind_of(case.file) for case in chosen}) >= 12
    assert_right(outcomes(world, chosen))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_damage_of_every_file(world: World):
    results = outcomes(world, [*cases(world.here)])
    assert len(results) >= 167
    names = {"same": "same numbers", "error": "clean error"}
    record_counts("damages", Counter(names.get(o.verdict, "wrong") for o in results.values()))
    assert_right(results)
