"""Options of the recipes: validated once, shared by Python, YAML and the command line."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import yaml

pytest.importorskip("peft")
pytest.importorskip("torchvision")
pytest.importorskip("sqlglot")

from synque_select.cli.options import packaged_config
from synque_select.errors import ConfigError
from synque_select.experiment import ExperimentOptions, TaskDataModule
from synque_select.recipes._causal_lm import CausalLMModule
from synque_select.recipes.digits import DigitsTask
from synque_select.recipes.image_classification import ImageTask
from synque_select.recipes.options import FitOptions, LoRAOptions, OwnData
from synque_select.recipes.sentiment import SentimentTask
from synque_select.recipes.text2sql import Text2SQLTask
from synque_select.recipes.web_navigation import WebTask

TASKS = {
    f"{task.__module__}.{task.__qualname__}": task
    for task in (DigitsTask, ImageTask, SentimentTask, Text2SQLTask, WebTask)
}
EXPERIMENTS = (
    "digits",
    "image-small",
    "image-paper",
    "sentiment-small",
    "sentiment-small-natural",
    "sentiment-paper",
    "text2sql-small",
    "text2sql-paper",
    "web-small",
    "web-paper",
)
FITS = tuple(name for name in EXPERIMENTS if not name.endswith("natural"))


def config(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(packaged_config(name).read_text())
    return parsed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_distinct": 1}, "n_distinct=1: allowed is a whole number from 2"),
        ({"max_steps": 0}, "max_steps=0: allowed is a whole number from 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"learning_rate": 0}, "learning_rate=0: allowed is a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
    ],
)
def test_a_wrong_number_of_a_fit_is_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        FitOptions(**options)


def test_steps_follow_from_epochs_unless_they_are_given():
    assert FitOptions(epochs=3, batch_size=32).steps(100) == 10
    assert FitOptions(max_steps=7, epochs=3, batch_size=32).steps(100) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_share": 1.0}, "warmup_share=1.0: allowed is 0 to below 1"),
        ({"lora_rank": 0}, "lora_rank=0"),
        ({"lora_alpha": -1}, "lora_alpha=-1"),
    ],
)
def test_a_wrong_number_of_adapters_is_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        LoRAOptions(**options)


def test_adapter_options_are_arguments_of_the_module():
    arguments = LoRAOptions().arguments(FitOptions(learning_rate=0.1))
    assert set(arguments) <= set(inspect.signature(CausalLMModule).parameters)
    assert arguments["learning_rate"] == 0.1
    assert "learning_rate" not in LoRAOptions().arguments(FitOptions())


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"candidates": "a"}, "real and labeled are missing"),
        ({"real": "a"}, "candidates and labeled are missing"),
        ({"candidates": "a", "real": "b"}, "labeled is missing"),
    ],
)
def test_data_of_your_own_needs_all_three_parts(given: dict[str, Any], missing: str):
    with pytest.raises(ConfigError, match=missing):
        OwnData(**given)
    assert OwnData().paths is None
    assert OwnData(candidates="a", real="b", labeled="c").paths == ("a", "b", "c")


def check_arguments(function: Any, given: dict[str, Any]) -> None:
    """Compare a block of YAML with the parameters of a function, and nested blocks with theirs."""
    parameters = inspect.signature(function, eval_str=True).parameters
    assert set(given) <= set(parameters), function
    for name, value in given.items():
        if isinstance(value, dict):
            check_arguments(parameters[name].annotation, value)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_options_of_a_packaged_experiment_exist(name: str):
    task = config(name)["task"]
    check_arguments(TASKS[task["class_path"]], task["init_args"])
    ExperimentOptions(**config(name)["experiment"])


@pytest.mark.parametrize("name", FITS)
def test_a_packaged_fit_has_the_task_of_the_experiment(name: str):
    data = config(f"{name}-fit")["data"]
    assert data["class_path"] == "synque_select.experiment.TaskDataModule"
    check_arguments(TaskDataModule, {k: v for k, v in data["init_args"].items() if k != "task"})
    one, whole = data["init_args"]["task"], config(name)["task"]
    assert one["class_path"] == whole["class_path"]
    for key, value in one["init_args"].items():
        # a fit leaves out what only an experiment reads, such as steps and proxies
        expected = whole["init_args"][key]
        assert value == ({k: expected[k] for k in value} if isinstance(value, dict) else expected)


@pytest.mark.parametrize("name", FITS)
def test_the_model_of_a_packaged_fit_is_that_of_the_experiment(name: str):
    model = config(f"{name}-fit")["model"]["init_args"]
    task = config(name)["task"]["init_args"]
    known = {**task["fit"], **task.get("model", {})}
    if "fine_tune" in task:
        known["model_id"] = task["fine_tune"]
    if "network" in task:
        known["network"] = task["network"]
    shared = set(known) & set(model)
    assert "learning_rate" in shared
    assert {key: model[key] for key in shared} == {key: known[key] for key in shared}
