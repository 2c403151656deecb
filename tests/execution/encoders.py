"""An encoder and a judge that take their time, and note what they do."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from synque_select.data.views import View
from synque_select.encoders import BaseEncoder
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.prompt import PromptLike, join_prompts, prompt_text
from tests.training.tiny import LetterEncoder

__all__ = ["SlowJudge", "SlowLetters"]


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
        time.sleep(600 if "SLOW_JOB_WAITS" in os.environ else self.seconds)
        return LetterEncoder().encode(views)


class SlowJudge(BaseLLM):
    """Probabilities from a hash of the prompt; each item takes some time and is a line of a log."""

    id, revision = "slow-judge", "1"

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds

    def generate(self, prompts: Sequence[PromptLike], **_: object) -> Iterator[tuple[int, str]]:
        raise NotImplementedError

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        log = os.environ.get("SLOW_JUDGE_LOG")
        for position, item in enumerate(items):
            text = prompt_text(join_prompts(shared_prefix, item, ""))
            digest = hashlib.sha256(text.encode()).hexdigest()
            if log is not None:
                with Path(log).open("a") as stream:
                    stream.write(f"{os.getpid()}:{digest}\n")
            time.sleep(self.seconds)
            self.usage.n_requests += len(suffixes)
            rows = []
            for suffix in suffixes:
                numbers = hashlib.sha256(f"{digest}{suffix}".encode()).digest()[: len(choices)]
                rows.append([number / sum(numbers) for number in numbers])
            yield position, rows
