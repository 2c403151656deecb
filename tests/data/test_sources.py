"""Every kind of source gives the same examples; every kind of bad input one clear error."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from synque_select.data import json_reader, tables
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.data.views import fields_view
from synque_select.errors import ConfigError, DataError
from synque_select.utils import cache_dir

RECORDS = [
    {"question": "How many apps?", "n": 1},
    {"question": 'A "quoted", text\nwith a newline — ünïcödé 日本語 🎉', "n": 2},
    {"question": "", "n": -3},
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SYNQUE_CACHE", str(folder))
    return folder


# ------------------------------------------------------------------------------ writers of files


def write_json(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_csv(path: Path, records: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)


def write_tsv(path: Path, records: list[dict[str, Any]]) -> None:
    write_csv(path, records, "\t")


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(records), path)


def write_arrow_stream(path: Path, records: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(records)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_arrow_file(path: Path, records: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(records)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_saved(path: Path, records: list[dict[str, Any]]) -> None:
    with tables.quiet_datasets():
        datasets.Dataset.from_list(records).save_to_disk(str(path))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "a.json": write_json,
    "a.jsonl": write_jsonl,
    "a.ndjson": write_jsonl,
    "a.csv": write_csv,
    "a.tsv": write_tsv,
    "a.parquet": write_parquet,
    "a.arrow": write_arrow_stream,
    "file.arrow": write_arrow_file,
    "saved": write_saved,
}


def rows(dataset: Any) -> list[Any]:
    return [dataset[position] for position in range(len(dataset))]


# ---------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("small", [True, False], ids=["in_memory", "memory_mapped"])
def test_every_kind_gives_the_same_records(
    name: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 8 << 20 if small else 0)
    WRITERS[name](tmp_path / name, RECORDS)
    dataset = load_dataset_file(tmp_path / name)
    assert rows(dataset) == RECORDS
    if not small:
        assert isinstance(dataset.data, datasets.table.MemoryMappedTable)


# what UTF-8 cannot hold, and a NUL byte, no CSV or JSON lines file holds
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    min_size=2,
    max_size=8,
)


@pytest.mark.parametrize("name", WRITERS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=TEXTS)
def test_texts_survive_every_kind(
    name: str, texts: list[str], tmp_path_factory: pytest.TempPathFactory
):
    if name == "a.tsv":
        # with a tab and a line break in quotes, it is unclear whether the quotes are text
        texts = [text if "\n" not in text else text.replace("\t", " ") for text in texts]
    path = tmp_path_factory.mktemp("texts") / name
    WRITERS[name](path, [{"text": text, "other": 0} for text in texts])
    (candidate,) = load_candidates({"a": path}, view="text")
    assert [example["text"] for example in candidate] == texts
    assert list(candidate.views) == [unicodedata.normalize("NFC", text) for text in texts]
    assert candidate.sha256 == Candidate("b", texts).sha256


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(JSON_VALUES, min_size=2, max_size=6))
def test_no_json_value_of_another_field_stops_the_loading(
    values: list[Any], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("values") / "a.jsonl"
    lines = [json.dumps({"text": f"t{i}", "other": v}) + "\n" for i, v in enumerate(values)]
    path.write_text("".join(lines))
    read = rows(load_dataset_file(path))
    assert [row["text"] for row in read] == [f"t{i}" for i in range(len(values))]
    if not any(isinstance(value, dict | list) for value in values):
        assert [row["other"] for row in read] == values


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.text(max_size=30), min_size=2, max_size=20),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
)
def test_a_json_list_is_the_same_in_chunks_of_any_size(
    texts: list[str], chunk: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("chunks") / "a.json"
    records = [{"t": text, "x": [1.5, -2e-7, None, True, 10**12]} for text in texts]
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "_CHUNK_BYTES", chunk)
        assert [row.fields for row in json_reader.read_json(path)] == records


def test_a_list_of_texts_has_the_field_text(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["x", "y"]))
    assert rows(load_dataset_file(path)) == [{"text": "x"}, {"text": "y"}]


def test_an_object_of_texts_has_key_and_text_and_the_text_is_its_view(tmp_path: Path):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"17": "Find a recipe.", "4": "Find a song."}))
    (candidate,) = load_candidates(path)
    assert candidate[0] == {"key": "17", "text": "Find a recipe."}
    assert list(candidate.views) == ["Find a recipe.", "Find a song."]


def test_json_lines_under_the_suffix_json(tmp_path: Path):
    path = tmp_path / "a.json"
    write_jsonl(path, RECORDS)
    assert rows(load_dataset_file(path)) == RECORDS


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path):
    for name in ("a.json", "a.jsonl", "a.csv"):
        path = tmp_path / name
        WRITERS[name](path, [{"text": "x"}, {"text": "y"}])
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + content)
        assert rows(load_dataset_file(path)) == [{"text": "x"}, {"text": "y"}]


def test_a_lone_surrogate_keeps_the_record_and_becomes_a_replacement_in_the_view(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "cut \\ud83d"}\n{"text": "joined \\ud83c\\udf89"}\n')
    (candidate,) = load_candidates(path)
    assert candidate[0]["text"] == "cut \ud83d"
    assert list(candidate.views) == ["cut \ufffd", "joined 🎉"]


# -------------------------------------------------------------------------- fields that vary


def test_a_field_of_mixed_types_keeps_each_value(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    values = [1, "two", None, {"three": [3]}, 2**80]
    path.write_text("".join(json.dumps({"text": "t", "id": value}) + "\n" for value in values))
    assert [row["id"] for row in rows(load_dataset_file(path))] == values


def test_types_that_change_after_the_first_batch_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    path = tmp_path / "a.jsonl"
    records: list[dict[str, Any]] = [{"text": f"{i}", "x": 1, "y": None} for i in range(2500)]
    records[1500] |= {"x": 2.5, "y": {"a": 1}}
    records[2400] |= {"z": "late", "y": {"b": "c"}}
    write_jsonl(path, records)
    dataset = load_dataset_file(path)
    assert len(dataset) == 2500
    assert dataset[1500] == {"text": "1500", "x": 2.5, "y": {"a": 1}, "z": None}
    assert dataset[2400] == {"text": "2400", "x": 1, "y": {"b": "c"}, "z": "late"}
    assert isinstance(dataset[2400]["x"], int)


def test_a_record_that_lacks_a_field_has_none_there(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, [{"text": "a", "n": 1}, {"text": "b"}])
    assert rows(load_dataset_file(path))[1] == {"text": "b", "n": None}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["1", "-2", ""], [1, -2, None]),
        (["1.5", "2", "1e-3"], [1.5, 2.0, 0.001]),
        (["007", "1", "2"], ["007", "1", "2"]),
        (["NA", "null", ""], ["NA", "null", ""]),
        (["", "", ""], ["", "", ""]),
        (["-", "1", "2"], ["-", "1", "2"]),
        (["e5", "1", "2"], ["e5", "1", "2"]),
        (["99999999999999999999", "1", "2"], ["99999999999999999999", "1", "2"]),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["9007199254740992", "0.5"], [2.0**53, 0.5]),
        (["0.1000000000000000055511", "1"], ["0.1000000000000000055511", "1"]),
        (["1512085950.000216", "1512085950.000217"], [1512085950.000216, 1512085950.000217]),
        (["3.1", "3.10"], ["3.1", "3.10"]),
        (["3.10", "3"], ["3.10", "3"]),
        (["2.50", "1.25"], [2.5, 1.25]),
        (["1.0", "2.5", "3.25"], [1.0, 2.5, 3.25]),
        (["12e3", "45"], ["12e3", "45"]),
        (["1.2e3", "4e-05", "1E+16"], [1200.0, 4e-5, 1e16]),
        (["1e+400", "1"], ["1e+400", "1"]),
        (["1.5e-400", "1"], ["1.5e-400", "1"]),
        (["-0", "1"], [-0.0, 1.0]),
        (["-0.5", ".5"], [-0.5, 0.5]),
        (["1_000", "1"], ["1_000", "1"]),
        (["١", "1"], ["١", "1"]),
        (["+1", "1"], ["+1", "1"]),
        (["1,5", "2"], ["1,5", "2"]),
        ([" 1", "2"], [" 1", "2"]),
        (["nan", "1"], ["nan", "1"]),
        (["0x1f", "1"], ["0x1f", "1"]),
        (["True", "False", ""], ["True", "False", ""]),
    ],
)
def test_csv_columns_are_numbers_only_if_all_values_are(
    column: list[str], expected: list[Any], tmp_path: Path
):
    path = tmp_path / "a.csv"
    write_csv(path, [{"text": "t", "x": value} for value in column])
    assert [row["x"] for row in rows(load_dataset_file(path))] == expected


def test_the_view_of_a_csv_is_text_even_if_it_looks_like_numbers(tmp_path: Path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"code": "007", "n": "1"}, {"code": "12", "n": "2"}])
    (by_n,) = load_candidates(path, view="n")
    assert list(by_n.views) == ["1", "2"]


@pytest.mark.parametrize("more", [[], [{"task": "buy air", "price": "n/a"}]])
def test_a_view_of_several_csv_fields_does_not_depend_on_other_rows(
    more: list[dict[str, str]], tmp_path: Path
):
    path = tmp_path / "a.csv"
    write_csv(
        path, [{"task": "buy tea", "price": "2.50"}, {"task": "buy milk", "price": "1.25"}, *more]
    )
    view = fields_view("task", "price")
    expected = ['{"task": "buy tea", "price": "2.50"}', '{"task": "buy milk", "price": "1.25"}']
    assert list(load_candidates([path], view=view)[0].views)[:2] == expected
    assert list(load_real(path, view=view).views)[:2] == expected


def test_a_csv_field_may_be_longer_than_the_limit_of_the_csv_module(tmp_path: Path):
    path = tmp_path / "a.csv"
    limit = csv.field_size_limit()
    write_csv(path, [{"text": "x" * 200_000}, {"text": "y"}])
    assert len(rows(load_dataset_file(path))[0]["text"]) == 200_000
    assert csv.field_size_limit() == limit


# ------------------------------------------------------------------------------ memory and cache


def test_a_large_file_is_memory_mapped_and_not_kept_in_memory(tmp_path: Path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for i in range(200_000):
            file.write(f'{{"question": "Question {i} {"word " * 60}", "n": {i}}}\n')
    size = path.stat().st_size
    assert size > 60e6
    load_real([{"question": "a"}, {"question": "b"}])  # imports are not what is measured
    before = private_bytes()
    (candidate,) = load_candidates(path, view="question")
    assert candidate.views[199_999].startswith("Question 199999 ")
    grown = private_bytes() - before
    assert isinstance(candidate.dataset.data, datasets.table.MemoryMappedTable)  # type: ignore[attr-defined]
    assert grown < 0.5 * size


def private_bytes() -> int:
    """Memory of this process that is backed by no file."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if "RssAnon" in line)


