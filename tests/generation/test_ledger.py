"""What a run has paid for, also across kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.generation.ledger import Ledger, MeteredLLM, Spent
from synque_select.llm.scripted import ScriptedLLM


def test_every_answer_is_counted_before_it_is_passed_on(tmp_path: Path):
    engine = ScriptedLLM(lambda prompt: prompt * 2)
    metered = MeteredLLM(engine, Ledger(tmp_path / "usage.jsonl"), "generator")
    for _ in metered.generate(["a" * 8, "b" * 16, "c" * 24]):
        spent = metered._ledger.spent()
        assert spent.n_requests == engine.usage.n_requests
        assert spent.n_answer_tokens == engine.usage.n_answer_tokens
    assert metered._ledger.spent() == Spent(3, 12, 24)


def test_an_answer_that_is_not_taken_is_counted(tmp_path: Path):
    class Ahead(ScriptedLLM):
        def generate(self, prompts, **options):
            yield from list(super().generate(prompts, **options))  # all are asked at once

    metered = MeteredLLM(Ahead(lambda p: p), Ledger(tmp_path / "usage.jsonl"), "reasoner")
    answers = metered.generate(["a", "b", "c"])
    next(answers)
    answers.close()
    assert metered._ledger.spent().n_requests == 3


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path: Path):
    ledger = Ledger(tmp_path / "usage.jsonl")
    ledger.add("generator", (1, 10, 0, 5), in_batches=False)
    with ledger.path.open("ab") as stream:
        stream.write(b'\n{"role": "gen')
    ledger.add("generator", (1, 20, 0, 5), in_batches=False)
    assert ledger.spent() == Spent(2, 30, 10)


def test_prices_by_role_and_half_of_them_in_batches(tmp_path: Path):
    ledger = Ledger(tmp_path / "usage.jsonl")
    ledger.add("generator", (1, 1_000_000, 0, 500_000), in_batches=False)
    ledger.add("reasoner", (1, 1_000_000, 0, 0), in_batches=True)
    prices = {"generator": {"input": 1.0, "output": 4.0}, "reasoner": {"input": 3.0, "output": 0.0}}
    assert ledger.spent(prices).money == pytest.approx(1 + 2 + 1.5)


def test_a_ledger_that_cannot_be_written(tmp_path: Path):
    ledger = Ledger(tmp_path / "absent" / "usage.jsonl")
    with pytest.raises(RecordError, match="cannot write"):
        ledger.add("generator", (1, 1, 0, 1), in_batches=False)
