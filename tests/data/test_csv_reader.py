"""Tables of text: TSV is read without CSV's quotes unless it was written with them."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.data import load_candidates, load_dataset_file, tables
from synque_select.data.label_sets import label_text
from synque_select.data.views import fields_view
from synque_select.errors import DataError

LINES = [
    "stocks climb after report",
    '"big day for the bank',
    "oil prices fall",
    "shares of the firm sink",
    'we did it"',
    '"Never," she said',
    'a 19" screen',
    '"quoted as a whole"',
    "'single",
    "back\\tslash",
]


def read(path: Path) -> list[dict[str, Any]]:
    dataset = load_dataset_file(path)
    return [dataset[position] for position in range(len(dataset))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_of_a_tsv_are_text(end: str, tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel" + end + "".join(f"{text}\t1{end}" for text in LINES), newline="")
    assert read(path) == [{"text": text, "label": 1} for text in LINES]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize(
    "texts",
    [
        ['He said: "up", then\nleft', "plain", '"'],
        ["a\tb", "c"],
        ['say "so"', "c"],
        ["two\nlines", "c"],
    ],
)
def test_a_tsv_that_was_written_with_quotes(texts: list[str], quoting: Any, tmp_path: Path):
    path = tmp_path / "a.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=quoting)
        writer.writerows([["text", "label"], *([text, "x"] for text in texts)])
    assert read(path) == [{"text": text, "label": "x"} for text in texts]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tn\na\tb\tc\n", "line 2: found 3 fields, but the header has 2; in a tab-separated"),
        ('text\tn\n"big day\t1\noil falls\nwe did it"\t1\n', "line 2: text in double quotes spans"),
        ('text\tn\n"big day\t1\noil falls\n', "line 3: found 1 field, but the header has 2"),
        ("text\ttext\na\tb\n", "line 1: the header repeats 'text'"),
        ("text\tn\n", "the file contains no examples"),
    ],
)
def test_a_tsv_that_cannot_be_read(content: str, message: str, tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"^{path}(, |: ){message}"):
        load_dataset_file(path)


def test_identifiers_of_19_digits_stay_different(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1234567890123456789,up\n1234567890123456790,down\n")
    assert [row["id"] for row in read(path)] == [1234567890123456789, 1234567890123456790]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "sep=,\ntext,n\nup,1\ndown,2\n"),
        ("a.csv", "\ufeffsep=;\r\ntext;n\r\nup;1\r\ndown;2\r\n"),
        ("a.csv", '"sep=|"\ntext|n\nup|1\ndown|2\n'),
        ("a.csv", "sep=\t\ntext\tn\nup\t1\ndown\t2\n"),
        ("a.tsv", "sep=;\ntext;n\nup;1\ndown;2\n"),
    ],
)
def test_a_first_line_names_the_delimiter(name: str, content: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(content, newline="")
    assert read(path) == [{"text": "up", "n": 1}, {"text": "down", "n": 2}]


def test_lines_are_counted_with_the_one_that_names_the_delimiter(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\ntext;n\nup;1\ndown\n")
    with pytest.raises(DataError, match="line 4: found 1 field, but the header has 2"):
        load_dataset_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text;n\nup;1\ndown;2\n",
            "line 1: the header is one field, 'text;n'; are .* ';'",
        ),
        ("a.csv", "text\tn\nup\t1\n", r"line 1: the header is one field, 'text\\tn'"),
        ("a.csv", "text,n\rup,1\rdown,2\r", r"the lines end with \\r alone, as on old Macs"),
        ("a.tsv", "text\rup\rdown\r", r"the lines end with \\r alone"),
        ("a.jsonl", '{"text": "up"}\r{"text": "down"}\r', r"the lines end with \\r alone"),
        ("a.csv", "text,n\nu\rp,1\ndown,2\n", r"starts on line 2: found a line end \\r alone"),
        ("a.csv", "\ufeff\ufefftext,n\nup,1\n", "line 1: found a byte order mark"),
        ("a.csv", "\ufefftext,n\nup,1\n\ufefftext,n\nup,2\n", "line 3: found a byte order mark"),
        ("a.jsonl", '{"text": "up"}\n\ufeff{"text": "down"}\n', "line 2: found a byte order mark"),
        ("a.csv", "text,n\nu\0p,1\n", "line 2: found a NUL byte"),
    ],
)
def test_tables_of_other_programs(name: str, content: str, message: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(content, newline="")
    with pytest.raises(DataError, match=message):
        load_dataset_file(path)


def test_a_text_may_begin_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text,n\n\ufeffup,1\na;b,2\n")
    assert [row["text"] for row in read(path)] == ["\ufeffup", "a;b"]
    path.write_text("a;b\none; two; three\nup\n")
    assert [row["a;b"] for row in read(path)] == ["one; two; three", "up"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("NaN", "found NaN, which is not a number in JSON; write null"),
        ("-Infinity", "found -Infinity, which is not"),
        ("1e400", "found 1e400, which is too large"),
        ('[1, {"a": -1e999}]', "found -1e999, which is too large"),
        ("9" * 400 + ".5", "found 99999999999999999999…, which is too large"),
        ("1234567890123456789.0", "found 1234567890123456789.…, whose digits a number with a"),
        ("9007199254740993.0", "found 9007199254740993.0, whose digits"),
        ("1.2345678901234567891e18", "found 1.234567890123456789…, whose digits"),
        ("-" + "9" * 5000, "found a number of 5,000 digits; allowed are 4,300"),
    ],
    ids=lambda value: value[:12],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_numbers_that_json_does_not_have_name_the_field(
    number: str, message: str, name: str, tmp_path: Path
):
    path = tmp_path / name
    lines = ['{"text": "a", "x": 1.5e300}', f'{{"text": "b", "x": 1, "y z": {number}}}']
    path.write_text("\n".join(lines) if name == "a.jsonl" else "[" + ",\n".join(lines) + "]")
    with pytest.raises(DataError, match=rf"^{path}, line 2, field 'y z': {message}"):
        load_dataset_file(path)


def test_numbers_that_json_has_stay(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": ' + "9" * 400 + ', "y": 1e308}\n{"x": -0, "y": 1e-999}\n')
    assert read(path) == [{"x": int("9" * 400), "y": 1e308}, {"x": 0, "y": 0.0}]
    # a large number that Python wrote is read back
    path.write_text('{"x": 9007199254740994.0}\n{"x": 1e22}\n')
    assert [row["x"] for row in read(path)] == [9007199254740994.0, 1e22]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("small_bytes", [tables.SMALL_BYTES, 1])
def test_fractions_of_more_than_17_digits_keep_them(
    name: str, small_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", small_bytes)
    texts = ["0.12345678901234567891", "0.12345678901234567892", "1e-400", "1e-401", "0.5"]
    path = tmp_path / name
    lines = [f'{{"text": "t", "x": {text}, "in": [{text}, "a"]}}' for text in texts]
    path.write_text("\n".join(lines) if name == "a.jsonl" else "[" + ",\n".join(lines) + "]")
    records = read(path)
    assert [str(row["x"]) for row in records] == texts
    assert [str(row["in"][0]) for row in records] == texts
    assert [row["x"] for row in records] == [float(text) for text in texts]
    (candidate,) = load_candidates(path, view=fields_view("text", "x"), label="x")
    assert candidate.labels == tuple(texts)
    assert len(set(candidate.views)) == len(texts)


@pytest.mark.parametrize("text", ["0.10000000000000001", "0.50000000000000000000", "-1.5e-07"])
def test_a_fraction_whose_digits_a_float_has_is_a_float(text: str, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"x": {text}}}\n{{"x": 1.5}}\n')
    assert [type(row["x"]) for row in read(path)] == [float, float]


def test_a_record_with_the_key_that_marks_long_numbers_stays(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": {"\\u0000number": "no"}}\n{"x": {"\\u0000number": 1}}\n')
    assert [row["x"] for row in read(path)] == [{"\0number": "no"}, {"\0number": 1}]


@pytest.mark.parametrize(
    "content",
    ['{"text": "the one", "label": "pos"}', '{\n"id": "7",\n"prompt": "a",\n"response": "b"\n}'],
)
def test_one_record_of_json_is_not_read_as_an_example_per_field(content: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"^{path}: found one record, with the fields '"):
        load_dataset_file(path)


def test_an_object_of_texts_may_have_any_keys_among_many(tmp_path: Path):
    path = tmp_path / "a.json"
    words = {
        "text": "what is written",
        "label": "a sticker",
        **dict.fromkeys(map(str, range(30)), "x"),
    }
    path.write_text(json.dumps(words))
    assert read(path)[0] == {"key": "text", "text": "what is written"}
    path.write_text('{"7": "Find a recipe.", "title": "Find a song."}')
    assert [row["key"] for row in read(path)] == ["7", "title"]


CELLS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(["3.10", "3.1", "1e5", "1.5E+10", "-0", ".5", "007", "NA", "x", "-0.0", ""]),
)


@given(st.lists(CELLS, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_the_text_and_the_label_of_a_cell_do_not_depend_on_other_rows(cells: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text", "x"], *(["t", cell] for cell in cells)])
        values = [row["x"] for row in read(path)]
    assert [str(value) for value in values if value not in (None, "")] == [*filter(None, cells)]
    assert list(map(label_text, values)) == list(map(label_text, cells))
    # a batch of tensors needs one type
    assert len({type(value) for value in values if value is not None}) <= 1


@pytest.mark.parametrize("small_bytes", [tables.SMALL_BYTES, 1])
def test_prices_are_numbers_that_keep_their_text(
    small_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", small_bytes)  # 1: converted into the cache
    path = tmp_path / "a.csv"
    path.write_text("text,price\ntea,3.50\nmilk,4.25\nsalt,\n")
    (candidate,) = load_candidates(path, label="price")
    assert candidate.labels == ("3.50", "4.25", "(no label)")
    assert [row["price"] for row in read(path)] == [3.5, 4.25, None]
    shown = load_candidates(path, view=lambda row: f"{row['text']} {row['price']}")[0].views
    assert list(shown) == ["tea 3.50", "milk 4.25", "salt None"]


def test_a_generator_of_rows_keeps_the_texts_of_their_numbers(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text,v\nup,3.10\ndown,3.11\n")
    rows = [dict(row) for row in read(path)]
    view = fields_view("text", "v")
    (candidate,) = load_candidates({"a": iter(rows)}, view=view, label="v")
    assert candidate.labels == ("3.10", "3.11")
    assert candidate.views[0] == '{"text": "up", "v": "3.10"}'
    nested = iter([{"text": "a", "in": {"v": [row["v"]]}} for row in rows])
    (candidate,) = load_candidates({"a": nested}, view="text", label="in.v.0")
    assert candidate.labels == ("3.10", "3.11")


@pytest.mark.parametrize("other", ["3.11", "3.1", "x", "4", "1e400"])
def test_a_version_is_seen_and_labeled_alike_beside_any_other(other: str, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text(f"text,version\nup,3.10\ndown,{other}\n")
    (candidate,) = load_candidates(path, view=lambda row: f"py{row['version']}", label="version")
    assert candidate.views[0] == "py3.10"
    assert candidate.labels[0] == "3.10"
