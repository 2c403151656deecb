"""What two training runs must share before their validation figures may be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import CombinedLoader
from torch.nn.parameter import is_lazy

from synque_select.data.iterables import is_map_style
from synque_select.training.datamodule import attached_datamodule
from synque_select.types import Ranking
from synque_select.utils.process_state import seeded

__all__ = [
    "comparability_key",
    "content_sha256",
    "hyper_parameters",
    "validation_sha256",
    "weights_sha256",
]

_MAX_HASHED = 1000


def comparability_key(
    *,
    task: str,
    validation: str,
    monitor: str,
    mode: str,
    model: type,
    weights: str,
    examples_drawn: int,
    optimizer_steps: int,
    hyper_parameters: Mapping[str, Any],
    ranking: Ranking,
) -> dict[str, Any]:
    """Return the key of a run record: what STATISTICS calls comparable, as plain values."""
    encoder = ranking.encoder
    return {
        "task": task,
        "validation_sha256": validation,
        "metric": monitor,
        "mode": mode,
        # a script that a launched process imports has another name there
        "model": f"{model.__module__.replace('__mp_main__', '__main__')}.{model.__qualname__}",
        "initial_weights_sha256": weights,
        "examples_drawn": examples_drawn,
        "optimizer_steps": optimizer_steps,
        "hyper_parameters": dict(hyper_parameters),
        "real_sha256": ranking.real_sha256,
        "proxies": {key: plain_parameter(info.options) for key, info in ranking.proxies.items()},
        "encoder": None if encoder is None else f"{encoder.id} ({encoder.revision})",
    }


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash the parameters and buffers that exist by now, names included; rank-local under FSDP."""
    hashed = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        hashed.update(name.encode())
        if not is_lazy(tensor):
            _update(hashed, tensor)
    return hashed.hexdigest()


def validation_sha256(dataloaders: Any) -> str:
    """Hash what validation is measured on.

    Of each map-style dataset the length and up to 1,000 evenly spaced examples are hashed, as the
    loader's dataset gives them, with random transforms seeded; so a change of one example beyond
    that goes unnoticed. Of an iterable dataset only the class is known.
    """
    hashed = hashlib.sha256()
    for loader in CombinedLoader([] if dataloaders is None else dataloaders).flattened:
        dataset = getattr(loader, "dataset", loader)
        if not is_map_style(dataset):
            hashed.update(f"iterable {type(dataset).__qualname__}".encode())
            continue
        n = len(dataset)
        hashed.update(f"length {n}".encode())
        positions = np.linspace(0, n - 1, min(n, _MAX_HASHED)).astype(int)
        _update_seeded(hashed, (dataset[int(i)] for i in positions))
    return hashed.hexdigest()


def content_sha256(values: Iterable[Any]) -> str:
    """Hash values by what they contain; of unknown objects only the class."""
    hashed = hashlib.sha256()
    _update_seeded(hashed, values)
    return hashed.hexdigest()


def _update_seeded(hashed: Any, values: Iterable[Any]) -> None:
    with seeded(0):
        for value in values:
            _update(hashed, value)


def _update(hashed: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        hashed.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif value is None or isinstance(value, (str, bytes, bool, int, float, np.generic)):
        hashed.update(repr(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, Mapping):
        hashed.update(b"{")
        for key in value:
            _update(hashed, key)
            _update(hashed, value[key])
    elif isinstance(value, (Sequence, set, frozenset, np.ndarray)):
        hashed.update(b"[")
        for part in value:
            _update(hashed, part)
    elif hasattr(value, "getpixel"):
        hashed.update(f"{value.mode}{value.size}".encode() + value.tobytes())
    else:
        hashed.update(type(value).__qualname__.encode())


def hyper_parameters(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return what the module saved as hparams, its optimisers, how the trainer steps.

    And labeled real data that is a fixed part of training, where there is some.
    """
    return {
        "module": plain_parameter(dict(module.hparams)),
        "optimizers": [
            {"class": type(optimizer).__qualname__, **plain_parameter(optimizer.defaults)}
            for optimizer in trainer.optimizers
        ],
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": plain_parameter(trainer.gradient_clip_val),
        "precision": str(trainer.precision),
        **_labeled_real(trainer),
    }


def _labeled_real(trainer: Trainer) -> dict[str, Any]:
    datamodule = attached_datamodule(trainer)
    fixed = None if datamodule is None else datamodule.fixed_part
    if fixed is None:
        return {}
    return {"labeled_real": {"share": fixed.share, "sha256": fixed.data.sha256}}


def plain_parameter(value: Any) -> Any:
    """Return a value as JSON has it; of an object only its class, as its repr may hold an address.

    Example:
        >>> plain_parameter({"lr": 0.1, "betas": (0.9, 0.99), "act": len})
        {'lr': 0.1, 'betas': [0.9, 0.99], 'act': 'len'}
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_parameter(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_parameter(part) for part in value]
    if hasattr(value, "tolist"):
        return plain_parameter(value.tolist())
    return getattr(value, "__qualname__", type(value).__qualname__)
