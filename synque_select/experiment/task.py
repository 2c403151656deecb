"""The task of an experiment: candidates, real samples, a model and a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from synque_select.data.candidate import Candidate, RealSample, check_not_drawn
from synque_select.data.examples import Examples, MapDataset
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.proxies.registry import ProxySpec
from synque_select.types import Mixture
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyModule

__all__ = [
    "BaseTask",
    "Transformed",
    "check_task",
    "part_of",
    "sized",
    "sized_positions",
    "unseen",
]

_E = TypeVar("_E", bound=Examples)


class BaseTask(ABC):
    """Base class of all tasks; a subclass sets the attributes and implements the abstract methods.

    The module that `model` returns must log `val_<metric>` in validation and `test_<metric>` in
    test.

    Attributes:
        name: Name of the recipe, used for its run directories.
        metric: Name of the two logged metrics, without `val_` and `test_`.
        mode: "max" if a larger value of the metric is better, else "min".
        n_distinct: Number of distinct examples that every arm trains on.
        max_steps: Number of optimizer steps of a fit.
        batch_size: Number of examples per step.
        num_workers: Number of worker processes of each data loader.
        encoder: Encoder of the views; None for the default of their modality.
        proxies: The proxies that score the candidates; None for the default suite.
        false_labels: Name of each candidate with false labels to the name of its clean twin.
        collate_fn: Function that makes a batch of examples; None for torch's default.
        outputs: Name of the module's method that returns outputs for a batch, for the policy
            `agreement`; None for `predict_step`.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    mode: ClassVar[Literal["max", "min"]] = "max"
    n_distinct: int
    max_steps: int
    batch_size: int
    num_workers: int = 0
    encoder: str | BaseEncoder | None = None
    proxies: Sequence[ProxySpec] | None = None
    false_labels: Mapping[str, str] = {}
    collate_fn: Callable[[list[Any]], Any] | None = None
    outputs: str | None = None

    @property
    def datamodule_class(self) -> type[AnySynqueDataModule]:
        """The SynqueDataModule of the package of `model`'s module.

        A task whose module comes from the package `lightning` returns
        `synque_select.lightning.SynqueDataModule`.
        """
        from synque_select.training.pytorch_lightning import SynqueDataModule

        return SynqueDataModule

    @property
    @abstractmethod
    def candidates(self) -> list[Candidate]:
        """The candidates; each has at least `n_distinct` examples."""

    @property
    @abstractmethod
    def validation(self) -> Examples:
        """Labeled real examples for selection by labels; none of them is in a real sample."""

    @property
    @abstractmethod
    def test(self) -> Examples:
        """Labeled real examples for all reported metrics; none of them is in a real sample."""

    @abstractmethod
    def real_sample(self, replicate: int) -> RealSample:
        """Return the unlabeled real sample of a replicate; each call returns the same one."""

    @abstractmethod
    def model(self, seed: int) -> AnyModule:
        """Create a fresh module; equal seeds give equal initial weights.

        Called once per fit, with the global random state seeded and restored afterwards.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, object]:
        """Return everything besides the views that changes a fit: labels, hyper-parameters.

        The values are plain. A finished fit is reused only if they are equal.
        """

    def transform(self, record: Any) -> object:
        """Convert a record to an example for validation and test."""
        return record

    def train_transform(self, record: Any) -> object:
        """Convert a record to a training example; by default as for validation and test."""
        return self.transform(record)

    def trainer_options(self) -> Mapping[str, Any]:
        """Return arguments of the Trainer other than the budget: accelerator, precision, …."""
        return {}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Return sentences about the task that a reader of the final tables must see.

        Args:
            test: Candidate to the mean test metric of the fits on it alone.
        """
        return ()

    def arm_messages(
        self, metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]
    ) -> Sequence[str]:
        """Return further measurements of the arms, as sentences.

        Args:
            metrics: Arm to replicate to the metrics of its fits; "single" has one fit per
                candidate.
        """
        return ()

    def datamodule(
        self, candidates: Sequence[Candidate], mixture: Mixture, *, seed: int, **options: Any
    ) -> AnySynqueDataModule:
        """Create the DataModule that a fit is trained and measured on.

        Args:
            candidates: The candidates, each with the examples that may be drawn.
            mixture: The mixture.
            seed: Random seed for the order of the examples.
            options: Further arguments of the DataModule, or others in place of those of the task;
                fits with a policy give `real` and maybe `val`.
        """
        given: dict[str, Any] = {
            "mixture": mixture,
            "train_transform": self.train_transform,
            "seed": seed,
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": self.collate_fn,
            "val": Transformed(self.validation, self.transform),
            "test": Transformed(self.test, self.transform),
        }
        return self.datamodule_class(list(candidates), **{**given, **options})


