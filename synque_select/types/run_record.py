"""What a training run leaves behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from synque_select.types.mixture import Mixture

__all__ = ["RunKind", "RunRecord"]

RunKind = Literal["probe", "mixture", "trial"]


@dataclass(frozen=True)
class RunRecord:
    """What was chosen, the proxies' scores and the validation figures of one training run.

    Args:
        run_id: Unique; writing a record twice replaces it.
        kind: "probe" (one candidate), "mixture", or "trial" (adaptively sampled).
        key: The comparability key: what must be equal for two records to be compared (task, hash
            of the validation set, metric and mode, model and initial weights, examples drawn,
            steps, hyper-parameters, hash of the real sample, proxies' parameters, encoder).
        unit: The distinct candidate or mixture that was trained on; seeds share it.
        mixture: What was trained on.
        scores: Proxy key to the score of what was trained on, oriented as the proxy is.
        orientation: Proxy key to higher_is_better.
        metrics: Every validation metric at the fixed end of the budget.
        primary: The one metric that correlations are about.
        primary_mode: "max" or "min".
        seed: Training seed.
        created: ISO 8601, UTC.
        details: Anything else worth keeping, plain values.
    """

    run_id: str
    kind: RunKind
    key: Mapping[str, Any]
    unit: str
    mixture: Mixture
    scores: Mapping[str, float]
    orientation: Mapping[str, bool]
    metrics: Mapping[str, float]
    primary: str
    primary_mode: Literal["max", "min"]
    seed: int
    created: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key_hash(self) -> str:
        """SHA-256 of the comparability key, 16 hexadecimal digits."""
        text = json.dumps(self.key, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
