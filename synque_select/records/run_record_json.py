"""Run records as JSON, as they are in the run store and in the files of records to be stored."""

from __future__ import annotations

import json
import math
from typing import Literal

from synque_select.records.run_folder import to_jsonable
from synque_select.types import Mixture, RunKind, RunRecord
from synque_select.utils.json_fields import JsonFields

__all__ = ["record_from_fields", "record_to_json"]

_KINDS: tuple[RunKind, ...] = ("probe", "mixture", "trial")
_MODES: tuple[Literal["max", "min"], ...] = ("max", "min")


def record_to_json(record: RunRecord) -> str:
    """Return a run record as JSON; NaN and infinities stay, as Python's `json` writes them.

    Raises:
        RecordError: A value has no form in JSON; the message names it.
    """
    state = vars(record) | {"mixture": record.mixture.to_dict()}
    where = f"run record {record.run_id!r}"
    return json.dumps(to_jsonable(state, undefined=math.nan, where=where))


def record_from_fields(fields: JsonFields) -> RunRecord:
    """Return the run record that `record_to_json` wrote, in this version or an older one.

    Raises:
        RecordError: A field is missing or of another type; the message names it.
    """
    is_old = "monitor" not in fields  # version 0.1 had other names
    return RunRecord(
        run_id=fields.text("run_id"),
        kind=fields.choice("kind", _KINDS),
        key=fields.object("key").content,
        unit=fields.text("unit"),
        mixture=Mixture.from_dict(fields.object("mixture").content),
        scores=fields.numbers("scores"),
        orientation=fields.flags("orientation"),
        metrics=fields.numbers("metrics"),
        monitor=fields.text("primary" if is_old else "monitor"),
        mode=fields.choice("primary_mode" if is_old else "mode", _MODES),
        seed=fields.integer("seed"),
        created=fields.text("created"),
        details=fields.object("details").content if "details" in fields else {},
    )
