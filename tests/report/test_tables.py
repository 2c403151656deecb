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
from synque_select.functional.paired import compare_paired, holm_verdicts
from synque_select.records.correlation import correlate
from synque_select.records.experiment_result import ExperimentResult, Metric
from synque_select.report.correlation_tables import (
    correlation_table,
    correlation_tables,
    units_table,
)
from synque_select.report.decision import decision_text
from synque_select.report.experiment_tables import (
    arms_table,
    candidates_table,
    comparison_sentences,
    comparison_tables,
    cost_table,
)
from synque_select.report.formats import decimals_of, format_interval, format_number, format_ranks
from synque_select.report.ranking_tables import (
    pairs_table,
    ranking_table,
    ranking_tables,
    reliability_words,
    scores_table,
)
from synque_select.report.table import Column, Table, wrap_name, wrap_text
from synque_select.selection.decision import decided
from synque_select.types import Evidence
from tests.records.records_data import SCRIPT, make_ranking, make_record

RESULT_STATE = {
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


RESULT = ExperimentResult.from_dict(RESULT_STATE)


def correlation(values=(1, 2, 4, 3, 5, 6, 7, 8), higher=True):
    return correlate_scores(range(8), values, higher_is_better=higher, mode="max")


def with_mean_ranks(ranking):
    rows = tuple(replace(row, mean_rank=1.25 + i) for i, row in enumerate(ranking.candidates))
    return replace(ranking, candidates=rows)


def test_a_ranking_is_shown_best_first_with_what_is_selected():
    table = ranking_table(with_mean_ranks(make_ranking(["x", "y", "z"])))
    assert table.title == "Ranking by consensus against 50 real examples"
    heads = ["#", "candidate", "selected", "selection_stability", "pad", "mdm"]
    assert [column.name for column in table.columns] == heads
    assert table.rows == (
        ("1", "x", "yes", "1.00", "1", "1"),
        ("2", "y", "yes", "0.80", "2", "-"),
        ("3", "z", "", "0.60", "3", "2"),
    )
    assert "consensus: the rank by pad, as no other proxy here may" in " ".join(table.notes)


def test_ties_share_a_place():
    ranking = make_ranking(["x", "y", "z"])
    ranks = ({"consensus": 1.5, "pad": 2.0}, {"consensus": 3.0, "pad": 2.0}, {"consensus": 1.5})
    rows = tuple(
        replace(row, ranks={**row.ranks, **changed})
        for row, changed in zip(ranking.candidates, ranks, strict=True)
    )
    table = ranking_table(replace(ranking, candidates=rows))
    assert [row[:2] for row in table.rows] == [("1=", "x"), ("1=", "z"), ("3 ", "y")]
    pad = [column.name for column in table.columns].index("pad")
    assert [row[pad] for row in table.rows] == ["1=", "3 ", "1="]


@pytest.mark.parametrize(
    ("ranks", "places"),
    [
        ([1.0, 2.0, 3.0], ["1", "2", "3"]),
        ([2.5, 1.0, 2.5, 4.0], ["2=", "1 ", "2=", "4 "]),
        ([2.0, 2.0, 2.0], ["1=", "1=", "1="]),
        ([math.nan, 1.0, math.nan], ["-", "1", "-"]),
    ],
)
def test_places(ranks, places):
    assert format_ranks(ranks) == places


def test_the_limits_of_a_ranking_are_said_under_it():
    ranking, scores = (" ".join(table.notes) for table in ranking_tables(make_ranking()))
    assert "these files are ranked, not their generators, and by proxies only" in ranking
    assert (
        "estimated share of new real samples of 50 examples in which the candidate is in" in ranking
    )
    assert "too high near ties" in ranking
    assert "do not compare by overlap" in scores
    assert "pad: from at most 1,000 examples per candidate, against 50 real ones; the" in scores
    assert "mdm: from at most 1,000 examples per candidate; the values depend on that" in scores
    assert "those of answers are for this real sample" not in scores


def test_intervals_by_answers_are_said_to_be_for_this_real_sample():
    ranking = make_ranking()
    proxies = ranking.proxies | {"answers": replace(ranking.proxies["pad"], key="answers")}
    rows = [replace(r, scores=r.scores | {"answers": r.scores["pad"]}) for r in ranking.candidates]
    rows = [replace(r, ranks=r.ranks | {"answers": r.ranks["pad"]}) for r in rows]
    notes = " ".join(scores_table(replace(ranking, proxies=proxies, candidates=tuple(rows))).notes)
    assert "share the real sample; those of answers are for this real sample" in notes


def test_the_size_of_proxies_with_a_limit_of_their_own_is_said():
    ranking = make_ranking()
    limited = {"pad": replace(ranking.proxies["pad"], options={"max_examples": 200})}
    notes = " ".join(scores_table(replace(ranking, proxies=ranking.proxies | limited)).notes)
    assert "pad: from at most 200 examples" in notes
    assert "mdm: from at most 1,000 examples" in notes


def test_the_verdict_on_a_ranking_is_right_under_it():
    verdict = "No significant difference between the candidates."
    notes = ranking_table(make_ranking(messages=(verdict,))).notes
    assert notes[0] == "selected: top 2 by consensus, each with weight 0.5"
    assert notes[1] == verdict


def test_the_scores_follow_with_values_and_intervals():
    ranking, scores = ranking_tables(make_ranking(["x", "y", "z"]))
    assert ranking.rows[0][:2] == ("1", "x")
    assert [column.name for column in scores.columns] == ["#", "candidate", "pad", "mdm", "N"]
    assert scores.rows == (
        ("1", "x", "1.000 [0.900, 1.100]", "0.500 ± 0.020", "1,000"),
        ("2", "y", "1.100 [1.000, 1.200]", "-", "1,001"),
        ("3", "z", "1.200 [1.100, 1.300]", "0.214 ± 0.020", "1,002"),
    )


def test_a_ranking_by_its_only_proxy_does_not_repeat_its_ranks():
    ranking = make_ranking(rank_by="pad")
    alone = with_mean_ranks(replace(ranking, proxies={"pad": ranking.proxies["pad"]}))
    assert [c.name for c in ranking_table(alone).columns] == [
        "#",
        "candidate",
        "selected",
        "selection_stability",
    ]
    assert "consensus" not in " ".join(ranking_table(alone).notes)
    assert "pad" in [column.name for column in ranking_table(ranking).columns]


@pytest.mark.parametrize("form", [Table.text, Table.markdown])
def test_p_top_k_never_stands_without_the_reliability(form):
    ranking = make_ranking()
    unknown = form(ranking_table(ranking))
    assert "selection_stability" in unknown
    assert "reliability of consensus on your task is unknown" in re.sub(r"\s+", " ", unknown)
    known = re.sub(r"\s+", " ", form(ranking_table(ranking, reliability=correlation())))
    assert "measured reliability of consensus on this task: Spearman +0.98" in known
    assert "reliability of consensus on your task is unknown" not in known


def test_the_places_of_the_stability_are_those_of_what_can_be_selected():
    ranking = make_ranking()
    last = replace(ranking.candidates[-1], selection_stability=None)
    notes = " ".join(
        ranking_table(replace(ranking, candidates=(*ranking.candidates[:-1], last))).notes
    )
    assert "in the top 2 by consensus of the 3 that can be selected; too high" in notes
    assert "that can be selected" not in " ".join(ranking_table(ranking).notes)


def test_p_top_k_is_not_mentioned_where_it_is_unknown():
    ranking = make_ranking()
    rows = tuple(replace(row, selection_stability=None) for row in ranking.candidates)
    text = ranking_table(replace(ranking, candidates=rows)).text(200)
    assert "p_top_k" not in text


def test_a_reliability_that_is_undefined_is_unknown():
    undefined = correlate_scores([1] * 8, range(8), higher_is_better=True, mode="max")
    assert reliability_words("pad", undefined) == "reliability of pad on your task is unknown"


def reads_labels(*keys, unit):
    """A ranking whose proxies have the keys and the unit of proxies that read labels."""
    ranking = make_ranking()
    info = replace(ranking.proxies["pad"], family="labels", unit=unit, higher_is_better=True)
    rows = [
        replace(row, scores=dict.fromkeys(keys, row.scores["pad"]), ranks=dict.fromkeys(keys, 1.0))
        for row in ranking.candidates
    ]
    infos = {key: replace(info, key=key) for key in keys}
    return replace(ranking, candidates=tuple(rows), proxies=infos, rank_by=keys[0])


def test_scores_from_labels_are_explained():
    classes = reads_labels("transfer", "agreement", unit="balanced accuracy")
    numbers = reads_labels("agreement", unit="R²")
    text = " ".join(scores_table(classes).notes)
    assert "transfer: share of the other candidates' labels, weighted towards the real" in text
    assert "agreement: share of the real examples of which that classifier says" in text
    assert "R²" not in text
    assert [note for note in scores_table(numbers).notes if "R²" in note] == [
        "agreement: R² of what the regressions of the others predict for the real examples, by "
        "the candidate's",
        "R²: 1 is perfect, 0 is as good as a constant, below 0 is worse",
    ]


def test_a_consensus_of_one_proxy_is_not_called_a_mean():
    ranking = with_mean_ranks(make_ranking())
    members = [key for key, info in ranking.proxies.items() if info.in_consensus]
    assert len(members) == 1
    assert f"consensus: the rank by {members[0]}, as no" in " ".join(ranking_table(ranking).notes)


def test_a_spread_over_seeds_is_shown_where_there_is_no_interval():
    ranking = make_ranking()
    table = scores_table(ranking).text()
    assert table.count("0.500 ± 0.020") == 1
    assert table.count("±") == 4  # of b, nothing is defined; the fourth is the note
    assert "±: standard deviation over seeds, which is not an interval" in table
    rows = [replace(row, scores={"pad": row.scores["pad"]}) for row in ranking.candidates]
    pad = replace(
        ranking, candidates=tuple(rows), proxies={"pad": ranking.proxies["pad"]}, rank_by="pad"
    )
    assert "±" not in scores_table(pad).text()


def test_the_decision_fits_the_terminal_and_is_safe_for_it():
    names = [f"candidate_{'x' * 20}_{i}\x1b[31m" for i in range(4)]
    text = decision_text(make_ranking(names), 60)
    assert text.startswith("Train on candidate_")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60


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


def whole_text(ranking, width):
    return "\n\n".join(table.text(width) for table in ranking_tables(ranking))


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True), st.integers(60, 200))
@example(["0", "0000000000000000\u094d\u094d"], 60)
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_than_the_terminal(names, width):
    """Whatever the names are: wide characters, new lines, escapes of a terminal."""
    text = whole_text(make_ranking(names, messages=()), width)
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert all(columns(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) == text.count("\n") + 1


def joined(lines):
    """Join a wrapped name: a continued line is indented by two."""
    return "".join(line.removeprefix("  ") if i else line for i, line in enumerate(lines))


@given(
    st.lists(st.text("ab-_.日", min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(10, 60),
)
@example(["日本" * 10 + "a", "日本" * 10 + "b"], 11)
@settings(deadline=None)
def test_names_are_wrapped_and_never_cut(names, width):
    for name in names:
        lines = wrap_name(name, width)
        assert all(columns(line) <= width for line in lines)
        assert joined(lines) == name
        assert columns(name) > width or lines == [name]


def test_names_break_between_words():
    name = "llama3.1-8b_few-shot_bg_test-time-info_v1"
    assert wrap_name(name, 29) == ["llama3.1-8b_few-shot_bg_test-", "  time-info_v1"]
    assert wrap_name("c1=0.50, c2=0.50", 12) == ["c1=0.50,", "  c2=0.50"]
    assert wrap_name("a_very-long-word", 8) == ["a_very-", "  long-", "  word"]
    assert wrap_name("a_verylongword", 8) == ["a_verylo", "  ngword"]


RELEASED = [
    f"{model}_1000_{shots}-shot_bg_{time}v1"
    for model in ("llama3.1-8b", "qwen2.5-coder-7b")
    for shots in ("zero", "few")
    for time in ("", "test-time-info_")
]


def blocks(text):
    """The lines of each block of a table, from its rule on."""
    bodies = []
    for part in text.split("\n\n"):
        lines = part.splitlines()
        rules = [i for i, line in enumerate(lines) if re.fullmatch("-+(  -+)+", line)]
        bodies += [lines[i + 1 :] for i in rules]
    return bodies


def names_in(block):
    """The names of a block, each joined from its lines."""
    names = []
    for line in block:
        if line[:3].strip():
            names.append(line.split()[1])
        else:
            names[-1] += line.split()[0]
    return names


@pytest.mark.parametrize(("width", "most"), [(80, 1), (100, 1), (120, 1)])
def test_a_ranking_with_long_names_has_each_in_full(width, most):
    """Names that differ in their middle and four proxies, as in the released data."""
    ranking = with_mean_ranks(make_ranking(RELEASED, messages=()))
    infos = {key: ranking.proxies["pad"] for key in ("pad", "mmd", "coverage", "ngram")}
    rows = tuple(
        replace(
            row,
            scores=dict.fromkeys(infos, row.scores["pad"]),
            ranks={**dict.fromkeys(infos, row.ranks["pad"]), "consensus": row.ranks["consensus"]},
        )
        for row in ranking.candidates
    )
    order, scores = ranking_tables(replace(ranking, candidates=rows, proxies=infos))
    result = blocks(order.text(width))
    assert len(result) <= most
    for block in [*result, *blocks(scores.text(width))]:
        assert sorted(names_in(block)) == sorted(RELEASED)
    assert result[0][0].split()[2:4] == ["yes", "1.00"]
    assert len(blocks(scores.text(width))) <= 3


def test_of_the_layouts_that_fit_the_one_with_the_fewest_lines_is_shown():
    """Wrapping costs a line for each long name, another block costs a line for every name."""
    figures = tuple(Column(f"figure {i}") for i in range(4))

    def text(names):
        rows = tuple((name, "0.123", "0.123", "0.123", "0.123") for name in names)
        return Table("", (Column("candidate", is_name=True), *figures), rows).text(60)

    one_long = text(["a" * 20 + "_" + "b" * 9, *"cdefgh"])
    assert len(blocks(one_long)) == 1
    assert len(one_long.splitlines()) == 3 + 8
    # wrapped for one block, each of these would take five lines
    all_long = text([f"{c * 8}_{c * 8}_{c * 8}" for c in "cdefgh"])
    assert len(blocks(all_long)) == 1
    assert len(all_long.splitlines()) == 3 + 6


def test_a_block_repeats_the_names_and_never_leaves_a_gap_behind():
    table = scores_table(make_ranking([f"{'x' * 30}{i}" for i in range(4)]))
    heads = [line for line in table.text(46).splitlines() if line[:1] == "#"]
    assert len(heads) == 2
    assert all("candidate" in head for head in heads)
    assert heads[0].split()[2:] == ["pad"]


def test_a_head_is_broken_in_two_before_a_name_is_cut():
    table = Table("", (Column("n", is_name=True), Column("mean rank")), (("abcdefghij", "1.25"),))
    assert table.text(21).splitlines()[0] == "n           mean rank"
    assert table.text(20).splitlines()[:2] == ["            mean", "n           rank"]


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


def test_the_figure_of_each_unit_stands_best_first_also_where_they_are_few():
    records = [make_record(unit, i / 5) for i, unit in enumerate("abc")]
    records.append(make_record("c", 0.42))
    (entry,) = correlate(records)
    table = units_table(entry)
    assert [row[0] for row in table.rows] == ["c", "b", "a"]
    assert [row[2] for row in table.rows] == ["2", "1", "1"]
    assert "higher is better" in table.notes[0]


def test_the_model_as_it_is_is_the_last_row_and_enters_no_correlation():
    untrained = {"details": {"untrained": True}, "kind": "mixture"}
    records = [make_record(unit, i / 5) for i, unit in enumerate("abcdef")]
    (plain,) = correlate(records)
    (entry,) = correlate([*records, make_record("all", 0.3, **untrained)])
    assert (entry.untrained, entry.proxies) == (0.3, plain.proxies)
    table = units_table(entry)
    assert table.rows[-1] == ("the model as it is", "0.300", "-")
    assert table.rows[:-1] == units_table(plain).rows
    assert table.notes[1] == (
        "4 of 6 candidates are better than the model as it is by val_acc (1 pair; a verdict needs "
        "5)"
    )
    # what was measured on other data, or from other weights, is not comparable
    other = make_record("all", 0.3, key={"task": "other"}, **untrained)
    (alone,) = correlate([*records, other])
    assert alone.untrained is None
    assert units_table(alone) == units_table(plain)


def test_each_key_has_its_table_and_the_means_stand_apart():
    records = [
        make_record(unit, i / 5, key={"task": task})
        for task in ("one", "two")
        for i, unit in enumerate("abcdef")
    ]
    tables = correlation_tables(correlate(records))
    assert len(tables) == 3
    assert tables[0].title.startswith(
        "one: 6 distinct candidates, runs of kind probe, val_acc (max)"
    )
    assert tables[2].rows == (("pad", "2", "+1.00", "+1.00", "+1.00"),)
    assert "not pooled" in tables[2].notes[0]


def test_arms_that_use_labels_are_marked():
    table = arms_table(RESULT)
    assert table.rows[0] == ("selected: mixture of the top k", "0.830", "0.012", "5", "")
    assert table.rows[2] == ("best k by validation", "0.850", "-", "1", "uses labels")
    assert "left out" in table.text(100)
    no_labels = replace(RESULT, arms={"chosen": RESULT.arms["chosen"]})
    assert len(arms_table(no_labels).columns) == 4


def test_comparisons_carry_their_words_and_intervals():
    table = comparison_tables(RESULT)[0]
    assert table.rows[0][1:] == ("+0.0400", "[0.0100, 0.0700]", "5", "0.021", "beats")
    assert table.rows[1][1:] == ("-0.0200", "-", "1", "-", "hint only (1 pair)")
    assert table.notes[0].endswith("its interval is for this comparison alone")
    rule = '"beats", "is beaten by": p below 0.05 after Holm over the 1 comparison of at least 5'
    assert table.notes[1].startswith(rule)
    assert table.notes[1].endswith("; fewer than 5 pairs are a hint, not a finding")
    enough = {"chosen_vs_random_k": RESULT.comparisons["chosen_vs_random_k"]}
    assert "hint" not in " ".join(comparison_tables(replace(RESULT, comparisons=enough))[0].notes)


def test_two_pairs_never_beat_anything():
    two = {name: pair | {"n": 2} for name, pair in RESULT_STATE["comparisons"].items()}
    result = ExperimentResult.from_dict(RESULT_STATE | {"comparisons": two})
    assert [row[-1] for row in comparison_tables(result)[0].rows] == ["hint only (2 pairs)"] * 2
    text = " ".join(comparison_sentences(result))
    assert "beats" not in text + comparison_tables(result)[0].rows[0][-1]
    assert "Fewer than 5 pairs, a hint only: test_acc minus that of: mixture of k at random" in text


def test_the_page_says_the_verdicts_in_one_sentence_each():
    assert comparison_sentences(RESULT) == [
        "By test_acc, the selected mixture beats: mixture of k at random +0.040 [0.010, 0.070].",
        "Fewer than 5 pairs, a hint only: test_acc minus that of: best k by validation -0.020.",
        '"beats", "is beaten by": p below 0.05 after Holm over the 1 comparison of at least 5 '
        "pairs; fewer than 5 pairs are a hint, not a finding.",
    ]


def test_candidates_alone_are_shown_best_first_and_false_labels_are_marked():
    assert [row[0] for row in candidates_table(RESULT).rows] == ["b", "a"]
    assert candidates_table(RESULT).rows[0][-1] == "false labels"
    turned = replace(RESULT, metric=Metric("loss", "min"))
    assert [row[0] for row in candidates_table(turned).rows] == ["a", "b"]


def test_cost_adds_up():
    assert cost_table({"encode": 3.0, "fit": 1.0}).rows == (
        ("encode", "3.0", "75 %"),
        ("fit", "1.0", "25 %"),
        ("all", "4.0", ""),
    )
    assert cost_table({"encode": 0.0}).rows[0] == ("encode", "0.0", "-")


def test_pairs_are_a_matrix_best_first():
    evidence = Evidence(
        "consensus", 50, 50.0, 2, 3, copies=("w",), shown_better={"x": ("z",), "y": ("z",)}
    )
    ranking = decided(make_ranking(["x", "w", "y", "z"]), evidence)
    table = pairs_table(ranking)
    assert table is not None
    assert table.title == "Pairs distinguished by consensus: 2 of 3"
    assert [column.name for column in table.columns] == ["", "candidate", "1", "2", "3"]
    assert table.rows == (
        ("1", "x", "", "", "+"),
        ("2", "y", "", "", "+"),
        ("3", "z", "−", "−", ""),
    )
    untested = replace(evidence, n_apart=None, shown_better={})
    assert pairs_table(decided(make_ranking(["x", "w", "y", "z"]), untested)) is None
    assert pairs_table(make_ranking()) is None


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_row_of_the_scale_is_never_cut(width: int):
    names = [
        f"qwen2.5-{size}b_zero-shot_background_number-{i}_v1" for size in (7, 32) for i in "12"
    ]
    ranking = make_ranking(names)
    proxies = {key: replace(info, reference=1.0) for key, info in ranking.proxies.items()}
    text = scores_table(replace(ranking, proxies=proxies)).text(width)
    assert any(line.split()[:2] == ["more", "real"] for line in text.splitlines())
    assert "more real: about what a candidate of further real examples would score" in " ".join(
        text.split()
    )


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("kernel", "by pad only: closeness to the real inputs"),
        ("lexical", "by pad only: likeness to the real inputs"),
        ("labels", "by pad: how well the candidates predict each other's labels"),
        ("diversity", "by pad, which never reads the real sample"),
        ("baseline", "by pad, which never reads the real sample"),
    ],
)
def test_the_note_on_what_is_ranked_fits_the_proxy(family: str, words: str):
    ranking = make_ranking()
    proxies = {"pad": replace(ranking.proxies["pad"], family=family)}
    notes = " ".join(ranking_table(replace(ranking, rank_by="pad", proxies=proxies)).notes)
    assert words in notes
    assert ("closeness" in notes) == (family == "kernel")


@pytest.mark.parametrize(
    ("family", "title"),
    [
        ("kernel", "Ranking by pad against 50 real examples"),
        ("diversity", "Ranking by pad, which does not read the 50 real examples"),
        ("baseline", "Ranking by pad, which does not read the 50 real examples"),
    ],
)
def test_the_title_says_against_what(family: str, title: str):
    ranking = make_ranking()
    proxies = {"pad": replace(ranking.proxies["pad"], family=family)}
    by_pad = replace(ranking, rank_by="pad", proxies=proxies)
    assert ranking_table(by_pad).title == title
    assert str(by_pad).startswith(title.replace("Ranking by", "Ranking of 4 candidates by"))


def test_a_block_without_a_figure_of_the_scale_has_no_row_for_it():
    names = [f"candidate-{'x' * 30}-{i}" for i in range(3)]
    ranking = make_ranking(names)
    scaled = replace(ranking.proxies["pad"], reference=0.1)
    text = scores_table(replace(ranking, proxies={**ranking.proxies, "pad": scaled})).text(52)
    blocks = [block for block in text.split("\n\n") if block.startswith("#")]
    assert len(blocks) > 1
    assert ["more real" in block for block in blocks] == [" pad" in block for block in blocks]


@pytest.mark.parametrize(
    ("key", "family", "words"),
    [
        ("coverage", "coverage", "coverage: from at most 1,000 examples per candidate, against 50"),
        ("knn_coverage", "coverage", "knn_coverage: from at most 50 examples per candidate"),
        ("density", "coverage", None),
        ("mmd", "kernel", None),
    ],
)
def test_the_size_is_that_of_the_proxy(key: str, family: str, words: str | None):
    ranking = make_ranking()
    info = replace(ranking.proxies["pad"], key=key, family=family)
    rows = tuple(replace(row, scores={key: row.scores["pad"]}) for row in ranking.candidates)
    notes = " ".join(scores_table(replace(ranking, candidates=rows, proxies={key: info})).notes)
    assert ("from at most" in notes) == (words is not None)
    assert words is None or words in notes


def test_only_what_is_extrapolated_is_called_so():
    ranking = make_ranking()
    scaled = replace(ranking.proxies["pad"], reference=0.1)
    notes = " ".join(scores_table(replace(ranking, proxies={"pad": scaled})).notes)
    assert "more real: about what" in notes
    assert "extrapolated" not in notes
    ngram = replace(scaled, key="ngram")
    rows = tuple(replace(row, scores={"ngram": row.scores["pad"]}) for row in ranking.candidates)
    by_ngram = replace(ranking, candidates=rows, proxies={"ngram": ngram})
    assert "that of ngram is extrapolated" in " ".join(scores_table(by_ngram).notes)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "top 1 by consensus"),
        (2, "top 2 by consensus, each with weight 0.5"),
        (3, "top 3 by consensus, each with weight 0.333"),
    ],
)
def test_the_weights_are_said_where_there_are_several(n: int, words: str):
    assert ranking_table(replace(make_ranking(), top_k=n)).notes[0] == f"selected: {words}"


