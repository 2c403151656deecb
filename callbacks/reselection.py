"""What both classes of ReselectionCallback share: weights that change while the model trains."""

from __future__ import annotations

import copy
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from synque_select.callbacks._checks import CheckedCallback, require_datamodule, require_single
from synque_select.callbacks._logging import LoggedTable, log_numbers, log_table
from synque_select.callbacks.selection import BaseSelectionCallback
from synque_select.errors import BudgetError, ConfigError, LightningError, did_you_mean
from synque_select.records.run_folder import make_folder, new_run_folder
from synque_select.records.weights_file import save_weights
from synque_select.report.table import Column, Table
from synque_select.reselection.base import Proposal, ReselectionPolicy
from synque_select.reselection.context import ReselectionContext, forward_budget
from synque_select.reselection.registry import get_policy
from synque_select.training.bookkeeping import bookkeeping
from synque_select.training.distributed import n_data_replicas, on_rank_zero
from synque_select.training.example_positions import ExamplePositions
from synque_select.training.lightning_compat import (
    ModuleT,
    TrainerT,
    callbacks_of,
    is_dev_run,
)
from synque_select.training.model_evaluation import TrainingEvaluation
from synque_select.training.run_page import write_page
from synque_select.training.spawn_result import SpawnResult
from synque_select.training.weight_changes import MOST_CHANGES
from synque_select.types import WeightPoint, WeightTrajectory
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.validation import check_int, is_number
from synque_select.utils.wording import counted, percent

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyTrainer

    AnyReselectionCallback: TypeAlias = "BaseReselectionCallback[Any, Any]"

__all__ = ["BaseReselectionCallback", "reselection_of"]

_STATE = "synque_reselection"
_VERSION = 1
_SAVED_EVERY_S = 10.0
_TOLERATED_S = 2.0  # seconds beyond the budget that no warning is worth


class _Answer(TypedDict):
    """What rank 0 tells the others: the weights, and when to ask again."""

    weights: dict[str, float] | None  # None if the budget does not pay for an answer yet
    hold: int  # steps since it last answered


class _Launched(TypedDict):
    """The values that a launched process passes back."""

    trajectory: dict[str, Any]
    run_dir: str


@dataclass
class _Run:
    """The state of a run; all of it is in every checkpoint, and the policy's state with it."""

    asked_at: int  # the step at which the policy last answered, or the run began
    hold: int  # steps until it is asked again
    trained: int  # draws that had been trained on then, over all ranks
    positions: ExamplePositions
    mixture: dict[str, float] | None = None  # that it began with; None until it is known
    spent: int = 0  # examples evaluated since then, for questions without an answer
    asked: int = 0
    evaluation_s: float = 0.0
    training_s: float = 0.0
    run_dir: str = ""
    policy_state: dict[str, Json] = field(default_factory=dict)  # of a checkpoint


