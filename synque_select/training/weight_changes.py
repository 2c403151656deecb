"""Weights that change at a draw, in memory that the processes of a loader share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from synque_select.errors import ConfigError, LightningError, did_you_mean
from synque_select.training.apportionment import Floats
from synque_select.utils.json_types import JsonObject
from synque_select.utils.validation import is_number

__all__ = ["MOST_CHANGES", "ChangingWeights", "WeightChange", "WeightTable", "check_weights"]

MOST_CHANGES = 16_384
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class WeightChange:
    """Weights that hold from a draw on.

    Args:
        draw: The first draw, over all ranks, that they hold for.
        step: The trainer's number of optimizer steps when they were set.
        weights: Candidate name to weight; at least 0, and they sum to 1.
        trained: Number of draws that had been trained on when they were set.
    """

    draw: int
    step: int
    weights: dict[str, float]
    trained: int

    def to_dict(self) -> JsonObject:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> WeightChange:
        """Return the change that `to_dict` wrote."""
        weights = {str(name): float(weight) for name, weight in state["weights"].items()}
        return cls(int(state["draw"]), int(state["step"]), weights, int(state["trained"]))


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return a weight for each name, 0 where none is given.

    Raises:
        ConfigError: A name is not among `names`, or the weights are not numbers of at least 0 that
            sum to 1.

    Example:
        >>> check_weights({"a": 1.0}, ["a", "b"])
        {'a': 1.0, 'b': 0.0}
    """
    for name, weight in weights.items():
        if name not in names:
            raise ConfigError(
                f"weights name {name!r}, which is not a candidate that may be drawn: "
                f"{did_you_mean(name, names)}"
            )
        if not (is_number(weight) and np.isfinite(weight) and weight >= 0):
            raise ConfigError(f"the weight of {name!r} is {weight!r}: allowed is a number from 0")
    total = sum(weights.values())
    if abs(total - 1) > 1e-6:
        raise ConfigError(f"weights must sum to 1, found {total:.6g}")
    return {name: float(weights.get(name, 0.0)) for name in names}


