"""What a comparison of the candidates with the real sample found, kept beside the embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.contamination import check_real_copies
from synque_select.errors import SynqueError
from synque_select.utils.cache_dir import note_not_written
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.versions import source_hash

__all__ = ["kept_real_copies"]

_FORMAT = 1


def kept_real_copies(
    candidates: Sequence[Candidate], real: RealSample, folder: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what `check_real_copies` finds, from the cache where it is known.

    Args:
        candidates: The candidates.
        real: The real sample.
        folder: The cache.
    """
    state = [
        _FORMAT,
        source_hash(),
        [(part.name, part.modality, part.sha256) for part in (real, *candidates)],
        real.groups_sha256,
    ]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    file = folder / "copies" / f"{name}.json"
    try:
        fields = JsonFields(parse_json(read_checked(file), str(file)))
        return fields.texts("messages"), fields.texts("copies")
    except OSError:
        pass
    except (ValueError, SynqueError) as error:
        remove_damaged(file, error, "the candidates are compared with the real sample again")
    messages, copies = check_real_copies(candidates, real, real.groups)
    try:
        with checksummed_file(file) as stream:
            content = {"messages": messages, "copies": copies}
            # a text may hold half of a surrogate pair, which only escapes can
            stream.write(json.dumps(content, ensure_ascii=True).encode())
    except OSError as error:
        note_not_written(file.parent, error)
    return messages, copies
