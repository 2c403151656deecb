"""Base class of the encoders that run a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from synque_select.data.views import View
from synque_select.encoders.model import ModelEncoder
from synque_select.errors import EncoderError
from synque_select.hub.resolve import resolve_model, split_revision
from synque_select.utils.device import to_device

__all__ = ["SentenceEncoder"]


class SentenceEncoder(ModelEncoder[dict[str, object]]):
    """Base class of encoders that run a sentence-transformers model.

    The model runs as its authors configured it, with prompt, pooling, dense layers and
    normalization. Code from the hub is never run.
    """

    def __init__(
        self,
        model_id: str,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__(device, precision)
        name, in_name = (model_id, None) if revision else split_revision(model_id)
        self._files = resolve_model(name, revision or in_name)
        self.id = name
        self.revision = self._files.revision

    def _load(self) -> nn.Module:
        if self._files.packaged is not None:
            self._files.packaged.check()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderError(
                f"sentence-transformers cannot be imported ({error}): a common cause is that torch "
                "and torchvision are from different sources; run `synque-select doctor` to check"
            ) from error
        try:
            with _no_bars():
                model: nn.Module = SentenceTransformer(
                    self._files.location,
                    revision=self._files.commit,
                    device=str(self.device),
                    trust_remote_code=False,
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise EncoderError(
                f"the encoder {self.id} cannot be loaded from {self._files.location}: {error}"
            ) from error
        if not any(kind == self.modality for kind in _modalities(model)):
            raise EncoderError(
                f"the encoder {self.id} does not encode {self.modality}s; it encodes: "
                f"{', '.join(_modalities(model))}"
            )
        return model

    def _heavy(self, model: nn.Module) -> nn.Module:
        first: nn.Module = model[0]  # type: ignore[index]  # a sentence-transformers model is a sequence
        return first

    def _inputs(self, model: nn.Module, views: Sequence[View]) -> dict[str, object]:
        any_model: Any = model
        prompt = any_model.prompts.get(any_model.default_prompt_name)
        inputs: dict[str, object] = any_model.preprocess(list(views), prompt=prompt or None)
        return inputs

    def _forward(self, model: nn.Module, inputs: dict[str, object]) -> torch.Tensor:
        there = torch.empty(0, device=self.device)
        features = {
            key: to_device(value, there) if isinstance(value, torch.Tensor) else value
            for key, value in inputs.items()
        }
        output = model(features)
        if "sentence_embedding" not in output:
            raise EncoderError(
                f"the encoder {self.id} does not return one vector per {self.modality}: it has no "
                "pooling layer (no output sentence_embedding)"
            )
        embedding: torch.Tensor = output["sentence_embedding"]
        return embedding.float()


def _modalities(model: Any) -> list[str]:
    return [str(kind) for kind in model.modalities]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the progress bars of transformers while weights are loaded."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
