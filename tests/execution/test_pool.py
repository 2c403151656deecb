"""Workers that are lost, fail or differ; with processes, as one loop serves all executors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from synque_select.errors import DataError, DependencyError, ExecutorError
from synque_select.execution import Executor, UnitFailure, get_executor
from synque_select.execution.environment import Environment
from synque_select.execution.processes import ProcessExecutor
from tests.execution.units import Work


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def executor() -> Iterator[Executor]:
    with get_executor("local:workers=2") as made:
        yield made


def run(executor: Executor, *units: Work) -> dict[str, object]:
    return {unit.key: result for unit, result in executor.run(units)}


def test_processes_are_kept_and_a_lost_one_is_replaced(executor: Executor, log: str):
    first = run(executor, *(Work(str(i), log) for i in range(6)))
    assert {*first} == set("012345")
    again = run(executor, *(Work(str(i), log) for i in range(6)))
    assert len({*first.values(), *again.values()}) <= 2  # process ids
    assert executor.counts.started == executor.counts.finished == 12
    results = run(executor, *(Work(i, log, "dies once" if i == "c" else "ok") for i in "abcde"))
    assert not any(isinstance(result, UnitFailure) for result in results.values())
    assert len(results) == 5
    assert (executor.counts.started, executor.counts.lost) == (18, 1)
    assert sorted(Path(log).read_text().split()[12:]) == sorted("abcdec")


def test_what_fails_fails_alone(executor: Executor, log: str):
    kinds = {
        "dies": (ExecutorError, "lost its worker 3 times: its process ended with status -9"),
        "bad data": (DataError, "news: line 3 is empty"),
        "no package": (DependencyError, "z needs the package x: pip install"),
        "fails": (ExecutorError, "work fails failed on .*: ZeroDivisionError: by zero"),
    }
    results = run(executor, *(Work(what, log, what) for what in kinds), Work("ok", log))
    for what, (kind, message) in kinds.items():
        failure = results[what]
        assert isinstance(failure, UnitFailure)
        with pytest.raises(kind, match=message):
            raise failure.error
    assert not isinstance(results["ok"], UnitFailure)
    assert executor.counts.lost == 3


def test_workers_have_no_rank_and_the_threads_of_the_driver(
    log: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    with get_executor("local:devices=3,5") as executor:
        results = run(executor, *(Work(str(i), log, "environment") for i in range(8)))
    devices = set()
    for result in results.values():
        assert isinstance(result, tuple)
        variables, threads = result
        assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} & variables.keys()
        assert threads == torch.get_num_threads()
        devices.add(variables["CUDA_VISIBLE_DEVICES"])
    assert devices <= {"3", "5"}


def test_closing_ends_the_processes(log: str):
    executor = ProcessExecutor([{}])
    iterator = executor.run([Work("a", log), Work("b", log)])
    _, pid = next(iterator)
    assert isinstance(pid, int)
    iterator.close()
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_driver_leaves_no_worker_that_works(log: str):
    script = (
        "import sys\n"
        "from synque_select.execution import get_executor\n"
        "from tests.execution.units import Work\n"
        "executor = get_executor('local:workers=1')\n"
        "list(executor.run([Work('a', sys.argv[1]), Work('b', sys.argv[1], 'takes long')]))\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script, log])
    try:
        pid = wait_for_pid(Path(log))
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()
    finally:
        driver.kill()


def wait_for_pid(log: Path) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for line in log.read_text().split() if log.exists() else ():
            if line.startswith("pid:"):
                return int(line.removeprefix("pid:"))
        time.sleep(0.05)
    raise AssertionError("no unit has begun")


class Unknown(Work):
    """Of a class that no worker can import."""


def test_a_unit_that_cannot_be_read_is_one_failure(executor: Executor, log: str):
    Unknown.__module__ = "there_is_none"
    sys.modules["there_is_none"] = types.ModuleType("there_is_none")
    sys.modules["there_is_none"].Unknown = Unknown  # type: ignore[attr-defined]
    failure = run(executor, Unknown("a", log))["a"]
    assert isinstance(failure, UnitFailure)
    assert "a worker cannot read its unit: ModuleNotFoundError" in failure.message
    assert not isinstance(run(executor, Work("b", log))["b"], UnitFailure)


def test_a_unit_that_cannot_be_sent_is_one_error(executor: Executor, log: str):
    unit = Work("a", log)
    object.__setattr__(unit, "what", lambda: None)
    with pytest.raises(ExecutorError, match="work a cannot be sent to another process"):
        run(executor, unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packages": {"torch": "1.0"}}, "torch .* here, 1.0 there"),
        ({"python": "3.8"}, "Python .* here, 3.8 there"),
        ({"code": "0"}, "the files of synque_select differ"),
    ],
)
def test_other_versions_are_refused(change: dict[str, object], message: str):
    here = Environment.here()
    other = Environment(**{**vars(here), **change})  # type: ignore[arg-type]
    with pytest.raises(ExecutorError, match=message):
        here.check_same(other, "the worker on node-3")
    here.check_same(here, "itself")


def test_a_worker_of_another_version_gets_no_unit(
    executor: Executor, log: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("synque_select.execution.environment.source_hash", lambda: "another")
    with pytest.raises(ExecutorError, match=r"the worker on .* would not compute the same"):
        run(executor, Work("a", log))
    assert not Path(log).exists()
