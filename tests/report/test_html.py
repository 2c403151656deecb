"""The page's templates: every value is escaped, every kind of block is shown, typos raise."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from synque_select.report import blocks
from synque_select.report.blocks import (
    Example,
    ExampleList,
    Figure,
    Fold,
    Paragraph,
    PointList,
    Section,
    TableBlock,
)
from synque_select.report.html import _environment, page_html
from synque_select.report.table import Column, Table
from tests.records.records_data import SCRIPT
from tests.report.test_page import Page

HOSTILE = f"{SCRIPT}\" onload='x' {{{{ 7 * 7 }}}} {{% raw %}}"
TABLE = Table(HOSTILE, (Column(HOSTILE, is_name=True), Column("v")), ((HOSTILE, "1"),), (HOSTILE,))
BLOCKS = (
    Paragraph(HOSTILE),
    Paragraph(HOSTILE, is_note=True),
    TableBlock(TABLE),
    TableBlock(Table(HOSTILE, (), (), (HOSTILE,))),
    Figure(HOSTILE, HOSTILE),
    ExampleList(
        (
            (Example(HOSTILE, text=HOSTILE, realness=0.25, caption=HOSTILE),),
            (Example(HOSTILE, image=HOSTILE),),
        ),
        title=HOSTILE,
    ),
    PointList(HOSTILE, (HOSTILE, HOSTILE)),
)


def page_of(*sections) -> Page:
    return Page(
        page_html(
            HOSTILE, answer=[HOSTILE], facts={HOSTILE: HOSTILE}, sections=sections, files=[HOSTILE]
        )
    )


def test_hostile_values_stay_texts_wherever_they_are():
    page = page_of(Section(HOSTILE, BLOCKS), Fold(HOSTILE, BLOCKS))
    assert page.all("script") == []
    assert not any("onload" in attributes for _, attributes in page.tags)
    # paragraphs, both tables, examples, points
    n_in_blocks = 2 + 4 + 2 + 3 + 3
    # the title twice, the answer, a fact and its name, the file
    assert page.words.count(HOSTILE) == 6 + 2 * (1 + n_in_blocks)
    assert page.all("img")[0] == {"src": HOSTILE, "alt": HOSTILE}


def test_every_kind_of_block_is_rendered():
    kinds = get_args(get_type_hints(blocks.Fold)["blocks"])[0]
    shown = {type(block) for block in BLOCKS} | {Section, Fold}
    assert set(get_args(kinds)) == shown
    for block in BLOCKS:
        assert len(page_of(block).tags) > len(page_of().tags), block.kind


def test_a_text_keeps_its_lines_and_spaces():
    page = page_of(ExampleList(((Example("a", text="  two\n\n lines "),),)))
    assert "  two\n\n lines " in page.words


def test_a_name_that_a_template_misspells_raises():
    import jinja2

    template = _environment().from_string("{{ block.txet }}")
    with pytest.raises(jinja2.UndefinedError, match="txet"):
        template.render(block=Paragraph("x"))


def test_the_head_of_a_row_is_its_last_name():
    columns = (Column("#", is_name=True), Column("candidate", is_name=True), Column("pad"))
    page = page_of(TableBlock(Table("t", columns, (("1", "a", "0.5"),))))
    heads = [head for head in page.all("th") if head["scope"] == "row"]
    assert heads == [{"scope": "row", "class": "name"}]
    assert page.all("td") == [{"class": "name"}, {}]
