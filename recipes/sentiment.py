"""Which generator of financial headlines is worth training on? The released SynQuE data.

32 candidates of 999 synthetic headlines with three classes, validated on annotated real headlines
that are in no real sample. A linear head on frozen embeddings (`sentiment-small`), or a full
fine-tune of an encoder (`sentiment-paper`). To run it: `synque-select experiment --config
sentiment-small`, or `python -m synque_select.recipes.sentiment`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torchmetrics.classification import MulticlassF1Score

from synque_select.benchmark.layout import Group
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.data.views import select
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.errors import ConfigError, DataError, EncoderError
from synque_select.experiment import BaseTask
from synque_select.hub.packaged import find_packaged
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._lightning import TaskDataModule, check_sizes
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    Classes,
    RealDraws,
    Split,
    agreement_message,
    distinct,
    in_memory,
    picked,
    released_task,
    split_labeled,
)

__all__ = ["EncoderClassifier", "HeadClassifier", "SentimentDataModule", "SentimentTask", "main"]

_N_NATURAL_POOL = 500


class _Classifier(LightningModule):
    """Cross-entropy in training; macro-F1, the paper's metric, in validation and test."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.val_f1 = MulticlassF1Score(n_classes, average="macro")
        self.test_f1 = MulticlassF1Score(n_classes, average="macro")

    def setup(self, stage: str) -> None:
        """Refuse data of other classes or features than this model was made for."""
        check_sizes(self)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        loss = torch.nn.functional.cross_entropy(self(batch["input"]), batch["label"])
        self.log("train_loss", loss, batch_size=len(batch["label"]))
        return loss

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
        n_features: Dimensions of an embedding.
        n_classes: Classes.
        learning_rate: Of AdamW, constant.
        weight_decay: Of AdamW.
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
        """Turn embeddings (n, n_features) into logits (n, n_classes)."""
        logits: torch.Tensor = self.layer(embeddings)
        return logits

    def configure_optimizers(self) -> Any:
        """AdamW at a constant rate."""
        options = self.hparams
        return torch.optim.AdamW(
            self.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"]
        )


class EncoderClassifier(_Classifier):
    """A transformer encoder with a classification head, all of it trained.

    Args:
        model_id: A Hub id, a packaged model's id, or a folder.
        n_classes: Classes.
        learning_rate: Peak of AdamW's rate; linear warm-up, then linear decay to 0.
        weight_decay: Of AdamW.
        warmup: Share of the steps that warm up.
        max_tokens: Longer texts are cut.

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
        """Turn texts into logits (n, n_classes)."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.hparams["max_tokens"],
            return_tensors="pt",
        )
        logits: torch.Tensor = self.network(**tokens.to(self.device)).logits
        return logits

    def configure_optimizers(self) -> Any:
        """AdamW under a linear schedule with warm-up."""
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


def _load_encoder(model_id: str, n_classes: int) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    packaged = find_packaged(model_id)
    source = model_id if packaged is None else str(packaged.folder)
    level = logging.get_verbosity()
    # that the head is new is no news
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=n_classes)
    except (OSError, ValueError) as error:
        raise EncoderError(f"the model {model_id!r} cannot be loaded: {error}") from error
    finally:
        logging.set_verbosity(level)
    return tokenizer, network.train()


class _Data(NamedTuple):
    """Everything before it is split: candidates, draws of real samples, annotated real data."""

    candidates: list[Candidate]
    draws: RealDraws
    annotated: Examples
    released: Mapping[str, float]
    messages: tuple[str, ...]


