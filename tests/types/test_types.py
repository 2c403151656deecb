"""Examples, mixtures and rankings keep what they promise, and refuse what they cannot hold."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.views import digest
from synque_select.errors import ConfigError, DataError, DependencyError
from synque_select.records.ranking_file import ranking_from_json
from synque_select.types import (
    Decision,
    DroppedLabel,
    EncoderInfo,
    Evidence,
    Findings,
    Mixture,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
    RunRecord,
)

TEXTS = ["first", "second", "third"]


class Endless(torch.utils.data.Dataset[Any]):
    """A torch dataset as many are: it knows its length, but no index is out of range."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        if index < 0:
            raise AssertionError("no negative positions, please")
        return f"text {index}", index


# --------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("dataset", "view"),
    [
        (TEXTS, None),
        (tuple(TEXTS), None),
        ([{"t": text, "n": 1} for text in TEXTS], None),
        ([(text, "other") for text in TEXTS], 0),
        ([(text, "other") for text in TEXTS], -2),
        ([{"t": text} for text in TEXTS], lambda row: row["t"]),
        (datasets.Dataset.from_dict({"t": TEXTS, "u": TEXTS}), "t"),
        (datasets.Dataset.from_dict({"t": TEXTS}).with_format("numpy"), "t"),
        (datasets.Dataset.from_dict({"t": TEXTS[::-1]}).select([2, 1, 0]), "t"),
    ],
)
def test_the_views_of_every_kind_of_dataset(dataset: Any, view: Any):
    examples = Examples("a", dataset, view)
    assert list(examples.views) == TEXTS
    assert examples.views[1:] == TEXTS[1:]
    assert examples.views[::-2] == TEXTS[::-2]
    assert examples.views[5:] == []
    assert [examples.views[-1], examples.views[np.int64(0)]] == ["third", "first"]
    assert examples.digests.tobytes() == b"".join(map(digest, TEXTS))
    for position in (3, -4):
        with pytest.raises(IndexError):
            examples.views[position]


def test_iteration_ends_and_no_negative_position_reaches_the_dataset():
    examples = Examples("a", Endless())
    assert list(examples) == [(f"text {i}", i) for i in range(3)]
    assert examples.views[-1] == "text 2"


def test_a_field_that_a_format_computes_is_computed():
    def shout(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        return {"t": [f"{t}{u}!" for t, u in zip(batch["t"], batch["u"], strict=True)]}

    dataset = datasets.Dataset.from_dict({"t": TEXTS, "u": TEXTS}).with_transform(shout)
    views = Examples("a", dataset, "t").views
    assert views[:2] == ["firstfirst!", "secondsecond!"] == [views[0], views[1]]


@settings(deadline=None)  # the first example waits for imports
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=30))
def test_the_hash_is_of_the_content_and_its_order(texts: list[str]):
    by_list = Examples("a", texts)
    by_record = Examples("b", [{"text": text, "label": "x"} for text in texts], "text")
    assert by_list.sha256 == by_record.sha256
    if texts != texts[::-1]:
        assert Examples("c", texts[::-1]).sha256 != by_list.sha256


def test_reading_the_same_content_from_memory_in_blocks_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    texts = [f"text {i}" for i in range(2500)]
    by_list = Examples("a", texts)
    by_dataset = Examples("b", datasets.Dataset.from_dict({"t": texts, "u": texts}), "t")
    assert by_dataset.sha256 == by_list.sha256
    assert list(by_dataset.views) == texts


def test_examples_can_be_sent_to_a_worker():
    copy = pickle.loads(pickle.dumps(Candidate("a", [{"t": "x", "u": "y"}] * 2, "t")))
    assert (copy.name, list(copy.views)) == ("a", ["x", "x"])


def test_a_label_is_checked_but_never_viewed():
    records = [{"t": "x", "label": 0}, {"t": "y", "label": 1}]
    assert list(Candidate("a", records, "t", label="label").views) == ["x", "y"]
    with pytest.raises(DataError, match="no field 'lable'; did you mean 'label'"):
        Candidate("a", records, "t", label="lable")


