"""`synque-select export`: from a ranking to the data that training would draw."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from synque_select import SynqueDataModule, load_ranking, rank, save_ranking
from synque_select.cli.main import main
from synque_select.data.views import fields_view
from synque_select.records.dropped_labels_file import save_dropped_labels
from synque_select.types import DroppedLabel, Ranking
from synque_select.types.label_filter import LabelFilterRecord

WORDS = {"near": "ship order track parcel", "close": "ship order refund lost", "far": "qx zz vv kk"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, words in WORDS.items():
        lines = [
            json.dumps({"text": f"{words} {i}", "label": i % 2, "topic": name}) for i in range(30)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    real = [json.dumps({"text": f"where is order {i}, ship or refund"}) for i in range(25)]
    (tmp_path / "real.jsonl").write_text("\n".join(real))
    return tmp_path


def ranked(folder: Path, **options: object) -> Ranking:
    options = {"view": "text", "label": "label", "top_k": 2, **options}
    ranking = rank("*.jsonl", options.pop("real", "real.jsonl"), proxies=["ngram"], **options)
    save_ranking(ranking, folder / "run")
    return ranking


def only_candidates(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "real.jsonl").rename(folder / "data" / "real.jsonl")


def rows(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_same_draws_as_training(data: Path, capsys: pytest.CaptureFixture[str]):
    only_candidates(data)
    ranking = ranked(data, real="data/real.jsonl")
    assert main(["export", "run", "--out", "mix.jsonl", "--seed", "3", "--n", "50"]) == 0
    dm = SynqueDataModule(
        "*.jsonl", mixture=ranking.top(), seed=3, epoch_length=50, batch_size=5, view="text"
    )
    batches = dm.train_dataloader()
    served = [text for batch in batches for text in batch["text"]]
    exported = rows("mix.jsonl")
    assert [row["text"] for row in exported] == served
    assert {row["synque_origin"] for row in exported} == set(ranking.top().names)
    out = capsys.readouterr().out
    assert "wrote mix.jsonl: 50 examples" in out
    assert "0.5000" in out


def test_equal_weights_are_in_the_ranking(data: Path):
    only_candidates(data)
    ranking = ranked(data, real="data/real.jsonl")
    state = json.loads((data / "run" / "ranking.json").read_text())
    equal = dict.fromkeys(ranking.top().names, 0.5)
    assert {row["name"]: row["weight"] for row in state["selected"]} == equal
    assert state["decision"]["mixture"]["weights"] == equal
    assert [row["source"] for row in state["candidates"]] == [
        "close.jsonl",
        "far.jsonl",
        "near.jsonl",
    ]
    assert {row["view"] for row in state["candidates"]} == {"text"}
    assert {row["label"] for row in state["candidates"]} == {"label"}


def test_without_n_no_example_is_repeated(data: Path):
    only_candidates(data)
    ranked(data, real="data/real.jsonl")
    assert main(["export", "run/ranking.json", "--out", "mix.jsonl", "--quiet"]) == 0
    texts = [row["text"] for row in rows("mix.jsonl")]
    assert len(texts) == len(set(texts)) == 60


def test_a_view_of_several_fields(data: Path):
    only_candidates(data)
    real = [{"text": f"where is ship {i}", "topic": "near"} for i in range(25)]
    ranked(data, real=real, view=fields_view("text", "topic"))
    assert load_ranking(data / "run").candidates[0].view == "text,topic"
    assert main(["export", "run", "--out", "mix.jsonl"]) == 0


@pytest.mark.parametrize("relabel", [False, True])
def test_the_label_filter(relabel: bool, data: Path, capsys: pytest.CaptureFixture[str]):
    only_candidates(data)
    ranking = ranked(data, real="data/real.jsonl")
    name = ranking.top().names[0]
    record = LabelFilterRecord("auto", True, "2 were found.", 1.0, 1.0, {}, {name: 2}, relabel)
    save_ranking(dataclasses.replace(ranking, label_filter=record), data / "run")
    dropped = {name: [DroppedLabel(i, "0", "1", 1.0) for i in (0, 2)]}
    save_dropped_labels(data / "run" / "dropped_labels.jsonl", dropped, relabel=relabel)
    assert main(["export", "run", "--out", "mix.jsonl"]) == 0
    labels = {row["text"]: row["label"] for row in rows("mix.jsonl")}
    first = f"{WORDS[name]} 0"
    assert labels.get(first) == (1 if relabel else None)
    assert "2 were found." in capsys.readouterr().out


def test_candidates_elsewhere(data: Path, capsys: pytest.CaptureFixture[str]):
    only_candidates(data)
    ranked(data, real="data/real.jsonl")
    (data / "moved").mkdir()
    for name in WORDS:
        os.rename(f"{name}.jsonl", f"moved/{name}.jsonl")
    assert main(["export", "run", "--out", "mix.jsonl"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "is no longer where it was ranked" in error
    assert f"{data}/" in error
    assert "--candidates" in error
    assert main(["export", "run", "--out", "mix.jsonl", "--candidates", "moved"]) == 0


def test_from_another_working_directory(data: Path, monkeypatch: pytest.MonkeyPatch):
    only_candidates(data)
    ranking = ranked(data, real="data/real.jsonl", family="^(.)")
    assert ranking.origin.working_dir == str(data)
    assert ranking.origin.real_source == "data/real.jsonl"
    assert ranking.origin.options == {"family": "^(.)"}
    assert load_ranking(data / "run").origin == ranking.origin
    assert main(["export", "run", "--out", "here.jsonl"]) == 0
    (data / "else" / "where").mkdir(parents=True)
    # the same relative path leads to other data here
    (data / "else" / "where" / "near.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    monkeypatch.chdir(data / "else" / "where")
    assert main(["export", str(data / "run"), "--out", "there.jsonl"]) == 0
    assert rows("there.jsonl") == rows(str(data / "here.jsonl"))


def test_a_project_that_was_moved(data: Path, monkeypatch: pytest.MonkeyPatch):
    project = data / "old"
    project.mkdir()
    for name in (*WORDS, "real"):
        os.rename(f"{name}.jsonl", project / f"{name}.jsonl")
    monkeypatch.chdir(project)
    ranking = rank("[cfn]*.jsonl", "real.jsonl", view="text", proxies=["ngram"], top_k=2)
    save_ranking(ranking, "runs/first")
    monkeypatch.chdir(data)
    project.rename(data / "new")
    assert main(["export", "new/runs/first", "--out", "mix.jsonl"]) == 0
    assert len(rows("mix.jsonl")) == 60


def test_an_old_ranking_and_one_from_memory(data: Path, capsys: pytest.CaptureFixture[str]):
    only_candidates(data)
    ranked(data, real="data/real.jsonl")
    file = data / "run" / "ranking.json"
    state = json.loads(file.read_text())
    for row in state["candidates"]:
        for key in ("source", "view", "label"):
            del row[key]
    file.write_text(json.dumps(state))
    assert main(["export", "run", "--out", "mix.jsonl"]) == 1
    assert "does not say where" in capsys.readouterr().err
    command = ["export", "run", "--out", "mix.jsonl", "--candidates", "*.jsonl", "--view", "text"]
    assert main(command) == 0


def test_changed_data(data: Path, capsys: pytest.CaptureFixture[str]):
    only_candidates(data)
    ranking = ranked(data, real="data/real.jsonl")
    name = ranking.top().names[0]
    with (data / f"{name}.jsonl").open("a") as stream:
        stream.write('\n{"text": "one more", "label": 0, "topic": "new"}')
    assert main(["export", "run", "--out", "mix.jsonl"]) == 1
    assert f"{name}.jsonl) has 31 examples" in capsys.readouterr().err
    assert not (data / "mix.jsonl").exists()


def test_an_existing_file(data: Path, capsys: pytest.CaptureFixture[str]):
    Path("mix.jsonl").write_text("mine")
    assert main(["export", "missing", "--out", "mix.jsonl"]) == 1  # checked before anything is read
    assert "--force" in capsys.readouterr().err
