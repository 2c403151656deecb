"""Callbacks for the Trainer of `pytorch_lightning`; `synque_select.lightning` has the others.

A module is imported when one of its names is first used, because what both packages share must
not import either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.callbacks.correlation import ProbeRunner
    from synque_select.callbacks.pytorch_lightning import (
        ProxyCorrelationCallback,
        PruningCallback,
        ReselectionCallback,
        SelectionCallback,
    )

__all__ = [
    "ProbeRunner",
    "ProxyCorrelationCallback",
    "PruningCallback",
    "ReselectionCallback",
    "SelectionCallback",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ProbeRunner": "correlation",
        "ProxyCorrelationCallback": "pytorch_lightning",
        "PruningCallback": "pytorch_lightning",
        "ReselectionCallback": "pytorch_lightning",
        "SelectionCallback": "pytorch_lightning",
    },
)
