"""A short fit that is looked at in a few of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from synque_select.training.comparability import module_sha256
from synque_select.training.drawn_examples import DrawnExamples
from synque_select.training.lightning_compat import lightning_module_of
from synque_select.training.short_fit import (
    TrainerOptions,
    drawn_sha256,
    first_batch,
    train_and_measure,
)
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["AdamMoment", "CheckpointedFit", "adam_moments"]

_DELAY_S = 2.0


@dataclass
class CheckpointedFit:
    """Trains a module once, and calls a function at each checkpoint.

    The function sees everything as it is after this step: weights, buffers, frozen parameters that
    callbacks change, schedules that the module follows, and the state of the optimizer.

    Args:
        module: A fresh module.
        data: What it is trained on.
        steps: Optimizer steps of the checkpoints, rising; the last one ends the fit.
        trainer_options: Arguments of the Trainer.
    """

    module: AnyModule
    data: AnySynqueDataModule
    steps: Sequence[int]
    trainer_options: TrainerOptions
    _rates: list[float] = field(default_factory=list, init=False)
    _n_seen: int = field(default=0, init=False)

    def identity(self) -> list[object]:
        """Return what affects the fit, for `content_sha256`; call it before `run`."""
        loader = self.data.mixture_loader()
        return [
            module_sha256(self.module),
            drawn_sha256(loader, self.steps[-1], self.trainer_options, DrawnExamples()),
            first_batch(loader),
            [*self.steps, loader.batch_size],
            {name: str(value) for name, value in self.trainer_options.items()},
        ]

    def run(self, look: Callable[[AnyTrainer, int, float], None], *, progress: bool) -> None:
        """Train the module; the caller seeds the random generators.

        Args:
            look: Takes the Trainer, the number of the checkpoint, and the mean learning rate since
                the checkpoint before it. It must leave the module as it was.
            progress: Whether to show the progress of the fit.

        Raises:
            LightningError: Training ended before the last step.
        """
        bar = ProgressBar(
            total=self.steps[-1],
            desc="fit",
            unit="step",
            delay=_DELAY_S,
            leave=False,
            disable=not progress,
        )

        def after_batch(trainer: AnyTrainer, *_: object) -> None:
            bar.update(trainer.global_step - bar.n)
            if self._n_seen < len(self.steps) and trainer.global_step >= self.steps[self._n_seen]:
                look(trainer, self._n_seen, fmean(self._rates))
                self._n_seen, self._rates = self._n_seen + 1, []

        callback = lightning_module_of(self.data, "callbacks").LambdaCallback(
            on_train_batch_start=self._note_rate, on_train_batch_end=after_batch
        )
        own = self.trainer_options.get("callbacks") or []
        options = {**self.trainer_options, "callbacks": [*own, callback]}
        # callbacks that the module brings, such as early stopping, would end the fit
        self.module.configure_callbacks = list  # type: ignore[method-assign]
        with bar:
            train_and_measure(self.module, self.data, self.steps[-1], options, stages=())

    def _note_rate(self, trainer: AnyTrainer, *_: object) -> None:
        self._rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))


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


def adam_moments(trainer: AnyTrainer) -> dict[str, AdamMoment]:
    """Return the moment of each parameter, by name, that an optimizer of Adam's family trains."""
    module = trainer.lightning_module
    assert module is not None
    names = {id(p): name for name, p in module.named_parameters()}
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
