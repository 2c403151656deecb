"""A small database of the world's time zones, built from the files of the package tzdata.

All rows are real: countries (ISO 3166), the zones of zone.tab with their coordinates, every change
of their clocks from 1970 to 2026, and other names for them. The comments in `SCHEMA` say which
columns are derived.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import sqlite3
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from synque_select.errors import DependencyError

__all__ = ["SCHEMA", "build_time_zones", "time_zone_version", "write_database"]

SCHEMA = """\
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT);
CREATE TABLE zones (
  name TEXT PRIMARY KEY,
  country TEXT REFERENCES countries (code),
  region TEXT, -- the part of the name before the first slash
  city TEXT, -- the part after the last slash, with spaces
  latitude REAL, -- degrees, north and east are positive
  longitude REAL,
  utc_offset REAL, -- hours, the smaller one of the year 2026
  dst INTEGER, -- 1 where the clock changes in 2026
  note TEXT
);
CREATE TABLE changes (
  zone TEXT REFERENCES zones (name),
  date TEXT, -- 1970-01-01 says what held at the beginning
  utc_offset REAL,
  dst INTEGER,
  abbreviation TEXT
);
CREATE TABLE aliases (alias TEXT PRIMARY KEY, zone TEXT REFERENCES zones (name));
"""

_FIRST, _LAST_YEAR = datetime(1970, 1, 1, tzinfo=UTC), 2026
_STEP = timedelta(days=7)

Rows = dict[str, list[tuple[Any, ...]]]


def build_time_zones(folder: Path) -> Path:
    """Build the database in a folder, unless this version of it exists, and return its path.

    Raises:
        DependencyError: tzdata is missing.
    """
    path = folder / f"time-zones-{time_zone_version()}.sqlite"
    if not path.is_file():
        rows = _rows(_files())
        folder.mkdir(parents=True, exist_ok=True)
        write_database(path, SCHEMA, rows)
    return path


def time_zone_version() -> str:
    """Return the version of the package tzdata."""
    try:
        return importlib.metadata.version("tzdata")
    except importlib.metadata.PackageNotFoundError as error:
        purpose = "the database of time zones"
        raise DependencyError("tzdata", extra="text2sql", purpose=purpose) from error


def write_database(path: Path, schema: str, rows: Rows) -> None:
    """Write a SQLite file atomically: a process that is killed leaves no partial file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    connection = sqlite3.connect(partial)
    try:
        with connection:
            connection.executescript(schema)
            for table, values in rows.items():
                if values:
                    places = ", ".join("?" * len(values[0]))
                    connection.executemany(f'INSERT INTO "{table}" VALUES ({places})', values)
    finally:
        connection.close()
    partial.replace(path)


def _files() -> Traversable:
    return importlib.resources.files("tzdata") / "zoneinfo"


def _rows(files: Traversable) -> Rows:
    changes: list[tuple[Any, ...]] = []
    zones: list[tuple[Any, ...]] = []
    for country, position, name, *note in _fields(files / "zone.tab"):
        of_zone = list(_changes(files, name))
        changes += [(name, *change) for change in of_zone]
        offsets = _offsets(of_zone)
        place = (name.split("/")[0], name.split("/")[-1].replace("_", " "), *_degrees(position))
        clock = (min(offsets), int(len(offsets) > 1))
        zones.append((name, country, *place, *clock, note[0] if note else None))
    known = {zone[0] for zone in zones}
    return {
        "countries": [tuple(row) for row in _fields(files / "iso3166.tab")],
        "zones": zones,
        "changes": changes,
        "aliases": [(a, z) for a, z in _links(files) if z in known and a not in known],
    }


def _fields(file: Traversable) -> Iterator[list[str]]:
    for line in file.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def _links(files: Traversable) -> Iterator[tuple[str, str]]:
    for line in (files / "tzdata.zi").read_text("utf-8").splitlines():
        if line.startswith("L "):
            _, zone, alias = line.split()
            yield alias, zone


def _changes(files: Traversable, name: str) -> Iterator[tuple[str, float, int, str]]:
    """Yield (date, hours from UTC, dst, abbreviation) at the start of 1970 and at each change."""
    with files.joinpath(*name.split("/")).open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file)
    last = _clock(zone, _FIRST)
    yield (f"{_FIRST:%Y-%m-%d}", *last)
    moment = _FIRST
    while (after := moment + _STEP).year <= _LAST_YEAR:
        if _clock(zone, after) != last:
            # no real zone has two changes within a week that cancel out
            moment = _first_with_other_clock(zone, moment, after)
            last = _clock(zone, moment)
            yield (f"{moment:%Y-%m-%d}", *last)
        else:
            moment = after


def _first_with_other_clock(zone: zoneinfo.ZoneInfo, low: datetime, high: datetime) -> datetime:
    """Find by bisection the first minute whose clock differs from that at `low`."""
    before = _clock(zone, low)
    while high - low > timedelta(minutes=1):
        middle = low + (high - low) // 2
        low, high = (middle, high) if _clock(zone, middle) == before else (low, middle)
    return high


def _clock(zone: zoneinfo.ZoneInfo, moment: datetime) -> tuple[float, int, str]:
    local = moment.astimezone(zone)
    offset, dst = local.utcoffset() or timedelta(), local.dst() or timedelta()
    return round(offset / timedelta(hours=1), 4), int(bool(dst)), local.tzname() or ""


def _offsets(changes: list[tuple[str, float, int, str]]) -> set[float]:
    """Return the offsets that were in use during the last year."""
    year = f"{_LAST_YEAR}-01-01"
    before = [offset for date, offset, _, _ in changes if date < year]
    return {before[-1], *(offset for date, offset, _, _ in changes if date >= year)}


def _degrees(position: str) -> tuple[float, float]:
    """Read ISO 6709: ±DDMM±DDDMM or ±DDMMSS±DDDMMSS.

    Example:
        >>> _degrees("+5230+01322")
        (52.5, 13.3667)
    """
    split = max(position.rfind("+"), position.rfind("-"))
    return _angle(position[:split], 2), _angle(position[split:], 3)


def _angle(text: str, n_degrees: int) -> float:
    digits = text[1:].ljust(n_degrees + 4, "0")
    degrees, minutes, seconds = (
        int(digits[:n_degrees]),
        int(digits[n_degrees : n_degrees + 2]),
        int(digits[n_degrees + 2 :]),
    )
    size = degrees + minutes / 60 + seconds / 3600
    return round(-size if text[0] == "-" else size, 4)
