"""`ranking.json` and `ranking.csv`: a ranking on disk, checked field by field when it is read."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, RecordError
from synque_select.records.run_folder import read_json, write_json, write_text
from synque_select.types import Ranking

__all__ = ["check_ranking_target", "load_ranking", "save_ranking"]

_PROXY_FIELDS = ("higher_is_better", "options", "unit", "family", "in_consensus", "seconds")
_SCORE_FIELDS = ("value", "low", "high", "spread", "p_value")


def check_ranking_target(path: str | Path) -> None:
    """Refuse, before anything is computed, a path that `save_ranking` should not or cannot write.

    Args:
        path: As for `save_ranking`.

    Raises:
        ConfigError: The path ends in something other than `.json` and is no folder.
        RecordError: A file is there that is no ranking, or the folder cannot be written.
    """
    if Path(path).suffix.lower() not in ("", ".json") and not Path(path).is_dir():
        raise ConfigError(f"{path}: a ranking is written to a folder or to a file ending in .json")
    target = _target(path)
    if target.exists():
        try:
            load_ranking(target)
        except RecordError as error:
            raise RecordError(f"{error}: not replaced; give another path") from error
    elif target.with_suffix(".csv").exists():
        raise RecordError(f"{target.with_suffix('.csv')} is there already: give another path")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise RecordError(f"{target} cannot be written: {folder} is no folder to write in")


def _target(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix.lower() == ".json" else path / "ranking.json"


def save_ranking(ranking: Ranking, path: str | Path) -> Path:
    """Write a ranking and return the path of its JSON file.

    Args:
        ranking: What to write.
        path: A folder, which gets `ranking.json` and `ranking.csv`; or a file that ends in
            `.json`, which gets a `.csv` beside it.

    Raises:
        RecordError: A file cannot be written.
    """
    path = _target(path)
    write_text(path.with_suffix(".csv"), _csv(ranking))
    return write_json(path, ranking.to_dict())


def _csv(ranking: Ranking) -> str:
    weights = ranking.top().weights
    extra = [key for key in ranking.candidates[0].ranks if key not in ranking.proxies]
    head = ["name", "n", "sha256"]
    for key in ranking.proxies:
        head += [key, f"{key}_low", f"{key}_high", f"{key}_rank"]
    head += [f"{key}_rank" for key in extra] + ["p_top_k_by_proxy", "selected_weight"]
    rows: list[list[Any]] = [head]
    for row in ranking:
        line: list[Any] = [row.name, row.n, row.sha256]
        for key in ranking.proxies:
            score = row.scores[key]
            line += [score.value, score.low, score.high, row.ranks[key]]
        line += [row.ranks[key] for key in extra]
        rows.append([*line, row.p_top_k_by_proxy, weights.get(row.name, 0.0)])
    text = io.StringIO()
    csv.writer(text).writerows([[_cell(value) for value in line] for line in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"  # a spreadsheet would run a name as a formula
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def load_ranking(path: str | Path) -> Ranking:
    """Read `ranking.json`.

    What the format leaves open may be absent: `modality` (then "text"), `messages`, `wall_s`,
    `p_top_k_by_proxy`, and all of a proxy but its orientation. Fields that are not known are
    left aside. In version 2 `selected` is a mixture of its own; in version 1 it follows from the
    ranks.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        RecordError: The file is missing, broken or of another version, or one of its fields is
            not what it must be; the message names the file and the field.
    """
    path = Path(path)
    path = path / "ranking.json" if path.is_dir() else path
    state = read_json(path)
    try:
        _expect(isinstance(state, dict), "the file", "an object")
        version = state.get("version")
        _expect(version in (1, 2), "version", f"1 or 2, found {version!r}")
        _check_selected_rows(state.get("selected"), is_needed=version == 2)
        ranking = Ranking.from_dict(_checked(state))
        _check_selected(state.get("selected"), ranking)
    except (_BrokenFieldError, ConfigError) as error:
        raise RecordError(f"{path}: {error}") from error
    return ranking


class _BrokenFieldError(Exception):
    pass


def _expect(holds: bool, field: str, allowed: str) -> None:
    if not holds:
        raise _BrokenFieldError(f"{field} must be {allowed}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _checked(state: Mapping[str, Any]) -> dict[str, Any]:
    for field, kind, words in (
        ("packages", dict, "an object"),
        ("real", dict, "an object"),
        ("rank_by", str, "a text"),
        ("proxies", dict, "an object"),
        ("candidates", list, "a list"),
    ):
        _expect(isinstance(state.get(field), kind), field, words)
    _expect(_is_number(state.get("seed")), "seed", "a number")
    _expect(_is_count(state["real"].get("n")), "real.n", "a count")
    _expect(isinstance(state["real"].get("sha256"), str), "real.sha256", "a text")
    proxies = {key: _proxy(key, info) for key, info in state["proxies"].items()}
    rows = [_row(i, row, proxies, state["rank_by"]) for i, row in enumerate(state["candidates"])]
    _expect(len(rows) > 0, "candidates", "a list with at least one candidate")
    names = [row["name"] for row in rows]
    double = sorted({name for name in names if names.count(name) > 1})
    _expect(not double, "candidates", f"without double names, found {double} more than once")
    top_k = state.get("top_k")
    _expect(_is_count(top_k), "top_k", "a count")
    _expect(state["top_k"] <= len(rows), "top_k", f"1 to {len(rows)}")
    return {
        **state,
        **_optional(state),
        "proxies": proxies,
        "candidates": rows,
        "encoder": _encoder(state.get("encoder")),
    }


def _optional(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked parts that a file need not have."""
    modality = state.get("modality", "text")
    _expect(modality in ("text", "image"), "modality", "'text' or 'image'")
    messages = state.get("messages", [])
    is_texts = isinstance(messages, list) and all(isinstance(text, str) for text in messages)
    _expect(is_texts, "messages", "a list of texts")
    wall_s = state.get("wall_s", {})
    is_times = isinstance(wall_s, dict) and all(map(_is_number, wall_s.values()))
    _expect(is_times, "wall_s", "an object of numbers")
    _expect(isinstance(state.get("selected_as", ""), str), "selected_as", "a text")
    details = state.get("details", {})
    is_objects = isinstance(details, dict) and all(isinstance(d, dict) for d in details.values())
    _expect(is_objects, "details", "an object of objects")
    kept = {"selected_as": state.get("selected_as", ""), "details": details}
    return {"modality": modality, "messages": messages, "wall_s": wall_s, **kept}


