"""What is not a file, where SQLite would open one, is named before SQLite waits for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from synque_select.errors import RecordError
from synque_select.lens.cache import AnswerCache
from synque_select.records.store import RunStore
from synque_select.tuning.study_checks import prepare_database

KINDS: dict[str, Callable[[Path], None]] = {"a pipe": os.mkfifo, "a directory": Path.mkdir}
USES: dict[str, Callable[[Path], object]] = {
    "answers": lambda path: AnswerCache(path).put({"k": 1}),
    "records": lambda path: RunStore(path).read(),
    "studies": lambda path: prepare_database(path, Path.touch),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
@pytest.mark.parametrize("linked", [False, True], ids=["", "linked"])
def test_what_is_in_place_of_a_log_is_named(
    use: str, kind: str, end: str, linked: bool, tmp_path: Path
):
    path = tmp_path / "a.sqlite"
    AnswerCache(path).put({"k": 1}) if use == "answers" else path.touch()
    KINDS[kind](tmp_path / f"a.sqlite{end}")
    given = path
    if linked:  # the logs are beside the file, not beside the link
        given = tmp_path / "folder" / "link.sqlite"
        given.parent.mkdir()
        given.symlink_to(path)
    named = f"{path}{end}: {kind}, where SQLite keeps a file of a.sqlite; remove or rename it"
    with pytest.raises(RecordError, match=f"^{re.escape(named)}$"):
        USES[use](given)


@pytest.mark.parametrize("use", USES)
def test_a_pipe_in_place_of_the_database(use: str, tmp_path: Path):
    path = tmp_path / "a.sqlite"
    os.mkfifo(path)
    with pytest.raises(RecordError, match=f"^{path}: not a file with data, but a pipe"):
        USES[use](path)


@pytest.mark.parametrize("use", USES)
def test_a_directory_in_place_of_the_database(use: str, tmp_path: Path):
    path = tmp_path / "a.sqlite"
    (path / "in it").mkdir(parents=True)
    with pytest.raises(RecordError, match=f"{path}.*not a file|{path}.*is a directory"):
        USES[use](path)
    assert (path / "in it").is_dir()
