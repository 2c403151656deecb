"""What the encoders of this library share: a torch model, loaded when needed, in bf16 if safe."""

from __future__ import annotations

import gc
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from synque_select.data.views import View
from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.precision import (
    MIN_COSINE,
    Precision,
    least_cosine,
    lower_precision,
    resolve_precision,
)
from synque_select.utils.process_state import cuda_in_use

__all__ = ["ModelEncoder", "pick_device"]

_log = logging.getLogger(__name__)


def pick_device(device: torch.device | str | None) -> torch.device:
    """Return the device that was asked for; None is the GPU where there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


class ModelEncoder(BaseEncoder):
    """Base of encoders that are a torch model.

    The precision is settled in two steps: what the device gains from, when the encoder is made;
    and, when the model is loaded, whether fixed probe views keep a cosine of at least 0.999 to
    float32. Where they do not, the encoder goes back to float32, and its `key` with it.
    """

    def __init__(self, device: torch.device | str | None, precision: str) -> None:
        self.device = pick_device(device)
        self.precision: Precision = resolve_precision(precision, self.device)
        self._model: nn.Module | None = None

    @abstractmethod
    def _load(self) -> nn.Module:
        """Load the model onto the device, in eval mode."""

    @abstractmethod
    def _forward(self, model: nn.Module, inputs: Any) -> torch.Tensor:
        """Return the embeddings of prepared inputs, (n, d) float32."""

    @abstractmethod
    def _inputs(self, model: nn.Module, views: Sequence[View]) -> Any:
        """Prepare views for `_forward`."""

    @abstractmethod
    def _probes(self) -> Sequence[View]:
        """Return fixed views on which the precisions are compared."""

    def _heavy(self, model: nn.Module) -> nn.Module:
        """Return the part of the model that may compute in bfloat16."""
        return model

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an embedding."""
        return {"precision": self.precision}

    @property
    def model(self) -> nn.Module:
        """The model; loaded, and its precision settled, when it is asked for first."""
        if self._model is None:
            self._model = self._settle()
        return self._model

    def prepare(self) -> None:
        """Load the model, and settle the precision."""
        _ = self.model

    def _settle(self) -> nn.Module:
        model = self._load().eval().requires_grad_(False)
        if self.precision == "bfloat16":
            if self._lowered(model):
                return model
            self.precision = "float32"
            model = self._load().eval().requires_grad_(False)
        return model.float()

    def _lowered(self, model: nn.Module) -> bool:
        """Make the model compute in bfloat16; False where that changes the embeddings."""
        heavy = self._heavy(model)
        if all(part.dtype == torch.bfloat16 for part in heavy.parameters()):
            lower_precision(
                heavy
            )  # stored in bfloat16: a float32 model to compare with does not exist
            return True
        inputs = self._inputs(model.float(), self._probes())
        with torch.inference_mode():
            exact = self._forward(model, inputs)
            lower_precision(heavy)
            cosine = least_cosine(exact, self._forward(model, inputs))
        if cosine < MIN_COSINE:
            _log.info(
                "encoder %s: float32, because bfloat16 gives a cosine of %.4f", self.id, cosine
            )
        return cosine >= MIN_COSINE

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return the embeddings of one batch, (n, d) float32 on the encoder's device."""
        model = self.model
        with torch.inference_mode():
            return self._forward(model, self._inputs(model, views))

    def close(self) -> None:
        """Free the model and its device memory; the next `encode` loads it again."""
        self._model = None
        gc.collect()  # models of transformers hold cycles
        if self.device.type == "cuda" and cuda_in_use():
            torch.cuda.empty_cache()
