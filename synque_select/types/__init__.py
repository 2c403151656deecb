"""The plain values that travel between the stages, from candidates to run records."""

from synque_select.types.answers import AnswerEvidence
from synque_select.types.decision import Decision, Evidence, Farness
from synque_select.types.findings import (
    ContestedExample,
    DoubtfulLabel,
    Findings,
    Gap,
    Gaps,
    LabelCheck,
    LabelChecks,
    SampleSizeAgreement,
    SampleSizeAnalysis,
    ShownGap,
    ShownView,
)
from synque_select.types.influence import (
    CandidateInfluence,
    GradientKind,
    InfluenceResult,
    ValidationKind,
)
from synque_select.types.label_filter import DroppedLabel, LabelFilterRecord
from synque_select.types.label_warning import LabelWarning
from synque_select.types.mixture import Mixture
from synque_select.types.modality import Modality
from synque_select.types.ranking import (
    EncoderInfo,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
    RankOrigin,
)
from synque_select.types.run_info import RunInfo
from synque_select.types.run_record import (
    RunKind,
    RunRecord,
    is_surrogate,
    labeled_name,
    surrogate_name,
)
from synque_select.types.weight_trajectory import WeightPoint, WeightTrajectory

__all__ = [
    "AnswerEvidence",
    "CandidateInfluence",
    "ContestedExample",
    "Decision",
    "DoubtfulLabel",
    "DroppedLabel",
    "EncoderInfo",
    "Evidence",
    "Farness",
    "Findings",
    "Gap",
    "Gaps",
    "GradientKind",
    "InfluenceResult",
    "LabelCheck",
    "LabelChecks",
    "LabelFilterRecord",
    "LabelWarning",
    "Mixture",
    "Modality",
    "ProxyInfo",
    "ProxyScore",
    "RankOrigin",
    "RankedCandidate",
    "Ranking",
    "RunInfo",
    "RunKind",
    "RunRecord",
    "SampleSizeAgreement",
    "SampleSizeAnalysis",
    "ShownGap",
    "ShownView",
    "ValidationKind",
    "WeightPoint",
    "WeightTrajectory",
    "is_surrogate",
    "labeled_name",
    "surrogate_name",
]
