"""PruningCallback: ends a fit that an Optuna pruner gives up, on every rank."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from synque_select.callbacks._checks import CheckedCallback
from synque_select.errors import DependencyError, LightningError
from synque_select.training.distributed import on_rank_zero

__all__ = ["PruningCallback"]


class PruningCallback(CheckedCallback):
    """Report a metric after each validation, and end the fit where the study's pruner says so.

    At the last step of `max_steps` the pruner is not asked: the fit is complete. The step that is
    reported is the trainer's global step. With several ranks, rank 0 reports and
    asks the pruner, and all ranks end together. optuna-integration has a callback of this kind for
    the package `lightning`, whose objects pytorch_lightning does not take; it needs a call after
    the fit, this one does not.

    Args:
        trial: The `optuna.Trial`; on ranks other than 0 it may be None.
        monitor: The metric, as the model logs it in validation.

    Raises:
        DependencyError: optuna is missing.

    Example:
        >>> import optuna
        >>> trial = optuna.create_study().ask()
        >>> callback = PruningCallback(trial, "val_acc")
        >>> callback.monitor
        'val_acc'
    """

    def __init__(self, trial: Any, monitor: str) -> None:
        super().__init__()
        try:
            import optuna
        except ImportError as error:
            raise DependencyError("optuna", extra="tune", purpose="pruning") from error
        self.monitor = monitor
        self._pruned = optuna.TrialPruned
        self._trial = trial
        self._step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report and ask.

        Raises:
            TrialPruned: The pruner ends the trial; on every rank.
            LightningError: The metric was not logged.
        """
        step = trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or step == self._step:
            return
        self._step = step
        found = trainer.callback_metrics
        if self.monitor not in found:
            raise LightningError(
                f"PruningCallback: no metric {self.monitor!r} was logged in validation; logged "
                f"are: {', '.join(sorted(found)) or 'none'}"
            )
        value = float(found[self.monitor])
        is_last = step == trainer.max_steps
        if on_rank_zero(trainer, lambda: {"prune": self._ask(value, step, is_last)})["prune"]:
            raise self._pruned(f"pruned at step {step}, {self.monitor} = {value:.4g}")

    def _ask(self, value: float, step: int, is_last: bool) -> bool:
        self._trial.report(value, step)
        return not is_last and bool(self._trial.should_prune())
