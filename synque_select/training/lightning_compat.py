"""The two packages that ship Lightning, and what Lightning leaves undeclared on a Trainer.

`pytorch_lightning` and `lightning`, as `lightning.pytorch`, contain the same classes twice, and
their objects are not interchangeable. The code of this library is shared: it imports neither
package when it is imported, and takes classes from the package that an object comes from.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar

import torch

from synque_select.errors import LightningError

if TYPE_CHECKING:
    import lightning.pytorch as L
    import pytorch_lightning as pl
    import pytorch_lightning.cli as pl_cli
    from lightning.pytorch.loggers import Logger as LLogger
    from lightning.pytorch.utilities import CombinedLoader as LCombinedLoader
    from pytorch_lightning.loggers import Logger
    from pytorch_lightning.utilities import CombinedLoader

    AnyTrainer = pl.Trainer | L.Trainer
    AnyModule = pl.LightningModule | L.LightningModule
    AnyDataModule = pl.LightningDataModule | L.LightningDataModule
    AnyCallback = pl.Callback | L.Callback
    AnyLogger = Logger | LLogger
    AnyCombinedLoader = CombinedLoader | LCombinedLoader

__all__ = [
    "DataModuleT",
    "LightningPackage",
    "ModuleT",
    "TrainerT",
    "callbacks_of",
    "check_class_path",
    "check_package",
    "cli_class_in",
    "combined_loader_class",
    "datamodule_class",
    "flattened_loaders",
    "is_combined_loader",
    "is_dev_run",
    "is_lightning_module",
    "is_overridden",
    "lightning_module_of",
    "package_of",
    "takes_batch_number",
    "trainer_class",
    "trainer_class_in",
]

LightningPackage = Literal["pytorch_lightning", "lightning"]

TrainerT = TypeVar("TrainerT", bound="AnyTrainer")
ModuleT = TypeVar("ModuleT", bound="AnyModule")
DataModuleT = TypeVar("DataModuleT", bound="AnyDataModule")

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PACKAGES: dict[str, LightningPackage] = {
    "pytorch_lightning": "pytorch_lightning",
    "lightning_fabric": "pytorch_lightning",  # bases of its loggers and strategies
    "lightning": "lightning",
}
_ROOTS = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
_IMPORTS = {"pytorch_lightning": "synque_select", "lightning": "synque_select.lightning"}
_NOT_AT_THE_FRONT_DOOR = {
    "PruningCallback": "synque_select.callbacks",
    "TaskDataModule": "synque_select.experiment",
}
_CHANGES = {
    "pytorch_lightning": (
        "`import lightning as L` to `import pytorch_lightning as L` (and `lightning.pytorch` to "
        "`pytorch_lightning`)"
    ),
    "lightning": (
        "`import pytorch_lightning as pl` to `import lightning.pytorch as pl` (and "
        "`pytorch_lightning` to `lightning.pytorch`)"
    ),
}


def package_of(part: object) -> LightningPackage | None:
    """Return the package that ships the Lightning class of an object or class; None for no such.

    Example:
        >>> from synque_select import SelectionCallback
        >>> package_of(SelectionCallback)
        'pytorch_lightning'
        >>> package_of("a text") is None
        True
    """
    for parent in _class_of(part).__mro__:
        package = _PACKAGES.get(parent.__module__.partition(".")[0])
        if package is not None:
            return package
    return None


def lightning_module_of(part: object, name: str) -> ModuleType:
    """Return a module of the package that an object comes from, such as "loggers" or "cli".

    `pytorch_lightning` is the package of an object that comes from neither.
    """
    return _module(package_of(part) or "pytorch_lightning", name)


def _module(package: LightningPackage, name: str) -> ModuleType:
    return importlib.import_module(f"{_ROOTS[package]}.{name}")


def trainer_class(part: object) -> type[AnyTrainer]:
    """Return the Trainer of the package that an object comes from."""
    return trainer_class_in(package_of(part) or "pytorch_lightning")


def trainer_class_in(package: LightningPackage) -> type[AnyTrainer]:
    """Return the Trainer of a package."""
    cls: type[AnyTrainer] = _module(package, "trainer").Trainer
    return cls


def cli_class_in(package: LightningPackage) -> type[pl_cli.LightningCLI]:
    """Return the LightningCLI of a package, typed as that of pytorch_lightning, which is alike."""
    cls: type[pl_cli.LightningCLI] = _module(package, "cli").LightningCLI
    return cls


def combined_loader_class(part: object) -> type[AnyCombinedLoader]:
    """Return the CombinedLoader of the package that an object comes from."""
    cls: type[AnyCombinedLoader] = lightning_module_of(part, "utilities").CombinedLoader
    return cls


def is_combined_loader(value: object) -> TypeGuard[AnyCombinedLoader]:
    """Return whether an object is a CombinedLoader of either package."""
    return package_of(value) is not None and isinstance(value, combined_loader_class(value))


def is_lightning_module(value: object) -> TypeGuard[AnyModule]:
    """Return whether an object is a LightningModule of either package."""
    if package_of(value) is None:
        return False
    return isinstance(value, lightning_module_of(value, "core").LightningModule)


def flattened_loaders(loaders: object) -> list[object]:
    """Return the loaders in a collection as Lightning flattens it; a list of plain values is one.

    Example:
        >>> flattened_loaders({"a": [range(3), [1, 2]], "b": range(4)})
        [range(0, 3), [1, 2], range(0, 4)]
    """
    given = [] if loaders is None else loaders
    if isinstance(given, dict | list | tuple):
        parts = list(given.values() if isinstance(given, dict) else given)
        if not all(isinstance(part, int | float | str) for part in parts):
            return [loader for part in parts for loader in flattened_loaders(part)]
    return [given]


def datamodule_class(part: object) -> type[AnyDataModule]:
    """Return the LightningDataModule of the package that an object or class comes from."""
    cls: type[AnyDataModule] = lightning_module_of(part, "core").LightningDataModule
    return cls


def is_overridden(name: str, part: object) -> bool:
    """Return whether an object overrides a hook of its package's class; False for None."""
    if part is None:
        return False
    ask: Callable[[str, object], bool]
    ask = lightning_module_of(part, "utilities.model_helpers").is_overridden
    return ask(name, part)