def _proxy(key: str, info: Any) -> dict[str, Any]:
    _expect(isinstance(info, dict), f"proxies.{key}", "an object")
    field = f"proxies.{key}.higher_is_better"
    _expect(isinstance(info.get("higher_is_better"), bool), field, "true or false")
    _expect(isinstance(info.get("options", {}), dict), f"proxies.{key}.options", "an object")
    return {name: info[name] for name in _PROXY_FIELDS if name in info}


def _encoder(encoder: Any) -> dict[str, Any] | None:
    if encoder is None:
        return None
    _expect(isinstance(encoder, dict), "encoder", "an object or null")
    for name in ("id", "revision"):
        _expect(isinstance(encoder.get(name), str), f"encoder.{name}", "a text")
    _expect(_is_count(encoder.get("dim")), "encoder.dim", "a count")
    return {name: encoder[name] for name in ("id", "revision", "dim")}


def _row(i: int, row: Any, proxies: Mapping[str, Any], rank_by: str) -> dict[str, Any]:
    at = f"candidates[{i}]"
    _expect(isinstance(row, dict), at, "an object")
    for name in ("name", "sha256"):
        _expect(isinstance(row.get(name), str), f"{at}.{name}", "a text")
    _expect(_is_count(row.get("n")), f"{at}.n", "a count")
    for name in ("scores", "ranks"):
        _expect(isinstance(row.get(name), dict), f"{at}.{name}", "an object")
    p_top_k = row.get("p_top_k_by_proxy")
    _expect(p_top_k is None or _is_number(p_top_k), f"{at}.p_top_k_by_proxy", "a number or null")
    missing = sorted({*proxies, rank_by} - set(row["ranks"]))
    _expect(not missing, f"{at}.ranks", f"complete, missing are {missing}")
    for key, rank in row["ranks"].items():
        _expect(rank is None or _is_number(rank), f"{at}.ranks.{key}", "a number or null")
    scores = {key: _score(f"{at}.scores.{key}", row["scores"].get(key)) for key in proxies}
    return {**row, "scores": scores, "p_top_k_by_proxy": p_top_k}


def _score(at: str, score: Any) -> dict[str, Any]:
    _expect(isinstance(score, dict) and "value" in score, at, 'an object with a "value"')
    for name in _SCORE_FIELDS:
        value = score.get(name)
        _expect(value is None or _is_number(value), f"{at}.{name}", "a number or null")
    return {name: score.get(name) for name in _SCORE_FIELDS}


def _check_selected_rows(selected: Any, *, is_needed: bool) -> None:
    if selected is None and not is_needed:
        return
    is_rows = isinstance(selected, list) and all(
        isinstance(row, dict) and isinstance(row.get("name"), str) and _is_number(row.get("weight"))
        for row in selected
    )
    _expect(is_rows, "selected", 'a list of {"name", "weight"}')
    names = [row["name"] for row in selected]
    _expect(len(set(names)) == len(names), "selected", "without double names")


def _check_selected(selected: Any, ranking: Ranking) -> None:
    """Refuse a selection that its own ranks do not give: an edit there would change nothing."""
    if selected is None or ranking.mixture is not None:
        return
    found = {row["name"]: row["weight"] for row in selected}
    wanted = ranking.top().weights
    agree = found.keys() == wanted.keys() and all(
        math.isclose(found[name], weight, abs_tol=1e-6) for name, weight in wanted.items()
    )
    _expect(agree, "selected", f"what the ranks give, {dict(wanted)}, found {found}")
