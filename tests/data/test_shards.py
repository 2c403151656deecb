"""Datasets in several files and splits are one candidate each, and what is left out is said."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.tables import quiet_datasets
from synque_select.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path_factory.mktemp("cache")))


def parquet(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": list(texts)}), path)


def jsonl(path: Path, texts: Sequence[str], **further: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, **further}) + "\n" for text in texts))
    return path


def shards(folder: Path, letter: str, n: int = 2, head: str = "train") -> None:
    for number in range(n):
        parquet(folder / f"{head}-{number:05d}-of-{n:05d}.parquet", [f"{letter}{number}", letter])


def read(candidates: list[Candidate]) -> dict[str, list[Any]]:
    return {candidate.name: list(candidate.views) for candidate in candidates}


A = ["a0", "a", "a1", "a"]


def test_a_folder_of_shards_is_one_candidate(tmp_path: Path):
    shards(tmp_path / "a", "a")
    (candidate,) = load_candidates(tmp_path / "a")
    assert read([candidate]) == {"a": A}
    assert candidate.notes == (
        "2 files are read as one dataset (train-00000-of-00002.parquet, "
        "train-00001-of-00002.parquet)",
    )
    assert list(load_real(tmp_path / "a").views) == A
    assert list(load_real(str(tmp_path / "a" / "*.parquet")).views) == A


@pytest.mark.parametrize("inner", ["", "data", "train", "default/train"])
def test_folders_of_shards_in_a_folder(inner: str, tmp_path: Path):
    for letter in "ab":
        shards(tmp_path / letter / inner, letter)
        (tmp_path / letter / "README.md").write_text("card")
    expected = {"a": A, "b": [text.replace("a", "b") for text in A]}
    deep = str(tmp_path / "*" / "**" / "*.parquet")
    for source in (tmp_path, str(tmp_path / "*"), deep, [tmp_path / "a", tmp_path / "b"]):
        if source == deep and inner == "default/train":
            continue  # named after the folder above train
        assert read(load_candidates(source)) == expected, source
    named = [f"x={tmp_path / 'b'}", f"y={tmp_path / 'a' / '**' / '*.parquet'}"]
    assert read(load_candidates(named)) == {"x": expected["b"], "y": A}
    mapping = {"x": tmp_path / "b", "y": str(tmp_path / "a" / "**" / "*.parquet")}
    assert read(load_candidates(mapping)) == {"x": expected["b"], "y": A}


@pytest.mark.parametrize(
    "names",
    [
        ["0000.parquet", "0001.parquet"],
        ["part-00000-3f2a.c000.parquet", "part-00001-3f2a.c000.parquet"],
        ["shard_0001.parquet", "shard_0002.parquet"],
        ["train-00000.parquet", "train-00001.parquet"],
    ],
)
def test_shards_without_a_total(names: list[str], tmp_path: Path):
    for number, name in enumerate(names):
        parquet(tmp_path / "a" / name, [f"a{number}", "a"])
    assert read(load_candidates(tmp_path / "a")) == {"a": A}
    assert read(load_candidates([str(tmp_path / "a" / "*.parquet")])) == {"a": A}


def test_candidates_with_numbers_are_not_shards(tmp_path: Path):
    for name in ("gen_2023.parquet", "gen_2024.parquet", "run_0001.parquet", "7.parquet"):
        parquet(tmp_path / name, ["x", "y"])
    names = [candidate.name for candidate in load_candidates(tmp_path)]
    assert names == ["7", "gen_2023", "gen_2024", "run_0001"]


def test_shards_of_several_datasets_in_one_folder(tmp_path: Path):
    shards(tmp_path, "a", head="gpt")
    shards(tmp_path, "b", n=1, head="llama")
    parquet(tmp_path / "other.parquet", ["x", "y"])
    assert {name: len(v) for name, v in read(load_candidates(tmp_path)).items()} == {
        "gpt": 4,
        "llama": 2,
        "other": 2,
    }


def test_a_missing_shard_is_an_error(tmp_path: Path):
    shards(tmp_path / "a", "a", n=3)
    (tmp_path / "a" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"a: 1 file of 3 missing: .*the numbers 0, 2; download"):
        load_candidates(tmp_path / "a")


def test_the_split_is_train_unless_another_is_asked_for(tmp_path: Path):
    shards(tmp_path / "a", "a")
    shards(tmp_path / "a", "t", n=1, head="test")
    (candidate,) = load_candidates(tmp_path / "a")
    assert (candidate.name, list(candidate.views)) == ("a", A)
    assert "the split 'train' is read; left out: test (1 file)" in candidate.notes
    (other,) = load_candidates(tmp_path / "a", split="test")
    assert list(other.views) == ["t0", "t"]
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        load_candidates(tmp_path / "a", split="tset")
    parquet(tmp_path / "b.parquet", ["x", "y"])
    with pytest.raises(ConfigError, match="split='test': no candidate has splits"):
        load_candidates([tmp_path / "b.parquet"], split="test")


def test_a_saved_dictionary_of_splits(tmp_path: Path):
    splits = datasets.DatasetDict(
        {
            "test": datasets.Dataset.from_dict({"text": ["t", "u"]}),
            "train": datasets.Dataset.from_dict({"text": ["x", "y", "z"]}),
        }
    )
    with quiet_datasets():
        splits.save_to_disk(str(tmp_path / "data" / "a"))
        splits.save_to_disk(str(tmp_path / "data" / "b"))
    for source in (tmp_path / "data", str(tmp_path / "data" / "*")):
        assert {k: len(v) for k, v in read(load_candidates(source)).items()} == {"a": 3, "b": 3}
    (candidate,) = load_candidates({"c": splits})
    assert (list(candidate.views), candidate.notes) == (
        ["x", "y", "z"],
        ("the split 'train' is read; left out: test (2)",),
    )
    assert list(load_candidates({"c": splits}, split="test")[0].views) == ["t", "u"]
    assert list(load_real(splits, split="test").views) == ["t", "u"]
    assert list(load_real(tmp_path / "data" / "a" / "test").views) == ["t", "u"]
    assert len(load_candidates([splits])[0]) == 3
    without_train = datasets.DatasetDict({"p": splits["test"], "q": splits["test"]})
    with pytest.raises(DataError, match="has the splits p, q; give one with split="):
        load_candidates({"c": without_train})
    # at the top, each is a candidate
    assert [c.name for c in load_candidates(without_train)] == ["p", "q"]


def test_streamed_datasets(tmp_path: Path):
    jsonl(tmp_path / "a.jsonl", ["x", "y"])
    streamed = datasets.load_dataset(
        "json", data_files={"train": str(tmp_path / "a.jsonl")}, streaming=True
    )
    (candidate,) = load_candidates({"a": streamed})
    assert list(candidate.views) == ["x", "y"]
    assert list(load_real(streamed["train"]).views) == ["x", "y"]


def test_files_of_one_name_are_named_after_their_folders(tmp_path: Path):
    for generator in ("gpt", "llama"):
        jsonl(tmp_path / generator / "v1" / "data.jsonl", ["x", "y"])
    jsonl(tmp_path / "gpt" / "v1" / "other.jsonl", ["x", "y"])
    names = [c.name for c in load_candidates(str(tmp_path / "*" / "v1" / "*.jsonl"))]
    assert names == ["gpt", "other", "llama"]


def test_a_name_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    jsonl(tmp_path / "x=1.jsonl", ["x", "y"])
    jsonl(tmp_path / "b.jsonl", ["x", "y"])
    monkeypatch.chdir(tmp_path)
    names = [c.name for c in load_candidates(["x=1.jsonl", "my b=b.jsonl"])]
    assert names == ["x=1", "my b"]
    with pytest.raises(ConfigError, match="2 are named 'a'"):
        load_candidates(["a=x=1.jsonl", "a=b.jsonl"])
    with pytest.raises(DataError, match=r"^c\.jsonl: no such file or folder"):
        load_candidates("a=c.jsonl")


def test_a_list_of_paths_under_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    jsonl(tmp_path / "a.jsonl", ["x", "y"], n=1)
    jsonl(tmp_path / "b.jsonl", ["z", "w"], n="two")  # of another type: values stay as they are
    paths = [str(tmp_path / "a.jsonl"), tmp_path / "b.jsonl"]
    (candidate,) = load_candidates({"c": paths}, label="n")
    assert list(candidate.views) == ["x", "y", "z", "w"]
    assert candidate.views[1:3] == ["y", "z"]
    assert candidate.labels == ("1", "1", "two", "two")
    assert candidate.notes == (f"2 parts are read as one dataset ({paths[0]}, {paths[1]})",)
    monkeypatch.chdir(tmp_path)
    assert list(load_candidates({"c": ["x", "a.jsonl"]})[0].views) == ["x", "a.jsonl"]  # texts


def test_several_files_of_a_subfolder_are_one_candidate(tmp_path: Path):
    jsonl(tmp_path / "g" / "math.jsonl", ["x", "y"])
    jsonl(tmp_path / "g" / "code.jsonl", ["z", "w"])
    jsonl(tmp_path / "h" / "all.jsonl", ["x", "w"])
    g, h = load_candidates(tmp_path)
    assert (g.name, list(g.views), h.name) == ("g", ["z", "w", "x", "y"], "h")
    assert g.notes == ("2 files are read as one dataset (code.jsonl, math.jsonl)",)


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_names_in_two_forms_of_unicode_are_one_name(tmp_path: Path):
    one = jsonl(tmp_path / "a" / f"{NFC}.jsonl", ["x", "y"])
    two = jsonl(tmp_path / "a" / f"{NFD}.jsonl", ["x", "y"])
    inside = [jsonl(tmp_path / "b" / form / "all.jsonl", ["x", "y"]) for form in (NFC, NFD)]
    sources: list[Any] = [
        tmp_path / "a",
        str(tmp_path / "a" / "*.jsonl"),
        [one, two],
        {NFC: one, NFD: two},
        [f"{NFC}={one}", f"{NFD}={two}"],
        tmp_path / "b",
        inside,
        [Candidate(NFC, ["x", "y"]), Candidate(NFD, ["x", "y"])],
    ]
    for source in sources:
        with pytest.raises(ConfigError, match=r"2 are named .*\), in several forms of Unicode"):
            load_candidates(source)
    with pytest.raises(ConfigError, match=f"2 are named '{NFC}'"):
        load_candidates([one, two], names=[NFC, NFD])


def test_a_name_from_macos_is_found_as_it_is_typed(tmp_path: Path):
    one = jsonl(tmp_path / "a" / f"{NFD}.jsonl", ["x", "y"])
    other = jsonl(tmp_path / "b" / "c.jsonl", ["x", "y"])
    a, b = load_candidates([one, other], family={NFC: "g"})
    assert (a.name, a.family, b.family) == (NFC, "g", "c")
    # files of one name in several folders are named after these
    again = jsonl(tmp_path / "b" / f"{NFC}.jsonl", ["x", "y"])
    assert [c.name for c in load_candidates([one, again])] == ["a", "b"]
    with pytest.raises(DataError, match="its name has another form of Unicode there"):
        load_candidates(tmp_path / "a" / f"{NFC}.jsonl")


def test_names_that_are_given_twice_are_refused(tmp_path: Path):
    paths = [jsonl(tmp_path / f"{name}.jsonl", ["x", "y"]) for name in "ab"]
    with pytest.raises(ConfigError, match="2 are named 'c'"):
        load_candidates(paths, names=["c", "c"])


def test_a_name_that_yaml_reads_as_a_number(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", ["x", "y"])
    assert [c.name for c in load_candidates({1: path, "b": path})] == ["1", "b"]
    with pytest.raises(ConfigError, match="found None as a name; allowed is a text"):
        load_candidates({None: path})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"),  # an older upload
        ("train-00000-of-00001.parquet", "train-00000-of-00001.jsonl"),
        ("part-00000.parquet", "part-00000.jsonl"),
        ("train-00000-of-00001-0123456789ab.parquet", "train-00000-of-00001-ba9876543210.parquet"),
    ],
)
def test_two_copies_of_one_dataset_are_not_read_as_one(tmp_path: Path, first: str, second: str):
    for name in (first, second):
        write = parquet if name.endswith("parquet") else jsonl
        write(tmp_path / "a" / name, ["x", "y"])
    if "of-00002" in second:
        parquet(tmp_path / "a" / "train-00001-of-00002.parquet", ["z"])
    words = r"look like two copies of one dataset, whose examples would count twice"
    for source in (str(tmp_path / "a"), [str(tmp_path / "a")], str(tmp_path / "a" / "*")):
        with pytest.raises(DataError, match=words) as error:
            load_candidates(source)
        assert first in str(error.value)
        assert second in str(error.value)


def test_shards_without_leading_zeros_are_read_in_the_order_of_their_numbers(tmp_path: Path):
    for number in range(1, 13):
        jsonl(tmp_path / "a" / f"data-{number}-of-12.jsonl", [str(number)])
    assert read(load_candidates(tmp_path / "a")) == {"a": [str(n) for n in range(1, 13)]}


def test_a_hostile_name_of_a_shard_takes_no_time(tmp_path: Path):
    jsonl(tmp_path / f"part-00000{'-' * 200}_.jsonl", ["x", "y"])
    jsonl(tmp_path / "b.jsonl", ["x", "y"])
    assert len(load_candidates(tmp_path)) == 2


@pytest.mark.parametrize("source", [["a.jsonl", "none.jsonl"], ["none.jsonl", "b.csv"]])
def test_a_list_of_paths_in_which_one_is_missing_is_no_list_of_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: list[str]
):
    monkeypatch.chdir(tmp_path)
    jsonl(Path("a.jsonl"), ["x", "y"])
    for load in (lambda: load_candidates({"a": source}), lambda: load_real(source)):
        with pytest.raises(DataError, match=r"none\.jsonl: no such file or folder"):
            load()
    texts = ["What is in a.jsonl?", "see none.jsonl"]
    assert list(load_real(texts).views) == texts


def test_a_glob_in_a_list_of_paths_is_one(tmp_path: Path):
    jsonl(tmp_path / "a.jsonl", ["x"])
    jsonl(tmp_path / "b" / "c.jsonl", ["y"])
    (candidate,) = load_candidates({"a": [str(tmp_path / "*.jsonl"), str(tmp_path / "b/c.jsonl")]})
    assert list(candidate.views) == ["x", "y"]


def test_a_file_that_is_given_twice_is_an_error(tmp_path: Path):
    path = jsonl(tmp_path / "a.jsonl", ["x", "y"])
    with pytest.raises(ConfigError, match=r"a: .*a\.jsonl is given more than once"):
        load_candidates({"a": [path, tmp_path / "." / "a.jsonl"]})


def test_what_describes_a_dataset_is_no_part_of_it(tmp_path: Path):
    shards(tmp_path / "a" / "x", "x")
    (tmp_path / "a" / "x" / "dataset_infos.json").write_text('{"default": {"n": 1}}')
    (tmp_path / "a" / "dataset_info.json").write_text("{}")
    (candidate,) = load_candidates(tmp_path / "a")
    assert len(candidate) == 4
    assert candidate.notes[1:] == (
        "left out: dataset_infos.json (about the data)",
        f"the folder {tmp_path / 'a'} has 1 candidate; left out: 1 other file or folder "
        "(dataset_info.json)",
    )


def test_arrow_files_that_a_saved_dataset_does_not_name_are_counted(tmp_path: Path):
    texts = datasets.Dataset.from_dict({"text": ["x", "y", "z"]})
    with quiet_datasets():
        texts.save_to_disk(str(tmp_path / "a"), num_shards=3)
        texts.select([0, 1]).save_to_disk(str(tmp_path / "b"))
        texts.save_to_disk(str(tmp_path / "all" / "train"), num_shards=1)
    state = json.loads((tmp_path / "a" / "state.json").read_text())
    state["_data_files"].pop()
    (tmp_path / "a" / "state.json").write_text(json.dumps(state))
    first, second = load_candidates([tmp_path / "a", tmp_path / "b"], view="text")
    assert (len(first), second.notes) == (2, ())
    assert first.notes == (
        "left out: 1 file that state.json does not name (data-00002-of-00003.arrow)",
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://user:geheim@example.org/a.jsonl",
        "s3://KEY:geheim@bucket/a.jsonl",
        "https://example.org/a.jsonl?X-Amz-Signature=geheim",
    ],
)
def test_a_url_is_not_read_and_not_repeated(url: str):
    for load in (lambda: load_candidates([f"a={url}", url]), lambda: load_real(url)):
        with pytest.raises(DataError, match="a URL, which is not read; download the file") as error:
            load()
        assert "geheim" not in str(error.value)
