"""The check of influence against retraining: what it compares, and what a seed begins with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from scripts.influence_check import Replicate, Work, halves, lead
from tests.training.tiny import TinyModel

LOSSES = [[0.9, 0.7, 0.4, 0.8, 0.3, 0.6], [0.7, 0.5, 0.2, 0.6, 0.1, 0.4]]


def test_the_lead_over_a_rival_is_paired():
    right = [[-loss for loss in row] for row in LOSSES]
    same = lead(right, right, LOSSES)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert lead(right, LOSSES, LOSSES).value == pytest.approx(2)
    nearly = [[-0.9, -0.7, -0.4, -0.8, -0.6, -0.3]] * 2
    ahead = lead(right, nearly, LOSSES)
    assert ahead.low < 0 < ahead.value  # few units: no difference shown


def test_halves_are_distinct_and_the_same_for_all_seeds():
    drawn = halves(list("abcdef"), 15)
    assert len(set(drawn)) == 15
    assert {len(half) for half in drawn} == {3}
    assert halves(list("abcdef"), 15) == drawn


def test_all_fits_and_influences_of_a_seed_begin_with_the_same_weights(tmp_path: Path):
    task = cast("Any", SimpleNamespace(model=lambda _: TinyModel()))
    work = Work(tmp_path / "work.jsonl")
    first, again = (Replicate(task, 1, work)._model().state_dict() for _ in range(2))
    other = Replicate(task, 2, work)._model().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_result_is_kept_and_a_line_that_was_cut_is_not(tmp_path: Path):
    path = tmp_path / "work.jsonl"
    Work(path).keep("a", {"test_loss": 0.5}, "a fit")
    with path.open("a") as file:
        file.write('\n["b", {"test_lo')
    assert Work(path).results == {"a": {"test_loss": 0.5}}
    Work(path).keep("c", {"test_loss": 0.25}, "a fit")
    assert Work(path).results == {"a": {"test_loss": 0.5}, "c": {"test_loss": 0.25}}
