"""A logger whose disk is full: training goes on, or Lightning ends it and a line says what to do.

Needs the right to mount a small file system, which containers often lack.
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from synque_select.records.store import RunStore
from tests.callbacks.test_loggers import available
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.reliability.counts import record_counts
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer

pytestmark = pytest.mark.slow

# what Lightning itself calls raises here: the metrics at the end of training, or the end of a run
ENDS = {"csv": ("at the start", "in training"), "tensorboard": (), "wandb": (),
        "mlflow": ("at the start", "in training", "after training")}  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command mount")
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filling(pl.Callback):
    """Fills the disk at a moment."""

    def __init__(self, disk: Path, moment: str) -> None:
        self._filler, self._moment = disk / "filler", moment

    def _fill(self, moment: str) -> None:
        if moment == self._moment:
            with self._filler.open("wb", buffering=0) as stream:
                for size in (65536, 4096, 1):
                    try:
                        while True:
                            stream.write(b"x" * size)
                    except OSError:
                        pass

    def empty(self) -> None:
        self._filler.unlink()

    def on_train_start(self, *_: object) -> None:
        self._fill("at the start")

    def on_train_batch_end(self, run: pl.Trainer, *_: object) -> None:
        if run.global_step == 3:
            self._fill("in training")

    def on_train_end(self, *_: object) -> None:
        self._fill("after training")


@pytest.mark.parametrize("moment", ["at the start", "in training", "after training"])
@pytest.mark.parametrize("name", ENDS)
def test_a_logger_on_a_full_disk(tmp_path: Path, disk: Path, name: str, moment: str):
    if name not in available(disk):
        pytest.skip(f"{name} is not installed")
    logger, filling = available(disk)[name], Filling(disk, moment)
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
    )
    correlation = ProxyCorrelationCallback(store=tmp_path / "records.sqlite")
    torch.manual_seed(0)
    run = trainer(tmp_path, filling, selection, correlation, logger=logger)
    failure = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run.fit(TinyModel(), datamodule=data_module())
        except Exception as error:
            failure = str(error)
        finally:
            filling.empty()
    if name == "wandb":
        logger.experiment.finish()
    messages = [str(warning.message) for warning in caught]
    ended = [m for m in messages if m.startswith(f"{type(logger).__name__} failed (")]
    assert len(ended) == bool(failure) == (moment in ENDS[name]), failure
    assert not failure or "No space left" in failure or "disk is full" in failure
    assert all("\n" not in m for m in messages if "could not take" in m)
    assert run.global_step == 8
    is_recorded = len(RunStore(tmp_path / "records.sqlite").read()) == 1
    assert is_recorded == (moment not in ENDS[name] or moment == "after training")
    outcome = "run record and page" if is_recorded else "a line says what ended the fit"
    record_counts("loggers", {outcome: 1})
