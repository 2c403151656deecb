"""The documentation site builds without warnings and without network, and shows every package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import FLOORS

ROOT = Path(__file__).resolve().parents[2]
# packages without a page: YAML files, helpers, and commands that `--help` documents
WITHOUT_A_PAGE = {"cli", "configs", "utils", "__init__", "__main__"}
# `mkdocs build` in a process in which every connection fails
OFFLINE_BUILD = """
import socket, sys

def refuse(*arguments, **options):
    raise OSError("the build of the docs must not use the network")

socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE_BUILD, str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"mkdocs build --strict:\n{done.stdout}\n{done.stderr}"
    return folder


def test_every_package_has_a_page_that_documents_something(site: Path):
    public = {name for floor in FLOORS for name in floor} - WITHOUT_A_PAGE
    pages = {path.stem: path.read_text() for path in (site / "api").glob("*.html")}
    assert set(pages) == public | {"index"}
    empty = [name for name, page in pages.items() if page.count("doc-object") < 2]
    assert not empty, f"pages without a documented object: {empty}"


def test_a_page_shows_what_a_package_exports_or_else_its_modules():
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        face = ROOT / "synque_select" / page.stem / "__init__.py"
        shows_modules = "show_submodules: true" in page.read_text()
        has_exports = not face.is_file() or "__all__" in face.read_text()
        assert shows_modules != has_exports, (
            f"{page.name}: show_submodules is for packages without __all__"
        )


def test_the_front_door_is_documented_in_full(site: Path):
    import synque_select

    page = (site / "api" / "index.html").read_text()
    missing = [name for name in synque_select.__all__ if f'id="synque_select.{name}"' not in page]
    assert not missing


def test_pages_load_nothing_from_elsewhere(site: Path):
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]*)"', path.read_text()
        )
        assert not loaded, path.name
