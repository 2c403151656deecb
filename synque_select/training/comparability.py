"""What two training runs must share for their validation metrics to be comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from synque_select.data.iterables import is_map_style
from synque_select.proxies.kernel import comparable_options
from synque_select.training.datamodule import attached_datamodule
from synque_select.training.lightning_compat import flattened_loaders
from synque_select.training.module_identity import module_identity
from synque_select.types import ProxyInfo, Ranking
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.process_state import seeded

if TYPE_CHECKING:
    from hashlib import _Hash

    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = [
    "comparability_key",
    "content_digest",
    "content_sha256",
    "hyper_parameters",
    "module_sha256",
    "validation_of",
    "validation_sha256",
    "weights_sha256",
]

_MAX_HASHED = 1000


@runtime_checkable
class _Image(Protocol):
    """What an image of PIL has, which need not be installed."""

    mode: str
    size: tuple[int, int]

    def getpixel(self, xy: tuple[int, int]) -> object: ...

    def tobytes(self) -> bytes: ...


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
    hyper_parameters: JsonObject,
    ranking: Ranking,
    sampling: JsonObject | None = None,
) -> dict[str, Json]:
    """Return the key of a run record, as plain values: runs with equal keys are comparable.

    Args:
        task: Name of the task.
        validation: Hash of the validation data.
        monitor: The validation metric.
        mode: "max" if a larger value of the metric is better, else "min".
        model: Class of the module.
        weights: Hash of the initial weights.
        examples_drawn: Number of examples that training has drawn.
        optimizer_steps: Number of optimizer steps.
        hyper_parameters: Hyper-parameters of module, optimizers and trainer.
        ranking: The ranking of the candidates: its real sample, proxies and encoder.
        sampling: How examples were drawn, where this is not the default; see
            `SynqueDataModule.sampling`.
    """
    encoder = ranking.encoder
    return {
        **({"sampling": dict(sampling)} if sampling else {}),
        "task": task,
        "validation_sha256": validation,
        "metric": monitor,
        "mode": mode,
        # in a launched process the user's script has another module name
        "model": f"{model.__module__.replace('__mp_main__', '__main__')}.{model.__qualname__}",
        "initial_weights_sha256": weights,
        "examples_drawn": examples_drawn,
        "optimizer_steps": optimizer_steps,
        "hyper_parameters": dict(hyper_parameters),
        "real_sha256": ranking.real_sha256,
        "proxies": {
            key: _proxy(info, max(row.n for row in ranking.candidates))
            for key, info in ranking.proxies.items()
            if info.family != "answers"  # more answers do not change what a fit was measured on
        },
        "encoder": None if encoder is None else f"{encoder.id} ({encoder.revision})",
    }


def _proxy(info: ProxyInfo, largest: int) -> Json:
    options = info.options if info.version == 1 else {**info.options, "version": info.version}
    return plain_parameter(comparable_options(info.key, options, largest))


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash the names and values of all materialized parameters and buffers; local under FSDP."""
    hashed = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        hashed.update(name.encode())
        if not is_lazy(tensor):
            _update(hashed, tensor)
    return hashed.hexdigest()


def module_sha256(module: AnyModule) -> str:
    """Hash what a fit of an untrained module depends on; see `module_identity`."""
    return content_sha256([*module_identity(module), weights_sha256(module)])


def validation_sha256(dataloaders: object) -> str:
    """Hash the validation data.

    For a map-style dataset, this hashes its length and up to 1,000 evenly spaced examples, with
    random transforms seeded; a change of an example in between goes unnoticed. For an iterable
    dataset it hashes only the class.
    """
    hashed = hashlib.sha256()
    for loader in flattened_loaders(dataloaders):
        dataset = getattr(loader, "dataset", loader)
        if not is_map_style(dataset):
            hashed.update(f"iterable {type(dataset).__qualname__}".encode())
            continue
        n = len(dataset)
        hashed.update(f"length {n}".encode())
        positions = np.linspace(0, n - 1, min(n, _MAX_HASHED)).astype(int)
        _update_seeded(hashed, (dataset[int(i)] for i in positions))
    return hashed.hexdigest()


def validation_of(datamodule: AnySynqueDataModule) -> str:
    """Hash the validation data of a DataModule.

    Mixtures are measured on different parts of a surrogate validation set, so that this hashes the
    whole set: what is measured on it has a comparability key of its own.
    """
    surrogate = datamodule.surrogate
    if surrogate is None:
        return validation_sha256(datamodule.val_dataloader())
    examples = validation_sha256(DataLoader(surrogate))
    return content_sha256(["surrogate validation", surrogate.sha256, examples])


def content_sha256(values: Iterable[object]) -> str:
    """Hash values by their content; objects of unknown types by their class."""
    hashed = hashlib.sha256()
    _update_seeded(hashed, values)
    return hashed.hexdigest()


def content_digest(value: object) -> bytes:
    """Hash one value as `content_sha256` does, without seeding the random generators."""
    hashed = hashlib.sha256()
    _update(hashed, value)
    return hashed.digest()


def _update_seeded(hashed: _Hash, values: Iterable[object]) -> None:
    with seeded(0):
        for value in values:
            _update(hashed, value)


def _update(hashed: _Hash, value: object) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
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
    elif isinstance(value, _Image):
        hashed.update(f"{value.mode}{value.size}".encode() + value.tobytes())
    else:
        hashed.update(type(value).__qualname__.encode())


def hyper_parameters(trainer: AnyTrainer, module: AnyModule) -> dict[str, Json]:
    """Return the module's hparams, its optimizers, and how the trainer steps.

    If labeled real data is a fixed part of training, its share and hash are added, and if labels
    are filtered, a hash of the examples that are left out or relabeled.
    """
    return {
        "module": plain_parameter(dict(module.hparams)),
        "optimizers": [
            {"class": type(optimizer).__qualname__, **_plain_parameters(optimizer.defaults)}
            for optimizer in trainer.optimizers
        ],
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": plain_parameter(trainer.gradient_clip_val),
        "precision": str(trainer.precision),
        **_labeled_real(trainer),
        **_label_edits(trainer),
    }


def _labeled_real(trainer: AnyTrainer) -> dict[str, Json]:
    datamodule = attached_datamodule(trainer)
    labeled = None if datamodule is None else datamodule.labeled_real
    if labeled is None:
        return {}
    return {"labeled_real": {"share": labeled.share, "sha256": labeled.data.sha256}}


def _label_edits(trainer: AnyTrainer) -> dict[str, Json]:
    datamodule = attached_datamodule(trainer)
    edits = None if datamodule is None else datamodule.label_edits
    return {} if edits is None else {"label_edits_sha256": content_sha256([edits.to_dict()])}


def plain_parameter(value: object) -> Json:
    """Return a value as JSON has it; an object as its class, because its repr may hold an address.

    Example:
        >>> plain_parameter({"lr": 0.1, "betas": (0.9, 0.99), "act": len})
        {'lr': 0.1, 'betas': [0.9, 0.99], 'act': 'len'}
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return _plain_parameters(value)
    if isinstance(value, (list, tuple)):
        return [plain_parameter(part) for part in value]
    if hasattr(value, "tolist"):
        return plain_parameter(value.tolist())
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _plain_parameters(values: Mapping[str, object]) -> dict[str, Json]:
    return {str(key): plain_parameter(part) for key, part in values.items()}