class BaseReselectionCallback(CheckedCallback[TrainerT, ModuleT]):
    """Changes the weights of the mixture while the model trains, as a policy decides.

    After every n optimizer steps rank 0 asks the policy, which may evaluate the model in training,
    and all ranks draw the batches that follow with the new weights. Candidates are those of the
    mixture that training begins with: that of a `SelectionCallback`, in whatever order the two are
    given, or `mixture=` of the `SynqueDataModule`. The weights hold in every 1,000 draws between
    two changes, no example is repeated before its candidate is used up, and no worker is
    restarted; see `SynqueDataModule.change_weights`. An evaluation leaves the module, its metrics,
    and all random states as they were.

    The state is in every checkpoint, and a resumed run continues as if it had not been interrupted.
    The weights are logged to every logger as `synque_weights/<candidate>`, are written to
    `weights.json` in the run directory, and are drawn on the page. `fast_dev_run` changes nothing.

    Args:
        every_n_steps: Number of optimizer steps after which the policy is asked again.
        policy: A policy, or its id with options: "odm", "aioli", "surrogate", "agreement",
            "static" (the control, which changes nothing and costs nothing), "odm:smoothing=0.5".
        budget: Share of the training time that evaluation may take, above 0 and up to 1. A forward
            pass counts as a third of training on the example, so that at each change
            ⌊3 · budget · draws on one rank since the last⌋ examples may be evaluated; this does not
            depend on a clock. Where that is too little for the policy, the weights stay as they
            are, and it is asked again when the budget has grown; a warning names the step. The
            measured share is logged as `synque_reselection/overhead`.
        outputs: Name of the module's method that returns outputs, one row per example, for a
            batch, for policies that compare outputs; None for `predict_step`.
        seed: Random seed of the policy and of the examples that are evaluated.

    Attributes:
        policy: The policy.
        trajectory: The weights so far; None before training.
        run_dir: Directory of the run: that of the `SelectionCallback`, or a new one without it.

    Raises:
        ConfigError: An argument is not allowed.

    Example:
        >>> from synque_select import ReselectionCallback
        >>> callback = ReselectionCallback(every_n_steps=50, policy="static")
        >>> callback.policy.id
        'static'
    """

    def __init__(
        self,
        every_n_steps: int,
        policy: str | ReselectionPolicy = "odm",
        *,
        budget: float = 0.02,
        outputs: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._every_n_steps = check_int("every_n_steps", every_n_steps, 1)
        if not (is_number(budget) and 0 < budget <= 1):
            raise ConfigError(f"budget={budget!r}: allowed is a share above 0 and up to 1")
        if not (outputs is None or (isinstance(outputs, str) and outputs.isidentifier())):
            raise ConfigError(f"outputs={outputs!r}: allowed is the name of a method of the module")
        self._budget, self._outputs = float(budget), outputs
        self._seed = check_int("seed", seed, 0)
        self.policy = get_policy(policy)
        self._options = {
            name: value
            for name, value in vars(self.policy).items()
            if not name.startswith("_") and isinstance(value, bool | int | float | str)
        }
        self._run: _Run | None = None
        self._is_training = self._is_restored = self._has_warned = self._is_short = False
        self._has_trained = False  # in the current fit; that of a Tuner does not get so far
        self._trajectory: WeightTrajectory | None = None
        self._run_dir: Path | None = None
        self._resumed_at = self._saved_at = 0.0
        self._spawn_result: SpawnResult[_Launched] = SpawnResult()

    @property
    def every_n_steps(self) -> int:
        """Optimizer steps between two questions to the policy."""
        return self._every_n_steps

    @property
    def trajectory(self) -> WeightTrajectory | None:
        """The weights so far; None before training."""
        self._recall()
        return self._trajectory

    @property
    def run_dir(self) -> Path | None:
        """Directory of the run, once training has started."""
        self._recall()
        return self._run_dir

    @property
    def key(self) -> dict[str, Json]:
        """What this callback adds to the comparability key of a run: nothing for the control."""
        if self.policy.id == "static":
            return {}
        return {
            "reselection": {
                "policy": self.policy.id,
                "options": self._options,
                "every_n_steps": self._every_n_steps,
                "budget": self._budget,
                "seed": self._seed,
            }
        }

    def _recall(self) -> None:
        """Copy the attributes of a launched process."""
        state = self._spawn_result.take()
        if state is not None:
            self._trajectory = WeightTrajectory.from_fields(JsonFields(state["trajectory"]))
            self._run_dir = Path(state["run_dir"]) if state["run_dir"] else None

    def setup(self, trainer: TrainerT, pl_module: ModuleT, stage: str) -> None:
        """Let the weights of the DataModule change; only for fit."""
        if stage != "fit":
            return
        require_single(self, trainer, BaseReselectionCallback)
        datamodule = require_datamodule(trainer)
        if is_dev_run(trainer):
            return
        if self.policy.needs_held_out and not datamodule.uses_surrogate:
            raise ConfigError(
                f"the policy {self.policy.id!r} needs examples that are held out of training: use "
                "SynqueDataModule(val='surrogate')"
            )
        if self._outputs is not None and not callable(getattr(pl_module, self._outputs, None)):
            raise ConfigError(
                f"outputs={self._outputs!r}: {type(pl_module).__name__} has no method of this name"
            )
        datamodule.enable_changes()

    def on_train_start(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Begin a run, or continue that of the checkpoint or of the trainer's last fit."""
        if is_dev_run(trainer):
            return
        datamodule = require_datamodule(trainer)
        mixture = _start_weights(datamodule)
        is_new = not (trainer.global_step and self._continues(datamodule, mixture))
        if is_new:
            self._run = self._new_run(trainer)
            self._run_dir, self._has_warned, self._is_short = None, False, False
            self._check_length(trainer)
            if trainer.global_step == 0:  # else those of the checkpoint stay
                datamodule.forget_changes()
        self._begun.mixture = mixture
        if is_new or self._is_restored:
            self.policy.start(tuple(mixture), mixture, self._seed)
            if not is_new:
                self.policy.load_state_dict(self._begun.policy_state)
        self._is_restored, self._is_training = False, True
        self._resumed_at = time.monotonic()
        self._update(trainer)
        if is_new and trainer.is_global_zero:
            self._log(trainer)

    def _check_length(self, trainer: TrainerT) -> None:
        """Warn if training ends before the policy is asked; refuse more changes than can be."""
        planned, every = _planned_steps(trainer), self._every_n_steps
        if planned is None or self.policy.id == "static":
            return
        left = planned - trainer.global_step
        if left <= every:
            rank_zero_warn(
                f"ReselectionCallback: training ends after {counted(left, 'step')}, but the policy "
                f"{self.policy.id!r} is asked after every {every:,}, so the weights will not change"
            )
        if left // every > MOST_CHANGES:
            raise ConfigError(
                f"every_n_steps={every}: in {counted(left, 'step')} the weights would change more "
                f"than {MOST_CHANGES:,} times, which is the limit: give "
                f"{left // MOST_CHANGES + 1} or more"
            )

    def _continues(self, datamodule: AnySynqueDataModule, mixture: dict[str, float]) -> bool:
        """Return whether training goes on with the data of the run, and not with other data."""
        run = self._run
        if run is None or run.trained > datamodule.trained_draws:
            return False
        return run.mixture in (None, mixture)

    def on_train_batch_start(
        self, trainer: TrainerT, pl_module: ModuleT, batch: Any, batch_idx: int
    ) -> None:
        """Ask the policy if it is time.

        Here and not after the last batch, so that a checkpoint of that step, whenever it was
        written in it, leads to the same question.
        """
        run, step = self._run, trainer.global_step
        if not self._is_training or run is None or step - run.asked_at < run.hold:
            return
        answer = on_rank_zero(trainer, lambda: self._ask(trainer))
        datamodule, run.hold = require_datamodule(trainer), answer["hold"]
        if answer["weights"] is None:
            return
        run.asked_at, run.trained, run.spent = step, datamodule.trained_draws, 0
        run.asked += 1
        if answer["weights"] != _weights_in_force(datamodule):
            datamodule.change_weights(answer["weights"])
        self._update(trainer)
        if trainer.is_global_zero:
            self._log(trainer)
            self._save(trainer, at_once=False)
            self._warn_of_overhead()

    def on_train_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Write and log the whole trajectory."""
        if not self._is_training:
            return
        self._update(trainer)
        self._is_training, self._has_trained = False, True
        self._say_if_unchanged(trainer)
        if trainer.is_global_zero:
            with bookkeeping("the weights of the candidates over time are not logged as a table"):
                log_table(trainer, "synque_weights", _table_of(self._known))
            self._save(trainer, at_once=True)

    def _say_if_unchanged(self, trainer: TrainerT) -> None:
        if self.policy.id != "static" and len(self._known.points) == 1:
            rank_zero_info(
                f"ReselectionCallback: in {counted(trainer.global_step, 'step')} the policy "
                f"{self.policy.id!r} answered {counted(self._begun.asked, 'time')} and never "
                "changed the weights"
            )

    def on_fit_end(self, trainer: TrainerT, pl_module: ModuleT) -> None:
        """Recall the trajectory of a checkpoint whose run had no step left to train."""
        if self._is_restored and self._run is not None:
            self._update(trainer)

    def teardown(self, trainer: TrainerT, pl_module: ModuleT, stage: str) -> None:
        """Write the report page, if no SelectionCallback does."""
        if stage != "fit" or not self._has_trained:
            return
        self._has_trained = False
        with bookkeeping("the weights did not come back from the launched process"):
            if trainer.local_rank == 0:
                self._spawn_result.write(
                    {
                        "trajectory": self._known.to_dict(),
                        "run_dir": str(self._run_dir or ""),
                    }
                )
        if _selection(trainer) is None and self._run_dir is not None and trainer.is_global_zero:
            write_page(self._run_dir, require_datamodule(trainer), None)

    def on_exception(self, trainer: TrainerT, pl_module: ModuleT, exception: BaseException) -> None:
        """Stop counting time."""
        self._is_training = False

    def on_save_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Store the policy and when it was asked; the DataModule stores the weights."""
        run = self._run
        if run is None:
            return
        checkpoint[_STATE] = {
            "version": _VERSION,
            "policy": self.policy.id,
            "options": self._options,
            "policy_state": dict(self.policy.state_dict()),
            "asked_at": run.asked_at,
            "hold": run.hold,
            "trained": run.trained,
            "spent": run.spent,
            "asked": run.asked,
            "positions": run.positions.state_dict(),
            "evaluation_s": run.evaluation_s,
            "training_s": self._training_s(run),
            "run_dir": str(self._run_dir or ""),
        }

    def on_load_checkpoint(
        self, trainer: TrainerT, pl_module: ModuleT, checkpoint: dict[str, Any]
    ) -> None:
        """Continue the run that wrote the checkpoint."""
        if trainer.state.fn != "fit":
            return
        state = checkpoint.get(_STATE)
        self._run = None if state is None else self._restored(state)
        self._resumed_at = time.monotonic()
        if self._run is not None and self._is_training:  # a finder has interrupted the fit
            self.policy.load_state_dict(self._run.policy_state)
        else:
            self._is_restored = self._run is not None

    def _restored(self, state: dict[str, Any]) -> _Run:
        if state["version"] != _VERSION:
            raise LightningError(
                "the checkpoint contains a state of ReselectionCallback of version "
                f"{state['version']!r}; allowed is {_VERSION}"
            )
        if state["policy"] != self.policy.id:
            raise LightningError(
                f"the checkpoint was trained with the policy {state['policy']!r}, and this run has "
                f"{self.policy.id!r}: use the same policy="
            )
        options = state.get("options", self._options)
        if options != self._options:
            raise LightningError(
                f"the checkpoint was trained with the policy {self.policy.id!r} and the options "
                f"{options}, and this run has {self._options}: use the same options"
            )
        if state["run_dir"] and Path(state["run_dir"]).is_dir():
            self._run_dir = Path(state["run_dir"])
        return _Run(
            state["asked_at"],
            state["hold"],
            state["trained"],
            ExamplePositions(self._seed, state["positions"]),
            spent=state.get("spent", 0),
            asked=state["asked"],
            evaluation_s=state["evaluation_s"],
            training_s=state["training_s"],
            policy_state=state["policy_state"],
        )

    def _new_run(self, trainer: TrainerT) -> _Run:
        step = trainer.global_step
        # the position of an earlier training stays in the DataModule until the first batch
        trained = require_datamodule(trainer).trained_draws if step else 0
        return _Run(step, self._every_n_steps, trained, ExamplePositions(self._seed))

    @property
    def _begun(self) -> _Run:
        assert self._run is not None
        return self._run

    @property
    def _known(self) -> WeightTrajectory:
        assert self._trajectory is not None
        return self._trajectory

    def _ask(self, trainer: TrainerT) -> _Answer:
        """Ask the policy; on rank 0."""
        begin, run, step = time.monotonic(), self._begun, trainer.global_step
        before = copy.deepcopy(dict(self.policy.state_dict()))
        datamodule = require_datamodule(trainer)
        seed = int(np.random.SeedSequence([self._seed, step]).generate_state(1)[0])
        evaluation = TrainingEvaluation(
            trainer, datamodule, run.positions, outputs=self._outputs, seed=seed
        )
        context = self._context(trainer, datamodule, evaluation)
        try:
            with evaluation:
                proposal = self._proposal(context)
        except BudgetError as error:
            self.policy.load_state_dict(before)
            run.spent += context.used_examples
            return {"weights": None, "hold": self._put_off(trainer, context, error.needed)}
        finally:
            run.evaluation_s += time.monotonic() - begin
        hold = self._every_n_steps if proposal.hold is None else proposal.hold
        return {"weights": dict(proposal.weights), "hold": hold}

    def _context(
        self,
        trainer: TrainerT,
        datamodule: AnySynqueDataModule,
        evaluation: TrainingEvaluation,
    ) -> ReselectionContext:
        weights, since = _weights_in_force(datamodule), self._begun.trained
        allowed = forward_budget(self._budget, self._new_draws(trainer))
        return ReselectionContext(
            step=trainer.global_step,
            max_steps=_planned_steps(trainer),
            every_n_steps=self._every_n_steps,
            names=tuple(weights),
            weights=weights,
            budget_examples=allowed - self._begun.spent,
            evaluation=evaluation,
            trained_weights=_mean_weights(datamodule, since, datamodule.trained_draws),
            waited_steps=trainer.global_step - self._begun.asked_at,
        )

    def _new_draws(self, trainer: TrainerT) -> int:
        """Return how many draws this process has trained on since the policy last answered."""
        draws = require_datamodule(trainer).trained_draws - self._begun.trained
        return draws // n_data_replicas(trainer)

    def _proposal(self, context: ReselectionContext) -> Proposal:
        """Return what the policy proposes, in the order of the candidates."""
        where = f"the policy {self.policy.id!r} at step {context.step}"
        try:
            proposal: object = self.policy.propose(context)
        except BudgetError:
            raise
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        except Exception as error:  # a policy of the user's may raise anything
            error.add_note(f"raised by {where}")
            raise
        if not isinstance(proposal, Proposal):
            raise ConfigError(f"{where} returned {proposal!r}; allowed is a Proposal")
        for name in proposal.weights:
            if name not in context.names:
                raise ConfigError(
                    f"{where} gives a weight to {name!r}, which is not a candidate of the mixture: "
                    f"{did_you_mean(name, context.names)}"
                )
        missing = [name for name in context.names if name not in proposal.weights]
        if missing:
            raise ConfigError(f"{where} gives no weight to {', '.join(missing)}; 0 is allowed")
        weights = {name: proposal.weights[name] for name in context.names}
        return Proposal(weights, proposal.hold)

    def _training_s(self, run: _Run) -> float:
        """Return the seconds since the run began, with those of asking."""
        if not self._is_training:
            return run.training_s
        return run.training_s + time.monotonic() - self._resumed_at

    def _update(self, trainer: TrainerT) -> None:
        """Bring the trajectory up to date."""
        run, datamodule = self._begun, require_datamodule(trainer)
        start = _start_weights(datamodule)
        changes = datamodule.weight_changes
        points = [WeightPoint(0, 0, start)] + [
            WeightPoint(change.step, change.draw, {name: change.weights[name] for name in start})
            for change in changes
        ]
        if self._is_training:
            now = time.monotonic()
            run.training_s, self._resumed_at = run.training_s + now - self._resumed_at, now
        self._trajectory = WeightTrajectory(
            policy=self.policy.id,
            every_n_steps=self._every_n_steps,
            budget=self._budget,
            steps=trainer.global_step,
            points=tuple(points),
            asked=run.asked,
            evaluation_s=run.evaluation_s,
            training_s=max(0.0, run.training_s - run.evaluation_s),
        )

    def _log(self, trainer: TrainerT) -> None:
        trajectory = self._known
        weights = trajectory.points[-1].weights
        numbers = {f"synque_weights/{name}": weight for name, weight in weights.items()}
        log_numbers(trainer, {**numbers, "synque_reselection/overhead": trajectory.overhead})

    def _save(self, trainer: TrainerT, *, at_once: bool) -> None:
        """Write `weights.json`; while training, at most every few seconds."""
        now = time.monotonic()
        if not at_once and now - self._saved_at < _SAVED_EVERY_S:
            return
        self._saved_at = now
        with bookkeeping("the run directory lacks the weights of the candidates over time"):
            save_weights(self._make_run_dir(trainer), self._known)

    def _make_run_dir(self, trainer: TrainerT) -> Path:
        selection = _selection(trainer)
        if selection is not None and selection.run_dir is not None:
            self._run_dir = selection.run_dir
        elif self._run_dir is None:
            model = re.sub(r"\W+", "_", type(trainer.lightning_module).__name__)
            self._run_dir = new_run_folder(Path(trainer.default_root_dir) / "runs", model)
        return make_folder(self._run_dir)

    def _put_off(self, trainer: TrainerT, context: ReselectionContext, needed: int) -> int:
        """Return after how many steps since the last answer the budget pays for the next one."""
        run, every = self._begun, self._every_n_steps
        # a budget of 1 pays for this many examples per step
        per_step = forward_budget(1.0, self._new_draws(trainer)) / (context.step - run.asked_at)
        wait = _ceil((run.spent + needed) / (self._budget * per_step) / every) * every
        hold = max(wait, run.hold + every)
        if not self._is_short:
            self._is_short = True
            self._warn_of_budget(context, run.asked_at + hold, needed, per_step)
        return hold

    def _warn_of_budget(
        self, context: ReselectionContext, answers_at: int, needed: int, per_step: float
    ) -> None:
        every = self._every_n_steps
        least = _ceil(1000 * needed / (per_step * every)) / 1000
        way_out = (
            f"budget={least:g} or more"
            if least <= 1
            else f"every_n_steps={_ceil(needed / (self._budget * per_step))} or more"
        )
        is_late = context.max_steps is not None and answers_at >= context.max_steps
        rank_zero_warn(
            f"ReselectionCallback: at step {context.step}, budget={self._budget:g} allows "
            f"{counted(context.budget_examples, 'example')} to be evaluated, but the policy "
            f"{self.policy.id!r} needs {needed}. The weights stay as they are until the budget has "
            f"grown, at step {answers_at:,}"
            + (f", and training ends at step {context.max_steps:,}" if is_late else "")
            + f"; for an answer after every {counted(every, 'step')}, give {way_out}"
        )

    def _warn_of_overhead(self) -> None:
        trajectory = self._known
        beyond = trajectory.evaluation_s - self._budget * trajectory.training_s
        if self._has_warned or beyond < _TOLERATED_S:
            return
        self._has_warned = True
        spent = f"{trajectory.evaluation_s:.1f} s in {counted(trajectory.asked, 'time')}"
        rank_zero_warn(
            f"ReselectionCallback: evaluation took {percent(trajectory.overhead, 1)} of the "
            f"training time so far ({spent}), more than budget={self._budget:g}: evaluating an "
            "example takes longer here than a third of training on it. A lower budget= or a larger "
            "every_n_steps= takes less"
        )


def reselection_of(trainer: AnyTrainer) -> AnyReselectionCallback | None:
    """Return the trainer's ReselectionCallback; None if it has none."""
    callbacks = (c for c in callbacks_of(trainer) if isinstance(c, BaseReselectionCallback))
    return next(callbacks, None)


def _selection(trainer: AnyTrainer) -> BaseSelectionCallback[Any, Any] | None:
    callbacks = (c for c in callbacks_of(trainer) if isinstance(c, BaseSelectionCallback))
    return next(callbacks, None)


def _planned_steps(trainer: AnyTrainer) -> int | None:
    """Return the number of optimizer steps of the whole training; None if nothing limits them."""
    planned = trainer.estimated_stepping_batches
    return int(planned) if math.isfinite(planned) and planned > 0 else None


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _start_weights(datamodule: AnySynqueDataModule) -> dict[str, float]:
    mixture = datamodule.mixture
    assert mixture is not None  # the train loader is built
    return dict(mixture.weights)


def _weights_in_force(datamodule: AnySynqueDataModule) -> dict[str, float]:
    """Return the weights that were set last, of the candidates of the mixture."""
    start, changes = _start_weights(datamodule), datamodule.weight_changes
    return {name: changes[-1].weights[name] for name in start} if changes else start


def _mean_weights(datamodule: AnySynqueDataModule, begin: int, end: int) -> dict[str, float] | None:
    """Return the mean weights of the draws from `begin` to before `end`; None if there are none."""
    if end <= begin:
        return None
    start = _start_weights(datamodule)
    parts = [(0, start), *((change.draw, change.weights) for change in datamodule.weight_changes)]
    ends = [draw for draw, _ in parts[1:]] + [end]
    lengths = [
        max(0, min(last, end) - max(first, begin))
        for (first, _), last in zip(parts, ends, strict=True)
    ]
    return {
        name: sum(n * w[name] for n, (_, w) in zip(lengths, parts, strict=True)) / (end - begin)
        for name in start
    }


def _table_of(trajectory: WeightTrajectory) -> LoggedTable:
    columns = ["step", "draw", *trajectory.names]
    rows = [
        [point.step, point.draw, *(point.weights[name] for name in trajectory.names)]
        for point in trajectory.points
    ]
    shown = Table(
        f"Weights by the policy {trajectory.policy}",
        tuple(Column(column) for column in columns),
        tuple((str(row[0]), str(row[1]), *(f"{w:.4f}" for w in row[2:])) for row in rows),
    )
    return LoggedTable(columns, rows, shown.markdown())
