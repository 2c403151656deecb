"""Arrow's parser is used for JSON Lines only where it gives what reading line by line gives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synque_select.data import json_reader, tables
from synque_select.data.json_reader import JsonLinesReader, JsonReader, read_jsonl
from synque_select.data.json_tables import table_of_lines
from synque_select.errors import DataError

SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "n": pa.int64(),
        "score": pa.float64(),
        "good": pa.bool_(),
        "none": pa.null(),
    }
)
FLOATS = ["0.0", "-0.0", "0.10", "1.5", "0.1234567890123456", "0.00012345678901234567", "1e-05"]
FLOATS += [
    "0.12345678901234567",
    "3.141592653589793",
    "-2.5E-10",
    "1.25e-99",
    "1e-0",
    "123456789012345.6",
]
# integers, long or too large numbers, and what only one of the parsers takes
OTHERS = ["1", "0", "-1", "1e5", "1E+2", "0.123456789012345678", "12345678901234567.5", "1e999"]
OTHERS += ["9007199254740993.0", "1e-400", "NaN", "Infinity", "-Infinity", "Inf", "1.", ".5", "01"]
OTHERS += ["-", "+1", "1.25e-300", "0e-5", "1.5 2", "0.1234567890123456789012", "5e-324"]
TEXTS = [
    '""',
    '"up"',
    '"日本"',
    '"\\u65e5\\ud83d\\ude00"',
    '"\\"score\\": 0.5,"',
    '"}\\n{"',
    '"a\\\\"',
]
TEXTS += ['"\\ud83d"', '"\\udc00"', '"\\u0000"', '"\\/\\b"', '"\\x"', '"2020-01-01"', '"e\u0301"']
TEXTS += ['"a\tb"', '"a\u2028b"', '"\\"score"', "'a'", '"NaN"']
VALUES = [*FLOATS, *OTHERS, *TEXTS, "null", "true", "false", "[]", "{}", '{"score": 0.5}', "[0.5]"]
KEYS = ["text", "n", "score", "good", "none"]
WRITTEN = [*map(json.dumps, KEYS), '"sc\\u006fre"', '"\\"score"', '"other"', '"Text"', "text"]


def of_key(key: str) -> st.SearchStrategy[str]:
    usual = {"text": TEXTS[:7], "n": ["1", "-7", str(2**63 - 1)], "score": FLOATS}
    values = st.sampled_from([*usual.get(key, ["true"] if key == "good" else []), "null"])
    space = st.sampled_from([" ", "", "  "])
    return st.tuples(space, values, space).map(lambda part: f'"{key}":{"".join(part)}')


USUAL = st.sets(st.sampled_from(KEYS)).flatmap(lambda keys: st.tuples(*map(of_key, sorted(keys))))
ODD = st.lists(
    st.tuples(st.sampled_from(WRITTEN), st.sampled_from([":", ": ", " "]), st.sampled_from(VALUES)),
    max_size=3,
).map(lambda parts: ["".join(part) for part in parts])
RECORDS = st.one_of(USUAL, USUAL, USUAL, ODD).map(lambda parts: "{" + ", ".join(parts) + "}")
ENDS = st.sampled_from(["\n"] * 20 + ["\r\n", "\n\n", "\r", "", " ", " \n", "}\n", "\0", "\ufeff"])
LINES = st.lists(st.tuples(RECORDS, ENDS), min_size=1, max_size=6).map(
    lambda lines: "".join(map("".join, lines)).encode()
)


def read(path: Path, *, by_arrow: bool) -> Any:
    """What a file holds, written out so that -0.0, 0 and NaN differ; or what is wrong with it."""
    reader = JsonLinesReader()
    try:
        table = reader.read(path) if by_arrow else tables.table_of_rows(path, read_jsonl)
        return repr(table.column_names), [repr(row) for row in table]
    except DataError as error:
        return str(error)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(json_reader, "_FIRST_BYTES", 40)
    monkeypatch.setattr(json_reader, "_CHUNK_BYTES", 80)


@given(content=LINES)
@settings(max_examples=150, deadline=None)
@example(content=b'{"score": 0.5}\n{"score": 1}\n')
@example(content=b'{"text": "a"} {"text": "b"}\n{"text":\n"c"}\n')
@example(content=b'{"text": "a"} {"text": "b"}\n{"text": "c"}\0}\n{"text": "d"}\n')
@example(content=b'{"score": 0.5}\n{"sc\\u006fre": 1, "text": "\\"score\\": 0.5,"}\n')
@example(content=b'{"score": 0.5}\n{"\\"score": 0.5}\n')
def test_a_table_has_the_values_of_the_lines(content: bytes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "a.jsonl"
    path.write_bytes(content)
    table = table_of_lines(content, SCHEMA)
    if table is not None:
        rows = [{key: row.fields.get(key) for key in KEYS} for row in read_jsonl(path)]
        assert [*map(repr, rows)] == [*map(repr, table.to_pylist())]
        for field, column in zip(SCHEMA, table.columns, strict=True):
            kinds = {"string": str, "int64": int, "double": float, "bool": bool, "null": None}
            assert {type(value) for value in column.to_pylist()} <= {
                kinds[str(field.type)],
                type(None),
            }


@given(start=st.lists(USUAL, min_size=1, max_size=3), content=LINES)
@settings(max_examples=80, deadline=None)
def test_a_file_read_in_blocks_has_the_values_and_errors_of_its_lines(
    start: list[tuple[str, ...]], content: bytes, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / "a.jsonl"
    path.write_bytes("".join("{" + ",".join(line) + "}\n" for line in start).encode() + content)
    assert read(path, by_arrow=True) == read(path, by_arrow=False)


@pytest.mark.parametrize("number", FLOATS)
def test_floats_that_are_exact_are_read_by_arrow(number: str):
    table = table_of_lines(b'{"score": %s}\n{}\n' % number.encode(), SCHEMA)
    assert table is not None
    assert repr(table["score"].to_pylist()) == repr([float(number), None])


@pytest.mark.parametrize("number", OTHERS)
def test_other_numbers_in_a_field_of_floats_are_not(number: str):
    assert table_of_lines(b'{"score": 0.5}\n{"score": %s}\n' % number.encode(), SCHEMA) is None


def test_a_key_that_ends_as_another_does_not_count_for_it():
    schema = pa.schema({"score": pa.float64(), 'x"score': pa.float64()})
    assert table_of_lines(b'{"score": 1, "x\\"score": 0.5}\n', schema) is None


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_that_is_taken_is_the_float_of_its_text(value: float):
    table = table_of_lines(b'{"score": %s}\n' % json.dumps(value).encode(), SCHEMA)
    if table is not None:
        assert repr(table["score"][0].as_py()) == repr(value)
    assert (table is not None) >= (1e-90 < abs(value) < 1e15)


def lines_of(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


RECORDS_READ = [{"text": f"é {i}", "n": i, "score": i / 7, "good": i % 2 == 0} for i in range(40)]


@pytest.fixture
def n_by_arrow(monkeypatch) -> Iterator[list[int]]:
    counts: list[int] = []

    def counted(lines: bytes, schema: pa.Schema) -> pa.Table | None:
        table = table_of_lines(lines, schema)
        counts.append(0 if table is None else table.num_rows)
        return table

    monkeypatch.setattr(json_reader, "table_of_lines", counted)
    return counts


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_usual_files_are_read_by_arrow(end: str, tmp_path: Path, n_by_arrow: list[int]):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(RECORDS_READ).replace("\n", end).removesuffix(end).encode())
    assert list(JsonLinesReader().read(path)) == RECORDS_READ
    assert sum(n_by_arrow) == len(RECORDS_READ) - 1  # all but the first block
    path = path.rename(tmp_path / "a.json")
    assert list(JsonReader().read(path)) == RECORDS_READ
    assert sum(n_by_arrow) == 2 * len(RECORDS_READ) - 2


def test_of_a_small_file_less_is_read_line_by_line(
    tmp_path: Path, n_by_arrow: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_reader, "_FIRST_BYTES", 1 << 14)
    monkeypatch.setattr(json_reader, "_CHUNK_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of(RECORDS_READ * 25))  # 1,000 lines, 60 KB
    assert list(JsonLinesReader().read(path)) == RECORDS_READ * 25
    assert sum(n_by_arrow) > 950


def test_one_unusual_row_costs_its_own_block_only(tmp_path: Path, n_by_arrow: list[int]):
    path = tmp_path / "a.jsonl"
    lines = lines_of(RECORDS_READ).splitlines()
    lines[20] = lines[20].replace('"text": "', '"text": "\\ud83d\\ude00 ') + "  "
    path.write_text("\n".join(lines))
    rows = list(JsonLinesReader().read(path))
    assert rows[20]["text"].startswith("😀")
    assert len(rows) - 4 <= sum(n_by_arrow) < len(rows) - 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "n": 1, "n": 2}', "line 31: invalid JSON: an object has a key more than"),
        ('{"text": "a", "score": NaN}', "line 31, field 'score': found NaN"),
        ('{"text": "a", "score": 1e999}', "line 31, field 'score': found 1e999, which is too"),
        ('{"text": "a"', "line 31, column 14: not JSON"),
        ('"a"', "line 31: found a text after an object"),
        ('{"text": "a"} {"text": "b"}', "line 31, column 15: not JSON: Extra data"),
    ],
)
def test_errors_after_many_rows_name_line_and_field(line: str, message: str, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of(RECORDS_READ[:30]) + line + "\n" + lines_of(RECORDS_READ[30:]))
    with pytest.raises(DataError) as caught:
        JsonLinesReader().read(path)
    assert message in str(caught.value)


def test_a_type_that_changes_late_changes_all_rows(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of([*RECORDS_READ, {"text": "a", "n": 0.5}, {"text": "b", "n": 2**70}]))
    values = JsonLinesReader().read(path)["n"]
    assert [*map(repr, values)] == [*map(repr, range(40)), "0.5", str(2**70)]


def test_records_after_texts_are_an_error(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('"a text of some length that fills a block"\n' * 3 + '{"text": "a"}\n')
    with pytest.raises(DataError, match="line 4: found an object after a text"):
        JsonLinesReader().read(path)
