"""Near copies of the real sample are searched for once per content."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from synque_select.data.candidate import Candidate, RealSample
from synque_select.selection import copies_cache
from synque_select.selection.copies_cache import kept_real_copies

TEXTS = ["How many apps?", "Which app has the most reviews?", "broken \ud800 text"]


def sets(last: str = "no") -> tuple[list[Candidate], RealSample]:
    copy, other = Candidate("copy", list(TEXTS)), Candidate("other", ["something else", last])
    return [copy, other], RealSample("real", list(TEXTS))


@pytest.fixture
def n_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    given = copies_cache.check_real_copies
    monkeypatch.setattr(
        copies_cache, "check_real_copies", lambda *parts: calls.append(1) or given(*parts)
    )
    return calls


def test_equal_content_is_compared_once(tmp_path: Path, n_searches: list[int]):
    first = kept_real_copies(*sets(), tmp_path)
    assert first[1] == ("copy",)
    assert kept_real_copies(*sets(), tmp_path) == first
    assert len(n_searches) == 1
    kept_real_copies(*sets(last="yes"), tmp_path)
    assert len(n_searches) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"cut"])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, n_searches: list[int], damage: bytes, caplog: pytest.LogCaptureFixture
):
    first = kept_real_copies(*sets(), tmp_path)
    (file,) = (tmp_path / "copies").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage or whole[:-40])
    with caplog.at_level(logging.WARNING):
        assert kept_real_copies(*sets(), tmp_path) == first
    assert "compared with the real sample again" in caplog.text
    assert len(n_searches) == 2
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, n_searches: list[int]):
    (tmp_path / "copies").write_text("in the way")
    for _ in range(2):
        assert kept_real_copies(*sets(), tmp_path)[1] == ("copy",)
    assert len(n_searches) == 2