def test_a_conversion_is_done_once_and_again_when_the_file_has_changed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    path = tmp_path / "a.json"
    write_json(path, [{"text": "a"}, {"text": "b"}])
    first = load_dataset_file(path)
    (converted,) = (cache / "tables").iterdir()
    stamp = converted.stat().st_mtime_ns
    load_dataset_file(path)
    assert converted.stat().st_mtime_ns == stamp
    write_json(path, [{"text": "c"}, {"text": "d"}])
    os.utime(path, ns=(stamp + 10**9, stamp + 10**9))
    assert rows(load_dataset_file(path))[0] == {"text": "c"}
    assert first[0] == {"text": "a"}  # what is open stays what it was


def test_a_failed_conversion_leaves_nothing_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        load_dataset_file(path)
    assert list((cache / "tables").iterdir()) == []


def test_no_place_to_write_at_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    monkeypatch.setenv("SYNQUE_CACHE", str(blocked))
    monkeypatch.setattr(cache_dir, "_temporary_root", lambda: blocked / "nor here")
    write_json(tmp_path / "a.json", RECORDS)
    with pytest.raises(DataError, match=r"neither .* can be written .*; set SYNQUE_CACHE"):
        load_dataset_file(tmp_path / "a.json")


def test_loading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for name, write in WRITERS.items():
        write(tmp_path / name, RECORDS)
        load_dataset_file(tmp_path / name)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    assert not datasets.utils.are_progress_bars_disabled()  # left as it was


