"""The ranks of a study, connected before the first fit: they must know what to fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from synque_select.errors import LightningError
from synque_select.training.distributed import connect, on_rank_zero, report_failure
from synque_select.training.lightning_compat import lightning_module_of, trainer_class
from synque_select.training.short_fit import TrainerOptions, quiet_fits

__all__ = ["Ranks"]

_T = TypeVar("_T")


class Ranks:
    """One process, or those that the strategy of the fits starts; they stay for all fits.

    Args:
        part: An object of the package of Lightning that trains.
        trainer_options: Arguments of the fits' Trainer.

    Raises:
        LightningError: The strategy ends its processes with each fit.
    """

    def __init__(self, part: object, trainer_options: TrainerOptions) -> None:
        with quiet_fits():
            self._trainer = trainer_class(part)(
                **{
                    **trainer_options,
                    # it only connects the ranks: what the fits log and save is theirs
                    "logger": False,
                    "enable_checkpointing": False,
                    "enable_progress_bar": False,
                }
            )
        if self._trainer.world_size > 1:
            self._open()

    def _open(self) -> None:
        strategy = self._trainer.strategy
        launcher = strategy.launcher
        launchers = lightning_module_of(strategy, "strategies.launchers")
        if isinstance(launcher, launchers._MultiProcessingLauncher):
            raise LightningError(
                f"{type(strategy).__name__} starts new processes for every fit, but the ranks of a "
                "study run all of its fits: use strategy='ddp' in a script, torchrun, or devices=1"
            )
        if launcher is None:
            strategy.setup_environment()
        else:
            launcher.launch(strategy.setup_environment, trainer=self._trainer)
        connect(self._trainer)

    @property
    def is_zero(self) -> bool:
        """Whether this process samples and stores the records."""
        return self._trainer.is_global_zero

    @property
    def n_ranks(self) -> int:
        """Number of processes that fit together."""
        return self._trainer.world_size

    def share(self, work: Callable[[], _T]) -> _T:
        """Do the work on rank 0, and return its result, plain values, on all ranks."""
        return on_rank_zero(self._trainer, work)

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks, which may be waiting in `share`."""
        report_failure(self._trainer, error)
