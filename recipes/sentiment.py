"""Which generator of financial headlines is worth training on? The released SynQuE data.

32 candidates of 999 synthetic headlines with three classes, measured on labeled real headlines
that are in no real sample. A linear head on frozen embeddings (`sentiment-small`), or a full
fine-tune of an encoder (`sentiment-paper`). To run it: `synque-select experiment --config
sentiment-small`, or `python -m synque_select.recipes.sentiment`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torchmetrics.classification import MulticlassF1Score

from synque_select.data.candidate import RealSample
from synque_select.data.examples import Examples
from synque_select.data.views import select
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, EncoderError
from synque_select.hub.packaged import find_packaged
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._lightning import check_sizes
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    RealDraws,
    agreement_message,
    distinct,
    in_memory,
    labeled_file,
    released_task,
    union,
)
from synque_select.recipes._task import ClassifiedTask, RecipeData, own_data
from synque_select.recipes.options import FitOptions, OwnData
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["EncoderClassifier", "HeadClassifier", "SentimentData", "SentimentTask", "main"]

_N_NATURAL_POOL = 500
_Draw = Literal["released", "natural"]


class _Example(TypedDict):
    input: torch.Tensor | str
    label: int


class _Classifier(LightningModule):
    """Cross-entropy in training; macro-F1, the paper's metric, in validation and test."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.val_f1 = MulticlassF1Score(n_classes, average="macro")
        self.test_f1 = MulticlassF1Score(n_classes, average="macro")

    def setup(self, stage: str) -> None:
        """Refuse data with other classes or features than this module has."""
        check_sizes(self)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        loss = torch.nn.functional.cross_entropy(self(batch["input"]), batch["label"])
        self.log("train_loss", loss, batch_size=len(batch["label"]))
        return loss

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the logits of a batch."""
        logits: torch.Tensor = self(batch["input"])
        return logits

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log `val_f1`."""
        self._log_f1("val_f1", self.val_f1, batch)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log `test_f1`."""
        self._log_f1("test_f1", self.test_f1, batch)

    def _log_f1(self, name: str, metric: MulticlassF1Score, batch: Mapping[str, Any]) -> None:
        metric.update(self(batch["input"]), batch["label"])
        n = len(batch["label"])
        self.log(name, metric, on_step=False, on_epoch=True, batch_size=n, prog_bar=True)


class HeadClassifier(_Classifier):
    """A linear layer on frozen embeddings.

    Args:
        n_features: Number of dimensions of an embedding.
        n_classes: Number of classes.
        learning_rate: Learning rate of AdamW, constant.
        weight_decay: Weight decay of AdamW.
    """

    def __init__(
        self,
        n_features: int = 384,
        n_classes: int = 3,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(n_classes)
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(n_features, n_classes)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Compute logits (n, n_classes) of embeddings (n, n_features)."""
        logits: torch.Tensor = self.layer(embeddings)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW at a constant learning rate."""
        options = self.hparams
        return torch.optim.AdamW(
            self.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"]
        )


class EncoderClassifier(_Classifier):
    """A transformer encoder with a classification head, all of it trained.

    Args:
        model_id: A hub id, the id of a packaged model, or a directory.
        n_classes: Number of classes.
        learning_rate: Peak learning rate of AdamW; linear warm-up, then linear decay to 0.
        weight_decay: Weight decay of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        max_tokens: Number of tokens after which a text is cut.

    Raises:
        EncoderError: The model cannot be loaded.
    """

    def __init__(
        self,
        model_id: str = "FacebookAI/roberta-base",
        n_classes: int = 3,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        max_tokens: int = 128,
    ) -> None:
        super().__init__(n_classes)
        self.save_hyperparameters()
        self.tokenizer, self.network = _load_encoder(model_id, n_classes)

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """Compute logits (n, n_classes) of texts."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.hparams["max_tokens"],
            return_tensors="pt",
        )
        logits: torch.Tensor = self.network(**tokens.to(self.device)).logits
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW under a linear schedule with warm-up."""
        from transformers import get_linear_schedule_with_warmup

        options, n_steps = self.hparams, int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"]
        )
        n_warmup = round(options["warmup"] * n_steps)
        schedule = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
            optimizer, n_warmup, n_steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _load_encoder(model_id: str, n_classes: int) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    packaged = find_packaged(model_id)
    source = model_id if packaged is None else str(packaged.folder)
    level = logging.get_verbosity()
    # otherwise a warning says that the head is new, which is the point
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=n_classes)
    except (OSError, ValueError) as error:
        raise EncoderError(f"the model {model_id!r} cannot be loaded: {error}") from error
    finally:
        logging.set_verbosity(level)
    return tokenizer, network.train()


@dataclass(frozen=True, kw_only=True)
class SentimentData(OwnData):
    """Headlines: the released ones, or texts of your own with a class.

    Args:
        candidates: Files of synthetic texts; None for the released data.
        real: Your unlabeled real texts; every replicate draws from them.
        labeled: Your labeled real texts, for validation and test.
        n_real: Number of texts in a real sample; None for the released size, or half of your own.
        path: A clone of the released repository, or its directory `data`; None for the value of
            SYNQUE_BENCHMARK_DATA. Not read with data of your own.
        draw: How released real headlines are drawn: "released" for the released samples, which are
            balanced by class, and then draws from all their headlines; "natural" for draws from
            500 random labeled headlines, with the natural shares of the classes.
        view: The field with the text.
        label: The field with the class.

    Raises:
        ConfigError: A value is not allowed.
    """

    path: str | None = None
    draw: _Draw = "released"
    view: str = "headline"
    label: str = "sentiment"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draw not in get_args(_Draw):
            raise ConfigError(f"draw={self.draw!r}: allowed is 'released' or 'natural'")


_DATA = SentimentData()
_FIT = FitOptions(max_steps=300, batch_size=64)


class SentimentTask(ClassifiedTask):
    """Candidates with labels, unlabeled real headlines, a classifier; macro-F1.

    Everything that a real sample may hold is removed from the labeled headlines; a third of the
    others is for validation and two thirds are for test.

    Args:
        data: The headlines.
        fit: Budget of a fit; the learning rate defaults to 0.01 for the head and 2e-5 for an
            encoder.
        fine_tune: Id of an encoder that is trained as a whole; None for a linear head on frozen
            embeddings.
        encoder: Id of the encoder of the proxies and of the frozen embeddings; None for
            all-MiniLM-L6-v2.
        proxies: The proxies that score the candidates; None for the default suite.
        seed: Random seed of the draws of real samples.

    Raises:
        ConfigError: A value is not allowed, or the data is missing.
        DataError: A file cannot be used.
    """

    name = "sentiment"
    metric = "f1"

    def __init__(
        self,
        data: SentimentData = _DATA,
        fit: FitOptions = _FIT,
        fine_tune: str | None = None,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        if data.paths is None:
            loaded = _released(data, seed)
        else:
            loaded = own_data(
                data.paths, view=data.view, label=data.label, n_real=data.n_real, seed=seed
            )
        super().__init__(loaded, fit, encoder, proxies)
        self._view, self._label, self.fine_tune = data.view, data.label, fine_tune

    def model(self, seed: int) -> LightningModule:
        """Create a fresh head, or a fresh copy of the encoder that is fine-tuned."""
        if self.fine_tune is not None:
            return EncoderClassifier(self.fine_tune, len(self.classes), **self.fit.rate)
        sizes = self.model_sizes
        return HeadClassifier(sizes["n_features"], sizes["n_classes"], **self.fit.rate)

    def fingerprint(self) -> Mapping[str, object]:
        """Return hyper-parameters, encoder and labels."""
        return {
            "fine_tune": self.fine_tune,
            "learning_rate": self.fit.learning_rate,
            "features": None if self.fine_tune else self._encoder.key,
            "precision": self.fit.precision,
            "labels": self._labels_sha256,
        }

    def transform(self, record: object) -> _Example:
        """Convert a record to {"input": an embedding or a text, "label": class}."""
        text = str(select(record, self._view))
        shown = text if self.fine_tune is not None else self._features[text]
        return {"input": shown, "label": self.classes.of(record, self._label)}

    def trainer_options(self) -> Mapping[str, Any]:
        """Return the options of the Trainer: a head is trained on the CPU."""
        device = {} if self.fine_tune else {"accelerator": "cpu"}
        return {**device, **super().trainer_options()}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say how real samples were drawn, and how our macro-F1 agrees with the released one."""
        released = self._data.released
        if not released:
            return super().messages(test)
        return (*self._data.messages, agreement_message(test, released, "the released macro-F1"))

    @cached_property
    def _encoder(self) -> BaseEncoder:
        return get_encoder(self.encoder, "text")

    @cached_property
    def _features(self) -> dict[str, torch.Tensor]:
        """Text to embedding, of all data; policies look at the outputs on the real sample."""
        features: dict[str, torch.Tensor] = {}
        draws = self._data.draws
        real: tuple[Examples, ...] = (draws.pool, *draws.given)
        for examples in (*self.candidates, self.validation, self.test, *real):
            rows = embed(self._encoder, examples).embeddings
            features |= {str(text): row for text, row in zip(examples.views, rows, strict=True)}
        self._encoder.close()
        return features

    @property
    def model_sizes(self) -> dict[str, int]:
        """The hyper-parameters of a module that the data determines."""
        if self.fine_tune is not None:
            return super().model_sizes
        return {**super().model_sizes, "n_features": len(next(iter(self._features.values())))}


