"""A run's directory and the JSON files in it: written completely or not at all, NaN as null."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from synque_select.errors import ConfigError, RecordError
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.json_files import read_json_file
from synque_select.utils.json_types import Json
from synque_select.utils.wording import one_line

__all__ = [
    "check_name_length",
    "check_plain_name",
    "check_run_name",
    "check_writable",
    "file_beside",
    "make_folder",
    "new_run_folder",
    "read_json",
    "to_jsonable",
    "write_json",
    "write_text",
]


# 40 × 40 names that can be said and typed; the time before them makes a directory unique
_FIRST = (
    "amber blue bold brave bright calm clear cool crisp deep dry early fair fast fine fresh gold "
    "grand green gray keen kind late light long loud mild neat new pale plain quick quiet red rich "
    "round sharp silver soft warm"
)
_SECOND = (
    "acorn alder ash aspen beech birch brook cedar clover coral crane dale dune elm falcon fern "
    "fir finch fox grove hawk hazel heron hill lake lark maple moor moss oak otter owl pine raven "
    "reed river robin sand stone wren"
)

_SHOWN = 60  # characters of a name that is too long


def new_run_folder(root: str | Path, recipe: str, name: str | None = None) -> Path:
    """Create a new directory `root/recipe/<UTC time>-<name>` and return its path.

    Args:
        root: Directory of all runs, usually `runs`; created if it is missing.
        recipe: Name of the recipe: a single part of a path.
        name: Name of the run, a single part of a path; None for two random words.

    Raises:
        ConfigError: `recipe` or `name` is not a plain name.
        RecordError: The directory cannot be created.

    Example:
        >>> import tempfile
        >>> folder = new_run_folder(tempfile.mkdtemp(), "digits")
        >>> folder.parent.name
        'digits'
        >>> new_run_folder(tempfile.mkdtemp(), "digits", "baseline").name.partition("-")[2]
        'baseline'
    """
    check_plain_name("recipe", recipe)
    check_run_name(name)
    parent = Path(root) / recipe
    while True:
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        words = name or f"{secrets.choice(_FIRST.split())}-{secrets.choice(_SECOND.split())}"
        run_dir = parent / f"{time}-{words}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError as error:
            if parent.is_dir():
                continue  # another process took the name: try the next one, or the next second
            raise RecordError(f"{parent} is a file: give a directory for the runs") from error
        except OSError as error:
            raise RecordError(f"cannot create the run's directory {run_dir}: {error}") from error
        return run_dir


def check_run_name(name: str | None, run_dir: str | Path | None = None) -> None:
    """Before anything is computed, refuse a name that a run cannot have.

    Args:
        name: The name; None for one that is made.
        run_dir: A directory that was given for the run, whose name is that of the run.

    Raises:
        ConfigError: It is not a plain name, or both are given.
    """
    if name is None:
        return
    check_plain_name("name", name)
    if run_dir is not None:
        raise ConfigError(
            f"name={name!r} and run_dir={str(run_dir)!r}: give one of them; the name of a run is "
            "that of its directory"
        )


def check_plain_name(argument: str, name: str) -> None:
    """Refuse a name that is not a single part of a path.

    Args:
        argument: What the argument is called, for the message.
        name: The name.

    Raises:
        ConfigError: It is empty, one or two dots, or contains a slash.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ConfigError(f"{argument}={name!r}: allowed is a plain name without slashes")


def check_writable(target: Path) -> None:
    """Before anything is computed, reject a file whose directory cannot be written or created.

    Raises:
        RecordError: It cannot.
    """
    parent = next(parent for parent in target.absolute().parents if parent.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise RecordError(f"{target} cannot be written: {parent} is not a writable directory")


def make_folder(run_dir: str | Path) -> Path:
    """Create the directory of a run if it does not exist, and return its path.

    Raises:
        RecordError: It cannot be created, or it is a file.
    """
    run_dir = Path(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RecordError(f"{run_dir} is a file: give a directory for the run") from error
    except OSError as error:
        raise RecordError(f"cannot create the run's directory {run_dir}: {error}") from error
    return run_dir


def file_beside(ranking: Path, name: str) -> Path:
    """Return the path of another file of a run: `mine.json` has its gaps in `mine.gaps.json`.

    Args:
        ranking: The JSON file of the ranking.
        name: Name of the other file in a run whose ranking is `ranking.json`.
    """
    return ranking.with_name(name if ranking.name == "ranking.json" else f"{ranking.stem}.{name}")


def check_name_length(path: Path) -> None:
    """Refuse a name that is longer than the file system allows.

    Args:
        path: A file that will be written.

    Raises:
        RecordError: The name is too long.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            shown = one_line(path.name, _SHOWN)
            raise RecordError(f"the file name {shown} is too long: give a shorter one") from error


def to_jsonable(value: object, *, undefined: float | None = None, where: str = "value") -> Json:
    """Return a value as JSON has it: dict, list, str, int, float, bool, None.

    Args:
        value: Also accepts tuples, sets, paths, and numbers of NumPy and torch.
        undefined: Replaces NaN and infinities; `math.nan` keeps them as they are.
        where: Name of the value, for the message.

    Raises:
        RecordError: A part of the value is of another type; the message says which part.

    Example:
        >>> to_jsonable({"pad": (1.5, float("nan"))})
        {'pad': [1.5, None]}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {
            str(key): to_jsonable(part, undefined=undefined, where=f"{where}.{key}")
            for key, part in value.items()
        }
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [
            to_jsonable(part, undefined=undefined, where=f"{where}[{i}]")
            for i, part in enumerate(value)
        ]
    if isinstance(value, Path):
        return str(value)
    return _number(value, undefined, where)


def _number(value: object, undefined: float | None, where: str) -> Json:
    if hasattr(value, "tolist"):  # NumPy and torch, of any number of dimensions
        listed: object = value.tolist()
        if not isinstance(listed, (int, float, bool)):
            return to_jsonable(listed, undefined=undefined, where=where)
        value = listed
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value) or undefined is not None:
            return float(value)
        return None
    raise RecordError(f"{where}: a value of type {type(value).__name__} cannot be written as JSON")


def write_json(path: str | Path, value: object) -> Path:
    """Write a value as indented UTF-8 JSON, atomically; NaN and infinities become null.

    Args:
        path: The file; its directory is created if it is missing.
        value: What `to_jsonable` accepts.

    Raises:
        RecordError: A part of the value has no form in JSON, or the file cannot be written.
    """
    state = to_jsonable(value, where=Path(path).name)
    text = json.dumps(state, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> Path:
    r"""Write a UTF-8 file, atomically.

    A lone surrogate, as in a file name that is not UTF-8, is written as `\udc80`: UTF-8 cannot
    represent it, and JSON writes it the same way.

    Raises:
        RecordError: The file cannot be written.
    """
    path = Path(path)
    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error}") from error
    return path


def read_json(path: str | Path) -> Json:
    """Read a JSON file.

    Raises:
        RecordError: The file is missing, is not UTF-8, or is not JSON; the message names the file
            and the line.
    """
    return read_json_file(path, error=RecordError)
