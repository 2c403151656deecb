"""Whatever fails beside a training that has begun is a warning: the training is not lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.callbacks._logging import LoggedTable, log_table, log_text
from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.records import store as store_module
from synque_select.records.store import RunStore
from synque_select.records.unstored_records import UNSTORED
from synque_select.types import Ranking
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import LetterEncoder, TinyModel, data_module, trainer
from tests.warm_processes import run_warm

CSVLogger = pl.loggers.CSVLogger
Logger = pl.loggers.Logger

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def fit(folder: Path, *callbacks: pl.Callback, **options: Any) -> ProxyCorrelationCallback:
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"
    )
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite")
    torch.manual_seed(0)
    run = trainer(folder, selection, correlation, *callbacks, **options)
    run.fit(TinyModel(), datamodule=data_module())
    assert run.global_step == 8
    return correlation


class Locking(pl.Callback):
    """Another process takes the store's write lock during training, and keeps it."""

    def __init__(self, store: Path) -> None:
        self.connection = sqlite3.connect(store, isolation_level=None)

    def on_train_start(self, *_: object) -> None:
        self.connection.execute("BEGIN IMMEDIATE")


def test_a_locked_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "_BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(store_module, "_BUSY_TIMEOUT_OF_UNSTORED_S", 0.1)
    store = RunStore(tmp_path / "records.sqlite")
    assert fit(tmp_path).record is not None
    locking = Locking(store.path)
    with closing(locking.connection), pytest.warns(UserWarning, match="database is locked"):
        correlation = fit(tmp_path, locking)
    (file,) = tmp_path.rglob(f"{UNSTORED}/*.json")
    assert file.parents[1].parent.name == "TinyModel"
    # the correlation of this fit has its record
    (entry,) = correlation.correlations
    assert sum(point.n_seeds for point in entry.points) == 2
    fit(tmp_path)  # the next run takes it in
    assert not list(tmp_path.rglob(UNSTORED))
    records = store.read()
    assert len({record.run_id for record in records}) == len(records) == 3
    assert correlation.record in records


def test_a_damaged_store(tmp_path: Path):
    class Damaging(pl.Callback):
        def on_train_start(self, *_: object) -> None:
            (tmp_path / "records.sqlite").write_bytes(b"not a database" * 100)

    with pytest.warns(UserWarning, match="file is not a database") as caught:
        correlation = fit(tmp_path, Damaging())
    messages = [str(warning.message) for warning in caught]
    assert any("validation is not shown: " in message for message in messages)
    assert correlation.record is not None
    (tmp_path / "records.sqlite").rename(tmp_path / "damaged")
    fit(tmp_path)
    assert correlation.record in RunStore(tmp_path / "records.sqlite").read()


class Broken(Logger):
    """A logger whose server is gone."""

    name, version = "broken", 0

    def log_table(self, **_: object) -> None:
        raise ConnectionError("no route to the server")

    def log_metrics(self, *_: object, **__: object) -> None: ...

    def log_hyperparams(self, *_: object, **__: object) -> None: ...


def test_a_logger_that_raises(tmp_path: Path):
    file = CSVLogger(tmp_path / "csv")
    with pytest.warns(UserWarning, match=r"Broken could not take .*no route to the server"):
        fit(tmp_path, logger=[Broken(), file])
    assert (Path(file.log_dir) / "synque_correlation_mixture.csv").exists()


class BrokenAtTheEnd(Broken):
    """Lightning calls this after all callbacks, and raises what it raises."""

    def log_table(self, **_: object) -> None: ...

    def finalize(self, status: str) -> None:
        raise ConnectionError("no route to the server")


def test_a_logger_that_raises_when_lightning_closes_it(tmp_path: Path):
    message = r"BrokenAtTheEnd failed .*no route.* after the fit had finished: its files are in .*"
    with pytest.warns(UserWarning, match=message), pytest.raises(ConnectionError):
        fit(tmp_path, logger=BrokenAtTheEnd())
    assert len(RunStore(tmp_path / "records.sqlite").read()) == 1
    assert len([*tmp_path.rglob("report.html")]) == 1


