"""The content of each logger after a fit, read back from its files."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from synque_select.callbacks._logging import LoggedTable, log_table, log_text
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import (
    LetterEncoder,
    TinyModel,
    data_module,
    logged_texts,
    seen_by,
    texts_of,
    trainer,
)

CSVLogger = pl.loggers.CSVLogger
Logger = pl.loggers.Logger
MLFlowLogger = pl.loggers.MLFlowLogger
TensorBoardLogger = pl.loggers.TensorBoardLogger
WandbLogger = pl.loggers.WandbLogger

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

RUBRIC = "**Similarities**\n\n1. Both name fruit."
PNG = b"\x89PNG"
NAMES = ["near", "mixed", "half", "far", "odd"]


class Rubric(pl.Callback):
    """A callback that has a text to log."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        log_text(trainer, "synque_rubric/near", RUBRIC)


class Clashing(TinyModel):
    """A user's model whose hyper-parameters have the same names as those of SynqueDataModule."""

    def __init__(self, lr: float = 0.5, mixture: str = "mine", top_k: int = 9, seed: int = 7):
        super().__init__(lr)
        self.save_hyperparameters()


HPARAMS = {"lr": 0.5, "mixture": "mine", "top_k": 9, "seed": 7}


class Logged(NamedTuple):
    loggers: dict[str, Any]
    selection: SelectionCallback
    folder: Path


def fit(folder: Path, top_k: int, *callbacks: pl.Callback, **options: Any) -> SelectionCallback:
    torch.manual_seed(0)
    model = Clashing()
    selection = SelectionCallback(
        ["mmd"], top_k=top_k, encoder=LetterEncoder(), cache_dir=folder / "cache"
    )
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite")
    run = trainer(folder, selection, correlation, *callbacks, **options)
    run.fit(model, datamodule=data_module())
    assert selection.ranking is not None
    chosen = selection.ranking.top().names
    assert len(chosen) == top_k
    assert set(seen_by(model)) <= texts_of(*chosen)
    return selection


