"""A hint where a model fails on the examples of candidates, which nothing has transformed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lightning_package import SynqueDataModule
from tests.training.tiny import TinyModel, candidates, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:You defined a `validation_step` but have no",
)


class Pairs(TinyModel):
    """A model whose batches are pairs, and not the fields of a record."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[0]


def test_a_model_that_does_not_take_records_gets_a_hint(tmp_path: Path):
    data = SynqueDataModule(candidates(20), mixture={"near": 0.5, "far": 0.5})
    with pytest.raises(KeyError) as caught:
        trainer(tmp_path).fit(Pairs(), datamodule=data)
    (note,) = caught.value.__notes__
    assert "have the fields 'text', 'label', as no train_transform is given" in note
    assert "give train_transform=, a function that turns one example" in note


def test_no_hint_with_a_transform_or_for_another_error(tmp_path: Path):
    def whole(record: dict[str, Any]) -> dict[str, Any]:
        return record

    data = SynqueDataModule(
        candidates(20), mixture={"near": 0.5, "far": 0.5}, train_transform=whole
    )
    with pytest.raises(KeyError) as caught:
        trainer(tmp_path).fit(Pairs(), datamodule=data)
    assert not hasattr(caught.value, "__notes__")

    class Broken(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("the power failed")

    data = SynqueDataModule(candidates(20), mixture={"near": 0.5, "far": 0.5})
    with pytest.raises(RuntimeError, match="power") as failed:
        trainer(tmp_path).fit(Broken(), datamodule=data)
    assert not hasattr(failed.value, "__notes__")