def takes_batch_number(module: AnyModule, name: str) -> bool:
    """Return whether a method of a module takes the number of a batch beside the batch.

    For a step, such as `training_step`, this is what Lightning decides. Any other method is called
    without it, unless it needs a second argument or has one of the name `batch_idx`.
    """
    method: Any = getattr(module, name)
    if name.endswith("_step"):
        utilities = lightning_module_of(module, "utilities.signature_utils")
        return bool(utilities.is_param_in_hook_signature(method, "batch_idx", min_args=2))
    call = method.forward if isinstance(method, torch.nn.Module) else method
    parameters = list(inspect.signature(call).parameters.values())
    needed = [part for part in parameters if part.default is part.empty and part.kind in _BY_PLACE]
    return len(needed) > 1 or any(part.name == "batch_idx" for part in parameters)


def callbacks_of(trainer: AnyTrainer) -> list[AnyCallback]:
    """Return the trainer's callbacks; Lightning sets the attribute without declaring it."""
    callbacks: list[AnyCallback] = getattr(trainer, "callbacks", [])
    return callbacks


def is_dev_run(trainer: AnyTrainer) -> bool:
    """Return whether `fast_dev_run` is on; Lightning sets the attribute without declaring it."""
    return bool(getattr(trainer, "fast_dev_run", False))


def check_package(own: object, what: str, part: object) -> None:
    """Check that an object does not come from the other package than one of this library.

    Args:
        own: A callback or DataModule of this library, or its class.
        what: The role of the other object, for the message.
        part: A Trainer, model, DataModule, logger or callback, or its class.

    Raises:
        LightningError: It does; the message names the import to change.
    """
    ours, theirs = package_of(own), package_of(part)
    if ours is None or theirs is None or ours == theirs:
        return
    kind, other = _class_of(own), _class_of(part)
    if _name_in_library(other) is None:
        line = _import_of(_name_in_library(kind) or kind.__name__, theirs)
    else:
        line = _import_of(_name_in_library(other), ours)
    raise LightningError(
        f"{what} ({other.__name__}) comes from the package {theirs}, whose objects are not "
        f"interchangeable with those of {ours}, for which this {kind.__name__} is: write "
        f"`{line}` (in the same way each callback and DataModule of synque-select), or change "
        f"{_CHANGES[ours]} everywhere in your script"
    )


def check_class_path(path: str, kind: type, what: str, part: type) -> None:
    """Check that a class that a config names does not come from the other package than another.

    Args:
        path: Its path in the config.
        kind: The class.
        what: The role of the other class, for the message.
        part: The other class, such as that of the model.

    Raises:
        LightningError: It does; the message names the class to write in its place.
    """
    theirs, ours = package_of(kind), package_of(part)
    if ours is None or theirs is None or ours == theirs:
        return
    name = _name_in_library(kind)
    if name is not None:
        line = _import_of(name, ours)
        use = f"{line.split()[1]}.{name} (`{line}`)"
    elif path.startswith(f"{_ROOTS[theirs]}."):
        use = f"{_ROOTS[ours]}{path.removeprefix(_ROOTS[theirs])}"
    else:
        use = f"a class for {ours}"
    raise LightningError(
        f"{path} is for the package {theirs}, whose objects are not interchangeable with those of "
        f"{ours}, from which {what} ({part.__name__}) comes: write {use}, or change "
        f"{_CHANGES[theirs]} everywhere in the script of {what}"
    )


def _import_of(name: str | None, package: LightningPackage) -> str:
    module = _IMPORTS[package]
    if package == "pytorch_lightning" and name in _NOT_AT_THE_FRONT_DOOR:
        module = _NOT_AT_THE_FRONT_DOOR[name]
    return f"from {module} import {name}"


def _class_of(part: object) -> type:
    return part if isinstance(part, type) else type(part)


def _name_in_library(kind: type) -> str | None:
    """Return the name of the class of this library that a class is or inherits; None if none."""
    for parent in kind.__mro__:
        if parent.__module__.startswith("synque_select."):
            return parent.__name__
    return None
