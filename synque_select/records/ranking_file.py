"""`ranking.json` and `ranking.csv`: a ranking on disk, checked field by field when it is read."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from synque_select.errors import ConfigError, RecordError
from synque_select.records.dropped_labels_file import DROPPED_LABELS, load_dropped_labels
from synque_select.records.findings_file import load_findings, remove_findings, save_findings
from synque_select.records.run_folder import (
    check_name_length,
    check_writable,
    file_beside,
    read_json,
    write_json,
    write_text,
)
from synque_select.types import Findings, Ranking
from synque_select.types.ranking import OLD_STABILITY
from synque_select.utils.csv_text import csv_text
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json

__all__ = [
    "check_ranking_target",
    "load_ranking",
    "ranking_from_json",
    "save_ranking",
]

_CSV_HEAD = ["name", "n", "sha256"]

_PROXY_FIELDS = (
    "higher_is_better",
    "options",
    "unit",
    "family",
    "in_consensus",
    "seconds",
    "reference",
    "version",
)
_SCORE_FIELDS = ("value", "low", "high", "spread", "p_value")


def check_ranking_target(path: str | Path) -> Path:
    """Before anything is computed, reject a path that `save_ranking` would not write to.

    Args:
        path: As for `save_ranking`.

    Returns:
        The JSON file that it would write.

    Raises:
        ConfigError: The path ends in something other than `.json` and is not a directory.
        RecordError: The file or the table beside it exists and is not a ranking, or the directory
            cannot be written.
    """
    if Path(path).suffix.lower() not in ("", ".json") and not Path(path).is_dir():
        raise ConfigError(f"{path}: a ranking is written to a directory or to a .json file")
    target = _target(path)
    check_name_length(target)
    if target.is_dir():
        raise RecordError(f"{target} is a directory: give another path, or a name without .json")
    if target.exists():
        try:
            ranking_from_json(read_json(target), target)
        except RecordError as error:
            raise RecordError(f"{error}: not replaced; give another path") from error
    table = target.with_suffix(".csv")
    if table.exists() and not _is_table(table):
        raise RecordError(f"{table} exists already and is not a ranking: give another path")
    check_writable(target)
    return target


def _is_table(path: Path) -> bool:
    """Whether a file begins as the CSV of a ranking does."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 10).startswith(",".join([*_CSV_HEAD, ""]).encode())
    except OSError:
        return False