@pytest.mark.parametrize(
    ("name", "dataset", "view", "error", "message"),
    [
        ("", TEXTS, None, ConfigError, "a name must be a non-empty text, found ''"),
        (3, TEXTS, None, ConfigError, "a name must be a non-empty text, found 3"),
        ("a", 3, None, DataError, "an object of type int has no length or no indexing"),
        ("a", iter(TEXTS), None, DataError, "has no length or no indexing; allowed is a map-style"),
        (
            "a",
            "a.json",
            None,
            DataError,
            r"an object of type str is not a dataset; .*load_candidates reads files",
        ),
        (
            "a",
            {"t": TEXTS},
            None,
            DataError,
            "an object of type dict is not a dataset; allowed is a list of",
        ),
        ("a", [], None, DataError, "a: 0 examples; at least 2 are required"),
        ("a", TEXTS[:1], None, DataError, "a: 1 example; at least 2 are required"),
        ("a", [{"t": "x"}] * 2, "u", DataError, "no field 'u'; there are: t"),
        ("a", [{"t": 1}] * 2, "t", DataError, "must be a text or an image, found int$"),
        (
            "a",
            [{"t": None}] * 2,
            "t",
            DataError,
            r"of the first example .*nothing \(None\)$",
        ),
        ("a", TEXTS, len, DataError, "must be a text or an image, found int"),
        ("a", [{"t": "x", "u": "y"}] * 2, None, ConfigError, "^a: no view was given.* 't', 'u'"),
        ("a", [{}] * 2, lambda row: row["t"], DataError, "the first example: KeyError: 't'"),
    ],
)
def test_what_cannot_be_examples_is_refused(
    name: Any, dataset: Any, view: Any, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        Examples(name, dataset, view)


@pytest.mark.parametrize(
    ("bad", "view", "message"),
    [
        ({"t": None}, "t", r"expected a text, found nothing \(None\)"),
        ({"t": 3}, "t", "expected a text, found int"),
        ({"u": "x"}, "t", "no field 't'; there are: u"),
        ({"u": "x"}, lambda row: row["t"], "KeyError: 't'"),
        ("x", lambda row: row["t"], "TypeError: string indices"),
        ({"t": np.zeros((2, 2))}, "t", "expected a text, found ndarray"),
    ],
)
def test_a_bad_example_is_named_by_source_and_position(bad: Any, view: Any, message: str):
    examples = Candidate("a", [{"t": "x"}, {"t": "y"}, bad], view, source="a.json")
    pattern = rf"a \(a\.json\), example 2 \(counted from 0\): {message}"
    for position in (2, -1):
        with pytest.raises(DataError, match=pattern):
            examples.views[position]
    with pytest.raises(DataError, match=pattern):
        list(examples.views)
    with pytest.raises(DataError, match=pattern):
        _ = examples.sha256


def test_an_index_error_inside_a_dataset_does_not_end_the_iteration_silently():
    def view(row: list[str]) -> str:
        return row[0]

    examples = Examples("a", [["x"], ["y"], []], view)
    with pytest.raises(DataError, match=r"example 2 .*IndexError"):
        list(examples.views)


def test_a_missing_package_stays_that_error(monkeypatch: pytest.MonkeyPatch):
    examples = Examples("a", [np.zeros((2, 2)), np.zeros((2, 2))])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DependencyError, match="pillow"):
        examples.views[0]


def test_images_of_torch_datasets():
    dataset = torch.utils.data.TensorDataset(torch.rand(4, 3, 5, 6), torch.arange(4))
    sample = RealSample("real", dataset)
    assert (sample.modality, sample.selector) == ("image", 0)
    assert all(isinstance(view, Image.Image) and view.size == (6, 5) for view in sample.views)


def test_only_one_image_is_in_memory_at_a_time():
    made: list[weakref.ref[Image.Image]] = []
    most = 0

    def view(value: int) -> Image.Image:
        nonlocal most
        image = Image.new("L", (2, 2), value)
        made.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in made))
        return image

    assert len(Examples("a", list(range(50)), view).digests) == 50
    assert most <= 3  # the last, the next, and the one that is being hashed