# -------------------------------------------------------------------------------------- sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    write_json(data / "b.json", RECORDS)
    write_csv(data / "a.csv", RECORDS)
    (data / "README.md").write_text("not data")
    (data / ".hidden.json").write_text("not data")
    return data


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_a_folder_and_a_glob_give_one_candidate_a_file(folder: Path):
    assert names(load_candidates(folder, view="question")) == ["a", "b"]
    assert names(load_candidates(str(folder / "*.json"), view="question")) == ["b"]
    assert names(load_candidates(str(folder / "[ab].*"), view="question")) == ["a", "b"]
    assert names(load_candidates(str(folder / "**" / "*.csv"), view="question")) == ["a"]


def test_a_list_keeps_its_order_and_may_mix_kinds(folder: Path):
    torch_dataset = torch.utils.data.TensorDataset(torch.zeros(3, 3, 4, 4))
    text = datasets.Dataset.from_dict({"question": ["x", "y"]})
    candidates = load_candidates([folder / "b.json", folder / "a.csv", text], view="question")
    assert names(candidates) == ["b", "a", "candidate_3"]
    (image,) = load_candidates(torch_dataset, view=0)
    assert (image.name, image.modality, len(image)) == ("candidate_1", "image", 3)


def test_a_mapping_names_its_candidates(folder: Path):
    candidates = load_candidates(
        {
            "file": folder / "b.json",
            "glob": str(folder / "*.csv"),
            "records": RECORDS,
            "dataset": datasets.Dataset.from_list(RECORDS),
        },
        view="question",
        label="n",
    )
    assert names(candidates) == ["file", "glob", "records", "dataset"]
    assert len({candidate.sha256 for candidate in candidates}) == 1
    assert {candidate.label for candidate in candidates} == {"n"}


