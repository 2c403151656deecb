"""A cache that cannot be written serves what it holds, and everything else is computed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.damages import PARTS, in_folder, write_data

CACHED = ("files", "kept ranking", "iterables", "images", "lens")
# root may write everywhere: the test goes on as a user who may not
NOBODY = 65534
USER = """
import json, logging, os, sys, tempfile
from pathlib import Path

logging.basicConfig(level=logging.WARNING, format="LOG %(message)s")
from tests.reliability import damages

here = Path(sys.argv[1])
encoded = []
for cls in (damages.LetterEncoder, damages.ColourEncoder):
    def counted(self, views, encode=cls.encode):
        encoded.extend(views)
        return encode(self, views)
    cls.encode = counted
if len(sys.argv) > 3:
    # what is imported late may be in files that only root may read
    with tempfile.TemporaryDirectory() as folder:
        damages.write_data(Path(folder, "warm"), 0)
        for part in sys.argv[2].split(","):
            damages.in_folder(Path(folder, "warm"), part)
    encoded.clear()
    tempfile.tempdir = None
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[3]))
numbers = {part: damages.in_folder(here, part) for part in sys.argv[2].split(",")}
print(json.dumps({"numbers": numbers, "n_encoded": len(encoded)}))
"""


@pytest.fixture
def here() -> Iterator[Path]:
    """A folder that every user may read, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "here"
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def as_reader(here: Path) -> tuple[dict[str, Any], str]:
    for path in (*here.rglob("*"), here):
        path.chmod(0o555 if path.is_dir() else 0o444)
    identity = [str(NOBODY)] if os.geteuid() == 0 else []
    environment = os.environ | {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USER, str(here), ",".join(CACHED), *identity],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users of Unix")
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "empty"])
def test_a_cache_that_cannot_be_written(here: Path, is_full: bool):
    write_data(here, seed=0)
    (here / "seed").write_text("0")
    (here / "cache").mkdir()
    if is_full:
        expected = {part: in_folder(here, part) for part in PARTS if part in CACHED}
    before = sorted(str(path) for path in (here / "cache").rglob("*"))
    result, messages = as_reader(here)
    assert sorted(str(path) for path in (here / "cache").rglob("*")) == before
    notes = [line for line in messages.splitlines() if line.startswith("LOG The cache folder")]
    assert all("cannot be written" in note for note in notes)
    assert len(notes) == len(set(notes))
    if is_full:
        assert result["numbers"] == expected
        assert result["n_encoded"] == 0
    else:
        assert notes
        assert result["n_encoded"] > 0
