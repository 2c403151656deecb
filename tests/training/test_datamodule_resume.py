"""A resumed run continues with the remaining draws of the mixture of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from synque_select.data.candidate import Candidate
from synque_select.errors import LightningError
from tests.lightning_package import SynqueDataModule, pl
from tests.training.serving import Recorder, UserData, candidates, fit, records, trainer

BatchSizeFinder = pl.callbacks.BatchSizeFinder
ModelCheckpoint = pl.callbacks.ModelCheckpoint
OnExceptionCheckpoint = pl.callbacks.OnExceptionCheckpoint
SingleDeviceStrategy = pl.strategies.SingleDeviceStrategy

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]

AB = {"a": 0.75, "b": 0.25}
EPOCHS = 3
PER_EPOCH = 10  # batches of 8 in the 80 draws of an epoch


def data(**options: Any) -> SynqueDataModule:
    return SynqueDataModule(
        **{"candidates": candidates(), "mixture": AB, "batch_size": 8, **options}
    )


def saving(folder: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=every, save_top_k=-1, monitor=None
    )


def checkpoint(folder: Path, step: int) -> str:
    return str(folder / f"step={step}.ckpt")


def resumed(folder: Path, ckpt: str, dm: SynqueDataModule | None = None, **options: Any) -> Any:
    return fit(folder, dm or data(), ckpt_path=ckpt, **{"max_epochs": EPOCHS, **options})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, fit(folder, data(), saving(folder, 1), max_epochs=EPOCHS)


def same_weights(one: Recorder, other: Recorder) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


class TestExactPosition:
    @pytest.mark.parametrize("step", [1, 7, 9, 10, 11, 20, 24, 29])
    def test_after_any_step(self, undisturbed: tuple[Path, Recorder], tmp_path: Path, step: int):
        folder, whole = undisturbed
        model = resumed(tmp_path, checkpoint(folder, step))
        assert model.batches == whole.batches[step:]
        assert same_weights(model, whole)

    def test_with_workers(self, undisturbed: tuple[Path, Recorder], tmp_path: Path):
        folder, whole = undisturbed
        model = resumed(tmp_path, checkpoint(folder, 13), data(num_workers=2))
        assert model.batches == whole.batches[13:]

    @pytest.mark.filterwarnings("ignore:The dirpath has changed")
    def test_a_run_that_was_resumed_before(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, whole = undisturbed
        first = fit(
            tmp_path,
            data(),
            saving(tmp_path, 1),
            ckpt_path=checkpoint(folder, 13),
            max_steps=18,
            max_epochs=-1,
        )
        second = resumed(tmp_path, checkpoint(tmp_path, 17))
        assert first.batches == whole.batches[13:18]
        assert second.batches == whole.batches[17:]

    @pytest.mark.parametrize("save_at_end", [False, True])
    def test_after_validation_in_an_epoch_and_at_its_end(self, tmp_path: Path, save_at_end: bool):
        saver = ModelCheckpoint(
            tmp_path,
            filename="{step}",
            save_top_k=-1,
            save_on_train_epoch_end=save_at_end,
        )
        options: dict[str, Any] = {"val_check_interval": 1.0 if save_at_end else 5}
        val = records("v", 8)
        whole = fit(tmp_path, data(val=val), saver, max_epochs=EPOCHS, **options)
        for step in (10, 20) if save_at_end else (5, 10, 15, 20, 25):
            model = resumed(tmp_path, checkpoint(tmp_path, step), data(val=val), **options)
            assert model.batches == whole.batches[step:], step
            assert same_weights(model, whole)

    def test_with_accumulation_at_an_optimiser_step(self, tmp_path: Path):
        options: dict[str, Any] = {"accumulate_grad_batches": 2, "max_epochs": EPOCHS}
        whole = fit(tmp_path, data(), saving(tmp_path, 1), **options)
        model = resumed(tmp_path, checkpoint(tmp_path, 8), **options)
        assert model.batches == whole.batches[16:]
        assert same_weights(model, whole)

    def test_with_epochs_cut_short(self, tmp_path: Path):
        options: dict[str, Any] = {"limit_train_batches": 3, "max_epochs": 5}
        whole = fit(tmp_path, data(), saving(tmp_path, 1), **options)
        for step in (4, 6, 8):
            assert (
                resumed(tmp_path, checkpoint(tmp_path, step), **options).batches
                == (whole.batches[step:])
            )

    def test_with_a_loader_built_before_the_loops_are_restored(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        class Scheduled(Recorder):
            def configure_optimizers(self) -> Any:
                assert self.trainer.estimated_stepping_batches == EPOCHS * PER_EPOCH
                return super().configure_optimizers()

        folder, whole = undisturbed
        for n_workers in (0, 1):
            model = resumed(
                tmp_path,
                checkpoint(folder, 14),
                data(num_workers=n_workers),
                model=Scheduled(),
            )
            assert model.batches == whole.batches[14:]

    def test_dropping_the_last_batch(self, tmp_path: Path):
        class Dropping(pl.LightningDataModule):
            def train_dataloader(self) -> Any:
                return DataLoader(records("t", 32), batch_size=32, drop_last=True)

        whole = fit(tmp_path, data(wraps=Dropping(), batch_size=None), saving(tmp_path, 1))
        assert [len(batch) for batch in whole.batches] == [32, 32]
        dm = data(wraps=Dropping(), batch_size=None)
        model = resumed(tmp_path, checkpoint(tmp_path, 1), dm, max_epochs=2)
        assert [len(batch) for batch in model.batches] == [32, 32, 32]
        assert model.batches[0] == whole.batches[1]

    @pytest.mark.filterwarnings("ignore:`.fit.ckpt_path=None.` was called without a model")
    @pytest.mark.filterwarnings("ignore:.fit.ckpt_path=.last.. is set")
    @pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer` in")
    @pytest.mark.parametrize("hook", ["training_step", "on_train_batch_end", "transfer"])
    def test_a_batch_that_failed_is_trained_on_after_all(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path, hook: str
    ):
        class Failing(Recorder):
            def fail(self, where: str) -> None:
                if where == hook and len(self.batches) == 13 + (hook == "on_train_batch_end"):
                    raise RuntimeError("no luck")

            def training_step(self, batch: Any, i: int) -> Any:
                self.fail("training_step")
                return super().training_step(batch, i)

            def on_train_batch_end(self, *_: Any) -> None:
                self.fail("on_train_batch_end")

            def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
                self.fail("transfer")
                return batch

        saver = OnExceptionCheckpoint(tmp_path)
        with pytest.raises(RuntimeError, match="no luck"):
            fit(tmp_path, data(), saver, model=Failing(), max_epochs=EPOCHS)
        model = resumed(tmp_path, saver.ckpt_path)
        n_done = 14 if hook == "on_train_batch_end" else 13
        assert model.batches == undisturbed[1].batches[n_done:]

    def test_a_tuner_on_the_way_leaves_it_alone(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        """The finder trains with batches of 2 and 4, and the run continues with its result."""
        folder, whole = undisturbed
        dm = data(val=records("v", 8))
        finder = BatchSizeFinder(mode="power", steps_per_trial=1, init_val=4, max_trials=2)
        run = trainer(tmp_path, finder, max_epochs=EPOCHS)
        model = Recorder()
        run.fit(model, datamodule=dm, ckpt_path=checkpoint(folder, 10))
        assert dm.batch_size == 8
        assert model.batches[-20:] == whole.batches[10:]

    def test_testing_a_checkpoint_does_not_move_the_position(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        class Tested(Recorder):
            def test_step(self, batch: Any, batch_idx: int) -> None: ...

        folder, whole = undisturbed
        dm = data(test=records("t", 8))
        run, model = trainer(tmp_path, max_epochs=2), Tested()
        run.fit(model, datamodule=dm)
        run.test(model, datamodule=dm, ckpt_path=checkpoint(folder, 3))
        run.fit_loop.max_epochs = EPOCHS
        run.fit(model, datamodule=dm)
        assert model.batches == whole.batches


class LateRestore(SingleDeviceStrategy):
    """Restores after `configure_optimizers`, as FSDP and DeepSpeed do."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True


