"""A LightningDataModule that serves a mixture of candidates, alone or around a user's own."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn, TrainerStatus
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, default_collate

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.iterables import open_stored, store_iterable
from synque_select.data.sources import load_candidates, load_real, replace_iterables
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, LightningError
from synque_select.training.collation import check_collatable, first_examples
from synque_select.training.distributed import n_data_replicas, on_rank_zero, raise_on_all_ranks
from synque_select.training.eval_loaders import LoaderHook, as_given_data, given_loaders
from synque_select.training.fingerprints import Fingerprints
from synque_select.training.labeled_real import (
    LabeledRealData,
    check_labeled,
    load_labeled,
    same_part,
    with_new_names,
)
from synque_select.training.lightning_compat import refuse_other_lightning
from synque_select.training.mixture_loader import (
    MixtureDataset,
    MixtureLoader,
    MixtureSampler,
    Position,
    chosen_candidates,
)
from synque_select.training.mixture_schedule import longest_epoch
from synque_select.training.spawn_result import SpawnResult
from synque_select.training.wrapping import (
    InnerAttribute,
    InnerHook,
    TrainLoaders,
    candidate_modules,
    check_inner,
    inner_train_loaders,
    loader_options,
    with_train_data,
)
from synque_select.types import Mixture
from synque_select.utils.validation import check_int

__all__ = ["SynqueDataModule", "attached_datamodule"]

_DEFAULT_BATCH_SIZE = 32


class _PrepareHook(InnerHook):
    """Prepares the candidates that are DataModules too; a failure is one on all ranks."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        prepare = super().__get__(instance, owner)
        if instance is None:
            return prepare
        parts = vars(instance)
        if parts.get("_modules") or is_overridden(self.name, parts.get("_inner")):
            return functools.partial(_prepare, instance, prepare)
        return prepare


