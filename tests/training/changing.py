"""Parts for tests of weights that change: a callback that changes them, and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.lightning_package import SynqueDataModule, pl
from tests.training.serving import candidates

NAMES = ("a", "b", "c")
PLAN = {
    4: {"a": 0.1, "b": 0.9},
    9: {"a": 0.2, "b": 0.2, "c": 0.6},
    10: {"c": 1.0},
    17: {"a": 0.5, "b": 0.25, "c": 0.25},
}


class Change(pl.Callback):
    """Sets weights after given optimizer steps."""

    def __init__(self, plan: Mapping[int, dict[str, float]] | None = None) -> None:
        self.plan = PLAN if plan is None else plan
        self.draws: list[int] = []
        self._last = 0

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        trainer.datamodule.enable_changes(NAMES)  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step in self.plan and step != self._last:
            dm = trainer.datamodule  # type: ignore[attr-defined]
            self.draws.append(dm.change_weights(self.plan[step]))
        self._last = step


def data(**options: Any) -> SynqueDataModule:
    given: dict[str, Any] = {
        "candidates": candidates(a=60, b=61, c=62),
        "mixture": {"a": 0.75, "b": 0.25},
        "batch_size": 8,
        "epoch_length": 84,  # ten batches of 8 and one of 4
        **options,
    }
    return SynqueDataModule(**given)


def number_of(row: dict[str, Any]) -> int:
    return int(row["id"].split("-")[1])


def length_of(row: dict[str, Any]) -> int:
    return 1 + number_of(row) % 9
