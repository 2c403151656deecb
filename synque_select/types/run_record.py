"""Run records: the stored results of training runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from synque_select.types.mixture import Mixture
from synque_select.types.ranking import Ranking

__all__ = [
    "RunKind",
    "RunRecord",
    "is_surrogate",
    "labeled_name",
    "mixture_unit",
    "surrogate_name",
]

RunKind = Literal["probe", "mixture", "trial"]

_SURROGATE = "surrogate/"


def surrogate_name(metric: str) -> str:
    """Return the name of a metric that was measured on a surrogate validation set.

    Example:
        >>> surrogate_name("val_acc")
        'surrogate/val_acc'
    """
    return f"{_SURROGATE}{metric}"


def is_surrogate(metric: str) -> bool:
    """Return whether a metric was measured on a surrogate validation set.

    Example:
        >>> is_surrogate("surrogate/val_acc"), is_surrogate("val_acc")
        (True, False)
    """
    return metric.startswith(_SURROGATE)


def labeled_name(metric: str) -> str:
    """Return the name that a metric has on labeled validation data.

    Example:
        >>> labeled_name("surrogate/val_acc")
        'val_acc'
    """
    return metric.removeprefix(_SURROGATE)


@dataclass(frozen=True)
class RunRecord:
    """The mixture, the proxies' scores and the validation metrics of one training run.

    Args:
        run_id: Unique id; writing another record with this id replaces the first.
        kind: "probe" (one candidate), "mixture", or "trial" (adaptively sampled).
        key: The comparability key: what must be equal for two records to be compared (task, hash
            of the validation set, metric and mode, model and initial weights, examples drawn,
            steps, hyper-parameters, hash of the real sample, proxies' parameters, encoder).
        unit: The distinct candidate or mixture that was trained on; the same for all seeds.
        mixture: The mixture that was trained on.
        scores: Proxy key to the score of the mixture, in the orientation of the proxy.
        orientation: Proxy key to its `higher_is_better`.
        metrics: Every validation metric at the fixed end of the budget.
        monitor: The validation metric that correlations are about.
        mode: "max" if a larger value of the metric is better, else "min".
        seed: Training seed.
        created: Time of creation, ISO 8601, UTC.
        details: Anything else to store, as plain values.
    """

    run_id: str
    kind: RunKind
    key: Mapping[str, Any]
    unit: str
    mixture: Mixture
    scores: Mapping[str, float]
    orientation: Mapping[str, bool]
    metrics: Mapping[str, float]
    monitor: str
    mode: Literal["max", "min"]
    seed: int
    created: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        ranking: Ranking,
        mixture: Mixture,
        *,
        run_id: str,
        kind: RunKind,
        key: Mapping[str, Any],
        scores: Mapping[str, float],
        metrics: Mapping[str, float],
        monitor: str,
        mode: Literal["max", "min"],
        seed: int,
        created: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Make the record of a run on a mixture of ranked candidates.

        The unit and the orientation of the proxies follow from the ranking.

        Args:
            ranking: The ranking of the candidates, with the hashes of their contents.
            mixture: The mixture that the run was trained on.
            run_id: Unique id of the run.
            kind: "probe", "mixture" or "trial".
            key: The comparability key.
            scores: Proxy key to the score of the mixture; empty if it was not scored.
            metrics: Every validation metric at the fixed end of the budget.
            monitor: The one metric that correlations are about.
            mode: "max" if a larger value of the metric is better, else "min".
            seed: Training seed.
            created: Time of creation, ISO 8601, UTC; None for now.
            details: Anything else to store, as plain values.
        """
        return cls(
            run_id=run_id,
            kind=kind,
            key=key,
            unit=mixture_unit(mixture, {row.name: row.sha256 for row in ranking.candidates}),
            mixture=mixture,
            scores=scores,
            orientation={name: info.higher_is_better for name, info in ranking.proxies.items()},
            metrics=metrics,
            monitor=monitor,
            mode=mode,
            seed=seed,
            created=created or datetime.now(UTC).isoformat(),
            details={} if details is None else details,
        )

    @property
    def key_hash(self) -> str:
        """SHA-256 of the comparability key, 16 hexadecimal digits."""
        text = json.dumps(self.key, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def mixture_unit(mixture: Mixture, sha256: Mapping[str, str]) -> str:
    """Return the name of a unit: candidates, weights, and a hash of their contents.

    Example:
        >>> mixture_unit(Mixture.equal(["b", "a"]), {"a": "01", "b": "02"})
        'a 0.5 + b 0.5 @f19ccf1e'
        >>> mixture_unit(Mixture.equal(["a"]), {"a": "01"})
        'a @938db8c9'
    """
    names = sorted(mixture.names)
    content = hashlib.sha256("".join(sha256[name] for name in names).encode()).hexdigest()[:8]
    if len(names) == 1:
        return f"{names[0]} @{content}"
    parts = [f"{name} {mixture.weights[name]:.4g}" for name in names]
    return f"{' + '.join(parts)} @{content}"
