"""What a checkpoint stores of the candidates' content, to notice later whether it has changed."""

from __future__ import annotations

import hashlib
from typing import TypedDict

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.data.views import digest

__all__ = ["Fingerprint", "Fingerprints"]

_N_HASHED = 64  # examples that represent a candidate whose content hash is not computed yet


class Fingerprint(TypedDict):
    """A candidate's number of examples, and hashes of some or all of them."""

    n: int
    sample: str
    sha256: str | None


class Fingerprints:
    """Fingerprints of candidates by name; each is computed once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, str]] = {}

    def of(self, candidate: Candidate) -> Fingerprint:
        """Return the fingerprint of a candidate; "sha256" is None until it has been computed."""
        if candidate.name not in self._known:
            self._known[candidate.name] = (candidate.n_all, _sample_sha256(candidate))
        n, sample = self._known[candidate.name]
        # a ranking computes the hash of the whole content
        return {"n": n, "sample": sample, "sha256": vars(candidate).get("sha256")}

    def has_changed(self, candidate: Candidate, then: Fingerprint) -> bool:
        """Return whether a candidate differs from what `of` returned in another run."""
        now = self.of(candidate)
        if then["n"] != now["n"]:
            return True
        if then["sha256"] is None or now["sha256"] is None:
            return then["sample"] != now["sample"]
        return then["sha256"] != now["sha256"]


def _sample_sha256(candidate: Candidate) -> str:
    """Return a hash of examples that are spread evenly over a candidate."""
    n = len(candidate)
    places = np.unique(np.linspace(0, n - 1, min(n, _N_HASHED)).astype(int))
    joined = b"".join(digest(candidate.views[int(place)]) for place in places)
    return hashlib.sha256(joined).hexdigest()
