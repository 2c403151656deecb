"""Base class of the encoders of this library: a torch model, loaded on demand, in bf16 if safe."""

from __future__ import annotations

import gc
import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from synque_select.data.views import View
from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.precision import (
    Precision,
    change_of,
    lower_precision,
    resolve_precision,
)
from synque_select.errors import EncoderError
from synque_select.utils.json_types import JsonObject
from synque_select.utils.memory import is_out_of_memory
from synque_select.utils.onednn import use_onednn
from synque_select.utils.process_state import cuda_in_use, free_device_memory

__all__ = ["ModelEncoder", "pick_device"]

_log = logging.getLogger(__name__)
_Inputs = TypeVar("_Inputs")


def pick_device(device: torch.device | str | None) -> torch.device:
    """Return the requested device; None is a GPU if there is one, else the CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


class ModelEncoder(BaseEncoder, Generic[_Inputs]):
    """Base class of encoders that run a torch model on inputs of one type.

    The precision is chosen in two steps. When the encoder is created, it depends on the device.
    When the model is loaded, a lower precision is kept only if the embeddings of fixed probe views
    have a cosine similarity of at least 0.999 to those in float32, and if the similarities of all
    pairs of them correlate at 0.99 or more; otherwise the precision, and with it the `key`, changes
    to float32.
    """

    def __init__(self, device: torch.device | str | None, precision: str) -> None:
        self.device = pick_device(device)
        self.precision: Precision = resolve_precision(precision, self.device)
        self._model: nn.Module | None = None

    @abstractmethod
    def _load(self) -> nn.Module:
        """Load the model onto the device, in eval mode."""

    @abstractmethod
    def _forward(self, model: nn.Module, inputs: _Inputs) -> torch.Tensor:
        """Return the embeddings of prepared inputs, (n, d) float32."""

    @abstractmethod
    def _inputs(self, model: nn.Module, views: Sequence[View]) -> _Inputs:
        """Prepare views for `_forward`."""

    @abstractmethod
    def _probes(self) -> Sequence[View]:
        """Return fixed views on which bfloat16 is compared with float32."""

    def _heavy(self, model: nn.Module) -> nn.Module:
        """Return the part of the model that may run in bfloat16."""
        return model

    def options(self) -> JsonObject:
        """Return the settings that change an embedding."""
        return {"precision": self.precision}

    @property
    def model(self) -> nn.Module:
        """The model, loaded on first access, when its precision is also decided."""
        if self._model is None:
            try:
                self._model = self._load_checked()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise EncoderError(
                    f"{self.id}: out of memory while loading the model on {self.device}: use a "
                    "smaller model, end what else uses the memory, or use another device"
                ) from error
        return self._model

    def prepare(self) -> None:
        """Load the model and decide its precision."""
        _ = self.model

    def _load_checked(self) -> nn.Module:
        model = self._load().eval().requires_grad_(False)
        if self.precision == "bfloat16":
            if self._lowered(model):
                return model
            self.precision = "float32"
            model = self._load().eval().requires_grad_(False)
        model = model.float()
        use_onednn(model)
        return model

    def _lowered(self, model: nn.Module) -> bool:
        """Convert the model to bfloat16; return False if that changes the embeddings."""
        heavy = self._heavy(model)
        if all(part.dtype == torch.bfloat16 for part in heavy.parameters()):
            # the weights were published in bfloat16: a comparison with float32 is not possible
            lower_precision(heavy)
            return True
        exact = self._probed(model.float())
        lower_precision(heavy)
        change = change_of(exact, self._probed(model))
        if change is not None:
            _log.info("encoder %s: using float32, because bfloat16 embeddings %s", self.id, change)
        return change is None

    def _probed(self, model: nn.Module, probes: Sequence[View] | None = None) -> torch.Tensor:
        """Return the embeddings of the probes, with fewer at once if memory runs out."""
        probes = self._probes() if probes is None else probes
        size = len(probes)
        while True:
            try:
                with torch.inference_mode():
                    return torch.cat(
                        [
                            self._forward(model, self._inputs(model, probes[i : i + size]))
                            for i in range(0, len(probes), size)
                        ]
                    )
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # after the error is dropped, whose traceback holds the tensors
            size //= 2
            free_device_memory()

    def encode(self, views: Sequence[View]) -> torch.Tensor:
        """Return the embeddings of one batch, (n, d) float32 on the encoder's device."""
        model = self.model
        with torch.inference_mode():
            return self._forward(model, self._inputs(model, views))

    def close(self) -> None:
        """Release the model and its device memory; the next `encode` loads it again."""
        if self._model is None:
            return
        self._model = None
        gc.collect()  # transformers models contain reference cycles
        if self.device.type == "cuda" and cuda_in_use():
            torch.cuda.empty_cache()