class WeightTable:
    """The changes of the weights, in the order of their draws.

    It is in shared memory: worker processes, including persistent ones, see a change without being
    restarted. The process that trains writes; a change is written before any of its draws is
    requested from a worker, so that each draw has one meaning in all processes.

    Args:
        candidates: Names of the candidates that may be drawn.
        fixed: Name to weight of data that always has this share; the weights of the candidates
            are shares of the rest.

    Attributes:
        candidates: Names of the candidates, sorted.
        names: All names, sorted.

    Raises:
        ConfigError: A name occurs twice, or there is none.

    Example:
        >>> table = WeightTable(["a", "b"])
        >>> table.add(WeightChange(96, 2, {"a": 0.25, "b": 0.75}, 64))
        >>> table.number_at(95), table.number_at(96), table.weights(1).tolist()
        (0, 1, [0.25, 0.75])
    """

    def __init__(self, candidates: Sequence[str], fixed: Mapping[str, float] | None = None) -> None:
        if not candidates or len(set(candidates)) < len(candidates):
            raise ConfigError(
                f"candidates={list(candidates)}: allowed are distinct names, at least one"
            )
        self.candidates = tuple(sorted(candidates))
        self._fixed = dict(fixed or {})
        self.names = tuple(sorted((*candidates, *self._fixed)))
        # rows: draw, step, draws trained on; unused columns lie beyond every draw
        self._draws = _shared(torch.full((3, MOST_CHANGES), _NEVER))
        self._weights = _shared(torch.zeros(MOST_CHANGES, len(candidates), dtype=torch.float64))
        self._version = _shared(torch.zeros(1, dtype=torch.int64))
        self._view()

    def _view(self) -> None:
        self._starts, self._versions = self._draws.numpy()[0], self._version.numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {k: part for k, part in vars(self).items() if k not in ("_starts", "_versions")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._view()

    def __len__(self) -> int:
        return self.number_at(_NEVER - 1)

    @property
    def version(self) -> int:
        """Differs after anything but an addition, so that what was derived before is dropped."""
        return int(self._versions[0])

    @property
    def changes(self) -> tuple[WeightChange, ...]:
        """All changes."""
        n = len(self)
        rows = zip(self._draws[:, :n].T.tolist(), self._weights[:n].tolist(), strict=True)
        return tuple(
            WeightChange(draw, step, dict(zip(self.candidates, weights, strict=True)), trained)
            for (draw, step, trained), weights in rows
        )

    def number_at(self, draw: int) -> int:
        """Return how many changes hold at a draw; 0 for the weights that training began with."""
        return int(self._starts.searchsorted(draw, side="right"))

    def start(self, number: int) -> int:
        """Return the first draw of a change, counted from 1; 0 for number 0."""
        return int(self._starts[number - 1]) if number else 0

    def weights(self, number: int) -> Floats:
        """Return the weights of a change, counted from 1, in the order of `names`."""
        own = dict(zip(self.candidates, self._weights[number - 1].tolist(), strict=True))
        rest = 1 - sum(self._fixed.values())
        return np.array([self._fixed.get(name, own.get(name, 0.0) * rest) for name in self.names])

    def add(self, change: WeightChange) -> None:
        """Add a change, or replace the last one if it holds from the same draw on.

        Raises:
            LightningError: It begins before the last change does, or there are too many.
        """
        number = len(self)
        last = self.start(number)
        if number and change.draw == last:
            self._write(number - 1, change)
            self._version += 1
            return
        if number and change.draw < last:
            raise LightningError(
                f"weights were already set from draw {last:,} on; they cannot change at draw "
                f"{change.draw:,}"
            )
        if number == MOST_CHANGES:
            raise LightningError(
                f"weights have changed {MOST_CHANGES:,} times, which is the limit: change them "
                "less often"
            )
        self._write(number, change)

    def restore(self, changes: Sequence[WeightChange]) -> None:
        """Replace all changes.

        Raises:
            LightningError: As for `add`.
        """
        self._draws.fill_(_NEVER)
        for change in changes:
            self.add(change)
        self._version += 1

    def keep_until(self, trained: int) -> None:
        """Drop the changes that were made after so many draws had been trained on."""
        kept = [change for change in self.changes if change.trained <= trained]
        if len(kept) < len(self):
            self.restore(kept)

    def _write(self, row: int, change: WeightChange) -> None:
        # the draw comes last: it makes the row count
        weights = [change.weights[name] for name in self.candidates]
        self._weights[row] = torch.tensor(weights, dtype=torch.float64)
        self._draws[1:, row] = torch.tensor([change.step, change.trained])
        self._draws[0, row] = change.draw


class ChangingWeights:
    """The changes of the weights in a training, and from which draw on each may hold.

    Worker processes fetch batches ahead, so a change holds from `lag` batches after the draws that
    were trained on when it was made: 1 + num_workers · prefetch_factor batches. This does not
    depend on how far the workers have come, so that a resumed run changes at the same draws. A
    run that resumes with fewer workers keeps the lag of its checkpoint.

    Args:
        candidates: Names of the candidates that may be drawn.
        fixed: As for `WeightTable`.

    Attributes:
        table: The changes.
        lag: Number of batches between the end of the draws that were trained on and a change.
    """

    def __init__(self, candidates: Sequence[str], fixed: Mapping[str, float] | None = None) -> None:
        self._fixed = dict(fixed or {})
        self.table = WeightTable(candidates, fixed)
        self.lag = 1
        self._draws_per_batch = 1

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "table": None, "changes": self.table.changes, "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a table of one's own: only the workers of a loader share that of their process."""
        changes, names = state.pop("changes"), state.pop("names")
        vars(self).update(state)
        self.table = WeightTable(names, self._fixed)
        self.table.restore(changes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates that may be drawn, sorted."""
        return self.table.candidates

    def serve(self, draws_per_batch: int, n_ahead: int) -> None:
        """Say how a loader serves the draws.

        Args:
            draws_per_batch: Number of draws in a batch, over all ranks.
            n_ahead: Number of batches that its workers fetch ahead.
        """
        self._draws_per_batch = draws_per_batch
        self.lag = max(self.lag, 1 + n_ahead)

    def change(self, weights: Mapping[str, float], *, step: int, trained: int) -> int:
        """Set weights for later draws; returns the first draw that they hold for.

        Args:
            weights: Candidate name to weight; 0 for those that are left out.
            step: The trainer's number of optimizer steps.
            trained: Number of draws that were trained on, over all ranks.

        Raises:
            ConfigError: As for `check_weights`.
            LightningError: As for `WeightTable.add`.
        """
        full = check_weights(weights, self.names)
        first = trained + self.lag * self._draws_per_batch
        # no draw of the last change has been requested if this one could begin before it
        draw = max(first, self.table.start(len(self.table)))
        self.table.add(WeightChange(draw, step, full, trained))
        return draw

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "candidates": list(self.names),
            "lag": self.lag,
            "changes": [change.to_dict() for change in self.table.changes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the changes of a checkpoint.

        Raises:
            LightningError: In the checkpoint, the weights of other candidates could change.
        """
        names = tuple(state["candidates"])
        if names != self.names:
            raise LightningError(
                f"in the run that wrote the checkpoint, the weights of {', '.join(names)} could "
                f"change, but in this run those of {', '.join(self.names)} can: use the same "
                "candidates"
            )
        self.lag = max(self.lag, int(state["lag"]))
        self.table.restore([WeightChange.from_dict(change) for change in state["changes"]])


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.share_memory_()  # type: ignore[no-any-return, no-untyped-call]
