"""LENS in the callback: engines are closed before training, a second fit asks nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from synque_select.cli.main import main
from synque_select.errors import ConfigError
from synque_select.lens.config import LensConfig
from synque_select.lens.rubric import RubricSampling, load_rubrics
from synque_select.llm.scripted import ScriptedLLM
from synque_select.llm.transformers.engine import TransformersLLM
from tests.lens.scripts import weigh_labels, write_points
from tests.lightning_package import SelectionCallback, import_path_of, pl
from tests.llm.test_engines import save_model
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer

CSVLogger = pl.loggers.CSVLogger

REAL = [{"text": f"w0x{i % 3} w1x{i % 2}", "label": 0} for i in range(12)]
NEAR = [{"text": f"w0x{i % 3} w1x{i % 2} w0x1", "label": i % 2} for i in range(20)]
FAR = [{"text": f"w0x{5 + i % 3} w1x{4 + i % 2}", "label": i % 2} for i in range(24)]


class Closing(ScriptedLLM):
    """Records when it was closed, and raises if it is asked while another engine is open."""

    def __init__(self, *arguments: Any, events: list[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.events = events

    def generate(self, *arguments: Any, **options: Any) -> Any:
        self.events.append(f"{self.id} writes")
        yield from super().generate(*arguments, **options)

    def choice_probabilities(self, *arguments: Any) -> Any:
        self.events.append(f"{self.id} judges")
        yield from super().choice_probabilities(*arguments)

    def close(self) -> None:
        self.events.append(f"{self.id} is closed")


class Recorder(pl.Callback):
    def __init__(self, events: list[str]) -> None:
        self.events = events

    def on_fit_start(self, *_: Any) -> None:
        self.events.append("fit starts")


def data() -> Any:
    candidates = {"near": NEAR, "far": FAR}
    return data_module(candidates=candidates, real=REAL, view="text")


def scripted(tmp_path: Any, events: list[str], **options: Any) -> LensConfig:
    return LensConfig(
        reasoner=Closing(write_points, id="reasoner", events=events),
        scorer=Closing(None, weigh_labels, id="scorer", events=events),
        answers=str(tmp_path / "answers.sqlite"),
        **options,
    )


def test_rubric_by_one_engine_judging_by_another_and_both_closed_before_training(tmp_path):
    events: list[str] = []
    config = scripted(tmp_path, events)
    selection = SelectionCallback(
        ["lens", "ngram"], "lens", 1, lens=config, cache_dir=tmp_path / "cache"
    )
    fit = trainer(tmp_path, selection, Recorder(events), logger=CSVLogger(tmp_path / "log"))
    fit.fit(TinyModel(), datamodule=data())
    assert selection.ranking.top().names == ("near",)
    at = events.index("fit starts")
    assert {"reasoner is closed", "scorer is closed"} <= set(events[:at])
    # the reasoner's model is closed before the scorer's is opened
    assert events.index("reasoner is closed") < events.index("scorer judges")
    assert events.index("scorer judges") > len([e for e in events if e == "reasoner writes"]) - 1
    last = len(events) - 1 - events[::-1].index("scorer judges")
    assert "scorer is closed" in events[last:at]
    assert not any("writes" in event or "judges" in event for event in events[at:])
    check_folder(selection)
    (logged,) = (tmp_path / "log").rglob("synque_lens.md")
    assert "### Typical of the real sample only" in logged.read_text()

    again = scripted(tmp_path, [])
    second = SelectionCallback(
        ["lens", "ngram"], "lens", 1, lens=again, cache_dir=tmp_path / "cache"
    )
    trainer(tmp_path, second).fit(TinyModel(), datamodule=data())
    assert again.scorer.prompts == again.reasoner.prompts == []
    assert second.ranking == selection.ranking


def test_no_text_is_logged_without_lens(tmp_path):
    selection = SelectionCallback(
        ["agreement", "ngram"], "ngram", 1, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
    )
    module = data_module(
        candidates={"near": NEAR, "far": FAR, "third": NEAR[:12]},
        real=REAL, view="text", label="label",
    )  # fmt: skip
    fit = trainer(tmp_path, selection, logger=CSVLogger(tmp_path / "log"))
    fit.fit(TinyModel(), datamodule=module)
    assert "agreement" in selection.ranking.details
    assert list((tmp_path / "log").rglob("synque_decision.md"))
    assert not list((tmp_path / "log").rglob("synque_lens.md"))


def check_folder(selection: SelectionCallback) -> None:
    folder = selection.run_dir
    assert folder is not None
    assert set(load_rubrics(folder / "rubrics" / "rubrics.json")) == {"near", "far"}
    assert "Typical of the candidate only" in (folder / "rubrics" / "far.txt").read_text()
    details = json.loads((folder / "ranking.json").read_text())["details"]["lens"]["candidates"]
    for name, rows in (("near", NEAR), ("far", FAR)):
        for sample in (*details[name]["most_real"], *details[name]["least_real"]):
            assert rows[sample["position"]]["text"] == sample["view"]
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "LENS: what distinguishes the candidates from the real sample" in page
    assert page.count("Least real examples") == 2
    assert details["far"]["least_real"][0]["view"] in page


def test_a_model_of_transformers_is_gone_when_fit_starts(tmp_path):
    engine = save_model(tmp_path / "model", n_positions=4096)
    held: list[bool] = []

    class Look(pl.Callback):
        def on_fit_start(self, *_: Any) -> None:
            held.append(engine._model is not None)

    config = LensConfig(
        scorer=engine,
        sampling=RubricSampling(n_samples=3, n_points=2, max_answer_tokens=2000),
        max_samples=4,
        answers=str(tmp_path / "answers.sqlite"),
    )
    assert isinstance(engine, TransformersLLM)
    selection = SelectionCallback(["lens"], top_k=1, lens=config, cache_dir=tmp_path / "cache")
    trainer(tmp_path, selection, Look()).fit(TinyModel(), datamodule=data())
    assert held == [False]
    assert 0 < selection.ranking["near"].scores["lens"].value < 1


def test_adaptive_judging_decides_the_border_of_the_callback():
    lens = {"adaptive": {"delta": 0.1}}
    for top_k, expected in ((2, 2), (None, None)):  # without any, half of the candidates
        callback = SelectionCallback(["lens"], top_k=top_k, lens=lens)
        assert callback._proxies[0]["config"].adaptive.top_k == expected
    fixed = SelectionCallback(["lens"], top_k=2, lens={"adaptive": {"top_k": 4}})
    assert fixed._proxies[0]["config"].adaptive.top_k == 4


def test_lens_needs_a_proxy_that_reads_it():
    with pytest.raises(ConfigError, match="the proxies have none of lens, lens_balanced, lens_raw"):
        SelectionCallback(["mmd"], lens={"readout": "label"})
    with pytest.raises(ConfigError, match="unknown name 'scorers'"):
        SelectionCallback(["lens"], lens={"scorers": {}})


@pytest.mark.parametrize("form", ["mapping", "class_path", "name"])
def test_yaml_of_lightning_cli(form: str, tmp_path):
    from jsonargparse import ArgumentParser

    values = {"scorer": {"engine": "transformers"}, "max_samples": 7, "sampling": {"n_points": 3}}
    lens: Any = {
        "mapping": values,
        "class_path": {"class_path": "synque_select.lens.config.LensConfig", "init_args": values},
        "name": "lens-small",
    }[form]
    state = {
        "callback": {
            "class_path": import_path_of("SelectionCallback"),
            "init_args": {"proxies": ["ngram", "lens"], "lens": lens},
        }
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(state))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(pl.Callback, "callback")
    parsed = parser.parse_args(["--config", str(path)])
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    callback = instantiate(parsed).callback
    config = callback._proxies[1]["config"]
    assert isinstance(config, LensConfig)
    assert config.max_samples == (40 if form == "name" else 7)
    assert config.sampling.n_points == (10 if form == "name" else 3)
