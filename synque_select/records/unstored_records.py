"""Run records that the run store could not take: files that wait until it can."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from synque_select.errors import RecordError
from synque_select.records.run_folder import read_json, write_text
from synque_select.records.run_record_json import record_from_fields, record_to_json
from synque_select.types import RunRecord
from synque_select.utils.json_fields import JsonFields

__all__ = ["UNSTORED", "UnstoredRecord", "keep_record", "unstored_records"]

UNSTORED = "unstored_records"  # in the directory of a run, or beside the run store
_VERSION = 1
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class UnstoredRecord:
    """A record that waits for its run store.

    Args:
        file: The file that has it.
        record: The record.
    """

    file: Path
    record: RunRecord

    def remove(self) -> None:
        """Remove the file: the record is in the store, or replaced by a newer one."""
        with suppress(OSError):  # a read-only directory: the record is stored again, as it is
            self.file.unlink(missing_ok=True)
            self.file.parent.rmdir()  # only where it is empty


def keep_record(record: RunRecord, folder: Path, store: Path) -> Path:
    """Write a record to `unstored_records/` in a directory, and return the path of the file.

    Args:
        record: The record.
        folder: The directory of the run, or that of the store.
        store: Path of the run store that the record belongs to.

    Raises:
        RecordError: The file cannot be written.
    """
    folder = (folder / UNSTORED).resolve()
    # the second path is right where the directory of both was moved
    beside = os.path.relpath(store.resolve(), folder)
    head = json.dumps(
        {"version": _VERSION, "store": str(store.resolve()), "store_from_here": beside}
    )
    # of one piece with the record, whose NaN and infinities `write_json` would not keep
    text = f'{head[:-1]}, "record": {record_to_json(record)}}}\n'
    name = record.run_id
    if not _FILE_NAME.fullmatch(name):  # too long for a file, or with characters of a path
        name = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return write_text(folder / f"{name}.json", text)


def unstored_records(folders: Iterable[Path], store: Path) -> Iterator[UnstoredRecord]:
    """Return the records in these directories that wait for this run store.

    Args:
        folders: Directories of runs, and that of the store.
        store: Path of the run store.

    Raises:
        RecordError: A file is damaged; the message names it.
    """
    files = {file.resolve() for folder in folders for file in (folder / UNSTORED).glob("*.json")}
    for file in sorted(files):
        try:
            fields = JsonFields(read_json(file))
            fields.version(_VERSION)
            beside = fields.text("store_from_here", "")  # empty in older files
            if str(store.resolve()) not in (
                fields.text("store"),
                beside and str((file.parent / beside).resolve()),
            ):
                continue
            record = record_from_fields(fields.object("record"))
        except (RecordError, ValueError) as error:
            if not file.exists():
                continue  # another process has stored it a moment ago
            raise RecordError(
                f"{file}, a record that waits for the run store, is damaged: {error}. Remove it"
            ) from error
        yield UnstoredRecord(file, record)
