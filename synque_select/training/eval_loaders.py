"""Validation, test and prediction data as a user gives it to a DataModule of ours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from synque_select.data.examples import MapDataset
from synque_select.errors import ConfigError
from synque_select.training.wrapping import InnerHook, loader_options

__all__ = ["LoaderHook", "as_given_data", "given_loaders"]


class LoaderHook(InnerHook):
    """A hook that serves what was given for it, else the wrapped DataModule's."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        data = None if instance is None else vars(instance).get("_given", {}).get(self.name)
        if data is None:
            return super().__get__(instance, owner)
        return functools.partial(instance._serve_given, data)


def as_given_data(name: str, data: Any) -> Any:
    """Check what was given as val, test or predict.

    A list is several datasets or loaders if all its parts are; else it is a dataset of records.

    Raises:
        ConfigError: It is none of these.
    """
    if isinstance(data, list | tuple) and data and all(map(_is_data, data)):
        return list(data)
    if _is_data(data) or (isinstance(data, list | tuple) and data):
        return data
    found = "an empty one" if isinstance(data, list | tuple) else type(data).__name__
    raise ConfigError(f"{name} must be a dataset, a DataLoader, or a list of these, found {found}")


def _is_data(value: Any) -> bool:
    if isinstance(value, DataLoader | Dataset | CombinedLoader):
        return True
    is_record = isinstance(value, str | bytes | list | tuple | Mapping | Tensor | np.ndarray)
    return isinstance(value, MapDataset) and not is_record


def given_loaders(data: Any, batch_size: int, options: Mapping[str, Any]) -> Any:
    """Return the loaders of what was given as val, test or predict.

    Args:
        data: What `as_given_data` returned.
        batch_size: For datasets; loaders have their own.
        options: The other arguments of their DataLoader; None marks one that was not given.
    """
    if isinstance(data, list) and _is_data(data[0]):
        return [given_loaders(part, batch_size, options) for part in data]
    if isinstance(data, DataLoader | CombinedLoader):
        return data
    return DataLoader(data, batch_size=batch_size, **loader_options(None, dict(options)))
