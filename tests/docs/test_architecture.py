"""The page on the architecture agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_layers import FLOORS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "architecture.md").read_text()
ENTRANCES = ("__init__", "__main__")  # they import from every floor and are on none


def test_the_drawing_shows_the_floors_that_the_layer_test_checks():
    drawing = re.search(r"<!-- floors -->\n```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert drawing is not None
    drawn = [tuple(line.split()) for line in drawing[1].splitlines()]
    assert drawn[::-1] == [floor for floor in FLOORS if floor != ENTRANCES]


def test_every_package_is_explained():
    table = PAGE.partition("| package | what it is for |")[2].partition("\n\n")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    packages = {name for floor in FLOORS if floor != ENTRANCES for name in floor}
    assert sorted(explained) == sorted(packages)
