"""Gradients of candidates and validation data at the checkpoints of a fit, kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, get_args

import torch
from torch import Tensor

from synque_select.errors import DataError
from synque_select.functional.influence import adam_direction
from synque_select.functional.projection import random_projection
from synque_select.probing.checkpointed_fit import AdamMoment, adam_moments
from synque_select.probing.example_gradients import ExampleGradients, chosen_parameters
from synque_select.probing.influence_data import Part, naming
from synque_select.probing.influence_options import InfluenceOptions
from synque_select.probing.tensor_files import TensorFiles
from synque_select.training.comparability import weights_sha256
from synque_select.training.module_state import unchanged_module
from synque_select.training.training_step import training_batch
from synque_select.types import GradientKind
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import listed

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyTrainer

__all__ = ["GradientTaker", "Taken"]

_KINDS: tuple[GradientKind, ...] = get_args(GradientKind)
_FAILS = (
    "training_step fails on its examples in evaluation mode: {error}. It must take a batch of one "
    "example; validation batches must have the form of training batches"
)


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
        key: Hash of everything that affects the fit, and of the options below.
        options: Which gradients, their dimensions, and the random seed of the projection and of
            transforms.
        batch_size: Most examples per batch.
        bar: Counts the examples.
    """

    parts: Sequence[Part]
    files: TensorFiles
    key: str
    options: InfluenceOptions
    batch_size: int
    bar: ProgressBar

    def kept(self, number: int) -> Taken | None:
        """Return what an earlier run took at a checkpoint; None if any of it is missing."""
        about = self.files.load(self._key(number))
        if about is None:
            return None
        weights = about["weights"].numpy().tobytes().hex()
        parts = []
        for part in self.parts:
            kept = self.files.load(self._part_key(weights, part))
            if kept is None:
                return None
            parts.append(_Gradients(kept["rows"].float(), kept["norms"]))
        self.bar.update(sum(part.n for part in self.parts))
        rate, kind, n_parameters, is_preconditioned = about["numbers"].tolist()
        return Taken(
            rate, _KINDS[int(kind)], int(n_parameters), bool(is_preconditioned), tuple(parts)
        )

    def take(self, trainer: AnyTrainer, number: int, rate: float) -> Taken:
        """Take them at a checkpoint, with the weights that the Trainer's module has."""
        module = trainer.lightning_module
        assert module is not None
        _check_weights(trainer)
        weights, moments = weights_sha256(module), adam_moments(trainer)
        context = trainer.precision_plugin.train_step_context
        with unchanged_module(trainer, module, self.options.seed):
            first = self.parts[0]
            with naming(first, _FAILS), context():
                examples = [first.example(i) for i in range(min(first.n, self.batch_size))]
                batch = training_batch(trainer, first.collate, examples)
                kind, chosen = chosen_parameters(module, self.options.gradients, batch)
            has_moments = chosen.keys() <= moments.keys()  # as with Adam
            parts = []
            for part in self.parts:
                of_batch = partial(training_batch, trainer, part.collate)
                gradients = ExampleGradients(module, chosen, of_batch, self.batch_size, context)
                is_candidate = part is not self.parts[-1]
                own = [moments[n] for n in chosen] if has_moments and is_candidate else None
                parts.append(self._part(weights, part, gradients, list(chosen), own))
        n_parameters = sum(p.numel() for p in chosen.values())
        numbers = [rate, _KINDS.index(kind), n_parameters, has_moments]
        about = {
            "weights": torch.tensor(list(bytes.fromhex(weights)), dtype=torch.uint8),
            "numbers": torch.tensor(numbers, dtype=torch.float64),
        }
        self.files.keep(self._key(number), about)
        return Taken(rate, kind, n_parameters, has_moments, parts)

    def _key(self, *parts: object) -> str:
        return self.files.key(self.key, *parts)

    def _part_key(self, weights: str, part: Part) -> str:
        return self._key(weights, part.sha256, part is self.parts[-1])

    def _part(
        self,
        weights: str,
        part: Part,
        gradients: ExampleGradients,
        names: Sequence[str],
        moments: Sequence[AdamMoment] | None,
    ) -> _Gradients:
        key = self._part_key(weights, part)
        kept = self.files.load(key)
        if kept is None:
            with seeded(self.options.seed):  # a transform may be random
                kept = self._computed(part, gradients, names, moments)
            self.files.keep(key, kept)
        else:
            self.bar.update(part.n)
        return _Gradients(kept["rows"].float(), kept["norms"])

    def _computed(
        self,
        part: Part,
        gradients: ExampleGradients,
        names: Sequence[str],
        moments: Sequence[AdamMoment] | None,
    ) -> dict[str, Tensor]:
        rows, norms = [], []
        for start in range(0, part.n, gradients.batch_size):
            stop = min(part.n, start + gradients.batch_size)
            with naming(part, _FAILS):
                batch = gradients([part.example(i) for i in range(start, stop)])
            if moments is not None:
                batch = _directions(batch, moments)
            lengths = batch.norm(dim=1)
            _check_finite(part, lengths, start)
            unit = batch / lengths.clamp(min=torch.finfo(batch.dtype).tiny).unsqueeze(1)
            rows.append(
                random_projection(unit, self.options.dims, seed=self.options.seed).half().cpu()
            )
            norms.append(lengths.cpu())
            self.bar.update(stop - start)
        if not bool(torch.cat(norms).any()):
            raise DataError(
                f"{part.name}: all gradients of {listed(names)} are 0, so that nothing can be said "
                "of its influence; the loss of a batch of one example must depend on these "
                "parameters"
            )
        return {"rows": torch.cat(rows), "norms": torch.cat(norms)}


def _check_weights(trainer: AnyTrainer) -> None:
    bad = [n for n, p in trainer.lightning_module.named_parameters() if not p.isfinite().all()]
    if bad:
        raise DataError(
            f"step {trainer.global_step} of the fit: {listed(bad)} have weights that are not "
            "finite: lower the learning rate, or remove examples whose loss is not finite"
        )


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


def _check_finite(part: Part, lengths: Tensor, start: int) -> None:
    bad = torch.nonzero(~lengths.isfinite()).flatten().tolist()
    if bad:
        position = part.positions[start + bad[0]]
        raise DataError(
            f"{part.name}, example {position} (counted from 0): its gradient is not finite: "
            "remove the example"
        )
