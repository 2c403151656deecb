"""What a recipe gives to an experiment: candidates, real samples, a model, a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pytorch_lightning import LightningModule
from torch.utils.data import Dataset, Subset

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.proxies.registry import ProxySpec
from synque_select.training.datamodule import SynqueDataModule
from synque_select.types import Mixture

__all__ = ["BaseTask", "check_task", "sized", "unseen"]


class BaseTask(ABC):
    """Base of all recipes' tasks; a subclass sets the attributes and writes what is abstract.

    The module that `model` returns logs `val_<metric>` in validation and `test_<metric>` in test.

    Attributes:
        name: The recipe's name; runs are kept under it.
        metric: Of the two logged figures, without `val_` and `test_`.
        mode: Whether a larger ("max") or a smaller ("min") figure is better.
        n_distinct: Distinct examples that every arm trains on.
        max_steps: Optimiser steps of a fit.
        batch_size: Examples a step.
        encoder: Of the views; None for the default of their modality.
        proxies: What scores the candidates; None for the default suite.
        false_labels: Names of candidates with false labels, to the names of their clean twins.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    mode: ClassVar[Literal["max", "min"]] = "max"
    n_distinct: int
    max_steps: int
    batch_size: int
    encoder: str | BaseEncoder | None = None
    proxies: Sequence[ProxySpec] | None = None
    false_labels: Mapping[str, str] = {}

    @property
    @abstractmethod
    def candidates(self) -> list[Candidate]:
        """The candidates; each has at least `n_distinct` examples."""

    @property
    @abstractmethod
    def validation(self) -> Examples:
        """Labeled real examples for whatever is chosen by labels; in no real sample."""

    @property
    @abstractmethod
    def test(self) -> Examples:
        """Labeled real examples for every figure that is reported; in no real sample."""

    @abstractmethod
    def real_sample(self, replicate: int) -> RealSample:
        """Draw the unannotated real sample of a replicate; equal replicates, equal samples."""

    @abstractmethod
    def model(self, seed: int) -> LightningModule:
        """Make a fresh module; equal seeds give equal initial weights.

        Called once a fit, with the global random state seeded and restored afterwards.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Return all that changes a fit and is not seen in the views: labels, hyper-parameters.

        Plain values. A finished fit is taken from the store only where this is equal.
        """

    def transform(self, record: Any) -> Any:
        """Turn a record into a training example; the same for validation and test."""
        return record

    collate_fn: Callable[[list[Any]], Any] | None = None

    def trainer_options(self) -> Mapping[str, Any]:
        """Return arguments of the Trainer beside the budget: accelerator, precision, …."""
        return {}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Return what a reader of the closing tables must know of the task.

        Args:
            test: Candidate to the mean test figure of the fits on it alone.
        """
        return ()

    def arm_messages(
        self, metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]
    ) -> Sequence[str]:
        """Return what else was measured of the arms, in sentences.

        Args:
            metrics: Arm to replicate to the metrics of its fits; "single" has one a candidate.
        """
        return ()

    def datamodule(
        self, candidates: Sequence[Candidate], mixture: Mixture, *, seed: int
    ) -> SynqueDataModule:
        """Make what a fit is trained and measured on."""
        return SynqueDataModule(
            list(candidates),
            mixture=mixture,
            train_transform=self.transform,
            seed=seed,
            batch_size=self.batch_size,
            num_workers=0,
            collate_fn=self.collate_fn,
            val=_Transformed(self.validation, self.transform),
            test=_Transformed(self.test, self.transform),
        )


class _Transformed(Dataset[Any]):
    def __init__(self, examples: Examples, transform: Callable[[Any], Any]) -> None:
        self._examples = examples
        self._transform = transform

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._examples[index])


def unseen(examples: Examples, *samples: Examples) -> list[int]:
    """Return the positions of the examples whose content is in none of the samples.

    Use it on what is to become validation and test, with the real sample of every replicate.

    Example:
        >>> seen, labeled = RealSample("real", ["a", "b"]), Examples("labeled", ["b", "c"])
        >>> unseen(labeled, seen)
        [1]
    """
    known = {row.tobytes() for sample in samples for row in sample.digests}
    return [i for i, row in enumerate(examples.digests) if row.tobytes() not in known]


def sized(candidate: Candidate, n: int, *, seed: int) -> Candidate:
    """Return the candidate cut to n random examples; itself where it has no more.

    Example:
        >>> len(sized(Candidate("a", ["x", "y", "z"]), 2, seed=0))
        2
    """
    if n >= len(candidate):
        return candidate
    chosen = np.random.default_rng([seed, len(candidate)]).permutation(len(candidate))[:n]
    part: Subset[Any] = Subset(candidate.dataset, sorted(chosen.tolist()))  # type: ignore[arg-type]
    return Candidate(candidate.name, part, candidate.view, candidate.label, candidate.source)


def check_task(task: BaseTask, samples: Sequence[RealSample]) -> None:
    """Refuse a task that leaks, or whose candidates cannot give every arm the same budget.

    Raises:
        DataError: A real example is in validation or test, or a candidate is too small.
        ConfigError: The task names a candidate that does not exist, or its budget is too small.
    """
    for name in ("validation", "test"):
        part: Examples = getattr(task, name)
        leaked = len(part) - len(unseen(part, *samples))
        if leaked:
            raise DataError(
                f"task {task.name}: {leaked} of the {len(part)} {name} examples are in a real "
                "sample; take them out with synque_select.experiment.unseen"
            )
    least = 2 * len(task.candidates)
    if task.n_distinct < least:
        raise ConfigError(
            f"task {task.name}: n_distinct={task.n_distinct}; allowed is {least} or more, two "
            "examples of each candidate in the mixture of all"
        )
    small = [f"{c.name} ({len(c)})" for c in task.candidates if len(c) < task.n_distinct]
    if small:
        raise DataError(
            f"task {task.name}: every arm trains on {task.n_distinct} distinct examples, but these "
            f"candidates have fewer: {', '.join(small)}"
        )
    names = {candidate.name for candidate in task.candidates}
    unknown = sorted({*task.false_labels, *task.false_labels.values()} - names)
    if unknown:
        raise ConfigError(f"task {task.name}: false_labels names no candidate: {unknown}")
