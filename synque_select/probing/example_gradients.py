"""Gradients of a module's training loss, example by example, for some of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchmetrics import Metric

from synque_select.errors import LightningError
from synque_select.training.lightning_compat import takes_batch_number
from synque_select.types.influence import GradientKind

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["ExampleGradients", "Parameters", "as_in_evaluation", "chosen_parameters"]

Parameters: TypeAlias = Mapping[str, nn.Parameter]
_MAX_ENTRIES = 1 << 25  # gradient entries in memory at a time: 128 MiB of float32
_LORA = "lora_"  # in the names that peft gives


class _Loss(nn.Module):
    """The training loss of a batch as a forward pass, which `functional_call` needs."""

    def __init__(self, module: AnyModule, *, may_skip: bool = True) -> None:
        super().__init__()
        self._may_skip = may_skip
        self.module = module
        self._takes_index = takes_batch_number(module, "training_step")

    def forward(self, batch: object) -> Tensor | None:
        """Return the loss; None for a batch that training skips."""
        step: Callable[..., object] = self.module.training_step
        output = step(batch, 0) if self._takes_index else step(batch)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if output is None and self._may_skip:
            return None
        if not isinstance(loss, Tensor):
            raise LightningError(
                f"{type(self.module).__name__}.training_step returned {type(loss).__name__}, but "
                'influence needs the loss: a tensor, or a mapping with the key "loss"'
            )
        return loss


@contextmanager
def as_in_evaluation(module: AnyModule) -> Iterator[None]:
    """Take losses in evaluation mode: no dropout, no update of statistics, nothing logged.

    Modes and logging methods are restored; metrics that `training_step` updates are reset.
    """
    were_training = [part for part in module.modules() if part.training]
    methods = {name: vars(module).get(name) for name in ("log", "log_dict")}
    module.eval()
    for name in methods:
        setattr(module, name, _log_nothing)
    try:
        yield
    finally:
        for name, method in methods.items():
            if method is None:
                delattr(module, name)
            else:
                setattr(module, name, method)
        for part in were_training:
            part.training = True
        _reset_metrics(module)


def _log_nothing(*_: object, **__: object) -> None:
    pass


def _reset_metrics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, Metric):
            part.reset()


def chosen_parameters(
    module: AnyModule, kind: GradientKind | Literal["auto"], batch: object
) -> tuple[GradientKind, dict[str, nn.Parameter]]:
    """Return the parameters whose gradients are taken.

    Args:
        module: The module, in evaluation mode.
        kind: "lora" for the LoRA parameters of peft, "last_layer" for those of the module with
            trainable parameters of its own that is called last, "all" for all trainable ones, and
            "auto" for the first of these that exists.
        batch: A batch whose loss is computed, to see which layer is called last.

    Returns:
        The kind, and the parameters by name.

    Raises:
        LightningError: There are none.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    lora = {name: p for name, p in trainable.items() if _LORA in name}
    if kind == "lora" or (kind == "auto" and lora):
        return "lora", _some(module, lora, "LoRA parameters, such as those of peft")
    if kind == "all":
        return "all", _some(module, trainable, "trainable parameters")
    layer = _last_called(module, batch)
    last = {} if layer is None else {id(p) for p in layer.parameters(recurse=False)}
    chosen = {name: p for name, p in trainable.items() if id(p) in last}
    return "last_layer", _some(module, chosen, "layer with trainable parameters that is called")


def _some(
    module: nn.Module, parameters: dict[str, nn.Parameter], what: str
) -> dict[str, nn.Parameter]:
    if not parameters:
        raise LightningError(f"{type(module).__name__} has no {what}: influence needs gradients")
    return parameters


