"""Data as people have it gives the same ranking on the command line, from YAML and in Python."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml

from synque_select import rank
from synque_select.cli.main import main
from synque_select.data import load_candidates, load_real
from synque_select.data.left_out import left_out_messages
from synque_select.data.tables import quiet_datasets
from synque_select.errors import DataError
from synque_select.selection.scorer import Scorer
from synque_select.types import Ranking

NEAR = ["how many apps are free", "list all users of the app", "which app is new", "count the apps"]
FAR = ["the rain falls on hills", "a poem of the sea", "winter comes to town", "birds sing songs"]
REAL = ["how many users are there", "list the free apps", "which users are new", "count all users"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))


def chat(text: str) -> dict[str, Any]:
    return {"id": "7", "messages": [{"role": "user", "content": text}, answer("assistant")]}


def answer(role: str) -> dict[str, str]:
    return {"role": role, "content": "Of course."}


def sharegpt(text: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]}


def alpaca(text: str) -> dict[str, Any]:
    return {"instruction": text, "input": "", "output": "Of course."}


def preference(text: str) -> dict[str, Any]:
    return {"prompt": text, "chosen": "Of course.", "rejected": "Never."}


def completion(text: str) -> dict[str, Any]:
    return {"prompt": text, "completion": "Of course."}


def pair(text: str) -> dict[str, Any]:
    first, _, second = text.partition(" ")
    return {"premise": first, "hypothesis": second, "label": "entailment"}


def tags(text: str) -> dict[str, Any]:
    return {"tokens": text.split(), "ner_tags": [0] * len(text.split())}


def nested(text: str) -> dict[str, Any]:
    return {"request": {"turns": [{"body": text}]}, "n": 1}


FORMS = {
    "messages": (chat, None),
    "chat:user": (chat, "chat:user"),
    "chat:all": (chat, "chat:all"),
    "messages as a view": (chat, "messages"),
    "ShareGPT": (sharegpt, None),
    "a path": (sharegpt, "conversations.0.value"),
    "Alpaca": (alpaca, None),
    "alpaca:prompt": (alpaca, "alpaca:prompt"),
    "preferences": (preference, None),
    "completions": (completion, None),
    "pairs": (pair, None),
    "premise+hypothesis": (pair, "premise+hypothesis"),
    "two fields": (pair, "premise,hypothesis"),
    "tags": (tags, None),
    "a deep path": (nested, "request.turns.0.body"),
    "a function": (nested, "my_views_of_forms.body"),
}


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def on_every_surface(
    options: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[Ranking]:
    """Rank by command, YAML and function with the same options."""
    flags = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    target = folder / "ranking.json"
    assert main(["rank", *flags, "--proxies", "ngram", "--json", str(target)]) == 0
    capsys.readouterr()
    by_command = Ranking.from_dict(json.loads(target.read_text()))
    (folder / "rank.yaml").write_text(yaml.safe_dump(plain(options) | {"proxies": "ngram"}))
    assert main(["rank", "--config", str(folder / "rank.yaml"), "--json", str(target)]) == 0
    by_config = Ranking.from_dict(json.loads(target.read_text()))
    capsys.readouterr()
    given = {name: value for name, value in options.items()}
    by_function = rank(**given, proxies=["ngram"], progress=False)
    return [by_command, by_config, by_yaml(given, folder), by_function]


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as YAML has them."""
    return {
        name: [str(part) for part in value] if isinstance(value, list) else str(value)
        for name, value in options.items()
    }


def by_yaml(options: dict[str, Any], folder: Path) -> Ranking:
    from jsonargparse import ArgumentParser

    from synque_select import SynqueDataModule

    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"data": plain(options)}))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SynqueDataModule, "data")
    parsed = parser.parse_args(["--config", str(config)])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    data = instantiate(parsed).data
    return Scorer(["ngram"], progress=False).rank(data.candidates, data.real)


