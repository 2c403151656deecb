"""The TrainerCallback that keeps the position in a mixture, also over a resumed run."""

from __future__ import annotations

from typing import Any, cast

from synque_select.errors import ConfigError, DependencyError
from synque_select.hf.sampler import MixtureOrder
from synque_select.training.bookkeeping import bookkeeping
from synque_select.training.draws import RankedMixture
from synque_select.training.lineage import log_to_mlflow, log_to_wandb, trained_on
from synque_select.types import Mixture
from synque_select.utils.json_types import Json

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise DependencyError("transformers", extra="hf", purpose="HFMixture") from error

__all__ = ["MixtureCallback"]

_KEY = "HFMixture"


class MixtureCallback(TrainerCallback):
    """Tells the sampler the epoch, and stores in each checkpoint what a resumed run must repeat.

    A trainer that resumes within an epoch wraps its loader to skip batches, and then neither it nor
    accelerate reaches the sampler to tell it the epoch.

    Args:
        sampler: The sampler.
        ranked: What the mixture consists of.
    """

    def __init__(self, sampler: MixtureOrder, ranked: RankedMixture) -> None:
        self.ranked = ranked
        self._sampler = sampler
        self._steps_per_epoch = 1
        self._state: dict[str, Json] | None = None  # what checkpoints of the current run store

    def change(self, mixture: Mixture) -> None:
        """Serve another mixture from the next epoch on, or at once before training."""
        is_training = self._state is not None
        self._sampler.change(self._sampler.epoch + 1 if is_training else 0, mixture)
        if self._state is not None:
            self._state["mixtures"] = self._mixtures()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check that the trainer reads the mixture, and that a resumed run can continue it."""
        loader = kwargs["train_dataloader"]
        if self._sampler not in _samplers(loader):
            raise ConfigError(
                "the trainer draws examples in an order of its own: call mix.attach(trainer) "
                "before trainer.train()"
            )
        accumulated = args.gradient_accumulation_steps
        self._steps_per_epoch = max(1, -(-len(loader) // accumulated))
        now = self._fingerprint(int(loader.total_batch_size) * accumulated)
        # declared as a list, which is what the constructor takes
        stored = cast("dict[str, Any]", state.stateful_callbacks)
        if state.global_step > 0:
            self._resume(args, stored.get(_KEY), now)
        self._state = {**now, "mixtures": self._mixtures()}
        # the trainer's state is part of its checkpoints; "args" is where it would look for
        # arguments of a callback to make again
        stored[_KEY] = {"args": {}, "attributes": self._state}
        if state.is_world_process_zero:
            self._log_inputs(args)

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Tell the sampler the epoch, as the trainer counts it."""
        self._sampler.set_epoch(state.global_step // self._steps_per_epoch)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Allow other weights for the next run."""
        self._state = None

    def _log_inputs(self, args: TrainingArguments) -> None:
        """Log what is trained on to the runs that the trainer's own callbacks have opened."""
        parts, mixture = self.ranked.candidates, self._sampler.mixture
        trackers = args.report_to or ()
        with bookkeeping("the datasets were not logged"):
            if "wandb" in trackers:
                import wandb

                if wandb.run is not None:
                    log_to_wandb(wandb.run, trained_on(parts, mixture))
            if "mlflow" in trackers:
                import mlflow

                run = mlflow.active_run()
                if run is not None:
                    client = mlflow.MlflowClient()
                    log_to_mlflow(client, run.info.run_id, trained_on(parts, mixture))

    def _resume(self, args: TrainingArguments, stored: Any, now: dict[str, Json]) -> None:
        if not stored:
            raise ConfigError(
                "the checkpoint was not trained with HFMixture: its position in the mixture is not "
                "known. Start a new run from its weights"
            )
        if args.ignore_data_skip:
            raise ConfigError(
                "ignore_data_skip=True would repeat the examples of the epoch: remove it; with a "
                "mixture, skipping reads no examples"
            )
        then = dict(stored["attributes"])
        mixtures = then.pop("mixtures")
        changed = [
            f"{name} is {value}, but was {then.get(name)}"
            for name, value in now.items()
            if value != then.get(name)
        ]
        if changed:
            raise ConfigError(
                "the run cannot continue where its checkpoint was written: "
                + "; ".join(changed)
                + ". Give the arguments and data that the run began with"
            )
        for epoch, weights in mixtures:
            self._sampler.change(int(epoch), Mixture(weights, "of the checkpoint"))

    def _fingerprint(self, per_step: int) -> dict[str, Json]:
        """Return what must be the same in a resumed run."""
        sampler = self._sampler
        return {
            "seed": sampler.seed,
            "draws per epoch": len(sampler),
            "examples per optimizer step": per_step,
            "first mixture": dict(sorted(sampler.history[0].weights.items())),
            "candidates": {part.name: part.sha256 for part in self.ranked.candidates},
        }

    def _mixtures(self) -> list[Json]:
        return [[epoch, dict(m.weights)] for epoch, m in self._sampler.history.items() if epoch]


def _samplers(loader: Any) -> list[object]:
    """Return the samplers of a loader, and of the loaders and batch samplers in it."""
    samplers: list[object] = []
    place = loader
    while place is not None:
        samplers.append(getattr(place, "sampler", None))
        place = getattr(place, "batch_sampler", None)
    return samplers
