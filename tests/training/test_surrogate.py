from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synque_select import SurrogateOptions, surrogate_validation
from synque_select.data.candidate import Candidate
from synque_select.data.examples import Examples
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.experiment.task import unseen
from synque_select.probing.probes import run_probes
from synque_select.probing.sweep import SweepOptions, run_sweep
from synque_select.records.correlation import correlate, surrogate_reliability
from synque_select.records.store import RunStore
from synque_select.selection.scorer import Scorer
from synque_select.training.comparability import validation_of
from synque_select.types import Mixture
from tests.lightning_package import (
    ProxyCorrelationCallback,
    SelectionCallback,
    SynqueDataModule,
    pl,
)
from tests.training.tiny import (
    REAL_WORDS,
    WORDS,
    LetterEncoder,
    TinyData,
    TinyModel,
    candidates,
    collate,
    real_sample,
    seen_by,
    texts,
    trainer,
)
from tests.warm_processes import run_warm

EarlyStopping = pl.callbacks.EarlyStopping
ModelCheckpoint = pl.callbacks.ModelCheckpoint
CSVLogger = pl.loggers.CSVLogger

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:Be aware that when using `ckpt_path`, callbacks",
)
N = len(WORDS)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


def options(**changed: Any) -> SurrogateOptions:
    return SurrogateOptions(
        **({"size": 100, "held_out": 0.3, "encoder": LetterEncoder()} | changed)
    )


def module(**changed: Any) -> SynqueDataModule:
    given: dict[str, Any] = {
        "candidates": candidates(200),
        "real": real_sample(),
        "val": options(),
        "collate_fn": collate,
        "batch_size": 16,
    }
    return SynqueDataModule(**(given | changed))


def served(data: SynqueDataModule) -> list[str]:
    return [text for batch in data.val_dataloader() for text in batch[2]]


def owners(data: SynqueDataModule) -> list[int]:
    """Number of examples of each candidate that the mixture is measured on."""
    texts_of = [set(c.views) for c in data.candidates]
    return [sum(text in own for text in served(data)) for own in texts_of]


def test_a_probe_is_measured_on_all_others_but_not_on_its_own():
    data = module()
    for k, name in enumerate(WORDS):
        expected = [20] * N
        expected[k] = 0
        assert owners(data.with_mixture(Mixture.equal([name]))) == expected


def test_a_family_is_not_measured_on_its_own():
    families = {"near": "a", "mixed": "a", "half": "b", "far": "c", "odd": "c"}
    data = module(val=options(family=families, size=90))
    assert owners(data.with_mixture(Mixture.equal(["near"]))) == [0, 0, 30, 15, 15]
    assert owners(data.with_mixture(Mixture.equal(["half"]))) == [15, 15, 0, 15, 15]
    data = module(val=options(family="^(.).*", size=80))
    assert data.surrogate.families == ("n", "m", "h", "f", "o")


@pytest.mark.parametrize(
    "weights", [{"near": 0.5, "far": 0.5}, {"near": 0.9, "odd": 0.1}, dict.fromkeys(WORDS, 1 / N)]
)
def test_each_draw_of_a_mixture_is_judged_by_the_others(weights: dict[str, float]):
    """v_c(w) = Σ_a w_a · mean over the candidates other than a."""
    data = module(val=options(size=1000))
    measured = np.array(owners(data.with_mixture(Mixture(weights))))
    probes = {name: np.array(owners(data.with_mixture(Mixture.equal([name])))) for name in weights}
    expected = sum(weight * probes[name] for name, weight in weights.items())
    assert np.abs(measured - expected).max() <= 0.5
    assert abs(measured.sum() - 800) <= 2


def test_a_candidate_with_swapped_labels_does_not_judge_itself():
    """Half of the training draws are wrong, and right on their own examples."""
    records = texts(REAL_WORDS, 400, 3)
    swapped = [{**r, "label": 1 - r["label"]} for r in texts(REAL_WORDS, 400, 4)]
    rows = {"good": records, "fine": texts(REAL_WORDS, 400, 5), "swapped": swapped}
    pool = [Candidate(name, row, view="text", label="label") for name, row in rows.items()]
    data = module(candidates=pool, val=options(size=300))
    right = {"good": 0, "fine": 0, "swapped": 1}

    def accuracy(mixture: Mixture, answer: int) -> float:
        """What a model that always gives right (0) or swapped (1) answers would score."""
        part = data.surrogate.for_mixture(mixture)
        names = [pool[k].name for k in data.surrogate.owners[part.indices]]
        return float(np.mean([right[name] == answer for name in names]))

    # the probe of the swapped candidate has learned the swapped answers
    assert accuracy(Mixture.equal(["swapped"]), 1) == 0
    assert accuracy(Mixture.equal(["good"]), 0) == 0.5
    # adding the swapped candidate to a mixture that still answers right gains at most 1/(F − 1)
    gain = accuracy(Mixture({"good": 0.8, "swapped": 0.2}), 0) - accuracy(
        Mixture.equal(["good"]), 0
    )
    assert 0 < gain <= 0.2 / 2 + 0.01