def test_names_replace_those_of_the_files(folder: Path):
    assert names(load_candidates(folder, view="question", names=["x", "y"])) == ["x", "y"]
    with pytest.raises(ConfigError, match="one name for each of the 2 candidates"):
        load_candidates(folder, view="question", names=["x"])


def test_candidates_pass_through_as_they_are():
    a, b = Candidate("a", ["x", "y"]), Candidate("b", [{"t": "x", "u": "z"}] * 2, view="t")
    assert load_candidates([a, b]) == [a, b]
    assert load_candidates([a, b])[0] is a
    (renamed,) = load_candidates({"c": a})
    assert (renamed.name, renamed.dataset) == ("c", a.dataset)
    (kept,) = load_candidates([b], view="u")  # its own view is never thrown away
    assert kept is b
    c = Candidate("c", [{"t": "x"}] * 2)
    (other,) = load_candidates([c], view=lambda record: record["t"] * 2)
    assert other.views[0] == "xx"
    real = RealSample("real", [{"t": "x", "u": "z"}] * 2, view="t")
    assert load_real(real, view="u") is real


def test_a_view_may_be_a_function(folder: Path):
    (candidate,) = load_candidates(folder / "b.json", view=lambda row: f"{row['n']}!")
    assert list(candidate.views) == ["1!", "2!", "-3!"]


def test_functions_by_their_dotted_names(folder: Path):
    (candidate,) = load_candidates(folder / "b.json", view="json.dumps", label="builtins.len")
    assert candidate.views[1] == json.dumps(candidate[1])
    assert (candidate.view, candidate.selector, candidate.label) == (json.dumps, json.dumps, len)
    with pytest.raises(DataError, match=r"b\.json.*no field 'json\.dump_s' and no such function"):
        load_candidates(folder / "b.json", view="json.dump_s")


def test_the_real_sample_from_each_kind_of_source(folder: Path):
    sample = load_real(folder / "b.json", view="question")
    assert isinstance(sample, RealSample)
    assert sample.name == "b"
    assert load_real(sample) is sample
    assert load_real([str(folder / "b.json")], view="question").sha256 == sample.sha256
    assert load_real(str(folder / "*.json"), view="question").sha256 == sample.sha256
    assert load_real(RECORDS, view="question").sha256 == sample.sha256
    assert load_real(Candidate("c", RECORDS, view="question")).sha256 == sample.sha256
    assert load_real(["one", "two"]).name == "real"


def test_the_real_sample_is_one(folder: Path):
    with pytest.raises(ConfigError, match=r"matches 2 .*allowed is one"):
        load_real(str(folder / "[ab].*"), view="question")
    with pytest.raises(ConfigError, match="found a mapping"):
        load_real({"a": RECORDS})


