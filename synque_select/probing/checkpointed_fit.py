"""A short fit whose checkpoints are kept, and looked at when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from synque_select.errors import LightningError
from synque_select.probing.tensor_files import TensorFiles
from synque_select.training.comparability import content_sha256
from synque_select.training.lightning_compat import lightning_module_of
from synque_select.training.short_fit import TrainerOptions, train_and_measure
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["AdamMoment", "Checkpoint", "CheckpointedFit"]

_DELAY_S = 2.0
_T = TypeVar("_T")


class AdamMoment(NamedTuple):
    """What an optimizer of Adam's family knows of a parameter.

    Attributes:
        second: Running mean of squared gradients.
        step: Number of its steps.
        beta2: Decay of the running mean.
        eps: Adam's ε.
    """

    second: Tensor
    step: float
    beta2: float
    eps: float


@dataclass(frozen=True)
class Checkpoint:
    """What is known at a checkpoint, besides the weights.

    Args:
        step: The optimizer step.
        rate: Mean learning rate since the checkpoint before it.
        moments: Parameter name to its moment, for optimizers of Adam's family.
    """

    step: int
    rate: float
    moments: Mapping[str, AdamMoment]


@dataclass
class CheckpointedFit(Generic[_T]):
    """Trains once, and calls a function with the module as it was at each checkpoint.

    The function is called at the end of the fit, when everything that belongs to the fit is still
    there: the Trainer, its device, what the module has made in `setup`. Where all checkpoints are
    kept from an earlier run, the fit ends after one step, and the weights are theirs.

    Args:
        files: Where checkpoints are kept.
        key: Hash of everything that affects the fit.
        steps: Optimizer steps of the checkpoints, rising; the last one ends the fit.
        look: Takes the Trainer and a checkpoint; the Trainer's module has its weights.
        progress: Whether to show the progress of the fit.
    """

    files: TensorFiles
    key: str
    steps: Sequence[int]
    look: Callable[[AnyTrainer, Checkpoint], _T]
    progress: bool
    _rates: list[float] = field(default_factory=list, init=False)
    _n_saved: int = field(default=0, init=False)
    _seen: list[_T] = field(default_factory=list, init=False)

    def run(
        self, module: AnyModule, data: AnySynqueDataModule, trainer_options: TrainerOptions
    ) -> list[_T]:
        """Train the module, unless all checkpoints are kept, and look at each.

        Args:
            module: A fresh module.
            data: What to train on.
            trainer_options: Arguments of the Trainer.

        Returns:
            What `look` returned for each checkpoint.

        Raises:
            LightningError: Training ended before the last step, or a kept checkpoint is gone.
        """
        is_kept = all(self.files.has(self._key_of(i)) for i in range(len(self.steps)))
        bar = ProgressBar(
            total=self.steps[-1],
            desc="fit",
            unit="step",
            delay=_DELAY_S,
            leave=False,
            disable=is_kept or not self.progress,
        )
        callback = lightning_module_of(data, "callbacks").LambdaCallback(
            on_train_batch_start=self._note_rate,
            on_train_batch_end=_nothing if is_kept else partial(self._after_batch, bar),
            on_train_end=partial(self._at_end, bar),
        )
        own = trainer_options.get("callbacks") or []
        # callbacks that the module brings, such as early stopping, would end the fit
        module.configure_callbacks = list  # type: ignore[method-assign]
        with bar:
            train_and_measure(
                module,
                data,
                self.steps[-1],
                {**trainer_options, "callbacks": [*own, callback]},
                stages=(),
                stop_after=0 if is_kept else None,
            )
        return self._seen

    def _key_of(self, number: int) -> str:
        return content_sha256([self.key, number])

    def _note_rate(self, trainer: AnyTrainer, *_: object) -> None:
        self._rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))

    def _after_batch(self, bar: ProgressBar, trainer: AnyTrainer, *_: object) -> None:
        bar.update(trainer.global_step - bar.n)
        if self._n_saved < len(self.steps) and trainer.global_step >= self.steps[self._n_saved]:
            self._save(trainer)
            self._n_saved, self._rates = self._n_saved + 1, []

    def _save(self, trainer: AnyTrainer) -> None:
        tensors = {f"state.{name}": tensor.detach() for name, tensor in _state_of(trainer).items()}
        for name, moment in _moments_of(trainer).items():
            tensors[f"second.{name}"] = moment.second
            tensors[f"adam.{name}"] = torch.tensor(moment[1:], dtype=torch.float64)
        tensors["rate"] = torch.tensor(fmean(self._rates), dtype=torch.float64)
        self.files.keep(
            self._key_of(self._n_saved), {name: tensor.cpu() for name, tensor in tensors.items()}
        )

    def _at_end(self, bar: ProgressBar, trainer: AnyTrainer, *_: object) -> None:
        bar.close()
        for number, step in enumerate(self.steps):
            kept = self.files.load(self._key_of(number))
            if kept is None:
                raise LightningError(
                    f"the checkpoint of step {step} is missing or damaged in the cache: give the "
                    "same command again, which trains it anew"
                )
            with torch.no_grad():
                for name, tensor in _state_of(trainer).items():
                    tensor.copy_(kept[f"state.{name}"])
            seen = self.look(trainer, Checkpoint(step, float(kept["rate"]), _moments_in(kept)))
            self._seen.append(seen)


def _nothing(*_: object) -> None:
    pass


def _state_of(trainer: AnyTrainer) -> dict[str, Tensor]:
    """Return what a fit changes in the module: trainable parameters and buffers."""
    module = trainer.lightning_module
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return {**trained, **dict(module.named_buffers())}


def _moments_of(trainer: AnyTrainer) -> dict[str, AdamMoment]:
    names = {id(p): name for name, p in trainer.lightning_module.named_parameters()}
    moments = {}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"] if "betas" in group else ():
                state = optimizer.state.get(parameter, {})
                if "exp_avg_sq" in state and id(parameter) in names:
                    moments[names[id(parameter)]] = AdamMoment(
                        state["exp_avg_sq"].detach(),
                        float(state["step"]),
                        float(group["betas"][1]),
                        float(group["eps"]),
                    )
    return moments


def _moments_in(kept: Mapping[str, Tensor]) -> dict[str, AdamMoment]:
    prefix = "second."
    names = [name.removeprefix(prefix) for name in kept if name.startswith(prefix)]
    return {n: AdamMoment(kept[prefix + n], *kept[f"adam.{n}"].tolist()) for n in names}
