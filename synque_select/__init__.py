"""synque-select: rank candidate synthetic datasets against a small unlabeled real sample.

Everything that a training script or an extension needs can be imported from here. A module is
imported when one of its names is first used, so that `import synque_select` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.callbacks.pytorch_lightning import (
        ProxyCorrelationCallback,
        ReselectionCallback,
        SelectionCallback,
    )
    from synque_select.data.candidate import Candidate, RealSample
    from synque_select.data.readers import BaseReader, register_reader
    from synque_select.data.sources import load_candidates, load_real
    from synque_select.encoders.base import BaseEncoder
    from synque_select.encoders.registry import register_encoder
    from synque_select.errors import SynqueError
    from synque_select.hf import HFMixture
    from synque_select.lens.config import LensConfig
    from synque_select.llm.base import BaseLLM
    from synque_select.llm.registry import register_engine
    from synque_select.probing.influence import InfluenceOptions, measure_influence
    from synque_select.probing.probes import ProbeSweep
    from synque_select.proxies.base import BaseProxy, ProxyInput, ProxyScores
    from synque_select.proxies.registry import register_proxy
    from synque_select.records.experiment_result import ExperimentResult
    from synque_select.records.ranking_file import load_ranking, save_ranking
    from synque_select.records.runs import Run, Runs
    from synque_select.records.tuning_result import TuningResult
    from synque_select.selection.mixture import MixtureOptions
    from synque_select.selection.scorer import Scorer, rank
    from synque_select.training.curriculum import Curriculum
    from synque_select.training.pytorch_lightning import SynqueDataModule
    from synque_select.training.surrogate import SurrogateOptions, surrogate_validation
    from synque_select.tuning import TuneOptions, tune_mixture
    from synque_select.types import Decision, InfluenceResult, Mixture, Ranking

    __version__: str

__all__ = [
    "BaseEncoder",
    "BaseLLM",
    "BaseProxy",
    "BaseReader",
    "Candidate",
    "Curriculum",
    "Decision",
    "ExperimentResult",
    "HFMixture",
    "InfluenceOptions",
    "InfluenceResult",
    "LensConfig",
    "Mixture",
    "MixtureOptions",
    "ProbeSweep",
    "ProxyCorrelationCallback",
    "ProxyInput",
    "ProxyScores",
    "Ranking",
    "RealSample",
    "ReselectionCallback",
    "Run",
    "Runs",
    "Scorer",
    "SelectionCallback",
    "SurrogateOptions",
    "SynqueDataModule",
    "SynqueError",
    "TuneOptions",
    "TuningResult",
    "load_candidates",
    "load_ranking",
    "load_real",
    "measure_influence",
    "rank",
    "register_encoder",
    "register_engine",
    "register_proxy",
    "register_reader",
    "save_ranking",
    "surrogate_validation",
    "tune_mixture",
]

_MODULES = {
    "BaseEncoder": "encoders.base",
    "BaseLLM": "llm.base",
    "BaseProxy": "proxies.base",
    "BaseReader": "data.readers",
    "Candidate": "data.candidate",
    "Curriculum": "training.curriculum",
    "Decision": "types",
    "ExperimentResult": "records.experiment_result",
    "HFMixture": "hf",
    "InfluenceOptions": "probing.influence",
    "InfluenceResult": "types",
    "LensConfig": "lens.config",
    "Mixture": "types",
    "MixtureOptions": "selection.mixture",
    "ProbeSweep": "probing.probes",
    "ProxyCorrelationCallback": "callbacks.pytorch_lightning",
    "ProxyInput": "proxies.base",
    "ProxyScores": "proxies.base",
    "Ranking": "types",
    "RealSample": "data.candidate",
    "ReselectionCallback": "callbacks.pytorch_lightning",
    "Run": "records.runs",
    "Runs": "records.runs",
    "Scorer": "selection.scorer",
    "SelectionCallback": "callbacks.pytorch_lightning",
    "SurrogateOptions": "training.surrogate",
    "SynqueDataModule": "training.pytorch_lightning",
    "SynqueError": "errors",
    "TuneOptions": "tuning",
    "TuningResult": "records.tuning_result",
    "load_candidates": "data.sources",
    "load_ranking": "records.ranking_file",
    "load_real": "data.sources",
    "measure_influence": "probing.influence",
    "rank": "selection.scorer",
    "register_encoder": "encoders.registry",
    "register_engine": "llm.registry",
    "register_proxy": "proxies.registry",
    "register_reader": "data.readers",
    "save_ranking": "records.ranking_file",
    "surrogate_validation": "training.surrogate",
    "tune_mixture": "tuning",
}


_of_modules = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("synque-select")
    return _of_modules(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