class Transformed(Dataset[object]):
    """Examples whose records pass through a function.

    Args:
        examples: The examples.
        transform: Function of one record.
    """

    def __init__(self, examples: MapDataset, transform: Callable[[Any], object]) -> None:
        self._examples = examples
        self._transform = transform

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> object:
        return self._transform(self._examples[index])


def unseen(examples: Examples, *samples: Examples) -> list[int]:
    """Return the positions of the examples whose content is in none of the samples.

    Use it for the validation and test data, with the real samples of all replicates.

    Example:
        >>> seen, labeled = RealSample("real", ["a", "b"]), Examples("labeled", ["b", "c"])
        >>> unseen(labeled, seen)
        [1]
    """
    known = {row.tobytes() for sample in samples for row in sample.digests}
    return [i for i, row in enumerate(examples.digests) if row.tobytes() not in known]


def part_of(examples: _E, positions: Sequence[int]) -> _E:
    """Return the examples at these positions, under the same name.

    Example:
        >>> list(part_of(Candidate("a", ["x", "y", "z"]), [2, 0]))
        ['z', 'x']
    """
    part: Subset[Any] = Subset(examples.dataset, positions)  # type: ignore[arg-type]
    return type(examples)(examples.name, part, examples.selector, examples.label, examples.source)


def sized(candidate: Candidate, n: int, *, seed: int) -> Candidate:
    """Return n random examples of a candidate; the whole candidate if it has no more.

    Example:
        >>> len(sized(Candidate("a", ["x", "y", "z"]), 2, seed=0))
        2
    """
    if n >= len(candidate):
        return candidate
    return part_of(candidate, sized_positions(len(candidate), n, seed=seed).tolist())


def sized_positions(size: int, n: int, *, seed: int) -> NDArray[np.int64]:
    """Return the positions that `sized` draws from a candidate of this size, in ascending order.

    Example:
        >>> sized_positions(3, 5, seed=0).tolist()
        [0, 1, 2]
    """
    order = np.random.default_rng([seed, size]).permutation(size)
    return np.sort(order[:n])


def check_task(task: BaseTask, samples: Sequence[RealSample]) -> None:
    """Check that real samples do not leak into the labeled data, and that all arms are possible.

    Raises:
        DataError: An example of a real sample is in validation or test, or a candidate is too
            small.
        ConfigError: The task names a candidate that does not exist, its budget is too small, or
            only some examples of a candidate were drawn.
    """
    for name in ("validation", "test"):
        part: Examples = getattr(task, name)
        leaked = len(part) - len(unseen(part, *samples))
        if leaked:
            raise DataError(
                f"task {task.name}: {leaked} of the {len(part)} {name} examples are in "
                "a real sample; remove them with synque_select.experiment.unseen"
            )
    least = 2 * len(task.candidates)
    if task.n_distinct < least:
        raise ConfigError(
            f"task {task.name}: n_distinct={task.n_distinct}; allowed is {least} or more, two "
            "examples of each candidate in the mixture of all"
        )
    check_not_drawn(task.candidates, "an experiment, whose arms have equally many examples,")
    small = [f"{c.name} ({len(c)})" for c in task.candidates if len(c) < task.n_distinct]
    if small:
        raise DataError(
            f"task {task.name}: every arm trains on "
            f"{counted(task.n_distinct, 'distinct example')}, but these "
            f"candidates have fewer: {', '.join(small)}"
        )
    names = {candidate.name for candidate in task.candidates}
    unknown = sorted({*task.false_labels, *task.false_labels.values()} - names)
    if unknown:
        raise ConfigError(
            f"task {task.name}: false_labels names candidates that do not exist: {unknown}"
        )
