"""What a harness counted, for the table of docs/reliability.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

COUNTS = "SYNQUE_RELIABILITY_COUNTS"  # the file that `scripts.reliability` reads


def record_counts(
    harness: str, counts: Mapping[str, int], notes: Mapping[str, int] | None = None
) -> None:
    """Add the counts of a harness to the file that the script names; without it, do nothing.

    Args:
        harness: Key of the harness in `scripts.reliability.HARNESSES`.
        counts: What happened to how many cases, such as {"same numbers": 300, "clean error": 40}.
        notes: Other numbers, such as {"questions asked again": 7}.
    """
    if file := os.environ.get(COUNTS):
        line = json.dumps({"harness": harness, "counts": dict(counts), "notes": dict(notes or {})})
        with Path(file).open("a") as stream:
            stream.write(line + "\n")
