"""A model that takes its time, and notes each step."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from tests.training.tiny import TinyModel

__all__ = ["SlowModel"]


class SlowModel(TinyModel):
    """Logistic regression; each step is a line of a log and takes some time."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        with Path(os.environ["SLOW_STEPS_LOG"]).open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(600 if "SLOW_JOB_WAITS" in os.environ else 0.3)
        return super().training_step(batch, index)
