"""Fits in which a policy changes the mixture: their data, their callback, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError
from synque_select.experiment.task import BaseTask
from synque_select.functional.paired import PairedComparison, compare_paired
from synque_select.reselection import get_policy
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import Measured, train_and_measure
from synque_select.training.surrogate import SurrogateOptions, draw_for
from synque_select.types import Mixture
from synque_select.utils.wording import counted, percent

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyCallback, AnyModule

__all__ = [
    "HELD_OUT",
    "PolicyRun",
    "check_policies",
    "policy_arm",
    "policy_comparisons",
    "policy_messages",
    "train_with_policy",
]

HELD_OUT = 0.2  # share of the examples on which a policy that needs it measures losses
_N_CHANGES = 10  # how often a policy is asked in a fit, unless the options say


@dataclass(frozen=True)
class PolicyRun:
    """How a policy changes the mixture of a fit.

    Args:
        policy: Id of the policy, with its options.
        every_n_steps: Optimizer steps between two changes.
        budget: Share of the training time for evaluation.
        real: Index of the task's real sample that the policy may look at.
    """

    policy: str
    every_n_steps: int
    budget: float
    real: int

    @classmethod
    def of(
        cls, policy: str, task: BaseTask, replicate: int, every_n_steps: int | None, budget: float
    ) -> PolicyRun:
        """Return a run with a change after each tenth of the training, unless steps are given."""
        every = every_n_steps or max(1, task.max_steps // _N_CHANGES)
        return cls(policy, every, budget, replicate)

    def key(self, task: BaseTask) -> list[Any]:
        """Return what distinguishes the outcome of this run from that of another one."""
        options = [self.policy, self.every_n_steps, self.budget]
        return [*options, task.real_sample(self.real).sha256]

    @property
    def holds_out(self) -> bool:
        """Whether the policy measures losses on examples that are held out of training."""
        return get_policy(self.policy).needs_held_out


def check_policies(policies: Sequence[str]) -> None:
    """Check the policies of an experiment before anything is trained.

    Raises:
        ConfigError: A policy or an option of it is unknown, or one is given twice.
    """
    check_specs("policies", policies, get_policy, such_as=["odm", "surrogate"])


def check_specs(
    name: str, given: Sequence[str], check: Callable[[str], object], *, such_as: list[str]
) -> None:
    """Check a list of arms that are given as texts, each of them once.

    Args:
        name: Name of the option.
        given: What was given.
        check: Raises a `ConfigError` for a text that is not allowed.
        such_as: An example of what is allowed.

    Raises:
        ConfigError: It is not a list, one is not allowed, or one is given twice.
    """
    if isinstance(given, str):
        raise ConfigError(f"{name}={given!r}: allowed is a list, such as {such_as}")
    for one in given:
        check(one)
    double = sorted({one for one in given if list(given).count(one) > 1})
    if double:
        raise ConfigError(f"{name}: given more than once: {', '.join(double)}")


def policy_arm(policy: str) -> str:
    """Return the name of the arm of a policy in `result.json`.

    Example:
        >>> policy_arm("odm:smoothing=0.5")
        'policy:odm:smoothing=0.5'
    """
    return f"policy:{policy}"


def train_with_policy(
    task: BaseTask,
    run: PolicyRun,
    parts: Sequence[Candidate],
    mixture: Mixture,
    *,
    module: AnyModule,
    max_steps: int,
    options: Mapping[str, Any],
    cache_dir: str | Path | None = None,
) -> Measured:
    """Train a module on a mixture that a policy changes, and measure it as any other fit.

    Args:
        task: The task.
        run: How the policy changes the mixture.
        parts: The examples that may be drawn.
        mixture: The mixture to start from.
        module: A fresh module.
        max_steps: Number of optimizer steps.
        options: Arguments of the Trainer beyond the budget.
        cache_dir: Directory of cached embeddings; None for the default one.
    """
    real = task.real_sample(run.real)
    if run.holds_out:
        held_out = SurrogateOptions(
            held_out=HELD_OUT, transform=task.transform, encoder=task.encoder, seed=run.real
        )
        data = task.datamodule(parts, mixture, seed=run.real, real=real, val=held_out)
        data.use_surrogate(
            draw_for(data.candidates, real, held_out, cache_dir=cache_dir, progress=False)
        )
    else:
        data = task.datamodule(parts, mixture, seed=run.real, real=real)
    callbacks = [*options.get("callbacks", ()), _callback(task, run)]
    stages: tuple[Literal["validate", "test"], ...]
    stages = ("test",) if run.holds_out else ("validate", "test")
    # each fit would write a page of its own
    with TemporaryDirectory(prefix="synque-fit-") as folder:
        kept = {"callbacks": callbacks, "default_root_dir": folder}
        measured = train_and_measure(module, data, max_steps, {**options, **kept}, stages=stages)
    if not run.holds_out:
        return measured
    # on the labeled examples, as every other arm, and not on those that were held out
    labeled = task.datamodule(parts, mixture, seed=run.real)
    rest = train_and_measure(module, labeled, 0, options, stages=("validate",))
    metrics = {**rest.metrics, **measured.metrics}
    return Measured(metrics, measured.parameters, measured.seconds + rest.seconds)


def _callback(task: BaseTask, run: PolicyRun) -> AnyCallback:
    if package_of(task.datamodule_class) == "lightning":
        from synque_select.callbacks.lightning import ReselectionCallback as OfLightning

        kind: Any = OfLightning
    else:
        from synque_select.callbacks.pytorch_lightning import ReselectionCallback

        kind = ReselectionCallback
    callback: AnyCallback = kind(
        every_n_steps=run.every_n_steps,
        policy=run.policy,
        budget=run.budget,
        outputs=task.outputs,
        seed=run.real,
    )
    return callback


def policy_comparisons(
    figures: Mapping[str, Mapping[int, float]],
    policies: Sequence[str],
    start: str,
    *,
    mode: Literal["max", "min"],
    bound: float,
) -> dict[str, PairedComparison]:
    """Compare each policy with the mixture that it starts from, and with the mixture of all.

    Args:
        figures: Arm to replicate to test figure.
        policies: The policies.
        start: Arm of the mixture that every policy starts from, which is the control.
        mode: Whether a larger ("max") or a smaller ("min") metric is better.
        bound: Largest possible difference.

    Returns:
        "policy:<policy>_vs_<arm>" to the comparison, as if each were read alone.
    """
    n = 1 + max((r for values in figures.values() for r in values), default=-1)

    def by_replicate(arm: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([figures[arm].get(r, np.nan) for r in range(n)])

    against = [arm for arm in dict.fromkeys((start, "all")) if arm in figures]
    return {
        f"{policy_arm(policy)}_vs_{arm}": compare_paired(
            by_replicate(policy_arm(policy)), by_replicate(arm), mode=mode, bound=bound
        )
        for policy in policies
        if policy_arm(policy) in figures
        for arm in against
    }


def policy_messages(task: BaseTask, runs: Sequence[PolicyRun], start: str) -> list[str]:
    """Say how the arms of policies were trained."""
    if not runs:
        return []
    first, holding = runs[0], [run.policy for run in runs if run.holds_out]
    whole = "the selected mixture" if start == "chosen" else "the mixture of all"
    messages = [
        f"policies start from {whole}, whose arm is the static control, and draw from its examples "
        f"alone; of {counted(task.max_steps, 'step')}, the weights may change after each "
        f"{first.every_n_steps}, and evaluation may take {100 * first.budget:g} % of the training"
    ]
    if holding:
        messages.append(
            f"{', '.join(holding)}: {percent(HELD_OUT)} of the examples are held out of training, "
            "and others of the same candidates take their place where there are any: about "
            f"{percent(1 - HELD_OUT)} of the examples are those of the control"
        )
    return messages
