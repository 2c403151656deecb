"""What was run: the run directories of a folder, each with its results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, overload

from synque_select.errors import ConfigError, RecordError, did_you_mean
from synque_select.records.correlation import Correlations
from synque_select.records.correlation_file import load_correlations
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.records.findings_file import load_findings
from synque_select.records.influence_file import INFLUENCE_FILE, load_influence
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import read_json
from synque_select.records.run_info import load_run_info
from synque_select.records.tuning_result import TuningResult
from synque_select.records.weights_file import WEIGHTS, load_weights
from synque_select.types import Findings, InfluenceResult, Ranking, RunInfo, WeightTrajectory
from synque_select.utils.display import Shown
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "RunFolderKind", "Runs"]

RunFolderKind: TypeAlias = Literal[
    "experiment", "tuning", "correlation", "ranking", "reselection", "influence"
]

# the file that says what a run was, in this order: an experiment has correlations, too
_KINDS: Mapping[str, RunFolderKind] = {
    "result.json": "experiment",
    "study.json": "tuning",
    "correlations.json": "correlation",
    "ranking.json": "ranking",
    WEIGHTS: "reselection",
    INFLUENCE_FILE: "influence",
}
_DEPTH = 5  # of a run below the folder: runs/<task>/<run> of several projects, with room
_T = TypeVar("_T")


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """One run directory. A file is read when what it holds is first asked for.

    Args:
        path: The run's directory.
        name: The directory, relative to the folder that was searched.
    """

    path: Path
    name: str

    @property
    def kind(self) -> RunFolderKind:
        """What the run was.

        "correlation" is a sweep, or a fit with `ProxyCorrelationCallback`; "reselection" is a fit
        with `ReselectionCallback` and without a ranking.
        """
        for file, kind in _KINDS.items():
            if os.path.lexists(self.path / file):
                return kind
        raise RecordError(f"{self.path} has none of {', '.join(_KINDS)}")

    @cached_property
    def info(self) -> RunInfo | None:
        """The command that made the run; None if the run does not say."""
        return load_run_info(self.path)

    @property
    def created(self) -> datetime:
        """When the run ended, UTC: from `run.json`, or the time of its newest result."""
        # a damaged run.json is the `problem` of the run, and does not hide the others
        with suppress(RecordError, ValueError):
            if self.info is not None:
                return datetime.fromisoformat(self.info.created).astimezone(UTC)
        files = [self.path / name for name in _KINDS if os.path.lexists(self.path / name)]
        newest = max(file.lstat().st_mtime for file in files or [self.path])
        return datetime.fromtimestamp(newest, UTC).replace(microsecond=0)

    @cached_property
    def ranking(self) -> Ranking | None:
        """The ranking; None without one."""
        return self._read("ranking.json", lambda: load_ranking(self.path))

    @cached_property
    def findings(self) -> Findings:
        """What scoring found beside the order: gaps, label checks, sample size."""
        return load_findings(self.path)

    @cached_property
    def result(self) -> ExperimentResult | None:
        """The result of an experiment; None without one."""
        return self._read("result.json", lambda: load_result(self.path))

    @cached_property
    def correlations(self) -> Correlations:
        """The proxies against validation, one entry per comparability key; empty without any."""
        read = self._read("correlations.json", lambda: load_correlations(self.path))
        return Correlations(read or ())

    @cached_property
    def tuning(self) -> TuningResult | None:
        """The result of a search for a mixture; None without one."""
        return self._read("study.json", self._tuning)

    @cached_property
    def weights(self) -> WeightTrajectory | None:
        """The weights of a training in which they change; None without one."""
        return self._read(WEIGHTS, lambda: load_weights(self.path))

    @cached_property
    def influence(self) -> InfluenceResult | None:
        """The influence of the candidates; None without one."""
        return self._read(INFLUENCE_FILE, lambda: load_influence(self.path))

    @property
    def n_candidates(self) -> int | None:
        """The number of candidates; None if the run does not say."""
        if self.ranking is not None:
            return len(self.ranking)
        if self.weights is not None:
            return len(self.weights.names)
        return None if self.influence is None else len(self.influence.candidates)

    def _tuning(self) -> TuningResult:
        path = self.path / "study.json"
        state = read_json(path)
        if self.ranking is None:
            raise RecordError(f"{path} has no ranking.json beside it")
        if not isinstance(state, Mapping):
            raise RecordError(f"{path} is damaged: allowed is an object")
        try:
            return TuningResult.from_dict(state, self.ranking)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def _read(self, file: str, read: Callable[[], _T]) -> _T | None:
        # of a link to nowhere, and of a folder in its place, reading says so
        return read() if os.path.lexists(self.path / file) else None

    @property
    def problem(self) -> str:
        """Why the results of the run cannot be read; empty if they can."""
        try:
            _ = self.info, self._parts
        except (RecordError, ConfigError) as error:
            return str(error)
        return ""

    @property
    def headlines(self) -> tuple[str, ...]:
        """The name and kind of the run, and what it found."""
        title = f"{self.name}: {self.kind}, {self.created:%Y-%m-%d %H:%M} UTC"
        if self.problem:
            return (title, self.problem)
        return (title, *(text for part in self._parts for text in part.headlines))

    @property
    def _parts(self) -> list[Shown]:
        """The results, the run's own first."""
        parts: list[Shown | None] = [self.result, self.tuning, *self.correlations, self.ranking]
        parts += [self.weights, self.influence]
        return [part for part in parts if part is not None]

    def to_frame(self) -> pd.DataFrame:
        """Return the frame of the run's own result; see `Ranking`, `ExperimentResult` and so on.

        Raises:
            RecordError: A file of the run cannot be read.
        """
        return self._parts[0].to_frame()

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame() if self.problem else self._parts[0]._table()

    def row(self) -> dict[str, object]:
        """Return what a list of runs says of this one; see `Runs.to_frame`."""
        row: dict[str, object] = {"run": self.name, "kind": self.kind, "created": self.created}
        row |= dict.fromkeys(("n_candidates", "n_real", "selected", "metric", "value", "n"))
        row["problem"] = self.problem
        if row["problem"]:
            return row
        ranking, result, tuning = self.ranking, self.result, self.tuning
        row["n_candidates"] = self.n_candidates
        if ranking is not None:
            row |= {"n_real": ranking.n_real, "selected": listed(ranking.selected)}
        if result is not None and "chosen" in result.arms:
            chosen = result.arms["chosen"]
            row |= {"metric": result.metric.name, "value": chosen.mean, "n": chosen.n}
        elif tuning is not None:
            n = sum(trial.state == "complete" for trial in tuning.trials)
            row |= {"metric": tuning.metric, "value": tuning.value, "n": n}
        elif self.correlations:
            entry = self.correlations[0]
            row |= {"metric": entry.monitor, "n": len(entry.points)}
        return row


