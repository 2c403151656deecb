"""Charts: every value at its place, undefined ones left out, up and to the right is better."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from synque_select.functional.paired import compare_paired
from synque_select.records.correlation import correlate
from synque_select.records.experiment_result import ArmResult
from synque_select.report.charts import MapChart, Scale
from synque_select.report.figures import (
    arms_chart,
    comparison_chart,
    correlation_charts,
    map_chart,
    mixture_chart,
    order_chart,
    scale_chart,
    score_charts,
    stability_chart,
    validation_chart,
)
from synque_select.types import Mixture
from tests.records.records_data import make_ranking, make_record
from tests.report.test_tables import RESULT


def entry_of(units, **changes):
    return correlate([make_record(unit, i / 9, **changes) for i, unit in enumerate(units)])[0]


def test_a_scale_leaves_out_what_is_undefined_and_keeps_a_margin():
    scale = Scale.over([1.0, None, math.nan, math.inf, 3.0])
    assert (scale.low, scale.high) == (1.0, 3.0)
    assert (scale.at(1.0), scale.at(3.0), scale.at(99.0)) == (4.0, 96.0, 96.0)
    assert replace(scale, is_reversed=True).at(1.0) == 96.0
    assert Scale.over([]).at(0.5) == 50.0
    assert Scale.over([5.0]).at(5.0) == 50.0


@pytest.mark.parametrize(
    "span", [(0, 1), (0.08, 0.84), (1, 12), (-0.31, 0.9), (1e-9, 3e-9), (0, 1e9), (-5, -4.99)]
)
def test_ticks_are_round_few_and_inside(span):
    ticks = Scale(*span).ticks()
    assert 1 <= len(ticks) <= 5
    narrow = Scale(*span).ticks(110)
    room = 110 / 100 * min((abs(b.at - a.at) for a, b in pairwise(narrow)), default=100)
    assert room >= 6 * max(len(tick.text) for tick in narrow) + 6
    assert all(4.0 <= tick.at <= 96.0 for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


def test_each_proxy_has_a_chart_in_the_order_of_the_ranking():
    ranking = make_ranking(["x", "y", "z"])
    infos = {**ranking.proxies, "pad": replace(ranking.proxies["pad"], reference=0.5)}
    pad, mdm = score_charts(replace(ranking, proxies=infos))
    assert [(row.name, row.text, row.tone) for row in pad.rows] == [
        ("x", "1.000", "on"),
        ("y", "1.100", "on"),
        ("z", "1.200", "off"),
    ]
    first = pad.rows[0]
    assert (first.low or 0) < (first.at or 0) < (first.high or 0)
    # further real examples are the scale
    assert pad.line == 4.0
    assert pad.subtitle == "lower is better; dashed: further real examples score about 0.500"
    assert mdm.line is None
    assert (mdm.rows[1].at, mdm.rows[1].text) == (None, "-")
    assert scale_chart(replace(ranking, proxies=infos)) == pad
    assert scale_chart(ranking) is None


def test_the_order_is_that_of_the_mean_ranks_and_places_are_those_of_the_table():
    ranking = make_ranking(["x", "y", "z"])
    rows = tuple(
        replace(row, mean_rank=mean, ranks={**row.ranks, "consensus": rank})
        for row, mean, rank in zip(
            ranking.candidates, (2.5, 2.5, 1.0), (2.5, 2.5, 1.0), strict=True
        )
    )
    chart = order_chart(replace(ranking, candidates=rows))
    assert [(row.place, row.name, row.text) for row in chart.rows] == [
        ("1", "z", "1.00"),
        ("2=", "x", "2.50"),
        ("2=", "y", "2.50"),
    ]
    one = order_chart(make_ranking(["x", "y", "z"], rank_by="pad"), most=2)
    assert one.title == "pad"
    assert [row.name for row in one.rows] == ["x", "y"]
    assert one.notes == ("the first 2 of 3",)


def test_stability_is_a_share_and_may_be_unknown():
    chart = stability_chart(make_ranking(["x", "y"]))
    assert chart is not None
    assert [row.text for row in chart.rows] == ["1.00", "0.80"]
    rows = tuple(replace(row, selection_stability=None) for row in make_ranking().candidates)
    assert stability_chart(make_ranking(candidates=rows)) is None


def test_weights_begin_at_zero():
    ranking = make_ranking(mixture=Mixture({"a": 0.2, "c": 0.8}, "x"))
    chart = mixture_chart(ranking)
    assert [(row.name, row.text) for row in chart.rows] == [("c", "80 %"), ("a", "20 %")]
    assert chart.ticks[0].text.startswith("0")


def test_arms_show_their_replicates_and_no_interval_that_leaves_the_metric():
    arms = {
        "chosen": ArmResult(0.99, 0.01, 2, values=(0.98, 1.0)),
        "oracle_k": ArmResult(0.95, math.nan, 1, uses_labels=True, values=(0.95, math.nan)),
        "all": ArmResult(math.nan, math.nan, 0),
    }
    chart = arms_chart(replace(RESULT, arms=arms))
    chosen, oracle = chart.rows
    assert chosen.name == "selected: mixture of the top k"
    assert len(chosen.dots) == 2
    assert (chosen.low, chosen.high) == (None, None)
    assert max(*chosen.dots, chosen.at or 0) <= 96.0
    assert oracle.is_hollow
    assert oracle.dots == ()
    assert "hollow: uses labels of real data" in chart.notes


def test_a_hint_has_no_interval_and_a_verdict_has_a_color():
    chart = comparison_chart(RESULT)
    assert chart is not None
    random, oracle = chart.rows
    assert (random.text, random.tone) == ("+0.040", "on")
    assert random.low is not None
    assert (oracle.low, oracle.tone) == (None, "off")
    assert chart.legend == (("on", "beats"),)
    assert "fewer than 5 pairs, a hint only" in " ".join(chart.notes)
    worse = compare_paired([0.1, 0.2, 0.1, 0.2, 0.1], [0.5, 0.6, 0.5, 0.7, 0.5], mode="max")
    assert worse.difference < 0


def test_up_and_to_the_right_is_better_in_every_plot():
    pad, mdm = correlation_charts(entry_of("abcdef"))
    by_name = {point.name: point for point in pad.points}
    # the pad of f is the lowest, and its validation the highest
    assert by_name["f"].x > by_name["a"].x
    assert by_name["f"].y < by_name["a"].y
    assert pad.x_label == "pad, lower is better: reversed"
    assert mdm.x_label == "mdm"
    assert pad.subtitle.startswith("Spearman +1.00")
    assert by_name["f"].detail == "val_acc 0.556, pad 0.444"
    loss, _ = correlation_charts(
        entry_of("abcdef", monitor="loss", mode="min", metrics={"loss": 1.0})
    )
    assert loss.y_label == "loss, lower is better: reversed"


def test_a_plot_under_five_units_has_no_coefficient():
    pad, _ = correlation_charts(entry_of("abcd"))
    assert pad.subtitle == "4 units: no coefficient"


def test_false_labels_are_marked_and_hashes_left_out():
    units = ["low @0123abcd", *"bcde", "high @89abcdef"]
    pad, _ = correlation_charts(entry_of(units), false=["low @0123abcd"])
    assert [p.name for p in pad.points if p.tone == "warn"] == ["low"]
    assert pad.legend == (("warn", "false labels"),)


def test_many_points_have_no_names():
    pad, _ = correlation_charts(entry_of([f"unit {i}" for i in range(201)]))
    assert len(pad.points) == 201
    assert {point.name for point in pad.points} == {""}


def test_validation_is_best_first_with_the_model_as_it_is():
    chart = validation_chart(replace(entry_of("abc"), untrained=0.1))
    assert [row.name for row in chart.rows] == ["c", "b", "a"]
    assert chart.notes == ("dashed: the model as it is (0.100)",)
    assert chart.line is not None


def test_the_map_draws_the_real_sample_once_and_on_top():
    points = [{"set": name, "x": x, "y": x} for name in ("real", "a", "b") for x in (0.0, 1.0)]
    ranking = make_ranking(["b", "a"], top_k=1)
    chart = map_chart({"points": points, "real": "real"}, ranking)
    assert [(each.name, each.tone) for each in chart.sets] == [
        ("a", "off"),
        ("b", "on"),
        ("real", "real"),
    ]
    # upwards is positive, and a page grows downwards
    assert chart.sets[0].path == "M40 595h0M960 25h0"
    many = [{"set": f"c{i}", "x": 0.0, "y": 0.0} for i in range(1200)]
    large = map_chart({"points": many, "real": "real"}, None)
    assert len(large.sets) == 1000
    assert large.notes == ("the first 1000 of 1,200",)


def test_points_at_one_place_are_drawn_once():
    scale = Scale(0.0, 1.0)
    assert MapChart.dots([(0.5, 0.5)] * 9, scale, scale) == "M500 310h0"
