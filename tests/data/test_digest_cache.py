"""A large file that has not changed is not read to be recognised."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synque_select.data import examples, tables
from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The views that were hashed, of files that all count as large."""
    seen: list[Any] = []
    digest = examples.digest

    def counted(view: Any) -> bytes:
        seen.append(view)
        return digest(view)

    monkeypatch.setattr(examples, "digest", counted)
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    return seen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": f"text {i}", "other": f"{i} other"} for i in range(5)]))
    return path


def load(file: Path, view: Any = "text") -> Candidate:
    (candidate,) = load_candidates(str(file), view=view)
    return candidate


def test_an_unchanged_file_is_hashed_once(file: Path, hashed: list[Any]):
    first = load(file).sha256
    assert len(hashed) == 5
    assert load(file).sha256 == first
    assert len(hashed) == 5


def test_another_view_and_another_time_of_change_are_hashed(file: Path, hashed: list[Any]):
    first = load(file).sha256
    assert load(file, "other").sha256 != first
    assert len(hashed) == 10
    text = file.read_text().replace("text 3", "text 9")
    file.write_text(text)
    os.utime(file, ns=(1, 1))
    assert load(file).sha256 != first
    assert len(hashed) == 15


def test_a_function_may_have_changed(file: Path, hashed: list[Any]):
    for n in (5, 10):
        assert load(file, lambda record: record["text"]).sha256
        assert len(hashed) == n


def test_a_part_of_a_file_has_its_own_digests(file: Path, hashed: list[Any]):
    candidate = load(file)
    assert candidate.sha256
    other = replace(candidate, view="other")
    assert other.sha256 == load(file, "other").sha256 != candidate.sha256


def test_a_broken_file_in_the_cache_costs_a_hashing(file: Path, hashed: list[Any], tmp_path: Path):
    first = load(file).sha256
    (kept,) = (tmp_path / "cache" / "digests").glob("*.npy")
    kept.write_bytes(kept.read_bytes()[:20])
    assert load(file).sha256 == first
    assert len(hashed) == 10
    assert load(file).sha256 == first
    assert len(hashed) == 10


def test_small_files_leave_nothing_in_the_cache(
    file: Path, hashed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 1 << 20)
    assert load(file).sha256
    assert not (tmp_path / "cache" / "digests").exists()


def test_content_of_the_same_size_and_time_is_read(file: Path, hashed: list[Any]):
    first = load(file)
    views, before = [*first.views], file.stat()
    for replaces in (False, True):
        text = file.read_text()
        text = (
            text.replace("text 3", "text 9")
            if "text 3" in text
            else text.replace("text 9", "text 8")
        )
        target = file.with_suffix(".new") if replaces else file
        target.write_text(text)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(target, file)
        after = file.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        again = load(file)
        assert [*again.views] != views
        assert [*again.views] == [row["text"] for row in json.loads(file.read_text())]
        assert again.sha256 != first.sha256
