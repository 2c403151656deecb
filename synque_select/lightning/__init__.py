"""Callbacks and DataModule for users of the package `lightning`: `import lightning as L`.

`pytorch_lightning` and `lightning` contain the same classes twice, and their objects are not
interchangeable. These classes are for Trainers of `lightning.pytorch`; those of the same names in
`synque_select` are for Trainers of `pytorch_lightning`. Everything else is in `synque_select`.
"""

from __future__ import annotations

from synque_select.errors import DependencyError

try:
    import lightning.pytorch  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError(
        "lightning", extra="lightning", purpose="synque_select.lightning"
    ) from error

from synque_select.callbacks.lightning import (
    ProxyCorrelationCallback,
    PruningCallback,
    ReselectionCallback,
    SelectionCallback,
)
from synque_select.experiment.lightning import TaskDataModule
from synque_select.training.lightning import SynqueDataModule

__all__ = [
    "ProxyCorrelationCallback",
    "PruningCallback",
    "ReselectionCallback",
    "SelectionCallback",
    "SynqueDataModule",
    "TaskDataModule",
]
