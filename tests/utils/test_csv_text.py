from __future__ import annotations

import csv
import io

import pytest

from synque_select.utils.csv_text import csv_text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_name_is_not_a_formula(start: str):
    name = f'{start}HYPERLINK("http://x", "y")'
    ((cell, number),) = csv.reader(io.StringIO(csv_text([[name, -1.5]]), newline=""))
    assert (cell, number) == (f"'{name}", "-1.5")


def test_undefined_numbers_are_empty():
    assert csv_text([[float("nan"), float("inf"), None, 0, "a,b"]]) == ',,,0,"a,b"\r\n'