# ---------------------------------------------------------------------------------------- mixture


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True))
def test_an_equal_mixture_sums_to_one(names: list[str]):
    mixture = Mixture.equal(names)
    assert mixture.names == tuple(names)
    assert math.isclose(sum(mixture.weights.values()), 1)
    assert Mixture.from_dict(json.loads(json.dumps(mixture.to_dict()))) == mixture


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "needs at least one candidate"),
        ({"a": 0.5, "b": 0.4}, "must sum to 1, found 0.9"),
        ({"a": 1.5, "b": -0.5}, r"positive and finite, found \{'b': -0\.5\}"),
        ({"a": 1.0, "b": 0.0}, r"found \{'b': 0\.0\}"),
        ({"a": math.nan}, r"found \{'a': nan\}"),
        ({"a": math.inf}, r"found \{'a': inf\}"),
        ([0.5, 0.5], r"a mapping from name to number, found \[0\.5, 0\.5\]"),
        (3, "a mapping from name to number, found 3"),
        ({"a": "x"}, r"a mapping from name to number, found \{'a': 'x'\}"),
        ({"a": True}, "a mapping from name to number"),
    ],
)
def test_weights_that_are_none(weights: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        Mixture(weights)


def test_no_name_makes_no_mixture():
    with pytest.raises(ConfigError, match="at least one candidate"):
        Mixture.equal([])


# ---------------------------------------------------------------------------------------- ranking

RANKS = {"a": 2.0, "b": 1.0, "c": math.nan, "d": 3.5, "e": 3.5}


def ranking(**changes: Any) -> Ranking:
    row_of = {
        name: RankedCandidate(
            name=name,
            n=10,
            sha256="0" * 64,
            scores={"pad": ProxyScore(0.5 if rank == rank else math.nan, 0.1, None, 0.2)},
            ranks={"pad": rank, "consensus": rank},
            selection_stability=0.75,
        )
        for name, rank in RANKS.items()
    }
    settings: dict[str, Any] = {
        "candidates": tuple(row_of.values()),
        "proxies": {"pad": ProxyInfo("pad", False, {"protocol": "released"}, "1", "domain", True)},
        "rank_by": "consensus",
        "top_k": 2,
        "n_real": 20,
        "real_sha256": "1" * 64,
        "modality": "text",
        "encoder": EncoderInfo("id", "revision", 384),
        "messages": ("A sentence.",),
        "wall_s": {"encode": 1.5},
    }
    return Ranking(**(settings | changes))


def test_the_order_is_best_first_ties_as_given_undefined_last():
    assert [row.name for row in ranking()] == ["b", "a", "d", "e", "c"]
    assert [row.name for row in ranking().order("pad")] == ["b", "a", "d", "e", "c"]
    assert len(ranking()) == 5
    assert ranking()["d"].n == 10


def test_the_top_is_an_equal_mixture():
    assert ranking().top().weights == {"b": 0.5, "a": 0.5}
    assert ranking().top(1).source == "top 1 by consensus"
    assert ranking().top(3, by="pad").names == ("b", "a", "d")


def test_a_ranking_prints_its_order_selection_and_messages():
    lines = str(ranking()).splitlines()
    assert lines[0] == "Ranking of 5 candidates by consensus against 20 real examples"
    assert [line.split() for line in lines[2:5]] == [
        ["#", "candidate", "selected", "selection_stability", "pad"],
        ["1", "b", "yes", "0.75", "0.5"],
        ["2", "a", "yes", "0.75", "0.5"],
    ]
    assert [line.split()[:2] for line in lines[5:8]] == [["3=", "d"], ["3=", "e"], ["-", "c"]]
    assert lines[-2].startswith("selection_stability: ")
    assert lines[-2].endswith("Reliability of consensus on your task is unknown.")
    assert lines[-1] == "A sentence."


def test_the_text_form_of_a_ranking_is_one_short_line():
    assert repr(ranking()) == (
        "<Ranking of 5 candidates by consensus against 20 real examples; selected: b, a>"
    )
    assert len(repr(ranking()["b"])) < 100


def test_the_frame_of_a_ranking_has_a_row_per_candidate_best_first():
    frame = ranking().to_frame()
    assert list(frame.index) == ["b", "a", "d", "e", "c"]
    assert frame["selected"].tolist() == [True, True, False, False, False]
    assert frame.loc["b", ["rank", "weight", "pad", "pad_low"]].tolist() == [1.0, 0.5, 0.5, 0.1]
    assert np.isnan(frame.loc["c", "pad"])
    assert "pad_high" not in frame  # no candidate has one


HOSTILE = "<script>alert(1)</script> $x$"


def hostile() -> Ranking:
    renamed = [dataclasses.replace(row, name=f"{row.name} {HOSTILE}") for row in ranking()]
    return ranking(candidates=tuple(renamed), messages=(f"Look at {HOSTILE}.",))


def test_hostile_text_stays_text_in_a_notebook():
    shown = hostile()._repr_html_()
    assert "<script" not in shown
    assert "b &lt;script&gt;alert(1)&lt;/script&gt; $x$" in shown
    assert "Look at &lt;script&gt;" in shown
    assert shown.startswith('<div class="tex2jax_ignore')  # a notebook makes formulas of $x$ else


def test_a_plot_shows_every_candidate_with_its_interval_and_the_selected_in_blue():
    pytest.importorskip("matplotlib").use("agg")
    rows = [
        dataclasses.replace(row, scores={"pad": ProxyScore(float(i), i - 0.5, i + 0.5)})
        for i, row in enumerate(hostile())
    ]
    info = ProxyInfo("pad", False, family="domain", reference=0.25)
    ax = ranking(candidates=tuple(rows), proxies={"pad": info}).plot("pad")
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert [float(line.get_xdata()[0]) for line in dots] == [0, 1, 2, 3, 4]
    assert [tuple(line.get_xdata()) for line in bars] == [(i - 0.5, i + 0.5) for i in range(5)]
    assert [line.get_color() == "#0072B2" for line in dots] == [True, True, False, False, False]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [0.25]
    names = [tick.get_text().replace("\n", " ") for tick in ax.get_yticklabels()]
    assert names[0] == f"b {HOSTILE}"
    assert "lower is better" in ax.get_xlabel()
    assert "do not compare by overlap" in ax.get_xlabel()
    ax.figure.canvas.draw()  # a formula that cannot be parsed would fail here


def test_a_plot_draws_on_the_axes_that_are_given():
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    rows = tuple(dataclasses.replace(row, mean_rank=row.ranks["pad"]) for row in ranking())
    assert ranking(candidates=rows).plot(ax=ax) is ax
    assert [line.get_xdata()[0] for line in ax.lines][:3] == [1.0, 2.0, 3.5]
    assert "mean rank" in ax.get_xlabel()


def test_a_mixture_of_its_own_is_what_top_gives():
    own = Mixture({"c": 0.75, "a": 0.25}, "by hand")
    own_ranking = ranking(mixture=own)
    assert own_ranking.top() == own
    assert own_ranking.top(2).weights == {"b": 0.5, "a": 0.5}
    assert set(own_ranking.top(by="pad").weights) == {"b", "a"}
    with pytest.raises(ConfigError, match="no candidate 'z' in the ranking"):
        ranking(mixture=Mixture({"z": 1.0}))


def test_only_a_mixture_of_its_own_makes_a_ranking_version_2():
    assert ranking().to_dict()["version"] == 1
    assert "selected_as" not in ranking().to_dict()
    own = ranking(mixture=Mixture({"c": 0.75, "a": 0.25}, "by hand"))
    state = own.to_dict()
    assert state["version"] == 2
    assert state["selected"] == [{"name": "c", "weight": 0.75}, {"name": "a", "weight": 0.25}]
    assert Ranking.from_dict(state).mixture == own.mixture
    with pytest.raises(ConfigError, match="version 4; allowed are 1, 2 and 3"):
        Ranking.from_dict({**state, "version": 4})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.top(0), r"top_k=0: allowed is 1 to 5"),
        (lambda r: r.top(5), r"top_k=5: consensus is undefined for c"),
        (lambda r: r.top(2, by="padd"), r"no column 'padd'; did you mean 'pad'"),
        (lambda r: r["z"], r"no candidate 'z' in the ranking"),
    ],
)
def test_what_a_ranking_cannot_give(call: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        call(ranking())


def test_a_top_that_is_undefined_says_why():
    messages = ("pad is undefined: no two examples of c differ", "Another sentence.")
    with pytest.raises(ConfigError, match=r"undefined for c; pad is undefined: no two .* differ$"):
        ranking(messages=messages).top(5)


@pytest.mark.parametrize("encoder", [None, EncoderInfo("id", "revision", 384)])
def test_a_ranking_survives_strict_json(encoder: EncoderInfo | None):
    evidence = Evidence("consensus", 20, 20.0, 0, 10)
    mixture = Mixture.equal(["b", "a"], "top 2 by consensus")
    decision = Decision("tie", "Train on b, a.", mixture, (), evidence)
    before = ranking(encoder=encoder, decision=decision)
    text = json.dumps(before.to_dict(), allow_nan=False)
    state = json.loads(text)
    assert state["candidates"][2]["scores"]["pad"]["value"] is None
    assert state["selected"] == [{"name": "b", "weight": 0.5}, {"name": "a", "weight": 0.5}]
    after = Ranking.from_dict(state)
    assert state["version"] == 3
    assert json.dumps(after.to_dict(), allow_nan=False) == text
    assert math.isnan(after["c"].ranks["pad"])
    assert dataclasses.replace(after, candidates=before.candidates) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 4}, "a ranking of version 4; allowed are 1, 2 and 3"),
        ({"candidates": None}, "not a ranking: TypeError"),
        ({"real": {}}, "not a ranking: KeyError: 'n'"),
        ({"encoder": {"name": "x"}}, "not a ranking: TypeError"),
    ],
)
def test_what_is_no_ranking(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Ranking.from_dict(ranking().to_dict() | change)


# ------------------------------------------------------------------------------------- run record


def record(**changes: Any) -> RunRecord:
    settings: dict[str, Any] = {
        "run_id": "1",
        "kind": "probe",
        "key": {"task": "t", "steps": 80},
        "unit": "a",
        "mixture": Mixture.equal(["a"]),
        "scores": {"pad": 0.5},
        "orientation": {"pad": False},
        "metrics": {"val_acc": 0.8},
        "monitor": "val_acc",
        "mode": "max",
        "seed": 0,
        "created": "2026-01-01T00:00:00Z",
    }
    return RunRecord(**(settings | changes))


def test_the_key_hash_knows_content_and_no_order():
    assert len(record().key_hash) == 16
    assert record(key={"steps": 80, "task": "t"}).key_hash == record().key_hash
    assert record(seed=1, unit="b").key_hash == record().key_hash
    assert record(key={"task": "t", "steps": 81}).key_hash != record().key_hash


def test_a_ranking_of_an_older_version_does_not_show_what_it_compared():
    old = "4 of 6 pairs of a candidate in the top 2 are told apart by pad."  # old name
    state = ranking(messages=(old, "A sentence.")).to_dict()
    for row in state["candidates"]:
        del row["selection_stability"]
    read = Ranking.from_dict(state)
    assert [row.selection_stability for row in read] == [None] * 5
    assert read.messages[0] == "A sentence."
    assert read.messages[1].startswith("This ranking was made by an older version")
    assert Ranking.from_dict(read.to_dict()).messages == read.messages
    plain = ranking(messages=("A sentence.",)).to_dict()
    assert Ranking.from_dict(plain).messages == ("A sentence.",)
    assert Ranking.from_dict(plain)["a"].selection_stability == 0.75


def test_a_mixture_a_decision_and_findings_show_themselves():
    pytest.importorskip("matplotlib").use("agg")
    mixture = Mixture({"a": 0.75, "<b>": 0.25}, "by hand")
    evidence = Evidence("consensus", n_real=60, n_effective=60, n_apart=0, n_pairs=1)
    decision = Decision("tie", "Train on a.", mixture, ("Because.",), evidence)
    for shown in (mixture, decision):
        assert shown.to_frame()["weight"].to_dict() == dict(mixture.weights)
        assert [patch.get_width() for patch in shown.plot().patches] == [0.75, 0.25]
        assert "<b>" not in shown._repr_html_().replace("<p><b>", "")
    assert str(decision) == "Train on a.\nBecause."
    assert "by hand" in str(mixture)
    assert repr(mixture) == "Mixture(weights={'a': 0.75, '<b>': 0.25}, source='by hand')"
    dropped = Findings(dropped={"a": (DroppedLabel(3, "0", "1", 0.9),)})
    assert dropped.to_frame().to_dict("records") == [
        {"candidate": "a", "position": 3, "label": "0", "voted": "1", "contradicted": 0.9}
    ]
    assert "No findings" in str(Findings())


class CountedName(str):
    """A name that counts how often names are compared."""

    n_compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        CountedName.n_compared += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


def test_reading_and_looking_up_compare_no_pairs_of_names(tmp_path: Path):
    row = ranking().candidates[0]
    names = [f"c{i}" for i in range(400)]
    many = dataclasses.replace(
        ranking(), candidates=tuple(dataclasses.replace(row, name=n) for n in names)
    )
    state = many.to_dict()
    for part in (*state["candidates"], *state["selected"]):
        part["name"] = CountedName(part["name"])
    CountedName.n_compared = 0
    read = ranking_from_json(state, tmp_path / "ranking.json")
    assert [read[name].name for name in names] == names
    assert CountedName.n_compared < 20 * len(names)  # 80,000 pairs
