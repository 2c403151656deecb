"""`measure_influence` on real digits and on letters: what it says, and that it continues."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from synque_select import SurrogateOptions
from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError, LightningError, RecordError
from synque_select.probing.influence import InfluenceOptions, measure_influence, run_influence
from synque_select.records.influence_file import load_influence, save_influence
from synque_select.types import InfluenceResult
from tests.lightning_package import SynqueDataModule, pl
from tests.training.tiny import (
    WORDS,
    LetterEncoder,
    TinyModel,
    candidates,
    collate,
    data_module,
    real_sample,
    texts,
)

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
CPU = {"accelerator": "cpu"}


class DigitNet(pl.LightningModule):
    """A small network for the digits of scikit-learn; counts its training steps."""

    # lists, because plain attributes are part of the module's code, which the cache is keyed by
    calls: ClassVar[list[int]] = [0]
    fails_after: ClassVar[list[int]] = []

    def __init__(self, adam: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if DigitNet.calls[0] in DigitNet.fails_after:
            raise KeyboardInterrupt
        DigitNet.calls[0] += 1
        loss = nn.functional.cross_entropy(self.network(batch["pixels"]), batch["label"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.hparams["adam"]:
            return torch.optim.AdamW(self.parameters(), lr=0.01)
        return torch.optim.SGD(self.parameters(), lr=0.3)

    def configure_callbacks(self) -> list[pl.Callback]:
        return [Stopping()]


class Stopping(pl.Callback):
    """A callback that the module brings; it would end the fit."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = True


@pytest.fixture(autouse=True)
def _forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    DigitNet.calls[:], DigitNet.fails_after[:] = [0], []


def digits(start: int, n: int, shift: int = 0) -> list[dict[str, Any]]:
    """Return n digits from a position on, with labels that are off by `shift`."""
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images.reshape(-1, 64) / 16).float()
    labels = (torch.from_numpy(bunch.target).long() + shift) % 10
    return [{"pixels": pixels[i], "label": int(labels[i])} for i in range(start, start + n)]


def noise(n: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    return [{"pixels": torch.rand(64, generator=generator), "label": i % 10} for i in range(n)]


def key_of(example: dict[str, Any]) -> str:
    return str(example["pixels"].tolist())


SETS = {
    "same": digits(0, 200),
    "others": digits(400, 200),
    "noise": noise(200),
    "flipped": digits(800, 200, shift=1),
}


def digit_data(sets: dict[str, list[dict[str, Any]]] = SETS, **options: Any) -> SynqueDataModule:
    pool = [Candidate(name, rows, view=key_of, label="label") for name, rows in sets.items()]
    return SynqueDataModule(pool, val=SETS["same"], batch_size=32, **options)


def net(adam: bool = False) -> DigitNet:
    torch.manual_seed(0)
    return DigitNet(adam)


def measured(
    module: Any = None, data: Any = None, max_steps: int = 30, **options: Any
) -> InfluenceResult:
    return measure_influence(
        net() if module is None else module,
        digit_data() if data is None else data,
        max_steps=max_steps,
        options=InfluenceOptions(**options),
        trainer_options=CPU,
        progress=False,
    )


@pytest.mark.parametrize("unit_length", [True, False])
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("gradients", ["last_layer", "all"])
def test_the_validation_data_itself_helps_most_and_flipped_labels_harm(
    gradients: Any, adam: bool, unit_length: bool
):
    options = {"gradients": gradients, "unit_length": unit_length, "dims": 512, "checkpoints": 2}
    result = measured(net(adam), max_steps=150, **options)
    assert result.order()[0].name == "same"
    assert result["same"].low > 0
    assert result.order()[-1].name == "flipped"
    assert result["flipped"].value < 0
    if gradients == "last_layer":
        assert result["flipped"].verdict == "raises the loss"
    assert result.is_preconditioned is adam
    assert result.gradients == gradients
    assert (result.n_parameters, result.n_dims) == (
        (250, 250) if gradients == "last_layer" else (1810, 512)
    )


def test_it_predicts_the_change_of_the_loss_by_a_step():
    """With all gradients, unscaled and unprojected, it is the first-order change of the loss."""
    options = {"gradients": "all", "unit_length": False, "dims": 4000, "checkpoints": 1}
    module = net()
    result = measured(module, max_steps=1, **options)
    # the checkpoint is the weights after one step, on a batch of the mixture
    fit = pl.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **CPU,
    )
    fit.fit(module, datamodule=digit_data())

    module.double()

    def loss_of(rows: list[dict[str, Any]], network: nn.Module) -> torch.Tensor:
        pixels = torch.stack([row["pixels"] for row in rows]).double()
        return nn.functional.cross_entropy(
            network(pixels), torch.tensor([row["label"] for row in rows])
        )

    changes = {}
    for name, rows in SETS.items():
        parts = torch.autograd.grad(loss_of(rows, module.network), list(module.parameters()))
        trained = net().double()
        trained.load_state_dict(module.state_dict())
        with torch.no_grad():
            for parameter, part in zip(trained.parameters(), parts, strict=True):
                parameter -= 1e-3 * part
        before, after = (loss_of(SETS["same"], m.network).item() for m in (module, trained))
        changes[name] = before - after
    ratios = [result[name].value / changes[name] for name in SETS]
    assert max(ratios) == pytest.approx(min(ratios), rel=0.05)