def _last_called(module: AnyModule, batch: object) -> nn.Module | None:
    called: list[nn.Module] = []
    handles = [
        part.register_forward_hook(lambda layer, *_: called.append(layer))
        for part in module.modules()
        if any(p.requires_grad for p in part.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            _Loss(module, may_skip=False)(batch)
    finally:
        for handle in handles:
            handle.remove()
    return called[-1] if called else None


class ExampleGradients:
    """Computes (n, d) gradients of the loss of single examples.

    Each example is a batch of its own, so that it is not padded to the length of others. Batches of
    the same shapes go through the model together (`torch.func.vmap`) where the training step allows
    it: all that they hold are tensors, and no operation needs the values of a tensor. The gradient
    of an example that training skips, because the step returns None for it, is 0.

    Args:
        module: The module, in evaluation mode.
        parameters: The parameters, by name.
        batch_of: Makes a batch of examples, on the module's device.
        batch_size: Most examples per batch; fewer where gradients are long.
    """

    def __init__(
        self,
        module: AnyModule,
        parameters: Parameters,
        batch_of: Callable[[list[object]], object],
        batch_size: int,
    ) -> None:
        self._loss, self._parameters, self._batch_of = _Loss(module), dict(parameters), batch_of
        self.n_parameters = sum(p.numel() for p in parameters.values())
        self.batch_size = max(1, min(batch_size, _MAX_ENTRIES // self.n_parameters))
        self._vectorized = True

    def __call__(self, examples: Sequence[object]) -> Tensor:
        """Return (n, d) float32 gradients of at most `batch_size` examples."""
        batches = [self._batch_of([example]) for example in examples]
        rows: dict[int, Tensor] = {}
        for places in _of_one_form(batches):
            alike = [batches[place] for place in places]
            rows.update(zip(places, self._of_alike(alike), strict=True))
        return torch.stack([rows[place] for place in range(len(batches))])

    def _of_alike(self, batches: list[object]) -> Tensor:
        """Return (n, d) gradients of batches of the same form."""
        if self._vectorized and len(batches) > 1:
            leaves, spec = _leaves(batches)
            try:
                if leaves is not None:
                    return self._together(leaves, spec)
            except (RuntimeError, ValueError, TypeError):
                # not every operation can be vectorized; what is wrong otherwise fails again below
                _reset_metrics(self._loss)
            self._vectorized = False
        return torch.cat([self._alone(batch) for batch in batches])

    def _together(self, tensors: list[Tensor], spec: Any) -> Tensor:
        prefix = "module."
        chosen = {prefix + name: p.detach() for name, p in self._parameters.items()}

        def loss(parameters: dict[str, Tensor], *parts: Tensor) -> Tensor:
            batch = tree_unflatten(list(parts), spec)
            value: Tensor = functional_call(self._loss, parameters, (batch,))
            return value

        in_dims = (None, *[0] * len(tensors))
        # gradients of the others are not needed; `grad` counts inside of `no_grad`
        with torch.no_grad():
            per_example = vmap(grad(loss), in_dims=in_dims, randomness="different")
            gradients = per_example(chosen, *tensors)
        return torch.cat([gradients[name].flatten(1).float() for name in chosen], dim=1)

    def _alone(self, batch: object) -> Tensor:
        chosen = list(self._parameters.values())
        with torch.enable_grad():
            loss = self._loss(batch)
            if loss is None:
                return torch.zeros(1, self.n_parameters, device=chosen[0].device)
            parts = torch.autograd.grad(loss, chosen, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten().float() for part in parts]).unsqueeze(0)


def _of_one_form(batches: Sequence[object]) -> list[list[int]]:
    """Return the positions of the batches of each form: structure, shapes and types."""
    places: dict[str, list[int]] = {}
    for place, batch in enumerate(batches):
        leaves, spec = tree_flatten(batch)
        shapes = [
            (tuple(x.shape), str(x.dtype)) if isinstance(x, Tensor) else str(type(x))
            for x in leaves
        ]
        places.setdefault(f"{spec}{shapes}", []).append(place)
    return list(places.values())


def _leaves(batches: Sequence[object]) -> tuple[list[Tensor] | None, Any]:
    """Return the tensors of batches of one form, (n, …), and its structure; None for others."""
    leaves = [tree_flatten(batch)[0] for batch in batches]
    spec = tree_flatten(batches[0])[1]
    are_tensors = bool(leaves[0]) and all(isinstance(leaf, Tensor) for leaf in leaves[0])
    if not are_tensors:
        return None, spec
    return [torch.stack(parts) for parts in zip(*leaves, strict=True)], spec