@pytest.mark.parametrize("width", [24, 60])
def test_a_sentence_with_wide_names_fits_the_terminal(width: int):
    text = "候选数据集_甲_新闻标题: 2 of 4 examples are in 候选数据集候选数据集候选数据集_乙."
    lines = wrap_text(text, width, bullet="- ")
    assert max(map(columns, lines)) <= width
    assert "".join("".join(lines).split()) == "-" + "".join(text.split())


def test_a_percentage_is_not_divided():
    for width in range(24, 60):
        lines = wrap_text("It is right 85 % of the time, at least 82 % (95 %).", width)
        assert not [line for line in lines if line.startswith("%")]
        assert " ".join(lines) == "It is right 85 % of the time, at least 82 % (95 %)."


def with_none(**verdicts: tuple[float, int]):
    """A result with arms against the model as it is: difference and number of pairs of each."""
    pairs = {
        f"{arm}_vs_none": compare_paired(
            [0.5 + difference + 0.001 * (i - 2) for i in range(n)], [0.5] * n, mode="max"
        )
        for arm, (difference, n) in verdicts.items()
    }
    return replace(RESULT, comparisons=holm_verdicts(pairs, mode="max"))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (
            with_none(chosen=(0.0, 5), all=(0.001, 2)),
            "No candidate is shown to beat the model as it is (test_acc, 1 arm of at least 5 "
            "pairs), which is not evidence that none does.",
        ),
        (
            with_none(chosen=(-0.1, 5), all=(-0.2, 5)),
            "No candidate is shown to beat the model as it is (test_acc, 2 arms of at least 5 "
            "pairs), which is not evidence that none does; it beats: selected: mixture of the top "
            "k, mixture of all.",
        ),
        (
            with_none(chosen=(0.1, 5), all=(-0.2, 5)),
            "Shown to beat the model as it is: selected: mixture of the top k (test_acc, of 2 arms "
            "of at least 5 pairs); it beats: mixture of all.",
        ),
        (
            with_none(chosen=(0.1, 2)),
            "1 of 1 arm is better than the model as it is by test_acc (2 pairs; a verdict needs "
            "5).",
        ),
        (
            with_none(chosen=(-0.1, 2), all=(-0.2, 1)),
            "No candidate beats the model as it is: of 2 arms, the best differs by -0.101 in "
            "test_acc (2 pairs; a verdict needs 5).",
        ),
    ],
)
def test_whether_anything_beats_the_model_as_it_is(result, sentence):
    assert sentence in comparison_sentences(result)


def test_other_arms_against_the_model_as_it_is_have_a_table_of_their_own():
    tables = comparison_tables(with_none(chosen=(0.1, 5), all=(0.2, 5), best_single=(0.3, 1)))
    assert [row[0] for row in tables[0].rows] == ["the model as it is"]
    assert [row[0] for row in tables[1].rows] == ["mixture of all", "best single by proxy"]
    assert [row[-1] for row in tables[1].rows] == ["beats", "hint only (1 pair)"]
    # one family of tests for both tables
    assert all("over the 2 comparisons of at least 5 pairs" in t.notes[1] for t in tables)
    assert len(comparison_tables(RESULT)) == 1
