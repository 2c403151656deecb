"""The packaged configs of LENS load, and every name in them is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from synque_select.errors import ConfigError, LLMError
from synque_select.lens.config import LensConfig
from synque_select.llm.base import BaseLLM
from synque_select.llm.registry import get_llm

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("lens-*.yaml"))


def test_there_are_the_papers_and_a_small_one():
    assert {"lens-small", "lens-paper-text", "lens-paper-image"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_packaged_configs_load_and_their_engines_are_known(name: str, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = LensConfig.from_file(name)
    assert config == LensConfig.from_file(FOLDER / f"{name}.yaml")
    stated = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for key, value in stated["sampling"].items():
        assert getattr(config.sampling, key) == value
    for spec in (config.scorer, config.reasoner):
        if spec is None:
            continue
        assert isinstance(check(spec), BaseLLM | None)
        with pytest.raises(ConfigError, match="has no option 'model'"):
            get_llm({**spec, "model": "x"})


def check(spec) -> BaseLLM | None:
    """An unknown argument is a ConfigError; that the model is not on this machine is none."""
    try:
        return get_llm(spec)
    except LLMError:
        return None


def test_the_papers_models_stand_where_they_belong():
    text = LensConfig.from_file("lens-paper-text")
    assert text.reasoner["engine"] == "openai"
    assert text.reasoner["model_id"] == "deepseek-reasoner"
    assert text.scorer == {**text.scorer, "engine": "vllm", "model_id": "Qwen/Qwen2.5-32B-Instruct"}
    image = LensConfig.from_file("lens-paper-image")
    assert "Qwen2.5-VL" in image.scorer["model_id"]
    assert image.prompts == "image"
    # both sides of a rubric are in one prompt
    assert 2 * image.sampling.n_samples <= image.scorer["max_images"]
    assert LensConfig.from_mapping(text.to_dict()) == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "the LENS config, line 1: not JSON"),
        ({"scorer": None}, "scorer: None is not an engine"),
        ({"scorer": {"engine": "opnai"}}, "scorer: unknown engine 'opnai': did you mean 'openai'"),
        ({"scorer": {"engine": "openai", "api_key": "x"}}, "has no option 'api_key'"),
        ({"reasoner": "openai"}, "reasoner: 'openai' is not an engine"),
        ({"prompts": 5}, "prompts=5: allowed is a string, or None"),
        ({"zero_shot": "no"}, "zero_shot='no': allowed is true or false"),
        ({"answers": 5}, "answers=5: allowed is the path of a file"),
        ({"rubrics": ["a"]}, r"rubrics=\['a'\]: allowed is a file"),
        (
            {"rubrics": {"a": {"similarities": "x"}}},
            "rubrics, a, similarities: expected a list of strings, found 'x'",
        ),
        ({"max_samples": "9"}, "max_samples='9': allowed is a whole number from 2"),
        ({"failure_threshold": "0.1"}, "failure_threshold='0.1': allowed"),
        ({"adaptive": {"delta": "0.1"}}, "delta='0.1': allowed are values"),
        ({"sampling": {"n_points": 0}}, "sampling: n_points=0: allowed is a whole number from 1"),
        ({"sampling": {"temperature": -1}}, "sampling: temperature=-1: allowed"),
        (
            {"prices": {"scorer": {"input": float("nan"), "output": 1}}},
            "prices, scorer, input: expected 0 or more, found nan",
        ),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_named(given, message: str):
    with pytest.raises(ConfigError, match=message):
        LensConfig.read(given)


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "lens.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"lens\.yaml, line 1: not UTF-8"):
        LensConfig.read(tmp_path / "lens.yaml")
