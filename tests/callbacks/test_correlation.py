from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, LightningError
from synque_select.functional.correlation import correlate_scores
from synque_select.proxies.base import BaseProxy, ProxyScores
from synque_select.proxies.domain import PAD
from synque_select.proxies.kernel import MMD, Energy
from synque_select.proxies.lexical import NGram
from synque_select.proxies.neighbours import Coverage
from synque_select.records.correlation_file import load_correlations
from synque_select.records.store import RunStore
from synque_select.selection.scorer import rank
from synque_select.types import Mixture, Ranking
from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import (
    LetterEncoder,
    TinyModel,
    candidates,
    data_module,
    logged_texts,
    real_sample,
    texts_of,
    trainer,
)

ModelCheckpoint = pl.callbacks.ModelCheckpoint
CSVLogger = pl.loggers.CSVLogger
TensorBoardLogger = pl.loggers.TensorBoardLogger

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.fixture
def fit(tmp_path: Path) -> Any:
    """Fit a tiny model and return the callback and the model."""

    def run(
        *,
        selection: dict[str, Any] | None = None,
        lr: float = 0.5,
        seed: int = 0,
        ckpt_path: Path | None = None,
        callbacks: Sequence[pl.Callback] = (),
        trainer_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[ProxyCorrelationCallback, TinyModel]:
        given = {
            "proxies": ["mmd"],
            "top_k": 2,
            "encoder": LetterEncoder(),
            "cache_dir": tmp_path / "cache",
        }
        torch.manual_seed(seed)
        model = TinyModel(lr=lr)
        callback = ProxyCorrelationCallback(**{"store": tmp_path / "records.sqlite", **options})
        runner = trainer(
            tmp_path,
            SelectionCallback(**(given | (selection or {}))),
            callback,
            *callbacks,
            **(trainer_options or {}),
        )
        runner.fit(model, datamodule=data_module(), ckpt_path=ckpt_path)
        return callback, model

    return run


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "records.sqlite")


def test_the_record_of_a_fit(fit, store):
    callback, _ = fit()
    (record,) = store.read()
    assert record == callback.record
    assert record.kind == "mixture"
    assert record.mixture == Mixture({"near": 0.5, "mixed": 0.5}, "top 2 by mmd")
    assert record.unit.startswith("mixed 0.5 + near 0.5 @")
    assert record.orientation == {"mmd": False}
    assert set(record.metrics) == {"val_acc", "val_loss"}
    assert 0 <= record.metrics["val_acc"] <= 1
    assert record.key["examples_drawn"] == 64
    assert record.key["optimizer_steps"] == 8
    assert record.key["hyper_parameters"]["module"] == {"lr": 0.5}
    assert record.key["hyper_parameters"]["optimizers"][0]["class"] == "SGD"
    assert record.key["encoder"] == "letters (1)"
    assert record.details["validated_at_step"] == record.details["final_step"] == 8
    assert set(record.details["candidates"]) == {c.name for c in candidates()}


def test_the_mixture_is_scored_as_it_was_served(fit, tmp_path):
    callback, model = fit()
    by_name = {c.name: c for c in candidates()}
    served = Candidate("served", [r for n in ("near", "mixed") for r in by_name[n].dataset], "text")
    ranking = rank(
        [*candidates(), served],
        real_sample(),
        encoder=LetterEncoder(),
        proxies=["mmd"],
        cache_dir=tmp_path / "cache",
        progress=False,
    )
    expected = ranking["served"].scores["mmd"].value
    # a concatenation has fewer pairs within a part, by 1 in 120, than draws of the mixture have
    assert callback.record.scores["mmd"] == pytest.approx(expected, abs=2e-3)
    single, _ = fit(selection={"top_k": 1})
    assert single.record.scores == single.record.details["candidates"]["near"]
    assert {text for batch in model.seen for text in batch} <= texts_of("near", "mixed")