class SynqueDataModule(LightningDataModule):
    """Serves a mixture of candidates for training; validation, test and prediction as given.

    Give it to `Trainer.fit` alone (`val=`, `test=`, `predict=`), or around a DataModule that exists
    (`wraps=`): then every loader but the training one, every hook and every public attribute are
    the wrapped one's. Together with a `SelectionCallback` the mixture is chosen before training;
    without one it is `mixture=`, else all candidates with equal weights.

    Candidate a is drawn 1,000·w_a times (± 1) in each 1,000 draws, counted over all ranks. An epoch
    goes on where the last one ended; no example comes again before all of its candidate were drawn.
    A run that resumes from a checkpoint goes on with the mixture of the checkpoint, at the exact
    position.

    Args:
        candidates: A list of `Candidate`, anything that `load_candidates` takes, or a mapping from
            name to LightningDataModule, whose training data is the candidate (without `wraps`, the
            options of the first one's training loader are those of ours).
        real: A `RealSample`, or anything that `load_real` takes; None if nothing is to be ranked.
        wraps: The DataModule to stand in for.
        view: What a proxy sees of an example; see `Candidate`.
        label: Where an example's label stands.
        mixture: What to train on, as a `Mixture` or candidate name to weight.
        labeled_real: Labeled real data that is a fixed part of training, never ranked or chosen:
            anything that is one candidate for `load_candidates`. Not the real sample, whose labels
            are never read.
        real_share: The share of all draws that it takes, in each 1,000 as any weight; its examples
            come again within an epoch where the share asks for more than there are.
        train_transform: Makes a training example of a candidate's record.
        epoch_length: Draws in an epoch, over all ranks; None for ⌊min_a N_a/w_a⌋, the longest that
            repeats nothing of a candidate. Floored to a multiple of the ranks (of a whole batch on
            all of them, if the last incomplete batch is dropped).
        seed: Of the order of examples; not negative.
        batch_size: None for the wrapped training loader's, or 32 without one. Lightning's
            BatchSizeFinder sets it here and in the wrapped DataModule.
        num_workers: None for the wrapped training loader's, or 0 without one.
        pin_memory: None for the wrapped training loader's, or False without one.
        collate_fn: None for the wrapped training loader's, or torch's default without one.
        val: A dataset (batched with the options given here), a DataLoader, or a list of these; None
            for the wrapped DataModule's.
        test: As `val`.
        predict: As `val`.

    Raises:
        ConfigError: An argument is not allowed.
        LightningError: `wraps` is no DataModule of the package pytorch_lightning.

    Example:
        >>> records = [{"text": f"headline {i}", "label": i % 2} for i in range(8)]
        >>> dm = SynqueDataModule(
        ...     [Candidate("a", records, view="text"), Candidate("b", records, view="text")],
        ...     mixture={"a": 0.75, "b": 0.25},
        ...     batch_size=4,
        ... )
        >>> batch = next(iter(dm.train_dataloader()))
        >>> len(batch["text"]), batch["label"].shape
        (4, torch.Size([4]))
    """

    val_dataloader: Any = LoaderHook()
    test_dataloader: Any = LoaderHook()
    predict_dataloader: Any = LoaderHook()
    prepare_data: Any = _PrepareHook()
    on_before_batch_transfer: Any = InnerHook()
    transfer_batch_to_device: Any = InnerHook()
    on_after_batch_transfer: Any = InnerHook()

    name: Any = InnerAttribute()
    prepare_data_per_node: Any = InnerAttribute()
    allow_zero_length_dataloader_with_multiple_devices: Any = InnerAttribute()
    hparams: Any = InnerAttribute()
    hparams_initial: Any = InnerAttribute()
    _log_hyperparams: Any = InnerAttribute()
    _hparams_name: Any = InnerAttribute()

    def __init__(
        self,
        candidates: Any,
        real: Any = None,
        *,
        wraps: LightningDataModule | None = None,
        view: Selector | None = None,
        label: Selector | None = None,
        mixture: Mixture | Mapping[str, float] | None = None,
        labeled_real: Any = None,
        real_share: float | None = None,
        train_transform: Callable[[Any], Any] | None = None,
        epoch_length: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
    ) -> None:
        super().__init__()
        check_inner(wraps)
        check_int("seed", seed, 0)
        _check_options(epoch_length=epoch_length, batch_size=batch_size, num_workers=num_workers)
        _check_functions(train_transform=train_transform, collate_fn=collate_fn)
        check_labeled(labeled_real, real_share)
        self._sources = {
            "candidates": candidates,
            "real": real,
            "labeled_real": labeled_real,
            "view": view,
            "label": label,
        }
        self._modules = candidate_modules(candidates)
        self._candidates: list[Candidate] | None = None
        self._real: RealSample | None = None
        self._real_share = real_share
        self._fixed: LabeledRealData | None = None
        self._mixture = _as_mixture(mixture)
        self._transform, self._epoch_length, self._seed = train_transform, epoch_length, seed
        self._batch_size = batch_size
        self._options = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "collate_fn": collate_fn,
        }
        self._given = {
            f"{name}_dataloader": as_given_data(name, data)
            for name, data in (("val", val), ("test", test), ("predict", predict))
            if data is not None
        }
        self._position = Position()
        self._built: Mixture | None = None  # what the train loader of the fit under way serves
        self._served_batch_size: int | None = None
        self._fingerprints = Fingerprints()
        self._note = SpawnResult()
        self._unprepared: Exception | None = None  # what failed before the ranks can tell
        self._inner = wraps  # last: from here on attributes reach it

    def __getattr__(self, name: str) -> Any:
        inner = vars(self).get("_inner")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inner = vars(self).get("_inner")
        own = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if inner is not None and not own and hasattr(inner, name):
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def wraps(self) -> LightningDataModule | None:
        """The DataModule that this one stands in for."""
        return self._inner

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, loaded when they are first asked for."""
        if self._candidates is None:
            sources = self._sources
            given = with_train_data(sources["candidates"], self.trainer)
            # in place of what may be a generator, which no copy and no other process can have
            sources["candidates"] = self._candidates = load_candidates(
                given, view=sources["view"], label=sources["label"]
            )
        return self._candidates

    @property
    def real(self) -> RealSample | None:
        """The unannotated real examples, loaded when they are first asked for."""
        if self._real is None and self._sources["real"] is not None:
            sources = self._sources
            sources["real"] = self._real = load_real(sources["real"], view=sources["view"])
        return self._real

    @property
    def fixed_part(self) -> LabeledRealData | None:
        """The labeled real data and its share of the draws; None without `labeled_real`."""
        if self._fixed is None and self._real_share is not None:
            sources = self._sources
            data = load_labeled(
                sources["labeled_real"], self.candidates, sources["view"], sources["label"]
            )
            sources["labeled_real"] = data
            self._fixed = LabeledRealData(data, self._real_share)
        return self._fixed

    @property
    def mixture(self) -> Mixture | None:
        """What is trained on; None as long as nobody has chosen it and no fit has begun.

        After a fit in launched processes (`ddp_spawn`, `ddp_notebook`) it is what they trained on.
        """
        left = self._note.take()
        if left is not None:
            self._mixture = Mixture.from_dict(left)
        return self._mixture

    def set_mixture(self, mixture: Mixture) -> None:
        """Choose what the next train loader serves, by the end of `setup("fit")`.

        Raises:
            LightningError: The fit under way already has a train loader for another mixture.
            ConfigError: The mixture names a candidate that is not there.
        """
        chosen_candidates(self.candidates, mixture)
        if self._built is not None and self._built.weights != mixture.weights:
            raise LightningError(
                f"the train loader of this fit was already built for {_show(self._built)}; "
                f"it cannot change to {_show(mixture)}: set the mixture by the end of setup('fit') "
                "(estimated_stepping_batches in configure_optimizers builds the loader too)"
            )
        current = self.mixture
        if current is None or current.weights != mixture.weights:
            self._position.restore(Position().state())
        self._mixture = mixture

    def with_mixture(self, mixture: Mixture) -> SynqueDataModule:
        """Return a DataModule that serves another mixture of the same data, from its beginning.

        A wrapped DataModule is shared: it is set up as it is here.
        """
        other = copy.copy(self)
        other._position, other._built, other._note = Position(), None, SpawnResult()
        other.set_mixture(mixture)
        return other

    def detached(self) -> SynqueDataModule:
        """Return a copy, around a copy of what is wrapped, that no trainer is attached to."""
        other = copy.copy(self)
        other._inner, other._note = copy.copy(self._inner), SpawnResult()
        other.trainer = None
        return other

    @property
    def batch_size(self) -> int:
        """Examples in a batch on each rank."""
        batch_size = self._batch_size or self._served_batch_size or self._known_batch_size
        if batch_size is None and self._inner is not None:  # as Lightning sees the wrapped one
            raise AttributeError("batch_size")
        return batch_size or _DEFAULT_BATCH_SIZE

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        _check_options(batch_size=batch_size)
        self._batch_size = batch_size
        if hasattr(self._inner, "batch_size"):
            self._inner.batch_size = batch_size  # type: ignore[union-attr]
        if self._inner is not None and "batch_size" in self._inner.hparams:
            self._inner.hparams["batch_size"] = batch_size

    @property
    def trainer(self) -> Trainer | None:
        """The trainer that this DataModule, and the one it wraps, is attached to."""
        return vars(self).get("_trainer")

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        refuse_other_lightning("the Trainer", trainer)
        self._trainer = trainer
        inner = vars(self).get("_inner")
        if inner is not None:
            inner.trainer = trainer

    @property
    def _known_batch_size(self) -> int | None:
        """The batch size that was given or tuned, else the wrapped DataModule's."""
        if self._batch_size is not None or self._inner is None:
            return self._batch_size
        found = getattr(self._inner, "batch_size", None) or self._inner.hparams.get("batch_size")
        return None if found is None else int(found)

    def setup(self, stage: str) -> None:
        """Set up the wrapped DataModule; for fit, load the candidates and check the mixture."""
        trainer = self.trainer
        if trainer is None or not self._has_ranks:
            self._set_up(stage)
            return
        with raise_on_all_ranks(trainer):
            self._set_up(stage)

    def _set_up(self, stage: str) -> None:
        failure, self._unprepared = self._unprepared, None
        if failure is not None:
            raise failure
        if self._inner is not None:
            self._inner.setup(stage=stage)
        if stage == TrainerFn.FITTING:
            self._built = None
            self._share_iterables()
            if self.mixture is not None:
                chosen_candidates(self.candidates, self.mixture)
            _ = self.fixed_part  # refused here and not when the train loader is built

    @property
    def _has_ranks(self) -> bool:
        """Whether this is one of several processes that fit together."""
        trainer = self.trainer
        return self._fitting and trainer is not None and trainer.world_size > 1

    def teardown(self, stage: str) -> None:
        """Tear down the wrapped DataModule; after fit the mixture may change again."""
        if stage == TrainerFn.FITTING:
            self._built = None
            if self._mixture is not None and getattr(self.trainer, "local_rank", 0) == 0:
                self._note.write(self._mixture.to_dict())
        if self._inner is not None:
            self._inner.teardown(stage=stage)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the wrapped DataModule; the mixture may change again."""
        self._built = None
        if self._inner is not None:
            self._inner.on_exception(exception)

    def _serve_given(self, data: Any) -> Any:
        """Return the loaders of what was given as val, test or predict."""
        batch_size = getattr(self, "batch_size", _DEFAULT_BATCH_SIZE)
        return given_loaders(data, batch_size, self._options)

    def train_dataloader(self) -> Any:
        """Serve the mixture, sharded over the ranks, from where training stands.

        Returns:
            A DataLoader; inside a CombinedLoader where the wrapped DataModule has its own in a
            collection, so that batches keep their structure.

        Raises:
            ConfigError: No batch size is known, or an epoch has not one batch.
            DataError: The examples cannot stand in one batch.
        """
        loaders = self._template()
        return loaders.replaced(self._mixture_loader(loaders.loader))

    def mixture_loader(self) -> MixtureLoader:
        """Return the DataLoader in what `train_dataloader` returns."""
        return self._mixture_loader(self._template().loader)

    def _mixture_loader(self, template: DataLoader[Any] | None) -> MixtureLoader:
        names = [candidate.name for candidate in self.candidates]
        mixture = self._mixture or Mixture.equal(names, "all candidates, equal weights")
        options = self._loader_options(template)
        shares: dict[str, int] = getattr(self.trainer, "distributed_sampler_kwargs", None) or {}
        parts, drawn = self.drawn(mixture)
        dataset = MixtureDataset(
            parts,
            drawn,
            seed=self._seed,
            epoch_length=self._epoch_draws(mixture, options, shares.get("num_replicas", 1)),
            transform=self._transform,
        )
        if options.get("collate_fn") in (None, default_collate):
            with isolate_rng(include_cuda=False):  # a transform may be random
                check_collatable(first_examples(dataset.candidates, self._transform))
        self._served_batch_size = options["batch_size"]
        if self._fitting:
            self._mixture = self._built = mixture
        sampler = MixtureSampler(dataset, **shares)
        return MixtureLoader(dataset, sampler=sampler, begin=self._begin, **options)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: mixture, position, what was in the candidates, the inner state."""
        epoch, batches = self._progress
        chosen = [] if self._mixture is None else chosen_candidates(self.candidates, self._mixture)
        return {
            "version": 1,
            "mixture": None if self._mixture is None else self._mixture.to_dict(),
            "seed": self._seed,
            "position": self._position.state(epoch, batches),
            "candidates": {
                candidate.name: self._fingerprints.of(candidate) for candidate in chosen
            },
            "labeled_real": self._fixed_state(),
            "inner": {} if self._inner is None else self._inner.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the mixture and at the position of a checkpoint, when it is for fit.

        Raises:
            LightningError: The fit under way already has a train loader for another mixture, the
                mixture names a candidate that is not there, or the state is of another version.
        """
        if state_dict.get("version") != 1:
            raise LightningError(
                f"the checkpoint holds a state of version {state_dict.get('version')!r} of "
                "SynqueDataModule; allowed is 1"
            )
        if self._inner is not None:
            self._inner.load_state_dict(state_dict["inner"])
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return
        state = with_new_names(state_dict)
        same_part(state.get("labeled_real"), self._fixed_state())
        if state["mixture"] is not None:
            self._restore_mixture(Mixture.from_dict(state["mixture"]), state)
        self._position.restore(state["position"])

    def _restore_mixture(self, mixture: Mixture, state: Mapping[str, Any]) -> None:
        try:
            chosen = chosen_candidates(self.candidates, mixture)
        except ConfigError as error:
            raise LightningError(f"the checkpoint cannot be resumed: {error}") from error
        if self._built is not None and self._built.weights != mixture.weights:
            raise LightningError(
                f"the checkpoint was trained on {_show(mixture)}, but this run's train loader was "
                f"already built for {_show(self._built)}, as its strategy restores checkpoints "
                f"late: give SynqueDataModule(mixture={dict(mixture.weights)}) and no "
                "SelectionCallback to go on with it"
            )
        if self._mixture is not None and self._mixture.weights != mixture.weights:
            rank_zero_warn(
                f"training goes on with the checkpoint's mixture, {_show(mixture)}, "
                f"not with {_show(self._mixture)}"
            )
        self._mixture = mixture
        self._warn_of_changes(chosen, state)

    def _warn_of_changes(self, chosen: list[Candidate], state: Mapping[str, Any]) -> None:
        parts = [(candidate, state["candidates"][candidate.name]) for candidate in chosen]
        if self.fixed_part is not None:
            parts.append((self.fixed_part.data, state["labeled_real"]))
        changed = [part.name for part, was in parts if self._fingerprints.has_changed(part, was)]
        if changed:
            rank_zero_warn(
                f"the content of {', '.join(changed)} has changed since the checkpoint was written"
            )
        if state["seed"] != self._seed:
            rank_zero_warn(
                f"seed is {self._seed}, but was {state['seed']} when the checkpoint was written: "
                "the order of examples is another one, and some may come again early"
            )

    @property
    def planned_draws(self) -> int | None:
        """Draws from candidates, over all ranks, that the trainer's limits allow a fit at most.

        None where only epochs are counted whose length follows from the mixture.
        """
        trainer = self.trainer
        if trainer is None:
            return None
        bounds = []
        if trainer.max_steps > 0:
            batches = trainer.max_steps * trainer.accumulate_grad_batches * n_data_replicas(trainer)
            batch_size: int = self._loader_options(self._template().loader)["batch_size"]
            bounds.append(batches * batch_size)
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and self._epoch_length:
            bounds.append(trainer.max_epochs * self._epoch_length)
        return math.floor(min(bounds) * (1 - (self._real_share or 0.0))) if bounds else None

    def drawn(self, mixture: Mixture) -> tuple[list[Candidate], Mixture]:
        """Return the candidates and the labeled real data, and each one's share of the draws."""
        fixed = self.fixed_part
        if fixed is None:
            return self.candidates, mixture
        return [*self.candidates, fixed.data], fixed.beside(mixture)

    def _fixed_state(self) -> dict[str, Any] | None:
        fixed = self.fixed_part
        if fixed is None:
            return None
        return {"name": fixed.data.name, "share": fixed.share, **self._fingerprints.of(fixed.data)}

    @property
    def _fitting(self) -> bool:
        trainer = self.trainer
        return (
            trainer is not None
            and trainer.state.fn == TrainerFn.FITTING
            and trainer.state.status == TrainerStatus.RUNNING
        )

    @property
    def _progress(self) -> tuple[int | None, int]:
        """The trainer's epoch, and how many batches of it were trained on."""
        if self.trainer is None:
            return None, 0
        loop: Any = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        return loop.epoch_progress.current.processed, progress.current.processed

    def _begin(self, epoch: int) -> Position | None:
        """Say where a train loader begins: training goes on, anybody else looks at an epoch."""
        if not self._fitting:
            return None
        self._position.begin(epoch, self._progress[1])
        return self._position

    def _share_iterables(self) -> None:
        """Let rank 0 read what can be read only once, or differently each time, for all ranks."""
        trainer, sources = self.trainer, self._sources
        if trainer is None or trainer.world_size == 1 or self._candidates is not None:
            return
        found: list[tuple[str, Any]] = []
        parts = {name: sources[name] for name in ("candidates", "real", "labeled_real")}
        parts["candidates"] = with_train_data(parts["candidates"], trainer)
        sources["candidates"] = parts["candidates"]
        for part in parts.values():
            replace_iterables(part, lambda name, data: found.append((name, data)))
        if not found:
            return
        stored = on_rank_zero(
            trainer, lambda: {"paths": [str(store_iterable(*each)) for each in found]}
        )
        paths = iter(stored["paths"])
        for name, part in parts.items():
            sources[name] = replace_iterables(part, lambda *_: open_stored(Path(next(paths))))

    def _template(self) -> TrainLoaders:
        """Return the training loader that ours stands in for, or whose options it has."""
        if self._inner is not None or not self._modules:
            return inner_train_loaders(self._inner)
        return TrainLoaders(inner_train_loaders(next(iter(self._modules.values()))).loader)

    def _loader_options(self, template: DataLoader[Any] | None) -> dict[str, Any]:
        options = loader_options(template, {**self._options, "batch_size": self._batch_size})
        # what its loader says comes before the attribute, which may be a size for all ranks
        options["batch_size"] = options.get("batch_size") or self._known_batch_size
        if options["batch_size"] is None and None not in (template, self._inner):
            raise ConfigError(
                f"the training loader of {type(self._inner).__name__} has no batch size: give "
                "batch_size="
            )
        return {**options, "batch_size": options["batch_size"] or _DEFAULT_BATCH_SIZE}

    def _epoch_draws(self, mixture: Mixture, options: Mapping[str, Any], replicas: int) -> int:
        """Return the draws that an epoch serves on all ranks together."""
        chosen = chosen_candidates(self.candidates, mixture)
        wanted = self._epoch_length
        if wanted is None:  # labeled real data is as small as it is: it does not shorten an epoch
            candidates_share = 1 - (self._real_share or 0.0)
            longest = longest_epoch({c.name: len(c) for c in chosen}, mixture)
            wanted = int(longest / candidates_share)
        unit = replicas * (options["batch_size"] if options.get("drop_last") else 1)
        if wanted < unit:
            share = "one draw" if unit == replicas else f"one whole batch of {unit // replicas}"
            raise ConfigError(
                f"an epoch of {wanted} draws has less than {share} for each of {replicas} ranks: "
                "raise epoch_length, or lower batch_size"
            )
        return wanted // unit * unit


def attached_datamodule(trainer: Trainer) -> SynqueDataModule | None:
    """Return the trainer's DataModule; None if it has none or one of another class."""
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule if isinstance(datamodule, SynqueDataModule) else None


def _prepare(data: SynqueDataModule, prepare: Callable[[], None]) -> None:
    data._unprepared = None
    try:
        for module in data._modules.values():
            module.prepare_data()
        prepare()
    except Exception as error:
        if not data._has_ranks:
            raise
        data._unprepared = error


def _as_mixture(mixture: Mixture | Mapping[str, float] | None) -> Mixture | None:
    if mixture is None or isinstance(mixture, Mixture):
        return mixture
    return Mixture(mixture, "given")


_LEAST = {"epoch_length": 1, "batch_size": 1, "num_workers": 0}


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None:
            check_int(name, value, _LEAST[name])


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ConfigError(f"{name}={function!r}: allowed is a function")


def _show(mixture: Mixture) -> str:
    return "{" + ", ".join(f"{name}: {w:.4g}" for name, w in mixture.weights.items()) + "}"
