"""What a page is made of: the content of the files in a run's directory, or beside a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.correlation_file import load_correlations
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.records.findings_file import load_findings
from synque_select.records.influence_file import INFLUENCE_FILE, load_influence
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import file_beside, read_json
from synque_select.records.run_info import load_run_info
from synque_select.records.runs import Runs
from synque_select.records.weights_file import WEIGHTS, load_weights
from synque_select.types import Findings, InfluenceResult, Ranking, RunInfo, WeightTrajectory
from synque_select.utils.json_types import JsonObject
from synque_select.utils.validation import kind_of
from synque_select.utils.wording import counted

__all__ = ["RunContent", "load_run"]

_FINDINGS = ("labels.json", "gaps.json", "real_size.json")
_FILES = (
    "ranking.json",
    *_FINDINGS,
    "result.json",
    "study.json",
    WEIGHTS,
    INFLUENCE_FILE,
    "correlations.json",
    "map.json",
    "examples.json",
)
_MAX_RUNS_NAMED = 5


@dataclass(frozen=True)
class RunContent:
    """The content of a run; a part that the run does not have is None or empty.

    Args:
        name: Name of the run.
        ranking: The ranking.
        findings: Gaps, label checks, sample-size analysis.
        result: The result of an experiment.
        correlations: Proxies against validation, one entry per comparability key and kind.
        study: The content of `study.json`.
        weights: The weights of a training in which they change.
        influence: The influence of the candidates on validation.
        map: The content of `map.json`.
        examples: The content of `examples.json`.
        files: Part to the file that it was read from.
        info: How the run, or else its ranking, was made.
        page: Where the page belongs; None if the run is not in files.
        sampling: The content of `sampling.json`: how examples were drawn if this is not the
            default.
    """

    name: str
    ranking: Ranking | None = None
    findings: Findings = field(default_factory=Findings)
    result: ExperimentResult | None = None
    correlations: tuple[KeyCorrelations, ...] = ()
    study: JsonObject | None = None
    weights: WeightTrajectory | None = None
    influence: InfluenceResult | None = None
    map: JsonObject | None = None
    examples: JsonObject | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    info: RunInfo | None = None
    page: Path | None = None
    sampling: JsonObject | None = None

    @property
    def share_of(self) -> str:
        """What a weight is a share of: the draws, or the tokens with a limit if there is one."""
        sampling = self.sampling or {}
        if sampling.get("weigh_by") != "tokens":
            return "the training draws"
        limit = sampling.get("max_length")
        return (
            f"the training tokens, at most {limit} per example"
            if limit
            else ("the training tokens")
        )


def load_run(path: str | Path) -> RunContent:
    """Read what a page is made of.

    Args:
        path: The directory of a run, or the JSON file of a ranking with its findings beside it.

    Raises:
        RecordError: The path does not exist or has nothing to report, or a file is damaged; the
            message names it.
    """
    path = Path(path)
    if path.is_file() and path.name != "ranking.json":
        return _beside_ranking(path)
    path = path.parent if path.is_file() else path
    if not path.is_dir():
        raise RecordError(
            f"{path} does not exist: allowed is the directory of a run or the file of a ranking"
        )
    files = {name: path / name for name in _FILES if (path / name).is_file()}
    if not files:
        raise RecordError(
            f"{path}: none of {', '.join(_FILES)}: nothing to report{_runs_inside(path)}"
        )
    folder, sampling = path.resolve(), path / "sampling.json"
    ranking = load_ranking(path) if "ranking.json" in files else None
    return RunContent(
        name=f"{folder.parent.name} / {folder.name}",
        ranking=ranking,
        findings=load_findings(path),
        result=load_result(path) if "result.json" in files else None,
        correlations=tuple(load_correlations(path)) if "correlations.json" in files else (),
        study=_object(files.get("study.json")),
        weights=load_weights(path) if WEIGHTS in files else None,
        influence=load_influence(path) if INFLUENCE_FILE in files else None,
        map=_object(files.get("map.json")),
        examples=_object(files.get("examples.json")),
        files=files,
        info=load_run_info(path) or (None if ranking is None else ranking.made_by),
        page=path / "report.html",
        sampling=_object(sampling if sampling.is_file() else None),
    )


def _beside_ranking(path: Path) -> RunContent:
    files = {name: file_beside(path, name) for name in _FINDINGS}
    ranking = load_ranking(path)
    return RunContent(
        name=path.name,
        ranking=ranking,
        findings=load_findings(path.parent, ranking=path.name),
        files={"ranking.json": path, **{n: file for n, file in files.items() if file.is_file()}},
        info=ranking.made_by,
        page=file_beside(path, "report.html"),
    )


def _object(path: Path | None) -> JsonObject | None:
    if path is None:
        return None
    state = read_json(path)
    if not isinstance(state, Mapping):
        raise RecordError(f"{path} is damaged: found {kind_of(state)}; allowed is an object")
    return state


def _runs_inside(folder: Path) -> str:
    """Name the run directories one or two levels below a folder, the newest last."""
    runs = [run.path for run in Runs(folder)]
    if not runs:
        return ""
    more = f" and {len(runs) - _MAX_RUNS_NAMED} older ones" if len(runs) > _MAX_RUNS_NAMED else ""
    named = ", ".join(map(str, runs[-_MAX_RUNS_NAMED:]))
    return f". It holds {counted(len(runs), 'run')}; give the directory of one: {named}{more}"
