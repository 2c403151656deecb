"""`run.json`: the command that made a run and its configs, so that the run can be repeated."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path, PurePath
from typing import Literal

from synque_select.errors import RecordError
from synque_select.llm.openai.masking import mask_secrets
from synque_select.records.run_folder import read_json, write_json
from synque_select.types import RunInfo
from synque_select.utils.json_fields import JsonFields

__all__ = [
    "command_to_record",
    "info_of_call",
    "info_of_process",
    "load_run_info",
    "save_run_info",
]

_FILE = "run.json"
_MOST_BYTES = 1 << 16  # of a config
_LINE = 88  # characters of a call
_MOST_ITEMS, _MOST_LITERAL = 100, 4000  # items and characters of an argument
_NOT_WRITTEN = "\0"  # in place of an object; in no literal, as JSON escapes it
_COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)


def info_of_process(arguments: Sequence[str] | None = None) -> RunInfo:
    """Return how this process was started; what may be a key is left out.

    Args:
        arguments: The command line; None for that of `command_to_record`, else of the process.
    """
    arguments = _COMMAND.get() or sys.argv if arguments is None else arguments
    program = Path(arguments[0])
    # a script is started by Python, a command by its name
    first = ["python", str(program)] if program.suffix == ".py" else [program.name]
    configs = {name: mask_secrets(text) for name, text in _configs(arguments[1:])}
    # before quotes of a shell stand between a name and its value
    given = [mask_secrets(argument) for argument in arguments[1:]]
    return _info(shlex.join([*first, *given]), configs)


def info_of_call(function: str, objects: Mapping[str, object], **options: object) -> RunInfo:
    """Return how a function of the front door was called.

    Args:
        function: Its name.
        objects: Its positional arguments, by name.
        **options: Its keyword arguments, as far as they were given.

    Example:
        >>> info = info_of_call("rank", {"candidates": "c/*.jsonl", "real": object()}, top_k=2)
        >>> print(info.command)
        from synque_select import rank
        <BLANKLINE>
        # real: an object of your program
        ranking = rank("c/*.jsonl", real, top_k=2)
    """
    words = {name: _literal(value) for name, value in {**objects, **options}.items()}
    unknown = [name for name, text in words.items() if text is None]
    written = {name: text or name for name, text in words.items()}
    given = [
        *(written[name] for name in objects),
        *(f"{name}={written[name]}" for name in options),
    ]
    call = f"ranking = {function}({', '.join(given)})"
    if len(call) > _LINE:
        lines = "".join(f"    {each},\n" for each in given)
        call = f"ranking = {function}(\n{lines})"
    what = "an object" if len(unknown) == 1 else "objects"
    comment = f"# {', '.join(unknown)}: {what} of your program\n" if unknown else ""
    text = f"from synque_select import {function}\n\n{comment}{call}"
    return _info(text, {}, language="python")


def _literal(value: object) -> str | None:
    """Return how a value is written in Python; None for an object, or if it would be long."""
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)  # double quotes, as formatters write
    elif value is None or isinstance(value, bool | int | float):
        text = repr(value)
    elif isinstance(value, list | tuple) and len(value) <= _MOST_ITEMS:
        text = f"[{_joined([_literal(each) for each in value])}]"
    elif isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        pairs = [(_literal(name), _literal(each)) for name, each in value.items()]
        text = f"{{{_joined([n and each and f'{n}: {each}' for n, each in pairs])}}}"
    else:
        return None
    return None if _NOT_WRITTEN in text or len(text) > _MOST_LITERAL else text


def _joined(parts: Sequence[str | None]) -> str:
    return ", ".join(_NOT_WRITTEN if part is None else part for part in parts)


def _info(
    command: str, configs: Mapping[str, str], language: Literal["shell", "python"] = "shell"
) -> RunInfo:
    try:
        folder = str(Path.cwd())
    except OSError:  # it was removed
        folder = ""
    return RunInfo(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        # as a line, where an option and its value stand together
        command=mask_secrets(command),
        python=platform.python_version(),
        configs=configs,
        folder=folder,
        language=language,
    )


@contextmanager
def command_to_record(*arguments: str) -> Iterator[None]:
    """Record another command line than `sys.argv`, from which a command may have taken its name.

    Args:
        arguments: The arguments after `synque-select`.
    """
    before = _COMMAND.set(("synque-select", *arguments))
    try:
        yield
    finally:
        _COMMAND.reset(before)


def _configs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for i, argument in enumerate(arguments):
        option, equals, name = argument.partition("=")
        if option not in ("--config", "-c"):
            continue
        if not equals:
            name = arguments[i + 1] if i + 1 < len(arguments) else ""
        path = Path(name)
        packaged = resources.files("synque_select.configs") / f"{name}.yaml"
        try:
            if path.is_file():
                yield name, path.read_bytes()[:_MOST_BYTES].decode(errors="replace")
            elif packaged.is_file():
                yield name, packaged.read_text(encoding="utf-8")
        except OSError:
            continue


def save_run_info(run_dir: str | Path) -> Path:
    """Write `run.json` for a run of this process, and return its path.

    Raises:
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / _FILE, {"version": 1, **info_of_process().to_dict()})


def load_run_info(run_dir: str | Path) -> RunInfo | None:
    """Read `run.json`; None if the run does not have it.

    Raises:
        RecordError: The file is damaged; the message names it and the field.
    """
    path = Path(run_dir) / _FILE
    if not path.is_file():
        return None
    state = read_json(path)
    try:
        fields = JsonFields(state)
        fields.version(1)
        return RunInfo.from_fields(fields)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