def available(folder: Path) -> dict[str, Logger]:
    made: dict[str, Logger] = {"csv": CSVLogger(folder / "csv")}
    if importlib.util.find_spec("tensorboard"):
        made["tensorboard"] = TensorBoardLogger(folder / "tb")
    if importlib.util.find_spec("wandb"):
        import wandb

        settings = wandb.Settings(mode="offline", console="off", silent=True)
        made["wandb"] = WandbLogger(save_dir=folder, offline=True, settings=settings)
    if importlib.util.find_spec("mlflow") and importlib.util.find_spec("sqlalchemy"):
        made["mlflow"] = MLFlowLogger(
            tracking_uri=f"sqlite:///{folder}/mlflow.db", artifact_location=str(folder / "mlflow")
        )
    return made


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Five runs with different mixtures; the last one logs to all loggers at once."""
    folder = tmp_path_factory.mktemp("loggers")
    for top_k in (1, 2, 3, 4):
        fit(folder, top_k)
    loggers = available(folder)
    selection = fit(folder, 5, Rubric(), logger=list(loggers.values()))
    if "wandb" in loggers:
        loggers["wandb"].experiment.finish()
    return Logged(loggers, selection, folder)


@pytest.fixture
def logger(logged: Logged, request: pytest.FixtureRequest) -> Any:
    if request.param not in logged.loggers:
        pytest.skip(f"{request.param} is not installed")
    return logged.loggers[request.param]


def check_ranking(rows: list[dict[str, Any]], selection: SelectionCallback) -> None:
    assert selection.ranking is not None
    assert [row["candidate"] for row in rows] == [row.name for row in selection.ranking]
    scores = [row.scores["mmd"].value for row in selection.ranking]
    assert [float(row["mmd"]) for row in rows] == pytest.approx(scores)
    assert [float(row["weight"]) for row in rows] == pytest.approx([0.2] * 5)


def check_mixture(rows: list[dict[str, Any]]) -> None:
    assert sorted(row["trained on"] for row in rows) == sorted(NAMES)
    assert [float(row["share"]) for row in rows] == pytest.approx([0.2] * 5)
    assert {int(row["n"]) for row in rows} == {60}


def read_rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("logger", ["csv"], indirect=True)
def test_csv_files_in_its_log_dir(logger: Any, logged: Logged):
    folder = Path(logger.log_dir)
    check_ranking(read_rows((folder / "synque_ranking.csv").read_text()), logged.selection)
    check_mixture(read_rows((folder / "synque_mixture.csv").read_text()))
    (row,) = read_rows((folder / "synque_correlation_mixture.csv").read_text())
    assert (row["proxy"], row["n"]) == ("mmd", "5")
    assert (folder / "synque_correlation_mixture.png").read_bytes().startswith(PNG)
    assert (folder / "synque_rubric" / "near.md").read_text() == RUBRIC
    assert dict(logger.experiment.hparams) == HPARAMS


def test_a_name_that_a_spreadsheet_would_run_as_a_formula(tmp_path: Path):
    logger = CSVLogger(tmp_path)
    run: Any = SimpleNamespace(loggers=[logger], global_step=0)
    log_table(run, "names", LoggedTable(["candidate", "n"], [["=1+1", -2], ["b", None]], ""))
    rows = read_rows(Path(logger.log_dir, "names.csv").read_text())
    assert rows == [{"candidate": "'=1+1", "n": "-2"}, {"candidate": "b", "n": ""}]


@pytest.mark.parametrize("logger", ["tensorboard"], indirect=True)
def test_tensorboard_texts_and_figure(logger: Any):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    texts = logged_texts(logger.log_dir)
    assert "Ranking by mmd against 30 real examples" in texts["synque_ranking/text_summary"]
    assert all(name in texts["synque_mixture/text_summary"] for name in NAMES)
    assert (
        "5 distinct mixtures, runs of kind mixture"
        in texts["synque_correlation_mixture/text_summary"]
    )
    assert texts["synque_rubric/near/text_summary"] == RUBRIC
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    (image,) = events.Images("synque_correlation_mixture")
    assert image.encoded_image_string.startswith(PNG)
    assert dict(logger.hparams) == HPARAMS


@pytest.mark.parametrize("logger", ["wandb"], indirect=True)
def test_wandb_tables_and_image_of_an_offline_run(logger: Any, logged: Logged):
    (run,) = (logged.folder / "wandb").glob("offline-run-*")

    def table(name: str) -> list[dict[str, Any]]:
        (path,) = run.glob(f"files/media/table/{name}_*.table.json")
        content = json.loads(path.read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]

    check_ranking(table("synque_ranking"), logged.selection)
    check_mixture(table("synque_mixture"))
    assert table("synque_correlation_mixture")[0]["n"] == 5
    assert table("synque_rubric/near") == [{"text": RUBRIC}]
    (image,) = run.glob("files/media/images/synque_correlation_mixture_*.png")
    assert image.read_bytes().startswith(PNG)
    assert HPARAMS.items() <= dict(logger.experiment.config).items()


@pytest.mark.parametrize("logger", ["mlflow"], indirect=True)
def test_mlflow_artifacts(logger: Any, logged: Logged):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged.folder}/mlflow.db")

    def artifact(name: str) -> Path:
        return Path(client.download_artifacts(logger.run_id, name))

    check_ranking(read_rows(artifact("synque_ranking.csv").read_text()), logged.selection)
    check_mixture(read_rows(artifact("synque_mixture.csv").read_text()))
    assert "Ranking by mmd against 30 real" in artifact("synque_ranking.md").read_text()
    assert (
        "5 distinct mixtures, runs of kind mixture"
        in artifact("synque_correlation_mixture.md").read_text()
    )
    assert artifact("synque_correlation_mixture.png").read_bytes().startswith(PNG)
    assert artifact("synque_rubric/near.md").read_text() == RUBRIC
    params = client.get_run(logger.run_id).data.params
    assert {key: params[key] for key in HPARAMS} == {k: str(v) for k, v in HPARAMS.items()}


@pytest.mark.parametrize("logger", ["mlflow"], indirect=True)
def test_mlflow_inputs(logger: Any, logged: Logged):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged.folder}/mlflow.db")
    run = client.get_run(logger.run_id)
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    ranking = logged.selection.ranking
    assert inputs.keys() == ranking.top().weights.keys()
    for name, weight in ranking.top().weights.items():
        dataset, tags = inputs[name].dataset, {tag.key: tag.value for tag in inputs[name].tags}
        assert ranking[name].sha256.startswith(dataset.digest)
        assert tags["sha256"] == ranking[name].sha256
        assert float(tags["weight"]) == pytest.approx(weight)
        assert tags["mlflow.data.context"] == "training"
        assert json.loads(dataset.profile) == {"num_rows": ranking[name].n}
    query = f"dataset.digest = '{inputs['near'].dataset.digest}'"
    matches = client.search_runs([run.info.experiment_id], query)
    assert [match.info.run_id for match in matches] == [logger.run_id]


@pytest.mark.parametrize("logger", [False, []])
def test_without_a_logger_nothing_breaks(tmp_path: Path, logger: Any):
    selection = fit(tmp_path, 2, Rubric(), logger=logger)
    assert selection.run_dir is not None
    assert (selection.run_dir / "ranking.json").exists()
