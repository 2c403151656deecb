"""The runs below a folder, and two runs side by side."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from synque_select.errors import RecordError, did_you_mean
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.ranking_file import load_ranking
from synque_select.records.runs import Run, Runs
from synque_select.report.formats import UNDEFINED, format_number, format_ranks
from synque_select.report.table import Column, Table
from synque_select.types import Ranking
from synque_select.types.run_info import RunInfo
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.wording import counted, one_line
from synque_select.utils.yaml_files import check_yaml

__all__ = [
    "Figure",
    "RunEntry",
    "comparison_tables",
    "find_run",
    "list_runs",
    "load_entry",
    "runs_table",
]

_STAMPED = re.compile(r"(\d{8}T\d{6}Z)-(.+)")


@dataclass(frozen=True)
class Figure:
    """A figure on labeled data, and what it may be compared with.

    Args:
        metric: The metric.
        value: Its value; NaN if unknown.
        key: Hash of the comparability key; empty if unknown.
    """

    metric: str
    value: float
    key: str = ""


@dataclass(frozen=True)
class RunEntry:
    """What a list says of a run.

    Args:
        path: Its directory.
        name: Its name.
        created: When it began, or when its directory last changed if that does not say.
        what: Recipe or model, and what made it: "digits, experiment".
        ranking: Its ranking; None without one.
        figure: The monitored figure; None without validation.
        problem: Why it cannot be read; empty if it can.
        made: The command and the configs that made it; None if it does not say.
        n_candidates: Number of candidates; None if it does not say.
    """

    path: Path
    name: str
    created: datetime
    what: str
    ranking: Ranking | None = None
    figure: Figure | None = None
    problem: str = ""
    made: RunInfo | None = None
    n_candidates: int | None = None

    @property
    def decision(self) -> str:
        """Return what was decided, in a few words."""
        if self.problem:
            return one_line(self.problem, 80)
        if self.ranking is None:
            return UNDEFINED
        decision = self.ranking.decision
        if decision is not None and decision.opening == "far":
            return "none is close"
        n, n_all = len(self.ranking.top().names), len(self.ranking)
        return "all" if n == n_all else f"{n:,} of {n_all:,}"


def list_runs(root: str | Path) -> list[RunEntry]:
    """Return the runs in a directory and up to two levels below it, the newest first.

    A run whose files are damaged is listed with the problem.

    Args:
        root: The directory, such as `runs`.

    Raises:
        RecordError: It does not exist.
    """
    entries = map(_entry, Runs(root))
    return sorted(entries, key=lambda run: (run.created, run.name), reverse=True)


def find_run(name: str, root: str | Path = "runs") -> Path:
    """Return the directory of a run, or the file of a ranking.

    Args:
        name: Its path, or the name of a run below `root`; of several with one name, the newest.
        root: Directory of all runs.

    Raises:
        RecordError: No run has this name.
    """
    if Path(name).exists():
        return Path(name)
    runs = list_runs(root) if Path(root).is_dir() else []
    for run in runs:
        if name in (run.name, run.path.name):
            return run.path
    known = did_you_mean(name, [run.name for run in runs]) if runs else f"{root} holds no runs"
    raise RecordError(f"no run {name!r}: {known}")


def load_entry(path: str | Path) -> RunEntry:
    """Return what is said of a run, or of the ranking in a file.

    Args:
        path: The directory of the run, or the JSON file of the ranking.

    Raises:
        RecordError: It has no run, or a file is damaged.
    """
    path = Path(path)
    if path.is_file() and path.name != "ranking.json":
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return RunEntry(path, path.name, changed, "rank", load_ranking(path))
    folder = path.parent if path.is_file() else path
    entry = _entry(Run(folder, folder.name))
    if entry.problem:
        # the problem of a list, where the name of the run stands beside it
        raise RecordError(f"{folder}: {entry.problem}")
    return entry


def runs_table(runs: list[RunEntry]) -> Table:
    """Return a list of runs as a table."""
    heads = ("run", "began (UTC)", "what", "candidates", "trains on", "monitor")
    rows = tuple(
        (
            run.name,
            f"{run.created:%Y-%m-%d %H:%M}",
            run.what,
            UNDEFINED if run.n_candidates is None else f"{run.n_candidates:,}",
            run.decision,
            _shown(run.figure),
        )
        for run in runs
    )
    columns = tuple(Column(head, is_name=head in ("run", "what")) for head in heads)
    return Table(counted(len(runs), "run"), columns, rows)


def comparison_tables(first: RunEntry, second: RunEntry) -> list[Table]:
    """Return how two runs differ: their settings and results, and the place of each candidate."""
    names = (first.name, second.name) if first.name != second.name else ("first", "second")
    rows = [
        (what, *pair)
        for what, *pair in zip(_facts(first), *map(_values, (first, second)), strict=True)
        if pair[0] != pair[1]
    ]
    settings = [_settings(run.made) for run in (first, second)]
    if all(settings):  # else all settings of one run would differ from none
        rows += [
            (name, *pair)
            for name in sorted({*settings[0], *settings[1]})
            if len({*(pair := [given.get(name, UNDEFINED) for given in settings])}) > 1
        ]
    notes = [] if rows else ["no difference in settings, decision or figures"]
    keys = [run.figure.key for run in (first, second) if run.figure is not None]
    if len(keys) == 2 and (keys[0] != keys[1] or not keys[0]):
        notes.append(
            "the monitored figures must not be compared: task, validation data, model or budget "
            "differ, or are not known"
        )
    columns = tuple(Column(head, is_name=True) for head in ("", *names)) if rows else ()
    tables = [Table(f"{names[0]} against {names[1]}", columns, tuple(rows), tuple(notes))]
    if first.ranking is not None and second.ranking is not None:
        tables.append(_places(first.ranking, second.ranking, names))
    return tables


def _places(first: Ranking, second: Ranking, names: tuple[str, str]) -> Table:
    order = [row.name for row in first.order()]
    order += [row.name for row in second.order() if row.name not in order]
    parts: list[list[str]] = [order]
    for ranking in (first, second):
        rows = ranking.order()
        ranks = format_ranks([row.ranks[ranking.rank_by] for row in rows])
        places = {row.name: place for row, place in zip(rows, ranks, strict=True)}
        weights = ranking.top().weights
        parts.append([places.get(name, UNDEFINED) for name in order])
        parts.append([format_number(weights[n]) if n in weights else "" for n in order])
    changed = {row.name: row.sha256 for row in first}
    notes = [
        f"{row.name}: its content differs"
        for row in second
        if changed.get(row.name, row.sha256) != row.sha256
    ]
    heads = (f"# {names[0]}", "weight", f"# {names[1]}", "weight")
    columns = (Column("candidate", is_name=True), *map(Column, heads))
    return Table("Candidates", columns, tuple(zip(*parts, strict=True)), tuple(notes))


def _settings(made: RunInfo | None) -> dict[str, str]:
    """Return the options in the configs and on the command line of a run, by dotted name."""
    import yaml

    settings: dict[str, str] = {}
    if made is None or made.language != "shell":
        return settings
    for file, text in made.configs.items():
        check_yaml(text, file, error=RecordError)
        settings |= _dotted(yaml.safe_load(text))
    name = ""
    for argument in shlex.split(made.command):
        option, _, value = argument.partition("=")
        if option.startswith("--"):
            name = _short(option[2:])
            settings[name] = value
        elif name:
            settings[name] = f"{settings[name]} {argument}".strip()
    # the configs are compared by what they hold, and runs have different names
    return {k: v for k, v in settings.items() if k not in ("config", "name") and v != ""}


def _dotted(value: object, before: str = "") -> dict[str, str]:
    if isinstance(value, list) and not any(isinstance(part, dict | list) for part in value):
        value = ", ".join(map(str, value))
    if not isinstance(value, dict | list) or not value:
        return {_short(before): str(value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    settings: dict[str, str] = {}
    for key, part in parts:
        settings |= _dotted(part, f"{before}.{key}" if before else str(key))
    return settings


def _short(name: str) -> str:
    """Leave out what is the same for every class: --data.batch_size is that of init_args."""
    return name.replace(".init_args", "").removesuffix(".class_path")


def _facts(run: RunEntry) -> list[str]:
    return list(_all_facts(run))


def _values(run: RunEntry) -> list[str]:
    return list(_all_facts(run).values())


def _all_facts(run: RunEntry) -> dict[str, str]:
    ranking = run.ranking
    facts = {
        "what": run.what,
        "began": f"{run.created:%Y-%m-%d %H:%M} UTC",
        "trains on": run.decision,
        "monitor": _shown(run.figure),
    }
    unknown = dict.fromkeys(("rank by", "proxies", "encoder", "real sample", "seed"), UNDEFINED)
    if ranking is None:
        return {**facts, **unknown}
    return {
        **facts,
        "rank by": ranking.rank_by,
        "proxies": ", ".join(ranking.proxies),
        "encoder": UNDEFINED if ranking.encoder is None else ranking.encoder.id,
        "real sample": f"{ranking.real_words}, {ranking.real_sha256[:8]}",
        "seed": str(ranking.seed),
    }


def _shown(figure: Figure | None) -> str:
    if figure is None or math.isnan(figure.value):
        return UNDEFINED
    return f"{figure.metric} {format_number(figure.value, 3)}"


def _entry(run: Run) -> RunEntry:
    folder = run.path.resolve()
    stamped = _STAMPED.fullmatch(folder.name)
    name = folder.name if stamped is None else stamped[2]
    created = run.created
    if stamped is not None:  # the time at the beginning, not at the end
        created = datetime.strptime(stamped[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    problem = run.problem.replace(f"{run.path}/", "")
    kind = "damaged" if problem else _kind(run)
    what = kind if stamped is None else f"{folder.parent.name}, {kind}"
    if problem:
        return RunEntry(run.path, name, created, what, problem=problem)
    return RunEntry(
        run.path,
        name,
        created,
        what,
        run.ranking,
        _figure(run, kind),
        made=run.info,
        n_candidates=run.n_candidates,
    )


def _kind(run: Run) -> str:
    """Return the command that made a run, by the files that only it writes."""
    commands = {"experiment": "experiment", "tuning": "tune", "influence": "influence"}
    if run.kind in commands:
        return commands[run.kind]
    if run.weights is not None or (run.path / "validation.json").exists():
        return "fit"
    if run.correlations:
        return "fit" if any(entry.kind == "mixture" for entry in run.correlations) else "sweep"
    return "fit" if (run.path / "examples.json").exists() else "rank"


def _figure(run: Run, kind: str) -> Figure | None:
    if run.result is not None:
        chosen = run.result.arms.get("chosen")
        return None if chosen is None else Figure(run.result.metric.name, chosen.mean)
    if run.tuning is not None:
        return Figure(run.tuning.metric, run.tuning.value)
    if kind == "sweep":
        return next(_best(run.correlations), None)
    metrics = _metrics(run.path) if kind == "fit" else {}
    for entry in run.correlations:
        if entry.kind == "mixture" and entry.monitor in metrics:
            return Figure(entry.monitor, metrics[entry.monitor], entry.key_hash)
    monitor = next((name for name in metrics if name.startswith("val")), None)
    return None if monitor is None else Figure(monitor, metrics[monitor])


def _best(entries: Sequence[KeyCorrelations]) -> Iterator[Figure]:
    for entry in entries:
        values = [point.validation for point in entry.points if not math.isnan(point.validation)]
        if entry.kind == "probe" and values:
            best = max(values) if entry.mode == "max" else min(values)
            yield Figure(f"best {entry.monitor}", best, entry.key_hash)


def _metrics(folder: Path) -> Mapping[str, float]:
    path = folder / "validation.json"
    if not path.exists():
        return {}
    return JsonFields(parse_json(path.read_text("utf-8"), str(path), error=RecordError)).numbers(
        "metrics"
    )
