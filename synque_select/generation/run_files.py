"""The files of a generator loop: written whole or not at all, and read when a run continues."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from synque_select.errors import ConfigError, RecordError
from synque_select.generation.ledger import Ledger
from synque_select.generation.record_form import Record
from synque_select.generation.result import Improvement
from synque_select.lens.cache import AnswerCache
from synque_select.records.run_folder import make_folder, read_json, write_json
from synque_select.utils.atomic import atomic_file
from synque_select.utils.json_files import parse_json
from synque_select.utils.wording import counted

__all__ = ["IMPROVED", "RunFiles"]

IMPROVED = "improved.jsonl"
_RESULT = "improve.json"


class RunFiles:
    """The files in the run's directory.

    Args:
        run_dir: The directory; created if it is missing.

    Attributes:
        answers: All answers of models.
        ledger: What they cost.

    Raises:
        RecordError: The directory cannot be created.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.folder = make_folder(run_dir)
        self.answers = AnswerCache(self.folder / "answers.sqlite")
        self.ledger = Ledger(self.folder / "usage.jsonl")

    def begin(self, result: Improvement) -> Improvement:
        """Return the result so far of the same run; write and return a new one if there is none.

        Args:
            result: The result without a round.

        Raises:
            ConfigError: The directory holds a run on other data or with other options.
            RecordError: A file cannot be read or written.
        """
        path = self.folder / _RESULT
        if not path.exists():
            self.save(result)
            return result
        try:
            earlier = Improvement.from_dict(read_json(path))
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
        if earlier.key != result.key:
            raise ConfigError(
                f"{self.folder} contains a run with other data or other options (candidate "
                f"{earlier.candidate}, {counted(len(earlier.rounds), 'round')}): use another "
                "directory, or the same data and options to continue that run"
            )
        return earlier

    def save(self, result: Improvement) -> None:
        """Write the result so far.

        Raises:
            RecordError: It cannot be written.
        """
        write_json(self.folder / _RESULT, result.to_dict())

    def write_round(self, number: int, records: Iterable[Record], *, kept: bool) -> None:
        """Write the new examples of a round: `round-1.jsonl`, or `round-1.not-kept.jsonl`.

        Raises:
            RecordError: It cannot be written.
        """
        self.write(f"round-{number}{'' if kept else '.not-kept'}.jsonl", records)

    def write(self, name: str, records: Iterable[Record]) -> None:
        """Write examples as JSON lines.

        Raises:
            RecordError: It cannot be written.
        """
        path = self.folder / name
        try:
            with atomic_file(path) as stream:
                for record in records:
                    line = json.dumps(record, ensure_ascii=False)
                    stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error}") from error

    def read_round(self, number: int) -> list[Record]:
        """Read the examples of a kept round.

        Raises:
            RecordError: The file is missing or damaged.
        """
        path = self.folder / f"round-{number}.jsonl"
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise RecordError(f"cannot read {path}: {error}") from error
        records = []
        for place, line in enumerate(lines, 1):
            record = parse_json(line, str(path), error=RecordError, line=place)
            if not isinstance(record, dict):
                raise RecordError(f"{path}, line {place}: expected an object")
            records.append(cast("Record", record))
        return records
