"""Rankings kept beside the embeddings, each named after all that it depends on."""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import RecordError
from synque_select.proxies.base import BaseProxy
from synque_select.records.ranking_file import ranking_from_json
from synque_select.records.run_folder import to_jsonable
from synque_select.selection.score_cache import code_of
from synque_select.types import Ranking
from synque_select.utils.cache_dir import cache_root, reason_of, temporary_twin, write_in_cache
from synque_select.utils.checksums import (
    DamagedFileError,
    checksummed_file,
    read_checked,
    remove_damaged,
)
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.versions import package_versions, source_hash

__all__ = [
    "keep_ranking",
    "load_kept_ranking",
    "ranking_path",
]

_FORMAT = 2


def ranking_path(
    cache_dir: str | Path | None,
    candidates: Sequence[Candidate],
    real: RealSample,
    suite: Sequence[BaseProxy],
    options: Mapping[str, object],
) -> Path:
    """Return where the ranking of exactly this content and these options is kept.

    Args:
        cache_dir: The cache; None for the default.
        candidates: The candidates.
        real: The real sample.
        suite: The proxies.
        options: All other arguments that change a ranking, as plain values.
    """
    parts = {
        "format": _FORMAT,
        "candidates": [c.content for c in candidates],
        "real": [real.sha256, real.groups_sha256],
        "proxies": [(p.key, dict(p.options()), _code_of(type(p))) for p in suite],
        "options": options,
        "code": source_hash(),
        "packages": package_versions(),
    }
    text = json.dumps(parts, sort_keys=True, default=repr)
    root = cache_root(cache_dir)
    return root / "rankings" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def keep_ranking(
    ranking: Ranking, path: Path, write_findings: Callable[[Path], object] = lambda _: None
) -> Path:
    """Write a ranking to the cache, or to a temporary folder if the cache cannot be written.

    Args:
        ranking: The ranking.
        path: What `ranking_path` returned.
        write_findings: Writes the findings to the folder that it is given; called before the
            ranking is written, whose file says that all of it is there.

    Returns:
        The folder of the findings.

    Raises:
        RecordError: Temporary files cannot be written, either.
    """

    def write(folder: Path) -> Path:
        # another process never writes there
        findings = folder / f"{path.stem}-{uuid.uuid4().hex[:8]}"
        try:
            write_findings(findings)
        except RecordError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from error
            raise
        state = {
            "ranking": to_jsonable(ranking.to_dict(), where=path.name),
            "findings": [findings.name, _checksums(findings)],
        }
        with checksummed_file(folder / path.name) as stream:
            stream.write(json.dumps(state).encode("utf-8", errors="backslashreplace"))
        return findings

    try:
        return write_in_cache(path.parent, write)
    except OSError as error:
        raise RecordError(
            f"neither the cache folder {path.parent} nor a temporary one can be written "
            f"({reason_of(error)}); set SYNQUE_CACHE to a folder that can"
        ) from error


def load_kept_ranking(path: Path) -> tuple[Ranking, Path] | None:
    """Return a ranking of the cache and the folder of its findings; None if there is none.

    A broken file costs a scoring, not the training.

    Args:
        path: What `ranking_path` returned.
    """
    for place in (path, temporary_twin(path.parent) / path.name):
        try:
            state = parse_json(read_checked(place), str(place), error=RecordError)
            fields = JsonFields(state)
            name, *checksums = fields.list("findings")
            folder = place.with_name(str(name))
            if checksums != [_checksums(folder)]:
                raise DamagedFileError(f"its findings in {folder} are changed or missing")
            return ranking_from_json(fields.object("ranking").content, place), folder
        except OSError:
            continue
        except (ValueError, KeyError, RecordError) as error:
            remove_damaged(place, error, "the candidates are scored again")
    return None


def _checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of each file in a folder, by name; what cannot be read has none."""
    sums = {}
    for file in sorted(folder.glob("*")):
        with suppress(OSError):
            sums[file.name] = f"{zlib.crc32(file.read_bytes()):08x}"
    return sums


def _code_of(cls: type[BaseProxy]) -> str:
    # a value that nothing else equals, so that the candidates are scored again
    return code_of(cls) or uuid.uuid4().hex
