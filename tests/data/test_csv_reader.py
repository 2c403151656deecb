"""Tables of text: TSV is read without CSV's quotes unless it was written with them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from synque_select.data import load_dataset_file
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
