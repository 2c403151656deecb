"""What distinguishes an untrained module from others, in the keys of fits that are kept."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from synque_select.training.lightning_compat import lightning_module_of
from synque_select.utils.source_code import source_of

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule

_HASHED = str | bytes | bool | int | float | np.generic | np.ndarray | Tensor

__all__ = ["module_identity"]


def module_identity(module: AnyModule) -> list[object]:
    """Return what a fit of a module depends on, for `content_sha256`.

    This is the code of its class, of its bases and of what these take from their package; its
    hyperparameters; and the values of attributes of its parts, such as a learning rate that the
    module has not saved as a hyperparameter, or the probability of a dropout. Of an attribute that
    is an object of another class, the class alone counts. Its weights are not included; see
    `weights_sha256`.

    Args:
        module: The module, before training.

    Example:
        >>> import pytorch_lightning as pl
        >>> from synque_select.training.comparability import content_sha256
        >>> class Net(pl.LightningModule):
        ...     def __init__(self, lr):
        ...         super().__init__()
        ...         self.lr = lr
        >>> content_sha256(module_identity(Net(0.1))) == content_sha256(module_identity(Net(0.2)))
        False
    """
    kind = type(module)
    return [
        source_of(kind, values=False) or _own_source(kind),
        kind.__qualname__,
        dict(module.hparams),
        _attributes(module),
    ]


def _own_source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__


def _attributes(module: AnyModule) -> dict[str, dict[str, object]]:
    """Return the attributes of each part, without those that Lightning and torch give it."""
    ignored = {*vars(lightning_module_of(module, "core").LightningModule()), *vars(nn.Module())}
    return {
        place: {
            name: _plain(value) for name, value in sorted(vars(part).items()) if name not in ignored
        }
        for place, part in module.named_modules()
    }


def _plain(value: object) -> object:
    """Return a value whose hash is the same in another process."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, _HASHED):
        return value
    # a function or a class by its name; of another object, its class
    return str(getattr(value, "__qualname__", type(value).__qualname__))
