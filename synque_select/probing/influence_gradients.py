"""Gradients of candidates and validation data at the checkpoints of a fit, kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from synque_select.errors import DataError, LightningError, SynqueError
from synque_select.functional.influence import adam_direction
from synque_select.functional.projection import random_projection
from synque_select.probing.checkpointed_fit import AdamMoment, Checkpoint
from synque_select.probing.example_gradients import (
    ExampleGradients,
    as_in_evaluation,
    chosen_parameters,
)
from synque_select.probing.influence_data import Part
from synque_select.probing.tensor_files import TensorFiles
from synque_select.training.comparability import weights_sha256
from synque_select.types import GradientKind
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyTrainer

__all__ = ["GradientTaker", "Taken"]


class _Gradients(NamedTuple):
    """Gradients of the examples of a part.

    Attributes:
        rows: (n, k) projected gradients, each of length 1 before the projection.
        norms: (n,) their lengths before.
    """

    rows: Tensor
    norms: Tensor


@dataclass(frozen=True)
class Taken:
    """What was taken at a checkpoint.

    Args:
        rate: Mean learning rate up to it.
        kind: The parameters whose gradients were taken.
        n_parameters: Number of these parameters.
        is_preconditioned: Whether gradients of candidates are directions of Adam's steps.
        parts: The gradients of each part.
    """

    rate: float
    kind: GradientKind
    n_parameters: int
    is_preconditioned: bool
    parts: Sequence[_Gradients]

    def scaled(self, *, unit_length: bool) -> list[Tensor]:
        """Return (n, k) gradients of each part, at one scale.

        Args:
            unit_length: Whether each has length 1; otherwise the root mean square length is 1,
                over all candidates and over the validation data, which is the last part.
        """
        if unit_length:
            return [part.rows for part in self.parts]
        *candidates, validation = [part.norms for part in self.parts]
        scale = torch.cat(candidates).square().mean().sqrt()
        scales = [scale] * len(candidates) + [validation.square().mean().sqrt()]
        return [
            part.rows * (part.norms / scale).unsqueeze(1)
            for part, scale in zip(self.parts, scales, strict=True)
        ]


@dataclass(frozen=True)
class GradientTaker:
    """Takes the gradients of all parts at a checkpoint, except for those that are kept.

    Args:
        parts: The candidates, then the validation data, whose gradients are not preconditioned.
        files: Where gradients are kept.
        kind: Parameters whose gradients are taken, as in `chosen_parameters`.
        dims: Dimensions to project to.
        seed: Random seed of the projection, and of transforms.
        batch_size: Most examples per batch.
        bar: Counts the examples.
        identity: Hash of what the module was before training; see `module_sha256`.
    """

    parts: Sequence[Part]
    files: TensorFiles
    kind: GradientKind | Literal["auto"]
    dims: int
    seed: int
    batch_size: int
    bar: ProgressBar
    identity: str

    def __call__(self, trainer: AnyTrainer, checkpoint: Checkpoint) -> Taken:
        """Take them with the weights that the Trainer's module has."""
        module = trainer.lightning_module
        with as_in_evaluation(module), trainer.precision_plugin.forward_context():
            first = self.parts[0]
            batch = _batch(trainer, first, [first.example(0)])
            kind, chosen = chosen_parameters(module, self.kind, batch)
            moments = _moments(checkpoint, chosen)
            about = [
                [self.identity, weights_sha256(module)],
                [list(chosen), self.dims, self.seed, trainer.precision],
            ]
            parts = []
            for part in self.parts:
                to_batch = partial(_batch, trainer, part)
                gradients = ExampleGradients(module, chosen, to_batch, self.batch_size)
                own = None if part is self.parts[-1] else moments
                key = self.files.key(about, part.sha256, own)
                parts.append(self._part(key, gradients, part, own))
        n_parameters = sum(p.numel() for p in chosen.values())
        return Taken(checkpoint.rate, kind, n_parameters, moments is not None, parts)

    def _part(
        self,
        key: str,
        gradients: ExampleGradients,
        part: Part,
        moments: Sequence[AdamMoment] | None,
    ) -> _Gradients:
        kept = self.files.load(key)
        if kept is None:
            with seeded(self.seed):  # a transform may be random
                kept = self._computed(gradients, part, moments)
            self.files.keep(key, kept)
        else:
            self.bar.update(part.n)
        return _Gradients(kept["rows"].float(), kept["norms"])

    def _computed(
        self, gradients: ExampleGradients, part: Part, moments: Sequence[AdamMoment] | None
    ) -> dict[str, Tensor]:
        rows, norms = [], []
        for start in range(0, part.n, gradients.batch_size):
            stop = min(part.n, start + gradients.batch_size)
            batch = _gradients(gradients, part, range(start, stop))
            if moments is not None:
                batch = _directions(batch, moments)
            lengths = batch.norm(dim=1)
            unit = batch / lengths.clamp(min=torch.finfo(batch.dtype).tiny).unsqueeze(1)
            rows.append(random_projection(unit, self.dims, seed=self.seed).half().cpu())
            norms.append(lengths.cpu())
            self.bar.update(stop - start)
        _check_lengths(part, torch.cat(norms))
        return {"rows": torch.cat(rows), "norms": torch.cat(norms)}


def _batch(trainer: AnyTrainer, part: Part, examples: list[object]) -> object:
    """Return a batch as `training_step` gets it from the Trainer."""
    moved = trainer.strategy.batch_to_device(part.collate(examples))
    return trainer.precision_plugin.convert_input(moved)


def _moments(checkpoint: Checkpoint, chosen: dict[str, nn.Parameter]) -> list[AdamMoment] | None:
    """Return the moments of all chosen parameters; None if one has none, as with SGD."""
    found_all = all(name in checkpoint.moments for name in chosen)
    return [checkpoint.moments[name] for name in chosen] if found_all else None


def _gradients(gradients: ExampleGradients, part: Part, positions: range) -> Tensor:
    """Compute gradients; what the user's code raises becomes an error that names the part."""
    try:
        return gradients([part.example(i) for i in positions])
    except SynqueError:
        raise
    except Exception as error:  # whatever the module raises
        raise LightningError(
            f"{part.name}: training_step fails on its examples in evaluation mode: "
            f"{type(error).__name__}: {error}. It must take a batch of one example; validation "
            "batches must have the form of training batches"
        ) from error


def _directions(gradients: Tensor, moments: Sequence[AdamMoment]) -> Tensor:
    """Return the direction of Adam's step on each gradient, parameter by parameter."""
    sizes = [moment.second.numel() for moment in moments]
    return torch.cat(
        [
            adam_direction(part, m.second.flatten().to(part), m.step, m.beta2, m.eps)
            for part, m in zip(torch.split(gradients, sizes, dim=1), moments, strict=True)
        ],
        dim=1,
    )


def _check_lengths(part: Part, norms: Tensor) -> None:
    if not bool(norms.isfinite().all()):
        raise DataError(
            f"{part.name}: the gradient of an example is not finite; the fit may have diverged: "
            "lower the learning rate"
        )
    if not bool(norms.any()):
        raise DataError(
            f"{part.name}: all gradients are 0, so that nothing can be said of its influence; the "
            "loss of a batch of one example must depend on the parameters"
        )
