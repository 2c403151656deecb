"""The recipe web_navigation: steps, no leak, pages for LENS, LoRA on a tiny model, its configs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from synque_select.errors import ConfigError, DataError
from synque_select.recipes.web_navigation import WebTask, rank_partitions, steps_of
from synque_select.types import Examples
from tests.training.released_layout import write_web

RELEASED = os.environ.get("SYNQUE_BENCHMARK_DATA")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_web(tmp_path_factory.mktemp("released")))


def contents(examples: Examples) -> set[bytes]:
    return {row.tobytes() for row in examples.digests}


def conversation(task: str, n_steps: int = 2, **more: str) -> dict[str, object]:
    turns = [{"role": "user", "content": task}]
    for i in range(n_steps):
        turns.append({"role": "assistant", "content": f"click [{i}] {task}"})
        turns.append({"role": "user", "content": f"page {i}"})
    return {"messages": turns, **more}


def test_each_turn_of_the_agent_is_a_step():
    steps = steps_of(conversation("Buy tea", 2, page="Shop"), "line 1")
    assert [step["answer"] for step in steps] == ["click [0] Buy tea", "click [1] Buy tea"]
    assert [len(step["prompt"]) for step in steps] == [1, 3]
    assert {step["task"] for step in steps} == {"Buy tea"}
    assert {step["page"] for step in steps} == {"Shop"}


@pytest.mark.parametrize(
    "broken",
    [
        {"text": "no messages"},
        {"messages": "Buy tea"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "Buy tea"}]},
        {"messages": [{"role": "assistant", "content": "click"}]},
    ],
)
def test_a_broken_trajectory_is_named(broken: dict[str, object]):
    with pytest.raises(DataError, match="line 7: expected"):
        steps_of(broken, "line 7")


def test_the_released_layout_gives_partitions_of_one_site(data: str):
    task = WebTask(data)
    assert task.real_sample(0).name.startswith("real, draw")
    assert [c.name for c in task.candidates] == [f"portion={i}" for i in range(4)]
    assert "maps" in task.candidates[0][0]["task"]
    assert "shop" in WebTask(data, site="shop").candidates[0][0]["task"]
    with pytest.raises(ConfigError, match="site='shopp'"):
        WebTask(data, site="shopp")


def test_no_task_is_in_two_places(data: str):
    task = WebTask(data)
    validation, test = contents(task.validation), contents(task.test)
    assert not validation & test
    assert len(task.validation) + len(task.test) == 12
    for replicate in range(6):
        assert not contents(task.real_sample(replicate)) & (validation | test)
        assert set(task.real_sample(replicate)[0]) == {"task", "page"}


def test_a_page_is_seen_only_where_it_is_asked_for(data: str):
    plain, paged = WebTask(data), WebTask(data, page_chars=20)
    assert plain.candidates[0].views[0] == plain.candidates[0][0]["task"]
    shown = json.loads(str(paged.candidates[0].views[0]))
    assert shown["page"] == "RootWebArea 'maps', "
    assert shown["task"] == plain.candidates[0].views[0]


def write_lines(path: Path, records: list[dict[str, object]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def own(folder: Path, **options: object) -> WebTask:
    for i in range(3):
        made = [conversation(f"Made {i} {j}") for j in range(6)]
        write_lines(folder / "candidates" / f"{i}.jsonl", made)
    real = [{"task": f"Real {i}"} for i in range(9)]
    held = [conversation(f"Real {i}", 3) for i in range(4)]
    held += [conversation(f"Held {i}", 3) for i in range(6)]
    return WebTask(
        candidates=str(folder / "candidates" / "*.jsonl"),
        real=write_lines(folder / "real.jsonl", real),
        labelled=write_lines(folder / "held.jsonl", held),
        **options,  # type: ignore[arg-type]
    )


def test_trajectories_of_your_own(tmp_path: Path):
    task = own(tmp_path, batch_size=4, epochs=2)
    assert task.n_distinct == 12
    assert task.max_steps == 6
    # what is in the real pool is measured by nothing, and a task's steps stay together
    assert len(task.validation) + len(task.test) == 18
    asked = [{step["task"] for step in part} for part in (task.validation, task.test)]
    assert not asked[0] & asked[1]
    assert not any(name.startswith("Real") for part in asked for name in part)
    assert task.messages({}) == (
        "the loss is that of held-out steps: no live environment, no success rate",
    )


def test_an_answer_changes_the_fingerprint_though_no_view_shows_it(tmp_path: Path):
    first = own(tmp_path / "a").fingerprint()
    task = own(tmp_path / "b")
    task.candidates[0].dataset[0]["answer"] = "click nothing"  # type: ignore[index]
    assert task.fingerprint() != first


def test_what_is_missing_is_named(tmp_path: Path, data: str):
    with pytest.raises(ConfigError, match="needs real= and labelled="):
        WebTask(candidates="x/*.jsonl")
    with pytest.raises(ConfigError, match="page_chars"):
        WebTask(data, page_chars=-1)
    (Path(data) / "web_agent" / "original" / "real" / "maps.json").rename(tmp_path / "away")
    try:
        with pytest.raises(DataError, match=r"no real tasks; expected the file .*maps\.json"):
            WebTask(data)
    finally:
        (tmp_path / "away").rename(Path(data) / "web_agent" / "original" / "real" / "maps.json")


def test_partitions_are_ranked_by_site(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    rankings = rank_partitions(data, proxies=["ngram", "baseline_length"], progress=False)
    assert set(rankings) == {"maps", "shop"}
    assert all(len(ranking.candidates) == 4 for ranking in rankings.values())


@pytest.mark.skipif(RELEASED is None, reason="SYNQUE_BENCHMARK_DATA is not set")
def test_every_site_of_the_released_data():
    rankings = rank_partitions(RELEASED, proxies=["ngram"], progress=False)
    for site in rankings:
        task = WebTask(RELEASED, site=site, page_chars=300)
        assert len(task.test) >= 10
        assert "RootWebArea" in str(task.candidates[0].views[0])
        known = contents(task.validation) | contents(task.test)
        assert not contents(task.real_sample(1)) & known
