"""What a checkpoint keeps of the candidates' content, to say whether it has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.data.views import digest

__all__ = ["Fingerprints"]

_HASHED = 64  # examples that stand for a candidate whose content hash nobody has computed


class Fingerprints:
    """Length and hashes of candidates, by name; each is computed once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, candidate: Candidate) -> dict[str, Any]:
        """Return plain values: "n", "sample" and "sha256", which is None while nobody has it."""
        if candidate.name not in self._known:
            self._known[candidate.name] = _sample_hash(candidate)
        # the hash of the whole content is there once a ranking has computed it
        return {**self._known[candidate.name], "sha256": vars(candidate).get("sha256")}

    def has_changed(self, candidate: Candidate, then: Mapping[str, Any]) -> bool:
        """Say whether a candidate differs from what `of` returned in another run."""
        now = self.of(candidate)
        key = "sample" if None in (then["sha256"], now["sha256"]) else "sha256"
        return bool(then["n"] != now["n"] or then[key] != now[key])


def _sample_hash(candidate: Candidate) -> dict[str, Any]:
    """Return the length of a candidate and a hash of examples spread over it."""
    n = len(candidate)
    places = np.unique(np.linspace(0, n - 1, min(n, _HASHED)).astype(int))
    joined = b"".join(digest(candidate.views[int(place)]) for place in places)
    return {"n": n, "sample": hashlib.sha256(joined).hexdigest()}
