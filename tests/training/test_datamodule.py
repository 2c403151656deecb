"""What a SynqueDataModule serves to a Trainer: the ids that training_step sees."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, LightningError
from synque_select.training.mixture_loader import MixtureDataset
from synque_select.types import Mixture
from tests.lightning_package import OTHER_PACKAGE, OTHER_ROOT, SynqueDataModule, import_of, pl
from tests.training.serving import Recorder, UserData, candidates, fit, records, trainer

BatchSizeFinder = pl.callbacks.BatchSizeFinder
LearningRateFinder = pl.callbacks.LearningRateFinder
Tuner = pl.tuner.Tuner
MisconfigurationException = pl.utilities.exceptions.MisconfigurationException

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

AB = {"a": 0.75, "b": 0.25}


def stream(dm: SynqueDataModule, n: int, epoch_length: int | None = None) -> list[str]:
    """The first n draws of the schedule."""
    assert dm.mixture is not None
    dataset = MixtureDataset(dm.candidates, dm.mixture, epoch_length=epoch_length)
    return [dataset[draw]["id"] for draw in range(n)]


def data(**options: Any) -> SynqueDataModule:
    return SynqueDataModule(**{"candidates": candidates(), "batch_size": 8, **options})


class TestServing:
    def test_all_candidates_equally_where_nobody_chose(self, tmp_path: Path):
        dm = data()
        model = fit(tmp_path, dm, max_epochs=2)
        for ids in model.by_epoch().values():
            assert len(ids) == len(set(ids)) == 180
        assert dm.mixture is not None
        assert dm.mixture.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})

    def test_the_given_mixture(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = fit(tmp_path, dm)
        assert Counter(name[0] for name in model.ids) == {"a": 60, "b": 20}
        assert model.ids == stream(dm, 80)

    def test_weights_hold_in_every_1000_draws(self, tmp_path: Path):
        dm = SynqueDataModule(
            candidates(a=900, b=900, c=900),
            mixture={"a": 0.613, "b": 0.287, "c": 0.1},
            epoch_length=1300,
            batch_size=100,
        )
        ids = fit(tmp_path, dm, max_epochs=3).ids
        for block in range(3):
            counts = Counter(name[0] for name in ids[1000 * block : 1000 * (block + 1)])
            assert counts == {"a": 613, "b": 287, "c": 100}

    def test_fast_dev_run_trains_without_a_choice(self, tmp_path: Path):
        assert len(fit(tmp_path, data(), fast_dev_run=True).ids) == 8

    def test_the_seed_decides_the_order(self, tmp_path: Path):
        one, same, other = (fit(tmp_path, data(seed=seed)).ids for seed in (0, 0, 1))
        assert one == same != other
        assert sorted(one) == sorted(other)

    def test_a_fresh_trainer_sees_the_same_again(self, tmp_path: Path):
        dm = data(mixture=AB)
        assert fit(tmp_path, dm, max_epochs=2).ids == fit(tmp_path, dm, max_epochs=2).ids

    def test_workers_change_nothing(self, tmp_path: Path):
        seen = [fit(tmp_path, data(num_workers=n), max_epochs=2).ids for n in (0, 2)]
        assert seen[0] == seen[1]

    def test_epoch_length_and_batch_size(self, tmp_path: Path):
        dm = data(mixture=AB, epoch_length=30, batch_size=8)
        model = fit(tmp_path, dm, max_epochs=3)
        assert [len(batch) for batch in model.batches] == 3 * [8, 8, 8, 6]
        assert model.ids == stream(dm, 90, epoch_length=30)

    def test_train_transform_and_collate_fn(self, tmp_path: Path):
        def collate(examples: list[Any]) -> dict[str, Any]:
            return {
                "id": [name for name, _ in examples],
                "x": torch.tensor([x for _, x in examples]),
            }

        dm = data(train_transform=lambda r: (r["id"].upper(), r["x"]), collate_fn=collate)
        assert {name[0] for name in fit(tmp_path, dm).ids} == {"A", "B", "C"}

    def test_it_is_one_place_to_look_without_moving_it(self, tmp_path: Path):
        dm = data(mixture=AB)
        peek = next(iter(dm.train_dataloader()))["id"]
        assert str(dm)
        run = trainer(tmp_path, max_epochs=1)
        model = Recorder()
        run.fit(model, datamodule=dm)
        assert peek == model.batches[0] == next(iter(dm.train_dataloader()))["id"]
        run.fit_loop.max_epochs = 2
        run.fit(model, datamodule=dm)
        assert model.ids == stream(dm, 160)

    def test_a_loop_without_a_trainer(self):
        dm = data(mixture=AB)
        loader = dm.train_dataloader()
        dataset = loader.dataset
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            ids = [name for batch in loader for name in batch["id"]]
            assert ids == [dataset[draw]["id"] for draw in range(80 * epoch, 80 * epoch + 80)]


class TestTrainerOptions:
    def test_limit_train_batches_goes_on_where_it_stopped(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = fit(tmp_path, dm, max_epochs=4, limit_train_batches=3)
        assert model.ids == stream(dm, 4 * 3 * 8)

    def test_max_steps_and_accumulation(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = fit(tmp_path, dm, max_epochs=-1, max_steps=9, accumulate_grad_batches=2)
        assert model.ids == stream(dm, len(model.ids))
        assert len(model.ids) > 80, "more than an epoch"

    def test_reloading_every_epoch_repeats_nothing(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = fit(tmp_path, dm, max_epochs=3, reload_dataloaders_every_n_epochs=1)
        assert model.ids == stream(dm, 240)

    @pytest.mark.parametrize("n_workers", [0, 1])
    def test_several_fits_with_one_trainer_go_on(self, tmp_path: Path, n_workers: int):
        dm = data(mixture=AB, num_workers=n_workers)
        model = Recorder()
        run = trainer(tmp_path, max_epochs=1)
        for epochs in (1, 3):
            run.fit_loop.max_epochs = epochs
            run.fit(model, datamodule=dm)
        assert model.ids == stream(dm, 240)

    def test_a_fit_that_stopped_in_an_epoch_goes_on_in_the_next(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = Recorder()
        run = trainer(tmp_path, max_epochs=-1, max_steps=5)
        for steps in (5, 17):
            run.fit_loop.epoch_loop.max_steps = steps
            run.fit(model, datamodule=dm)
        assert model.ids == stream(dm, 17 * 8)

    @pytest.mark.filterwarnings("ignore:You requested to overfit")
    def test_overfit_batches_serves_the_mixture(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = fit(tmp_path, dm, max_epochs=2, overfit_batches=4)
        assert model.ids == 2 * stream(dm, 32)
        assert {name[0] for name in model.ids} == {"a", "b"}

    def test_estimated_stepping_batches_is_right(self, tmp_path: Path):
        class Scheduled(Recorder):
            def configure_optimizers(self) -> Any:
                self.n_steps = self.trainer.estimated_stepping_batches
                return super().configure_optimizers()

        dm = data(mixture=AB)
        model = fit(tmp_path, dm, model=Scheduled(), max_epochs=3)
        assert model.n_steps == 30 == len(model.batches)
        assert model.ids == stream(dm, 240)

    def test_persistent_workers_of_the_wrapped_loader(self, tmp_path: Path):
        class Persistent(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return DataLoader(
                    records("t", 8), batch_size=8, num_workers=1, persistent_workers=True
                )

        dm = SynqueDataModule(candidates(), mixture=AB, wraps=Persistent())
        model = fit(tmp_path, dm, max_epochs=3)
        loader = dm.train_dataloader()
        assert (loader.num_workers, loader.persistent_workers) == (1, True)
        assert model.ids == stream(dm, 240)


class TestTuners:
    def test_batch_size_finder_sets_it_and_training_begins_at_draw_0(self, tmp_path: Path):
        dm = data(mixture=AB, batch_size=2, val=records("v", 8))
        finder = BatchSizeFinder(mode="power", steps_per_trial=2, init_val=2, max_trials=3)
        model = fit(tmp_path, dm, finder, max_epochs=1)
        assert dm.batch_size == 8
        assert [len(batch) for batch in model.batches][-10:] == 10 * [8]
        assert model.ids[-80:] == stream(dm, 80)

    def test_tuner_reaches_the_wrapped_val_loader(self, tmp_path: Path):
        inner = UserData(batch_size=2)
        dm = SynqueDataModule(candidates(), mixture=AB, wraps=inner)
        run = trainer(tmp_path)
        Tuner(run).scale_batch_size(Recorder(), datamodule=dm, init_val=2, max_trials=2)
        assert dm.batch_size == inner.batch_size == inner.hparams["batch_size"] == 4
        assert dm.val_dataloader()[0].batch_size == 4
        model = Recorder()
        trainer(tmp_path).fit(model, datamodule=dm)
        assert {len(batch) for batch in model.batches} == {4}
        assert model.ids == stream(dm, 80)

    def test_lr_find_leaves_the_position_alone(self, tmp_path: Path):
        dm = data(mixture=AB)
        finder = LearningRateFinder(num_training_steps=12, attr_name="lr")

        class Tunable(Recorder):
            lr = 0.1

        model = fit(tmp_path, dm, finder, model=Tunable(), max_epochs=2)
        assert model.ids[-160:] == stream(dm, 160)
        assert len(model.ids) > 160, "the finder trained too"


class TestSetMixture:
    def test_between_fits(self, tmp_path: Path):
        dm = data(mixture=AB)
        fit(tmp_path, dm, max_epochs=2)
        dm.set_mixture(Mixture({"c": 1.0}))
        model = fit(tmp_path, dm)
        assert model.ids == stream(dm, 60)
        assert {name[0] for name in model.ids} == {"c"}

    def test_the_same_mixture_again_does_not_start_over(self, tmp_path: Path):
        dm = data(mixture=AB)
        model = Recorder()
        run = trainer(tmp_path, max_epochs=1)
        run.fit(model, datamodule=dm)
        dm.set_mixture(Mixture(AB))
        run.fit_loop.max_epochs = 2
        run.fit(model, datamodule=dm)
        assert model.ids == stream(dm, 160)

    def test_a_probe_of_the_same_data_does_not_move_it(self, tmp_path: Path):
        dm = data(mixture=AB, wraps=UserData())
        model = Recorder()
        run = trainer(tmp_path, max_epochs=1)
        run.fit(model, datamodule=dm)
        probe = dm.with_mixture(Mixture({"c": 1.0}))
        assert {name[0] for name in fit(tmp_path, probe).ids} == {"c"}
        run.fit_loop.max_epochs = 2
        run.fit(model, datamodule=dm)
        assert model.ids == stream(dm, 160)

    def test_in_setup_of_a_callback(self, tmp_path: Path):
        class Choose(pl.Callback):
            def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
                trainer.datamodule.set_mixture(Mixture({"b": 1.0}))

        model = fit(tmp_path, data(), Choose())
        assert {name[0] for name in model.ids} == {"b"}

    def test_after_the_loader_was_built_is_refused(self, tmp_path: Path):
        class Late(pl.Callback):
            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                trainer.datamodule.set_mixture(Mixture({"b": 1.0}))

        dm = data(mixture=AB)
        model = Recorder()
        with pytest.raises(LightningError, match=r"already built for \{a: 0.75, b: 0.25\}.*setup"):
            fit(tmp_path, dm, Late(), model=model)
        assert model.ids == []
        dm.set_mixture(Mixture({"b": 1.0}))
        assert {name[0] for name in fit(tmp_path, dm).ids} == {"b"}

    def test_an_unknown_candidate_is_refused(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="not a candidate: did you mean 'a'"):
            data().set_mixture(Mixture({"aa": 1.0}))
        with pytest.raises(ConfigError, match="'z', which is not a candidate"):
            fit(tmp_path, data(mixture={"z": 1.0}))


class TestOwnLoaders:
    def test_a_dataset_for_validation_test_and_prediction(self, tmp_path: Path):
        dm = data(val=records("v", 10), test=records("t", 3), predict=records("p", 9))
        model = fit(tmp_path, dm)
        assert [len(batch["id"]) for batch in model.validated] == 2 * [8, 2]
        assert [batch["id"] for batch in dm.test_dataloader()] == [["t-0", "t-1", "t-2"]]
        assert len(dm.predict_dataloader()) == 2

    def test_loaders_and_lists_of_them(self, tmp_path: Path):
        loader = DataLoader(records("v", 4), batch_size=3)
        dm = data(val=[loader, TensorDataset(torch.zeros(9, 1)), candidates(c=5, d=5)[1]])
        loaders = dm.val_dataloader()
        assert loaders[0] is loader
        assert [one.batch_size for one in loaders] == [3, 8, 8]
        fit(tmp_path, dm)

    def test_what_was_not_given_is_not_there(self, tmp_path: Path):
        class Tested(Recorder):
            def test_step(self, batch: Any, batch_idx: int) -> None: ...

        bare = type("Bare", (pl.LightningDataModule,), {})()
        for dm in (bare, data(val=records("v", 4))):
            with pytest.raises(MisconfigurationException, match="`test_dataloader` must be impl"):
                trainer(tmp_path).test(Tested(), datamodule=dm)

    def test_something_else_is_refused(self):
        with pytest.raises(ConfigError, match="val must be a dataset, a DataLoader, or a list"):
            data(val=3)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size=0: allowed is a whole number from 1"),
            ({"epoch_length": -5}, "epoch_length=-5: allowed is a whole number from 1"),
            ({"seed": -1}, "seed=-1: allowed is a whole number from 0"),
            ({"num_workers": 1.5}, "num_workers=1.5: allowed is a whole number from 0"),
            ({"batch_size": "x"}, "batch_size='x': allowed is a whole number"),
            ({"epoch_length": "x"}, "epoch_length='x': allowed is a whole number"),
            ({"mixture": {"a": 0.5}}, "weights must sum to 1"),
            ({"mixture": [0.5, 0.5]}, "allowed is a mapping from name to number"),
            ({"mixture": {"a": "x"}}, "allowed is a mapping from name to number"),
            ({"val": []}, "val must be a dataset.*found an empty one"),
            ({"collate_fn": 3}, "collate_fn=3: allowed is a function"),
            ({"train_transform": "x"}, "train_transform='x': allowed is a function"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ConfigError, match=message):
            data(**options)

    def test_pil_images_without_a_transform(self, tmp_path: Path):
        image = pytest.importorskip("PIL.Image")
        pictures = [{"image": image.new("L", (4, 4)), "id": i} for i in range(4)]
        with pytest.raises(DataError, match=r"field 'image' of a is a PIL image.*train_transform="):
            fit(tmp_path, SynqueDataModule([Candidate("a", pictures, view="image")]))

    def test_fields_that_differ_between_candidates(self, tmp_path: Path):
        other = Candidate("d", [{**r, "source": 1} for r in records("d", 9)], view="text")
        dm = SynqueDataModule([*candidates(a=9), other])
        with pytest.raises(DataError, match=r"'source' is in d, not in a; give train_transform="):
            fit(tmp_path, dm)
        dm = SynqueDataModule(
            [*candidates(a=9), other], train_transform=lambda r: {"id": r["id"], "x": r["x"]}
        )
        assert len(fit(tmp_path, dm).ids) == 18

    def test_examples_of_different_shapes(self):
        wide, narrow = (
            Candidate(name, [{"text": "t", "x": torch.zeros(n)} for _ in range(2)], view="text")
            for name, n in (("wide", 3), ("narrow", 2))
        )
        with pytest.raises(DataError, match="examples of narrow and wide cannot be in one batch"):
            SynqueDataModule([wide, narrow]).train_dataloader()

    def test_a_transform_that_fails_names_the_candidate(self):
        dm = data(train_transform=lambda record: record["no such field"])
        with pytest.raises(DataError, match=r"a, example 0 .*: train_transform fails: KeyEr"):
            dm.train_dataloader()

    def test_the_check_does_not_touch_random_state(self):
        dm = data(train_transform=lambda record: torch.rand(2))
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        dm.train_dataloader()
        assert torch.equal(before, torch.random.get_rng_state())

    def test_an_epoch_shorter_than_the_batch_it_must_fill(self):
        class Dropping(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return DataLoader(records("t", 64), batch_size=64, drop_last=True)

        dm = SynqueDataModule(candidates(a=5, b=5), wraps=Dropping())
        with pytest.raises(ConfigError, match="10 draws is shorter than one whole batch of 64"):
            dm.train_dataloader()

    def test_a_module_of_the_other_package(self):
        other = type("Theirs", (), {"__module__": f"{OTHER_ROOT}.core"})
        line = import_of("SynqueDataModule", OTHER_PACKAGE)
        with pytest.raises(LightningError, match=f"package {OTHER_PACKAGE}.*{line}"):
            SynqueDataModule(candidates(), wraps=other())
        with pytest.raises(LightningError, match="found DataLoader"):
            SynqueDataModule(candidates(), wraps=DataLoader([1]))  # type: ignore[arg-type]


def test_hyper_parameters_do_not_clash_with_the_models(tmp_path: Path):
    class Seeded(Recorder):
        def __init__(self, seed: int = 5, batch_size: str = "mine") -> None:
            super().__init__()
            self.save_hyperparameters()

    logger = pl.loggers.CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    fit(tmp_path, data(), model=Seeded(), logger=logger, log_every_n_steps=1)
    assert dict(logger.experiment.hparams) == {"lr": 0.1, "seed": 5, "batch_size": "mine"}


def test_a_copy_is_a_datamodule_of_its_own():
    dm = data(mixture=AB)
    other = copy.deepcopy(dm)
    other.set_mixture(Mixture({"c": 1.0}))
    assert dm.mixture is not None
    assert dm.mixture.weights == AB


def test_default_epoch_is_the_longest_that_repeats_nothing():
    dm = SynqueDataModule(candidates(a=31, b=100), mixture=AB)
    assert len(dm.train_dataloader().dataset) == math.floor(31 / 0.75)