class Scheduled(Recorder):
    """Builds the train loader in `configure_optimizers`."""

    def configure_optimizers(self) -> Any:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


class TestStrategiesThatRestoreLate:
    @pytest.mark.parametrize("n_workers", [0, 2])
    @pytest.mark.parametrize("kind", [Recorder, Scheduled])
    def test_the_same_mixture_goes_on_at_the_exact_position(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path, kind: type, n_workers: int
    ):
        folder, whole = undisturbed
        model = resumed(
            tmp_path,
            checkpoint(folder, 14),
            data(num_workers=n_workers),
            model=kind(),
            strategy=LateRestore(),
        )
        assert model.batches == whole.batches[14:]

    def test_another_mixture_is_never_trained_on(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, _ = undisturbed
        model = Scheduled()
        with pytest.raises(LightningError, match=r"trained on \{a: 0.75, b: 0.25\}.*mixture="):
            resumed(
                tmp_path,
                checkpoint(folder, 14),
                data(mixture={"c": 1.0}),
                model=model,
                strategy=LateRestore(),
            )
        assert model.batches == []

    def test_the_mixture_of_the_checkpoint_wins_where_no_loader_was_built(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, whole = undisturbed
        with pytest.warns(UserWarning, match="continues with the mixture of the checkpoint"):
            model = resumed(
                tmp_path,
                checkpoint(folder, 14),
                data(mixture={"c": 1.0}),
                strategy=LateRestore(),
            )
        assert model.batches == whole.batches[14:]


class TestWhatChanged:
    def test_the_mixture_of_the_checkpoint_wins(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, whole = undisturbed
        dm = data(mixture={"c": 1.0})
        with pytest.warns(UserWarning, match=r"\{a: 0.75, b: 0.25\}, not with \{c: 1\}"):
            model = resumed(tmp_path, checkpoint(folder, 14), dm)
        assert model.batches == whole.batches[14:]
        assert dm.mixture is not None
        assert dm.mixture.weights == AB

    def test_where_nobody_chose_it_is_simply_taken(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        folder, whole = undisturbed
        assert (
            resumed(tmp_path, checkpoint(folder, 3), data(mixture=None)).batches
            == (whole.batches[3:])
        )

    def test_content_that_changed_is_named(
        self, undisturbed: tuple[Path, Recorder], tmp_path: Path
    ):
        edited = records("b", 60)
        edited[0]["text"] = "something else"
        others = [*candidates(a=60, c=60), Candidate("b", edited, view="text")]
        with pytest.warns(UserWarning, match="the content of b has changed since"):
            resumed(tmp_path, checkpoint(undisturbed[0], 3), data(candidates=others))

    def test_the_whole_hash_counts_where_a_ranking_computed_it(self, tmp_path: Path):
        big, edited = records("a", 300), records("a", 300)
        edited[1]["text"] = "not among the hashed examples"
        dm = SynqueDataModule([Candidate("a", big, view="text")], batch_size=50)
        assert len(dm.candidates[0].sha256) == 64
        fit(tmp_path, dm, saving(tmp_path, 1))
        ckpt = checkpoint(tmp_path, 2)
        dm = SynqueDataModule([Candidate("a", edited, view="text")], batch_size=50)
        resumed(tmp_path, ckpt, dm, max_epochs=1)
        assert len(dm.candidates[0].sha256) == 64
        with pytest.warns(UserWarning, match="the content of a has changed"):
            resumed(tmp_path, ckpt, dm, max_epochs=1)

    def test_a_candidate_that_is_gone(self, undisturbed: tuple[Path, Recorder], tmp_path: Path):
        dm = data(candidates=candidates(a=60, c=60), mixture=None)
        with pytest.raises(
            LightningError, match=r"cannot be resumed.*'b', which is not a candidate"
        ):
            resumed(tmp_path, checkpoint(undisturbed[0], 3), dm)

    def test_another_seed(self, undisturbed: tuple[Path, Recorder], tmp_path: Path):
        with pytest.warns(UserWarning, match="seed is 4, but was 0"):
            resumed(tmp_path, checkpoint(undisturbed[0], 3), data(seed=4))


def test_the_state_is_plain(undisturbed: tuple[Path, Recorder]):
    saved = torch.load(checkpoint(undisturbed[0], 14), weights_only=True)
    state = saved["SynqueDataModule"]
    assert state["mixture"] == {"weights": AB, "source": "given"}
    assert state["position"] == {"epoch": 1, "start": 80, "drawn": 32}
    assert set(state["candidates"]) == {"a", "b"}


def test_a_wrapped_module_gets_its_state_back(tmp_path: Path):
    inner = UserData()
    inner.counter = 5
    fit(tmp_path, data(wraps=inner), saving(tmp_path, 3))
    other = UserData()
    resumed(tmp_path, checkpoint(tmp_path, 3), data(wraps=other), max_epochs=1)
    assert other.counter == 5
