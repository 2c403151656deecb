"""What is in a cache, and what may be removed from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synque_select.errors import ConfigError
from synque_select.utils import cache_files
from synque_select.utils.cache_files import (
    CacheEntry,
    cache_entries,
    chosen_to_remove,
    file_states,
    in_use_since,
    note_use,
    parse_age,
    parse_size,
    register_root,
    remove_entry,
)
from synque_select.utils.process_identity import process_identity

HASH = "0123456789abcdef" * 4
DAY = 86400.0


def made(path: Path, n_bytes: int, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(n_bytes))
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_what_belongs_together_is_one_entry(tmp_path: Path):
    made(tmp_path / "rankings" / f"{HASH}.json", 3, 9)
    made(tmp_path / "rankings" / f"{HASH}-1a2b3c4d" / "gaps.json", 4, 5)
    made(tmp_path / "iterables" / f"{HASH[:32]}.arrow", 10, 7)
    made(tmp_path / "iterables" / f"{HASH[:32]}.json", 1, 7)
    made(tmp_path / "embeddings" / HASH[:16] / f"{HASH}.safetensors", 5, 20)
    made(tmp_path / "embeddings" / HASH[:16] / "part-1.safetensors", 6, 30)
    entries = cache_entries(tmp_path)
    assert [(e.part, e.n_bytes, len(e.paths)) for e in entries] == [
        ("embeddings", 6, 1),
        ("embeddings", 5, 1),
        ("rankings", 7, 2) if entries[2].part == "rankings" else ("iterables", 11, 2),
        ("rankings", 7, 2) if entries[3].part == "rankings" else ("iterables", 11, 2),
    ]
    (ranking,) = [e for e in entries if e.part == "rankings"]
    assert remove_entry(ranking) == 7
    assert not list((tmp_path / "rankings").iterdir())


def test_files_of_others_are_never_entries(tmp_path: Path):
    """A wrong directory, such as a project with a folder of tables, is not emptied."""
    for name in ("tables/mine.csv", "embeddings/mine.npy", "embeddings/run-1/x.safetensors"):
        made(tmp_path / name, 1, 100)
    made(tmp_path / "answers.sqlite", 1, 100)
    assert cache_entries(tmp_path) == []


def entry(name: str, n_bytes: int, used: float) -> CacheEntry:
    return CacheEntry("scores", (Path(name),), n_bytes, used)


def test_the_least_recently_used_go_first_and_what_is_in_use_stays():
    entries = [entry(str(at), 10, float(at)) for at in range(5)]

    def names(**options: float | None) -> list[str]:
        return [e.paths[0].name for e in chosen_to_remove(entries, **options)]

    assert names(max_bytes=30) == ["0", "1"]
    assert names(max_bytes=31) == ["0", "1"]
    assert names(max_bytes=50) == []
    assert names(unused_since=2.0) == ["0", "1"]
    assert names(max_bytes=0, in_use_since=3.0) == ["0", "1", "2"]
    assert names(max_bytes=20, unused_since=1.0) == ["0", "1", "2"]
    kept = chosen_to_remove(entries, max_bytes=0, keep=lambda e: e.used == 2)
    assert len(kept) == 4


def test_a_use_is_noted_without_a_change_of_the_content(tmp_path: Path):
    register_root(tmp_path)
    path = made(tmp_path / "scores" / f"{HASH}.npz", 3, 40 * DAY)
    before = path.stat().st_mtime_ns
    note_use(path)
    assert path.stat().st_mtime_ns == before
    assert time.time() - path.stat().st_atime < 60
    state = path.stat()
    note_use(path)  # within the hour, nothing is written again
    assert path.stat().st_ctime_ns == state.st_ctime_ns
    start = in_use_since(tmp_path)
    assert start is not None
    assert start < time.time()
    note_use(tmp_path / "missing")


def test_the_lease_of_a_killed_process_is_over(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from synque_select.utils.cache_files import note_use, register_root\n"
        "register_root(Path(sys.argv[1])); note_use(Path(sys.argv[1], 'scores', 'x'))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert in_use_since(tmp_path) is not None
    child.kill()
    child.communicate()
    assert in_use_since(tmp_path) is None


def test_the_lease_of_another_machine_counts_for_a_week(tmp_path: Path):
    lease = tmp_path / ".in-use" / "other"
    lease.parent.mkdir()
    lease.write_text("other-boot/pid:[1] 7 99")
    assert in_use_since(tmp_path) is not None
    os.utime(lease, (time.time() - 8 * DAY,) * 2)
    assert in_use_since(tmp_path) is None
    cache_files._LEASED.clear()
    register_root(tmp_path)
    note_use(tmp_path / "scores" / "x")
    assert not lease.exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"place no-number 3", b"\0"])
def test_a_damaged_lease_does_no_harm(tmp_path: Path, content: bytes):
    lease = tmp_path / ".in-use" / "damaged"
    lease.parent.mkdir()
    place = process_identity().split()[0].encode()
    lease.write_bytes(content.replace(b"place", place))
    assert in_use_since(tmp_path) is not None
    os.utime(lease, (time.time() - 8 * DAY,) * 2)
    assert in_use_since(tmp_path) is None


def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path: Path):
    (tmp_path / ".in-use").write_text("a file in place of the folder")
    cache_files._LEASED.clear()
    note_use(register_root(tmp_path) / "scores" / "x")
    assert in_use_since(tmp_path) is None


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 XB", "1iB", "ten", "1e3"])
def test_what_is_not_a_size_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"allowed is a size such as 500MB"):
        parse_size("--max-size", text)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y"])
def test_what_is_not_an_age_is_refused(text: str):
    with pytest.raises(ConfigError, match=r"allowed is a time such as 90m"):
        parse_age("--unused-for", text)


def test_sizes_and_ages():
    assert parse_size("x", "1.5TiB") == 3 * 2**39
    assert parse_size("x", "12") == 12
    assert parse_size("x", "3 mb") == 3_000_000
    assert parse_age("x", "90m") == 5400
    assert parse_age("x", "0.5d") == 43200


def test_what_another_process_removes_meanwhile_is_left_out(tmp_path: Path):
    made(tmp_path / "stays", 3, 9)
    ended = threading.Event()

    def come_and_go() -> None:
        folder = tmp_path / "folder"
        while not ended.is_set():
            made(folder / "file", 5, 0).unlink()
            folder.rmdir()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(come_and_go)
        try:
            listings = [dict(file_states(tmp_path)) for _ in range(3_000)]
        finally:
            ended.set()
        writer.result()
    assert all(states[tmp_path / "stays"].st_size == 3 for states in listings)
    assert file_states(tmp_path / "missing") == []
