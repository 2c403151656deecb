"""The callbacks for Trainers of the package `pytorch_lightning`."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer

from synque_select.callbacks.correlation import BaseProxyCorrelationCallback
from synque_select.callbacks.pruning import BasePruningCallback
from synque_select.callbacks.reselection import BaseReselectionCallback
from synque_select.callbacks.selection import BaseSelectionCallback

__all__ = [
    "ProxyCorrelationCallback",
    "PruningCallback",
    "ReselectionCallback",
    "SelectionCallback",
]


class SelectionCallback(BaseSelectionCallback[Trainer, LightningModule], Callback):
    """Ranks the candidates before the fit, and trains on a mixture of the best.

    A Callback of `pytorch_lightning`; `BaseSelectionCallback` describes arguments and attributes.

    Example:
        >>> callback = SelectionCallback(proxies=["mmd"], top_k=2)
        >>> callback.ranking is None
        True
    """


class ReselectionCallback(BaseReselectionCallback[Trainer, LightningModule], Callback):
    """Changes the weights of the mixture while the model trains, as a policy decides.

    A Callback of `pytorch_lightning`; `BaseReselectionCallback` describes arguments and attributes.

    Example:
        >>> callback = ReselectionCallback(every_n_steps=50, policy="static")
        >>> callback.policy.id
        'static'
    """


class ProxyCorrelationCallback(BaseProxyCorrelationCallback[Trainer, LightningModule], Callback):
    """Stores proxy scores and validation metrics after training, and logs how they correlate.

    A Callback of `pytorch_lightning`; `BaseProxyCorrelationCallback` describes the arguments.

    Example:
        >>> callback = ProxyCorrelationCallback("val_loss", mode="min")
        >>> callback.correlations
        ()
    """


class PruningCallback(BasePruningCallback[Trainer, LightningModule], Callback):
    """Reports a metric after each validation, and ends the fit if the study's pruner says so.

    A Callback of `pytorch_lightning`; `BasePruningCallback` describes the arguments.

    Example:
        >>> import optuna
        >>> callback = PruningCallback(optuna.create_study().ask(), "val_acc")
        >>> callback.monitor
        'val_acc'
    """
