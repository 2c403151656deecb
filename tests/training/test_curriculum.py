"""Curricula: the order within a candidate, with the weights and passes of any mixture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.report.page import write_report
from synque_select.selection.surrogate_loss import surrogate_example_losses
from synque_select.training.curriculum import Curriculum, curriculum_scores
from synque_select.training.mixture_schedule import MixtureSchedule, Ramp
from synque_select.training.weight_changes import WeightChange, WeightTable
from synque_select.types import Mixture
from tests.lightning_package import SelectionCallback, SynqueDataModule, pl
from tests.training.changing import Change, number_of
from tests.training.changing import data as plain_data
from tests.training.serving import Recorder, Rows, candidates, fit, records, trainer
from tests.training.test_datamodule_resume import (
    LateRestore,
    Scheduled,
    checkpoint,
    same_weights,
    saving,
)
from tests.training.tiny import LetterEncoder, real_sample
from tests.training.tiny import candidates as texts_of

BatchSizeFinder = pl.callbacks.BatchSizeFinder
LearningRateFinder = pl.callbacks.LearningRateFinder
Tuner = pl.tuner.Tuner

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(2, 300), min_size=2, max_size=2),
    draws=st.integers(1, 900),
    share=st.integers(1, 9),
    start=st.integers(1, 1_500),
    seed=st.integers(0, 99),
)
def test_what_holds_for_any_ramp(sizes: list[int], draws: int, share: int, start: int, seed: int):
    """Weights in every 1,000 draws and no example twice in a pass, also where weights change."""
    scores = [np.random.default_rng(seed).integers(0, 20, n).astype(float) for n in sizes]
    weights = np.array([share / 10, 1 - share / 10])
    table = WeightTable(["a", "b"])
    table.add(WeightChange(start, 0, {"a": 0.25, "b": 0.75}, 0))
    mixture = Mixture(dict(zip("ab", weights.tolist(), strict=True)))
    ramp = Ramp(scores, draws)
    one, other, static = (
        MixtureSchedule(sizes, mixture, seed, 500, changes=changes, ramp=ramp)
        for changes in (table, table, None)
    )
    seen = [one.locate(draw) for draw in range(start + 2_000)]
    assert seen[:start] == [static.locate(draw) for draw in range(start)]
    for begin in range(start, start + 2_000, 1_000):
        drawn = Counter(which for which, _ in seen[begin : begin + 1_000])
        assert drawn == {0: 250, 1: 750}
    for which, size in enumerate(sizes):
        own = [example for candidate, example in seen if candidate == which]
        length = max(float(weights[which]) * draws, 1.0)
        ends = {round(k * length) for k in range(1, int(len(own) / length) + 2)}
        ends |= {*range(size, len(own) + size, size)}
        begin = 0
        for end in sorted(ends):
            levels = [scores[which][example] for example in own[begin:end]]
            assert levels == sorted(levels)
            begin = end
        for begin in range(0, len(own), size):
            one_pass = own[begin : begin + size]
            assert len(set(one_pass)) == len(one_pass)
    places = np.random.default_rng(seed).permutation(len(seen))[:100].tolist()
    assert [other.locate(place) for place in places] == [seen[place] for place in places]


def data(**options: Any) -> SynqueDataModule:
    return plain_data(**{"curriculum": Curriculum(by=number_of), **options})


def numbers(ids: list[str], name: str) -> list[int]:
    return [int(one.split("-")[1]) for one in ids if one.startswith(name)]


class TestTraining:
    def test_a_ramp_is_an_epoch(self, tmp_path: Path):
        model = fit(tmp_path, data(), max_epochs=2)
        for ids in model.by_epoch().values():
            # 63 draws of the 60 examples of a in an epoch: the ramp goes on with a new pass
            own = numbers(ids, "b")
            assert own == sorted(own)
            assert len(own) == 21
        assert numbers(model.ids, "a")[:60] == list(range(60))

    def test_a_ramp_is_what_training_plans_if_it_is_shorter(self, tmp_path: Path):
        dm = data(curriculum=Curriculum(by=number_of, order="descending"))
        model = fit(tmp_path, dm, max_steps=4, max_epochs=-1)
        own = numbers(model.ids, "a")
        assert len(own) > 20
        assert own == sorted(own, reverse=True)
        # of all examples, and not the first ones in the order
        assert own[0] > 50
        assert own[-1] < 10
        assert dm.state_dict()["ramp"] == 32

    def test_the_ramp_that_is_given(self, tmp_path: Path):
        dm = data(curriculum=Curriculum(by=number_of, draws=16))
        own = numbers(fit(tmp_path, dm).ids, "a")
        assert own[:12] == sorted(own[:12])
        assert own[12:24] == sorted(own[12:24])
        assert own[:24] != sorted(own[:24])

    @pytest.mark.parametrize("step", [4, 5, 11, 20])
    def test_a_resumed_run_with_changes_is_bit_equal(self, tmp_path: Path, step: int):
        folder = tmp_path / "run"
        whole = fit(folder, data(num_workers=2), Change(), saving(folder, step), max_epochs=3)
        options: dict[str, Any] = {"ckpt_path": checkpoint(folder, step), "max_epochs": 3}
        model = fit(tmp_path, data(), Change(), **options)
        assert model.batches == whole.batches[step:]
        assert same_weights(model, whole)

    def test_a_run_by_the_surrogate_loss_resumes_bit_by_bit(self, tmp_path: Path):
        def new() -> SynqueDataModule:
            curriculum = Curriculum(by="surrogate_loss", encoder=LetterEncoder())
            return SynqueDataModule(
                texts_of(),
                curriculum=curriculum,
                batch_size=8,
                train_transform=lambda row: {"id": row["text"], "x": float(row["label"])},
            )

        folder = tmp_path / "run"
        whole = fit(folder, new(), saving(folder, 7), max_epochs=2)
        model = fit(tmp_path, new(), max_epochs=2, ckpt_path=checkpoint(folder, 7))
        assert model.batches == whole.batches[7:]
        assert same_weights(model, whole)

    def test_training_that_goes_on_for_longer_keeps_the_ramp(self, tmp_path: Path):
        first = fit(tmp_path, data(), saving(tmp_path, 4), max_steps=4, max_epochs=-1)
        ckpt = checkpoint(tmp_path, 4)
        longer = fit(tmp_path, data(), max_steps=8, max_epochs=-1, ckpt_path=ckpt)
        assert len({*first.ids, *longer.ids}) == 64
        with pytest.raises(LightningError, match=r"with draws=32, but.*Curriculum\(draws=32\)"):
            fit(
                tmp_path,
                data(),
                model=Scheduled(),
                max_steps=8,
                max_epochs=5,  # else the strategy has no reason to build the loader early
                ckpt_path=ckpt,
                strategy=LateRestore(),
            )

    @pytest.mark.parametrize("finder", ["learning rate", "batch size"])
    def test_a_finder_does_not_plan_the_ramp(self, tmp_path: Path, finder: str):
        planned = {"max_steps": 6, "max_epochs": -1}
        find = (
            LearningRateFinder(num_training_steps=9, update_attr=False)
            if finder == "learning rate"
            else BatchSizeFinder(steps_per_trial=1, init_val=4, max_trials=2)
        )
        dm = data(val=records("v", 8))
        model = fit(tmp_path, dm, find, **planned)
        assert dm.batch_size == 8
        alone = fit(tmp_path, data(), **planned)
        assert model.ids[-48:] == alone.ids
        assert dm.state_dict()["ramp"] == 48

    def test_a_tuner_does_not_plan_the_ramp(self, tmp_path: Path):
        dm, model = data(val=records("v", 8)), Recorder()
        run = trainer(tmp_path, max_steps=6, max_epochs=-1)
        tuner = Tuner(run)
        tuner.scale_batch_size(model, datamodule=dm, init_val=4, max_trials=2, steps_per_trial=1)
        tuner.lr_find(model, datamodule=dm, num_training=9, update_attr=False)
        model.batches.clear()
        run.fit(model, datamodule=dm)
        assert model.ids == fit(tmp_path, data(), max_steps=6, max_epochs=-1).ids

    def test_a_second_fit_plans_its_own_ramp(self, tmp_path: Path):
        dm = data()
        fit(tmp_path, dm, max_steps=3, max_epochs=-1)
        longer = fit(tmp_path, dm, max_steps=9, max_epochs=-1)
        assert longer.ids == fit(tmp_path, data(), max_steps=9, max_epochs=-1).ids

    def test_all_of_it_is_in_the_key_of_records(self):
        encoder = LetterEncoder()
        of_draws = Curriculum(by="pad", draws=64)
        assert data(curriculum=of_draws).sampling == {"curriculum": "pad, ascending", "draws": 64}
        encoded = [data(curriculum=Curriculum(by="pad", encoder=e)) for e in (encoder, "letters")]
        assert encoded[0].sampling == encoded[1].sampling
        assert encoded[0].sampling == {"curriculum": "pad, ascending", "encoder": "letters"}

    def test_a_ramp_of_other_draws_than_that_of_the_checkpoint(self, tmp_path: Path):
        fit(tmp_path, data(), saving(tmp_path, 4))
        dm = data(curriculum=Curriculum(by=number_of, draws=16))
        with pytest.raises(LightningError, match=r"and this one draws them with .*, draws=16: "):
            fit(tmp_path, dm, ckpt_path=checkpoint(tmp_path, 4), max_epochs=2)

    def test_another_curriculum_than_that_of_the_checkpoint(self, tmp_path: Path):
        fit(tmp_path, data(), saving(tmp_path, 4))
        with pytest.raises(LightningError, match=r"curriculum='given scores, ascending'.*defaults"):
            fit(tmp_path, plain_data(), ckpt_path=checkpoint(tmp_path, 4), max_epochs=2)


class TestScores:
    def test_a_field_a_function_and_a_mapping(self):
        rows = [{"text": "x", "level": 3}, {"text": "y", "level": 1}]
        part = Candidate("a", rows, view="text")
        for by in ("level", lambda row: row["level"], {"a": [3, 1]}):
            assert curriculum_scores(Curriculum(by=by), [part], None)["a"].tolist() == [3, 1]

    def test_near_to_far_by_a_proxy(self, tmp_path: Path):
        curriculum = Curriculum(by="pad", order="descending", encoder=LetterEncoder())
        dm = SynqueDataModule(
            texts_of(), real_sample(), curriculum=curriculum, batch_size=8, collate_fn=list
        )
        drawn = [row["text"] for batch in dm.mixture_loader() for row in batch]
        scores = curriculum_scores(curriculum, texts_of(), real_sample())
        for part in dm.candidates:
            values = dict(zip(part.views, scores[part.name], strict=True))
            own = [values[text] for text in drawn if text in values]
            assert own == sorted(own)
            assert len(own) == 60

    def test_easy_to_hard_by_the_labels_of_the_others(self):
        curriculum = Curriculum(by="label_consistency", order="descending", encoder=LetterEncoder())
        scores = curriculum_scores(curriculum, texts_of(), real_sample())
        assert all(len(set(each)) > 1 for each in scores.values())

    def test_easy_to_hard_by_the_surrogate_loss_without_a_real_sample(self):
        curriculum = Curriculum(by="surrogate_loss", encoder=LetterEncoder())
        dm = SynqueDataModule(texts_of(), curriculum=curriculum, batch_size=8, collate_fn=list)
        drawn = [row["text"] for batch in dm.mixture_loader() for row in batch]
        losses = surrogate_example_losses(texts_of(), encoder=LetterEncoder())
        for part in dm.candidates:
            values = dict(zip(part.views, losses[part.name], strict=True))
            own = [values[text] for text in drawn if text in values]
            assert own == sorted(own)
            assert len(own) == 60
            assert len(set(own)) > 50
        assert dm.sampling == {"curriculum": "surrogate_loss, ascending", "encoder": "letters"}

    def test_the_surrogate_loss_needs_labels(self):
        parts = [Candidate(part.name, list(part), view="text") for part in texts_of()]
        dm = SynqueDataModule(parts, curriculum=Curriculum(by="surrogate_loss"))
        with pytest.raises(
            ConfigError, match=r"reads the candidates. labels: give label=, .* Without it: near"
        ):
            dm.train_dataloader()

    def test_they_survive_what_leaves_examples_out(self, tmp_path: Path):
        """Surrogate validation holds out examples, and so changes their positions."""
        levels = [
            Candidate(
                part.name,
                [{**row, "level": (i * 7) % 60} for i, row in enumerate(part)],
                view="text",
                label="label",
            )
            for part in texts_of()
        ]
        from synque_select import SurrogateOptions

        dm = SynqueDataModule(
            levels,
            real_sample(),
            val=SurrogateOptions(encoder=LetterEncoder(), size=40),
            curriculum=Curriculum(by="level"),
            batch_size=8,
            collate_fn=list,
        )
        assert dm.surrogate is not None
        drawn = [row for batch in dm.mixture_loader() for row in batch]
        texts = {row["text"] for row in levels[0]}
        own = [row["level"] for row in drawn if row["text"] in texts]
        assert own == sorted(own)
        assert 30 < len(own) < 60

    @pytest.mark.parametrize(
        ("by", "error", "message"),
        [
            ("levle", ConfigError, "by='levle' is neither a field of the examples nor the key"),
            ("pad", ConfigError, "by='pad' compares examples with real ones: give real="),
            ("text", DataError, r"0\): curriculum='text': the score is 'a 0': allowed is a number"),
            ({"a": [1.0]}, ConfigError, r"scores of shape \(1,\) for 'a': needed is one per"),
            ({"a": [float("nan")] * 60}, DataError, "example 0.*is nan: allowed is a finite"),
            ({}, ConfigError, "by= has no scores of 'a'; it has those of: none"),
        ],
    )
    def test_scores_that_are_refused(self, by: Any, error: type[Exception], message: str):
        dm = plain_data(curriculum=Curriculum(by=by))
        with pytest.raises(error, match=message):
            dm.train_dataloader()

    def test_options_that_are_refused(self):
        with pytest.raises(ConfigError, match="order='up': allowed are 'ascending' and"):
            Curriculum(by="x", order="up")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="by=3: allowed are a field"):
            Curriculum(by=3)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="draws=0: allowed is a whole number from 1"):
            Curriculum(by="x", draws=0)
        with pytest.raises(ConfigError, match="curriculum='pad': allowed is a Curriculum"):
            SynqueDataModule(candidates(), curriculum="pad")  # type: ignore[arg-type]

    def test_streams_are_refused(self):
        dm = SynqueDataModule(
            {"a": Rows("a", 300), "b": Rows("b", 300)},
            view="text",
            reservoir=100,
            curriculum=Curriculum(by="x"),
        )
        with pytest.raises(ConfigError, match="a curriculum needs all examples"):
            dm.train_dataloader()


def test_a_selection_callback_chooses_the_mixture_of_a_curriculum(tmp_path: Path):
    dm = SynqueDataModule(
        texts_of(),
        real_sample(),
        curriculum=Curriculum(by="pad", order="descending", encoder=LetterEncoder()),
        batch_size=8,
        train_transform=lambda row: {"id": row["text"], "x": 0.5},
    )
    callback = SelectionCallback(
        proxies=["pad"], encoder=LetterEncoder(), top_k=2, run_dir=tmp_path / "run"
    )
    model = fit(tmp_path, dm, callback, max_epochs=1)
    assert dm.mixture is not None
    assert len(dm.mixture.names) == 2
    assert len(model.ids) == 120


def test_the_page_of_a_run_says_what_weights_are_shares_of(tmp_path: Path):
    run_dir = tmp_path / "run"
    dm = SynqueDataModule(
        texts_of(),
        real_sample(),
        weigh_by="tokens",
        max_length=64,
        curriculum=Curriculum(by="ngram", order="descending"),
        batch_size=8,
        train_transform=lambda row: {"id": row["text"], "x": 0.5},
    )
    callback = SelectionCallback(
        proxies=["pad", "ngram"], encoder=LetterEncoder(), top_k=2, run_dir=run_dir
    )
    fit(tmp_path, dm, callback, max_epochs=1)
    page = write_report(run_dir).read_text()
    assert "share of the training tokens, at most 64 per example" in page
    assert "ordered by ngram, descending" in page
    assert "share of the training draws" not in page
