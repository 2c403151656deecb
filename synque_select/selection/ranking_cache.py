"""Rankings kept beside the embeddings, each named after all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import RecordError
from synque_select.proxies.base import BaseProxy
from synque_select.records.ranking_file import load_ranking
from synque_select.selection.score_cache import package_versions, source_hash
from synque_select.types import Ranking
from synque_select.utils.cache_dir import default_cache_dir
from synque_select.utils.source_code import source_of

__all__ = ["load_kept_ranking", "ranking_path"]

_log = logging.getLogger(__name__)


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
        "candidates": [(c.name, c.sha256) for c in candidates],
        "real": [real.sha256, real.groups_sha256],
        "proxies": [(p.key, dict(p.options()), _code_of(type(p))) for p in suite],
        "options": options,
        "code": source_hash(),
        "packages": package_versions(),
    }
    text = json.dumps(parts, sort_keys=True, default=repr)
    root = default_cache_dir() if cache_dir is None else Path(cache_dir)
    return root / "rankings" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def load_kept_ranking(path: Path) -> Ranking | None:
    """Return the ranking in a file of the cache; None if the file is missing or broken."""
    if not path.exists():
        return None
    try:
        return load_ranking(path)
    except RecordError as error:  # a broken file costs a scoring, not the training
        _log.warning("scoring again: %s", error)
        return None


def _code_of(cls: type[BaseProxy]) -> str:
    """Return what identifies the code of a proxy: one of the user's has no version, but a source.

    Where the code cannot be known to be the same, this is a value that nothing else equals, so
    that the candidates are scored again.
    """
    if cls.needs_records:
        return uuid.uuid4().hex  # records may have changed where their views have not
    source = source_of(cls)
    return uuid.uuid4().hex if source is None else f"{cls.__qualname__}{source}"