def _released(data: SentimentData, seed: int) -> RecipeData:
    (group,) = released_task("sentiment_analysis", data.path).groups
    labeled = labeled_file(group, data.view, data.label)
    released = list(group.reals.values())
    size = data.n_real or len(released[0])
    if data.draw == "natural":
        draws = RealDraws(_natural_pool(labeled), size, seed=seed)
        message = (
            "real samples: natural draws from "
            f"{counted(len(draws.pool), 'random labeled headline')}, which "
            "are in neither validation nor test"
        )
    else:
        draws = RealDraws(union(released), size, released, seed)
        known = {row.tobytes() for row in labeled.digests}
        n_known = sum(row.tobytes() in known for row in draws.pool.digests)
        message = (
            f"real samples: {len(released)} as released, drawn balanced by class, then draws from "
            f"all their {counted(len(draws.pool), 'headline')}; {n_known} of these are among the "
            f"{len(labeled):,} labeled ones, and are in neither validation nor test"
        )
    return RecipeData(
        [in_memory(candidate) for candidate in group.candidates],
        draws,
        labeled,
        released=dict(zip([c.name for c in group.candidates], group.performance, strict=True)),
        messages=(message,),
    )


def _natural_pool(labeled: Examples) -> RealSample:
    kept = distinct(labeled)
    n = min(_N_NATURAL_POOL, len(kept) // 3)
    order = np.random.default_rng([SPLIT_SEED, 1]).permutation(kept)[:n]
    field = labeled.selector
    # the texts alone: a real sample has no labels
    return RealSample("pool", [{field: labeled.views[int(i)]} for i in sorted(order)], field)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, with the options of `synque-select experiment`."""
    return run_recipe("sentiment-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
