"""The plain values that travel between the stages, from candidates to run records."""

from synque_select.types.candidate import Candidate, RealSample
from synque_select.types.examples import Examples, MapDataset, Views
from synque_select.types.mixture import Mixture
from synque_select.types.ranking import (
    EncoderInfo,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
)
from synque_select.types.run_record import RunKind, RunRecord

__all__ = [
    "Candidate",
    "EncoderInfo",
    "Examples",
    "MapDataset",
    "Mixture",
    "ProxyInfo",
    "ProxyScore",
    "RankedCandidate",
    "Ranking",
    "RealSample",
    "RunKind",
    "RunRecord",
    "Views",
]