def test_a_saved_dataset_is_one_candidate(tmp_path: Path):
    write_saved(tmp_path / "data" / "a", RECORDS)
    write_saved(tmp_path / "data" / "b", RECORDS)
    assert names(load_candidates(tmp_path / "data", view="question")) == ["a", "b"]
    assert names(load_candidates(tmp_path / "data" / "a", view="question")) == ["a"]


def test_a_file_in_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder))
    assert names(load_candidates("~/b.json", view="question")) == ["b"]
    assert names(load_candidates("~/*.json", view="question")) == ["b"]


def test_a_path_with_glob_characters_that_exists_is_that_path(folder: Path):
    (folder / "b.json").rename(folder / "b[1].json")
    assert names(load_candidates(str(folder / "b[1].json"), view="question")) == ["b[1]"]


# --------------------------------------------------------------------------------------- images


def image_file(path: Path, value: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 5), value, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for number, name in enumerate(["cat/1.png", "cat/2.JPG", "dog/deep/1.png", "dog/.no.png"]):
        image_file(tmp_path / "gen" / name, number)
    (tmp_path / "gen" / "notes.txt").write_text("not an image")
    return tmp_path / "gen"


def test_class_folders_give_a_label(classes: Path):
    dataset = load_dataset_file(classes)
    assert [row["label"] for row in rows(dataset)] == ["cat", "cat", "dog"]
    assert dataset[2]["image"].size == (5, 6)


def test_a_flat_folder_has_no_label(tmp_path: Path):
    for name in ("b.png", "a.png"):
        image_file(tmp_path / "flat" / name, ord(name[0]), "L")
    (candidate,) = load_candidates(tmp_path / "flat")
    assert (candidate.name, candidate.modality, candidate.label) == ("flat", "image", None)
    assert set(candidate[0]) == {"image"}
    assert [view.getpixel((0, 0)) for view in candidate.views] == [ord("a"), ord("b")]


def test_a_folder_of_folders_is_one_candidate_each_alone_and_one_among_others(classes: Path):
    image_file(classes.parent / "other" / "cat" / "1.png")
    image_file(classes.parent / "other" / "cat" / "2.png")
    parent = classes.parent
    assert names(load_candidates(parent)) == ["gen", "other"]
    assert names(load_candidates(str(parent / "*"))) == ["gen", "other"]
    assert names(load_candidates([parent / "gen", parent / "other"])) == ["gen", "other"]
    gen = load_candidates(parent)[0]
    assert (len(gen), gen.label) == (3, "label")
    (named,) = load_candidates({"x": classes})
    assert len(named) == 3


def test_images_are_decoded_when_they_are_asked_for_and_a_broken_one_is_named(classes: Path):
    whole = (classes / "cat" / "1.png").read_bytes()
    (classes / "dog" / "deep" / "1.png").write_bytes(whole[:45])
    (classes / "dog" / "deep" / "2.png").write_bytes(b"no image")
    (candidate,) = load_candidates({"a": classes})
    assert candidate.views[0].mode == "RGB"
    for position, name in ((2, "1.png"), (3, "2.png")):
        with pytest.raises(DataError, match=rf"example {position} .*{name}.*cannot be decoded"):
            candidate.views[position]


def test_labels_of_class_folders_are_read_without_the_images(classes: Path):
    (classes / "dog" / "deep" / "1.png").write_bytes(b"no image")
    (candidate,) = load_candidates({"a": classes})
    assert candidate.labels == ("cat", "cat", "dog")
    with pytest.raises(DataError, match="cannot be decoded"):
        _ = candidate[2]


