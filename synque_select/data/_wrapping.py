"""How a DataModule stands in for another one: descriptors that reach the inner one."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden

from synque_select.errors import LightningError

__all__ = ["InnerAttribute", "InnerHook", "check_inner"]


class InnerHook:
    """A hook that exists only where the wrapped DataModule has it.

    Lightning asks whether a DataModule overrides a hook by comparing the code that the attribute
    leads to with LightningDataModule's. So the attribute leads to the inner one's own method, or to
    LightningDataModule's where there is none.
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
    """An attribute that LightningDataModule defines: the wrapped DataModule's where there is one.

    Args:
        default: Its value before it is set and without a wrapped DataModule.
    """

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.default
        inner = vars(instance).get("_inner")
        if inner is not None:
            return getattr(inner, self.name)
        return vars(instance).get(self.name, self.default)

    def __set__(self, instance: Any, value: Any) -> None:
        inner = vars(instance).get("_inner")
        if inner is None:
            vars(instance)[self.name] = value
        else:
            setattr(inner, self.name, value)


def check_inner(wraps: Any) -> None:
    """Refuse what is no DataModule of the package `pytorch_lightning`.

    Raises:
        LightningError: The message names the import to change, or what was found.
    """
    if wraps is None or isinstance(wraps, LightningDataModule):
        return
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(wraps).__mro__]
    if any(kind.startswith("lightning.") for kind in kinds):
        raise LightningError(
            f"{type(wraps).__name__} is a DataModule of the package lightning; its objects are not "
            "interchangeable with those of pytorch_lightning: change `import lightning as L` to "
            "`import pytorch_lightning as L`"
        )
    raise LightningError(
        f"wraps must be a LightningDataModule of pytorch_lightning, found {type(wraps).__name__}"
    )
