"""What the callbacks add to a fit when everything is cached: in all, before it, to each step."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from synque_select import ProxyCorrelationCallback, SelectionCallback, SynqueDataModule
from synque_select.encoders import BaseEncoder
from tests.benchmarks.base import Result

N_TEXTS, N_REAL = 1000, 100
N_STEPS = 1000
# candidates, pairs of fits, and the CPU seconds that the callbacks may add
SIZES = ((10, 3, 1.0), (100, 2, 5.0), (1000, 1, 20.0))
# 1 % of a step of ten milliseconds, which is a short one
STEP_S, BUDGET_SHARE = 0.01, 0.01
BATCH_SIZE = 8
DIM = 384
# enough words that no text is a near copy of a real one
WORDS = [f"word{i}" for i in range(500)]


class _Model(pl.LightningModule):
    """A step of next to nothing, in which microseconds can be seen; notes when each one begins."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 2)
        self.started: list[float] = []
        self.train_start = 0.0

    def on_train_start(self) -> None:
        self.train_start = time.process_time()

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.started.append(time.perf_counter())
        return torch.nn.functional.cross_entropy(self.net(batch["x"]), batch["label"])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_acc", (self.net(batch["x"]).argmax(1) == batch["label"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class _WordEncoder(BaseEncoder):
    """Means of random vectors of the words: a million texts are encoded in a minute."""

    id, modality, revision, batch_size = "random words", "text", "1", 4096

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(len(WORDS), DIM, generator=generator)

    def encode(self, views: Sequence[Any]) -> torch.Tensor:
        """Return one row per text, without its name and number."""
        words = torch.tensor([[int(word[4:]) for word in text.split()[2:]] for text in views])
        return self.vectors[words].mean(dim=1)


def _features(record: Any) -> dict[str, Any]:
    n = len(record["text"])
    return {"x": torch.tensor([n / 100]), "label": n % 2}


def _write(folder: Path, n_candidates: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {f"c{i}": N_TEXTS for i in range(n_candidates)} | {"real": N_REAL}
    for name, n in sizes.items():
        drawn = torch.randint(len(WORDS), (n, 8), generator=generator).tolist()
        rows = [
            {
                "text": f"{name} {i} " + " ".join(WORDS[j] for j in d),
                "label": "low" if d[0] < len(WORDS) // 2 else "high",
            }
            for i, d in enumerate(drawn)
        ]
        file = folder / ("real.json" if name == "real" else f"candidates/{name}.json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(rows))


def fit(folder: Path, *, with_callbacks: bool) -> dict[str, Any]:
    """Train and return the seconds of the fit, of its beginning, and of each step."""
    is_small = not (folder / "candidates" / "c10.json").exists()
    mixture = None if with_callbacks else {f"c{i}": 0.2 for i in range(5)}
    data = SynqueDataModule(
        str(folder / "candidates" / "*.json"),
        str(folder / "real.json"),
        mixture=mixture,
        label="label",
        train_transform=_features,
        batch_size=BATCH_SIZE,
    )
    callbacks: list[pl.Callback] = []
    if with_callbacks:
        selection = SelectionCallback(
            top_k=5,
            # the default one is among what the smallest fit loads
            encoder=None if is_small else _WordEncoder(),
            cache_dir=folder / "cache",
            device="cpu",
        )
        callbacks = [selection, ProxyCorrelationCallback(store=folder / "records.sqlite")]
    trainer = pl.Trainer(
        max_steps=N_STEPS,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    model = _Model()
    begun = time.process_time()
    trainer.fit(model, datamodule=data)
    used = time.process_time() - begun  # the report page included
    steps = [b - a for a, b in zip(model.started, model.started[1:], strict=False)]
    return {"before_s": model.train_start - begun, "all_s": used, "steps_s": steps}


def _in_new_process(folder: Path, with_callbacks: bool) -> dict[str, Any]:
    """As a script that is started again: nothing is cached but what is on the disk."""
    command = [sys.executable, "-m", __name__, str(folder), str(int(with_callbacks))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def run() -> Iterator[Result]:
    """Fit with and without the callbacks in turn, each in a process of its own."""
    for n_candidates, repeats, budget_s in SIZES:
        runs = _runs(n_candidates, repeats)
        what = f"all cached: {n_candidates:,} candidates x {N_TEXTS:,} labeled texts"
        yield _added(f"before fit, {what}", runs, "before_s", "CPU seconds", budget_s)
        yield _added(f"whole fit with the page, {what}", runs, "all_s", "CPU seconds", budget_s)
        if n_candidates == SIZES[0][0]:
            yield _steps(runs)


def _runs(n_candidates: int, repeats: int) -> dict[bool, list[dict[str, Any]]]:
    runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, n_candidates)
        _in_new_process(folder, True)  # encodes, scores, fills the cache
        for _ in range(repeats):
            for which, kept in runs.items():
                kept.append(_in_new_process(folder, which))
    return runs


def _added(
    name: str, runs: dict[bool, list[dict[str, Any]]], what: str, unit: str, budget_s: float
) -> Result:
    added = [a[what] - b[what] for a, b in zip(runs[True], runs[False], strict=True)]
    added_s = statistics.median(added)
    return Result(
        name=name,
        ratio=budget_s / max(added_s, 1e-6),
        target=1.0,
        rival=f"budget of {budget_s:g} s",
        seconds=added_s,
        rival_seconds=budget_s,
        note=f"{unit} added to the same fit without callbacks, {len(added)} pairs: "
        f"{min(added):.2f} to {max(added):.2f} s",
    )


def _steps(runs: dict[bool, list[dict[str, Any]]]) -> Result:
    medians = {
        which: [statistics.median(fit["steps_s"]) for fit in fits] for which, fits in runs.items()
    }
    added = [a - b for a, b in zip(medians[True], medians[False], strict=True)]
    added_s, budget_s = statistics.median(added), STEP_S * BUDGET_SHARE
    return Result(
        name="a training step, with the callbacks",
        # what is lost in the noise counts as a microsecond
        ratio=budget_s / max(added_s, 1e-6),
        target=1.0,
        rival=f"budget of {BUDGET_SHARE:.0%} of a step of {1000 * STEP_S:g} ms",
        seconds=added_s,
        rival_seconds=budget_s,
        note=f"{1e6 * added_s:+.1f} µs a step of {N_STEPS}, against the same fit without them, "
        f"{len(added)} pairs: {1e6 * min(added):+.1f} to {1e6 * max(added):+.1f} µs",
    )


if __name__ == "__main__":
    print(json.dumps(fit(Path(sys.argv[1]), with_callbacks=sys.argv[2] == "1")))