def test_nothing_that_is_validated_on_is_trained_on(tmp_path):
    copies = candidates(200)
    # one candidate is a copy of another: its copies of held-out examples are held out, too
    copies[1] = Candidate("mixed", copies[0].dataset, view="text", label="label")
    model = TinyModel()
    data = module(candidates=copies)
    trainer(tmp_path, max_steps=80, val_check_interval=40).fit(model, datamodule=data)
    validated = set(served(data))
    assert validated
    assert len(set(seen_by(model))) > 500
    assert not validated & set(seen_by(model))
    held = Examples(
        "held",
        [
            data.surrogate.candidates[k][int(i)]
            for k, i in zip(data.surrogate.owners, data.surrogate.draw.positions, strict=True)
        ],
        view="text",
    )
    for part in data.surrogate.training:
        assert len(unseen(part, held)) == len(part)


def test_callbacks_see_the_metric_and_loggers_see_it_marked(tmp_path):
    logger = CSVLogger(tmp_path)
    stopping = EarlyStopping("val_acc", mode="max", patience=50)
    saver = ModelCheckpoint(tmp_path / "best", monitor="val_acc", mode="max")
    fit = trainer(
        tmp_path, stopping, saver, logger=logger, enable_checkpointing=True,
        max_steps=20, val_check_interval=5,
    )  # fmt: skip
    fit.fit(TinyModel(), datamodule=module())
    fit.validate(TinyModel(), datamodule=module(), verbose=False)
    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"surrogate/val_acc", "surrogate/val_loss"} <= set(header)
    assert not {"val_acc", "val_loss"} & set(header)
    assert saver.best_model_score > 0
    assert stopping.best_score > 0
    assert "log_metrics" not in vars(logger)


def test_probes_need_no_labels_and_their_records_are_marked(tmp_path):
    data, store = module(), RunStore(tmp_path / "records.sqlite")
    scorer = Scorer(["mmd"], encoder=LetterEncoder(), top_k=2, progress=False)
    ranking = scorer.rank(data.candidates, data.real)
    probes = {"max_steps": 30, "store": store, "progress": False}
    records = run_probes(TinyModel, data, ranking, **probes)
    assert {r.monitor for r in records} == {"surrogate/val_acc"}
    assert all(set(r.metrics) == {"surrogate/val_acc", "surrogate/val_loss"} for r in records)
    (entry,) = correlate(records)
    assert entry.key["metric"] == "surrogate/val_acc"
    assert "without any labeled real example" in entry.messages[-1]
    assert surrogate_reliability(records) == []
    again = run_probes(TinyModel, data, ranking, **probes)
    assert [r.created for r in again] == [r.created for r in records]
    # labeled validation of the same candidates has another key
    labeled = module(val=None, wraps=TinyData())
    others = run_probes(TinyModel, labeled, ranking, **probes)
    assert not {r.key_hash for r in others} & {r.key_hash for r in records}
    assert all(set(r.metrics) == {"val_acc", "val_loss"} for r in others)


def test_a_sweep_reports_the_reliability_where_labels_exist(tmp_path, capsys):
    run = run_sweep(
        TinyModel(),
        module(wraps=TinyData()),
        max_steps=30,
        options=SweepOptions(task="tiny"),
        scorer=Scorer(["mmd"], encoder=LetterEncoder(), top_k=2, progress=False),
        store=str(tmp_path / "records.sqlite"),
        run_dir=str(tmp_path / "run"),
    )
    printed = capsys.readouterr().out
    assert "surrogate validation: 100 examples of 5 candidates" in printed
    assert "5 distinct candidates, runs of kind probe, surrogate/val_acc (max)" in printed
    assert "5 distinct candidates, runs of kind probe, val_acc (max)" in printed
    records = RunStore(tmp_path / "records.sqlite").read(kind="probe")
    (entry,) = surrogate_reliability(records)
    assert entry.monitor == "val_acc"
    assert list(entry.proxies) == ["surrogate"]
    for point in entry.points:
        (record,) = [r for r in records if r.unit == point.unit]
        assert point.scores["surrogate"] == record.metrics["surrogate/val_acc"]
        assert point.validation == record.metrics["val_acc"]
    assert "surrogate" in (run / "report.html").read_text()


def test_the_key_does_not_depend_on_the_mixture():
    data = module()
    keys = {validation_of(data.with_mixture(Mixture.equal([name]))) for name in WORDS}
    assert len(keys) == 1
    assert validation_of(module(val=options(seed=1))) not in keys


def test_the_callback_writes_a_marked_record(tmp_path):
    selection = SelectionCallback(["mmd"], top_k=2, encoder=LetterEncoder())
    callback = ProxyCorrelationCallback(store=tmp_path / "records.sqlite")
    trainer(tmp_path, selection, callback).fit(TinyModel(), datamodule=module())
    assert callback.record.monitor == "surrogate/val_acc"
    assert callback.record.key["metric"] == "surrogate/val_acc"
    assert {"surrogate/val_acc", "surrogate/val_loss"} <= set(callback.record.metrics)
    assert "val_acc" not in callback.record.metrics


