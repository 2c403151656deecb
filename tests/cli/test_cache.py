"""`synque-select cache`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from synque_select.cli.main import main
from synque_select.utils import cache_files
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.checksums import checksummed_file
from tests.utils.stores import FlakyStore, reset

URL = "flaky://bucket/cache"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with five scores that were used one to five days ago, and paid answers."""
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    for days in range(1, 6):
        path = tmp_path / "scores" / f"{days:064x}.npz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - days * 86400 - 60,) * 2)
    (tmp_path / "answers.sqlite").write_bytes(bytes(5000))
    return tmp_path


def days_left(root: Path) -> list[int]:
    return sorted(int(path.stem, 16) for path in (root / "scores").iterdir())


def printed(capsys, *arguments: str) -> list[dict[str, object]]:
    assert main(["cache", *arguments, "--json", "-"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_size_and_list(root: Path, capsys):
    assert printed(capsys, "size") == [{"where": str(root), "files": 6, "bytes": 10_000}]
    rows = {row["what"]: row for row in printed(capsys, "ls")}
    assert rows["scores"]["files"] == "5"
    assert set(rows) == {"answers.sqlite", "scores"}
    assert main(["cache", "size", str(root)]) == 0
    assert capsys.readouterr().out == f"9.8 KiB in 6 files: {root}\n"
    assert main(["cache", "ls"]) == 0
    assert "answers were paid for" in capsys.readouterr().out


def test_prune_by_size_keeps_what_was_used_last(root: Path, capsys):
    (row,) = printed(capsys, "prune", "--max-size", "2.5kB", "--dry-run")
    assert row == {"what": "scores", "files": "3", "size": "2.9 KiB"}
    assert days_left(root) == [1, 2, 3, 4, 5]
    assert main(["cache", "prune", "--max-size", "2.5kB"]) == 0
    assert days_left(root) == [1, 2]
    assert (root / "answers.sqlite").exists()
    assert "Removed: 2.9 KiB of 4.9 KiB" in " ".join(capsys.readouterr().out.split())


def test_prune_by_age(root: Path):
    assert main(["cache", "prune", str(root), "--unused-for", "3d"]) == 0
    assert days_left(root) == [1, 2]


def test_what_this_process_may_use_stays(root: Path, capsys):
    cache_files._LEASED.clear()
    cache_root(None)
    cache_files.note_use(root / "scores" / f"{5:064x}.npz")
    assert main(["cache", "prune", "--max-size", "0"]) == 0
    assert days_left(root) == [5]
    assert "may be in use by running processes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "cache prune needs --max-size"),
        (["prune", "--max-size", "x"], "--max-size='x': allowed is a size"),
        (["prune", "--unused-for", "3"], "--unused-for='3': allowed is a time"),
        (["prune", "--max-size", "1", "--store"], "--store needs an address"),
        (["ls", "--dry-run"], "cache ls takes no --dry-run; it is an option of prune"),
        (["clear"], "clear"),
    ],
)
def test_what_is_refused(root: Path, arguments: list[str], message: str, capsys):
    assert main(["cache", *arguments]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert days_left(root) == [1, 2, 3, 4, 5]


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch):
    reset()
    monkeypatch.setattr(cache_files, "_LEASED", {})
    for number in range(3):
        with checksummed_file(cache_root(URL) / "scores" / f"{number:064x}.npz") as stream:
            stream.write(bytes(1000))
    yield cache_root(URL)
    reset()


def test_a_store_and_its_local_copies_are_listed(store: Path, capsys):
    in_store, local = printed(capsys, "ls", URL)
    assert in_store[0]["files"] == local[0]["files"] == "3"
    of_store, of_copies = printed(capsys, "size", URL)
    assert of_store["where"] == URL
    assert of_copies["where"] == str(store)
    assert main(["ls", "cache", URL]) == 0


def test_a_prune_of_copies_leaves_the_store_and_the_other_way_round(
    store: Path, capsys, monkeypatch
):
    monkeypatch.setattr(cache_files, "in_use_since", lambda _: None)
    assert main(["cache", "prune", "--max-size", "0"]) == 0  # also of the copies of stores
    assert not list((store / "scores").iterdir())
    capsys.readouterr()
    n_files = len(FlakyStore.store)
    assert n_files == 4
    (row,) = printed(capsys, "prune", URL, "--store", "--max-size", "1.5kB", "--dry-run") or [{}]
    assert row["files"] == "2"
    assert len(FlakyStore.store) == n_files
    assert main(["cache", "prune", URL, "--store", "--max-size", "1.5kB"]) == 0
    assert len(FlakyStore.store) == n_files - 2


def test_a_file_that_waits_to_be_sent_stays(store: Path, monkeypatch, capsys):
    monkeypatch.setattr(cache_files, "in_use_since", lambda _: None)
    FlakyStore.failing["put_file"] = OSError("timed out")
    with checksummed_file(store / "scores" / f"{7:064x}.npz") as stream:
        stream.write(bytes(10))
    assert main(["cache", "prune", URL, "--max-size", "0"]) == 0
    assert [path.name for path in (store / "scores").iterdir()] == [f"{7:064x}.npz"]
    assert "the next run sends them" in " ".join(capsys.readouterr().out.split())