class BrokenAtMetrics(Broken):
    """Lightning calls this during training, and raises what it raises."""

    def log_table(self, **_: object) -> None: ...

    def log_metrics(self, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")


def test_a_logger_that_raises_when_lightning_logs_metrics(tmp_path: Path):
    message = r"BrokenAtMetrics failed .*No space left.* has ended the fit at step 8.* ckpt_path="
    with pytest.warns(UserWarning, match=message), pytest.raises(OSError, match="No space"):
        fit(tmp_path, logger=BrokenAtMetrics())
    assert RunStore(tmp_path / "records.sqlite").read() == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("callbacks.correlation.save_correlations", "correlations are not in the directory"),
        ("callbacks.correlation.correlate", "correlation of proxies with validation is not shown"),
        ("callbacks.correlation.write_json", "the metrics of step 8 are not in"),
        ("callbacks.correlation.comparability_key", "this fit has no run record"),
        ("training.run_page.write_report", "`synque-select report .*` writes it again"),
    ],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("odd")])
def test_bookkeeping_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str, error: Exception
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"synque_select.{place}", fail)
    with pytest.warns(UserWarning, match=f"(?s){message}.*{type(error).__name__}"):
        fit(tmp_path)


def test_an_interruption_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synque_select.callbacks.correlation.correlate", interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path)


def test_what_fails_before_training_ends_the_run(tmp_path: Path):
    (tmp_path / "runs").write_text("a file where the directory of runs should be")
    with pytest.raises(Exception, match="runs"):
        fit(tmp_path)


def test_a_disk_that_is_full_after_the_first_step(tmp_path: Path):
    done = run_warm(
        [ROOT / "tests" / "training" / "scripts" / "full_disk.py", tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads(done.stdout.splitlines()[-1])
    assert state["step"] == 8
    messages = " ".join(state["warnings"])
    for what in ("could not be stored", "Nor could it be kept", "the page of the run"):
        assert what in messages


def test_names_of_files_that_are_not_utf8(tmp_path: Path):
    if "PYTEST_XDIST_WORKER" in os.environ:
        # a worker of pytest-xdist cannot report such a name to its main process
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        test = f"{__file__}::test_names_of_files_that_are_not_utf8"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, ascii(done.stdout[-2000:])
        return
    folder = tmp_path / "caf\udce9"
    logger = CSVLogger(folder / "csv", name="l\udce9")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(could not|is not|are not|no run record)")
        correlation = fit(folder, logger=logger)
    assert correlation.record in RunStore(folder / "records.sqlite").read()
    (page,) = folder.rglob("report.html")
    assert isinstance(Ranking.from_dict(json.loads((page.parent / "ranking.json").read_text())),
                      Ranking)  # fmt: skip
    table = (Path(logger.log_dir) / "synque_ranking.csv").read_text()
    assert table.startswith("candidate,")


def test_csv_of_loggers_holds_no_formula(tmp_path: Path):
    """A candidate's name comes from a file name, and a spreadsheet would run it."""
    logger = CSVLogger(tmp_path)
    table = LoggedTable(["candidate", "mmd"], [["=cmd()", 0.5], ["caf\udce9", None]], "text")
    log_table(trainer(tmp_path, logger=logger), "ranking", table)
    log_text(trainer(tmp_path, logger=logger), "note", "caf\udce9")
    assert (Path(logger.log_dir) / "ranking.csv").read_text().splitlines() == [
        "candidate,mmd",
        "'=cmd(),0.5",
        "caf\\udce9,",
    ]
    assert (Path(logger.log_dir) / "note.md").read_text() == "caf\\udce9"


def test_names_of_candidates_are_unicode():
    data = [{"text": "one"}, {"text": "two"}]
    (candidate,) = load_candidates({"caf\udce9": data})
    assert candidate.name == "caf\\xe9"
    assert Candidate("half \ud800", data).name == "half \\ud800"
