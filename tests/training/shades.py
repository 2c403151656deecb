"""A small real task for tests of experiments: grey squares, a linear model, an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.encoders import BaseEncoder
from synque_select.experiment import BaseTask, unseen
from tests.lightning_package import pl

SIDE = 4
N_DISTINCT = 24


class Squares(BaseEncoder):
    """The pixels themselves."""

    id, modality = "squares", "image"

    def encode(self, views: Any) -> torch.Tensor:
        rows = [torch.tensor(list(view.tobytes()), dtype=torch.float32) for view in views]
        return torch.stack(rows) / 255


def squares(n: int, seed: int, *, shift: int = 0, flipped: bool = False) -> list[dict[str, Any]]:
    """Noise that is brighter on the left (0) or on the right (1); `shift` darkens all of it."""
    generator = torch.Generator().manual_seed(seed)
    records = []
    for i in range(n):
        label = i % 2
        image = torch.randint(0, 60, (SIDE, SIDE), generator=generator)
        image[:, label * 2 : label * 2 + 2] += 120 - shift
        shown = 1 - label if flipped else label
        records.append({"image": image.to(torch.uint8), "label": shown, "id": f"{seed}-{i}"})
    return records


class Unlabeled(list[Any]):
    """Examples without labels: reading one raises."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        super().__init__({"image": record["image"]} for record in records)


class Linear(pl.LightningModule):
    """Logistic regression that keeps what it was trained on."""

    def __init__(self, log: list[dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(SIDE * SIDE, 2)
        self.history = {"start": self.layer.weight.detach().clone(), "ids": [], "steps": 0}
        if log is not None:
            log.append(self.history)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1).float() / 255)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.history["ids"] += batch["id"]
        self.history["steps"] += 1
        return torch.nn.functional.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._log("val_acc", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._log("test_acc", batch)

    def _log(self, name: str, batch: Any) -> None:
        right = (self(batch["image"]).argmax(1) == batch["label"]).float().mean()
        self.log(name, right, batch_size=len(batch["label"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Shades(BaseTask):
    """Six candidates of squares; "false" is "true" with swapped labels."""

    name = "shades"
    metric = "acc"
    n_distinct = N_DISTINCT
    max_steps = 6
    batch_size = 8
    proxies = ("mmd", "coverage")
    false_labels = {"false": "true"}  # noqa: RUF012

    def __init__(self) -> None:
        self.encoder = Squares()
        self.fits: list[dict[str, Any]] = []

    @cached_property
    def candidates(self) -> list[Candidate]:
        sizes = {"a": 24, "b": 30, "c": 40, "d": 24}
        made = {
            name: squares(n, seed, shift=20 * seed)
            for seed, (name, n) in enumerate(sizes.items(), start=1)
        }
        made |= {"true": squares(24, 8), "false": squares(24, 9, flipped=True)}
        return [Candidate(name, rows, view="image", label="label") for name, rows in made.items()]

    @cached_property
    def labeled(self) -> list[dict[str, Any]]:
        return squares(200, 100)

    @cached_property
    def validation(self) -> Examples:
        return self._without_pool("validation", self.labeled[100:140])

    @cached_property
    def test(self) -> Examples:
        return self._without_pool("test", self.labeled[140:])

    def _without_pool(self, name: str, records: list[dict[str, Any]]) -> Examples:
        pool = Examples("pool", Unlabeled(self.labeled[:100]), view="image")
        kept = unseen(Examples(name, records, view="image"), pool)
        return Examples(name, [records[i] for i in kept], view="image", label="label")

    def real_sample(self, replicate: int) -> RealSample:
        records = self.labeled[replicate * 20 : replicate * 20 + 20]
        return RealSample("squares", Unlabeled(records), view="image")

    def model(self, seed: int) -> pl.LightningModule:
        return Linear(self.fits)

    def fingerprint(self) -> Mapping[str, Any]:
        return {"lr": 1.0, "labels": [c.name for c in self.candidates]}