def test_a_second_run_trains_nothing_and_takes_no_gradient():
    whole = measured(data=digit_data())
    n_whole = DigitNet.calls[0]
    again = measured(data=digit_data())
    assert DigitNet.calls[0] == n_whole
    assert again.candidates == whole.candidates
    assert replace(again, seconds=whole.seconds) == whole


def test_a_kill_amid_the_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = measured()
    n_whole = DigitNet.calls[0]
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "other"))
    DigitNet.calls[:], DigitNet.fails_after[:] = [0], [n_whole - 10]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        measured()
    DigitNet.fails_after.clear()
    n_before = DigitNet.calls[0]
    result = measured()
    assert DigitNet.calls[0] - n_before < n_whole / 2  # the fit, and gradients of its end
    assert result.candidates == whole.candidates


def test_a_learning_rate_that_is_an_attribute_is_not_taken_for_another():
    class Own(DigitNet):
        def __init__(self, lr: float) -> None:
            super().__init__()
            self.lr = lr

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    for lr in (0.3, 0.01):
        torch.manual_seed(0)
        assert measured(Own(lr), checkpoints=2).rates == (lr, lr)


def test_other_labels_are_measured_again():
    before = measured()
    changed = {**SETS, "others": digits(400, 200, shift=2)}
    after = measured(data=digit_data(changed))
    assert after["others"].value < before["others"].value


def test_a_fit_on_other_labels_that_no_candidate_names_is_another_fit():
    def data(last: int) -> SynqueDataModule:
        rows = {name: [dict(row) for row in rows] for name, rows in SETS.items()}
        rows["others"][-1]["label"] = last
        pool = [Candidate(name, part, view=key_of) for name, part in rows.items()]
        return SynqueDataModule(pool, val=SETS["same"], batch_size=32)

    options = {"max_steps": 30, "checkpoints": 1, "examples": 2, "validation_examples": 3}
    before = measured(data=data(0), **options)
    n_before = DigitNet.calls[0]
    assert measured(data=data(0), **options).candidates == before.candidates
    assert DigitNet.calls[0] - n_before < 30
    n_before = DigitNet.calls[0]
    assert measured(data=data(1), **options).candidates != before.candidates
    assert DigitNet.calls[0] - n_before >= 30  # trained again


def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    before = measured()
    for path in (tmp_path / "cache" / "influence").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    assert measured().candidates == before.candidates
    assert "is damaged" in caplog.text


def test_a_draw_of_examples_has_a_wider_interval():
    few, all_ = measured(examples=20), measured()
    assert (few["others"].n, few["others"].n_all) == (20, 200)
    assert few["others"].high - few["others"].low > all_["others"].high - all_["others"].low


