"""Losses and outputs of a module in the middle of its training, on candidates and real examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError, LightningError, SynqueError
from synque_select.training.example_positions import ExamplePositions
from synque_select.training.lightning_compat import (
    flattened_loaders,
    is_overridden,
    lightning_module_of,
)
from synque_select.training.mixture_loader import MixtureDataset, MixtureLoader, training_example
from synque_select.training.module_state import unchanged_module
from synque_select.training.training_step import (
    call_step,
    check_gives_losses,
    loss_of,
    training_batch,
)
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule, AnyTrainer

__all__ = ["TrainingEvaluation", "check_whole_model"]

_PREDICT = "predict_step"
_REAL = "real"


class TrainingEvaluation:
    """Evaluates a module that is being trained; see `ModelEvaluation` for the methods.

    Examples become batches as in training: `train_transform`, `collate_fn`, the hooks that transfer
    batches, and the precision of the trainer. Losses are those of `training_step`. From the first
    evaluation to the end of the `with` block the module is in eval mode, without gradients; then
    everything is as it was, see `unchanged_module`. The module is called on one process alone,
    directly and not through the strategy's wrapper.

    Args:
        trainer: The trainer, in a fit.
        datamodule: Its DataModule.
        positions: Which examples come next.
        outputs: Name of the module's method that returns outputs for a batch; None for
            `predict_step`.
        seed: Random seed of transforms and of the module.
    """

    def __init__(
        self,
        trainer: AnyTrainer,
        datamodule: AnySynqueDataModule,
        positions: ExamplePositions,
        *,
        outputs: str | None,
        seed: int,
    ) -> None:
        self._trainer, self._datamodule = trainer, datamodule
        self._positions, self._outputs, self._seed = positions, outputs, seed
        module = trainer.lightning_module
        assert module is not None
        self._module: AnyModule = module
        self._stack = ExitStack()
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._is_open = False

    @cached_property
    def _loader(self) -> MixtureLoader:
        return _mixture_loader(self._trainer)

    @cached_property
    def _dataset(self) -> MixtureDataset:
        dataset = self._loader.dataset
        assert isinstance(dataset, MixtureDataset)
        return dataset

    @cached_property
    def _candidates(self) -> dict[str, Candidate]:
        """The candidates that may be drawn, as training has them: without what is held out."""
        return {candidate.name: candidate for candidate in self._dataset.candidates}

    def _open(self) -> None:
        """Begin to evaluate; a policy that evaluates nothing costs nothing."""
        if not self._is_open:
            check_whole_model(self._trainer)
            unchanged = unchanged_module(self._trainer, self._module, self._seed)
            self._stack.enter_context(unchanged)
            self._is_open = True

    def n_candidate(self, name: str) -> int:
        """Return the number of training examples of a candidate."""
        return len(self._candidates[name])

    def n_surrogate(self, name: str) -> int:
        """Return the number of a candidate's examples that are held out for validation."""
        return len(self._held_out(name))

    def n_real(self) -> int:
        """Return the number of real examples."""
        return len(self._real())

    def candidate_loss(self, name: str, n: int) -> float:
        """Return the mean loss on n training examples of a candidate."""
        self._check_losses()
        return self._mean_loss(self._candidate_examples(name, n))

    def surrogate_loss(self, name: str, n: int) -> float:
        """Return the mean loss on n held-out examples of a candidate."""
        self._check_losses()
        surrogate, owned = self._datamodule.surrogate, self._held_out(name)
        assert surrogate is not None
        places = self._positions.take(f"surrogate {name}", n, of=len(owned))
        return self._mean_loss(lambda: (surrogate[owned[place]] for place in places))

    def real_outputs(self, n: int) -> Tensor:
        """Return outputs of the model, (n, d) float32 on the CPU, on n real examples."""
        real = self._real()
        template = next(iter(self._candidates.values()))
        places = self._positions.take(_REAL, n, of=len(real))
        return self._all_outputs(
            lambda: (
                _as_training_example(real, p, template, self._dataset.transform) for p in places
            )
        )

    def candidate_outputs(self, name: str, n: int) -> Tensor:
        """Return outputs of the model, (n, d) float32 on the CPU, on n examples of a candidate."""
        return self._all_outputs(self._candidate_examples(name, n))

    def _candidate_examples(self, name: str, n: int) -> Callable[[], Iterator[object]]:
        candidate = self._candidates[name]
        places = self._positions.take(f"candidate {name}", n, of=len(candidate))
        return lambda: (
            training_example(candidate, place, self._dataset.transform) for place in places
        )

    def _held_out(self, name: str) -> list[int]:
        surrogate = self._datamodule.surrogate
        if surrogate is None:
            raise ConfigError(
                "the policy needs examples that are held out of training: give "
                "SynqueDataModule(val='surrogate')"
            )
        (owner,) = (k for k, part in enumerate(surrogate.candidates) if part.name == name)
        owned: list[int] = np.flatnonzero(surrogate.owners == owner).tolist()
        if not owned:
            raise ConfigError(
                f"the candidate {name!r} has no held-out examples: raise size= or held_out= of "
                "SurrogateOptions"
            )
        return owned

    def _real(self) -> RealSample:
        real = self._datamodule.real
        if real is None:
            raise ConfigError("the policy needs a real sample: give SynqueDataModule(real=…)")
        return real

    def _check_losses(self) -> None:
        """Refuse modules whose `training_step` cannot be called for its loss alone."""
        check_gives_losses(
            self._module, ": take a policy that needs no losses, such as 'agreement' or 'static'"
        )

    def _mean_loss(self, examples: Callable[[], Iterator[object]]) -> float:
        """Return the mean of the losses of batches, weighted by their numbers of examples.

        A batch for which `training_step` returns None has no loss, as in training; NaN if none has.
        """
        total, n_all = 0.0, 0
        for n, result in self._results(examples, "training_step"):
            if result is not None:
                total += n * float(loss_of(result, self._module))
                n_all += n
        return total / n_all if n_all else math.nan

    def _all_outputs(self, examples: Callable[[], Iterator[object]]) -> Tensor:
        method = self._outputs or _PREDICT
        if not callable(getattr(self._module, method, None)):
            raise ConfigError(
                f"outputs={method!r}: {type(self._module).__name__} has no method of this name"
            )
        return torch.cat(
            [
                _matrix_of(result, n, f"{type(self._module).__name__}.{method}")
                for n, result in self._results(examples, method)
            ]
        )

    def _results(
        self, examples: Callable[[], Iterator[object]], method: str
    ) -> list[tuple[int, Any]]:
        """Return the number of examples of each batch, and what a method returns for it."""
        self._open()
        size = self._loader.batch_size or 1
        results = []
        rest = examples()
        while part := list(islice(rest, size)):
            batch = training_batch(self._trainer, self._loader.collate_fn, part)
            results.append((len(part), self._call(method, batch)))
        return results

    def _call(self, method: str, batch: Any) -> Any:
        module = self._module
        try:
            with self._trainer.precision_plugin.train_step_context():
                return call_step(module, method, batch)
        except SynqueError:
            raise
        except Exception as error:  # the user's code may raise anything
            hint = "" if method == "training_step" or self._outputs else _hint(module)
            raise LightningError(
                f"{type(module).__name__}.{method} fails when ReselectionCallback calls it for a "
                f"policy: {type(error).__name__}: {error}{hint}"
            ) from error


