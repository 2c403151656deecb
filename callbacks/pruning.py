"""What both classes of PruningCallback share: a fit ends when an Optuna pruner stops the trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_warn

from synque_select.callbacks._checks import CheckedCallback
from synque_select.errors import DependencyError, LightningError
from synque_select.training.bookkeeping import reason_of
from synque_select.training.distributed import on_rank_zero
from synque_select.training.lightning_compat import ModuleT, TrainerT

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["BasePruningCallback"]


class BasePruningCallback(CheckedCallback[TrainerT, ModuleT]):
    """Reports a metric after each validation, and ends the fit if the study's pruner says so.

    The reported step is the trainer's global step. At the last step of `max_steps` the pruner is
    not asked, because the fit is complete. With several ranks, rank 0 reports and asks the pruner,
    and all ranks end together. The similar callback of optuna-integration is for the package
    `lightning` alone and needs a call after the fit; this one does not.

    Args:
        trial: The `optuna.Trial`; may be None on ranks other than 0.
        monitor: The validation metric, as the model logs it.

    Raises:
        DependencyError: optuna is missing.

    Example:
        >>> import optuna
        >>> from synque_select.callbacks import PruningCallback
        >>> trial = optuna.create_study().ask()
        >>> callback = PruningCallback(trial, "val_acc")
        >>> callback.monitor
        'val_acc'
    """

    def __init__(self, trial: Trial | None, monitor: str) -> None:
        super().__init__()
        try:
            import optuna
        except ImportError as error:
            raise DependencyError("optuna", extra="tune", purpose="pruning") from error
        self.monitor = monitor
        self._pruned = optuna.TrialPruned
        self._storage_error = optuna.exceptions.StorageInternalError
        self._trial = trial
        self._step = -1

    def on_validation_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Report the metric and ask the pruner.

        Raises:
            TrialPruned: The pruner ends the trial; raised on every rank.
            LightningError: The metric was not logged.
        """
        step = trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or step == self._step:
            return
        self._step = step
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise LightningError(
                f"PruningCallback: no metric {self.monitor!r} was logged in validation; logged "
                f"are: {', '.join(sorted(metrics)) or 'none'}"
            )
        value = float(metrics[self.monitor])
        is_last = step == trainer.max_steps
        if on_rank_zero(trainer, lambda: self._is_pruned(value, step, is_last)):
            raise self._pruned(f"pruned at step {step}, {self.monitor} = {value:.4g}")

    def _is_pruned(self, value: float, step: int, is_last: bool) -> bool:
        assert self._trial is not None
        try:
            self._trial.report(value, step)
            return not is_last and self._trial.should_prune()
        except (self._storage_error, OSError) as error:
            # a storage that is full or locked for a moment must not cost the training so far
            rank_zero_warn(
                f"step {step} was not reported to the study, so it was not asked whether to prune: "
                f"{reason_of(error)}"
            )
            return False
