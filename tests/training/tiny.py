"""Small real parts for tests that train: texts, an encoder that counts, a model, a DataModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import BaseEncoder
from tests.lightning_package import SynqueDataModule, pl

LETTERS = "abcdefghijklmnopqrstuvwxyz"
N_VAL = 40


class LetterEncoder(BaseEncoder):
    """Shares of letters; counts the encoded views."""

    id, modality, revision = "letters", "text", "1"

    def __init__(self) -> None:
        self.n_encoded = 0
        self.n_closed = 0

    def encode(self, views: Any) -> torch.Tensor:
        self.n_encoded += len(views)
        return torch.stack([letters(view) for view in views])

    def close(self) -> None:
        self.n_closed += 1


def letters(text: str) -> torch.Tensor:
    counts = torch.tensor([float(text.count(letter)) for letter in LETTERS])
    return counts / counts.sum().clamp(min=1)


def texts(words: str, n: int, seed: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Examples of 5 words; the label is whether the first is in the first half of `words`."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = words.split()
    records = []
    for i in range(n):
        drawn = torch.randint(len(vocabulary), (5,), generator=generator).tolist()
        label = int(drawn[0] < len(vocabulary) // 2)
        if torch.rand(1, generator=generator).item() < noise:
            label = 1 - label
        text = " ".join(vocabulary[j] for j in drawn)
        records.append({"text": f"{text} {LETTERS[i % 26]}{i}", "label": label})
    return records


REAL_WORDS = "apple banana cherry grape violet yellow xenon zebra"
OTHER_WORDS = "moon night owl pillow quiet river stone tower"
WORDS = {
    "near": REAL_WORDS,
    "mixed": "apple banana cherry owl pillow violet stone zebra",
    "half": "apple banana night owl violet yellow stone tower",
    "far": OTHER_WORDS,
    "odd": "qqq www kkk jjj fff hhh mmm nnn",
}


def candidates(n: int = 60) -> list[Candidate]:
    return [
        Candidate(name, texts(words, n, seed), view="text", label="label")
        for seed, (name, words) in enumerate(WORDS.items())
    ]


def real_sample(n: int = 30) -> RealSample:
    return RealSample("real", texts(REAL_WORDS, n, seed=99), view="text")


def collate(records: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    inputs = torch.stack([letters(record["text"]) for record in records])
    labels = torch.tensor([record["label"] for record in records])
    return inputs, labels, [record["text"] for record in records]


class TinyData(pl.LightningDataModule):
    """A user's own DataModule."""

    def train_dataloader(self) -> Any:
        return DataLoader(texts(REAL_WORDS, 32, 5), batch_size=8, collate_fn=collate)

    def val_dataloader(self) -> Any:
        return DataLoader(texts(REAL_WORDS, N_VAL, 7), batch_size=20, collate_fn=collate)


def data_module(**options: Any) -> SynqueDataModule:
    options = {"candidates": candidates(), "real": real_sample(), "wraps": TinyData()} | options
    return SynqueDataModule(**options)


class TinyModel(pl.LightningModule):
    """Logistic regression on letters; remembers the texts that it was trained on."""

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(len(LETTERS), 2)
        self.seen: list[list[str]] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        inputs, labels, names = batch
        self.seen.append(names)
        return torch.nn.functional.cross_entropy(self.layer(inputs), labels)

    def validation_step(self, batch: Any, _: int) -> None:
        inputs, labels, names = batch
        logits = self.layer(inputs)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.log_dict(
            {"val_acc": (logits.argmax(1) == labels).float().mean(), "val_loss": loss},
            batch_size=len(names),
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "max_steps": 8,
        "val_check_interval": 8,
        "check_val_every_n_epoch": None,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(callbacks=list(callbacks), **(defaults | options))


def texts_of(*names: str) -> set[str]:
    """All texts of the candidates of these names."""
    return {record["text"] for c in candidates() if c.name in names for record in c.dataset}


def seen_by(model: TinyModel) -> list[str]:
    """The texts that a model was trained on, in order."""
    return [text for batch in model.seen for text in batch]


def logged_texts(folder: str) -> dict[str, str]:
    """The texts in a folder of TensorBoard events, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(folder)
    events.Reload()
    texts_of_tags = {}
    for tag in events.Tags()["tensors"]:
        array = tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)
        texts_of_tags[tag] = array.reshape(-1)[0].decode()
    return texts_of_tags
