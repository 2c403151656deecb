"""Where what can be computed again is kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_cache_dir"]


def default_cache_dir() -> Path:
    """Return $SYNQUE_CACHE, or ~/.cache/synque-select."""
    return Path(os.environ.get("SYNQUE_CACHE") or Path.home() / ".cache" / "synque-select")