class Spread(BaseProxy):
    """A proxy of the user's, whose scores of candidates are not kept."""

    key, higher_is_better, unit = "own", True, "standard deviation"
    source, family = "test", "diversity"

    def score(self, real, candidates, *, seed, device):
        values = torch.stack([part.embeddings.std() for part in candidates]).double()
        return ProxyScores(values, mixture=lambda weights: float(weights @ values))


@pytest.mark.parametrize("top_k", [2, 4])
def test_nothing_is_scored_twice(fit, monkeypatch: pytest.MonkeyPatch, top_k: int):
    """All candidates are scored once, also for the mixture; with a full cache, nothing is."""
    calls: list[tuple[str, str]] = []

    def counted(cls: type[BaseProxy], name: str) -> None:
        given = getattr(cls, name)

        def counting(self: BaseProxy, real: Any, parts: Any, **options: Any) -> Any:
            if len(parts) > 1:  # halves of the real sample are scored for the column of reference
                calls.append((cls.key, name))
            return given(self, real, parts, **options)

        monkeypatch.setattr(cls, name, counting)

    packaged = (PAD, MMD, Energy, Coverage, NGram)
    for cls in packaged:
        counted(cls, "score")
        counted(cls, "mixture_score")
    counted(Spread, "score")
    suite = [*(cls.key for cls in packaged), Spread()]
    options = {"proxies": suite, "rank_by": "mmd", "top_k": top_k}
    first, _ = fit(selection=options)
    keys = [cls.key for cls in packaged]
    once = {(key, name) for key in keys for name in ("score", "mixture_score")} | {("own", "score")}
    assert sorted(calls) == sorted(once)
    calls.clear()
    again, _ = fit(selection=options)
    assert calls == []
    assert again.record.scores == first.record.scores
    assert set(first.record.scores) == {*keys, "own"}


def read_csv(logger: CSVLogger, name: str) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_five_mixtures_give_a_correlation_in_every_logger(fit, tmp_path, store):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    board, file = TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")
    for top_k in (1, 2, 3, 4):
        callback, _ = fit(selection={"top_k": top_k})
        (entry,) = callback.correlations
        assert entry.proxies == {}
        assert f"{5 - top_k} more" in entry.messages[0]
    callback, _ = fit(selection={"top_k": 5}, trainer_options={"logger": [board, file]})
    (entry,) = callback.correlations
    records = store.read()
    expected = correlate_scores(
        [record.scores["mmd"] for record in records],
        [record.metrics["val_acc"] for record in records],
        higher_is_better=False,
        mode="max",
    )
    assert entry.proxies["mmd"].spearman == expected.spearman
    text = logged_texts(board.log_dir)["synque_correlation_mixture/text_summary"]
    assert "5 distinct mixtures, runs of kind mixture, val_acc (max)" in text
    (row,) = read_csv(file, "synque_correlation_mixture")
    # an undefined number is an empty cell
    assert float(row["spearman"] or "nan") == pytest.approx(expected.spearman.value, nan_ok=True)
    assert row["n"] == "5"
    image = Path(file.log_dir) / "synque_correlation_mixture.png"
    assert image.read_bytes().startswith(b"\x89PNG")
    assert "synque_correlation_mixture" in logged_images(board.log_dir)
    folder = Path(callback.record.details["run_dir"])
    assert load_correlations(folder)[0].points == entry.points
    assert (
        "5 distinct mixtures, runs of kind mixture, val_acc (max)"
        in (folder / "report.html").read_text()
    )


def logged_images(folder: str) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder)
    events.Reload()
    tags: list[str] = events.Tags()["images"]
    return tags


