"""A worker of a study in a separate process; started by test_tuning_workers.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch

from synque_select.selection.scorer import Scorer
from synque_select.tuning import TuneOptions, TuningResult, tune_mixture
from tests.training.tiny import LetterEncoder, TinyModel, data_module


class Dying(TinyModel):
    """Kills its process with SIGKILL in the middle of the fit of this number."""

    n_fits, dies_in = 0, -1

    def on_fit_start(self) -> None:
        Dying.n_fits += 1

    def training_step(self, batch: Any, i: int) -> Any:
        if Dying.n_fits == Dying.dies_in and len(self.seen) == 2:
            time.sleep(1)  # Optuna writes the first heartbeat of a trial in another thread
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, i)


class NotingRank(TinyModel):
    """Keeps what each fit of this rank was trained on."""

    fits: list[dict[str, Any]] = []  # noqa: RUF012 - one list for all fits of a process

    def on_fit_start(self) -> None:
        NotingRank.fits.append({"seen": self.seen, "lr": self.hparams["lr"]})


def tune(model: Any, folder: Path, trainer_options: dict[str, Any], **options: Any) -> TuningResult:
    encoder = LetterEncoder()
    return tune_mixture(
        model,
        data_module(),
        max_steps=4,
        options=TuneOptions(n_trials=8, n_startup=2, study_name="shared", heartbeat_s=1, **options),
        scorer=Scorer(["mmd"], top_k=2, encoder=encoder, cache_dir=folder / "cache"),
        store=folder / "records.sqlite",
        trainer_options=trainer_options,
        progress=False,
    )


def worker(folder: Path, dies_in: int) -> None:
    Dying.dies_in = dies_in
    result = tune(Dying, folder, {"accelerator": "cpu"}, pruner="none")
    (folder / "result.json").write_text(json.dumps(result.to_dict()))


def choose(trial: optuna.Trial) -> dict[str, Any]:
    return {"lr": trial.suggest_float("lr", 0.1, 1.0)}


def ranks(folder: Path, mode: str) -> None:
    """Two ranks; rank 0 prunes all starts, or fails."""
    result = tune(
        NotingRank,
        folder,
        {"accelerator": "cpu", "devices": 2, "strategy": "ddp"},
        monitor="nothing" if mode == "fail" else "val_acc",
        hyper_parameters=choose,
        n_reports=2,
        pruner=optuna.pruners.ThresholdPruner(lower=2.0),
    )
    rank = torch.distributed.get_rank()
    actual = {"result": result.to_dict(), "fits": NotingRank.fits}
    (folder / f"rank{rank}.json").write_text(json.dumps(actual))


if __name__ == "__main__":
    if sys.argv[1] == "ranks":
        ranks(Path(sys.argv[2]), sys.argv[3])
    else:
        worker(Path(sys.argv[2]), int(sys.argv[3]))
