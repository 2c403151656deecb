"""Configs for other trainers; those of `datasets`, TRL and axolotl's reader are run."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import load_dataset

from synque_select.cli.main import main
from synque_select.errors import ConfigError
from synque_select.export.trainers import TARGETS, Part, Recipe, Snippet, snippet

WEIGHTS = {"a": 0.5, "b, too": 0.25, "c": 0.25}
SHAPES: dict[str, dict[str, Any]] = {
    "text": {"text": "x"},
    "messages": {"messages": [{"role": "user", "content": "x"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "x"}]},
    "completion": {"prompt": "x", "completion": "y"},
    "preference": {"prompt": "x", "chosen": "y", "rejected": "z"},
    "alpaca": {"instruction": "x", "input": "", "output": "y"},
    "other": {"question": "x", "reply": "y"},
}


def recipe(folder: Path, shape: str = "text", *, names: tuple[str, ...] = (*WEIGHTS,)) -> Recipe:
    parts = []
    for name in names:
        path = folder / f"{name}.jsonl"
        rows = [{**SHAPES[shape], "id": f"{name}{i}"} for i in range(400)]
        path.write_text("\n".join(map(json.dumps, rows)))
        weight = WEIGHTS[name] if len(names) > 1 else 1.0
        parts.append(Part(name, weight, 400, str(path), rows[0]))
    return Recipe(parts, seed=0, n=800 if len(names) > 1 else 400, folder=folder)


def config(made: Snippet) -> Any:
    return yaml.safe_load(next(iter(made.files.values())))


def shares(ids: list[str]) -> dict[str, float]:
    counts = Counter(text.rstrip("0123456789") for text in ids)
    return {name: n / len(ids) for name, n in counts.items()}


def test_datasets(tmp_path: Path):
    made = snippet("datasets", recipe(tmp_path))
    names: dict[str, Any] = {}
    exec(made.files["mixture.py"], names)
    ids = names["mixture"]["id"]
    assert len(ids) == len(set(ids)) > 600
    assert shares(ids) == pytest.approx(WEIGHTS, abs=0.06)
    assert any("on average" in text for text in made.warnings)


def test_trl(tmp_path: Path):
    from trl import DatasetMixtureConfig
    from trl.scripts.utils import get_dataset

    made = snippet("trl", recipe(tmp_path))
    ids = get_dataset(DatasetMixtureConfig(**config(made)))["train"]["id"]
    assert len(ids) == 800
    assert shares(ids) == WEIGHTS
    assert any("the first rows of each file" in text for text in made.warnings)


def test_axolotl(tmp_path: Path):
    made = snippet("axolotl", recipe(tmp_path))
    ids = []
    for entry in config(made)["datasets"]:  # as its loader reads a local file
        kind, path, split = entry["ds_type"], entry["path"], entry["split"]
        ids += load_dataset(kind, data_files=path, split=split)["id"]
    assert shares(ids) == WEIGHTS
    assert made.warnings[0] == "axolotl has no weights (its issue 1508)."


def test_llama_factory(tmp_path: Path):
    made = snippet("llama-factory", recipe(tmp_path))
    content, info = config(made), json.loads(made.files["dataset_info.json"])
    assert content["dataset_dir"] == str(tmp_path)
    names = content["dataset"].split(",")
    assert names == list(info) == ["a", "b_too", "c"]
    assert "mix_strategy" not in content  # its default is to concatenate
    # as its loader reads a local file
    ids = []
    for part in info.values():
        rows = load_dataset("json", data_files=part["file_name"], split="train")
        ids += rows.select(np.random.permutation(len(rows))[: part["num_samples"]])["id"]
    assert len(ids) == len({*ids}) == 800
    assert shares(ids) == WEIGHTS


def test_ms_swift(tmp_path: Path):
    text = snippet("ms-swift", recipe(tmp_path)).files["mixture.sh"]
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    assert words[words.index("--dataset") + 1 :][:3] == [
        f"{tmp_path}/a.jsonl#400",
        f"{tmp_path}/b, too.jsonl#200",
        f"{tmp_path}/c.jsonl#200",
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_the_number_of_examples(target: str, tmp_path: Path):
    given = dataclasses.replace(recipe(tmp_path), n=40, is_n_given=True)
    made = snippet(target, given)
    text = "".join(made.files.values())
    numbers = {
        "datasets": "min(40, len(mixture))",
        "llama-factory": '"num_samples": 20',
        "axolotl": "train[:20]",
        "ms-swift": "a.jsonl#20'",
        "mosaic": "epoch_size: 40",
    }
    assert numbers.get(target, "40 (--n) is not in this config") in text
    assert not any("not 40" in warning for warning in made.warnings)
    many = snippet(target, dataclasses.replace(given, n=1000))
    if target in ("datasets", "axolotl"):
        assert any("800 examples, not 1,000" in warning for warning in many.warnings)
    elif target != "trl":  # these repeat examples
        text = "".join(many.files.values())
        assert any(n in text for n in ("#500", '"num_samples": 500', "epoch_size: 1000"))


def test_datasets_stops_at_n(tmp_path: Path):
    for names in (tuple(WEIGHTS), ("a",)):
        given = dataclasses.replace(recipe(tmp_path, names=names), n=40, is_n_given=True)
        scope: dict[str, Any] = {}
        exec(snippet("datasets", given).files["mixture.py"], scope)
        assert len(scope["mixture"]) == 40


def test_mosaic(tmp_path: Path):
    made = snippet("mosaic", recipe(tmp_path, "completion"))
    loader = config(made)["train_loader"]
    assert loader["name"] == "finetuning"
    streams = loader["dataset"]["streams"]
    assert {name: part["proportion"] for name, part in streams.items()} == {
        "a": 0.5,
        "b_too": 0.25,
        "c": 0.25,
    }
    assert loader["dataset"]["epoch_size"] == 800
    script = made.files["to_mds.py"]
    compile(script, "to_mds.py", "exec")
    assert "{'prompt': 'str', 'completion': 'str', 'id': 'str'}" in script


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(target: str, shape: str, tmp_path: Path):
    made = snippet(target, recipe(tmp_path, shape))
    name, text = next(iter(made.files.items()))
    if name.endswith(".yaml"):
        assert isinstance(yaml.safe_load(text), dict)
    is_unknown = shape == "other" and target in ("axolotl", "llama-factory")
    assert any("fill in" in warning for warning in made.warnings) == is_unknown


@pytest.mark.parametrize("target", TARGETS)
def test_one_candidate_has_no_weights(target: str, tmp_path: Path):
    made = snippet(target, recipe(tmp_path, names=("a",)))
    text = next(iter(made.files.values()))
    assert "train[:" not in text
    assert "jsonl#" not in text
    assert "interleave" not in text
    assert "fraction" not in text


@pytest.mark.parametrize("target", TARGETS)
def test_files_that_are_not_what_training_sees(target: str, tmp_path: Path):
    given = recipe(tmp_path)
    parts = [Part("a", 0.5, 9, given.parts[0].source, {}, n_changed=3), Part("b", 0.5, 9, "", {})]
    warnings = snippet(target, Recipe(parts, 0, 9, tmp_path)).warnings
    assert any("drops or relabels 3 examples of a" in text for text in warnings)
    # mosaic converts every file, with a script that the user adapts
    assert any("b: not JSON" in text for text in warnings) == (target != "mosaic")


def test_folders_of_shards(tmp_path: Path):
    from datasets import Dataset

    parts = []
    for name in ("a", "b"):
        rows = Dataset.from_dict({"text": [f"{name}{i}" for i in range(8)]})
        folder = tmp_path / name
        folder.mkdir()
        rows.select(range(5)).to_parquet(folder / "train-00000-of-00002.parquet")
        rows.select(range(5, 8)).to_parquet(folder / "train-00001-of-00002.parquet")
        parts.append(Part(name, 0.5, 8, str(folder), rows[0]))
    made = snippet("datasets", Recipe(parts, 0, 16, tmp_path))
    names: dict[str, Any] = {}
    exec(made.files["mixture.py"], names)
    assert names["parts"][0]["text"] == [f"a{i}" for i in range(8)]
    made = snippet("axolotl", Recipe(parts, 0, 8, tmp_path))
    (first, _) = config(made)["datasets"]
    assert load_dataset(first["ds_type"], data_files=first["data_files"], split=first["split"])[
        "text"
    ] == ["a0", "a1", "a2", "a3"]
    assert not any("not JSON" in text for text in made.warnings)


def test_an_unknown_target(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'axolotl'"):
        snippet("axolotle", recipe(tmp_path))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from synque_select import rank, save_ranking

    monkeypatch.chdir(tmp_path)
    for name, words in (("a", "ship order"), ("b", "track refund"), ("c", "qx zz")):
        rows = [{"text": f"{words} {i}"} for i in range(20)]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    real = [f"where is order {i}" for i in range(20)]
    save_ranking(rank("*.jsonl", real, proxies=["ngram"], top_k=2), "run")
    command = ["export", "run", "--out", "config", "--format"]
    assert main([*command, "trl"]) == 0
    out = capsys.readouterr().out
    assert "first rows" in out
    assert "wrote config/mixture.yaml" in out
    assert main([*command, "axolotl"]) == 1
    assert "mixture.yaml exists already" in capsys.readouterr().err
    assert main([*command, "axolotl", "--force"]) == 0
    assert main([*command, "nemo"]) == 1
    assert "there are: axolotl, datasets" in capsys.readouterr().err


def test_a_path_with_signs_of_a_pattern_is_that_file(tmp_path: Path):
    for name in ("a [v2]", "b*", "bc"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    parts = [
        Part(name, 0.5, 1, str(tmp_path / f"{name}.jsonl"), {"text": name})
        for name in ("a [v2]", "b*")
    ]
    script = snippet("datasets", Recipe(parts, seed=0, n=2)).files["mixture.py"]
    space: dict[str, Any] = {}
    exec(script.replace("mixture = ", "mixed = 0 and "), space)
    assert [part["text"] for part in space["parts"]] == [["a [v2]"], ["b*"]]


def test_more_draws_than_examples_keep_the_weights():
    parts = [Part("a", 0.75, 60, "a.jsonl", {}), Part("b", 0.25, 10, "b.jsonl", {})]
    made = snippet("axolotl", Recipe(parts, seed=0, n=1000))
    assert [entry["split"] for entry in config(made)["datasets"]] == ["train[:30]", "train[:10]"]
    assert "An epoch has 40 examples, not 1,000." in made.warnings
    assert Recipe(parts, seed=0, n=20).counts() == [15, 5]
