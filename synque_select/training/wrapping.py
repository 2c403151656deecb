"""How one DataModule stands in for another: attributes that lead to the inner one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from synque_select.errors import ConfigError, LightningError
from synque_select.training.lightning_compat import refuse_other_lightning

__all__ = [
    "InnerAttribute",
    "InnerHook",
    "TrainLoaders",
    "candidate_modules",
    "check_inner",
    "inner_train_loaders",
    "loader_options",
    "with_train_data",
]


class InnerHook:
    """A hook that exists only where the wrapped DataModule has it.

    Lightning asks whether a DataModule overrides a hook by comparing the code that the attribute
    leads to with that of LightningDataModule. So the attribute leads to the inner one's own method,
    and to LightningDataModule's where there is none.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        base = getattr(LightningDataModule, self.name)
        if instance is None:
            return base
        inner = vars(instance).get("_inner")
        if inner is not None and is_overridden(self.name, inner):
            return getattr(inner, self.name)
        return base.__get__(instance)


class InnerAttribute:
    """An attribute of every LightningDataModule: the wrapped one's, where one is wrapped.

    Without one it is what LightningDataModule makes of it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return getattr(LightningDataModule, self.name, None)
        inner = vars(instance).get("_inner")
        if inner is not None:
            return getattr(inner, self.name)
        if self.name in vars(instance):
            return vars(instance)[self.name]
        base = getattr(LightningDataModule, self.name)  # AttributeError where it has none either
        return base.__get__(instance) if hasattr(base, "__get__") else base

    def __set__(self, instance: Any, value: Any) -> None:
        inner = vars(instance).get("_inner")
        if inner is None:
            vars(instance)[self.name] = value
        else:
            setattr(inner, self.name, value)


def check_inner(wraps: Any) -> None:
    """Refuse what is no DataModule of pytorch_lightning, or has another one's hyper-parameters.

    A LightningCLI that was told of no DataModule class gives the hyper-parameters of the whole of
    `data:` to each DataModule in it that calls `save_hyperparameters`.

    Raises:
        LightningError: The message names the import to change, what was found, or the class to
            tell LightningCLI of.
    """
    if wraps is None:
        return
    if isinstance(wraps, LightningDataModule):
        if {"_instantiator", "wraps"} <= set(wraps.hparams):
            raise LightningError(
                f"LightningCLI gave {type(wraps).__name__}, in wraps, the hyper-parameters of the "
                "DataModule around it: LightningCLI(datamodule_class=SynqueDataModule, "
                "subclass_mode_data=True) gives it its own"
            )
        return
    refuse_other_lightning("the DataModule in wraps=", wraps)
    raise LightningError(
        f"wraps must be a LightningDataModule of pytorch_lightning, found {type(wraps).__name__}"
    )


@dataclass(frozen=True)
class TrainLoaders:
    """What a `train_dataloader` returned: one loader, alone or in a collection.

    Args:
        loader: The DataLoader that the mixture replaces; None where there is none.
        around: What it stands in, a CombinedLoader; None where it stands alone.
    """

    loader: DataLoader[Any] | None = None
    around: CombinedLoader | None = None

    def replaced(self, loader: DataLoader[Any]) -> Any:
        """Return another loader in the same place, so that batches keep their structure."""
        if self.around is None:
            return loader
        self.around.flattened = [
            loader if part is self.loader else part for part in self.around.flattened
        ]
        return self.around


def inner_train_loaders(inner: LightningDataModule | None) -> TrainLoaders:
    """Return the DataLoader that the mixture replaces, if there is one, and what it stands in.

    Raises:
        LightningError: There are several.
    """
    if inner is None or not is_overridden("train_dataloader", inner):
        return TrainLoaders()
    loaders = inner.train_dataloader()
    if isinstance(loaders, DataLoader):
        return TrainLoaders(loaders)
    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders)
    found = [loader for loader in combined.flattened if isinstance(loader, DataLoader)]
    if len(found) > 1:
        raise LightningError(
            f"train_dataloader of {type(inner).__name__} returns {len(found)} loaders; a mixture "
            "stands in for one: wrap a DataModule whose train_dataloader returns one DataLoader"
        )
    return TrainLoaders(found[0], combined) if found else TrainLoaders()


def candidate_modules(source: Any) -> dict[str, LightningDataModule]:
    """Return the candidates that are given as a DataModule each, by name.

    Raises:
        LightningError: One comes from the package `lightning`.
        ConfigError: One is left as a config has it, as no object could be made of it.
    """
    if not isinstance(source, Mapping):
        return {}
    for name, value in source.items():
        refuse_other_lightning(f"the candidate {name!r}", value)
        # a config's parser passes on what it cannot make: any value is allowed here
        if isinstance(value, Mapping) and "class_path" in value:
            raise ConfigError(
                f"the candidate {name!r}: no object could be made of {dict(value)}; allowed is the "
                "class_path of a LightningDataModule that can be imported, with init_args that it "
                "takes"
            )
    return {name: v for name, v in source.items() if isinstance(v, LightningDataModule)}


def with_train_data(source: Any, trainer: Trainer | None) -> Any:
    """Return a source with each DataModule in it replaced by what it trains on.

    Args:
        source: As for `load_candidates`, or a mapping from name to DataModule.
        trainer: The one that prepares the data; None where nobody has.

    Raises:
        LightningError: A DataModule has no training loader, or several.
    """
    modules = candidate_modules(source)
    if not modules:
        return source
    return {**source, **{name: _train_dataset(m, trainer) for name, m in modules.items()}}


def _train_dataset(module: LightningDataModule, trainer: Trainer | None) -> Any:
    module.trainer = trainer
    if trainer is None:
        module.prepare_data()
    module.setup(stage="fit")
    loader = inner_train_loaders(module).loader
    if loader is None:
        raise LightningError(
            f"{type(module).__name__} has no train_dataloader: a candidate is what it trains on"
        )
    return loader.dataset


_KEPT = ("num_workers", "pin_memory", "worker_init_fn")
_KEPT_WITH_WORKERS = ("timeout", "multiprocessing_context", "prefetch_factor", "persistent_workers")


def loader_options(loader: DataLoader[Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments for a DataLoader: those given, else those of another loader.

    Args:
        loader: Whose options are the defaults.
        given: Options that were given; None marks one that was not.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if loader is None:
        return given
    has_workers = given.get("num_workers", loader.num_workers) and loader.num_workers
    names = [*_KEPT, *(_KEPT_WITH_WORKERS if has_workers else ())]
    options = {name: getattr(loader, name) for name in names}
    batches = loader.batch_sampler  # None where the dataset yields whole batches
    if batches is not None:
        options["collate_fn"] = loader.collate_fn
        options["batch_size"] = getattr(batches, "batch_size", None)
        options["drop_last"] = getattr(batches, "drop_last", False)
    return {**options, **given}