def test_a_broken_first_image_is_named_when_it_is_loaded(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(b"no image")
    image_file(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"1\.png: the image cannot be decoded"):
        load_real(tmp_path)


def test_the_mode_is_the_files_and_the_orientation_is_applied(tmp_path: Path):
    image = Image.new("L", (8, 4), 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    image.save(tmp_path / "1.jpg", exif=exif)
    image_file(tmp_path / "2.png", mode="P")
    views = list(load_real(tmp_path).views)
    assert [(view.mode, view.size) for view in views] == [("L", (4, 8)), ("P", (5, 6))]


def test_images_beside_class_folders_are_refused(classes: Path):
    image_file(classes / "1.png")
    with pytest.raises(DataError, match=r"1\.png, ….* beside sub-folders with images"):
        load_dataset_file(classes)


def test_a_folder_without_images_says_what_is_known(tmp_path: Path):
    with pytest.raises(DataError, match=r"the folder is empty$"):
        load_dataset_file(tmp_path)
    with pytest.raises(DataError, match="no candidate in it"):
        load_candidates(tmp_path)


def test_one_image_is_no_dataset(classes: Path):
    with pytest.raises(DataError, match=r"one image; allowed is the folder of images, .*cat"):
        load_candidates(classes / "cat" / "1.png")


# ----------------------------------------------------------------------------------- bad input


BROKEN_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.json", b"", r"a\.json: the file is empty"),
    "no records": ("a.json", b"[]", r"a\.json: the file contains no examples"),
    "white space": ("a.jsonl", b" \n\n", r"a\.jsonl: the file contains no examples"),
    "json syntax": ("a.json", b'[\n{"a": 1},\n{"a" 2}]', r"a\.json, line 3: not JSON: Expecting"),
    "json cut": ("a.json", b'[{"a": "x"},\n{"a": "y', r"line 2: not JSON: Unterminated string"),
    "json list cut": ("a.json", b'[{"a": "x"}', r"expected ',' or '\]' \(the file ends here"),
    "json empty list item": ("a.json", b'["x",,"y"]', r"line 1: not JSON: Expecting value"),
    "json trailing": ("a.json", b'["x"]\n["y"]', r"line 2: not JSON: found text after the end"),
    "json number": ("a.json", b"17", r"a\.json: found a number; allowed is a list of records"),
    "json object of numbers": ("a.json", b'{"a": "x",\n"b": 2}', r"line 2: found a number under "),
    "json object of lists": ("a.json", b'{"data": [{"a": 1}]}', r"found a list under the key 'da"),
    "json key": ("a.json", b'{"a": "x", b: 1}', r"expected a key in double quotes"),
    "json colon": ("a.json", b'{"a" "x"}', r"expected ':'"),
    "json mixed": ("a.json", b'[{"a": 1},\n\n"x"]', r"line 3: found a text after an object"),
    "json item": ("a.json", b'[{"a": 1},\n3]', r"line 2: found a number; allowed is a record or"),
    "json nul": ("a.json", b'["x",\n"\0"]', r"line 2: found a NUL byte"),
    "json latin-1": ("a.json", b'["x",\n"caf\xe9"]', r"line 2: not UTF-8 \(byte 0xe9\)"),
    "json depth": ("a.json", b"[" * 100_000, r"a\.json, line 1: not JSON"),
    "json digits": (
        "a.json",
        b'["x", ' + b"9" * 5000 + b"]",
        r"line 1: found a number of 5,000 digits",
    ),
    "jsonl syntax": ("a.jsonl", b'{"a": 1}\n\n{"a":\n', r"a\.jsonl, line 3, column 7: not JSON"),
    "jsonl list": ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: found a list; allowed is a record"),
    "jsonl null": ("a.jsonl", b"null\n", r"line 1: found null; allowed is a record or a text"),
    "jsonl nul": ("a.jsonl", b'{"a": 1}\n{"a": "\0"}', r"a\.jsonl, line 2: found a NUL byte"),
    "jsonl utf-16": (
        "a.jsonl",
        '{"a": 1}'.encode("utf-16"),
        r"line 1: found a NUL byte \(is .* UTF-16",
    ),
    "jsonl latin-1": ("a.jsonl", b'{"a": 1}\n{"a": "\xfc"}', r"line 2: not UTF-8 \(byte 0xfc\)"),
    "csv ragged": ("a.csv", b"a,b\n1,2\n\n1,2,3\n", r"a\.csv, line 4: found 3 fields, but the hea"),
    "csv quote": ("a.csv", b'a,b\nx,"y\nz', r"the row that starts on line 2: unexpected end of da"),
    "csv after quote": ("a.csv", b'a,b\n"x"y,z\n', r"starts on line 2: ',' expected after '\"'"),
    "csv header": ("a.csv", b"a,b,a\n1,2,3\n", r"line 1: the header repeats 'a'"),
    "csv header only": ("a.csv", b"a,b\n", r"a\.csv: the file contains no examples"),
    "csv latin-1": ("a.csv", b"a\nx\n\xe9\n", r"a\.csv, line 3: not UTF-8"),
    "csv nul": ("a.csv", b"a\nx\n\0\n", r"a\.csv, line 3: found a NUL byte"),
    "parquet": ("a.parquet", b"PAR1 no parquet", r"a\.parquet: the file is broken: "),
    "arrow": ("a.arrow", b"no arrow at all", r"a\.arrow: cannot be read as a table: "),
    "arrow file": ("a.arrow", b"ARROW1\0\0 cut", r"a\.arrow: the file is broken: "),
    "suffix": ("a.xlsx", b"PK", r"the suffix '\.xlsx' is not known; allowed are \.arrow, "),
    "pickle": ("a.pkl", b"\x80\x04", r"the suffix '\.pkl' is not known"),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_a_broken_file_is_one_clear_error(case: str, tmp_path: Path):
    name, content, message = BROKEN_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset_file(tmp_path / name)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(min_size=1, max_size=60), name=st.sampled_from(sorted(WRITERS)[:-1]))
def test_any_bytes_are_data_or_a_data_error(
    content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    with contextlib.suppress(DataError):  # anything else is a failure
        assert len(load_dataset_file(path)) > 0


def test_a_missing_file_says_what_there_is(folder: Path):
    with pytest.raises(DataError, match=r"c\.json: no such file or folder; .*data holds .*a\.csv"):
        load_candidates(folder / "c.json")
    with pytest.raises(DataError, match=r"c\*\.json: no file or folder matches; .*data holds"):
        load_candidates(str(folder / "c*.json"))
    with pytest.raises(DataError, match="nor is there a folder"):
        load_dataset_file(folder / "none" / "c.json")


def test_a_missing_field_says_which_exist(folder: Path):
    with pytest.raises(DataError, match=r"b\.json.*no field 'qestion'; did you mean 'question'"):
        load_candidates(folder / "b.json", view="qestion")
    with pytest.raises(DataError, match=r"no field 'label'.*there are: n, question"):
        load_candidates(folder / "b.json", view="question", label="label")


@pytest.mark.parametrize("write", [write_json, write_jsonl])
@pytest.mark.parametrize("position", [0, 2])
def test_a_field_that_a_record_lacks_says_which_it_has(tmp_path: Path, write: Any, position: int):
    records: list[dict[str, Any]] = [{"text": "x", "n": i} for i in range(4)]
    records[position] = {"headline": "y", "n": 3}
    write(tmp_path / "a.json", records)
    message = r"a\.json.*found nothing \(None\); fields with a value: (n, headline|headline, n)$"
    with pytest.raises(DataError, match=message):
        list(load_candidates(tmp_path / "a.json", view="text")[0].views)


def test_no_view_and_a_choice_asks_for_one(tmp_path: Path):
    write_json(tmp_path / "a.json", [{"q": "x", "a": "y"}] * 2)
    with pytest.raises(ConfigError, match=r"a\.json.*choose one of 'q', 'a'"):
        load_candidates(tmp_path / "a.json")


def test_fewer_than_two_examples(tmp_path: Path):
    write_json(tmp_path / "a.json", RECORDS[:1])
    with pytest.raises(DataError, match=r"a\.json\): 1 example; at least 2 are required"):
        load_candidates(tmp_path / "a.json")


def test_a_view_that_is_no_text_in_some_row_names_the_row(tmp_path: Path):
    for value, kind in ((None, "nothing"), (7, "int"), (["x"], "list")):
        path = tmp_path / f"{kind}.jsonl"
        lines = [json.dumps({"text": text}) + "\n" for text in ("a", "b", value)]
        path.write_text("".join(lines))
        (candidate,) = load_candidates(path, view="text")
        message = rf"{kind}\.jsonl\), example 2 \(counted from 0\): expected a text, found {kind}"
        with pytest.raises(DataError, match=message):
            list(candidate.views)
        with pytest.raises(DataError, match=message):
            candidate.views[2]


def test_two_files_of_one_name_and_one_stem_have_their_suffix(folder: Path):
    write_json(folder / "a.json", RECORDS)
    assert names(load_candidates(folder, view="question")) == ["a.csv", "a.json", "b"]
    same = Candidate("a", ["x", "y"])
    with pytest.raises(ConfigError, match=r"2 are named 'a' \(.*a\.csv, a dataset\).*names="):
        load_candidates([folder / "a.csv", same], view="question")


def test_mixed_modalities(folder: Path, classes: Path):
    with pytest.raises(ConfigError, match=r"texts and images are mixed: the view of b .*gen"):
        load_candidates({"b": folder / "b.json", "gen": classes}, view=first_value)


def first_value(example: dict[str, Any]) -> Any:
    return next(iter(example.values()))


@pytest.mark.parametrize("source", [[], [RECORDS, RECORDS], [{"text": "a"}, {"text": "b"}]])
def test_a_list_of_records_without_a_name(source: list[Any]):
    with pytest.raises(ConfigError, match=r"candidates: found an? "):
        load_candidates(source)


def test_something_that_is_no_dataset():
    with pytest.raises(DataError, match="an object of type int has no length"):
        load_candidates({"a": 3})  # type: ignore[dict-item]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_hub_id_that_cannot_be_reached_says_what_was_tried(
    no_hub: None, monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    message = (
        r"owner/name: no such file or folder, and the Hub dataset 'owner/name' could not be "
        r"loaded: Couldn't reach 'owner/name' on the Hub$"
    )
    with pytest.raises(DataError, match=message):
        load_candidates("owner/name")
    with pytest.raises(DataError, match=r"^hub:imdb: the Hub dataset 'imdb' could not"):
        load_real("hub:imdb")


def test_without_a_network_the_hub_is_asked_once(no_hub: None, caplog: pytest.LogCaptureFixture):
    """The client's own retries took 23 s, and a warning each."""
    import huggingface_hub.constants as constants

    start = time.monotonic()
    with pytest.raises(DataError, match=r"hub:some/one: the Hub dataset 'some/one' could not"):
        load_real("hub:some/one")
    assert time.monotonic() - start < 8
    assert not caplog.records
    assert constants.HF_HUB_OFFLINE is False


def test_a_mistyped_path_is_not_asked_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match="data/missing: no such file or folder; data holds"):
        load_candidates("data/missing")


def test_a_hub_dataset_gives_its_train_split(no_hub: None, monkeypatch: pytest.MonkeyPatch):
    data = datasets.Dataset.from_list(RECORDS)
    hub = {"owner/a": {"test": data, "train": data}, "owner/b": {"x": data, "y": data}}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(hub[name]))
    (candidate,) = load_candidates("owner/a", view="question")
    assert (candidate.name, candidate.source, len(candidate)) == ("a", "hub:owner/a", 3)
    with pytest.raises(DataError, match="has the splits x, y; give one with split="):
        load_candidates("owner/b", view="question")


