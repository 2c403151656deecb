"""An encoder that takes its time, and notes who encodes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from synque_select.data.views import View
from synque_select.encoders import BaseEncoder
from tests.training.tiny import LetterEncoder

__all__ = ["SlowLetters"]


class SlowLetters(BaseEncoder):
    """Counts of letters; each batch is a line of the log and takes some time."""

    id, modality, revision = "slow-letters", "text", "1"

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        log = os.environ.get("SLOW_ENCODER_LOG")
        if log is not None:
            with Path(log).open("a") as stream:
                stream.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return LetterEncoder().encode(views)
