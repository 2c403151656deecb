"""`init` writes a config and a script for the data that is there, and both run."""

from __future__ import annotations

import csv
import json
import os
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from PIL import Image

from synque_select.cli.main import main
from synque_select.data.tables import quiet_datasets

WORDS = [f"word{i}" for i in range(60)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jsonl(path: Path, texts: list[str], make: Callable[[str], dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(make(text)) + "\n" for text in texts))


def texts_of(name: str) -> list[str]:
    rng = random.Random(name)
    return [" ".join(rng.sample(WORDS, 8)) for _ in range(21)]


def chats(place: Path) -> None:
    for name in ("candidates/a", "candidates/b", "real"):
        jsonl(
            place / f"{name}.jsonl",
            texts_of(name),
            lambda text: {"conversations": [{"from": "human", "value": text}]},
        )


def alpaca(place: Path) -> None:
    for name in ("data/a", "data/b", "data/real_requests"):
        jsonl(
            place / f"{name}.jsonl",
            texts_of(name),
            lambda text: {"instruction": text, "input": "", "output": "Yes."},
        )


def pairs(place: Path) -> None:
    for name in ("synthetic/a", "synthetic/b", "real"):
        path = place / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["premise", "hypothesis", "label"])
            writer.writerows(
                [text, f"so {i}", "yes" if i % 2 else "no"] for i, text in enumerate(texts_of(name))
            )


def saved(place: Path) -> None:
    with quiet_datasets():
        for name in ("a", "b", "real"):
            part = datasets.Dataset.from_dict({"text": texts_of(name)})
            datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(place / name))


def images(place: Path) -> None:
    for name, value in (("candidates/a", 30), ("candidates/b", 90), ("real", 60)):
        for i in range(4):
            path = place / name / ("cat" if i % 2 else "dog") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value + i).save(path)


@pytest.mark.parametrize(
    ("make", "view", "label"),
    [
        (chats, '# view: "chat:user"', None),
        (alpaca, "recognized as Alpaca instructions; others: alpaca:all", None),
        (pairs, '# view: "premise+hypothesis"', "label"),
        (saved, '# view: "text"', None),
        (images, '# view: "image"', None),
    ],
)
def test_the_config_is_valid_and_ranks(
    make: Any, view: str, label: str | None, place: Path, capsys: pytest.CaptureFixture[str]
):
    make(place)
    assert main(["init"]) == 0
    assert "then: synque-select validate synque.yaml" in capsys.readouterr().out
    text = Path("synque.yaml").read_text()
    assert view in text
    config = yaml.safe_load(text)
    assert config.get("label") == label
    assert main(["validate", "synque.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "synque.yaml can be used: synque-select rank --config synque.yaml" in shown
    proxy = "mmd:kernel=rbf" if make is images else "ngram"
    if make is not images:  # the image encoder is another test's
        assert main(["rank", "--config", "synque.yaml", "--proxies", proxy]) == 0
        ranking = json.loads(Path("ranking.json").read_text())
        assert sorted(row["name"] for row in ranking["candidates"]) == ["a", "b"]


def test_the_script_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import synque_select

    chats(place)
    assert main(["init", "--view", "chat:all"]) == 0
    script = Path("rank_candidates.py").read_text()
    assert len(script.strip().splitlines()) <= 12
    ranked = synque_select.rank
    monkeypatch.setattr(
        synque_select, "rank", lambda *args, **kw: ranked(*args, **kw, proxies=["ngram"])
    )
    runpy.run_path("rank_candidates.py")
    assert "train on: {" in capsys.readouterr().out
    assert "view='chat:all'" in script


def test_existing_files_are_kept_and_missing_data_is_said(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    (place / "notes.txt").write_text("x")
    assert main(["init"]) == 1
    assert "no file or folder named real… (found notes.txt); give --candidates and --real" in (
        " ".join(capsys.readouterr().err.split())
    )
    chats(place)
    (place / "synque.yaml").write_text("mine")
    assert main(["init"]) == 1
    assert "synque.yaml: already there; give --out, or --force" in capsys.readouterr().err
    assert (place / "synque.yaml").read_text() == "mine"
    assert main(["init", "--out", "new"]) == 0
    assert (place / "new" / "synque.yaml").exists()


def test_two_real_samples_are_asked_about_and_none_is_a_candidate(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    alpaca(place)
    (place / "data" / "real_requests.jsonl").rename(place / "data" / "real_a.jsonl")
    jsonl(place / "data" / "real-b.jsonl", texts_of("r"), lambda text: {"instruction": text})
    assert main(["init"]) == 1
    assert "real-b.jsonl, real_a.jsonl are named real…" in capsys.readouterr().err
    assert main(["init", "data", "--real", "data/real_a.jsonl"]) == 0
    assert "left out: real-b.jsonl" in capsys.readouterr().out
    assert yaml.safe_load(Path("synque.yaml").read_text())["candidates"] == [
        "data/a.jsonl",
        "data/b.jsonl",
    ]


def test_what_rank_and_ask_wrote_is_no_candidate(place: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "realistic", "real"):
        jsonl(place / f"{name}.jsonl", texts_of(name), lambda text: {"text": text})
    jsonl(place / "dropped_labels.jsonl", texts_of("d"), lambda text: {"text": text})
    (place / "ranking.json").write_text("{}")
    (place / "questions.csv").write_text("question,label,text")
    (place / "run_1").mkdir()
    (place / "run_1" / "labels.json").write_text("{}")
    assert main(["init"]) == 0
    out = capsys.readouterr().out
    assert "2 candidates: a, realistic" in out
    assert "left out: dropped_labels.jsonl, questions.csv, ranking.json, run_1" in out


def test_names_that_a_config_cannot_hold(place: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "b\n- c", "real"):
        jsonl(place / f"{name}.jsonl", texts_of(name), lambda text: {"text": text})
    assert main(["init"]) == 0
    config = yaml.safe_load(Path("synque.yaml").read_text())
    assert (config["candidates"], config["real"]) == (["a.jsonl", "b\n- c.jsonl"], "real.jsonl")
    (place / "a.jsonl").rename(place / os.fsdecode(b"caf\xe9.jsonl"))
    assert main(["init", "--force"]) == 1
    assert "caf\\xe9.jsonl: the name is not UTF-8" in capsys.readouterr().err
    assert "b\\n- c.jsonl" in Path("synque.yaml").read_text()  # what was there is whole
    Path("file").touch()
    assert main(["init", "--candidates", "b*", "--real", "real.jsonl", "--out", "file"]) == 1
    assert "file is a file: give a directory" in capsys.readouterr().err
