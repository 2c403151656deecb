"""The tables of the page on data formats agree with the loader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from synque_select.data.record_formats import FORMATS, choose_view
from synque_select.data.selectors import find_view
from synque_select.data.views import select

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data-formats.md").read_text()
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
VALUES = {"messages": TURNS, "conversations": TURNS, "tokens": ["Hi"], "ner_tags": [0]}


def rows() -> list[list[str]]:
    table = PAGE.partition("<!-- formats -->")[2].strip().partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_every_format_is_in_the_table():
    assert sorted(row[0] for row in rows()) == sorted(form.kind for form in FORMATS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_table_says_what_is_chosen(row: list[str]):
    kind, fields, view, others = row
    names = re.findall(r"`([^`]+)`", fields)
    for some in [names[:1]] if kind == "chats" else [names]:
        record: dict[str, Any] = {name: VALUES.get(name, name) for name in some}
        choice = choose_view(record)
        assert (choice.kind, str(choice.selector)) == (kind, view.strip("`"))
        assert set(re.findall(r"`([^`]+)`", others)) <= {*choice.others}


def test_every_view_of_the_page_is_read():
    record = {
        "headline": "x",
        "conversations": [{"from": "human", "value": "Hi"}],
        "instruction": "Add",
        "output": "3",
        "premise": "It rains.",
        "hypothesis": "It is wet.",
        "task": "buy",
        "page": "shop",
    }
    table = PAGE.partition("| view | what it reads |")[2].partition("\n\n")[0]
    views = [view for row in table.splitlines()[2:] for view in re.findall(r"`([^`]+)`", row[:60])]
    assert len(views) >= 10
    for view in views:
        if view not in ("0", "my_views.shorten"):
            assert isinstance(select(record, find_view(record, view)), str), view
