"""Tables: every figure in its place, nothing wider than the terminal, nothing against the rules."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synque_select.functional.correlation import correlate_scores
from synque_select.records.correlation import correlate
from synque_select.report.tables import (
    Column,
    Table,
    arms_table,
    candidates_table,
    comparison_table,
    correlation_table,
    correlation_tables,
    cost_table,
    decimals_of,
    format_interval,
    format_number,
    ranking_table,
    reliability_words,
    shorten,
)
from tests.unit.records_data import SCRIPT, make_ranking, make_record

RESULT = {
    "version": 1,
    "metric": {"name": "test_acc", "mode": "max"},
    "replicates": 5,
    "arms": {
        "chosen": {"mean": 0.83, "std": 0.012, "n": 5},
        "random_k": {"mean": 0.79, "std": 0.03, "n": 5},
        "oracle_k": {"mean": 0.85, "std": None, "n": 1, "uses_labels": True},
    },
    "comparisons": {
        "chosen_vs_random_k": {
            "difference": 0.04,
            "low": 0.01,
            "high": 0.07,
            "n": 5,
            "verdict": "beats",
        },
        "chosen_vs_oracle_k": {
            "difference": -0.02,
            "low": None,
            "high": None,
            "n": 1,
            "verdict": "no difference shown",
        },
    },
    "candidates": {
        "a": {"n": 10, "test": 0.5, "std": 0.1, "n_seeds": 2, "false_labels": False},
        "b": {"n": 10, "test": 0.7, "std": None, "n_seeds": 1, "false_labels": True},
    },
    "messages": ["left out, as the time did not allow it: all of it"],
}


def correlation(values=(1, 2, 4, 3, 5, 6, 7, 8), higher=True):
    return correlate_scores(range(8), values, higher_is_better=higher, mode="max")


def test_a_ranking_is_shown_best_first_with_values_ranks_and_gaps():
    table = ranking_table(make_ranking(["x", "y", "z"]))
    assert table.title == "Ranking by consensus against 50 real examples"
    heads = [column.name for column in table.columns]
    assert heads[:5] == ["#", "candidate", "pad", "rank", "to next"]
    assert heads[5:] == ["mdm", "rank", "N", "p_top_k_by_proxy"]
    assert table.rows == (
        ("1", "x *", "1.000 [0.900, 1.100]", "1", "+0.100", "0.500", "1", "1,000", "1.00"),
        ("2", "y *", "1.100 [1.000, 1.200]", "2", "+0.100", "-", "-", "1,001", "0.80"),
        ("3", "z", "1.200 [1.100, 1.300]", "3", "", "0.214", "3", "1,002", "0.60"),
    )


def test_the_gap_is_positive_where_the_better_one_is_ahead():
    """MDM decides here, and it is better when higher."""
    ranking = make_ranking(["x", "y", "z"])
    rows = tuple(
        replace(
            row,
            ranks={**row.ranks, "mdm": rank},
            scores={**row.scores, "mdm": replace(row.scores["mdm"], value=value)},
        )
        for row, rank, value in zip(ranking.candidates, (3.0, 1.0, 2.0), (1, 9, 4), strict=True)
    )
    table = ranking_table(replace(ranking, candidates=rows, rank_by="mdm", messages=()))
    gap = [column.name for column in table.columns].index("to next")
    assert [row[gap] for row in table.rows] == ["+5.00", "+3.00", ""]
    assert [row[1] for row in table.rows] == ["y *", "z *", "x"]


@pytest.mark.parametrize("form", [Table.text, Table.markdown])
def test_p_top_k_never_stands_without_the_reliability(form):
    ranking = make_ranking()
    unknown = form(ranking_table(ranking))
    assert "p_top_k_by_proxy" in unknown
    assert "reliability on your task unknown" in re.sub(r"\s+", " ", unknown)
    known = re.sub(r"\s+", " ", form(ranking_table(ranking, reliability=correlation())))
    assert "measured reliability of consensus on this task: Spearman +0.98" in known
    assert "reliability on your task unknown" not in known


def test_p_top_k_is_not_mentioned_where_it_is_unknown():
    ranking = make_ranking()
    rows = tuple(replace(row, p_top_k_by_proxy=None) for row in ranking.candidates)
    text = ranking_table(replace(ranking, candidates=rows)).text(200)
    assert "p_top_k" not in text


def test_a_reliability_that_is_undefined_is_unknown():
    undefined = correlate_scores([1] * 8, range(8), higher_is_better=True, mode="max")
    assert reliability_words("pad", undefined) == "reliability on your task unknown"


def test_messages_of_a_ranking_are_shown():
    assert "mdm is undefined for b." in ranking_table(make_ranking()).text(100)
    assert "mdm is undefined for b." in ranking_table(make_ranking()).markdown()


def columns(line: str) -> int:
    """Columns of a terminal: a mark that combines takes none, a wide character two."""
    widths = {"W": 2, "F": 2}
    return sum(
        0 if unicodedata.combining(c) else widths.get(unicodedata.east_asian_width(c), 1)
        for c in line
    )


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True), st.integers(60, 200))
@example(["0", "0000000000000000\u094d\u094d"], 60)
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_than_the_terminal(names, width):
    """Whatever the names are: wide characters, new lines, escapes of a terminal."""
    text = ranking_table(make_ranking(names, messages=())).text(width)
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert all(columns(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) == text.count("\n") + 1


def test_long_names_keep_their_ends_apart():
    names = [f"gpt-4o-mini_{'x' * 60}_seed={i}" for i in range(4)]
    text = ranking_table(make_ranking(names)).text(80)
    assert all(f"...xxx_seed={i}" in text or f"seed={i}" in text for i in range(4))
    assert max(map(len, text.splitlines())) <= 80


def test_a_block_repeats_the_names_and_never_leaves_a_proxy_behind():
    heads = [
        line for line in ranking_table(make_ranking()).text(60).splitlines() if line[:1] == "#"
    ]
    assert len(heads) > 1
    assert all("candidate" in head for head in heads)
    assert all(head.split()[2] in ("pad", "mdm", "N", "p_top_k_by_proxy") for head in heads)


def test_wide_characters_are_counted_as_two_columns():
    table = Table("", (Column("n", is_name=True), Column("v")), (("日本", "1"), ("ab", "2")))
    assert table.text(40).splitlines()[2:] == ["日本  1", "ab    2"]


@pytest.mark.parametrize(
    "name", [SCRIPT, "a|b", "*bold*", "[x](http://y)", "`code`", "a\nb", "\x1b[31m"]
)
def test_names_cannot_break_out_of_a_markdown_cell(name: str):
    lines = ranking_table(make_ranking([name, "z"], messages=())).markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<" not in "".join(lines)
    assert not re.search(r"(?<!\\)\]\(http", "".join(lines))
    assert "\x1b" not in "".join(lines)


def test_a_name_of_usual_characters_is_left_as_it_is_in_markdown():
    assert (
        "| app_store-v1.2 |"
        in Table("", (Column("n", is_name=True),), (("app_store-v1.2",),)).markdown()
    )


@given(st.text(max_size=80), st.integers(5, 60))
@settings(deadline=None)
def test_shorten_fits(text: str, width: int):
    assert len(shorten(text, width)) <= max(width, 0)


def test_shorten_keeps_both_ends():
    assert shorten("abcdefghijklmnop", 9) == "abc...nop"
    assert shorten("short", 9) == "short"


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.0, 2, "0.00"),
        (-0.126, 2, "-0.13"),
        (math.nan, 2, "-"),
        (None, 2, "-"),
        (math.inf, 2, "-"),
        (1e9, 2, "1e+09"),
        (1e-9, 6, "1e-09"),
        (0.001, 2, "0.00"),
    ],
)
def test_numbers(value, decimals, text):
    assert format_number(value, decimals) == text


def test_intervals_that_do_not_exist_are_empty():
    assert format_interval(None, 1.0) == format_interval(math.nan, 1.0) == ""
    assert format_interval(0.1, 0.25) == "[0.10, 0.25]"


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [5.0], [1e-12, 2e-12], [1e12]])
def test_decimals_are_defined_for_anything(values):
    assert 0 <= decimals_of(values) <= 6


def test_correlations_say_what_plus_means_and_how_p_was_made():
    table = correlation_table(
        {
            "good": correlation(),
            "turned": correlation(higher=False),
            "unclear": correlation((3, 1, 4, 1.5, 5, 9, 2, 6)),
            "constant": correlate_scores([1] * 8, range(8), higher_is_better=True, mode="max"),
        }
    )
    assert [row[-1] for row in table.rows] == [
        "agrees",
        "contradicts",
        "too few to tell",
        "no coefficient",
    ]
    assert table.rows[0][2].startswith("+")
    assert table.rows[1][4].startswith("-")
    assert set(table.rows[3][2:9]) == {"-"}
    notes = " ".join(table.notes)
    assert "+ means that the proxy was right" in notes
    assert "exact, over 40,320 permutations" in notes
    assert "constant: all scores are equal" in notes


def test_too_few_units_give_a_sentence_and_no_figure():
    entries = correlate([make_record(unit, i / 5) for i, unit in enumerate("abc")])
    (table,) = correlation_tables(entries)
    assert table.columns == ()
    text = table.text(300)
    assert "2 more are missing" in text
    assert "synque-select sweep" in text
    assert not re.search(r"[+-]0\.\d|\bp\b", text)
    assert "2 more are missing" in table.markdown()


def test_each_key_has_its_table_and_the_means_stand_apart():
    records = [
        make_record(unit, i / 5, key={"task": task})
        for task in ("one", "two")
        for i, unit in enumerate("abcdef")
    ]
    tables = correlation_tables(correlate(records))
    assert len(tables) == 3
    assert tables[0].title.startswith("one: 6 units of kind probe, val_acc (max)")
    assert tables[2].rows == (("pad", "2", "+1.00", "+1.00", "+1.00"),)
    assert "not pooled" in tables[2].notes[0]


def test_arms_that_use_labels_are_marked():
    table = arms_table(RESULT)
    assert table.rows[0] == ("chosen: mixture of the top k", "0.830", "0.012", "5", "")
    assert table.rows[2] == ("best k by validation", "0.850", "-", "1", "uses labels")
    assert "left out" in table.text(100)
    no_labels = {**RESULT, "arms": {"chosen": RESULT["arms"]["chosen"]}}
    assert len(arms_table(no_labels).columns) == 4


def test_comparisons_carry_their_words_and_intervals():
    table = comparison_table(RESULT)
    assert table.rows[0][1:] == ("+0.0400", "[0.0100, 0.0700]", "5", "beats")
    assert table.rows[1][1:] == ("-0.0200", "-", "1", "no difference shown")
    assert "excludes 0" in table.notes[0]
    assert "fewer than 5 pairs is a hint" in table.notes[1]
    enough = {"chosen_vs_random_k": RESULT["comparisons"]["chosen_vs_random_k"]}
    assert len(comparison_table({**RESULT, "comparisons": enough}).notes) == 1


def test_candidates_alone_are_shown_best_first_and_false_labels_are_marked():
    assert [row[0] for row in candidates_table(RESULT).rows] == ["b", "a"]
    assert candidates_table(RESULT).rows[0][-1] == "false labels"
    turned = {**RESULT, "metric": {"name": "loss", "mode": "min"}}
    assert [row[0] for row in candidates_table(turned).rows] == ["a", "b"]


def test_cost_adds_up():
    assert cost_table({"encode": 3.0, "fit": 1.0}).rows == (
        ("encode", "3.0", "75 %"),
        ("fit", "1.0", "25 %"),
        ("all", "4.0", ""),
    )
    assert cost_table({"encode": 0.0}).rows[0] == ("encode", "0.0", "-")
