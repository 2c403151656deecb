"""Ctrl-C while a command encodes, judges or trains: it ends soon and says how to go on."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from synque_select.utils.interrupts import PromptInterrupts
from tests.cli.test_tune import CONFIG

# the machine of the tests may be busy; uninterrupted, each command takes far longer
SOON_S = 8.0
PARTS = """
import hashlib, pathlib, time, torch
from synque_select import BaseEncoder
from tests.training.tiny import TinyModel


def compute():
    pathlib.Path("began").touch()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 500_000_000)  # in C, deaf to signals


class Slow(BaseEncoder):
    id, modality, batch_size = "slow", "text", 20

    def encode(self, views):
        if pathlib.Path("half").exists():
            compute()
        pathlib.Path("half").touch()
        return torch.eye(len(views), 40)


class SlowModel(TinyModel):
    def training_step(self, batch, index):
        pathlib.Path("began").touch()
        time.sleep(0.05)
        return super().training_step(batch, index)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tests.training.tiny import REAL_WORDS, WORDS, texts

    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "pool").mkdir()
    for seed, (name, words) in enumerate(WORDS.items()):
        (tmp_path / "pool" / f"{name}.json").write_text(json.dumps(texts(words, 40, seed)))
    (tmp_path / "real.json").write_text(json.dumps(texts(REAL_WORDS, 20, 9)))
    return tmp_path


def _heed_interrupts() -> None:
    """Undo that a shell makes what it runs in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(folder: Path, *arguments: str) -> tuple[int, str, float]:
    """Run a command until it has made the file `began`; return its status, errors and seconds."""
    environment = {
        **os.environ,
        "SYNQUE_CACHE": str(folder / "cache"),
        "PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "synque_select", *arguments]
    with (
        (folder / "errors").open("w+") as errors,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=_heed_interrupts,
        ) as running,
    ):
        limit = time.monotonic() + 120
        while not (folder / "began").exists() and running.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        sent = time.monotonic()
        try:
            status = running.wait(60)
        finally:
            running.kill()
        seconds = time.monotonic() - sent
        errors.seek(0)
        print(f"ended {seconds:.2f} s after the interrupt")
        return status, errors.read(), seconds


RANK = ["rank", "--candidates", "pool", "--real", "real.json", "--view", "text"]


def test_while_an_encoder_computes_in_c(folder: Path):
    given = [*RANK, "--encoder", "parts:Slow", "--proxies", "mmd"]
    status, errors, seconds = interrupt(folder, *given)
    assert status == 130, errors
    assert seconds < SOON_S
    assert "interrupted; finished work is kept. To go on: synque-select rank --candidates" in errors
    assert "Traceback" not in errors
    assert list((folder / "cache").rglob("*.safetensors"))  # the batches before


def test_while_a_judge_waits_for_a_server(folder: Path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def accept() -> None:  # and never answer
            kept = [server.accept()[0]]
            (folder / "began").touch()
            while True:
                kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        engine = {
            "engine": "openai",
            "model_id": "x",
            "base_url": f"http://127.0.0.1:{server.getsockname()[1]}/v1",
        }
        lens = {"version": 1, "scorer": engine, "max_samples": 4}
        (folder / "lens.yaml").write_text(yaml.safe_dump(lens))
        given = [*RANK, "--proxies", "lens", "--lens", "lens.yaml"]
        status, errors, seconds = interrupt(folder, *given)
        assert status == 130, errors
        assert seconds < SOON_S
        assert "To go on: synque-select rank" in errors
        assert "Traceback" not in errors


def test_while_it_trains(folder: Path):
    config = copy.deepcopy(CONFIG)
    config["model"] = {"class_path": "parts.SlowModel"}
    config["trainer"] |= {"max_steps": 5000, "logger": False}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    status, errors, seconds = interrupt(folder, "fit", "--config", "mine.yaml")
    assert status == 130, errors
    assert seconds < SOON_S
    assert "To go on: synque-select fit --config mine.yaml (training starts anew; --ckpt" in errors
    assert list(folder.glob("runs/*/*/ranking.json"))


@pytest.mark.parametrize("moment", ["import", "end"])
def test_before_and_after_the_command_there_is_no_traceback(moment: str, tmp_path: Path):
    at_end = "import atexit; atexit.register(interrupt)"
    at_import = "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=find))"
    code = f"""
import importlib.metadata, os, signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def find(name, path=None, target=None):
    if name == "synque_select.cli.main":
        interrupt()


from synque_select.__main__ import run
{at_import if moment == "import" else at_end}
sys.argv[1:] = ["--version"]
sys.exit(run())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nsynque-select: interrupted\n")
    assert ("synque-select " in done.stdout) == (moment == "end")


def test_the_console_script_is_the_module():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"synque-select": "synque_select.__main__:run"}


def test_nothing_collects_garbage_while_an_interrupted_process_ends():
    """A model that is closed collects it: too long with all libraries loaded."""
    code = """
import gc, os, signal
from synque_select.utils.interrupts import PromptInterrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
kept = [[] for _ in range(100_000)]
with PromptInterrupts(lambda: "interrupted", ends_process=True):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print(gc.get_freeze_count(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")
    assert int(done.stdout) > 100_000


def test_an_interrupt_that_arrives_is_an_exception_and_the_process_goes_on():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with PromptInterrupts(lambda: "not said") as interrupts:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.happened
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    time.sleep(1.0)  # nothing ends this process later


def test_the_pipe_of_interrupts_is_closed_by_the_thread_that_writes_to_it(
    monkeypatch: pytest.MonkeyPatch,
):
    """A number that is closed too early may be that of another file when it is written to."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    restore = signal.set_wakeup_fd
    opened: list[int] = []

    def slowly(number: int, **options: bool) -> int:
        before = restore(number, **options)
        if opened:  # on the way out: the thread that watches runs meanwhile
            time.sleep(0.3)
            opened.extend(os.pipe())
        return before

    monkeypatch.setattr(signal, "set_wakeup_fd", slowly)
    with PromptInterrupts(lambda: "not said", cleanup_s=60):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        opened.append(0)
    _, reader, writer = opened
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):  # nothing was written to it
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)  # and it is open
