"""Checksums at the end of files and in front of rows: whatever is changed is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synque_select.utils.atomic import create_once
from synque_select.utils.checksums import (
    DamagedFileError,
    check_file,
    checked_text,
    checksummed_file,
    read_checked,
    remove_damaged,
    text_with_checksum,
)
from synque_select.utils.file_state import file_state, settled_state


def written(path: Path, content: bytes = b"some content") -> Path:
    with checksummed_file(path) as stream:
        stream.write(content)
    return path


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path):
    path = written(tmp_path / "a.bin")
    assert read_checked(path) == b"some content"
    check_file(path)
    whole = path.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(len(whole))]
    for damaged in (*flipped, *(whole[:i] for i in range(len(whole))), whole + b"\n"):
        path.write_bytes(damaged)
        for check in (read_checked, check_file):
            with pytest.raises(DamagedFileError):
                check(path)


def test_a_file_under_the_name_of_another_is_noticed(tmp_path: Path):
    written(tmp_path / "a.bin").rename(tmp_path / "b.bin")
    with pytest.raises(DamagedFileError, match="checksum does not match"):
        read_checked(tmp_path / "b.bin")


def test_a_missing_file_and_a_directory_are_told_from_each_other(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "a.bin")
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(DamagedFileError, match="Is a directory"):
        check_file(tmp_path / "a.bin")
    remove_damaged(tmp_path / "a.bin", "it is a directory")
    assert [path.name.rpartition("-")[0] for path in tmp_path.iterdir()] == ["a.bin.damaged"]


@given(st.text(max_size=50), st.text(max_size=50), st.integers(0, 10_000))
def test_a_changed_character_of_a_row_is_noticed(key: str, text: str, place: int):
    stored = text_with_checksum(key, text)
    assert checked_text(key, stored) == checked_text(key, stored.encode()) == text
    with pytest.raises(DamagedFileError):
        checked_text(f"{key}x", stored)
    at = 15 + place % (len(text) + 1)
    if at < len(stored):
        other = "a" if stored[at] != "a" else "b"
        with pytest.raises(DamagedFileError):
            checked_text(key, stored[:at] + other + stored[at + 1 :])


@pytest.mark.parametrize("stored", [None, 3, 0.5, b"\xff"])
def test_a_row_of_another_type_is_noticed(stored: object):
    with pytest.raises(DamagedFileError):
        checked_text("k", stored)


def test_content_of_the_same_size_with_its_time_put_back_is_noticed(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = settled_state(path)
    assert file_state(path) == first
    assert first.device == path.stat().st_dev
    path.write_text("two")
    os.utime(path, ns=(first.mtime_ns, first.mtime_ns))
    second = settled_state(path)
    assert (second.size, second.mtime_ns) == (first.size, first.mtime_ns)
    assert second != first
    (tmp_path / "b.txt").write_text("six")
    os.utime(tmp_path / "b.txt", ns=(first.mtime_ns, first.mtime_ns))
    os.replace(tmp_path / "b.txt", path)
    assert file_state(path).inode != first.inode


def test_a_file_is_created_once_and_a_half_made_one_is_never_seen(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyError("killed")

    with pytest.raises(KeyError):
        create_once(path, fail)
    assert not list(path.parent.iterdir())

    def late(part: Path) -> None:
        path.write_text("first")  # another process was quicker
        part.write_text("second")

    create_once(path, late)
    create_once(path, fail)
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
