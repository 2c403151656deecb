"""SelectionCallback(label_filter=): training leaves out what the other candidates contradict."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, LightningError
from synque_select.records.dropped_labels_file import load_dropped_labels
from synque_select.records.ranking_file import load_ranking, save_ranking
from synque_select.training.comparability import hyper_parameters
from tests.lightning_package import SelectionCallback, SynqueDataModule
from tests.training.tiny import LetterEncoder, TinyData, TinyModel, collate, seen_by, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
)

WORDS = (("apple", "banana", "cherry"), ("zoo", "xyst", "queue"))
N = 40


def examples(seed: int, noise: float = 0.0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    records = []
    for i in range(N):
        label = i % 2
        text = " ".join(draw.choices(WORDS[label], k=4)) + f" {seed} {i}"
        wrong = draw.random() < noise
        records.append({"text": text, "label": label != wrong, "wrong": wrong})
    return [{**record, "label": int(record["label"])} for record in records]


def candidates(noise: float = 0.2) -> list[Candidate]:
    return [Candidate(f"c{k}", examples(k, noise), "text", "label") for k in range(4)]


def wrong_texts() -> set[str]:
    return {e["text"] for c in candidates() for e in c if e["wrong"]}


def data_module(**options: Any) -> SynqueDataModule:
    real = RealSample("real", examples(99), view="text")
    return SynqueDataModule(
        **{"candidates": candidates(), "real": real, "wraps": TinyData()} | options
    )


@pytest.fixture
def selection(tmp_path: Path) -> Any:
    def make(**options: Any) -> SelectionCallback:
        defaults = {
            "proxies": ["mmd"],
            "encoder": LetterEncoder(),
            "cache_dir": tmp_path / "cache",
            "label_filter": "auto",
            "top_k": 4,
        }
        return SelectionCallback(**{**defaults, **options})

    return make


def fit(
    callback: SelectionCallback, folder: Path, **options: Any
) -> tuple[TinyModel, SynqueDataModule]:
    model, datamodule = TinyModel(), data_module()
    trainer(folder, callback, max_steps=18, **options).fit(model, datamodule=datamodule)
    return model, datamodule


def test_training_leaves_out_what_is_contradicted(selection: Any, tmp_path: Path):
    callback = selection()
    model, datamodule = fit(callback, tmp_path)
    record = callback.ranking.label_filter
    assert record.is_open
    n_dropped = sum(record.dropped.values())
    assert n_dropped > 10
    assert not wrong_texts() & set(seen_by(model))
    dropped = load_dropped_labels(callback.run_dir / "dropped_labels.jsonl")
    assert sum(map(len, dropped.values())) == n_dropped
    by_name = {candidate.name: candidate for candidate in candidates()}
    gone = {by_name[name][each.position]["text"] for name, part in dropped.items() for each in part}
    assert gone == wrong_texts()
    lines = (callback.run_dir / "dropped_labels.jsonl").read_text().splitlines()
    assert "it is dropped" in json.loads(lines[0])["reason"]
    # the ranked candidates stay as they are: what was scored can be compared with the ranking
    assert [len(candidate) for candidate in datamodule.candidates] == [N] * 4
    assert datamodule.mixture is not None
    assert datamodule.mixture.source.endswith("labels filtered")
    assert load_ranking(callback.run_dir).label_filter == record


def test_relabeled_examples_are_trained_on_with_the_other_label(selection: Any, tmp_path: Path):
    callback = selection(relabel=True)
    _, datamodule = fit(callback, tmp_path)
    loader = datamodule.mixture_loader()
    served = {c.name: c for c in loader.dataset.candidates}
    assert [len(candidate) for candidate in served.values()] == [N] * 4
    for candidate in served.values():
        assert all(e["label"] == int(e["text"].split()[0] in WORDS[1]) for e in candidate)
        assert {type(e["label"]) for e in candidate} == {int}
    assert callback.ranking.label_filter.relabel
    text = (callback.run_dir / "dropped_labels.jsonl").read_text()
    assert "it is trained on as" in text


def test_off_by_default_with_a_message_that_offers_it(selection: Any, tmp_path: Path):
    callback = selection(label_filter="off")
    model, datamodule = fit(callback, tmp_path)
    assert callback.ranking.label_filter is None
    assert datamodule.label_edits is None
    assert wrong_texts() & set(seen_by(model))
    assert not (callback.run_dir / "dropped_labels.jsonl").exists()
    messages = " ".join(callback.ranking.messages)
    assert (
        "The label filter is off. With label_filter='auto' (--label-filter auto), it would drop"
        in messages
    )


def test_a_closed_filter_says_why(selection: Any, tmp_path: Path):
    callback = selection(top_k=2)
    _, datamodule = fit(callback, tmp_path)
    assert not callback.ranking.label_filter.is_open
    assert datamodule.label_edits is None
    assert "drops nothing: a selected candidate's labels are judged by 1 other" in " ".join(
        callback.ranking.messages
    )
    assert not (callback.run_dir / "dropped_labels.jsonl").exists()


def test_a_second_run_reads_the_filter_from_the_cache(selection: Any, tmp_path: Path):
    first, second = selection(), selection(encoder=LetterEncoder())
    fit(first, tmp_path / "a")
    model, _ = fit(second, tmp_path / "b")
    assert second._encoder.n_encoded == 0
    assert second.ranking.label_filter == first.ranking.label_filter
    assert not wrong_texts() & set(seen_by(model))
    names = [run / "dropped_labels.jsonl" for run in (first.run_dir, second.run_dir)]
    assert names[0].read_bytes() == names[1].read_bytes()
    # another choice is another ranking
    other = selection(label_filter=0.99)
    fit(other, tmp_path / "c")
    assert other.ranking.label_filter.choice == 0.99


def checkpoint(selection: Any, folder: Path) -> tuple[TinyModel, str]:
    """Train 6 steps with a filter; return the model and the path of a checkpoint."""
    model, path = TinyModel(), str(folder / "six.ckpt")
    run = trainer(folder, selection(), max_steps=6)
    run.fit(model, datamodule=data_module())
    run.save_checkpoint(path)
    return model, path


def test_a_resumed_run_serves_the_same_examples(selection: Any, tmp_path: Path):
    whole, _ = fit(selection(), tmp_path / "whole")
    first, path = checkpoint(selection, tmp_path / "part")
    again = TinyModel()
    trainer(tmp_path / "rest", selection(), max_steps=18).fit(
        again, datamodule=data_module(), ckpt_path=path, weights_only=False
    )
    assert seen_by(first) + seen_by(again) == seen_by(whole)


def test_a_checkpoint_keeps_its_filter(selection: Any, tmp_path: Path):
    _, path = checkpoint(selection, tmp_path / "part")
    again = TinyModel()
    run = trainer(tmp_path / "rest", selection(label_filter="off"), max_steps=18)
    with pytest.warns(UserWarning, match="continues with the label filter of the checkpoint"):
        run.fit(again, datamodule=data_module(), ckpt_path=path, weights_only=False)
    assert not wrong_texts() & set(seen_by(again))


def test_a_ranking_made_elsewhere_brings_its_filter(selection: Any, tmp_path: Path):
    first = selection()
    fit(first, tmp_path / "a")
    model, _ = fit(SelectionCallback(ranking=first.run_dir / "ranking.json"), tmp_path / "b")
    assert not wrong_texts() & set(seen_by(model))
    with pytest.warns(UserWarning, match="Give the path of its ranking.json"):
        fit(SelectionCallback(ranking=first.ranking), tmp_path / "c")
    save_ranking(first.ranking, tmp_path / "alone")
    with pytest.raises(Exception, match=r"dropped_labels.jsonl"):
        fit(SelectionCallback(ranking=tmp_path / "alone"), tmp_path / "d")


def test_runs_with_and_without_a_filter_are_not_comparable(selection: Any, tmp_path: Path):
    values = []
    for how in ("auto", "off"):
        model, datamodule = TinyModel(), data_module()
        run = trainer(tmp_path / how, selection(label_filter=how), max_steps=2)
        run.fit(model, datamodule=datamodule)
        values.append(hyper_parameters(run, model))
    assert "label_edits_sha256" in values[0]
    assert "label_edits_sha256" not in values[1]


def test_a_filter_cannot_change_after_the_loader_is_built(selection: Any, tmp_path: Path):
    callback = selection()
    _, datamodule = fit(callback, tmp_path)
    edits = datamodule.label_edits
    datamodule._built = datamodule.mixture
    datamodule.set_label_edits(edits)  # the same again is allowed
    with pytest.raises(LightningError, match="already built"):
        datamodule.set_label_edits(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_filter": "on"}, "label_filter='on'"),
        ({"label_filter": "off", "relabel": True}, "relabel=True"),
        ({"ranking": "ranking.json", "proxies": None, "encoder": None}, "label_filter="),
    ],
)
def test_bad_arguments(selection: Any, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        selection(**options)


@pytest.mark.parametrize(
    ("label", "proxies", "message"),
    [(None, ["mmd"], "give label="), ("label", ["ngram"], "needs embeddings")],
)
def test_what_it_needs_is_checked_before_scoring(
    selection: Any, tmp_path: Path, label: str | None, proxies: list[str], message: str
):
    parts = [Candidate(f"c{k}", examples(k), "text", label) for k in range(4)]
    datamodule = data_module(candidates=parts)
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path, selection(proxies=proxies)).fit(TinyModel(), datamodule=datamodule)


@pytest.mark.filterwarnings("ignore:.* also in the validation data")
def test_a_surrogate_validation_set_and_a_filter_go_together(selection: Any, tmp_path: Path):
    callback, model = selection(), TinyModel()
    datamodule = data_module(wraps=None, val="surrogate", collate_fn=collate, batch_size=8)
    trainer(tmp_path, callback, max_steps=18).fit(model, datamodule=datamodule)
    assert callback.ranking.label_filter.is_open
    assert not wrong_texts() & set(seen_by(model))
    assert datamodule.surrogate is not None
    served = {e["text"] for c in datamodule.surrogate.training for e in c}
    assert set(seen_by(model)) <= served
