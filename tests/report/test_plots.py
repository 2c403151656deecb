"""Figures: what they show, for any names, and nothing of the user's matplotlib is touched."""

from __future__ import annotations

import subprocess
import sys

import pytest

from synque_select.errors import ConfigError
from synque_select.records.correlation import correlate
from synque_select.report.plots import correlation_figure, ranking_figure, to_png
from tests.records.records_data import SCRIPT, make_ranking, make_record

HOSTILE = ["$x_{$", "_hidden", SCRIPT, "日本\n語", "\x1b[0m", "x" * 300, "a_b^c\\frac"]


def texts(figure) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def entry_of(units, **changes):
    return correlate([make_record(unit, i / 9, **changes) for i, unit in enumerate(units)])[0]


FIGURES = {
    "ranking": lambda names: ranking_figure(make_ranking(names)),
    "correlation": lambda names: correlation_figure(entry_of(names)),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_any_name_can_be_drawn(figure: str):
    drawn = FIGURES[figure](HOSTILE)
    assert to_png(drawn, dpi=50).startswith(b"\x89PNG")
    lines = [line for text in texts(drawn) for line in text.splitlines()]
    assert all(len(line) < 60 for line in lines if "xxx" in line)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_users_settings_and_state_are_left_alone(figure: str):
    import matplotlib

    before = dict(matplotlib.rcParams)
    to_png(FIGURES[figure](list("abcdef")), dpi=40)
    assert dict(matplotlib.rcParams) == before


def test_a_users_style_changes_no_figure():
    import matplotlib

    plain = to_png(FIGURES["ranking"](list("abc")), dpi=40)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "font.size": 40}):
        assert to_png(FIGURES["ranking"](list("abc")), dpi=40) == plain


def test_pyplot_is_never_imported():
    code = (
        "import sys; from tests.report.test_plots import FIGURES, to_png;"
        "[to_png(draw(list('abcde')), dpi=40) for draw in FIGURES.values()];"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("figure", ["ranking", "correlation"])
def test_names_that_agree_where_they_are_cut_stay_apart(figure: str):
    names = [f"{'a' * 40}{i}{'b' * 40}" for i in range(6)]
    shown = {text for text in texts(FIGURES[figure](names)) if "aaa" in text}
    assert len(shown) == 6


def test_up_and_to_the_right_is_better_in_every_panel():
    figure = correlation_figure(entry_of("abcdef"))
    pad, mdm = figure.axes
    assert pad.get_title(loc="left") == "pad"
    assert pad.xaxis_inverted()
    assert not mdm.xaxis_inverted()
    loss = correlation_figure(entry_of("abcdef", monitor="loss", mode="min", metrics={"loss": 1.0}))
    assert all(ax.yaxis_inverted() for ax in loss.axes)


def test_every_unit_is_named_best_first():
    figure = correlation_figure(entry_of(["low @0123abcd", *"bcde", "high @89abcdef"]))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0] == "1  high"
    assert names[-1] == "6  low"


def test_units_whose_names_agree_keep_their_hashes():
    figure = correlation_figure(entry_of(["a @0123abcd", "a @89abcdef", *"bcde"]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "6  a @0123abcd" in names


def test_a_panel_under_five_units_has_no_coefficient():
    words = " ".join(texts(correlation_figure(entry_of("abcd"))))
    assert "4 units: no coefficient" in words
    assert "Spearman" not in words


def test_a_panel_says_what_may_be_said():
    assert "Spearman +1.00, n = 6: agrees" in " ".join(
        texts(correlation_figure(entry_of("abcdef")))
    )


def test_one_unit_is_no_figure():
    with pytest.raises(ConfigError, match="1 unit"):
        correlation_figure(entry_of("a"))
