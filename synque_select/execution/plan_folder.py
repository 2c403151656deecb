"""Plans: units of work in a folder that all jobs of a batch system see.

`plan.json` lists the units, and a file per unit says that it is finished, or why it has failed. All
are written by atomic renames. Units may run in any order, on any machine, and any number of times.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from synque_select.errors import ConfigError, RecordError
from synque_select.execution.environment import Environment
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import read_json_file
from synque_select.utils.json_types import Json, JsonObject

__all__ = ["PLAN", "BasePlan", "PlannedUnit", "check_new_plan", "plan_fields", "unit_of"]

PLAN = "plan.json"
_FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class PlannedUnit:
    """A unit of a plan.

    Args:
        key: Hash of what it depends on.
        name: What it does, for messages.
        stage: Units of a later stage need the results of all units of an earlier one.
    """

    key: str
    name: str
    stage: str


_Unit = TypeVar("_Unit", bound=PlannedUnit)


@dataclass(frozen=True, eq=False)
class BasePlan(Generic[_Unit]):
    """A plan in its folder.

    Args:
        folder: The folder.
        directory: The directory in which it was made, against which paths are resolved.
        environment: The versions that it was made with.
        units: The units, by stage.
    """

    folder: Path
    directory: str
    environment: Environment
    units: Sequence[_Unit]
    _finished: set[str] = field(default_factory=set, init=False, repr=False)

    def is_done(self, unit: _Unit) -> bool:
        """Whether a unit has been finished by any process; a damaged file does not say so."""
        if unit.key not in self._finished and self.result(unit) is not None:
            self._finished.add(unit.key)
        return unit.key in self._finished

    def result(self, unit: _Unit) -> JsonFields | None:
        """Return what was written when a unit was finished; None if it is not finished."""
        return self._read("done", unit, "seconds")

    def open_units(self, stage: str | None = None) -> list[_Unit]:
        """Return the units that are not finished."""
        wanted = [unit for unit in self.units if stage in (None, unit.stage)]
        return [unit for unit in wanted if not self.is_done(unit)]

    def failure(self, unit: _Unit) -> str | None:
        """Return the error of a unit that has failed and was not finished since."""
        state = self._read("failed", unit, "error")
        return None if state is None else f"{state.value('error')} (on {state.value('host')})"

    def _read(self, what: str, unit: _Unit, needed: str) -> JsonFields | None:
        path = self._file(what, unit)
        if not path.is_file():
            return None
        try:
            state = JsonFields(read_json_file(path, error=RecordError))
        except RecordError:
            return None
        return state if state.value("key") == unit.key and needed in state else None

    def note_done(self, unit: _Unit, seconds: float, result: JsonObject | None = None) -> None:
        """Write that a unit is finished, with its result if it has one.

        Raises:
            RecordError: The folder cannot be written.
        """
        self._write("done", unit, {"seconds": round(seconds, 3), **(result or {})})
        self._file("failed", unit).unlink(missing_ok=True)

    def note_failed(self, unit: _Unit, error: str) -> None:
        """Write that a unit has failed.

        Raises:
            RecordError: The folder cannot be written.
        """
        self._write("failed", unit, {"error": error})

    def note_lost(self, unit: _Unit) -> None:
        """Take back that a unit is finished: what it wrote is not there."""
        self._finished.discard(unit.key)
        self._file("done", unit).unlink(missing_ok=True)

    def _write(self, what: str, unit: _Unit, content: JsonObject) -> None:
        about = {"key": unit.key, "name": unit.name, "host": socket.gethostname(), **content}
        path = self._file(what, unit)
        try:
            write_text_atomic(path, json.dumps(about))
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror or error}") from error

    def _file(self, what: str, unit: _Unit) -> Path:
        return self.folder / what / f"{unit.key}.json"

    def check_same_code(self) -> None:
        """Refuse to go on with other versions than the plan was made with.

        Raises:
            ExecutorError: They differ.
        """
        Environment.here().check_same(self.environment, f"{self.folder / PLAN}, when it was made,")

    def enter_directory(self) -> None:
        """Change to the directory in which the plan was made.

        Raises:
            ConfigError: It cannot be entered.
        """
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise ConfigError(
                f"{self.directory}, where the plan was made, cannot be entered: {error.strerror}. "
                "All jobs must see the data under the paths that it had then"
            ) from error

    def changed(self, names: Sequence[str], remedy: str = "") -> ConfigError:
        """Return the error for data that has changed since the plan was made.

        Args:
            names: What has changed.
            remedy: What to do, beside making a new plan.
        """
        shown = ", ".join(names)
        return ConfigError(
            f"the data has changed since {self.folder / PLAN} was made: {shown}. Make a new "
            f"plan{remedy}"
        )

    def save(self, command: str, further: JsonObject) -> None:
        """Write `plan.json`.

        Args:
            command: The command whose work is planned.
            further: What this kind of plan has besides.

        Raises:
            RecordError: The folder cannot be written.
        """
        units: list[Json] = [dict(vars(unit)) for unit in self.units]
        state = {
            "format": _FORMAT,
            "command": command,
            "directory": self.directory,
            "environment": self.environment.to_dict(),
            **further,
            "units": units,
        }
        try:
            write_text_atomic(self.folder / PLAN, json.dumps(state, indent=1))
        except OSError as error:
            raise RecordError(f"cannot write {self.folder}: {error.strerror or error}") from error


def check_new_plan(folder: Path) -> None:
    """Refuse a folder that holds a plan.

    Raises:
        RecordError: It does.
    """
    if (folder / PLAN).exists():
        raise RecordError(
            f"{folder / PLAN} exists: continue it with synque-select work {folder}, or give "
            "another folder"
        )


def plan_fields(folder: Path) -> tuple[str, JsonFields]:
    """Read `plan.json`; return the command whose work is planned, and all fields.

    Raises:
        RecordError: There is none, it is damaged, or it is of another version.
    """
    path = folder / PLAN
    if not path.is_file():
        raise RecordError(f"{folder} holds no plan: synque-select plan … --out {folder} makes one")
    state = JsonFields(read_json_file(path, error=RecordError))
    version = state.count("format")
    if version != _FORMAT:
        raise RecordError(
            f"{path} has format {version}, and this version of synque-select reads {_FORMAT}: use "
            "the version that made it, or make the plan again"
        )
    return state.text("command", "rank"), state


def unit_of(fields: JsonFields) -> PlannedUnit:
    """Read what every unit has.

    Raises:
        RecordError: A field is missing or of another type.
    """
    key = fields.text("key")
    fields.expect(_KEY.fullmatch(key) is not None, "key", "a hash in hexadecimal")
    return PlannedUnit(key, fields.text("name"), fields.text("stage"))
