"""The package of Lightning that a command uses: that of its model and its DataModule."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError
from synque_select.training.lightning_compat import (
    LightningPackage,
    check_class_path,
    check_package,
    cli_class_in,
    package_of,
)
from synque_select.utils.yaml_files import read_yaml_file

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from pytorch_lightning.cli import LightningCLI

    from synque_select.training.datamodule import AnySynqueDataModule

__all__ = ["LightningClasses", "lightning_classes"]

_PARTS = {"model": "the model", "data": "the DataModule"}


@dataclass(frozen=True)
class LightningClasses:
    """The classes of one package of Lightning that a command is built from.

    Args:
        cli: Its LightningCLI.
        datamodule: The SynqueDataModule for it.
    """

    cli: type[LightningCLI]
    datamodule: type[AnySynqueDataModule]


def lightning_classes(arguments: Sequence[str]) -> LightningClasses:
    """Return the classes of the package that the model and the DataModule of a command come from.

    A class that cannot be imported decides nothing here: LightningCLI says what is wrong with it.

    Args:
        arguments: The command line, with the paths of its configs.

    Raises:
        LightningError: They, or a callback, logger, plugin or strategy of the trainer, come from
            different packages.
    """
    kinds = {part: _imported(path) for part, path in _class_paths(arguments)}
    model, data = kinds.get("model"), kinds.get("data")
    if model is not None and data is not None:
        check_package(data, _PARTS["model"], model)
    part = "data" if package_of(model) is None else "model"
    other = kinds.get(part)
    for path in _trainer_class_paths(arguments) if other is not None else ():
        kind = _imported(path)
        if kind is not None and other is not None:
            check_class_path(path, kind, _PARTS[part], other)
    package: LightningPackage = package_of(model) or package_of(data) or "pytorch_lightning"
    return LightningClasses(_with_short_errors(cli_class_in(package)), _datamodule_in(package))


def _with_short_errors(cli: type[LightningCLI]) -> type[LightningCLI]:
    """Return a LightningCLI for which what its Trainer refuses is an error of the config."""
    home = cli.__module__.rpartition(".")[0]
    refused: type[Exception] = importlib.import_module(
        f"{home}.utilities.exceptions"
    ).MisconfigurationException

    class ShortErrorsCLI(cli):  # type: ignore[valid-type,misc]
        def instantiate_trainer(self, **options: object) -> Trainer:
            """Create the Trainer."""
            try:
                trainer: Trainer = super().instantiate_trainer(**options)
            # a strategy may need a package that is not installed
            except (refused, TypeError, ValueError, ImportError) as error:
                raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
            return trainer

    ShortErrorsCLI.__module__ = cli.__module__  # where its SaveConfigCallback is looked up
    return ShortErrorsCLI


def _datamodule_in(package: LightningPackage) -> type[AnySynqueDataModule]:
    if package == "lightning":
        from synque_select.training.lightning import SynqueDataModule as LightningSynqueDataModule

        return LightningSynqueDataModule
    from synque_select.training.pytorch_lightning import SynqueDataModule

    return SynqueDataModule


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each option with its value."""
    options = [argument.partition("=") for argument in arguments]
    for place, (name, equals, value) in enumerate(options):
        yield name, value if equals else "".join(arguments[place + 1 : place + 2])


def _trainer_class_paths(arguments: Sequence[str]) -> Iterator[str]:
    """Find the class paths of callbacks, loggers, plugins and strategies."""
    for name, given in _options(arguments):
        if name in ("--config", "-c"):
            content = read_yaml_file(given)
            yield from _inner_class_paths(
                content.get("trainer") if isinstance(content, dict) else None
            )
        elif name.startswith("--trainer.") and "." in given:
            yield given


def _inner_class_paths(block: object) -> Iterator[str]:
    if isinstance(block, dict):
        path = block.get("class_path")
        if isinstance(path, str):
            yield path
    inner = block.values() if isinstance(block, dict) else block if isinstance(block, list) else ()
    for part in inner:
        yield from _inner_class_paths(part)


def _class_paths(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Find the class paths of model and DataModule, in the order in which later ones win."""
    for name, given in _options(arguments):
        if name in ("--config", "-c"):
            content = read_yaml_file(given)
            for part in _PARTS:
                block = content.get(part) if isinstance(content, dict) else None
                path = block.get("class_path") if isinstance(block, dict) else block
                if isinstance(path, str):
                    yield part, path
        elif name.removesuffix(".class_path") in [f"--{part}" for part in _PARTS]:
            yield name.removesuffix(".class_path").removeprefix("--"), given


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except Exception:  # whatever a module of the user raises, LightningCLI reports it
        return None
    return kind if isinstance(kind, type) else None
