"""Labeled real data as a fixed part of training: the ids that training_step sees."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, LightningError
from synque_select.training.comparability import hyper_parameters
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.types import Mixture
from tests.lightning_package import SelectionCallback, SynqueDataModule
from tests.training.serving import Recorder, candidates, fit, records, trainer
from tests.training.tiny import LetterEncoder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]


def labeled(n: int = 20) -> Candidate:
    return Candidate("real", records("r", n), view="text")


def data(**options: Any) -> SynqueDataModule:
    given = {"labeled_real": labeled(), "real_share": 0.2, "batch_size": 10}
    return SynqueDataModule(**{"candidates": candidates(), **given, **options})


def first_letters(ids: list[str]) -> dict[str, int]:
    return dict(Counter(name[0] for name in ids))


def test_its_share_in_every_1000_draws(tmp_path: Path):
    dm = data(mixture={"a": 0.75, "b": 0.25}, epoch_length=1000, batch_size=100)
    ids = fit(tmp_path, dm, max_epochs=3).ids
    for block in range(3):
        drawn = first_letters(ids[1000 * block : 1000 * (block + 1)])
        assert drawn == {"a": 600, "b": 200, "r": 200}


def test_an_epoch_repeats_no_synthetic_example(tmp_path: Path):
    ids = fit(tmp_path, data()).ids
    assert first_letters(ids) == {"a": 60, "b": 60, "c": 60, "r": 45}
    synthetic = [name for name in ids if name[0] != "r"]
    assert len(set(synthetic)) == 180
    assert set(Counter(name for name in ids if name[0] == "r").values()) == {2, 3}, "20 give 45"


def test_it_is_neither_ranked_nor_chosen(tmp_path: Path):
    # another word in each: a candidate that is the real sample would not be selected
    real = RealSample("sample", [f"{record['text']} aa" for record in records("a", 30)])
    selection = SelectionCallback(
        ["mmd"], top_k=1, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"
    )
    dm = data(real=real)
    model = fit(tmp_path, dm, selection)
    assert selection.ranking is not None
    assert sorted(row.name for row in selection.ranking) == ["a", "b", "c"]
    assert dm.mixture is not None
    assert dm.mixture.weights == {"a": 1.0}
    assert first_letters(model.ids) == {"a": 60, "r": 15}


@pytest.mark.parametrize("step", [3, 9, 14])
def test_a_run_that_resumes_goes_on_at_the_exact_position(tmp_path: Path, step: int):
    mixture = {"a": 0.5, "b": 0.5}
    whole = fit(tmp_path, data(mixture=mixture), max_epochs=-1, max_steps=20).ids
    run = trainer(tmp_path, max_epochs=-1, max_steps=step)
    before = Recorder()
    run.fit(before, datamodule=data(mixture=mixture))
    run.save_checkpoint(tmp_path / "part.ckpt")
    after = fit(tmp_path, data(), max_epochs=-1, max_steps=20, ckpt_path=tmp_path / "part.ckpt")
    assert before.ids + after.ids == whole


@pytest.mark.parametrize(
    "changed", [{"real_share": 0.3}, {"labeled_real": None, "real_share": None}]
)
def test_a_checkpoint_of_another_share_is_refused(tmp_path: Path, changed: dict[str, Any]):
    run = trainer(tmp_path)
    run.fit(Recorder(), datamodule=data())
    run.save_checkpoint(tmp_path / "end.ckpt")
    model = Recorder()
    with pytest.raises(LightningError, match=r"'real' with real_share=0\.2, this run has"):
        trainer(tmp_path, max_epochs=2).fit(
            model, datamodule=data(**changed), ckpt_path=tmp_path / "end.ckpt"
        )
    assert model.ids == []


def test_its_content_may_not_change_in_silence(tmp_path: Path):
    run = trainer(tmp_path)
    run.fit(Recorder(), datamodule=data())
    run.save_checkpoint(tmp_path / "end.ckpt")
    other = data(labeled_real=Candidate("real", records("q", 20), view="text"))
    with pytest.warns(UserWarning, match="the content of real has changed"):
        model = fit(tmp_path, other, max_epochs=2, ckpt_path=tmp_path / "end.ckpt")
    assert {name[0] for name in model.ids} == {"a", "b", "c", "q"}


def test_runs_of_another_share_are_not_compared(tmp_path: Path):
    keys = []
    for share in (0.2, 0.3):
        run = trainer(tmp_path)
        run.fit(Recorder(), datamodule=data(real_share=share))
        keys.append(hyper_parameters(run, run.lightning_module)["labeled_real"])
    assert [key["share"] for key in keys] == [0.2, 0.3]
    assert {key["sha256"] for key in keys} == {labeled().sha256}


def test_a_probe_has_it_too():
    probe = data().with_mixture(Mixture({"c": 1.0}))
    dataset = probe.train_dataloader().dataset
    assert isinstance(dataset, MixtureDataset)
    assert first_letters([dataset[i]["id"] for i in range(75)]) == {"c": 60, "r": 15}


def test_from_a_file_and_from_records(tmp_path: Path):
    (tmp_path / "labeled.json").write_text(json.dumps(records("r", 20)))
    for source in (str(tmp_path / "labeled.json"), records("r", 20)):
        dm = data(labeled_real=source, view="text")
        assert first_letters(fit(tmp_path, dm).ids)["r"] == 45


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real_share": None}, "labeled_real and real_share belong together"),
        ({"real_share": 1.0}, "real_share=1.0: allowed is a number above 0 and below 1"),
        ({"real_share": 20}, "real_share=20: allowed is a number"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        data(**options)


def test_the_name_of_a_candidate(tmp_path: Path):
    with pytest.raises(ConfigError, match="labeled_real has the name of a candidate, 'a'"):
        fit(tmp_path, data(labeled_real=Candidate("a", records("r", 9), view="text")))
