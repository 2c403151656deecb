"""A run's folder, and the JSON files in it: written whole or not at all, undefined is null."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, RecordError

__all__ = [
    "check_plain_name",
    "make_folder",
    "new_run_folder",
    "read_json",
    "to_jsonable",
    "write_json",
    "write_text",
]

_MAX_DIGITS = 300


def new_run_folder(root: str | Path, recipe: str) -> Path:
    """Make and return `root/recipe/<UTC time>-<short hash>`, a folder that nobody else has.

    Args:
        root: Where runs are kept, usually `runs`; made if it is missing.
        recipe: The recipe's name: one part of a path.

    Raises:
        ConfigError: `recipe` is not a plain name.
        RecordError: The folder cannot be made.

    Example:
        >>> import tempfile
        >>> folder = new_run_folder(tempfile.mkdtemp(), "digits")
        >>> folder.parent.name, len(folder.name)
        ('digits', 25)
    """
    check_plain_name("recipe", recipe)
    parent = Path(root) / recipe
    while True:
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder = parent / f"{time}-{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if parent.is_dir():
                continue
            raise RecordError(f"{parent} is no folder: runs cannot be kept there") from error
        except OSError as error:
            raise RecordError(f"cannot make the run's folder {folder}: {error}") from error
        return folder


def check_plain_name(argument: str, name: str) -> None:
    """Refuse a name that is not one part of a path.

    Raises:
        ConfigError: It is empty, a dot or two, or has a slash in it.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ConfigError(f"{argument}={name!r}: allowed is a plain name, without slashes")


def make_folder(folder: str | Path) -> Path:
    """Make a folder that was named for a run, if it is not there.

    Raises:
        RecordError: It cannot be made, or it is a file.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RecordError(f"{folder} is no folder: a run cannot be kept there") from error
    except OSError as error:
        raise RecordError(f"cannot make the run's folder {folder}: {error}") from error
    return folder


def to_jsonable(value: Any, *, undefined: float | None = None, where: str = "value") -> Any:
    """Return a value as JSON has it: dict, list, str, int, float, bool, None.

    Args:
        value: Also accepts tuples, sets, paths, and numbers of NumPy and torch.
        undefined: What stands for NaN and infinities; `math.nan` keeps them as they are.
        where: Name of the value, for the message.

    Raises:
        RecordError: A part of it is something else; the message says which part.

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


def _number(value: Any, undefined: float | None, where: str) -> Any:
    if hasattr(value, "tolist"):  # NumPy and torch, of any number of dimensions
        listed = value.tolist()
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
    raise RecordError(f"{where}: a {type(value).__name__} has no form in JSON")


def write_json(path: str | Path, value: Any) -> Path:
    """Write plain values as indented UTF-8 JSON, atomically; NaN and infinities become null.

    Args:
        path: The file; its folder is made if it is missing.
        value: What `to_jsonable` accepts.

    Raises:
        RecordError: A part of the value has no form in JSON, or the file cannot be written.
    """
    state = to_jsonable(value, where=Path(path).name)
    text = json.dumps(state, indent=2, ensure_ascii=False, allow_nan=False)
    # names of files that are no UTF-8 carry lone surrogates: \udc80 is how JSON writes one, too
    return write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> Path:
    r"""Write a UTF-8 file so that a reader sees the old one or the new one, never a part.

    A lone surrogate, which UTF-8 does not have, is written as `\udc80`.

    Raises:
        RecordError: The file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error}") from error
    return path


def _whole(text: str) -> int:
    """Read a whole number that a float can hold, too: what is shown is calculated with."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits; allowed are {_MAX_DIGITS}")
    return int(text)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        RecordError: It is missing, no UTF-8, or broken; the message names the file and the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_int=_whole)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8: {error}") from error
    except RecursionError as error:
        raise RecordError(f"{path}: not a file of ours: nested too deeply") from error
    except ValueError as error:
        raise RecordError(f"{path}: not a file of ours: {error}") from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
