"""What the tasks of the recipes share: their data, the budget, labels that are classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file, load_real
from synque_select.encoders import BaseEncoder
from synque_select.experiment import BaseTask
from synque_select.experiment.task import part_of
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._real_data import (
    Classes,
    Draws,
    RealDraws,
    Split,
    split_labeled,
)
from synque_select.recipes.options import FitOptions

__all__ = ["ClassifiedTask", "RecipeData", "RecipeTask", "own_data"]


@dataclass(frozen=True)
class RecipeData:
    """The data of a task before validation and test are split.

    Args:
        candidates: The candidates.
        draws: The real samples.
        labeled: All labeled real examples.
        n_validation: Number of labeled real examples for validation; None for a third.
        released: Candidate to its released performance, higher is better; empty if unknown.
        messages: What a reader of the figures must know of the data.
    """

    candidates: list[Candidate]
    draws: RealDraws
    labeled: Examples
    n_validation: int | None = None
    released: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def own_data(
    paths: tuple[str | list[str], str, str],
    *,
    view: str,
    label: str,
    n_real: int | None,
    seed: int,
) -> RecipeData:
    """Load data of your own whose candidates and labeled examples have a view and a label.

    Args:
        paths: Candidates, real and labeled examples.
        view: The field that a proxy sees.
        label: The field with the label.
        n_real: Number of examples in a real sample; None for half of the real examples.
        seed: Random seed of the draws of real samples.

    Raises:
        DataError: A file cannot be read.
    """
    candidates, real, labeled = paths
    loaded = load_candidates(candidates, view=view, label=label)
    pool = load_real(real, view=view)
    return RecipeData(
        loaded,
        RealDraws(pool, n_real or len(pool) // 2, seed=seed),
        Examples("labeled", load_dataset_file(labeled), view, label, labeled),
    )


class RecipeTask(BaseTask):
    """A task with a budget from `FitOptions`, whose real samples are drawn from a pool.

    Args:
        candidates: The candidates.
        draws: The real samples.
        fit: The budget of a fit.
        encoder: Encoder of the views; None for the default of their modality.
        proxies: The proxies that score the candidates; None for the default suite.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        draws: Draws,
        fit: FitOptions,
        encoder: str | BaseEncoder | None,
        proxies: Sequence[ProxySpec] | None,
    ) -> None:
        self._candidates, self._draws = list(candidates), draws
        self.fit, self.encoder, self.proxies = fit, encoder, proxies
        self.n_distinct = fit.n_distinct or min(map(len, self._candidates))
        self.max_steps = fit.steps(self.n_distinct)
        self.batch_size = fit.batch_size

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates."""
        return self._candidates

    def real_sample(self, replicate: int) -> RealSample:
        """Return the real sample of a replicate, without labels."""
        return self._draws.draw(replicate)

    def trainer_options(self) -> Mapping[str, Any]:
        """Return the precision, if one is given."""
        return {} if self.fit.precision is None else {"precision": self.fit.precision}


class ClassifiedTask(RecipeTask):
    """A task whose labels are classes, and whose labeled examples are split once.

    Args:
        data: The data.
        fit: The budget of a fit.
        encoder: Encoder of the views; None for the default of their modality.
        proxies: The proxies that score the candidates; None for the default suite.

    Raises:
        DataError: A label is missing, or only labeled real examples have it.
    """

    def __init__(
        self,
        data: RecipeData,
        fit: FitOptions,
        encoder: str | BaseEncoder | None,
        proxies: Sequence[ProxySpec] | None,
    ) -> None:
        super().__init__(data.candidates, data.draws, fit, encoder, proxies)
        self._data = data
        self.classes = Classes(data.candidates)
        self.classes.check(data.labeled)

    @cached_property
    def validation(self) -> Examples:
        """Labeled real examples that no real sample can hold."""
        return self._part("validation", self._split.validation)

    @cached_property
    def test(self) -> Examples:
        """The other labeled real examples that no real sample can hold."""
        return self._part("test", self._split.test)

    @property
    def model_sizes(self) -> dict[str, int]:
        """The hyper-parameters of a module that the data determines."""
        return {"n_classes": len(self.classes)}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say what the data is, and which labeled examples were removed."""
        return (*self._data.messages, *self._split.messages)

    def _part(self, name: str, positions: Sequence[int]) -> Examples:
        part = part_of(self._data.labeled, positions)
        return Examples(name, part.dataset, part.view, part.label, part.source)

    @cached_property
    def _split(self) -> Split:
        data = self._data
        pools = data.draws.pool, *data.draws.given
        return split_labeled(data.labeled, *pools, n_validation=data.n_validation)

    @cached_property
    def _labels_sha256(self) -> list[str]:
        parts = (*self.candidates, self.validation, self.test)
        return [self.classes.sha256(examples) for examples in parts]