def test_runs_that_differ_in_more_than_the_mixture_are_not_compared(fit):
    keys = {
        fit()[0].record.key_hash,
        fit(selection={"top_k": 1})[0].record.key_hash,
        fit()[0].record.key_hash,
    }
    assert len(keys) == 1
    changed = [
        fit(lr=0.1),
        fit(seed=1),
        fit(task="another"),
        fit(monitor="val_loss", mode="min"),
        fit(trainer_options={"max_steps": 4, "val_check_interval": 4}),
        fit(selection={"proxies": ["mmd", "mdm"]}),
    ]
    assert len(keys | {callback.record.key_hash for callback, _ in changed}) == 7


def test_other_proxies_than_those_of_the_selection(fit):
    callback, _ = fit(proxies=["mdm", "coverage"])
    assert set(callback.record.scores) == {"mdm", "coverage"}
    assert set(callback.record.key["proxies"]) == {"mdm", "coverage"}
    assert all(math.isfinite(value) for value in callback.record.scores.values())


def test_a_primary_metric_that_is_not_logged_costs_a_warning(fit, store):
    with pytest.warns(UserWarning, match="'accuracy' was logged.*found: val_acc, val_loss"):
        callback, model = fit(monitor="accuracy")
    assert len(model.seen) == 8
    (record,) = store.read()
    assert set(record.metrics) == {"val_acc", "val_loss"}
    assert "1 run left out: without a finite accuracy" in callback.correlations[0].messages


def test_a_validation_before_the_end_is_said(fit, store):
    with pytest.warns(UserWarning, match="the last validation was at step 5 of 8"):
        fit(trainer_options={"val_check_interval": 5})
    (record,) = store.read()
    assert record.details["validated_at_step"] == 5
    assert "step 5 of 8" in record.details["note"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
def test_a_resumed_run_has_one_record(fit, tmp_path, store):
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_top_k=-1)
    first, _ = fit(callbacks=[saving], trainer_options={"enable_checkpointing": True})
    (checkpoint,) = (tmp_path / "saved").glob("*step=4.ckpt")
    second, model = fit(seed=1, ckpt_path=checkpoint)
    assert len(model.seen) == 4
    (record,) = store.read()
    assert first.record.run_id == second.record.run_id == record.run_id
    # the first weights are those of the run that wrote it, and the batches before it count
    assert second.record.key == first.record.key
    assert second.record.metrics == first.record.metrics


def test_a_ranking_whose_encoder_is_not_here_leaves_the_mixture_unscored(fit, tmp_path, store):
    class Elsewhere(LetterEncoder):
        id = "./no/such/folder"

    made = rank(
        candidates(),
        real_sample(),
        encoder=Elsewhere(),
        proxies=["mmd"],
        top_k=2,
        cache_dir=tmp_path / "elsewhere",
        progress=False,
    )
    assert isinstance(made, Ranking)
    given = {"ranking": made, "proxies": None, "encoder": None, "top_k": None}
    with pytest.warns(UserWarning, match="the mixture was not scored"):
        fit(selection=given)
    (record,) = store.read()
    assert record.scores == {}
    assert record.details["candidates"]["near"]["mmd"] == made["near"].scores["mmd"].value


def test_it_needs_a_selection(tmp_path):
    callback = ProxyCorrelationCallback(store=tmp_path / "records.sqlite")
    with pytest.raises(LightningError, match=r"callbacks=\[SelectionCallback\(…\), ProxyCorr"):
        trainer(tmp_path, callback).fit(TinyModel(), datamodule=data_module())


def test_an_unknown_proxy_is_refused_before_training(fit, store):
    with pytest.raises(ConfigError, match="did you mean 'mdm'"):
        fit(proxies=["mdmm"])
    assert store.read() == []


def test_bad_mode():
    with pytest.raises(ConfigError, match="mode='maximum': allowed are 'max' and 'min'"):
        ProxyCorrelationCallback(mode="maximum")


def test_fast_dev_run_keeps_no_record(fit, store):
    callback, _ = fit(trainer_options={"fast_dev_run": True})
    assert callback.record is None
    assert store.read() == []