def check_whole_model(trainer: AnyTrainer) -> None:
    """Refuse strategies under which a rank has only a part of the model.

    Raises:
        LightningError: The trainer has such a strategy and more than one rank.
    """
    strategies = lightning_module_of(trainer, "strategies")
    sharded = (
        strategies.FSDPStrategy,
        strategies.ModelParallelStrategy,
        strategies.DeepSpeedStrategy,
    )
    if trainer.world_size > 1 and isinstance(trainer.strategy, sharded):
        raise LightningError(
            f"{type(trainer.strategy).__name__} splits the model over the ranks, but a policy "
            "evaluates it on rank 0 alone: train with DDP or on one device, or take the policy "
            "'static'"
        )


def _hint(module: AnyModule) -> str:
    is_own = is_overridden(_PREDICT, module)
    default = "" if is_own else ". Lightning's own predict_step calls forward with the whole batch"
    return (
        f"{default}. Define a predict_step that takes a batch, or name another method that does: "
        "ReselectionCallback(outputs='embed')"
    )


def _mixture_loader(trainer: AnyTrainer) -> MixtureLoader:
    """Return the train loader; one in a collection would need batches of the others."""
    loader: Any = trainer.train_dataloader
    if isinstance(loader, MixtureLoader):
        return loader
    n_loaders = len(flattened_loaders(getattr(loader, "iterables", loader)))
    raise LightningError(
        f"the training batches come from a collection of {counted(n_loaders, 'loader')}, so none "
        "can be made of the examples of one candidate: wrap a DataModule whose train_dataloader "
        "returns a DataLoader, or take the policy 'static'"
    )


def _as_training_example(
    real: RealSample, position: int, template: Candidate, transform: Callable[[Any], Any] | None
) -> object:
    """Return a real example in the form of training examples, with a label that is not its own.

    Where the label is a field, it is that of an example of a candidate, so that a transform finds
    one and no label of the real sample is read.
    """
    example = _with_label_of(template, real, position)
    try:
        return example if transform is None else transform(example)
    except Exception as error:  # the user's transform may raise anything
        raise ConfigError(
            f"{real.where}, example {position} (counted from 0): train_transform fails: "
            f"{type(error).__name__}: {error}. The policy needs outputs of the model on the real "
            "sample, so its examples must have the form of training examples; where these have a "
            "label, label= of SynqueDataModule names its field, and the real ones need none"
        ) from error


def _with_label_of(template: Candidate, real: RealSample, position: int) -> object:
    """Return a real example with the label of a candidate's first example, under its fields."""
    example, first = real[position], template[0]
    label, view = template.label, template.selector
    if isinstance(first, Mapping) and isinstance(view, str):
        fields = dict(example) if isinstance(example, Mapping) else {view: example}
        if view not in fields and isinstance(real.selector, str):
            fields[view] = fields[real.selector]
        return {**fields, label: first[label]} if isinstance(label, str) else fields
    if isinstance(example, tuple | list) and isinstance(label, int):
        return type(example)([*example[:label], first[label], *example[label + 1 :]])
    return example


def _matrix_of(result: Any, n: int, method: str) -> Tensor:
    if not (isinstance(result, Tensor) and result.ndim and len(result) == n):
        what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise LightningError(
            f"{method} returns {what} for a batch of {counted(n, 'example')}; allowed is a tensor "
            "with one row per example. Name a method that returns one: "
            "ReselectionCallback(outputs='embed')"
        )
    return result.detach().reshape(n, -1).float().cpu()