def test_a_resumed_run_has_the_same_set(tmp_path):
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_last=True)
    first = module()
    fit = trainer(tmp_path, saver, enable_checkpointing=True, max_steps=8)
    fit.fit(TinyModel(), datamodule=first)
    again = module()
    last = str(tmp_path / "saved" / "last.ckpt")
    trainer(tmp_path, max_steps=12).fit(
        TinyModel(), datamodule=again, ckpt_path=last, weights_only=False
    )
    assert (again.surrogate.draw.positions == first.surrogate.draw.positions).all()
    with pytest.warns(UserWarning, match="surrogate validation set has changed"):
        trainer(tmp_path, max_steps=12).fit(
            TinyModel(), datamodule=module(val=options(size=50)), ckpt_path=last,
            weights_only=False,
        )  # fmt: skip
    with pytest.raises(LightningError, match="with surrogate validation data"):
        trainer(tmp_path, max_steps=12).fit(
            TinyModel(),
            datamodule=module(val=texts(REAL_WORDS, 20, 7)),
            ckpt_path=last,
            weights_only=False,
        )


def test_a_validation_transform_of_its_own():
    def shout(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "text": record["text"].upper()}

    data = module(val=options(transform=shout))
    assert all(text.isupper() for text in served(data))
    assert not any(text.isupper() for text in next(iter(data.train_dataloader()))[2])
    data = module(train_transform=shout)
    assert all(text.isupper() for text in served(data))


def test_options_of_the_wrapped_training_loader_are_used():
    data = module(wraps=TinyData(), collate_fn=None, batch_size=None)
    assert {len(batch[2]) for batch in data.val_dataloader()} == {8}


def test_the_function_takes_what_load_candidates_takes(tmp_path):
    drawn = surrogate_validation(
        {c.name: c.dataset for c in candidates(200)},
        real_sample().dataset,
        view="text",
        label="label",
        options=options(),
    )
    assert len(drawn) == 100
    assert drawn[0]["label"] in (0, 1)
    assert set(drawn.effective_sizes) == set(WORDS)
    assert sum(map(len, drawn.training)) < sum(map(len, candidates(200)))


def test_targets_may_be_numbers_or_answers():
    for name, target in (("score", 1.5), ("answer", "SELECT 1")):
        pool = [
            Candidate(c.name, [{"text": r["text"], name: target} for r in c.dataset], "text", name)
            for c in candidates(200)
        ]
        assert module(candidates=pool).surrogate[0][name] == target


def test_refused(tmp_path):
    with pytest.raises(ConfigError, match="the only text allowed is 'surrogate'"):
        module(val="surogate")
    with pytest.raises(ConfigError, match="test must be a dataset"):
        module(test="surrogate")
    with pytest.raises(ConfigError, match="needs real="):
        module(real=None)
    with pytest.raises(ConfigError, match="size=1"):
        options(size=1)
    with pytest.raises(ConfigError, match="matches no candidate"):
        _ = module(val=options(family="zzz")).surrogate
    with pytest.raises(ConfigError, match="allowed is a regular expression"):
        _ = module(val=options(family="(")).surrogate
    with pytest.raises(ConfigError, match="'nearr' is not a candidate"):
        _ = module(val=options(family={"nearr": "a"})).surrogate


def test_labels_are_required():
    bare = [Candidate(c.name, [{"text": t} for t in c.views]) for c in candidates(200)]
    with pytest.raises(ConfigError, match="near has no label, so nothing can be validated"):
        _ = module(candidates=bare).surrogate
    some = candidates(200)
    some[2] = Candidate(some[2].name, some[2].dataset, view="text")
    with pytest.raises(ConfigError, match="half has no label"):
        _ = module(candidates=some).surrogate
    empty = candidates(200)
    rows = [{**record, "label": None} for record in empty[0].dataset]
    rows[0]["label"] = 1
    empty[0] = Candidate("near", rows, view="text", label="label")
    with pytest.raises(DataError, match=r"near, example \d+ .*its label 'label' is missing"):
        _ = module(candidates=empty).surrogate


def test_a_plain_dataset_as_validation_is_not_marked(tmp_path):
    logger = CSVLogger(tmp_path)
    rows = texts(REAL_WORDS, 20, 7)
    data = module(val=torch.utils.data.DataLoader(rows, batch_size=8, collate_fn=collate))
    trainer(tmp_path, logger=logger).fit(TinyModel(), datamodule=data)
    assert "surrogate" not in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_every_rank_has_the_set_of_rank_zero(tmp_path):
    script = Path(__file__).parent / "scripts" / "serve_surrogate.py"
    done = run_warm(
        [script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert zero["positions"] == one["positions"]
    assert (zero["n_encoded"] > 0, one["n_encoded"]) == (True, 0)
    assert len(zero["served"]) == len(one["served"]) == 40
    data = module(candidates=candidates(100), mixture={"near": 0.5, "far": 0.5})
    assert sorted(zero["served"] + one["served"]) == sorted(served(data))
