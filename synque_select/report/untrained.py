"""The model as it is, measured without training, against what is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from synque_select.functional.paired import MIN_PAIRS, PairedComparison, compare_paired
from synque_select.report.formats import format_signed
from synque_select.types import is_surrogate
from synque_select.utils.wording import counted

__all__ = ["UNTRAINED_NAME", "against_untrained", "untrained_notes"]

UNTRAINED_NAME = "the model as it is"

_Mode = Literal["max", "min"]


def against_untrained(
    pairs: Mapping[str, PairedComparison],
    metric: str,
    mode: _Mode,
    *,
    unit: Literal["arm", "candidate", "mixture"] = "arm",
) -> str:
    """Say whether anything that was trained beats the model as it is.

    Args:
        pairs: Name of what was trained to its comparison with the model as it is.
        metric: Name of the metric.
        mode: "max" if a larger value of the metric is better, else "min".
        unit: What the names are names of.

    Example:
        >>> pairs = {"a": compare_paired([0.50], [0.61], mode="max")}
        >>> against_untrained(pairs, "val_acc", "max", unit="candidate").split(": ")[0]
        'no candidate beats the model as it is'
    """
    named = "candidate" if unit == "arm" else unit
    tested = {name: pair for name, pair in pairs.items() if pair.n >= MIN_PAIRS}
    if not tested:
        n = max(pair.n for pair in pairs.values())
        of_pairs = f"{n} pair{'s' * (n != 1)}"
        sign = 1 if mode == "max" else -1
        differences = [pair.difference for pair in pairs.values()]
        best = max(differences, key=lambda difference: sign * difference)
        n_better = sum(sign * difference > 0 for difference in differences)
        of_all = f"{n_better} of {counted(len(pairs), unit)}"
        if n_better:
            return (
                f"{of_all} {'is' if n_better == 1 else 'are'} better than {UNTRAINED_NAME} by "
                f"{metric} ({of_pairs}; a verdict needs {MIN_PAIRS})"
            )
        return (
            f"no {named} beats {UNTRAINED_NAME}: of {counted(len(pairs), unit)}, the best differs "
            f"by {format_signed(best, 3)} in {metric} ({of_pairs}; a verdict needs {MIN_PAIRS})"
        )
    of_tested = f"{counted(len(tested), unit)} of at least {MIN_PAIRS} pairs"
    better, worse = (
        [name for name, pair in tested.items() if pair.verdict == verdict]
        for verdict in ("beats", "is beaten by")
    )
    if better:
        first = f"shown to beat {UNTRAINED_NAME}: {', '.join(better)} ({metric}, of {of_tested})"
    else:
        first = (
            f"no {named} is shown to beat {UNTRAINED_NAME} ({metric}, {of_tested}), which is not "
            "evidence that none does"
        )
    return f"{first}; it beats: {', '.join(worse)}" if worse else first


def untrained_notes(
    values: Mapping[str, float],
    untrained: float | None,
    metric: str,
    mode: _Mode,
    *,
    unit: Literal["candidate", "mixture"],
) -> list[str]:
    """Return notes on single runs that start from the weights of the model as it is.

    Args:
        values: Name of what was trained to its metric; values that are not finite do not count.
        untrained: The metric of the model as it is; None if it was not measured.
        metric: Name of the metric.
        mode: "max" if a larger value of the metric is better, else "min".
        unit: What the names are names of.

    Returns:
        Whether anything beats it, and what differs if the metric is a surrogate; nothing if the
        metric is undefined or was not measured.

    Example:
        >>> notes = untrained_notes({"a": 0.7, "b": 0.5}, 0.6, "acc", "max", unit="candidate")
        >>> notes[0]
        '1 of 2 candidates is better than the model as it is by acc (1 pair; a verdict needs 5)'
    """
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    if not finite or untrained is None or not math.isfinite(untrained):
        return []
    pairs = {
        name: compare_paired([value], [untrained], mode=mode) for name, value in finite.items()
    }
    notes = [against_untrained(pairs, metric, mode, unit=unit)]
    if is_surrogate(metric):
        notes.append(
            f"surrogate validation of {UNTRAINED_NAME} uses examples of all candidates, that of a "
            f"{unit} only those of the others"
        )
    return notes
