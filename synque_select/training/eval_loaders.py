"""Validation, test and prediction data that a user gives to a `SynqueDataModule`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from synque_select.data.examples import MapDataset
from synque_select.errors import ConfigError
from synque_select.training.lightning_compat import is_combined_loader
from synque_select.training.wrapping import InnerHook, LoaderOptions

__all__ = ["LoaderHook", "check_eval_data", "eval_loaders"]


class LoaderHook(InnerHook):
    """A hook that serves the data given for it, or else that of the wrapped DataModule."""

    def __get__(self, instance: Any, owner: type | None = None) -> object:
        data = None if instance is None else vars(instance).get("_eval_data", {}).get(self.name)
        if data is None:
            return super().__get__(instance, owner)
        return functools.partial(instance._eval_loaders, data)


def check_eval_data(name: str, data: object) -> object:
    """Check the data given as val, test or predict, and return it.

    A list is a list of datasets or loaders if all of its parts are; otherwise it is one dataset.

    Args:
        name: Name of the argument: "val", "test" or "predict".
        data: The data.

    Raises:
        ConfigError: It is not a dataset, a DataLoader or a list of these.
    """
    if isinstance(data, list | tuple) and data and all(map(_is_data, data)):
        return list(data)
    if _is_data(data) or (isinstance(data, list | tuple) and data):
        return data
    kind = "an empty one" if isinstance(data, list | tuple) else type(data).__name__
    raise ConfigError(f"{name} must be a dataset, a DataLoader, or a list of these, found {kind}")


def _is_data(value: object) -> bool:
    if isinstance(value, DataLoader | Dataset) or is_combined_loader(value):
        return True
    is_example = isinstance(value, str | bytes | list | tuple | Mapping | Tensor | np.ndarray)
    return isinstance(value, MapDataset) and not is_example


def eval_loaders(data: Any, batch_size: int, options: LoaderOptions) -> Any:
    """Return the loaders of the data given as val, test or predict.

    Args:
        data: What `check_eval_data` has returned.
        batch_size: Batch size for datasets; loaders have their own.
        options: Other arguments of the DataLoader of a dataset, without the batch size.
    """
    if isinstance(data, list) and _is_data(data[0]):
        return [eval_loaders(part, batch_size, options) for part in data]
    if isinstance(data, DataLoader) or is_combined_loader(data):
        return data
    arguments: LoaderOptions = {**options, "batch_size": batch_size}
    return DataLoader(data, **arguments)