def _target(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix.lower() == ".json" else path / "ranking.json"


def save_ranking(ranking: Ranking, path: str | Path) -> Path:
    """Write a ranking, with its findings beside it, and return the path of its JSON file.

    Findings of another ranking there are removed.

    Args:
        ranking: The ranking.
        path: A directory, which gets `ranking.json` and `ranking.csv`; or a file that ends in
            `.json`, which gets a `.csv` file beside it.

    Raises:
        RecordError: A file cannot be written.
    """
    path = _target(path)
    write_text(path.with_suffix(".csv"), _csv(ranking))
    write_json(path, ranking.to_dict())
    remove_findings(path)
    relabel = ranking.label_filter is not None and ranking.label_filter.relabel
    save_findings(path.parent, ranking.findings, ranking=path.name, relabel=relabel)
    return path


def _csv(ranking: Ranking) -> str:
    weights = ranking.top().weights
    extra = [key for key in ranking.candidates[0].ranks if key not in ranking.proxies]
    head = [*_CSV_HEAD]
    for key in ranking.proxies:
        head += [key, f"{key}_low", f"{key}_high", f"{key}_rank"]
    head += [f"{key}_rank" for key in extra] + ["selection_stability", "selected_weight"]
    rows: list[list[object]] = [[*head]]
    for row in ranking:
        line: list[object] = [row.name, row.n, row.sha256]
        for key in ranking.proxies:
            score = row.scores[key]
            line += [score.value, score.low, score.high, row.ranks[key]]
        line += [row.ranks[key] for key in extra]
        rows.append([*line, row.selection_stability, weights.get(row.name, 0.0)])
    return csv_text(rows)


def load_ranking(path: str | Path) -> Ranking:
    """Read `ranking.json`, and the findings beside it.

    Optional fields are `modality` (by default "text"), `messages`, `wall_s`, `origin`, the
    selection stability, the groups of the real sample, and all fields of a proxy except its
    orientation. Unknown fields are ignored. `selected` is the decision's mixture in version 3, the
    ranking's own mixture in version 2, and follows from the ranks in version 1.

    Where a file beside it has the name of a finding and cannot be read, a warning says so, and the
    ranking has no findings.

    Args:
        path: The file, or the directory that holds it.

    Raises:
        RecordError: The file is missing, damaged or of an unknown version, or a field has a wrong
            type; the message names the file and the field.
    """
    path = Path(path)
    path = path / "ranking.json" if path.is_dir() else path
    ranking = ranking_from_json(read_json(path), path)
    return replace(ranking, findings=_findings(path))


def _findings(path: Path) -> Findings:
    dropped = file_beside(path, DROPPED_LABELS)
    try:
        findings = load_findings(path.parent, ranking=path.name)
        if os.path.exists(dropped):
            findings = replace(findings, dropped=load_dropped_labels(dropped))
    except RecordError as error:
        warnings.warn(f"{error}: the findings of the ranking are left out", stacklevel=3)
        return Findings()
    return findings


def ranking_from_json(state: Json, path: Path) -> Ranking:
    """Return the ranking in the content of `ranking.json`; see `load_ranking`.

    Args:
        state: The content.
        path: The file, for messages.

    Raises:
        RecordError: As for `load_ranking`.
    """
    try:
        fields = JsonFields(state)
        version = fields.version(1, 2, 3)
        selected = _selected(fields, is_required=version == 2)
        ranking = Ranking.from_dict(_checked(fields))
        if ranking.mixture is None and selected is not None:
            _check_selected(fields, selected, ranking)
    except (RecordError, ConfigError) as error:
        raise RecordError(f"{path}: {error}") from error
    return ranking


def _checked(fields: JsonFields) -> dict[str, Json]:
    """Return the content with every field checked and optional ones filled in."""
    for name in ("packages", "real", "proxies"):
        fields.object(name)
    rank_by = fields.text("rank_by")
    fields.number("seed")
    real = fields.object("real")
    real.count("n")
    real.text("sha256")
    if "n_groups" in real:
        real.count("n_groups")
        real.number("effective_n")
    proxies = {key: _proxy(info) for key, info in fields.named_objects("proxies").items()}
    rows = [_row(row, proxies.keys(), rank_by) for row in fields.objects("candidates")]
    fields.expect(len(rows) > 0, "candidates", "a list with at least one candidate")
    _check_distinct("candidates", [row.text("name") for row in fields.objects("candidates")])
    is_given = fields.value("version") != 3 or fields.value("top_k") is not None
    if is_given and fields.count("top_k") > len(rows):
        raise RecordError(f"top_k must be 1 to {len(rows)}, found {fields.count('top_k')}")
    return {
        **fields.content,
        **_optional(fields),
        "proxies": proxies,
        "candidates": rows,
        "encoder": _encoder(fields),
    }


def _optional(fields: JsonFields) -> dict[str, Json]:
    """Return the fields that a file may lack, checked."""
    if "modality" in fields:
        fields.choice("modality", ("text", "image"))
    details = fields.named_objects("details") if "details" in fields else {}
    return {
        "modality": fields.text("modality", "text"),
        "messages": fields.texts("messages"),
        "wall_s": fields.numbers("wall_s"),
        "selected_as": fields.text("selected_as", ""),
        "details": {key: part.content for key, part in details.items()},
        "origin": _origin(fields.object("origin")) if "origin" in fields else {},
    }


def _origin(origin: JsonFields) -> dict[str, Json]:
    return {
        "working_dir": origin.text("working_dir", ""),
        "real_source": origin.text("real_source", ""),
        "real_view": _selector(origin, "real_view"),
        "options": origin.object("options").content if "options" in origin else {},
    }


def _selector(fields: JsonFields, name: str) -> str | int | None:
    """Return the name of a view, a label or groups."""
    value = fields.content.get(name)
    fields.expect(isinstance(value, str | int | None), name, "a field, a position or null")
    return value if isinstance(value, str | int) else None


def _proxy(info: JsonFields) -> dict[str, Json]:
    info.flag("higher_is_better")
    if "options" in info:
        info.object("options")
    if "version" in info:
        info.count("version")
    return {name: info.value(name) for name in _PROXY_FIELDS if name in info}


def _encoder(fields: JsonFields) -> dict[str, Json] | None:
    encoder = fields.optional_object("encoder")
    if encoder is None:
        return None
    return {
        "id": encoder.text("id"),
        "revision": encoder.text("revision"),
        "dim": encoder.count("dim"),
    }


def _row(row: JsonFields, proxies: Collection[str], rank_by: str) -> dict[str, Json]:
    for name in ("name", "sha256"):
        row.text(name)
    row.count("n")
    scores, ranks = row.object("scores"), row.numbers("ranks")
    missing = sorted({*proxies, rank_by} - set(ranks))
    if missing:
        raise RecordError(f"{row.path('ranks')} must be complete, missing are {missing}")
    stability = {
        key: row.optional_number(key)
        for key in ("selection_stability", OLD_STABILITY)
        if key in row
    }
    for key in ("view", "label"):
        _selector(row, key)
    row.text("source", "")
    return {
        **row.content,
        **stability,
        "scores": {key: _score(scores.object(key)) for key in proxies},
        "mean_rank": row.optional_number("mean_rank"),
    }


def _score(score: JsonFields) -> dict[str, Json]:
    score.number("value")
    return {name: score.optional_number(name) for name in _SCORE_FIELDS}


def _selected(fields: JsonFields, *, is_required: bool) -> dict[str, float] | None:
    """Return the weights of the selected candidates, None if the file does not state them."""
    if fields.value("selected") is None and not is_required:
        return None
    allowed = 'selected must be a list of {"name", "weight"}'
    try:
        rows = [(row.text("name"), row.number("weight")) for row in fields.objects("selected")]
    except RecordError as error:
        raise RecordError(f"{allowed}: {error}") from error
    _check_distinct("selected", [name for name, _ in rows])
    return dict(rows)


def _check_distinct(field: str, names: list[str]) -> None:
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise RecordError(f"{field} must have distinct names, found {repeated} more than once")


def _check_selected(fields: JsonFields, selected: dict[str, float], ranking: Ranking) -> None:
    """Reject a selection that differs from the ranking's: editing it would have no effect."""
    wanted = ranking.top().weights
    agree = selected.keys() == wanted.keys() and all(
        math.isclose(selected[name], weight, abs_tol=1e-6) for name, weight in wanted.items()
    )
    if not agree:
        source = "ranks" if ranking.decision is None else "decision's weights"
        raise RecordError(
            f"{fields.path('selected')} must follow from the {source}, which give {dict(wanted)}, "
            f"found {selected}: remove the field, or train on your own weights with "
            "SynqueDataModule(mixture=...)"
        )
