"""What a policy knows at a change, and how it evaluates the model in training, within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from synque_select.errors import BudgetError
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

__all__ = ["ModelEvaluation", "ReselectionContext", "forward_budget"]

# a step of training is a forward and a backward pass, and the latter takes twice as long
_PASSES_PER_TRAINED_EXAMPLE = 3


def forward_budget(budget: float, draws: int) -> int:
    """Return how many examples may be evaluated after a number of draws: ⌊3 · budget · draws⌋.

    A forward pass of an example is counted as a third of training on it. The number follows from
    what was trained, not from a clock, so that a resumed run evaluates the same examples.

    Args:
        budget: Share of the training time for evaluation.
        draws: Draws that this process has trained on since the policy was last asked.

    Example:
        >>> forward_budget(0.02, 1600)
        96
    """
    # 3 · 0.02 · 50 is a little below 3
    return int(_PASSES_PER_TRAINED_EXAMPLE * budget * draws + 1e-9)


class ModelEvaluation(Protocol):
    """Evaluates the model in training; made by `ReselectionCallback`, or by a test of a policy.

    Each method takes examples that it has not taken before, until all have been used once. With n
    above the number of examples, it takes all of them.
    """

    def n_candidate(self, name: str) -> int:
        """Return the number of training examples of a candidate."""
        ...

    def n_surrogate(self, name: str) -> int:
        """Return the number of a candidate's examples that are held out for validation."""
        ...

    def n_real(self) -> int:
        """Return the number of real examples."""
        ...

    def candidate_loss(self, name: str, n: int) -> float:
        """Return the mean loss on n training examples of a candidate."""
        ...

    def surrogate_loss(self, name: str, n: int) -> float:
        """Return the mean loss on n held-out examples of a candidate."""
        ...

    def real_outputs(self, n: int) -> Tensor:
        """Return outputs of the model, (n, d), on n real examples."""
        ...

    def candidate_outputs(self, name: str, n: int) -> Tensor:
        """Return outputs of the model, (n, d), on n training examples of a candidate."""
        ...


@dataclass
class ReselectionContext:
    """What a policy knows when it is asked; `ReselectionCallback` creates it on rank 0.

    The methods evaluate the current model, in eval mode and without gradients, and leave it and the
    process as they were. Together they may evaluate `budget_examples` examples. With n=None, a
    method takes what is left of the budget, in equal parts; a policy that calls several of them
    gives n. What the budget does not allow is a `BudgetError`: the weights stay as they are, and
    the policy is asked again after a multiple of `every_n_steps` steps, with the budget of all
    steps since it last answered.

    Args:
        step: Optimizer steps so far.
        max_steps: Optimizer steps of the whole training, by the trainer's limits on steps and
            epochs; None if it has neither.
        every_n_steps: Optimizer steps between two changes, unless the policy holds its weights
            for another number.
        names: The K candidates that may be drawn.
        weights: The weights in force, by name.
        budget_examples: Number of examples that may be evaluated at this change.
        evaluation: Evaluates the model.
        trained_weights: Mean weights, by name, of what was trained on since the policy was last
            asked: a change takes effect after the batches that were already being fetched. None
            if it is not known.
        waited_steps: Optimizer steps since the policy last answered, or the run began, which the
            budget is that of; None for `every_n_steps`.

    Attributes:
        used_examples: Number of examples that have been evaluated at this change.
    """

    step: int
    max_steps: int | None
    every_n_steps: int
    names: tuple[str, ...]
    weights: Mapping[str, float]
    budget_examples: int
    evaluation: ModelEvaluation
    trained_weights: Mapping[str, float] | None = None
    waited_steps: int | None = None
    used_examples: int = field(default=0, init=False)

    @property
    def remaining_examples(self) -> int:
        """Number of examples that may still be evaluated at this change."""
        return self.budget_examples - self.used_examples

    def candidate_losses(self, n: int | None = None) -> dict[str, float]:
        """Return the mean loss of the current model on n training examples of each candidate.

        The examples are drawn with the seed of the callback, and are different at each change. The
        model may have been trained on some of them.

        Raises:
            BudgetError: The budget does not allow for n examples of each candidate, or for one.
        """
        sizes = self._sizes(n, {name: self.evaluation.n_candidate(name) for name in self.names})
        return {name: self.evaluation.candidate_loss(name, m) for name, m in sizes.items()}

    def surrogate_loss(self, n: int | None = None) -> dict[str, float]:
        """Return the mean loss on n examples of each candidate that are held out of training.

        Raises:
            BudgetError: The budget does not allow for n examples of each candidate, or for one.
            ConfigError: The DataModule has no surrogate validation set.
        """
        sizes = self._sizes(n, {name: self.evaluation.n_surrogate(name) for name in self.names})
        return {name: self.evaluation.surrogate_loss(name, m) for name, m in sizes.items()}

    def real_outputs(self, n: int | None = None) -> Tensor:
        """Return outputs of the current model, (n, d), on n real examples; no label is read.

        Raises:
            BudgetError: The budget does not allow for n examples, or for one.
            ConfigError: The real sample is missing.
        """
        (size,) = self._sizes(n, {"the real sample": self.evaluation.n_real()}).values()
        return self.evaluation.real_outputs(size)

    def candidate_outputs(self, n: int | None = None) -> dict[str, Tensor]:
        """Return outputs of the current model, (n, d), on n training examples of each candidate.

        Raises:
            BudgetError: The budget does not allow for n examples of each candidate, or for one.
        """
        sizes = self._sizes(n, {name: self.evaluation.n_candidate(name) for name in self.names})
        return {name: self.evaluation.candidate_outputs(name, m) for name, m in sizes.items()}

    def _sizes(self, n: int | None, available: Mapping[str, int]) -> dict[str, int]:
        """Return how many examples of each part are evaluated, and count them."""
        affordable = self.remaining_examples // len(available)
        if n is not None:
            check_int("n", n, 1)
        if affordable < (n or 1):
            needed = self.used_examples + (n or 1) * len(available)
            raise BudgetError(
                f"{counted(self.remaining_examples, 'example')} may still be evaluated at step "
                f"{self.step}, but {counted(n or 1, 'example')} of each of "
                f"{counted(len(available), 'part')} would be needed: raise budget= or "
                "every_n_steps= of ReselectionCallback",
                needed,
            )
        sizes = {name: min(n or affordable, size) for name, size in available.items()}
        self.used_examples += sum(sizes.values())
        return sizes
