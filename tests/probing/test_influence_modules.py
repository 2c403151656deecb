"""`measure_influence` with modules and data that are less plain: what it says, or its error."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from synque_select.data.candidate import Candidate
from synque_select.errors import DataError, LightningError
from synque_select.probing.influence import InfluenceOptions, measure_influence
from synque_select.types import InfluenceResult
from tests.lightning_package import SynqueDataModule
from tests.probing.test_influence import (
    CPU,
    SETS,
    DigitNet,
    _forget,
    digit_data,
    key_of,
    measured,
    net,
)

__all__ = ["_forget"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def fresh(kind: type[DigitNet]) -> DigitNet:
    torch.manual_seed(0)
    return kind()


class Changing(DigitNet):
    """Its buffers, a frozen parameter and the loss change with the steps of the fit."""

    ends: ClassVar[list[dict[str, torch.Tensor]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 24), nn.BatchNorm1d(24), nn.Linear(24, 10))
        self.teacher = nn.Linear(64, 10).requires_grad_(False)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        ease = 1 / (1 + self.trainer.global_step)
        logits = self.network(batch["pixels"])
        soft = self.teacher(batch["pixels"]).softmax(1)
        hard = nn.functional.cross_entropy(logits, batch["label"])
        return (1 - ease) * hard + ease * nn.functional.cross_entropy(logits, soft)

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            self.teacher.weight += 0.05

    def on_train_end(self) -> None:
        Changing.ends.append({n: t.clone() for n, t in self.state_dict().items()})


def test_each_checkpoint_is_the_module_as_it_is_after_these_steps():
    def values(max_steps: int, checkpoints: int) -> list[float]:
        result = measured(fresh(Changing), max_steps=max_steps, checkpoints=checkpoints)
        assert set(result.rates) == {0.3}
        return list(result.values.values())

    Changing.ends.clear()
    first, last, both = values(6, 1), values(12, 1), values(12, 2)
    means = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
    assert both == pytest.approx(means, abs=1e-9)
    assert first != pytest.approx(last, abs=1e-3)
    # looking at the module on the way changes nothing
    _, looked_at_end, looked_twice = Changing.ends
    assert looked_at_end["network.1.num_batches_tracked"] == 12
    assert all(torch.equal(t, looked_twice[n]) for n, t in looked_at_end.items())


def test_lora_parameters_of_peft():
    peft = pytest.importorskip("peft")

    class Adapted(DigitNet):
        def __init__(self) -> None:
            super().__init__()
            self.network = peft.get_peft_model(
                self.network, peft.LoraConfig(r=2, target_modules=["0", "2"])
            )

    result = measured(fresh(Adapted), max_steps=60)
    assert (result.gradients, result.n_parameters) == ("lora", 2 * (64 + 24) + 2 * (24 + 10))
    assert result.order()[0].name == "same"
    assert result["flipped"].value < result["others"].value


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-true", "64-true"])
def test_other_precisions_say_the_same(precision: str):
    def run(**options: Any) -> InfluenceResult:
        return measure_influence(
            net(),
            digit_data(),
            max_steps=60,
            options=InfluenceOptions(checkpoints=2),
            trainer_options={**CPU, **options},
            progress=False,
        )

    expected, other = run(), run(precision=precision)
    assert [one.name for one in other.order()] == [one.name for one in expected.order()]
    for name, value in expected.values.items():
        assert other[name].value == pytest.approx(value, abs=0.03)
        assert math.isfinite(other[name].low)


def test_a_candidate_with_two_examples_is_the_least():
    result = measured(data=digit_data({**SETS, "pair": SETS["same"][:2]}))
    pair = result["pair"]
    assert (pair.n, pair.n_all, pair.n_units) == (2, 2, 200)
    assert pair.low < pair.value < pair.high
    with pytest.raises(DataError, match="single: 1 example; at least 2 are required"):
        digit_data({**SETS, "single": SETS["same"][:1]})


class Bare(DigitNet):
    """Parameters that no layer has."""

    def __init__(self) -> None:
        super().__init__()
        del self.network
        self.weight = nn.Parameter(torch.zeros(64, 10))

    def network(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels @ self.weight


def test_a_module_without_layers_uses_all_of_its_parameters():
    result = measured(fresh(Bare), max_steps=60)
    assert (result.gradients, result.n_parameters) == ("all", 640)
    assert result.order()[0].name == "same"
    with pytest.raises(LightningError, match="that is called: give gradients='all'"):
        measured(fresh(Bare), gradients="last_layer")


class Hooked(DigitNet):
    """Takes whole numbers, which a hook of it makes pixels."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert batch["pixels"].dtype == torch.int64
        return {**batch, "pixels": batch["pixels"] / 16}


@pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`")
def test_batches_pass_through_the_hooks_of_the_module():
    def whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "pixels": (row["pixels"] * 16).round().long()} for row in rows]

    pool = [Candidate(n, whole(rows), view=key_of, label="label") for n, rows in SETS.items()]
    data = SynqueDataModule(pool, val=whole(SETS["same"]), batch_size=32)
    hooked, expected = measured(fresh(Hooked), data), measured()
    # the pixels of noise are rounded
    assert hooked["same"].value == pytest.approx(expected["same"].value, abs=0.02)


class Mapped(DigitNet):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        # Lightning itself needs the loss to train
        return {"loss": loss} if self.training else {"logits": loss}


class PerExample(DigitNet):
    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss if self.training else loss.expand(2)


class Averaging(Changing):
    """Changes a parameter in its step, as MoCo does."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        with torch.no_grad():
            self.teacher.weight *= 0.9
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Mapped, r"Mapped returned a mapping with the keys \['logits'\]; allowed is a loss"),
        (PerExample, r"PerExample returned a tensor of shape \(2,\); allowed is a loss"),
        (Averaging, r"Averaging changes parameters when it is only evaluated: teacher\.weight"),
    ],
)
def test_modules_without_the_loss_of_an_example(kind: type[DigitNet], message: str):
    with pytest.raises(LightningError, match=message):
        measured(fresh(kind), max_steps=6)


def with_validation(rows: Any) -> SynqueDataModule:
    pool = [Candidate(n, part, view=key_of, label="label") for n, part in SETS.items()]
    return SynqueDataModule(pool, val=rows, batch_size=32)


def test_gradients_that_are_not_finite():
    rows = [dict(row) for row in SETS["same"]]
    rows[7]["pixels"] = rows[7]["pixels"] * math.nan
    with pytest.raises(DataError, match=r"the validation data, example 7 \(counted from 0\): its"):
        measured(data=with_validation(rows))
    broken = {**SETS, "others": [{**row, "pixels": row["pixels"] / 0} for row in SETS["others"]]}
    with pytest.raises(DataError, match=r"step 10 of the fit.*weights that are not finite"):
        measured(data=digit_data(broken))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"pixels": row["pixels"]} for row in SETS["same"]],
            "the validation data: training_step fails .*KeyError: 'label'",
        ),
        (
            [{**row, "label": None} for row in SETS["same"]],
            "the validation data: no batch can be made of its examples: TypeError",
        ),
        (Subset(SETS["same"], []), "the first validation loader is empty"),
    ],
    ids=["without", "None", "empty"],
)
def test_validation_data_without_labels(rows: Any, message: str):
    with pytest.raises(LightningError, match=message):
        measured(data=with_validation(rows))