class SentimentTask(BaseTask):
    """Candidates with labels, unannotated real headlines, a classifier; macro-F1.

    Of the released data the first real samples are the released ones, which were drawn balanced by
    class; further ones, as large, are drawn from all headlines of theirs. `draw="natural"` draws
    from 500 random annotated headlines instead, in the classes' natural shares. What any real
    sample may hold is taken out of the annotated headlines; of the rest a third is for validation
    and two thirds for test.

    Args:
        data: A clone of the released repository, or its folder `data`; None for what
            SYNQUE_BENCHMARK_DATA names. Not read where `candidates` is given.
        draw: How the released real headlines are drawn.
        candidates: Files of your own, or anything else that `load_candidates` takes.
        real: Your unannotated real examples; a replicate draws `n_real` of them.
        labeled: A file of your annotated real examples, for validation and test.
        view: The field that holds the text.
        label: The field that holds the class.
        n_real: Examples of a real sample that is drawn; None for the released size, or half of
            your own.
        n_distinct: Distinct examples that every arm trains on; None for the smallest candidate.
        max_steps: Optimiser steps of a fit.
        batch_size: Texts a step.
        fine_tune: Id of an encoder that is trained whole; None for a linear head on frozen
            embeddings.
        learning_rate: None for that of the model: 0.01 for the head, 2e-5 for an encoder.
        encoder: Of the proxies, and of the frozen embeddings; None for all-MiniLM-L6-v2.
        proxies: What scores the candidates; None for the default suite.
        precision: Of the trainer, such as "bf16-mixed"; None for full.
        seed: Of the draws of real samples.

    Raises:
        ConfigError: A number is not allowed, or no data is named.
    """

    name = "sentiment"
    metric = "f1"

    def __init__(
        self,
        data: str | None = None,
        draw: Literal["released", "natural"] = "released",
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        view: str = "headline",
        label: str = "sentiment",
        n_real: int | None = None,
        n_distinct: int | None = None,
        max_steps: int = 300,
        batch_size: int = 64,
        fine_tune: str | None = None,
        learning_rate: float | None = None,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        precision: str | None = None,
        seed: int = 0,
    ) -> None:
        if draw not in ("released", "natural"):
            raise ConfigError(f"draw={draw!r}: allowed is 'released' or 'natural'")
        for argument, value in {"max_steps": max_steps, "batch_size": batch_size}.items():
            if value < 1:
                raise ConfigError(f"{argument}={value}: allowed is 1 or more")
        self._view, self._label, self._seed = view, label, seed
        if candidates is None:
            self._data = self._released(data, draw, n_real)
        elif real is None or labeled is None:
            raise ConfigError("candidates= needs real= and labeled= beside it")
        else:
            self._data = self._own(candidates, real, labeled, n_real)
        self.classes = Classes(self.candidates)
        self.classes.check(self._data.annotated)
        self.n_distinct = n_distinct or min(map(len, self.candidates))
        self.max_steps, self.batch_size = max_steps, batch_size
        self.fine_tune, self.learning_rate, self.precision = fine_tune, learning_rate, precision
        self.encoder, self.proxies = encoder, proxies

    def _released(self, data: str | None, draw: str, n_real: int | None) -> _Data:
        (group,) = released_task("sentiment_analysis", data).groups
        annotated = self._annotated(group)
        given = list(group.reals.values())
        pool = _natural_pool(annotated) if draw == "natural" else _union(given)
        size = n_real or len(given[0])
        draws = RealDraws(pool, size, given if draw == "released" else (), self._seed)
        released = dict(zip([c.name for c in group.candidates], group.performance, strict=True))
        known = {row.tobytes() for row in annotated.digests}
        n_known = sum(row.tobytes() in known for row in pool.digests)
        said = {
            "released": f"real samples: {len(given)} as released, drawn balanced by class, then "
            f"draws from all {len(pool)} headlines of theirs; {n_known} of these are among the "
            f"{len(annotated):,} annotated ones, and are in neither validation nor test",
            "natural": f"real samples: natural draws from {len(pool)} random annotated headlines, "
            "which are in neither validation nor test",
        }
        candidates = [in_memory(candidate) for candidate in group.candidates]
        return _Data(candidates, draws, annotated, released, (said[draw],))

    def _annotated(self, group: Group) -> Examples:
        path = group.annotated
        if path is None or not path.is_file():
            raise DataError(f"{group.name}: no annotated real data; expected the file {path}")
        return Examples("annotated", load_dataset_file(path), self._view, self._label, str(path))

    def _own(
        self, candidates: str | list[str], real: str, labeled: str, n_real: int | None
    ) -> _Data:
        loaded = load_candidates(candidates, view=self._view, label=self._label)
        pool = load_real(real, view=self._view)
        annotated = Examples(
            "labeled", load_dataset_file(labeled), self._view, self._label, labeled
        )
        draws = RealDraws(pool, n_real or len(pool) // 2, seed=self._seed)
        return _Data(loaded, draws, annotated, {}, ())

    @property
    def candidates(self) -> list[Candidate]:
        """One candidate a generator."""
        return self._data.candidates

    @cached_property
    def validation(self) -> Examples:
        """A third of the annotated headlines that no real sample holds."""
        return self._part("validation", self._split.validation)

    @cached_property
    def test(self) -> Examples:
        """The other two thirds."""
        return self._part("test", self._split.test)

    def real_sample(self, replicate: int) -> RealSample:
        """Return a released sample, or draw one."""
        return self._data.draws.draw(replicate)

    def model(self, seed: int) -> LightningModule:
        """Make a fresh head, or a fresh copy of the encoder that is fine-tuned."""
        rate: dict[str, Any] = (
            {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        )
        if self.fine_tune is not None:
            return EncoderClassifier(self.fine_tune, len(self.classes), **rate)
        return HeadClassifier(**self.input_sizes, n_classes=len(self.classes), **rate)

    def fingerprint(self) -> Mapping[str, Any]:
        """Return hyper-parameters, encoder and labels."""
        return {
            "fine_tune": self.fine_tune,
            "learning_rate": self.learning_rate,
            "features": None if self.fine_tune else self._encoder.key,
            "precision": self.precision,
            "labels": self._labels_sha256,
        }

    def transform(self, record: Any) -> dict[str, Any]:
        """Turn a record into {"input": an embedding or a text, "label": class}."""
        text = str(select(record, self._view))
        shown = text if self.fine_tune is not None else self._features[text]
        return {"input": shown, "label": self.classes.of(record, self._label)}

    def trainer_options(self) -> Mapping[str, Any]:
        """A head is trained on the CPU; an encoder where there is an accelerator."""
        options: dict[str, Any] = {} if self.fine_tune else {"accelerator": "cpu"}
        return options if self.precision is None else {**options, "precision": self.precision}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """How real samples were drawn, and how our macro-F1 agrees with the released one."""
        released = self._data.released
        if not released:
            return self._split.messages
        return (*self._data.messages, agreement_message(test, released, "the released macro-F1"))

    @cached_property
    def _labels_sha256(self) -> list[str]:
        parts = (*self.candidates, self.validation, self.test)
        return [self.classes.sha256(examples) for examples in parts]

    def _part(self, name: str, positions: Sequence[int]) -> Examples:
        records = picked(self._data.annotated, positions)
        return Examples(name, records, self._view, self._label, self._data.annotated.source)

    @cached_property
    def _split(self) -> Split:
        draws = self._data.draws
        return split_labeled(self._data.annotated, draws.pool, *draws.given)

    @cached_property
    def _encoder(self) -> BaseEncoder:
        return get_encoder(self.encoder, "text")

    @cached_property
    def _features(self) -> dict[str, torch.Tensor]:
        """Text to embedding, of everything that is trained or measured on."""
        features: dict[str, torch.Tensor] = {}
        for examples in (*self.candidates, self.validation, self.test):
            rows = embed(self._encoder, examples).embeddings
            features |= {str(text): row for text, row in zip(examples.views, rows, strict=True)}
        self._encoder.close()
        return features

    @property
    def input_sizes(self) -> dict[str, int]:
        """What a head on frozen embeddings must be given; an encoder reads texts of any length."""
        if self.fine_tune is not None:
            return {}
        return {"n_features": len(next(iter(self._features.values())))}


def _union(samples: Sequence[RealSample]) -> RealSample:
    first = samples[0]
    together = Examples("pool", [r for sample in samples for r in sample], first.selector)
    return RealSample("pool", picked(together, distinct(together)), first.selector)


def _natural_pool(annotated: Examples) -> RealSample:
    kept = distinct(annotated)
    n = min(_N_NATURAL_POOL, len(kept) // 3)
    order = np.random.default_rng([SPLIT_SEED, 1]).permutation(kept)[:n]
    field = annotated.selector
    # the texts alone: a real sample has no labels
    return RealSample("pool", [{field: annotated.views[int(i)]} for i in sorted(order)], field)


class SentimentDataModule(TaskDataModule):
    """The headlines as a DataModule, for one fit of a LightningCLI config.

    Args:
        data: See `SentimentTask`, as for the other arguments.
        draw: See `SentimentTask`.
        candidates: See `SentimentTask`.
        real: See `SentimentTask`.
        labeled: See `SentimentTask`.
        view: See `SentimentTask`.
        label: See `SentimentTask`.
        batch_size: Texts a step.
        fine_tune: Whether the model takes texts instead of frozen embeddings.
        encoder: Of the frozen embeddings.
        replicate: Which real sample.
        seed: Of the draws and of the order of the examples.
    """

    def __init__(
        self,
        data: str | None = None,
        draw: Literal["released", "natural"] = "released",
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        view: str = "headline",
        label: str = "sentiment",
        batch_size: int = 64,
        fine_tune: bool = False,
        encoder: str | None = None,
        replicate: int = 0,
        seed: int = 0,
    ) -> None:
        task = SentimentTask(
            data,
            draw,
            candidates,
            real,
            labeled,
            view,
            label,
            batch_size=batch_size,
            fine_tune="given by the model" if fine_tune else None,
            encoder=encoder,
            seed=seed,
        )
        super().__init__(task, replicate, seed)
        self.model_sizes = {"n_classes": len(task.classes), **task.input_sizes}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, with the options of `synque-select experiment`."""
    return run_recipe("sentiment-small", arguments)


if __name__ == "__main__":
    sys.exit(main())
