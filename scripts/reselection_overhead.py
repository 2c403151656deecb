"""Measures what asking a policy costs: `python scripts/reselection_overhead.py`.

A perceptron of 1.1 million parameters is trained for 200 steps of 64 examples, and the policy is
asked every 50 steps. Prints, per policy and budget, the time of asking as a share of all else.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from typing import Any

import pytorch_lightning as pl
import torch

from synque_select import ReselectionCallback, SynqueDataModule

WIDTH, STEPS, EVERY, SEEDS = 1024, 200, 50, range(3)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def examples(seed: int, n: int = 2000) -> list[dict[str, Any]]:
    """Return random texts with a label."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(26, (n, 20), generator=generator).tolist()
    return [{"text": "".join(LETTERS[i] for i in row), "label": row[0] % 2} for row in drawn]


def features(record: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Return the counts of the letters, and the label."""
    counts = [float(record["text"].count(letter)) for letter in LETTERS]
    return torch.tensor(counts), record["label"]


class Perceptron(pl.LightningModule):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(len(LETTERS), WIDTH),
            torch.nn.ReLU(),
            torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.ReLU(),
            torch.nn.Linear(WIDTH, 2),
        )

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Return the loss."""
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def overhead(policy: str, budget: float, seed: int) -> float:
    """Train once and return the measured share."""
    pl.seed_everything(seed, verbose=False)
    data = SynqueDataModule(
        {name: examples(i) for i, name in enumerate("abcde")},
        view="text",
        train_transform=features,
        batch_size=64,
        seed=seed,
    )
    callback = ReselectionCallback(EVERY, policy, budget=budget)
    trainer = pl.Trainer(
        max_steps=STEPS,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.mkdtemp(),
    )
    trainer.fit(Perceptron(), datamodule=data)
    return callback.trajectory.overhead if callback.trajectory is not None else 0.0


def main() -> None:
    """Print the shares."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for policy, budget in (("static", 0.02), ("odm", 0.02), ("odm", 0.1)):
        shares = [100 * overhead(policy, budget, seed) for seed in SEEDS]
        each = ", ".join(f"{share:.2f}" for share in shares)
        print(f"{policy} budget={budget}: {statistics.mean(shares):.2f} % ({each})", flush=True)


if __name__ == "__main__":
    main()
