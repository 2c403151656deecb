"""`validate` finds what is wrong in a config before any model is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from synque_select.cli.main import main

TEXTS = [f"how many {word} are there {i}" for i in range(7) for word in ("apps", "users", "days")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "real"):
        records = [{"text": f"{text} {name}", "kind": i % 2} for i, text in enumerate(TEXTS)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return tmp_path


def config(**changed: Any) -> str:
    content = {"candidates": ["a.jsonl", "b.jsonl"], "real": "real.jsonl", **changed}
    Path("c.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return "c.yaml"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"candidates": {"x": "a.jsonl", "y": ["b.jsonl", "a.jsonl"]}},
        {"candidates": ["x=a.jsonl", "y=b.jsonl"], "label": "kind", "view": "text"},
        {"view": ["text", "kind"], "real_view": "text", "real_groups": "false"},
        {"candidates": "[ab].jsonl", "proxies": "pad,mmd"},  # one text in place of a list
        {"top_k": 1, "mixture": "proportional", "proxies": ["pad", "mmd"]},
    ],
)
def test_a_good_config(changed: Any, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", config(**changed)]) == 0
    assert "c.yaml can be used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": ["a.jsonl", "missing.jsonl"]}, "missing.jsonl: no such file or folder"),
        ({"view": "txt"}, "no field 'txt'; did you mean 'text'"),
        ({"label": "kinds"}, "no field 'kinds'; did you mean 'kind'"),
        ({"proxies": ["padd"]}, "did you mean 'pad'"),
        ({"real_view": "kind"}, "must be a text or an image, found int"),
        ({"topk": 3}, "c.yaml, line 5: unknown option 'topk': did you mean 'top_k'? There are: "),
        ({"reel": "real.jsonl"}, "did you mean 'real'?"),
        ({"encoder": "no/such@"}, "no/such"),
        ({"real": None}, "real"),
        ({"json": "missing/folder/r.txt"}, "r.txt"),
    ],
)
def test_what_is_wrong_is_one_line(changed: Any, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", config(**changed)]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_line_adds_to_what_a_config_gives(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("ship", "lamp", "river", "stone", "cloud", "piano")
    pairs = [f"a {one} beside the {other}" for one in words for other in words if one != other]
    (place / "real.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in pairs))
    more = ["--candidates", "b.jsonl", "--quiet", "--view", "text"]
    assert main(["rank", "--config", config(candidates="a.jsonl", proxies="ngram"), *more]) == 0
    assert "(2 candidates of 21 examples" in capsys.readouterr().out
    assert main(["rank", "--config", config(candidates={"x": "a.jsonl"}), *more]) == 1
    assert "--candidates adds to a list" in capsys.readouterr().err


def test_a_broken_example_is_found(place: Path, capsys: pytest.CaptureFixture[str]):
    with (place / "b.jsonl").open("a") as file:
        file.write('{"text": 7, "kind": 1}\n')
    assert main(["validate", config()]) == 1
    assert "example 21 (counted from 0): expected a text, found int" in capsys.readouterr().err


MODEL = """
import pytorch_lightning as pl

class Model(pl.LightningModule):
    def __init__(self, size: int = 3):
        raise RuntimeError("a model was loaded")
"""


def fit_config(place: Path, trainer: dict[str, Any] | None = None, **data: Any) -> str:
    (place / "my_model_of_validate.py").write_text(MODEL)
    content = {
        "model": {"class_path": "my_model_of_validate.Model", "init_args": {"size": 4}},
        "data": {
            "class_path": "synque_select.SynqueDataModule",
            "init_args": {"candidates": {"a": "a.jsonl", "b": "b.jsonl"}, **data},
        },
        "trainer": {
            "accelerator": "gpu",
            "callbacks": [
                {
                    "class_path": "synque_select.callbacks.SelectionCallback",
                    "init_args": {"proxies": ["ngram"]},
                }
            ],
            **(trainer or {}),
        },
    }
    (place / "fit.yaml").write_text(yaml.safe_dump(content))
    return "fit.yaml"


def test_a_config_of_fit_without_its_model(place: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", fit_config(place, real="real.jsonl", label="kind")]) == 0
    shown, notes = capsys.readouterr()
    assert notes == ""  # neither a seed nor the devices of this machine
    assert "proxies: ngram" in shown
    assert "fit.yaml can be used: synque-select fit --config fit.yaml" in shown
    sys.modules.pop("my_model_of_validate", None)


def test_a_config_of_fit_with_a_wrong_view(place: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", fit_config(place, real="real.jsonl", view="txt")]) == 1
    assert "no field 'txt'" in capsys.readouterr().err
    sys.modules.pop("my_model_of_validate", None)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (
            {"accelerator": "cpuu"},
            "trainer: You selected an invalid accelerator name: `accelerator='cpuu'`",
        ),
        ({"accelerator": "cpu", "strategy": "ddpp"}, "invalid strategy name: `strategy='ddpp'`"),
        ({"max_epochs": -5}, "`max_epochs` must be a non-negative integer or -1. You passed in -5"),
        ({"limit_train_batches": 2.5}, "invalid value 2.5 for limit_train_batches"),
        ({"gradient_clip_algorithm": "x"}, "`gradient_clip_algorithm` x is invalid"),
    ],
)
@pytest.mark.parametrize("command", [["validate"], ["fit", "--config"]])
def test_what_the_trainer_refuses_is_one_line(
    command: list[str],
    trainer: dict[str, Any],
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
):
    (place / "my_model_of_trainer.py").write_text(
        MODEL.replace("raise", "return None\n        raise")
    )
    path = fit_config(place, trainer={"accelerator": "cpu", **trainer}, real="real.jsonl")
    text = Path(path).read_text().replace("my_model_of_validate", "my_model_of_trainer")
    text = f"seed_everything: 0\n{text}"
    Path(path).write_text(text.replace("size: 4", "size: 3"))
    assert main([*command, path]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in errors[0]
    sys.modules.pop("my_model_of_trainer", None)
