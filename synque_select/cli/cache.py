"""`synque-select cache`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.cli.options import print_tables
from synque_select.errors import ConfigError
from synque_select.utils.wording import UNDEFINED, counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.report.table import Table
    from synque_select.utils.cache_files import CacheEntry
    from synque_select.utils.remote_cache import RemoteCache

__all__ = ["arguments", "local_table", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "action",
        choices=["ls", "size", "prune"],
        help="list what the cache holds, print its size, or remove what was not used for long",
    )
    parser.add_argument(
        "where",
        nargs="?",
        help="directory or address of the cache (default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument(
        "--max-size",
        help="prune: remove the least recently used files until the rest takes at most this, such "
        "as 50GB",
    )
    parser.add_argument(
        "--unused-for", help="prune: remove files that were not used for this long, such as 30d"
    )
    parser.add_argument(
        "--store",
        action="store_true",
        help="prune: of an address, remove files of the store itself, by the time at which they "
        "were written, instead of the local copies",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="prune: say what would be removed, remove nothing"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the result as JSON to this file; - prints it"
    )


def run(options: Namespace) -> int:
    """List, measure or prune the cache of embeddings, scores and tables.

    What is removed can be computed again. Not removed are answers of language models, files that a
    running process uses, and files that still have to be sent to a store.
    """
    of_prune = {
        "--max-size": options.max_size,
        "--unused-for": options.unused_for,
        "--store": options.store,
        "--dry-run": options.dry_run,
    }
    given = [name for name, value in of_prune.items() if value]
    if options.action != "prune" and given:
        raise ConfigError(f"cache {options.action} takes no {given[0]}; it is an option of prune")
    from synque_select.utils.cache_dir import cache_root
    from synque_select.utils.remote_cache import remote_of

    root = cache_root(options.where)
    remote = remote_of(root)
    if options.store and remote is None:
        raise ConfigError(f"--store needs an address such as s3://bucket/cache, found {root}")
    if options.action == "prune":
        print_tables([_prune(options, root, remote)], options.json)
    elif options.action == "size":
        _print_sizes(root, remote, options.json)
    else:
        tables = (
            [local_table(root)] if remote is None else [_store_table(remote), local_table(root)]
        )
        print_tables(tables, options.json)
    return 0


@dataclass(frozen=True)
class _Measured:
    """How much there is of something."""

    n_files: int
    n_bytes: int
    changed: float | None

    @property
    def cells(self) -> tuple[str, str]:
        from synque_select.utils.cache_files import size_text

        return f"{self.n_files:,}", size_text(self.n_bytes)


def local_table(root: Path) -> Table:
    """Return a table of what a cache folder holds.

    Args:
        root: The folder.
    """
    from synque_select.report.table import Column, Table

    rows = [
        (path.name, *measured.cells, _date(measured.changed))
        for path in (sorted(root.iterdir()) if root.is_dir() else ())
        if not path.name.startswith(".") and path.name != "address.txt"
        for measured in [_measured(path)]
    ]
    columns = tuple(Column(head, is_name=True) for head in ("what", "files", "size", "last used"))
    notes = ["what is here can be computed again: deleting it costs only time"]
    if any(row[0].startswith("answers") for row in rows):
        notes = ["answers were paid for: prune keeps them; all else can be computed again"]
    return Table(f"Cache in {root}", columns, tuple(rows), tuple(notes))


def _store_table(remote: RemoteCache) -> Table:
    from synque_select.report.table import Column, Table

    entries = remote.entries()
    parts = sorted({name.partition("/")[0] for name, _, _ in entries})
    rows = []
    for part in parts:
        mine = [entry for entry in entries if entry[0].startswith(f"{part}/")]
        times = [changed for _, _, changed in mine if changed is not None]
        size = sum(n_bytes for _, n_bytes, _ in mine)
        measured = _Measured(len(mine), size, max(times, default=None))
        rows.append((part, *measured.cells, _date(measured.changed)))
    columns = tuple(Column(head, is_name=True) for head in ("what", "files", "size", "written"))
    return Table(f"Store {remote.address}", columns, tuple(rows), ())


def _measured(path: Path) -> _Measured:
    from synque_select.utils.cache_files import file_states

    states = [state for _, state in file_states(path)]
    used = max((max(state.st_atime, state.st_mtime) for state in states), default=None)
    return _Measured(len(states), sum(state.st_size for state in states), used)


def _date(seconds: float | None) -> str:
    return UNDEFINED if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _print_sizes(root: Path, remote: RemoteCache | None, json_file: str | None) -> None:
    from synque_select.records.run_folder import write_json

    local = _measured(root) if root.is_dir() else _Measured(0, 0, None)
    places = [(str(root), local)]
    if remote is not None:
        sizes = [n_bytes for _, n_bytes, _ in remote.entries()]
        places.insert(0, (remote.address, _Measured(len(sizes), sum(sizes), None)))
    if json_file is None:
        for place, measured in places:
            print(f"{measured.cells[1]} in {counted(measured.n_files, 'file')}: {place}")
        return
    state = [{"where": p, "files": m.n_files, "bytes": m.n_bytes} for p, m in places]
    if json_file == "-":
        print(json.dumps(state, indent=2, ensure_ascii=False))
    else:
        print(f"wrote {write_json(json_file, state)}")


def _prune(options: Namespace, root: Path, remote: RemoteCache | None) -> Table:
    from synque_select.report.table import Column, Table
    from synque_select.utils.cache_files import parse_age, parse_size, size_text

    if options.max_size is None and options.unused_for is None:
        raise ConfigError(
            "cache prune needs --max-size, such as 50GB, or --unused-for, such as 30d; --dry-run "
            "only says what would be removed"
        )
    max_bytes = None if options.max_size is None else parse_size("--max-size", options.max_size)
    since = None
    if options.unused_for is not None:
        since = time.time() - parse_age("--unused-for", options.unused_for)
    if remote is not None and options.store:
        plan = _plan_of_store(remote, max_bytes, since)
    else:
        plan = _plan_of_folder(root, max_bytes, since)
    freed: Counter[str] = Counter()
    n_files: Counter[str] = Counter()
    for entry in plan.chosen:
        n_bytes = entry.n_bytes if options.dry_run else plan.remove(entry)
        freed[entry.part] += n_bytes
        n_files[entry.part] += len(entry.paths) if n_bytes or not entry.n_bytes else 0
    rows = tuple((part, f"{n_files[part]:,}", size_text(freed[part])) for part in sorted(freed))
    total = f"{size_text(freed.total())} of {size_text(plan.n_bytes)}"
    title = f"{'Would be removed' if options.dry_run else 'Removed'}: {total} in {plan.where}"
    columns = tuple(Column(head, is_name=True) for head in ("what", "files", "size"))
    return Table(title, columns, rows, tuple(plan.notes))


@dataclass(frozen=True)
class _Plan:
    """What will be removed, and how."""

    where: str
    n_bytes: int
    chosen: Sequence[CacheEntry]
    remove: Callable[[CacheEntry], int]
    notes: Sequence[str]


def _plan_of_folder(root: Path, max_bytes: int | None, since: float | None) -> _Plan:
    from synque_select.utils.cache_files import (
        cache_entries,
        chosen_to_remove,
        in_use_since,
        remove_entry,
        size_text,
    )
    from synque_select.utils.remote_cache import unsent_files

    copies = root / "remote"
    roots = [root, *(sorted(copies.iterdir()) if copies.is_dir() else ())]
    entries = sorted(
        (entry for each in roots for entry in cache_entries(each)),
        key=lambda entry: (entry.used, entry.paths),
    )
    starts = [start for each in roots if (start := in_use_since(each)) is not None]
    unsent = {note for each in roots for note in unsent_files(each)}
    in_use = min(starts, default=None)
    chosen = chosen_to_remove(
        entries,
        max_bytes=max_bytes,
        unused_since=since,
        in_use_since=in_use,
        keep=lambda entry: any(path in unsent for path in entry.paths),
    )
    notes = []
    n_used = sum(e.n_bytes for e in entries if in_use is not None and e.used >= in_use)
    if n_used:
        notes.append(f"{size_text(n_used)} may be in use by running processes and stay")
    if unsent:
        n_unsent = counted(len(unsent), "file")
        notes.append(f"{n_unsent} that a store does not have yet stay; the next run sends them")
    return _Plan(str(root), sum(e.n_bytes for e in entries), chosen, remove_entry, notes)


def _plan_of_store(remote: RemoteCache, max_bytes: int | None, since: float | None) -> _Plan:
    from synque_select.utils.cache_files import PARTS, CacheEntry, chosen_to_remove

    stored = remote.entries()
    stored = [entry for entry in stored if entry[0].partition("/")[0] in PARTS]
    known = [(name, size, at) for name, size, at in stored if at is not None]
    entries = sorted(
        (CacheEntry(name.partition("/")[0], (Path(name),), size, at) for name, size, at in known),
        key=lambda entry: (entry.used, entry.paths),
    )

    def remove(entry: CacheEntry) -> int:
        return entry.n_bytes if remote.remove(entry.paths[0].as_posix()) else 0

    notes = ["a store does not tell when a file was read: the oldest files go first"]
    if len(known) < len(stored):
        n_others = counted(len(stored) - len(known), "file")
        notes.append(f"{n_others} of which the store tells no time stay")
    chosen = chosen_to_remove(entries, max_bytes=max_bytes, unused_since=since)
    return _Plan(remote.address, _total(stored), chosen, remove, notes)


def _total(stored: Iterable[tuple[str, int, float | None]]) -> int:
    return sum(n_bytes for _, n_bytes, _ in stored)
