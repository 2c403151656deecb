"""How one DataModule takes the place of another: its attributes lead to those of the inner one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from torch.utils.data import DataLoader

from synque_select.errors import ConfigError, LightningError
from synque_select.training.lightning_compat import (
    check_package,
    combined_loader_class,
    datamodule_class,
    is_combined_loader,
    is_overridden,
    package_of,
)
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import (
        AnyCombinedLoader,
        AnyDataModule,
        AnyTrainer,
    )

__all__ = [
    "Collate",
    "InnerAttribute",
    "InnerHook",
    "LoaderOptions",
    "TrainLoaders",
    "candidate_modules",
    "check_inner",
    "inner_train_loaders",
    "loader_options",
    "with_descriptors",
    "with_train_data",
]

Collate = Callable[[list[Any]], Any]
_Class = TypeVar("_Class", bound=type)


class LoaderOptions(TypedDict, total=False):
    """Keyword arguments of a DataLoader; one that is not given is missing."""

    batch_size: int | None
    num_workers: int
    pin_memory: bool
    collate_fn: Collate | None
    drop_last: bool
    worker_init_fn: Callable[[int], None] | None
    timeout: float
    multiprocessing_context: BaseContext | str | None
    prefetch_factor: int | None
    persistent_workers: bool


class InnerHook:
    """A hook that exists only if the wrapped DataModule has it.

    Lightning asks whether a DataModule overrides a hook by comparing the code that the attribute
    leads to with that of LightningDataModule. So the attribute leads to the inner DataModule's own
    method, and otherwise to that of LightningDataModule.
    """

    name: str

    def __get__(self, instance: object, owner: type | None = None) -> object:
        base = getattr(datamodule_class(owner or type(instance)), self.name)
        if instance is None:
            return base
        inner = vars(instance).get("_inner")
        if inner is not None and is_overridden(self.name, inner):
            return getattr(inner, self.name)
        return base.__get__(instance)


class InnerAttribute:
    """An attribute of every LightningDataModule: that of the wrapped DataModule, if there is one.

    Otherwise it behaves as in LightningDataModule.
    """

    name: str

    def __get__(self, instance: object, owner: type | None = None) -> object:
        lightning_class = datamodule_class(owner or type(instance))
        if instance is None:
            return getattr(lightning_class, self.name, None)
        inner = vars(instance).get("_inner")
        if inner is not None:
            return getattr(inner, self.name)
        if self.name in vars(instance):
            return vars(instance)[self.name]
        base = getattr(lightning_class, self.name)  # AttributeError if it has none either
        return base.__get__(instance) if hasattr(base, "__get__") else base

    def __set__(self, instance: object, value: object) -> None:
        inner = vars(instance).get("_inner")
        if inner is None:
            vars(instance)[self.name] = value
        else:
            setattr(inner, self.name, value)


def with_descriptors(
    **descriptors: InnerHook | InnerAttribute,
) -> Callable[[_Class], _Class]:
    """Return a class decorator that sets descriptors.

    Set in the class body they would hide the types that LightningDataModule declares for the same
    names.
    """

    def decorate(cls: _Class) -> _Class:
        for name, descriptor in descriptors.items():
            descriptor.name = name
            setattr(cls, name, descriptor)
        return cls

    return decorate


def check_inner(own: object, wraps: object) -> None:
    """Check that an object is a DataModule of the right package, with hyper-parameters of its own.

    A LightningCLI without a DataModule class gives the hyper-parameters of the whole `data:`
    section to each DataModule in it that calls `save_hyperparameters`.

    Raises:
        LightningError: It is not; the message names the import to change, the type found, or the
            class to give to LightningCLI.
    """
    if wraps is None:
        return
    if isinstance(wraps, datamodule_class(own)):
        if {"_instantiator", "wraps"} <= set(wraps.hparams):
            raise LightningError(
                f"LightningCLI gave {type(wraps).__name__}, in wraps, the hyper-parameters of the "
                "DataModule around it: LightningCLI(datamodule_class=SynqueDataModule, "
                "subclass_mode_data=True) gives it its own"
            )
        return
    check_package(own, "the DataModule in wraps=", wraps)
    raise LightningError(
        f"wraps must be a LightningDataModule of {package_of(own)}, found {type(wraps).__name__}"
    )


@dataclass(frozen=True)
class TrainLoaders:
    """The result of a `train_dataloader`: one loader, alone or in a collection.

    Args:
        loader: The DataLoader that the mixture replaces; None if there is none.
        around: The CombinedLoader that contains it; None if it is alone.
    """

    loader: DataLoader[object] | None = None
    around: AnyCombinedLoader | None = None

    def replaced(self, loader: DataLoader[object]) -> Any:
        """Return another loader in the same place, so that batches keep their structure."""
        if self.around is None:
            return loader
        self.around.flattened = [
            loader if part is self.loader else part for part in self.around.flattened
        ]
        return self.around


def inner_train_loaders(inner: AnyDataModule | None) -> TrainLoaders:
    """Return the DataLoader that the mixture replaces, if there is one, and its collection.

    Raises:
        LightningError: There are several.
    """
    if inner is None or not is_overridden("train_dataloader", inner):
        return TrainLoaders()
    loaders = inner.train_dataloader()
    if isinstance(loaders, DataLoader):
        return TrainLoaders(loaders)
    combined = loaders if is_combined_loader(loaders) else combined_loader_class(inner)(loaders)
    replaceable = [loader for loader in combined.flattened if isinstance(loader, DataLoader)]
    if len(replaceable) > 1:
        raise LightningError(
            f"train_dataloader of {type(inner).__name__} returns "
            f"{counted(len(replaceable), 'loader')}, but a "
            "mixture replaces one: wrap a DataModule whose train_dataloader returns one DataLoader"
        )
    return TrainLoaders(replaceable[0], combined) if replaceable else TrainLoaders()


def candidate_modules(own: object, source: object) -> dict[str, AnyDataModule]:
    """Return the candidates that are given as a DataModule each, by name.

    Args:
        own: The DataModule that they are given to.
        source: As for `load_candidates`, or a mapping from name to DataModule.

    Raises:
        LightningError: One comes from the other package of Lightning.
        ConfigError: One is left as a config has it, because no object could be made of it.
    """
    if not isinstance(source, Mapping):
        return {}
    for name, value in source.items():
        check_package(own, f"the candidate {name!r}", value)
        # a config parser passes on what it cannot instantiate: any value is allowed here
        if isinstance(value, Mapping) and "class_path" in value:
            raise ConfigError(
                f"the candidate {name!r}: no object could be made of {dict(value)}; allowed is the "
                "class_path of a LightningDataModule that can be imported, with init_args that it "
                "takes"
            )
    return {name: v for name, v in source.items() if isinstance(v, datamodule_class(own))}


def with_train_data(
    source: object, modules: Mapping[str, AnyDataModule], trainer: AnyTrainer | None
) -> object:
    """Return a source with each DataModule in it replaced by the dataset that it trains on.

    Args:
        source: As for `load_candidates`, or a mapping from name to DataModule.
        modules: The DataModules in it, from `candidate_modules`.
        trainer: The trainer that has prepared the data; None if the data is not prepared yet.

    Raises:
        LightningError: A DataModule has no training loader, or several.
    """
    if not modules or not isinstance(source, Mapping):
        return source
    return {**source, **{name: _train_dataset(m, trainer) for name, m in modules.items()}}


def _train_dataset(module: AnyDataModule, trainer: AnyTrainer | None) -> object:
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


def loader_options(loader: DataLoader[object] | None, given: LoaderOptions) -> LoaderOptions:
    """Return keyword arguments for a DataLoader: those given, and otherwise those of a loader.

    Args:
        loader: The loader whose options are the defaults; None for those of torch.
        given: Options that take precedence.
    """
    if loader is None:
        return given
    has_workers = given.get("num_workers", loader.num_workers) and loader.num_workers
    names = [*_KEPT, *(_KEPT_WITH_WORKERS if has_workers else ())]
    options = {name: getattr(loader, name) for name in names}
    batches = loader.batch_sampler  # None if the dataset yields whole batches
    if batches is not None:
        options["collate_fn"] = loader.collate_fn
        options["batch_size"] = getattr(batches, "batch_size", None)
        options["drop_last"] = getattr(batches, "drop_last", False)
    # the names above are those of LoaderOptions
    return cast("LoaderOptions", {**options, **given})