# ------------------------------------------------------------------------------------ real data

BENCHMARK = os.environ.get("SYNQUE_BENCHMARK_DATA")
TASKS = {
    "sentiment": ("sentiment_analysis/synthetic_data/*.json", "headline", 32, 999),
    "text2sql": ("text2sql/data/app_store/*.json", "question", 8, 1000),
    "text2sql folder": ("text2sql/data/movie_platform", "question", 8, 1000),
    "web": ("web_agent/original/synthetic/*site=github_*.json", None, 5, 71),
}


@pytest.mark.skipif(not BENCHMARK, reason="SYNQUE_BENCHMARK_DATA does not point at the benchmark")
@pytest.mark.parametrize("task", TASKS)
def test_the_released_benchmark_loads(task: str):
    source, view, n_candidates, n_examples = TASKS[task]
    candidates = load_candidates(f"{BENCHMARK}/{source}", view=view)
    assert len(candidates) == n_candidates
    assert {len(candidate) for candidate in candidates} == {n_examples}
    assert all(len(list(candidate.views)) == n_examples for candidate in candidates)


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.field("name", pa.string())), pa.struct([pa.field("name", pa.string())])],
    ids=["list", "struct"],
)
def test_a_nested_name_that_is_not_utf8_is_an_error_that_names_the_column(
    type_: pa.DataType, tmp_path: Path
):
    """That of a list is read only when `datasets` copies the table, long after the file."""
    path, sink = tmp_path / "s.arrow", pa.BufferOutputStream()
    table = pa.table({"text": ["u", "v"], "tags": pa.nulls(2, type_)})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(sink.getvalue().to_pybytes().replace(b"name", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(DataError, match="the column 'tags' has the type"):
        load_dataset_file(path)
