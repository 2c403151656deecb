"""Thirty trials leave nothing behind: no tensors, no modules, no memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions, tune_mixture
from tests.training.tiny import LETTERS, LetterEncoder, TinyModel, data_module

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
N_TRIALS, SETTLED = 30, 10
WIDTH = 40_000  # 4 MiB of weights, and the same for gradients and momentum


class Wide(TinyModel):
    """Large enough that a leaked module shows in the memory of the process."""

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__(lr)
        self.layer = torch.nn.Linear(len(LETTERS), WIDTH)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)


KINDS = (torch.Tensor, Wide)


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.mark.slow
def test_memory_is_flat_over_thirty_trials(tmp_path):
    states: list[tuple[int, int, int]] = []

    def factory() -> Wide:
        gc.collect()
        # not isinstance, which asks lazy objects for their class and may cause warnings
        alive: list[Any] = [o for o in gc.get_objects() if issubclass(type(o), KINDS)]
        tensors = [o for o in alive if issubclass(type(o), torch.Tensor)]
        states.append((len(tensors), len(alive) - len(tensors), resident_bytes()))
        del alive, tensors
        return Wide()

    tune_mixture(
        factory,
        data_module(),
        max_steps=4,
        options=TuneOptions(n_trials=N_TRIALS, n_reports=2),
        scorer=Scorer(["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=tmp_path / "cache"),
        store=tmp_path / "records.sqlite",
        trainer_options={"accelerator": "cpu"},
        progress=False,
    )
    assert len(states) >= N_TRIALS
    tensors, modules, resident = zip(*states[SETTLED:], strict=True)
    assert max(modules) - min(modules) == 0
    # a trainer lives until that of the next trial, and a pruned trial holds two tensors fewer;
    # weights and bias of one leaked module per trial would be 40
    assert max(tensors) - min(tensors) <= 4
    weights = 4 * WIDTH * (len(LETTERS) + 1)
    # one leaked module per trial would be 20 times this, and its momentum the same again
    assert resident[-1] - resident[0] < 5 * weights
    print(f"resident {resident[0] / 2**20:.0f} to {resident[-1] / 2**20:.0f} MiB")
