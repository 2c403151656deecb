"""What every file reader must do, as tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from synque_select.data.readers import BaseReader
from synque_select.data.sources import load_candidates, load_dataset_file
from synque_select.data.views import View
from synque_select.errors import DataError
from synque_select.testing.process import unchanged_process

__all__ = ["ReaderConformance"]


class ReaderConformance:
    """What every reader must do (`BaseReader`), as tests.

    The reader is used as a user's file is read: by the suffix of the file.

    Attributes:
        view: The field that is the view, as `load_candidates` takes it.
        broken: Content of a file that cannot be read; None for a format in which any bytes are a
            file.
    """

    view: str | int | None = None
    broken: bytes | None = b"\xff\xfe\x00 is not text \xff"

    @pytest.fixture
    def reader(self) -> type[BaseReader]:
        """Return the reader's class, which is registered; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def records(self) -> list[dict[str, object]]:
        """Return the records of the file, at least three that differ; a subclass may override it.

        Texts with spaces, quotes, line ends or letters beyond ASCII belong here, and types that
        the format keeps.
        """
        raise NotImplementedError

    def write(self, path: Path, records: list[dict[str, object]]) -> None:
        """Write records as a file of the format; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def file(
        self, reader: type[BaseReader], records: list[dict[str, object]], tmp_path: Path
    ) -> Path:
        """Return the path of a file that holds the records."""
        path = tmp_path / f"my.file{reader.suffixes[0]}"
        self.write(path, records)
        return path

    def test_records_keep_number_order_and_types(
        self, file: Path, records: list[dict[str, object]]
    ) -> None:
        dataset = load_dataset_file(file)
        assert len(dataset) == len(records)
        for position, record in enumerate(records):
            assert dataset[position] == record
            assert [type(value) for value in dict(dataset[position]).values()] == [
                type(value) for value in record.values()
            ]

    def test_any_position_can_be_asked_for(
        self, file: Path, records: list[dict[str, object]]
    ) -> None:
        dataset = load_dataset_file(file)
        assert dataset[len(records) - 1] == records[-1]
        assert dataset[0] == records[0]

    def test_equal_files_give_equal_content(
        self, file: Path, records: list[dict[str, object]], tmp_path: Path
    ) -> None:
        other = tmp_path / f"other{file.name.removeprefix('my.file')}"
        self.write(other, records)
        first, second = (load_candidates(path, view=self.view)[0] for path in (file, other))
        assert first.sha256 == second.sha256
        self.write(other, records[:-1])
        assert load_candidates(other, view=self.view)[0].sha256 != first.sha256

    def test_every_suffix_finds_the_reader(
        self, reader: type[BaseReader], records: list[dict[str, object]], tmp_path: Path
    ) -> None:
        for number, suffix in enumerate(reader.suffixes):
            self.write(tmp_path / f"c{number}{suffix.upper()}", records)
        candidates = load_candidates(tmp_path, view=self.view)
        assert [c.name for c in candidates] == [f"c{i}" for i in range(len(reader.suffixes))]
        assert all(len(c) == len(records) for c in candidates)

    def test_the_reader_can_be_named_before_the_path(
        self, reader: type[BaseReader], file: Path, records: list[dict[str, object]]
    ) -> None:
        moved = file.rename(file.with_name("no_suffix"))
        key = reader.suffixes[0].removeprefix(".")
        assert len(load_dataset_file(f"{key}:{moved}")) == len(records)
        name = f"{reader.__module__}.{reader.__qualname__}"
        if "<locals>" not in name:
            assert len(load_dataset_file(f"{name}:{moved}")) == len(records)

    def test_views_are_texts_or_images(self, file: Path) -> None:
        views: list[View] = list(load_candidates(file, view=self.view)[0].views)
        assert len(views) == len(load_dataset_file(file))

    def test_a_broken_file_is_named(self, reader: type[BaseReader], tmp_path: Path) -> None:
        path = tmp_path / f"broken{reader.suffixes[0]}"
        for content in (b"", self.broken):
            if content is not None:
                path.write_bytes(content)
                with pytest.raises(DataError, match="broken"):
                    load_dataset_file(path)

    def test_a_missing_file_is_named(self, reader: type[BaseReader], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nowhere"):
            load_dataset_file(tmp_path / f"nowhere{reader.suffixes[0]}")

    def test_reading_leaves_process_and_file_as_they_were(self, file: Path) -> None:
        content = file.read_bytes()
        with unchanged_process():
            dataset = load_dataset_file(file)
            _ = dataset[0]
        assert file.read_bytes() == content
