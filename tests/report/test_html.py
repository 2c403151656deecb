"""The page's templates: every value is escaped, every kind of block is shown, typos raise."""

from __future__ import annotations

import base64
import hashlib
from typing import get_args, get_type_hints

import pytest

from synque_select.report import blocks
from synque_select.report.blocks import (
    Charts,
    Code,
    Columns,
    Example,
    ExampleList,
    Fold,
    Paragraph,
    PointList,
    Section,
    TableBlock,
)
from synque_select.report.charts import (
    AreaChart,
    AreaLayer,
    DotChart,
    DotRow,
    MapChart,
    MapSet,
    PlotChart,
    PlotPoint,
    Tick,
)
from synque_select.report.html import _breakable, _environment, _is_hash, _prose, page_html
from synque_select.report.summary import Point, Summary
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
    Charts(
        (
            DotChart(HOSTILE, HOSTILE, (DotRow(HOSTILE, HOSTILE, 5.0, place=HOSTILE),)),
            PlotChart(
                HOSTILE,
                HOSTILE,
                HOSTILE,
                HOSTILE,
                (Tick(1.0, HOSTILE),),
                (),
                (PlotPoint(1.0, 2.0, HOSTILE, HOSTILE),),
                legend=(("on", HOSTILE),),
            ),
            AreaChart(
                HOSTILE,
                HOSTILE,
                HOSTILE,
                HOSTILE,
                (Tick(1.0, HOSTILE),),
                (Tick(1.0, HOSTILE),),
                (AreaLayer(HOSTILE, HOSTILE, "0,0 1,0 1,1"),),
                (HOSTILE,),
            ),
            MapChart(
                HOSTILE, (MapSet(HOSTILE, "M1 1h0", "on"),), has_filter=True, notes=(HOSTILE,)
            ),
        )
    ),
    Code(HOSTILE, HOSTILE),
    Columns((Paragraph(HOSTILE), Paragraph(HOSTILE))),
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
    summary = Summary(
        HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1.0}, (Point(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,)),)
    )
    return Page(page_html(summary, sections=sections, markdown=HOSTILE))


def test_hostile_values_stay_texts_wherever_they_are():
    page = page_of(Section(HOSTILE, BLOCKS), Fold(HOSTILE, BLOCKS))
    assert len(page.all("script")) == 1  # the page's own
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert SCRIPT not in page.script
    at_top = 2 + 1 + 1 + 4 + 1  # title and headline, name, rest, weight, point, Markdown
    in_charts = (2 + 3) + (2 + 1 + 2 + 2 + 1) + (2 + 2 + 2 + 2 + 1 + 1) + (1 + 1 + 1 + 1)
    # paragraphs, both tables, charts, code, columns, examples, points
    n_in_blocks = 2 + 4 + 2 + in_charts + 2 + 2 + 3 + 3
    assert page.words.count(HOSTILE) == at_top + 1 + 2 * (1 + n_in_blocks)
    assert page.all("img")[0]["src"] == HOSTILE


def test_every_kind_of_block_is_rendered():
    kinds = get_args(get_type_hints(blocks.Fold)["blocks"])[0]
    shown = {type(block) for block in BLOCKS} | {Section, Fold}
    assert set(get_args(kinds)) == shown
    for block in BLOCKS:
        assert len(page_of(block).tags) > len(page_of().tags), block.kind


def test_the_policy_allows_the_page_s_own_style_and_script_and_no_other():
    page = page_of()
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy is not None
    for tag, text in (("script", page.script), ("style", page.style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    # an attribute would need 'unsafe-inline'
    assert not any("style" in attributes for _, attributes in page.tags)


def test_a_long_text_begins_whole_words_and_unfolds():
    text = "word " * 200
    example = Example("a", text=text)
    assert example.beginning == ("word " * 56).strip()
    page = page_of(ExampleList(((example,),)))
    assert text in page.words
    assert f"{example.beginning} …" in page.words


def test_code_is_marked_and_names_may_break():
    page = page_of(Paragraph("run `a <b>` now"), TableBlock(TABLE))
    assert "run a <b> now" in page.words
    assert "wbr" in [tag for tag, _ in page.tags]


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


def test_lines_do_not_end_within_numbers_options_or_before_a_percent_sign():
    assert _breakable("a_r0 0.2 + b-1") == "a_<wbr>r0 0.2 +<wbr> b-<wbr>1"
    assert _prose("36 % by `--x y`") == (
        '36\N{NO-BREAK SPACE}% by <code class="short">--x y</code>'
    )
    assert _prose("a --label-filter auto, a<b - c") == (
        'a <code class="option">--label-filter</code> auto, a&lt;b - c'
    )
    assert _prose("`<b>` or `open") == '<code class="short">&lt;b&gt;</code> or `open'
    assert _is_hash("0a" * 32)
    assert not _is_hash("xa" * 32)
