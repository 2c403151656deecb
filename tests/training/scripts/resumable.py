"""A run that can be killed and started again: `resumable.py FOLDER [PHASE NTH DELAY_S SIGNAL]`.

Every event goes into FOLDER/events.jsonl at once. With a phase, the process kills itself DELAY_S
after the NTH event of that phase; started by test_killed_runs.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from synque_select.lens.config import LensConfig
from synque_select.lens.rubric import Rubric
from synque_select.llm.scripted import ScriptedLLM
from synque_select.probing.probes import ProbeSweep
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.kernel import MMD
from tests.lightning_package import ROOT, ProxyCorrelationCallback, SelectionCallback, pl
from tests.training.tiny import WORDS, LetterEncoder, TinyModel, data_module, trainer

ModelCheckpoint = pl.callbacks.ModelCheckpoint

MAX_STEPS, PROBE_STEPS, SAVED_EVERY = 24, 4, 3


class Events:
    """Writes events, and kills the process after the chosen one."""

    file: ClassVar[Any] = None
    moment: ClassVar[tuple[str, int, float, int] | None] = None
    seen: ClassVar[int] = 0

    @classmethod
    def log(cls, kind: str, **what: Any) -> None:
        cls.file.write(json.dumps({"pid": os.getpid(), "kind": kind, **what}) + "\n")
        cls.file.flush()
        if cls.moment is not None and cls.moment[0] == kind:
            cls.seen += 1
            if cls.seen == cls.moment[1]:
                threading.Timer(cls.moment[2], os.kill, (os.getpid(), cls.moment[3])).start()
        time.sleep(0.01)


class Said(logging.Handler):
    """Writes the run's log messages as events."""

    def emit(self, record: logging.LogRecord) -> None:
        Events.log("said", text=record.getMessage())


class LoggedEncoder(LetterEncoder):
    def encode(self, views: Any) -> torch.Tensor:
        Events.log("encode", views=list(views))
        return super().encode(views)


class LoggedMMD(MMD):
    def score(self, real: ProxyInput, candidates: Sequence[ProxyInput], **kwargs: Any) -> Any:
        if len(candidates) == 1:  # one half of the real sample against the other
            return super().score(real, candidates, **kwargs)
        Events.log("score")
        scores = super().score(real, candidates, **kwargs)
        Events.log("score")
        return scores


class LoggedJudge(ScriptedLLM):
    def choice_probabilities(self, prefix: Any, items: Any, *rest: Any) -> Any:
        for position, answer in super().choice_probabilities(prefix, items, *rest):
            question = f"{prefix}{items[position]}"
            Events.log("judge", question=hashlib.sha256(question.encode()).hexdigest())
            yield position, answer


def weigh(prompt: Any, choices: Any) -> list[float]:
    return [1.0 + (len(str(prompt)) + i) % 7 for i in range(len(choices))]


class LoggedModel(TinyModel):
    def on_fit_start(self) -> None:
        if self.trainer.max_steps == PROBE_STEPS:
            Events.log("probe", name=self.trainer.datamodule.mixture.names[0])  # type: ignore[attr-defined]

    def training_step(self, batch: Any, i: int) -> torch.Tensor:
        main = self.trainer.max_steps == MAX_STEPS
        Events.log("fit" if main else "probe step", step=self.trainer.global_step, texts=batch[2])
        return super().training_step(batch, i)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    logging.getLogger(f"{ROOT}.utilities.rank_zero").addHandler(Said())
    lens = LensConfig(
        scorer=LoggedJudge(None, weigh),
        rubrics=dict.fromkeys(WORDS, Rubric(("words",), ("fruits",), ("birds",))),
        max_samples=8,
        answers=str(folder / "answers.sqlite"),
        progress=False,
    )
    selection = SelectionCallback(
        ["pad", "coverage", "ngram", LoggedMMD(), "lens"],
        top_k=2,
        lens=lens,
        encoder=LoggedEncoder(),
        cache_dir=folder / "cache",
    )
    correlation = ProxyCorrelationCallback(
        store=folder / "records.sqlite", probes=ProbeSweep(PROBE_STEPS, progress=False)
    )
    saver = ModelCheckpoint(
        folder / "checkpoints", every_n_train_steps=SAVED_EVERY, save_last=True, monitor=None
    )
    run = trainer(
        folder,
        selection,
        correlation,
        saver,
        enable_checkpointing=True,
        max_epochs=-1,
        max_steps=MAX_STEPS,
    )
    model = LoggedModel()
    run.fit(model, datamodule=data_module(), ckpt_path="last")
    Events.log(
        "done",
        weights=model.layer.weight.tolist(),
        run_id=selection.run_id,
        run_dir=str(selection.run_dir),
    )


if __name__ == "__main__":
    Events.file = (Path(sys.argv[1]) / "events.jsonl").open("a")
    if len(sys.argv) > 2:
        phase, nth, delay, number = sys.argv[2:]
        Events.moment = (phase, int(nth), float(delay), signal.Signals[number])
    main(Path(sys.argv[1]))
