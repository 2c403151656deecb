"""The measured tables of the docs: markers, what is written between them, why no verdict."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from scripts.docs_tables import CHOOSING, RECIPES, RESULTS, TASKS, why_text, write_between
from synque_select.cli.options import packaged_config
from synque_select.functional.paired import PairedComparison


def test_the_pages_have_a_place_for_every_table():
    results, choosing = RESULTS.read_text(), CHOOSING.read_text()
    for config in RECIPES:
        assert packaged_config(config).is_file()
        assert f"<!-- measured: {config} -->" in results
        assert f"<!-- end of {config} -->" in results
    for task in TASKS:
        assert f"<!-- measured: proxies {task} -->" in choosing


def test_only_what_stands_between_the_markers_is_written(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: x -->\nold\n<!-- end of x -->\nb\n")
    write_between(page, "x", r"new \1")
    expected = "a\n<!-- measured: x -->\nnew \\1\n<!-- end of x -->\nb\n"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="no markers <!-- measured: y -->"):
        write_between(page, "y", "new")


def test_a_missing_verdict_says_what_could_have_been_shown():
    shown = PairedComparison(0.15, 0.1, 0.2, 5, "beats")
    wide = PairedComparison(0.1, -0.1, 0.3, 5, "no difference shown")
    alone = PairedComparison(0.1, math.nan, math.nan, 1, "no difference shown")
    said = why_text({"chosen_vs_all": shown, "chosen_vs_random_k": wide, "chosen_vs_best": alone})
    assert "random_k: with 5 pairs that vary as these do, a difference under 0.200" in said
    assert "best: too few pairs (1) for an interval" in said
    assert "- all:" not in said
    assert why_text({"chosen_vs_all": shown}).startswith("Every comparison")
