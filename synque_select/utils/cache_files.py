"""The files of a cache folder: how large they are, when they were last used, and which may go."""

from __future__ import annotations

import atexit
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from synque_select.errors import ConfigError
from synque_select.utils.process_identity import has_ended, is_local, process_identity

__all__ = [
    "PARTS",
    "CacheEntry",
    "cache_entries",
    "chosen_to_remove",
    "file_states",
    "in_use_since",
    "note_use",
    "parse_age",
    "parse_size",
    "register_root",
    "remove_entry",
    "size_text",
]

# what can be computed again; answers of language models, which cost money, are not among them
PARTS = (
    "copies",
    "digests",
    "embeddings",
    "hf",
    "influence",
    "iterables",
    "lengths",
    "rankings",
    "scores",
    "streams",
    "tables",
)
_LEASES = ".in-use"
# a use is noted once per hour: a program that copies files would see each note as a change
_NOTED_S = 3600.0
_OTHER_MACHINE_S = 7 * 86400.0
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])", re.IGNORECASE)
_ENCODER = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"\.?[0-9a-f]{32}")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_size(name: str, text: str) -> int:
    """Return a number of bytes, written such as "50GB", "1.5 TiB" or "1000".

    Args:
        name: Name of the option, for the message.
        text: The value.

    Raises:
        ConfigError: It is not a size.

    Example:
        >>> parse_size("max_size", "50GB"), parse_size("max_size", "1 KiB")
        (50000000000, 1024)
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or (match[3] and not match[2]):
        raise ConfigError(f"{name}={text!r}: allowed is a size such as 500MB, 50GB or 1.5TiB")
    unit = match[2].lower()
    return int(float(match[1]) * (_BINARY if match[3] else _UNITS)[unit])


def parse_age(name: str, text: str) -> float:
    """Return a number of seconds, written in minutes, hours, days or weeks.

    Args:
        name: Name of the option, for the message.
        text: The value, such as "90m", "12h", "30d" or "8w".

    Raises:
        ConfigError: It is not an age.

    Example:
        >>> parse_age("unused_for", "30d")
        2592000.0
    """
    match = _AGE.fullmatch(str(text).strip())
    if match is None:
        raise ConfigError(
            f"{name}={text!r}: allowed is a time such as 90m, 12h, 30d or 8w (minutes, hours, "
            "days, weeks)"
        )
    return float(match[1]) * _SECONDS[match[2].lower()]


def size_text(n_bytes: int) -> str:
    """Return a size as tables write it.

    Example:
        >>> size_text(3 * 2**30), size_text(1500)
        ('3,072.0 MiB', '1.5 KiB')
    """
    return f"{n_bytes / 2**20:,.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.1f} KiB"


@dataclass(frozen=True)
class CacheEntry:
    """Files of a cache that are only of use together.

    Args:
        part: The part of the cache that they belong to, such as "embeddings".
        paths: The files.
        n_bytes: Size of all of them.
        used: Time of the last use, in seconds since 1970.
    """

    part: str
    paths: tuple[Path, ...]
    n_bytes: int
    used: float


def cache_entries(root: Path, parts: Iterable[str] = PARTS) -> list[CacheEntry]:
    """Return what is in a cache folder, the entry that was not used for the longest time first.

    Args:
        root: The folder; it may be missing.
        parts: The parts to look at.
    """
    entries = [entry for part in parts for entry in _entries_of(root, part)]
    return sorted(entries, key=lambda entry: (entry.used, entry.paths))


def file_states(path: Path) -> list[tuple[Path, os.stat_result]]:
    """Return the files at or below a path with their states; none if it is missing.

    A file that another process removes meanwhile is left out.

    Args:
        path: A file or a folder.
    """
    # unlike `rglob`, `walk` goes on where a folder is removed meanwhile
    walked = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    states = []
    for file in (path, *walked):
        with suppress(OSError):
            state = file.stat()
            if stat.S_ISREG(state.st_mode):
                states.append((file, state))
    return states


def _entries_of(root: Path, part: str) -> Iterator[CacheEntry]:
    groups: dict[tuple[Path, str], list[tuple[Path, os.stat_result]]] = {}
    folder = root / part
    for path, state in file_states(folder):
        if _is_ours(path.relative_to(folder), part):
            groups.setdefault(_unit(folder, path, part), []).append((path, state))
    for files in groups.values():
        yield CacheEntry(
            part=part,
            paths=tuple(sorted(path for path, _ in files)),
            n_bytes=sum(status.st_size for _, status in files),
            used=max(max(status.st_atime, status.st_mtime) for _, status in files),
        )


def _is_ours(inner: Path, part: str) -> bool:
    """Whether a file is named as this library names it: a wrong folder must not be emptied."""
    if part == "embeddings":
        return bool(_ENCODER.fullmatch(inner.parts[0])) and inner.suffix in (".safetensors", ".tmp")
    return bool(_HASH.match(inner.parts[0]))


def _unit(folder: Path, path: Path, part: str) -> tuple[Path, str]:
    """Return what the files that belong together have in common."""
    inner = path.relative_to(folder)
    if part == "embeddings":
        return path, ""
    # a ranking and the folder of its findings, a stored dataset and its layout
    return folder, inner.parts[0].lstrip(".").partition(".")[0].partition("-")[0]


def chosen_to_remove(
    entries: Sequence[CacheEntry],
    *,
    max_bytes: int | None = None,
    unused_since: float | None = None,
    in_use_since: float | None = None,
    keep: Callable[[CacheEntry], bool] = lambda _: False,
) -> list[CacheEntry]:
    """Return the entries that go: those unused for too long, then the least recently used.

    Args:
        entries: What is in the cache, in the order of `cache_entries`.
        max_bytes: Largest size of what stays; None for any.
        unused_since: Entries not used since then go; None for none.
        in_use_since: Entries used since then stay; see `in_use_since`.
        keep: Whether an entry stays for another reason.

    Example:
        >>> old, new = (CacheEntry("scores", (Path(str(t)),), 10, used=t) for t in (1.0, 2.0))
        >>> [entry.used for entry in chosen_to_remove([old, new], max_bytes=10)]
        [1.0]
    """
    total = sum(entry.n_bytes for entry in entries)
    chosen = []
    for entry in entries:
        is_old = unused_since is not None and entry.used < unused_since
        is_too_much = max_bytes is not None and total > max_bytes
        in_use = in_use_since is not None and entry.used >= in_use_since
        if (is_old or is_too_much) and not in_use and not keep(entry):
            chosen.append(entry)
            total -= entry.n_bytes
    return chosen


def remove_entry(entry: CacheEntry) -> int:
    """Remove the files of an entry and return the number of bytes that are free now."""
    freed = 0
    for path in entry.paths:
        with suppress(OSError):  # another process has removed it, or the folder is read-only
            size = path.stat().st_size
            path.unlink()
            freed += size
        with suppress(OSError):  # the folder of findings, once it is empty
            if path.parent.name != entry.part:
                path.parent.rmdir()
    return freed


_ROOTS: set[Path] = set()
_LEASED: dict[Path, int] = {}  # root to the process that noted its use


def register_root(root: Path) -> Path:
    """Let `note_use` know that a folder is a cache, and return it."""
    _ROOTS.add(root)
    return root


def note_use(path: Path) -> None:
    """Note that this process uses a file of the cache: it is not pruned while the process runs.

    Files outside of a cache, and caches that cannot be written, are left alone.
    """
    for root in path.parents:
        if root in _ROOTS:
            _lease(root)
            break
    with suppress(OSError):
        status = path.stat()
        now = time.time()
        if now - status.st_atime > _NOTED_S:
            os.utime(path, ns=(int(now * 1e9), status.st_mtime_ns))


def _lease(root: Path) -> None:
    if _LEASED.get(root) == os.getpid():
        return
    _LEASED[root] = os.getpid()
    with suppress(OSError):
        folder = root / _LEASES
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if _is_over(other):
                other.unlink(missing_ok=True)
        lease = folder / uuid.uuid4().hex
        try:
            lease.write_text(process_identity())
        except OSError:  # the disk is full: an empty file would remain
            lease.unlink(missing_ok=True)
            raise
        atexit.register(_end_lease, lease, os.getpid())


def _end_lease(lease: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(OSError):
            lease.unlink()


def _is_over(lease: Path) -> bool:
    identity = lease.read_text(errors="replace")
    age_s = time.time() - lease.stat().st_mtime
    if not identity.strip():  # it is being written
        return age_s > _NOTED_S
    with suppress(ValueError):  # it is damaged
        if is_local(identity):
            return has_ended(identity)
    # whether a process of another machine still runs cannot be seen
    return age_s > _OTHER_MACHINE_S


def in_use_since(root: Path) -> float | None:
    """Return the time from which on used files may be in use by a running process; None if none.

    A process of another machine counts for seven days after its start.

    Args:
        root: The folder of the cache.
    """
    starts = []
    with suppress(OSError):
        for lease in (root / _LEASES).iterdir():
            with suppress(OSError):
                if not _is_over(lease):
                    starts.append(lease.stat().st_mtime)
    # the note of a use may be an hour older than the use
    return min(starts) - _NOTED_S if starts else None
