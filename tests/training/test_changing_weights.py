"""Weights that change while a model trains: nothing skipped or repeated, and resumed bit by bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.errors import ConfigError, LightningError
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.training.weight_changes import WeightChange, WeightTable
from synque_select.types import Mixture
from tests.lightning_package import SynqueDataModule, pl
from tests.training.changing import NAMES, PLAN, Change, data
from tests.training.serving import Recorder, Rows, candidates, fit, records, trainer
from tests.training.test_datamodule_ddp import interleaved, launch
from tests.training.test_datamodule_resume import (
    LateRestore,
    Scheduled,
    checkpoint,
    same_weights,
    saving,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]

EPOCHS = 3
LENGTH = 84


def expected(
    dm: SynqueDataModule, n: int, changes: tuple[WeightChange, ...] | None = None
) -> list[str]:
    """What training should see, in this process, by the changes that it made."""
    table = WeightTable(NAMES)
    table.restore(dm.weight_changes if changes is None else changes)
    assert dm.mixture is not None
    dataset = MixtureDataset(dm.candidates, dm.mixture, epoch_length=LENGTH, changes=table)
    return [dataset[draw]["id"] for draw in range(n)]  # type: ignore[index]


def check_no_repeats(ids: list[str], sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        own = [one for one in ids if one.startswith(name)]
        for start in range(0, len(own), size):
            one_pass = own[start : start + size]
            assert len(set(one_pass)) == len(one_pass)
            assert len(one_pass) == size or start + size > len(own)


SIZES = {"a": 60, "b": 61, "c": 62}


@pytest.mark.parametrize(
    ("workers", "persistent", "context"),
    [(0, False, "fork"), (2, False, "fork"), (2, True, "fork"), (2, True, "spawn")],
)
def test_nothing_is_skipped_or_repeated(
    tmp_path: Path, workers: int, persistent: bool, context: str
):
    template = torch.utils.data.DataLoader(
        records("t", 8),  # type: ignore[arg-type]
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=context if workers else None,
    )

    class Template(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return template

    dm, change = data(wraps=Template()), Change()
    model = fit(tmp_path, dm, change, max_epochs=EPOCHS)
    assert len(model.ids) == EPOCHS * LENGTH
    assert model.ids == expected(dm, len(model.ids))
    lag = (1 + 2 * workers) * 8
    # step 10 ends the tenth batch of the first epoch; step 17 is the sixth of the second
    assert change.draws == [32 + lag, 72 + lag, 80 + lag, 84 + 48 + lag]
    assert [one.step for one in dm.weight_changes] == list(PLAN)
    assert [one.trained for one in dm.weight_changes] == [32, 72, 80, 132]
    check_no_repeats(model.ids, SIZES)
    for one, end in zip(dm.weight_changes, [*change.draws[1:], len(model.ids)], strict=True):
        drawn = {name[0] for name in model.ids[one.draw : end]}
        assert drawn <= {name for name, weight in one.weights.items() if weight}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, fit(folder, data(num_workers=2), Change(), saving(folder, 1), max_epochs=EPOCHS)


class TestResumedRuns:
    # 4 is the step of a change, 5 lies between it and its first draw, 11 ends an epoch
    @pytest.mark.parametrize("step", [3, 4, 5, 10, 11, 12, 20, 30])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_are_bit_equal(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path, step: int, workers: int
    ):
        folder, whole = undisturbed
        dm = data(num_workers=workers)
        options: dict[str, Any] = {"ckpt_path": checkpoint(folder, step), "max_epochs": EPOCHS}
        model = fit(tmp_path, dm, Change(), **options)
        assert model.batches == whole.batches[step:]
        assert same_weights(model, whole)
        assert [one.step for one in dm.weight_changes] == list(PLAN)

    @pytest.mark.parametrize("kind", [Recorder, Scheduled])
    def test_with_a_strategy_that_restores_late(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path, kind: type
    ):
        folder, whole = undisturbed
        model = fit(
            tmp_path,
            data(num_workers=2),
            Change(),
            model=kind(),
            ckpt_path=checkpoint(folder, 14),
            max_epochs=EPOCHS,
            strategy=LateRestore(),
        )
        assert model.batches == whole.batches[14:]

    def test_without_the_callback_the_last_weights_stay(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, whole = undisturbed
        dm = data()
        model = fit(tmp_path, dm, ckpt_path=checkpoint(folder, 18), max_epochs=EPOCHS)
        assert model.batches == whole.batches[18:]
        assert [one.step for one in dm.weight_changes] == list(PLAN)

    def test_with_accumulated_gradients(self, tmp_path: Path):
        options: dict[str, Any] = {"accumulate_grad_batches": 2, "max_epochs": EPOCHS}
        whole = fit(tmp_path, data(), Change(), saving(tmp_path, 1), **options)
        ckpt = checkpoint(tmp_path, 9)
        model = fit(tmp_path, data(), Change(), ckpt_path=ckpt, **options)
        # eleven batches in an epoch, so that its sixth step has one
        assert model.batches == whole.batches[11 + 6 :]
        assert same_weights(model, whole)

    @pytest.mark.parametrize("step", [3, 12])
    @pytest.mark.parametrize("change", [True, False])
    def test_with_epochs_of_another_length(self, tmp_path: Path, change: bool, step: int):
        """As after a change of the number of ranks, of which an epoch is a multiple."""
        callbacks = [Change()] if change else []
        whole = fit(tmp_path, data(), saving(tmp_path, 1), *callbacks, max_epochs=EPOCHS)
        ckpt = checkpoint(tmp_path, step)
        callbacks = [Change()] if change else []
        for length in (83, 85):
            dm = data(epoch_length=length)
            model = fit(tmp_path, dm, *callbacks, ckpt_path=ckpt, max_epochs=EPOCHS)
            served = whole.ids[: len(whole.ids) - len([n for b in whole.batches[step:] for n in b])]
            ids = [*served, *model.ids]
            check_no_repeats(ids, SIZES)
            if not change:  # else changes hold from another draw on
                assert ids[: 2 * LENGTH] == whole.ids[: 2 * LENGTH]
            else:
                assert ids == expected(dm, len(ids))

    def test_with_another_batch_size(self, tmp_path: Path):
        whole = fit(tmp_path, data(), saving(tmp_path, 1), Change(), max_epochs=EPOCHS)
        for size in (4, 16):
            dm = data(batch_size=size)
            model = fit(
                tmp_path, dm, Change(), ckpt_path=checkpoint(tmp_path, 5), max_epochs=EPOCHS
            )
            ids = [*whole.ids[:40], *model.ids]
            # Lightning goes on counting batches, so that the epoch that is resumed may end early
            assert 2 * LENGTH < len(ids) <= EPOCHS * LENGTH
            assert ids == expected(dm, len(ids))
            check_no_repeats(ids, SIZES)

    def test_from_a_run_whose_weights_could_not_change(self, tmp_path: Path):
        whole = fit(tmp_path, data(), saving(tmp_path, 5), max_epochs=EPOCHS)
        dm = data()
        ckpt = checkpoint(tmp_path, 5)
        model = fit(tmp_path, dm, Change({20: {"c": 1.0}}), ckpt_path=ckpt, max_epochs=EPOCHS)
        (one,) = dm.weight_changes
        served = [name for batch in whole.batches for name in batch]
        assert model.ids[: one.draw - 40] == served[40 : one.draw]
        assert {name[0] for name in model.ids[one.draw - 40 :]} == {"c"}

    def test_other_candidates_that_may_be_drawn(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        class Fewer(Change):
            def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
                trainer.datamodule.enable_changes(["a", "b"])  # type: ignore[attr-defined]

        ckpt = checkpoint(undisturbed[0], 3)
        with pytest.raises(LightningError, match=r"weights of a, b, c could change.*those of a, b"):
            fit(tmp_path, data(), Fewer(), ckpt_path=ckpt, max_epochs=EPOCHS)

    def test_the_state_is_plain(self, undisturbed: tuple[Path, Recorder]):
        saved = torch.load(checkpoint(undisturbed[0], 5), weights_only=True)
        state = saved["SynqueDataModule"]
        assert state["version"] == 2
        assert state["changes"] == {
            "candidates": ["a", "b", "c"],
            "lag": 5,
            "changes": [
                {"draw": 72, "step": 4, "weights": {"a": 0.1, "b": 0.9, "c": 0.0}, "trained": 32}
            ],
        }

    def test_a_state_of_a_later_version(self):
        dm = data()
        with pytest.raises(LightningError, match="of version 3; allowed are 1 and 2"):
            dm.load_state_dict({**dm.state_dict(), "version": 3})


class TestSeveralFits:
    def test_of_one_trainer_go_on(self, tmp_path: Path):
        dm, change = data(), Change()
        run, model = trainer(tmp_path, change, max_epochs=1), Recorder()
        run.fit(model, datamodule=dm)
        run.fit_loop.max_epochs = EPOCHS
        run.fit(model, datamodule=dm)
        assert [one.step for one in dm.weight_changes] == list(PLAN)
        assert model.ids == expected(dm, EPOCHS * LENGTH)

    def test_of_new_trainers_begin_again(self, tmp_path: Path):
        dm = data()
        first, second = (fit(tmp_path, dm, Change(), max_epochs=EPOCHS) for _ in range(2))
        assert first.batches == second.batches
        assert len(dm.weight_changes) == 4

    def test_of_another_mixture_begin_without_changes(self, tmp_path: Path):
        dm = data()
        fit(tmp_path, dm, Change(), max_epochs=1)
        dm.set_mixture(Mixture({"c": 1.0}))
        assert dm.weight_changes == ()
        assert dm.with_mixture(Mixture({"a": 1.0})).state_dict()["version"] == 1


def test_a_batch_size_finder_leaves_the_changes_alone(
    undisturbed: tuple[Path, Recorder], tmp_path: Path
):
    folder, whole = undisturbed
    dm = data(val=records("v", 8), num_workers=2)
    finder = pl.callbacks.BatchSizeFinder(mode="power", steps_per_trial=1, init_val=4, max_trials=2)
    run, model = trainer(tmp_path, Change(), finder, max_epochs=EPOCHS), Recorder()
    run.fit(model, datamodule=dm, ckpt_path=checkpoint(folder, 12))
    assert dm.batch_size == 8
    assert model.batches[-21:] == whole.batches[12:]


def test_a_learning_rate_finder_leaves_the_changes_alone(tmp_path: Path):
    whole = fit(tmp_path, data(), Change(), max_epochs=EPOCHS)
    dm, model = data(), Recorder()
    run = trainer(tmp_path, Change(), max_epochs=EPOCHS)
    pl.tuner.Tuner(run).lr_find(model, datamodule=dm, num_training=15, update_attr=False)
    model.batches.clear()
    run.fit(model, datamodule=dm)
    assert model.batches == whole.batches


def test_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    sizes = {"a": 1300, "b": 300, "c": 200}
    plan = {8: {"b": 0.5, "c": 0.5}, 50: {"a": 1.0}, 90: {"a": 0.4, "b": 0.3, "c": 0.3}}

    def streams(workers: int) -> SynqueDataModule:
        return SynqueDataModule(
            {name: Rows(name, n) for name, n in sizes.items()},
            view="text",
            reservoir=100,
            mixture={"a": 0.75, "b": 0.25},
            epoch_length=480,
            batch_size=16,
            num_workers=workers,
        )

    saver = pl.callbacks.ModelCheckpoint(
        tmp_path / "run", filename="{step}", every_n_train_steps=40, save_top_k=-1, monitor=None
    )
    dm = streams(2)
    whole = fit(tmp_path, dm, Change(plan), saver, max_epochs=4)
    check_no_repeats(whole.ids, sizes)
    resumed = fit(
        tmp_path, streams(0), Change(plan), ckpt_path=checkpoint(tmp_path / "run", 40), max_epochs=4
    )
    assert resumed.batches == whole.batches[40:]
    table = WeightTable(NAMES)
    table.restore(dm.weight_changes)
    parts = load_candidates(
        {name: Rows(name, n) for name, n in sizes.items()}, view="text", reservoir=100
    )
    dataset = MixtureDataset(
        parts, Mixture({"a": 0.75, "b": 0.25}), epoch_length=480, changes=table
    )
    assert whole.ids == [dataset[draw]["id"] for draw in range(4 * 480)]  # type: ignore[index]


def test_labeled_real_data_keeps_its_share(tmp_path: Path):
    dm = data(
        candidates=candidates(a=900, b=900, c=900),
        labeled_real=Candidate("real", records("r", 300), view="text"),
        real_share=0.25,
        epoch_length=3_000,
    )
    model = fit(tmp_path, dm, Change({4: {"c": 1.0}}))
    (one,) = dm.weight_changes
    assert Counter(name[0] for name in model.ids[one.draw : one.draw + 1_000]) == {
        "r": 250,
        "c": 750,
    }


def test_export_has_the_draws_of_the_run(tmp_path: Path):
    dm = data(num_workers=2)
    model = fit(tmp_path, dm, Change(), max_epochs=EPOCHS)
    export = dm.export(tmp_path / "mix.jsonl", n=EPOCHS * LENGTH)
    assert export.drawn == Counter(name[0] for name in model.ids)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_two_processes(tmp_path: Path, workers: int):
    ranks = launch(tmp_path / "whole", "ddp", workers=workers, change=1)
    dm = SynqueDataModule(candidates(a=61, b=61, c=61), mixture={"a": 0.7, "b": 0.3})
    changes = [tuple(map(WeightChange.from_dict, rank["changes"])) for rank in ranks]
    assert changes[0] == changes[1]
    assert [one.step for one in changes[0]] == list(PLAN)
    table = WeightTable(NAMES)
    table.restore(changes[0])
    assert dm.mixture is not None
    dataset = MixtureDataset(dm.candidates, dm.mixture, epoch_length=86, changes=table)
    assert interleaved(ranks) == [dataset[draw]["id"] for draw in range(3 * 86)]  # type: ignore[index]
    ckpt = tmp_path / "whole" / "step=15.ckpt"
    resumed = launch(tmp_path / "resumed", "ddp", workers=workers, change=1, ckpt=ckpt)
    for mine, theirs in zip(resumed, ranks, strict=True):
        assert mine["batches"] == theirs["batches"][15:]
        assert mine["changes"] == theirs["changes"]


def test_two_spawned_processes(tmp_path: Path):
    plain, spawned = (
        launch(tmp_path / strategy, strategy, change=1) for strategy in ("ddp", "ddp_spawn")
    )
    assert interleaved(spawned) == interleaved(plain)


class TestWhatIsRefused:
    def test_a_change_without_a_fit(self):
        dm = data()
        with pytest.raises(LightningError, match="weights can change while a fit trains"):
            dm.change_weights({"a": 1.0})
        dm.enable_changes(NAMES)
        with pytest.raises(LightningError, match="weights can change while a fit trains"):
            dm.change_weights({"a": 1.0})

    def test_candidates_that_do_not_exist_or_are_missing(self):
        dm = data()
        with pytest.raises(ConfigError, match="'d', which is not a candidate"):
            dm.enable_changes(["a", "b", "d"])
        with pytest.raises(ConfigError, match="'b', which is not a candidate that may be drawn"):
            dm.enable_changes(["a", "c"])
        assert dm.weight_changes == ()

    def test_a_loader_that_was_built(self, tmp_path: Path):
        class Late(pl.Callback):
            def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
                trainer.datamodule.enable_changes(NAMES)  # type: ignore[attr-defined]

        with pytest.raises(LightningError, match="by the end of setup"):
            fit(tmp_path, data(), Late())

    def test_batches_that_are_always_the_same(self, tmp_path: Path):
        with pytest.raises(LightningError, match="overfit_batches trains on the same batches"):
            fit(tmp_path, data(), Change(), overfit_batches=2)
