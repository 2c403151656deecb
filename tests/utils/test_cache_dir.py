"""Where what can be computed again is kept, and what happens where it cannot be written."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from synque_select.utils.cache_dir import (
    cache_root,
    default_cache_dir,
    is_disk_full,
    temporary_twin,
    write_in_cache,
)


@pytest.mark.parametrize("value", ["~/x", None, ""])
def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("SYNQUE_CACHE", raising=False)
    else:
        monkeypatch.setenv("SYNQUE_CACHE", value)
    expected = tmp_path / (value[2:] if value else ".cache/synque-select")
    assert default_cache_dir() == cache_root(None) == expected
    assert cache_root("~/y") == tmp_path / "y"
    assert cache_root(Path("z")) == Path("z")


def test_what_does_not_fit_goes_to_a_temporary_folder(tmp_path: Path, caplog):
    tried: list[Path] = []

    def write(folder: Path) -> Path:
        tried.append(folder)
        if folder == tmp_path / "part":
            raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: …")
        return folder

    twin = temporary_twin(tmp_path / "part")
    with caplog.at_level(logging.WARNING):
        assert write_in_cache(tmp_path / "part", write) == twin
    assert tried == [tmp_path / "part", twin]
    assert f"{tmp_path / 'part'} cannot be written (No space left on device)" in caplog.text


def test_no_space_at_all_is_an_error(tmp_path: Path):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, f"full: {folder}")

    with pytest.raises(OSError, match="full: ") as caught:
        write_in_cache(tmp_path, full)
    assert is_disk_full(caught.value)
    assert not is_disk_full(OSError(errno.EIO, "broken"))
    assert not is_disk_full(OSError("of no number"))