class Runs(Shown, Sequence[Run]):
    """The runs of a folder, the newest last.

    Args:
        folder: The folder; its run directories are itself, or up to five levels below it. Hidden
            folders and virtual environments are passed over.

    Raises:
        RecordError: The folder does not exist.

    Example:
        >>> import tempfile
        >>> len(Runs(tempfile.mkdtemp()))
        0
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RecordError(f"{self.folder} is not a folder: give the folder of your runs")
        runs = [Run(path, self._name(path)) for path in _run_folders(self.folder)]
        self._runs = tuple(sorted(runs, key=lambda run: (run.created, run.name)))

    def _name(self, path: Path) -> str:
        return path.name if path == self.folder else str(path.relative_to(self.folder))

    @property
    def headlines(self) -> tuple[str, ...]:
        """How many runs there are."""
        return (f"{counted(len(self), 'run')} in {self.folder}",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns mean."""
        if not self._runs:
            return ()
        return (
            "value: mean over n replicates for the selected mixture of an experiment; best of n "
            "complete trials of a tuning, which is optimistic; n of a correlation: candidates or "
            "mixtures",
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per run, whose name is the index.

        The columns are `kind`, `created`, `n_candidates`, `n_real`, `selected`, `metric`, `value`
        and `n` (see `notes`), and `problem`: why the run cannot be read, empty if it can.
        """
        import pandas as pd

        names = ("run", "kind", "created", "n_candidates", "n_real", "selected", "metric", "value")
        rows = [run.row() for run in self]
        return pd.DataFrame(rows, columns=[*names, "n", "problem"]).set_index("run")

    @overload
    def __getitem__(self, place: int | str) -> Run: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Run]: ...

    def __getitem__(self, place: int | str | slice) -> Run | Sequence[Run]:
        """Return a run by its position, or by its name or the end of it."""
        if not isinstance(place, str):
            return self._runs[place]
        named = [run for run in self if run.name == place or run.name.endswith(f"/{place}")]
        if len(named) != 1:
            known = [run.name for run in self]
            raise ConfigError(
                f"{counted(len(named), 'run')} named {place!r}; {did_you_mean(place, known)}"
            )
        return named[0]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, inner, files in os.walk(folder, followlinks=True):
        # a folder of such a name is the problem of the run
        names = _KINDS.keys() & {*files, *inner}
        if any(os.path.exists(os.path.join(path, name)) for name in names):
            yield Path(path)
        depth = len(Path(path).relative_to(folder).parts)
        is_end = depth == _DEPTH or (depth and "pyvenv.cfg" in files)
        inner[:] = [] if is_end else [name for name in inner if not name.startswith(".")]
