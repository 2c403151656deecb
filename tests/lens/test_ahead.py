"""An engine that answers in batches is asked everything at once, and the ranking is the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from synque_select.errors import LLMError
from synque_select.functional.lens import LABELS
from synque_select.lens.config import AdaptiveJudging, LensConfig
from synque_select.lens.rubric import Rubric
from synque_select.llm.base import Failure
from synque_select.llm.scripted import ScriptedLLM
from synque_select.proxies.lens import Lens
from synque_select.selection.scorer import rank
from synque_select.types import Ranking
from tests.lens.scripts import weigh_labels, write_points
from tests.lens.test_run import words

RUBRICS = {name: Rubric((name,), ("y",), ("w",)) for name in ("near", "far", "odd")}


def write(prompt: str) -> str:
    if "Samples of dataset B:" in prompt:
        return write_points(prompt)
    weights = weigh_labels(prompt, LABELS)
    return LABELS[weights.index(max(weights))]


class Batched(ScriptedLLM):
    """Counts how often it is asked, and how much at once."""

    can_batch = answers_in_batches = True

    def __init__(self, fails: str = "no prompt") -> None:
        super().__init__(write, weigh_labels, id="telling")
        self.calls: list[int] = []
        self._fails = fails

    def generate(self, prompts: Sequence[Any], **options: Any) -> Any:
        self.calls.append(len(prompts))
        for position, answer in super().generate(prompts, **options):
            failed = self._fails in str(prompts[position])
            yield position, Failure("it failed") if failed else answer

    def choice_probabilities(self, shared: Any, items: Any, suffixes: Any, choices: Any) -> Any:
        self.calls.append(len(items) * len(suffixes))
        for position, rows in super().choice_probabilities(shared, items, suffixes, choices):
            failed = self._fails in str(items[position])
            yield position, Failure("it failed") if failed else rows


class Direct(Batched):
    answers_in_batches = False


def ranked(path: Path, llm: ScriptedLLM, **options: Any) -> Ranking:
    given = {"scorer": llm, "answers": str(path), "progress": False, **options}
    candidates = {"near": words(0, 60), "far": words(5, 64), "odd": words(9, 50)}
    suite = [Lens(LensConfig(**given))]
    return rank(candidates, words(0, 12), proxies=suite, top_k=1, progress=False)


def scores(ranking: Ranking) -> dict[str, float]:
    return {row.name: row.scores["lens"] for row in ranking}


@pytest.mark.parametrize("readout", ["expectation", "label"])
def test_all_candidates_are_asked_about_at_once(tmp_path, readout):
    llm, direct = Batched(), Direct()
    options: dict[str, Any] = {"rubrics": RUBRICS, "readout": readout}
    first = ranked(tmp_path / "a.sqlite", llm, **options)
    second = ranked(tmp_path / "b.sqlite", direct, **options)
    assert scores(first) == scores(second)
    assert len(llm.calls) == 1
    assert sum(llm.calls) == sum(direct.calls)
    assert first.details["lens"]["questions"] == second.details["lens"]["questions"]
    again = Batched()
    assert scores(ranked(tmp_path / "a.sqlite", again, **options)) == scores(first)
    assert again.calls == []


def test_rubrics_are_asked_for_at_once(tmp_path):
    llm, direct = Batched(), Direct()
    first = ranked(tmp_path / "a.sqlite", llm)
    assert scores(first) == scores(ranked(tmp_path / "b.sqlite", direct))
    assert llm.calls[0] == 9
    assert len(llm.calls) == 2


def test_each_round_of_adaptive_judging_is_asked_at_once(tmp_path):
    adaptive = AdaptiveJudging(delta=0.05, rounds=5, top_k=1)
    llm, direct = Batched(), Direct()
    first = ranked(tmp_path / "a.sqlite", llm, rubrics=RUBRICS, adaptive=adaptive)
    second = ranked(tmp_path / "b.sqlite", direct, rubrics=RUBRICS, adaptive=adaptive)
    assert scores(first) == scores(second)
    assert len(llm.calls) <= 1 + 5
    assert sum(llm.calls) == sum(direct.calls)


def test_questions_that_fail_are_counted_and_not_asked_twice(tmp_path):
    llm, direct = Batched("w2x3"), Direct("w2x3")
    options: dict[str, Any] = {"rubrics": RUBRICS, "failure_threshold": 0.5}
    first = ranked(tmp_path / "a.sqlite", llm, **options)
    second = ranked(tmp_path / "b.sqlite", direct, **options)
    assert scores(first) == scores(second)
    assert first.details["lens"]["questions"] == second.details["lens"]["questions"]
    assert len(llm.calls) == 1
    with pytest.raises(LLMError, match="it failed"):
        ranked(tmp_path / "c.sqlite", Batched("w2x3"), rubrics=RUBRICS)


def test_the_estimate_names_both_prices(tmp_path):
    prices = {"scorer": {"input": 1000.0, "output": 1000.0}}

    def cost(llm: ScriptedLLM) -> str:
        path = tmp_path / f"{type(llm).__name__}.sqlite"
        ranking = ranked(path, llm, rubrics=RUBRICS, prices=prices)
        return str(ranking.details["lens"]["cost"]).rpartition("prices: ")[2]

    plain = float(cost(ScriptedLLM(write_points, weigh_labels)).split()[-1].rstrip("."))
    assert cost(Direct()) == (
        f"judging about {plain:,.2f} ({plain / 2:,.2f} in batches, with `batch: true`)."
    )
    assert cost(Batched()) == (
        f"judging about {plain / 2:,.2f} in batches ({plain:,.2f} if asked directly)."
    )


def test_lens_over_a_batch_api_ranks_as_over_direct_questions(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    from synque_select.llm import batches
    from tests.llm.batch_server import BatchServer
    from tests.llm.test_batches import answering

    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batches, "_FIRST_POLL_S", 0.05)
    with BatchServer(answering) as server:
        spec = {"engine": "openai", "model_id": "m", "base_url": server.url}
        results = [
            ranked(
                tmp_path / f"{batch}.sqlite",
                json.loads(json.dumps({**spec, "batch": batch})),
                rubrics=RUBRICS,
            )
            for batch in (False, True)
        ]
        assert scores(results[0]) == scores(results[1])
        assert len(server.batches) == 1
        assert server.n_lines > 500
