"""Callbacks for pytorch_lightning's Trainer."""

from synque_select.callbacks.correlation import ProbeRunner, ProxyCorrelationCallback
from synque_select.callbacks.pruning import PruningCallback
from synque_select.callbacks.selection import SelectionCallback

__all__ = ["ProbeRunner", "ProxyCorrelationCallback", "PruningCallback", "SelectionCallback"]
