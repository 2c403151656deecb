"""Arrow's parser is used for CSV only where it gives what reading row by row gives."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synque_select.data import csv_reader, tables
from synque_select.data.csv_reader import CsvReader, _Column, read_csv
from synque_select.data.csv_tables import table_of_texts
from synque_select.errors import DataError

PIECES = ["a", "b", "1", ",", ",", ",", '"', '""', "\n", "\n", "\r\n", "\r", " ", '"x"', '"x,y"']
PIECES += ['"x\ny"', '"x""y"', "é", "\t", "NA", "null", ";", "'", "\\", "#", "\x85", "\u2028", "\0"]
PIECES += ['"\r\n"', "0.5", "0.10", "007", "2", "1e5", "\ufeff", "12345678901234567890", "3.0"]
USUAL = ["1,a,0.5\n", '2,"b, ""c""",1.25\n', "3,,\n", '4,"x\ny",0.75\n', '"5",é,2.0\n']
CONTENTS = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12),
    st.lists(st.sampled_from([*USUAL, *USUAL, *PIECES]), min_size=1, max_size=8),
).map("".join)
NUMBERS = ["", "0", "1", "-1", "-0", "007", "123456789012345", "9223372036854775807", "0.5", "0.50"]
NUMBERS += [
    "9223372036854775808",
    "-9223372036854775808",
    "12345678901234567",
    "1.0",
    "-0.0",
    "0.0",
]
NUMBERS += [
    "0.0001",
    "0.00001",
    "1e-05",
    "1E5",
    "1e+5",
    "12e3",
    ".5",
    "0.1234567890123456",
    "a",
    " 1",
]
NUMBERS += [
    "0.12345678901234567890",
    "123456789012345.6",
    "3.141592653589793",
    "0.30000000000000004",
]
NUMBERS += ["5.", "1.10", "100.25", "1_0", "١", "1\n", "nan", "inf", "12345678901234.123"]


def read(path: Path, *, by_arrow: bool) -> Any:
    """What a file holds, written out so that 1, 1.0 and 1.00 differ; or what is wrong with it."""
    try:
        table = CsvReader().read(path) if by_arrow else tables.table_of_rows(path, read_csv)
        return repr(table.column_names), [repr(row) for row in table]
    except DataError as error:
        return str(error)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(csv_reader, "_FIRST_BYTES", 8)
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(csv_reader, "_MOST_BYTES", 64)
    monkeypatch.setattr(csv_reader, "_FEW", 1)


@given(content=CONTENTS, n_columns=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
@example(content='""\n', n_columns=1)
@example(content='a,b\n\n"c"", ",d\n', n_columns=2)
def test_a_table_has_the_texts_of_the_rows(content: str, n_columns: int):
    names = [f"column {number}" for number in range(n_columns)]
    table = table_of_texts(content.encode(), names, ",")
    if table is not None:
        lines = (line.decode() for line in io.BytesIO(content.encode()))
        rows = [row for row in csv.reader(lines, strict=True) if row]
        assert [list(row.values()) for row in table.to_pylist()] == rows


@given(
    content=CONTENTS,
    header=st.sampled_from(["n,text,x\n", '"n",text,x\r\n', "n\n", "sep=,\nn,t,x\n"]),
)
@settings(max_examples=200, deadline=None)
def test_a_file_read_in_blocks_has_the_values_and_errors_of_its_rows(
    content: str, header: str, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / "a.csv"
    path.write_bytes((header + content).encode())
    assert read(path, by_arrow=True) == read(path, by_arrow=False)


@given(values=st.lists(st.sampled_from(NUMBERS), max_size=8))
@settings(max_examples=500, deadline=None)
def test_the_kind_of_a_column_is_that_of_its_values(values: list[str]):
    one_by_one, at_once = _Column(), _Column()
    for value in filter(None, values):
        if one_by_one.is_number:
            one_by_one.add(value)
    at_once.add_all(pa.chunked_array([values], pa.string()))
    assert at_once.kind is one_by_one.kind
    if one_by_one.is_number:
        assert vars(at_once) == vars(one_by_one)


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_floats_as_python_writes_them_are_taken_as_one_by_one(numbers: list[float]):
    test = test_the_kind_of_a_column_is_that_of_its_values.hypothesis.inner_test
    test([repr(number) for number in numbers])


ROWS = [{"n": i, "text": f'é, "{i}"', "score": i / 8 + 0.5, "price": f"{i}.50"} for i in range(60)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_usual_files_are_read_by_arrow(end: str, tmp_path: Path, monkeypatch):
    counts = []

    def counted(*given: Any) -> pa.Table | None:
        table = table_of_texts(*given)
        counts.append(0 if table is None else table.num_rows)
        return table

    monkeypatch.setattr(csv_reader, "table_of_texts", counted)
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*ROWS[0]], lineterminator=end)
        writer.writeheader()
        writer.writerows(ROWS)
    rows = list(CsvReader().read(path))
    assert [{**row, "price": str(row["price"])} for row in rows] == ROWS
    assert sum(counts) == len(ROWS)  # types and values in one pass


@pytest.mark.parametrize("later", ["a", "1.5", "2.50", "1.10", "1e-05", "9223372036854775808", ""])
@pytest.mark.parametrize("first", ["", "1", "0.5", "0.50", "a"])
@pytest.mark.parametrize("small_bytes", [tables.SMALL_BYTES, 1])
def test_types_that_only_later_rows_tell(
    first: str, later: str, small_bytes: int, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", small_bytes)  # 1: converted into the cache
    path = tmp_path / "a.csv"
    rows = [f"{number},{first}\n" for number in range(30)] + [f"30,{later}\n"]
    path.write_text("n,x\n" + "".join(rows))
    assert read(path, by_arrow=True) == read(path, by_arrow=False)


def test_an_error_after_many_rows_names_its_line(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("n,text\n" + '1,"a\nb"\n' * 30 + "2\n" + "3,c\n" * 30)
    with pytest.raises(DataError, match="line 62: found 1 field, but the header has 2"):
        CsvReader().read(path)
