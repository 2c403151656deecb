"""`run.json`: the command that made a run and its configs, so that the run can be repeated."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from synque_select.errors import RecordError, without_keys
from synque_select.records.run_folder import read_json, write_json
from synque_select.utils.json_fields import JsonFields

__all__ = ["RunInfo", "command_to_record", "load_run_info", "save_run_info"]

_FILE = "run.json"
_MOST_BYTES = 1 << 16  # of a config
_COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)


@dataclass(frozen=True)
class RunInfo:
    """How a run was made.

    Args:
        created: UTC time at its end, in ISO format.
        command: The command line, as a shell reads it.
        python: Version of Python.
        configs: Name of a config on the command line to its content.
    """

    created: str
    command: str
    python: str
    configs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls, arguments: Sequence[str] | None = None) -> RunInfo:
        """Return how this process was started; what looks like a key of a server is left out.

        Args:
            arguments: The command line; None for that of `command_to_record`, else of the process.
        """
        arguments = _COMMAND.get() or sys.argv if arguments is None else arguments
        program = Path(arguments[0])
        # a script is started by Python, a command by its name
        first = ["python", str(program)] if program.suffix == ".py" else [program.name]
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=without_keys(shlex.join([*first, *arguments[1:]])),
            python=platform.python_version(),
            configs={name: without_keys(text) for name, text in _configs(arguments[1:])},
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
    return write_json(Path(run_dir) / _FILE, {"version": 1, **vars(RunInfo.of_this_process())})


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
        configs = fields.object("configs")
        return RunInfo(
            created=fields.text("created"),
            command=fields.text("command"),
            python=fields.text("python"),
            configs={name: configs.text(name) for name in configs},
        )
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
