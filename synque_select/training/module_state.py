"""Evaluation of a module in the middle of its training, which leaves it as it was."""

from __future__ import annotations

import cmath
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from synque_select.errors import LightningError
from synque_select.training.lightning_compat import lightning_module_of
from synque_select.utils.process_state import preserved_state, seeded
from synque_select.utils.wording import listed

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["unchanged_module"]

Restore = Callable[[], None]


@contextmanager
def unchanged_module(trainer: AnyTrainer, module: AnyModule, seed: int) -> Iterator[None]:
    """Run the body with a module in eval mode and without gradients, and undo what it changes.

    Restored, also after an exception: whether each submodule is in train mode; buffers and other
    tensors, lists, mappings, sets, plain values and random generators that submodules hold, such
    as counters and the states of metrics; hooks that were added; the random states of the process.
    Nothing is logged. Parameters are not copied, because that would take as much memory as the
    model; that nothing has changed them is checked by their sums. An object of a class of the
    user's, which a submodule holds, keeps what the body does to it.

    Args:
        trainer: The trainer.
        module: The module that it trains.
        seed: Random seed in the body.

    Raises:
        LightningError: The body has changed a parameter.
    """
    before = _sums(module)
    # the order of undoing is that of the context managers, reversed
    with ExitStack() as stack:
        stack.enter_context(preserved_state())
        stack.enter_context(seeded(seed))
        stack.enter_context(_restored(module))
        stack.enter_context(_without_loggers(trainer))
        _mute(module)
        module.eval()
        yield
    changed = [name for name, value in _sums(module).items() if not _is_same(before[name], value)]
    if changed:
        raise LightningError(
            f"{type(module).__name__} changes parameters when it is only evaluated: "
            f"{listed(changed)}. Training would not go on as if nothing had been evaluated: change "
            "them in on_train_batch_end, such as the moving average of another network, or do not "
            "evaluate the module in training (ReselectionCallback: policy 'static')"
        )


def _sums(module: nn.Module) -> dict[str, complex]:
    """Return the sum of each parameter, which tells whether it has changed."""
    strided = {
        name: parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.layout is torch.strided and not parameter.is_meta and not is_lazy(parameter)
    }
    # all on one device before any is read, so that the device is waited for once
    sums = [
        part.sum(dtype=torch.complex128 if part.is_complex() else torch.float64)
        for part in strided.values()
    ]
    return dict(zip(strided, (part.item() for part in sums), strict=True))


def _is_same(one: complex, other: complex) -> bool:
    return one == other or (cmath.isnan(one) and cmath.isnan(other))


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    seen: set[int] = set()
    restores = [_remember(vars(part), seen) for part in module.modules()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for restore in restores:
            restore()
        for parameter, gradient in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient


@contextmanager
def _without_loggers(trainer: AnyTrainer) -> Iterator[None]:
    loggers = trainer.loggers
    dummy = lightning_module_of(trainer, "loggers.logger").DummyLogger
    trainer.loggers = [dummy() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers


def _mute(module: nn.Module) -> None:
    """Replace what logs, or waits for other ranks, in LightningModules and metrics."""
    kind = lightning_module_of(module, "core").LightningModule
    for part in module.modules():
        if isinstance(part, kind):
            vars(part).update(log=_ignore, log_dict=_ignore, print=_ignore, all_gather=_refuse)
        if "distributed_available_fn" in vars(part):  # a metric of torchmetrics
            vars(part).update(distributed_available_fn=_is_alone)


def _ignore(*_: object, **__: object) -> None:
    """Log nothing."""


def _is_alone() -> bool:
    return False


def _refuse(*_: object, **__: object) -> None:
    raise LightningError(
        "the module calls all_gather, but it is evaluated on rank 0 alone: train on one device, or "
        "do not evaluate the module in training (ReselectionCallback: policy 'static')"
    )


def _remember(value: Any, seen: set[int]) -> Restore:
    """Return what restores a value in place, so that other references to it see it restored."""
    if isinstance(value, nn.Parameter) or id(value) in seen:
        return _ignore
    seen.add(id(value))
    if isinstance(value, Tensor):
        return _remember_tensor(value)
    if isinstance(value, nn.Module):  # such as a metric in a list, which is not a submodule
        return _remember(vars(value), seen)
    if isinstance(value, list | deque):
        return _remember_list(value, seen)
    if isinstance(value, dict):
        return _remember_mapping(value, seen)
    if isinstance(value, set):
        copy = set(value)
        return lambda: _set_to(value, copy)
    return _remember_generator(value)


def _remember_tensor(tensor: Tensor) -> Restore:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return _ignore
    copy = tensor.detach().clone()

    def restore() -> None:
        if not torch.equal(tensor, copy):
            tensor.data.copy_(copy)  # autograd does not see it, and need not

    return restore


def _remember_list(values: Any, seen: set[int]) -> Restore:
    items = list(values)
    inner = [_remember(item, seen) for item in items]

    def restore() -> None:
        if not _are_same(values, items):
            values.clear()
            values.extend(items)
        for each in inner:
            each()

    return restore


def _remember_mapping(values: dict[Any, Any], seen: set[int]) -> Restore:
    items = dict(values)
    inner = [_remember(item, seen) for item in items.values()]

    def restore() -> None:
        if not (list(values) == list(items) and _are_same(values.values(), items.values())):
            values.clear()
            values.update(items)
        for each in inner:
            each()

    return restore


def _remember_generator(value: Any) -> Restore:
    """Remember the state of a random generator; other objects are left alone."""
    if isinstance(value, torch.Generator):
        torch_state = value.get_state()
        return lambda: _ignore(value.set_state(torch_state))
    if isinstance(value, np.random.Generator):
        numpy_state = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", numpy_state)
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    return _ignore


def _set_to(value: set[Any], copy: set[Any]) -> None:
    value.clear()
    value.update(copy)


def _are_same(values: Any, others: Any) -> bool:
    return len(values) == len(others) and all(a is b for a, b in zip(values, others, strict=True))
