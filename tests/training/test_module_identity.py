"""What distinguishes modules: a finished fit of another one is not taken for theirs."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.training.comparability import content_sha256
from synque_select.training.module_identity import module_identity
from tests.lightning_package import ROOT, pl


class Net(pl.LightningModule):
    """Keeps its options as attributes."""

    made = 0

    def __init__(self, lr: float = 0.1, drop: float = 0.1, activation: Any = torch.relu) -> None:
        super().__init__()
        Net.made += 1
        self.lr, self.activation = lr, activation
        self.tags = {"x", "y", "z"}
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(drop))


def identity(module: Any) -> str:
    return content_sha256(module_identity(module))


def test_two_of_the_same_are_equal():
    assert identity(Net()) == identity(Net())


def test_the_state_of_a_fit_is_not_part_of_it():
    module, other = Net(), Net()
    other.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    assert identity(module) == identity(other)


@pytest.mark.parametrize(
    "options",
    [{"lr": 0.2}, {"drop": 0.2}, {"activation": torch.tanh}],
    ids=["lr", "drop", "activation"],
)
def test_attributes_of_the_module_and_its_parts_count(options):
    assert identity(Net()) != identity(Net(**options))


def test_the_code_of_a_base_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    hashes = []
    for step in ("return 1", "return 2"):
        (tmp_path / "base_of_identity.py").write_text(
            f"import {ROOT} as pl\n\n\nclass Base(pl.LightningModule):\n"
            f"    def training_step(self, batch):\n        {step}\n\n\nclass Own(Base):\n    pass\n"
        )
        sys.modules.pop("base_of_identity", None)
        importlib.invalidate_caches()
        hashes.append(identity(importlib.import_module("base_of_identity").Own()))
    sys.modules.pop("base_of_identity")
    assert hashes[0] != hashes[1]


def test_functions_count_by_name_and_other_objects_by_class():
    one, other = (Net(activation=functools.partial(torch.relu)) for _ in range(2))
    assert identity(one) == identity(other) != identity(Net())
