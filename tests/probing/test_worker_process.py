"""The process of the probes: what is sent to it, what it runs, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synque_select.errors import LightningError
from synque_select.probing.processes import check_sendable
from synque_select.probing.worker_process import ProbeWork, run_in_worker
from synque_select.records.store import RunStore
from tests.training.tiny import TinyModel

ROOT = Path(__file__).resolve().parents[2]


class CallingFits:
    """Fits of one candidate that do nothing but call the model factory."""

    ranking = SimpleNamespace(candidates=[SimpleNamespace(name="near")])
    datamodule = None

    def run(self, model_factory: Any, *_: Any, **__: Any) -> Any:
        return model_factory()


def work(folder: Path, model_factory: Any, fits: Any = None) -> ProbeWork:
    store = RunStore(folder / "records.sqlite")
    return ProbeWork(fits or CallingFits(), model_factory, store, progress=False)


def nothing_to_train(folder: Path) -> ProbeWork:
    fits: Any = SimpleNamespace(ranking=SimpleNamespace(candidates=[]), datamodule=None)
    return work(folder, TinyModel, fits)


def raise_rank_variables() -> None:
    raise ValueError(f"RANK={os.environ.get('RANK')} SLURM_PROCID={os.environ.get('SLURM_PROCID')}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever() -> None:
    Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
    time.sleep(600)


def test_what_cannot_be_sent_is_refused_before_training():
    with pytest.raises(LightningError, match=r"cannot be sent: .*lambda.*`synque-select sweep`"):
        check_sendable({"model_factory": lambda: TinyModel()})
    check_sendable({"model_factory": TinyModel})


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("pass", "imports .*script.py.*if __name__ == '__main__'"),
        ("if __name__ == '__main__':\n    pass", None),
    ],
)
def test_a_model_in_a_script_that_would_run_on_import_is_refused(
    tmp_path, monkeypatch, source, error
):
    script = tmp_path / "script.py"
    script.write_text(source)
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    main.Model = type("Model", (), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(LightningError, match=error) if error else nullcontext():
        check_sendable(main.Model)


def test_an_error_is_raised_without_rank_variables_or_a_crash(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("SLURM_PROCID", "1")
    words = "the process of the probes: ValueError: RANK=None SLURM_PROCID=None"
    with pytest.raises(LightningError, match=words):
        run_in_worker(work(tmp_path, raise_rank_variables))
    assert "Fatal Python error" not in capfd.readouterr().err


def test_a_killed_process_is_reported_with_its_status(tmp_path):
    with pytest.raises(LightningError, match="the process of the probes ended with status -9"):
        run_in_worker(work(tmp_path, die))


UNGUARDED = """
from pathlib import Path
with open("runs.txt", "a") as file:
    file.write("run\\n")
from synque_select.probing.worker_process import run_in_worker
from tests.probing.test_worker_process import nothing_to_train, wait_for_ever, work
"""


def start_script(folder: Path, last_line: str) -> subprocess.Popen[bytes]:
    (folder / "script.py").write_text(UNGUARDED + last_line)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PID_FILE": str(folder / "pid")},
    )


def test_an_unguarded_script_does_not_run_again_if_nothing_of_it_is_sent(tmp_path):
    script = start_script(tmp_path, "assert run_in_worker(nothing_to_train(Path())) == []")
    assert script.wait(timeout=240) == 0
    assert (tmp_path / "runs.txt").read_text() == "run\n"


def test_the_process_ends_with_a_killed_parent(tmp_path):
    script = start_script(tmp_path, "run_in_worker(work(Path(), wait_for_ever))")
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.is_file() and pid_file.read_text())
    script.kill()
    script.wait(timeout=60)
    worker = Path("/proc") / pid_file.read_text()
    wait_until(lambda: not worker.exists() or "State:\tZ" in (worker / "status").read_text())


def wait_until(holds: Any, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
