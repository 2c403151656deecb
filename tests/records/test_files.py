"""Run folders, JSON files, ranking files, correlation files: whole, null for undefined, checked."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.errors import ConfigError, RecordError
from synque_select.lens.cache import AnswerCache
from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import load_correlations, save_correlations
from synque_select.records.findings_file import check_findings_targets, remove_findings
from synque_select.records.ranking_file import (
    check_ranking_target,
    load_ranking,
    save_ranking,
)
from synque_select.records.run_folder import (
    check_run_name,
    new_run_folder,
    read_json,
    to_jsonable,
    write_json,
    write_text,
)
from synque_select.records.store import RunStore
from synque_select.types import (
    DroppedLabel,
    Findings,
    Mixture,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
    RankOrigin,
    SampleSizeAgreement,
    SampleSizeAnalysis,
)
from tests.records.records_data import make_ranking, make_record

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_folders_are_unique_when_made_at_once(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, "digits"), range(50)))
    assert len(set(folders)) == 50
    assert all(folder.is_dir() and folder.parent == tmp_path / "digits" for folder in folders)


def test_a_folder_has_the_name_of_the_run_or_two_words(tmp_path: Path):
    made = new_run_folder(tmp_path, "digits").name
    assert re.fullmatch(r"\d{8}T\d{6}Z-[a-z]+-[a-z]+", made)
    named = new_run_folder(tmp_path, "digits", "baseline").name
    assert named.endswith("Z-baseline")
    # the same name a second time is a run of its own
    assert new_run_folder(tmp_path, "digits", "baseline").name != named
    with pytest.raises(ConfigError, match="name='a/b': allowed is a plain name"):
        new_run_folder(tmp_path, "digits", "a/b")
    with pytest.raises(ConfigError, match="give one of them"):
        check_run_name("baseline", tmp_path)


@pytest.mark.parametrize("recipe", ["", "..", "a/b", "/etc", "a\\b", "a\0b"])
def test_a_recipe_is_a_plain_name(tmp_path: Path, recipe: str):
    with pytest.raises(ConfigError, match="recipe="):
        new_run_folder(tmp_path, recipe)


def test_a_root_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RecordError, match="runs"):
        new_run_folder(tmp_path / "runs", "digits")
    (tmp_path / "digits").write_text("")
    with pytest.raises(RecordError, match="digits"):
        new_run_folder(tmp_path, "digits")


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == to_jsonable(value)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_undefined_is_null_and_numbers_of_numpy_and_torch_are_plain(tmp_path: Path):
    value = {
        "nan": math.nan,
        "inf": [-math.inf, np.float32("nan"), torch.tensor(math.inf)],
        "numbers": (np.int64(3), np.float64(0.5), torch.tensor(2.0), np.bool_(True)),
        "arrays": [np.array([1.0, math.nan]), torch.tensor([[1, 2]])],
        "path": Path("a") / "b",
        "set": {"b", "a"},
    }
    assert read_json(write_json(tmp_path / "x.json", value)) == {
        "nan": None,
        "inf": [None, None, None],
        "numbers": [3, 0.5, 2.0, True],
        "arrays": [[1.0, None], [[1, 2]]],
        "path": "a/b",
        "set": ["a", "b"],
    }


def test_what_json_does_not_have_is_named(tmp_path: Path):
    with pytest.raises(RecordError, match=r"x\.json\.a\[1\]: a value of type object"):
        write_json(tmp_path / "x.json", {"a": [1, object()]})
    assert not (tmp_path / "x.json").exists()


def test_names_that_are_no_utf8_survive(tmp_path: Path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert read_json(write_json(tmp_path / "x.json", {name: "日本"})) == {name: "日本"}
    ranking = make_ranking([name, "日本"])
    assert same(load_ranking(save_ranking(ranking, tmp_path)), ranking)


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_text(tmp_path / "x.txt", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match=r"cannot write .*x\.txt: .*No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(RecordError, match=r"x\.json"):
        write_json(tmp_path / "x.json", 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b": }', "line 2: not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b"", "line 1: not JSON"),
        (b"1" * 5000, "an integer of 5,000 digits; allowed are 300"),
    ],
)
def test_a_broken_json_file_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=rf"broken\.json.*({words})"):
        read_json(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RecordError, match=r"none\.json: No such file"):
        read_json(tmp_path / "none.json")


# ranking.json


def same(a: Ranking, b: Ranking) -> bool:
    """Equality in which NaN equals NaN."""
    return repr(a) == repr(b)


def test_a_ranking_comes_back_as_it_was(tmp_path: Path):
    ranking = make_ranking()
    path = save_ranking(ranking, tmp_path)
    assert path == tmp_path / "ranking.json"
    assert same(load_ranking(path), ranking)
    assert same(load_ranking(tmp_path), ranking)


def test_the_version_of_a_score_comes_back(tmp_path: Path):
    ranking = make_ranking()
    newer = {key: replace(info, version=2) for key, info in ranking.proxies.items()}
    path = save_ranking(replace(ranking, proxies=newer), tmp_path)
    assert {info.version for info in load_ranking(path).proxies.values()} == {2}


def test_a_file_may_be_named(tmp_path: Path):
    path = save_ranking(make_ranking(), tmp_path / "mine.json")
    assert path == tmp_path / "mine.json"
    assert (tmp_path / "mine.csv").is_file()


numbers = st.none() | st.floats(-1e6, 1e6)


@st.composite
def rankings(draw) -> Ranking:
    keys = draw(st.lists(st.sampled_from(["pad", "mmd", "x.y"]), min_size=1, unique=True))
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
    rows = tuple(
        RankedCandidate(
            name,
            draw(st.integers(2, 10**7)),
            draw(st.text()),
            {
                key: ProxyScore(
                    draw(st.floats(-1e6, 1e6) | st.just(math.nan)),
                    draw(numbers),
                    draw(numbers),
                    draw(numbers),
                )
                for key in keys
            },
            {key: draw(st.floats(1, 9)) for key in [*keys, "consensus"]},
            draw(st.none() | st.floats(0, 1)),
        )
        for name in names
    )
    infos = {key: ProxyInfo(key, draw(st.booleans()), {"a": draw(st.text())}) for key in keys}
    return make_ranking(
        candidates=rows,
        proxies=infos,
        rank_by=draw(st.sampled_from([*keys, "consensus"])),
        top_k=draw(st.integers(1, len(rows))),
        encoder=None,
        messages=tuple(draw(st.lists(st.text(), max_size=2))),
    )


@given(rankings())
@settings(max_examples=60, deadline=None)
def test_any_ranking_comes_back_as_it_was(tmp_path_factory, ranking: Ranking):
    folder = tmp_path_factory.mktemp("ranking")
    assert same(load_ranking(save_ranking(ranking, folder)), ranking)


def test_ranking_json_has_the_format_of_the_design(tmp_path: Path):
    state = json.loads(save_ranking(make_ranking(), tmp_path).read_text())
    assert state["version"] == 1
    assert state["real"] == {"n": 50, "sha256": "f" * 64}
    assert state["encoder"] == {"id": "some/encoder", "revision": "abc", "dim": 384}
    assert state["proxies"]["pad"]["higher_is_better"] is False
    assert state["candidates"][1]["scores"]["mdm"]["value"] is None
    assert state["candidates"][0]["scores"]["pad"]["value"] == 1.0
    assert state["candidates"][0]["ranks"] == {"pad": 1.0, "mdm": 1.0, "consensus": 1.0}
    assert state["selected"] == [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5}]


def test_the_minimal_form_of_the_format_is_read(tmp_path: Path):
    state = make_ranking().to_dict()
    for field in ("modality", "messages", "wall_s"):
        del state[field]
    state["proxies"] = {"pad": {"higher_is_better": False, "options": {}}}
    state["something_new"] = 1
    for row in state["candidates"]:
        del row["selection_stability"], row["p_top_k_by_proxy"]  # old name
        del row["scores"]["mdm"]
        del row["scores"]["pad"]["spread"]
        row["ranks"] = {"pad": row["ranks"]["pad"], "consensus": 1.5}
    state["selected"] = [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5}]
    ranking = load_ranking(write_json(tmp_path / "ranking.json", state))
    assert ranking.top().names == ("a", "b")
    assert ranking["a"].selection_stability is None


def test_the_old_key_of_the_stability_is_written_beside_the_new_one_but_not_shown(tmp_path: Path):
    ranking = make_ranking()
    state = ranking.to_dict()
    for row in state["candidates"]:
        assert row["selection_stability"] == row["p_top_k_by_proxy"]  # old name
        del row["selection_stability"]
    old = load_ranking(write_json(tmp_path / "ranking.json", state))
    assert all(row.selection_stability is None for row in old.candidates)
    assert "made by an older version" in old.messages[-1]
    assert state["candidates"][0]["p_top_k_by_proxy"] is not None  # old name
    state["candidates"][0]["p_top_k_by_proxy"] = "1"  # old name
    with pytest.raises(RecordError, match="p_top_k_by_proxy must be a number"):  # old name
        load_ranking(write_json(tmp_path / "ranking.json", state))


def change(path: str, value):
    """Return a function that sets a part of a state, or takes it out where the value is `...`."""

    def apply(state):
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("/"))
        for part in parents:
            state = state[part]
        if value is ...:
            del state[last]
        else:
            state[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("version", 4, "version must be 1 or 2 or 3, found 4"),
        ("version", ..., "version must be 1 or 2 or 3, found None"),
        ("packages", ..., "packages must be an object"),
        ("candidates", {}, "candidates must be a list"),
        ("candidates", [], "at least one"),
        ("candidates/1/name", ..., r"candidates\[1\].name must be a text"),
        ("candidates/1/name", "a", r"found \['a'\] more than once"),
        ("candidates/0/n", "many", r"candidates\[0\].n must be a count"),
        ("candidates/0/scores/pad/value", "low", r"candidates\[0\].scores.pad.value must be"),
        ("candidates/0/scores/pad", ..., r"candidates\[0\].scores.pad must be an object"),
        ("candidates/2/ranks/consensus", ..., r"candidates\[2\].ranks must be complete"),
        ("candidates/2/ranks/pad", True, r"candidates\[2\].ranks.pad must be a number"),
        ("candidates/0/selection_stability", "1", r"selection_stability must be a number or null"),
        ("proxies/pad/higher_is_better", 1, "proxies.pad.higher_is_better must be true or false"),
        ("proxies/pad/options", [], "proxies.pad.options must be an object"),
        ("proxies/pad/version", "2", "proxies.pad.version must be a count"),
        ("rank_by", "padd", r"ranks must be complete, missing are \['padd'\]"),
        ("top_k", 9, "top_k must be 1 to 4"),
        ("real/n", 0, "real.n must be a count"),
        ("real/sha256", None, "real.sha256 must be a text"),
        ("encoder", "some/encoder", "encoder must be an object or null"),
        ("encoder/dim", ..., "encoder.dim must be a count"),
        ("modality", "sound", "modality must be"),
        ("messages", "text", "messages must be a list of texts"),
        ("wall_s", {"encode": "1"}, "wall_s.encode must be a number or null"),
        ("selected", [{"name": "d", "weight": 1.0}], "selected must follow from the ranks"),
        ("selected", ["a"], "selected must be a list of"),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, path: str, value, words: str):
    state = make_ranking().to_dict()
    change(path, value)(state)
    file = write_json(tmp_path / "ranking.json", state)
    with pytest.raises(RecordError, match=rf"ranking\.json: .*{words}"):
        load_ranking(file)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("selected", ..., "selected must be a list of"),
        ("selected", [], "at least one candidate"),
        ("selected/0/name", "z", "no candidate 'z'"),
        ("selected/0/name", "d", "selected must have distinct names"),
        ("selected/0/weight", 0.9, "must sum to 1"),
        ("selected_as", 3, "selected_as must be a text"),
    ],
)
def test_a_broken_mixture_of_its_own_is_named(tmp_path: Path, path: str, value, words: str):
    state = make_ranking(mixture=Mixture({"c": 0.75, "d": 0.25}, "by hand")).to_dict()
    change(path, value)(state)
    file = write_json(tmp_path / "ranking.json", state)
    with pytest.raises(RecordError, match=rf"ranking\.json: .*{words}"):
        load_ranking(file)


def test_a_mixture_of_its_own_comes_back_and_may_be_edited(tmp_path: Path):
    ranking = make_ranking(mixture=Mixture({"c": 0.75, "d": 0.25}, "by hand"))
    path = save_ranking(ranking, tmp_path)
    assert same(load_ranking(path), ranking)
    assert "c,1002" in path.with_suffix(".csv").read_text()
    state = ranking.to_dict()
    state["selected"][0]["weight"], state["selected"][1]["weight"] = 0.5, 0.5
    assert load_ranking(write_json(path, state)).top().weights == {"c": 0.5, "d": 0.5}


def test_findings_come_back_with_their_ranking(tmp_path: Path):
    row = SampleSizeAgreement(10, 5, 0.8, 0.7, 0.1)
    sizes = SampleSizeAnalysis((row,), {40: 0.05}, 0.2, 0.5, 2)
    dropped = {"a": (DroppedLabel(0, "0", "1", 0.9),)}
    findings = Findings(real_size=sizes, dropped=dropped)
    path = save_ranking(replace(make_ranking(), findings=findings), tmp_path / "mine.json")
    assert load_ranking(path).findings == findings
    (tmp_path / "mine.gaps.json").write_text('["labels of my own"]')
    with pytest.warns(UserWarning, match=r"mine\.gaps\.json.*the findings .* are left out"):
        assert load_ranking(path).findings == Findings()
    (tmp_path / "mine.gaps.json").unlink()
    save_ranking(make_ranking(), path)  # findings of another ranking are not its own
    assert load_ranking(path).findings == Findings()


def test_an_origin_comes_back_and_may_be_missing(tmp_path: Path):
    origin = RankOrigin("/home/ada", "real.jsonl", "text", {"label_filter": 0.8})
    path = save_ranking(replace(make_ranking(), origin=origin), tmp_path)
    assert load_ranking(path).origin == origin
    state = json.loads(path.read_text())
    del state["origin"]
    assert load_ranking(write_json(path, state)).origin == RankOrigin()
    state["origin"] = {"working_dir": 3}
    with pytest.raises(RecordError, match=r"ranking\.json: origin\.working_dir must be a text"):
        load_ranking(write_json(path, state))


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path):
    with pytest.raises(RecordError, match=r"the file name x+… is too long: give a shorter one"):
        check_ranking_target(tmp_path / f"{'x' * 251}.json")
    assert check_ranking_target(tmp_path / f"{'x' * 245}.json").name == f"{'x' * 245}.json"
    with pytest.raises(RecordError, match=r"is too long"):
        check_findings_targets(tmp_path / f"{'x' * 245}.json", ["real_size.json"])
    remove_findings(tmp_path / f"{'x' * 245}.json")


def test_an_empty_directory_of_the_name_is_said(tmp_path: Path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(RecordError, match=r"a\.json is a directory: give another path"):
        check_ranking_target(tmp_path / "a.json")


def test_a_link_is_written_through(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "new.json")
    save_ranking(make_ranking(["a", "b"]), tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert len(load_ranking(tmp_path / "there" / "new.json")) == 2


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(RecordError, match="not a file with data, but a pipe; save the data to"):
        read_json(tmp_path / "a.json")
    with pytest.raises(RecordError, match="but a pipe"):
        RunStore(tmp_path / "a.json").read()
    with pytest.raises(RecordError, match="but a pipe"):
        AnswerCache(tmp_path / "a.json").get(["k"])


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(RecordError, match="the file must be an object"):
        load_ranking(write_json(tmp_path / "x.json", [1, 2]))


def test_ranking_csv_is_best_first_and_leaves_undefined_empty(tmp_path: Path):
    save_ranking(make_ranking(["z", 'quoted, "name"', "y"]), tmp_path)
    with (tmp_path / "ranking.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["z", 'quoted, "name"', "y"]
    assert float(rows[0]["pad"]) == 1.0
    assert (rows[1]["mdm"], rows[1]["mdm_low"], rows[1]["mdm_rank"]) == ("", "", "")
    assert [row["selected_weight"] for row in rows] == ["0.5", "0.5", "0.0"]
    assert rows[2]["consensus_rank"] == "3.0"


# correlations.json


def test_correlations_come_back_as_they_were(tmp_path: Path):
    records = [
        make_record(unit, value) for unit, value in zip("abcdef", (1, 3, 2, 5, 4, 6), strict=True)
    ]
    records[0] = make_record("a", 1, scores={"pad": math.nan, "mdm": 1.0})
    records.append(make_record("a", 1.0, run_id="other", kind="mixture"))
    correlation = correlate(records)
    save_correlations(correlation, tmp_path)
    assert repr(load_correlations(tmp_path)) == repr(correlation)


@pytest.mark.parametrize("state", [{}, {"version": 1, "correlations": [{}]}, [], {"version": 2}])
def test_a_damaged_correlation_file_is_named(tmp_path: Path, state):
    write_json(tmp_path / "correlations.json", state)
    with pytest.raises(RecordError, match=r"correlations\.json"):
        load_correlations(tmp_path)


class TestCheckRankingTarget:
    def test_a_file_that_is_no_ranking_is_not_replaced(self, tmp_path: Path):
        data = tmp_path / "data.json"
        data.write_text('[{"text": "x"}]')
        with pytest.raises(RecordError, match=r"data\.json.*not replaced"):
            check_ranking_target(data)

    def test_a_table_of_the_same_stem_is_not_replaced(self, tmp_path: Path):
        (tmp_path / "out.csv").write_text("a,b\n")
        with pytest.raises(RecordError, match=r"out\.csv exists already"):
            check_ranking_target(tmp_path / "out.json")

    def test_a_table_of_a_ranking_is_replaced(self, tmp_path: Path):
        # as a run leaves it that is killed before it writes the JSON file
        (tmp_path / "out.csv").write_text("name,n,sha256,pad\r\n")
        assert check_ranking_target(tmp_path / "out.json") == tmp_path / "out.json"

    def test_another_ending_is_refused(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"a directory or to a \.json file"):
            check_ranking_target(tmp_path / "out.txt")

    def test_a_folder_that_cannot_be(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RecordError, match="is not a writable directory"):
            check_ranking_target(tmp_path / "file" / "out.json")
