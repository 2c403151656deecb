"""Gradients of a module's training loss, example by example, for some of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchmetrics import Metric

from synque_select.errors import LightningError
from synque_select.training.training_step import call_step, loss_of
from synque_select.types.influence import GradientKind

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyModule

__all__ = ["ExampleGradients", "chosen_parameters"]

Context: TypeAlias = Callable[[], AbstractContextManager[Any]]
_MAX_ENTRIES = 1 << 25  # gradient entries in memory at a time: 128 MiB of float32
_LORA = "lora_"  # in the names that peft gives


class _Loss(nn.Module):
    """The training loss of a batch as a forward pass, which `functional_call` needs."""

    def __init__(self, module: AnyModule, context: Context) -> None:
        super().__init__()
        self.module, self._context = module, context

    def forward(self, batch: object) -> Tensor | None:
        """Return the loss; None for a batch that training skips."""
        with self._context():
            output = call_step(self.module, "training_step", batch)
        return None if output is None else loss_of(output, self.module)


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
        LightningError: There are none, or the batch has no loss.
    """
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if kind in ("auto", "lora"):
        lora = {name: p for name, p in trainable.items() if _LORA in name}
        if lora or kind == "lora":
            return "lora", _some(module, lora, "LoRA parameters, such as those of peft")
    if kind in ("auto", "last_layer"):
        ids = {id(p) for p in _last_called(module, batch)}
        last = {name: p for name, p in trainable.items() if id(p) in ids}
        if last or kind == "last_layer":
            what = "layer with trainable parameters that is called: give gradients='all'"
            return "last_layer", _some(module, last, what)
    return "all", _some(module, trainable, "trainable parameters")


def _some(
    module: nn.Module, parameters: dict[str, nn.Parameter], what: str
) -> dict[str, nn.Parameter]:
    if not parameters:
        raise LightningError(f"influence needs gradients: {type(module).__name__} has no {what}")
    return parameters


def _last_called(module: AnyModule, batch: object) -> list[nn.Parameter]:
    """Return the trainable parameters of the layer that is called last."""
    called: list[list[nn.Parameter]] = [[]]
    handles = []
    for part in module.modules():
        own = [p for p in part.parameters(recurse=False) if p.requires_grad]
        if own:
            handles.append(part.register_forward_hook(lambda *_, own=own: called.append(own)))
    try:
        with torch.no_grad():
            loss_of(call_step(module, "training_step", batch), module)
    finally:
        for handle in handles:
            handle.remove()
    return called[-1]


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
        context: Context of each call of `training_step`, such as autocast.
    """

    def __init__(
        self,
        module: AnyModule,
        parameters: Mapping[str, nn.Parameter],
        batch_of: Callable[[list[object]], object],
        batch_size: int,
        context: Context = nullcontext,
    ) -> None:
        self._loss, self._batch_of = _Loss(module, context), batch_of
        self._parameters = dict(parameters)
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
                self._reset_metrics()
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
        with torch.no_grad(), warnings.catch_warnings():
            # vmap goes example by example there, as would be done without it
            warnings.filterwarnings("ignore", message="There is a performance drop")
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
        # an embedding may have sparse gradients
        return torch.cat([part.to_dense().flatten().float() for part in parts]).unsqueeze(0)

    def _reset_metrics(self) -> None:
        """Forget what metrics have seen of a pass that failed."""
        for part in self._loss.modules():
            if isinstance(part, Metric):
                part.reset()


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
