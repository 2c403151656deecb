"""synque-select: rank candidate synthetic datasets against a small unannotated real sample.

Everything a training script needs is here by name; the module that a name stands in is imported
when the name is first used, so that `import synque_select` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synque_select.callbacks.correlation import ProxyCorrelationCallback
    from synque_select.callbacks.selection import SelectionCallback
    from synque_select.data.candidate import Candidate, RealSample
    from synque_select.data.sources import load_candidates, load_real
    from synque_select.encoders import BaseEncoder
    from synque_select.errors import SynqueError
    from synque_select.lens.config import LensConfig
    from synque_select.probing.probes import ProbeSweep
    from synque_select.proxies.base import BaseProxy
    from synque_select.proxies.registry import register_proxy
    from synque_select.records.ranking_file import load_ranking, save_ranking
    from synque_select.selection.ranking import rank
    from synque_select.training.datamodule import SynqueDataModule
    from synque_select.tuning import TuneOptions, tune_mixture
    from synque_select.types import Mixture, Ranking

__all__ = [
    "BaseEncoder",
    "BaseProxy",
    "Candidate",
    "LensConfig",
    "Mixture",
    "ProbeSweep",
    "ProxyCorrelationCallback",
    "Ranking",
    "RealSample",
    "SelectionCallback",
    "SynqueDataModule",
    "SynqueError",
    "TuneOptions",
    "load_candidates",
    "load_ranking",
    "load_real",
    "rank",
    "register_proxy",
    "save_ranking",
    "tune_mixture",
]

_MODULES = {
    "BaseEncoder": "encoders",
    "BaseProxy": "proxies.base",
    "Candidate": "data.candidate",
    "LensConfig": "lens.config",
    "Mixture": "types",
    "ProbeSweep": "probing.probes",
    "ProxyCorrelationCallback": "callbacks.correlation",
    "Ranking": "types",
    "RealSample": "data.candidate",
    "SelectionCallback": "callbacks.selection",
    "SynqueDataModule": "training.datamodule",
    "SynqueError": "errors",
    "TuneOptions": "tuning",
    "load_candidates": "data.sources",
    "load_ranking": "records.ranking_file",
    "load_real": "data.sources",
    "rank": "selection.ranking",
    "register_proxy": "proxies.registry",
    "save_ranking": "records.ranking_file",
    "tune_mixture": "tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'synque_select' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"synque_select.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
