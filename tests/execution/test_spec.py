"""Names of executors."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from synque_select import SelectionCallback, rank
from synque_select.cli.main import main
from synque_select.cli.options import executor_of
from synque_select.errors import ConfigError
from synque_select.execution import get_executor
from synque_select.execution.local import LocalExecutor
from synque_select.experiment import ExperimentOptions
from synque_select.probing.sweep import SweepOptions
from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions


def test_the_default_is_this_process():
    assert isinstance(get_executor(None), LocalExecutor)
    assert isinstance(get_executor("local"), LocalExecutor)
    executor = LocalExecutor()
    assert get_executor(executor) is executor


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "allowed is a text, such as local"),
        (3, "allowed is a text, such as local"),
        ("slurm", "there are: local, ray"),
        ("local:worker=2", "local has no option 'worker': did you mean 'workers'"),
        ("local:workers=0", "workers=0: allowed is a whole number from 1"),
        ("local:workers=two", "workers='two': allowed is a whole number from 1"),
        ("local:devices=0,0", "devices=0,0: allowed are different numbers of GPUs"),
        ("local:devices=cuda", "allowed are different numbers of GPUs"),
        ("local:devices=0,1:workers=2", "give workers= or devices=, not both"),
        ("local://host:1", "an address is written as ray://HOST:PORT"),
        ("ray://host", "an address is written as ray://HOST:PORT"),
        ("ray:gpus=-1", "gpus=-1: allowed is a number from 0"),
        ("ray:cpus=0.5", r"cpus=0\.5: allowed is a whole number from 1"),
    ],
)
def test_a_wrong_name_is_one_error(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        get_executor(spec)  # type: ignore[arg-type]


def test_it_is_an_error_before_anything_is_read():
    with pytest.raises(ConfigError, match="executor='ryy': did you mean 'ray'"):
        rank("no such file", "neither", executor="ryy")


def test_devices_on_the_command_line():
    def executor(**options: object) -> str | None:
        return executor_of(Namespace(**{"executor": None, "devices": None, **options}))

    assert executor() is None
    assert executor(executor="ray") == "ray"
    assert executor(devices="0,1") == executor(executor="local", devices="0,1")
    assert executor(devices="0,1") == "local:devices=0,1"
    with pytest.raises(ConfigError, match="--devices 0 is for --executor local"):
        executor(executor="ray", devices="0")


def test_it_is_an_option_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    message = "executor='rye': did you mean 'ray'"
    for make in (SelectionCallback, SweepOptions, TuneOptions, ExperimentOptions, Scorer):
        with pytest.raises(ConfigError, match=message):
            make(executor="rye")
    config = tmp_path / "rank.yaml"
    config.write_text("candidates: [a, b]\nreal: c\nexecutor: rye\n")
    for arguments in (
        ["rank", "--config", str(config)],
        ["sweep", "--config", "digits-fit", "--executor", "rye"],
        ["tune", "--config", "digits-fit", "--executor=rye"],
        ["experiment", "--config", "digits", "--executor", "rye"],
    ):
        assert main(arguments) == 1
        assert message in " ".join(capsys.readouterr().err.split())