def test_a_surrogate_judges_by_other_families_alone():
    families = {"near": "a", "mixed": "a", "half": "b", "far": "c", "odd": "d"}
    val = SurrogateOptions(size=100, held_out=0.3, encoder=LetterEncoder(), family=families)

    def data(near: int) -> SynqueDataModule:
        pool = candidates(100)
        pool[0] = Candidate("near", texts(WORDS["near"], 100, near), view="text", label="label")
        return SynqueDataModule(
            pool, real_sample(), val=val, collate_fn=collate, batch_size=16, view="text"
        )

    torch.manual_seed(0)
    result = measured(TinyModel(), data(0), max_steps=12)
    assert result.validation == "surrogate"
    assert result["mixed"].n_units == 3
    assert result["odd"].n_units == 3
    assert result["odd"].n_all < 100  # without the held-out examples
    assert any("surrogate" in message for message in result.messages)


def test_the_result_survives_a_file(tmp_path: Path):
    result = measured(checkpoints=2)
    save_influence(result, tmp_path)
    assert load_influence(tmp_path) == result
    state = json.loads((tmp_path / "influence.json").read_text())
    state["candidates"][1]["value"] = "much"
    (tmp_path / "influence.json").write_text(json.dumps(state))
    with pytest.raises(RecordError, match=r"influence\.json is damaged: candidates\[1\]\.value"):
        load_influence(tmp_path)


def test_a_run_writes_a_file_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = run_influence(
        net(), digit_data(), max_steps=6, run_dir=str(tmp_path / "run"), trainer_options=CPU
    )
    out = capsys.readouterr().out
    assert "Influence on the labeled validation loss" in out
    assert {"influence.json", "run.json"} <= {path.name for path in run.iterdir()}
    assert load_influence(run).steps == (2, 4, 6)
    rows = [
        line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in SETS
    ]
    assert rows == [one.name for one in load_influence(run).order()]


class ByHand(DigitNet):
    """Steps its optimizer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Constant(DigitNet):
    """A loss that does not depend on the example's gradients: they are all 0."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.network(batch["pixels"]).sum() * 0.0


class Diverged(DigitNet):
    """A learning rate that breaks the fit."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * float("inf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": 0}, "checkpoints=0"),
        ({"examples": 1}, "examples=1"),
        ({"validation_examples": 2}, "validation_examples=2"),
        ({"dims": 0}, "dims=0"),
        ({"seed": -1}, "seed=-1"),
        ({"gradients": "first_layer"}, "gradients='first_layer': allowed are 'auto', 'lora'"),
        ({"task": "a/b"}, "task='a/b'"),
        ({"checkpoints": 40}, "max_steps=30 with checkpoints=40"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        measured(**options)


def test_modules_and_data_that_are_not_allowed():
    with pytest.raises(ConfigError, match="max_steps=-1"):
        measured(max_steps=-1)
    with pytest.raises(LightningError, match="found LightningDataModule"):
        measured(data=pl.LightningDataModule())
    with pytest.raises(LightningError, match="automatic_optimization=False"):
        measured(ByHand())
    with pytest.raises(DataError, match=r"same: all gradients of network.2.weight, .* are 0"):
        measured(Constant())
    with pytest.raises(DataError, match="not finite"):
        measured(Diverged())
    without = SynqueDataModule(
        [Candidate("a", SETS["same"], view=key_of, label="label")], batch_size=32
    )
    with pytest.raises(LightningError, match="influence needs validation data"):
        measured(data=without)


def test_validation_batches_of_another_form():
    data = SynqueDataModule(
        [Candidate(n, rows, view=key_of, label="label") for n, rows in SETS.items()],
        val=[(row["pixels"], row["label"]) for row in SETS["same"]],
        batch_size=32,
    )
    with pytest.raises(LightningError, match="the validation data: training_step fails"):
        measured(data=data)


def test_a_wrapped_datamodule_and_texts():
    torch.manual_seed(0)
    result = measured(TinyModel(), data_module(), max_steps=8, checkpoints=2)
    assert result.n_validation == 40
    assert all(math.isfinite(one.low) for one in result.candidates)
    assert set(result.values) == set(WORDS)