def check(rankings: list[Ranking], names: tuple[str, ...]) -> None:
    for ranking in rankings:
        assert tuple(row.name for row in ranking) == names
    first, *others = ({row.name: row.sha256 for row in ranking} for ranking in rankings)
    assert all(other == first for other in others)
    assert len({ranking.messages for ranking in rankings}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_records_of_every_form(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make, view = FORMS[form]
    (tmp_path / "my_views_of_forms.py").write_text(
        "def body(record):\n    return record['request']['turns'][0]['body']\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, texts in (("far", FAR), ("near", NEAR), ("real", REAL)):
        write(tmp_path / name / f"{name}.jsonl", [make(text) for text in texts])
    options = {
        "candidates": [tmp_path / "far" / "far.jsonl", tmp_path / "near" / "near.jsonl"],
        "real": tmp_path / "real" / "real.jsonl",
    }
    rankings = on_every_surface(
        options | ({} if view is None else {"view": view}), tmp_path, capsys
    )
    check(rankings, ("near", "far"))
    is_said = any("the view is" in message for message in rankings[0].messages)
    assert is_said == (view is None)


def test_the_real_side_has_a_view_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, texts in (("far", FAR), ("near", NEAR)):
        write(tmp_path / f"{name}.jsonl", [preference(text) for text in texts])
    write(tmp_path / "real.jsonl", [{"query": text, "title": "x"} for text in REAL])
    options = {
        "candidates": [tmp_path / "far.jsonl", tmp_path / "near.jsonl"],
        "real": tmp_path / "real.jsonl",
        "view": "prompt",
        "real_view": "query",
    }
    check(on_every_surface(options, tmp_path, capsys), ("near", "far"))


def shards(folder: Path, texts: list[str]) -> None:
    for number in range(2):
        part = datasets.Dataset.from_dict({"text": texts[2 * number : 2 * number + 2]})
        folder.mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / f"train-{number:05d}-of-00002.parquet")


def saved(folder: Path, texts: list[str]) -> None:
    train = datasets.Dataset.from_dict({"text": texts})
    datasets.DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(str(folder))


@pytest.mark.parametrize("make", [shards, saved])
@pytest.mark.parametrize("given", ["folder", "glob", "list", "names"])
def test_folders_of_shards_and_saved_splits(
    make: Any, given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with quiet_datasets():
        for name, texts in (("data/far", FAR), ("data/near", NEAR), ("real", REAL)):
            make(tmp_path / name, texts)
    data = tmp_path / "data"
    sources: dict[str, Any] = {
        "folder": [data],
        "glob": [f"{data}/*"],
        "list": [data / "far", data / "near"],
        "names": [f"a={data}/far", f"b={data}/near"],
    }
    options = {"candidates": sources[given], "real": tmp_path / "real"}
    names = ("b", "a") if given == "names" else ("near", "far")
    rankings = on_every_surface(options, tmp_path, capsys)
    check(rankings, names)
    if make is saved:
        assert any("the split 'train' is read" in message for message in rankings[0].messages)
        check(on_every_surface({**options, "split": "train"}, tmp_path, capsys), names)


def test_a_split_for_each_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with quiet_datasets():
        for name, texts in (("near", NEAR), ("far", FAR)):
            saved(tmp_path / "data" / name, texts)
        train = datasets.Dataset.from_dict({"text": FAR})
        test = datasets.Dataset.from_dict({"text": REAL})
        both = datasets.DatasetDict({"train": train, "validation": test})
        both.save_to_disk(str(tmp_path / "real"))
    data, real = tmp_path / "data", tmp_path / "real"
    options = {"candidates": [data / "near", data / "far"], "real": real}
    rankings = on_every_surface({**options, "real_split": "validation"}, tmp_path, capsys)
    check(rankings, ("near", "far"))
    given = {name: str(value) for name, value in options.items()} | {"candidates": str(data)}
    with pytest.raises(DataError, match=r"no split 'validation'.* alone: real_split="):
        rank(**given, split="validation", proxies=["ngram"])
    flat = ["--candidates", str(data), "--real", str(tmp_path / "real.jsonl"), "--real-split", "x"]
    write(tmp_path / "real.jsonl", [{"text": text} for text in REAL])
    assert main(["rank", *flat, "--proxies", "ngram"]) == 1
    assert "real_split='x': the real sample has no splits; leave it out" in capsys.readouterr().err


def test_compressed_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, texts in (("near", NEAR), ("far", FAR), ("real", REAL)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines))
    options = {
        "candidates": [tmp_path / "near.jsonl.gz", tmp_path / "far.jsonl.gz"],
        "real": tmp_path / "real.jsonl.gz",
    }
    check(on_every_surface(options, tmp_path, capsys), ("near", "far"))


def test_what_was_read_of_each_is_said_once(tmp_path: Path):
    with quiet_datasets():
        for name, texts in (("a", NEAR), ("b", FAR), ("c", NEAR[:3]), ("real", REAL)):
            train = datasets.Dataset.from_dict({"text": texts})
            test = train.select(range(len(texts) - 2))
            folder = str(tmp_path / name)
            datasets.DatasetDict({"train": train, "test": test}).save_to_disk(folder)
        shards(tmp_path / "d", FAR)
    candidates = load_candidates([tmp_path / name for name in "abcd"])
    assert left_out_messages(candidates[:2], load_real(tmp_path / "real")) == (
        "real, a, b: the split 'train' is read; left out: test (2).",
    )
    assert left_out_messages(candidates[1:], load_real(REAL)) == (
        "b, c: the split 'train' is read; left out: test.",
        "d: 2 files are read as one dataset (train-00000-of-00002.parquet, "
        "train-00001-of-00002.parquet).",
    )


def test_mappings_in_yaml_and_python(tmp_path: Path):
    with quiet_datasets():
        shards(tmp_path / "far", FAR)
        shards(tmp_path / "near", NEAR)
    write(tmp_path / "real.jsonl", [{"text": text} for text in REAL])
    frame = pd.DataFrame({"text": NEAR})
    real = str(tmp_path / "real.jsonl")
    files = [str(path) for path in sorted((tmp_path / "far").iterdir())]
    rankings = [
        rank({"near": near, "far": far}, real, proxies=["ngram"], progress=False)
        for near, far in (
            (tmp_path / "near", f"{tmp_path}/far/*.parquet"),
            (frame, files),
            (
                datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)}),
                tmp_path / "far",
            ),
        )
    ]
    for ranking in rankings:
        assert [row.sha256 for row in ranking] == [row.sha256 for row in rankings[0]]
        assert ranking.top(1).names == ("near",)


@pytest.mark.parametrize("view", [["premise", "hypothesis"], "premise,hypothesis"])
def test_lists_and_tuples_of_fields(view: Any, tmp_path: Path):
    write(tmp_path / "a.jsonl", [pair(text) for text in NEAR])
    write(tmp_path / "b.jsonl", [pair(text) for text in FAR])
    write(tmp_path / "real.jsonl", [pair(text) for text in REAL])
    from jsonargparse import ArgumentParser

    from synque_select import SynqueDataModule

    data = {"candidates": [str(tmp_path / f"{n}.jsonl") for n in "ab"], "view": view}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": data}))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SynqueDataModule, "data")
    parsed = parser.parse_args(["--config", str(tmp_path / "c.yaml")])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    views = instantiate(parsed).data.candidates[0].views
    assert views[0] == '{"premise": "how", "hypothesis": "many apps are free"}'
    loaded = SynqueDataModule(data["candidates"], view=tuple(["premise", "hypothesis"]))
    assert loaded.candidates[0].views[0] == views[0]
