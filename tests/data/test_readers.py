"""Every built-in reader inherits the suite of readers; readers of the user's own, by suffix."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from synque_select import BaseReader, load_candidates, load_real, register_reader
from synque_select.data import load_dataset_file, tables
from synque_select.data.arrow_reader import ArrowReader, ParquetReader
from synque_select.data.csv_reader import CsvReader, TsvReader
from synque_select.data.json_reader import JsonLinesReader, JsonReader
from synque_select.data.readers import READERS, reader_key
from synque_select.errors import ConfigError, DataError
from synque_select.testing import ReaderConformance

RECORDS: list[dict[str, object]] = [
    {"text": 'He said: "up", then\nleft', "n": 3, "share": 0.5},
    {"text": "日本の株価; 01", "n": -1, "share": 1.25},
    {"text": "NA", "n": 0, "share": -2.0},
]


class BuiltIn(ReaderConformance):
    view = "text"

    @pytest.fixture
    def records(self) -> list[dict[str, object]]:
        return RECORDS


class TestJson(BuiltIn):
    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return JsonReader

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")


class TestJsonLines(BuiltIn):
    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return JsonLinesReader

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


class TestCsv(BuiltIn):
    delimiter = ","

    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return CsvReader

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]), delimiter=self.delimiter)
            writer.writeheader()
            writer.writerows(records)


class TestTsv(TestCsv):
    delimiter = "\t"

    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return TsvReader


class TestParquet(BuiltIn):
    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return ParquetReader

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), path)


class TestArrow(BuiltIn):
    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        return ArrowReader

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        import pyarrow as pa

        table = pa.Table.from_pylist(records)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


class TestArrowStream(TestArrow):
    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        import pyarrow as pa

        table = pa.Table.from_pylist(records)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)


def test_every_reader_is_in_a_suite():
    tested = (JsonReader, JsonLinesReader, CsvReader, TsvReader, ParquetReader, ArrowReader)
    # a tar holds images, which the records of the suite are not: see test_tar_reader
    suffixes = [".tar", *(suffix for cls in tested for suffix in cls.suffixes)]
    assert sorted(suffix.removeprefix(".") for suffix in suffixes) == list(READERS.keys())


class Lines(BaseReader):
    """Files of one text per line; counts how often it was asked."""

    suffixes = (".lines", ".lines.txt")
    n_read = 0

    def read(self, path: Path) -> list[str]:
        type(self).n_read += 1
        return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def own(monkeypatch, tmp_path: Path) -> Path:
    """A folder with files of a format that is registered for one test."""
    monkeypatch.setattr(READERS, "_registered", {})
    register_reader(Lines)
    (tmp_path / "pool").mkdir()
    for name in ("a.lines", "b.lines.txt"):
        (tmp_path / "pool" / name).write_text(f"{name} 1\n{name} 2\n")
    (tmp_path / "pool" / "notes.txt").write_text("no\ncandidate")
    return tmp_path


class TestOfTheUser:
    def test_is_found_in_a_folder_by_its_suffixes(self, own: Path):
        assert [c.name for c in load_candidates(own / "pool")] == ["a", "b"]
        assert reader_key(own / "x.lines.txt") == "lines.txt"

    def test_reads_the_real_sample_and_is_listed_in_errors(self, own: Path):
        assert list(load_real(own / "pool" / "a.lines").views) == ["a.lines 1", "a.lines 2"]
        (own / "c.xyz").write_text("x")
        with pytest.raises(DataError, match=r"'\.xyz' is not known; allowed are .*\.lines\.txt"):
            load_real(own / "c.xyz")

    def test_digests_are_not_kept_as_its_code_may_change(self, own: Path, monkeypatch):
        monkeypatch.setattr(tables, "SMALL_BYTES", 0)
        monkeypatch.setenv("SYNQUE_CACHE", str(own / "cache"))
        assert load_real(own / "pool" / "a.lines").sha256
        assert not (own / "cache" / "digests").exists()

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (KeyError("price"), r"a\.bad: Bad failed: KeyError: 'price'"),
            (OSError("disk gone"), r"a\.bad cannot be read: disk gone"),
            (DataError("line 3 is odd"), r"^line 3 is odd$"),
            ([], r"a\.bad: the file contains no examples"),
            (iter(["x"]), r"a\.bad: Bad.read returned list_iterator; expected a list"),
            ({"text": "x"}, r"a\.bad: Bad.read returned dict; expected a list"),
        ],
    )
    def test_what_goes_wrong_names_the_file(self, own: Path, result, message):
        class Bad(BaseReader):
            suffixes = (".bad",)

            def read(self, path):
                if isinstance(result, Exception):
                    raise result
                return result

        register_reader(Bad)
        (own / "a.bad").write_text("x")
        with pytest.raises(DataError, match=message):
            load_dataset_file(own / "a.bad")

    def test_a_built_in_format_is_replaced_only_on_request(self, own: Path):
        class Mine(Lines):
            suffixes = (".csv",)

        with pytest.raises(ConfigError, match=r"reader key 'csv' is taken \(built in\)"):
            register_reader(Mine)
        register_reader(Mine, overwrite=True)
        (own / "a.csv").write_text("one,two\nthree,four\n")
        assert load_dataset_file(own / "a.csv")[1] == "three,four"

    @pytest.mark.parametrize("suffixes", [(), ("xml",), (".XML",), ".xml", None])
    def test_suffixes_must_be_suffixes(self, own: Path, suffixes):
        given = suffixes

        class Bad(Lines):
            suffixes = given

        with pytest.raises(ConfigError, match=r"suffixes=.*allowed is a tuple of lower-case"):
            register_reader(Bad)

    def test_a_reader_named_before_a_folder_gets_the_folder(self, own: Path):
        class Folder(BaseReader):
            suffixes = (".folder",)

            def read(self, path):
                return sorted(file.name for file in path.iterdir())

        register_reader(Folder)
        assert len(load_dataset_file(f"folder:{own / 'pool'}")) == 3

    def test_a_glob_after_the_readers_name(self, own: Path):
        names = [c.name for c in load_candidates(f"lines:{own / 'pool'}/*")]
        assert names == ["a", "b", "notes"]

    def test_an_unknown_reader(self, own: Path):
        with pytest.raises(ConfigError, match=r"reader 'no_such\.Reader': the module no_such"):
            load_dataset_file(f"no_such.Reader:{own / 'pool'}")
