"""What both classes of SynqueDataModule share: a mixture of candidates, maybe around other data."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypedDict, TypeGuard, TypeVar, cast

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_collate

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.families import FamilySpec
from synque_select.data.groups import GroupSelector
from synque_select.data.iterables import open_stored, store_iterable
from synque_select.data.label_edits import LabelEdits
from synque_select.data.population import ReservoirOptions
from synque_select.data.sources import load_candidates, load_real, replace_iterables
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, LightningError
from synque_select.selection.surrogate import SurrogateDraw
from synque_select.training.bookkeeping import bookkeeping
from synque_select.training.collation import (
    add_transform_note,
    check_collatable,
    check_collate,
    first_examples,
)
from synque_select.training.curriculum import (
    Curriculum,
    curriculum_scores,
    ramp_scores,
    with_scores,
)
from synque_select.training.distributed import n_data_replicas, on_rank_zero, raise_on_all_ranks
from synque_select.training.draws import Export, export_draws
from synque_select.training.eval_loaders import LoaderHook, check_eval_data, eval_loaders
from synque_select.training.fingerprints import Fingerprint, Fingerprints
from synque_select.training.labeled_real import (
    LabeledRealData,
    LabeledRealState,
    check_labeled,
    check_same_labeled,
    load_labeled,
    with_new_names,
)
from synque_select.training.lengths import Length, TokenOptions, WeighBy, token_lengths
from synque_select.training.lightning_compat import (
    DataModuleT,
    TrainerT,
    check_package,
    is_overridden,
)
from synque_select.training.mixture_loader import (
    MixtureDataset,
    MixtureLoader,
    MixtureSampler,
    NamedRamp,
    Position,
    Transform,
    chosen_candidates,
)
from synque_select.training.mixture_schedule import longest_epoch
from synque_select.training.spawn_result import SpawnResult
from synque_select.training.surrogate import (
    SurrogateOptions,
    SurrogateValidation,
    draw_for,
    mark_loggers,
    surrogate_options,
    unmark_loggers,
)
from synque_select.training.weight_changes import (
    ChangingWeights,
    WeightChange,
    WeightTable,
    check_weights,
)
from synque_select.training.wrapping import (
    Collate,
    InnerAttribute,
    InnerHook,
    LoaderOptions,
    TrainLoaders,
    candidate_modules,
    check_inner,
    inner_train_loaders,
    loader_options,
    with_descriptors,
    with_train_data,
)
from synque_select.types import Mixture
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.process_state import seeded
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyTrainer

    AnySynqueDataModule: TypeAlias = "BaseSynqueDataModule[Any, Any]"

__all__ = ["BaseSynqueDataModule", "attached_datamodule", "is_synque_datamodule"]

_DEFAULT_BATCH_SIZE = 32
_T = TypeVar("_T")
_FIT = "fit"


class _PrepareHook(InnerHook):
    """Also prepares candidates that are DataModules; a failure on one rank is raised on all."""

    def __get__(self, instance: object, owner: type | None = None) -> object:
        prepare = super().__get__(instance, owner)
        if not is_synque_datamodule(instance) or not callable(prepare):
            return prepare
        state = vars(instance)
        if state.get("_modules") or is_overridden(self.name, state.get("_inner")):
            return functools.partial(_prepare, instance, prepare)
        return prepare


class _State(TypedDict):
    """What a checkpoint stores of a `SynqueDataModule`."""

    version: int
    mixture: dict[str, Json] | None
    seed: int
    position: dict[str, int | None]
    candidates: dict[str, Fingerprint]
    labeled_real: LabeledRealState | None
    surrogate: str | None  # missing in states of version 0.2 and before
    label_edits: dict[str, Json] | None
    # missing in states of version 0.4 and before, whose version is 1
    changes: dict[str, Any] | None
    sampling: dict[str, Json]
    ramp: int | None
    counted_epoch: int | None
    inner: dict[str, Any]


@with_descriptors(
    val_dataloader=LoaderHook(),
    test_dataloader=LoaderHook(),
    predict_dataloader=LoaderHook(),
    prepare_data=_PrepareHook(),
    on_before_batch_transfer=InnerHook(),
    transfer_batch_to_device=InnerHook(),
    on_after_batch_transfer=InnerHook(),
    name=InnerAttribute(),
    prepare_data_per_node=InnerAttribute(),
    allow_zero_length_dataloader_with_multiple_devices=InnerAttribute(),
    hparams=InnerAttribute(),
    hparams_initial=InnerAttribute(),
    _log_hyperparams=InnerAttribute(),
    _hparams_name=InnerAttribute(),
)
class BaseSynqueDataModule(Generic[TrainerT, DataModuleT]):
    """Serves a mixture of candidates for training, and other data for validation and test.

    Pass it to `Trainer.fit` alone (with `val=`, `test=`, `predict=`), or let it wrap an existing
    DataModule (`wraps=`): then every loader except the training loader, every hook and every public
    attribute is that of the wrapped DataModule. With a `SelectionCallback` the mixture is chosen
    before training; without one it is `mixture=`, or all candidates with equal weights.

    Candidate a is drawn 1,000·w_a times (± 1) in each 1,000 draws, counted over all ranks. An epoch
    continues where the previous one ended; no example is repeated before all examples of its
    candidate have been drawn. A run that resumes from a checkpoint continues with the mixture of
    the checkpoint, at the exact position.

    Args:
        candidates: A list of `Candidate`, anything that `load_candidates` takes, or a mapping from
            name to LightningDataModule, whose training data is the candidate (without `wraps`, the
            training loader has the options of the first one's training loader).
        real: A `RealSample`, or anything that `load_real` takes; None to train without a ranking.
        real_groups: What real examples share that do not vary independently, such as a thread,
            author, session or page; see `load_real`. None groups exact and near duplicates.
        wraps: The DataModule that this one wraps and replaces.
        view: What a proxy sees of an example, such as a field or "chat:user"; see
            `load_candidates`.
        real_view: View of the real sample; None for that of the candidates.
        label: Field of an example with its label; see `Candidate`.
        family: Which candidates come from the same generator and so do not judge each other's
            labels; see `load_candidates`.
        split: The split of datasets that have several, for both sides; None for "train".
        real_split: The split of the real sample; None for that of the candidates.
        reservoir: Number of examples that are drawn at random from each larger candidate, for the
            ranking; None for all. Training draws from all examples: of an iterable dataset it reads
            them in their order, window by window of 1,000, which are shuffled.
        mixture: Mixture to train on, a `Mixture` or a mapping from candidate name to weight.
        labeled_real: Labeled real data that is always part of training and never ranked: anything
            that `load_candidates` reads as one candidate. This is not the real sample, whose labels
            are never read.
        real_share: Share of `labeled_real` in all draws, exact in each 1,000 draws like any weight.
            Its examples are repeated within an epoch if the share requires more than there are.
        train_transform: Turns one example of a candidate into a training example.
        epoch_length: Draws per epoch, over all ranks; None for ⌊min_a N_a/w_a⌋, the longest epoch
            without repetitions in a candidate. Rounded down to a multiple of the number of ranks
            (or of a whole batch on all ranks, if the last incomplete batch is dropped).
        weigh_by: "tokens" if weights are shares of the tokens, "examples" if of the draws.
        length: With "tokens": function of a training example that returns its number of tokens;
            None for that of its `input_ids`, or else of the words of its view.
        max_length: With "tokens": what training truncates examples to; None for no limit.
        curriculum: Order of each candidate's examples by scores: a `Curriculum`, in a config its
            arguments, such as {by: pad, order: descending}. None for a random order.
        seed: Random seed for the order of examples, not negative.
        batch_size: Batch size on each rank; None for that of the wrapped training loader, or 32
            without one. Lightning's BatchSizeFinder sets it here and in the wrapped DataModule.
        num_workers: Number of worker processes; None for that of the wrapped training loader, or 0.
        pin_memory: Whether to pin memory; None for that of the wrapped training loader, or False.
        collate_fn: Turns a list of examples into a batch; None for that of the wrapped training
            loader, or torch's default.
        val: A dataset (batched with the options given here), a DataLoader, or a list of these; None
            for the data of the wrapped DataModule. "surrogate" or `SurrogateOptions` for examples
            of the candidates that are held out of training, where no labeled real example exists;
            see `SurrogateValidation`. Loggers get what is measured on them as "surrogate/…".
        test: A dataset, a DataLoader, or a list of these, like `val`.
        predict: Like `test`.

    Raises:
        ConfigError: An argument is not allowed.
        LightningError: `wraps` is not a DataModule of the same package of Lightning.

    Example:
        >>> from synque_select import SynqueDataModule
        >>> examples = [{"text": f"headline {i}", "label": i % 2} for i in range(8)]
        >>> dm = SynqueDataModule(
        ...     [Candidate("a", examples, view="text"), Candidate("b", examples, view="text")],
        ...     mixture={"a": 0.75, "b": 0.25},
        ...     batch_size=4,
        ... )
        >>> batch = next(iter(dm.train_dataloader()))
        >>> len(batch["text"]), batch["label"].shape
        (4, torch.Size([4]))
    """

    def __init__(
        self,
        candidates: Any,
        real: Any = None,
        *,
        real_groups: GroupSelector | None = None,
        wraps: DataModuleT | None = None,
        view: Selector | None = None,
        real_view: Selector | None = None,
        split: str | None = None,
        real_split: str | None = None,
        reservoir: int | None = None,
        label: Selector | None = None,
        family: FamilySpec | None = None,
        mixture: Mixture | Mapping[str, float] | None = None,
        labeled_real: Any = None,
        real_share: float | None = None,
        train_transform: Transform | None = None,
        epoch_length: int | None = None,
        weigh_by: WeighBy = "examples",
        length: Length | None = None,
        max_length: int | None = None,
        curriculum: Curriculum | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool | None = None,
        collate_fn: Collate | None = None,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
    ) -> None:
        super().__init__()
        check_inner(self, wraps)
        check_int("seed", seed, 0)
        _check_options(epoch_length=epoch_length, batch_size=batch_size, num_workers=num_workers)
        _check_functions(train_transform=train_transform, collate_fn=collate_fn)
        check_labeled(labeled_real, real_share)
        _check_curriculum(curriculum)
        self._sources = {"candidates": candidates, "real": real, "labeled_real": labeled_real}
        self._view, self._label, self._real_groups = view, label, real_groups
        self._real_view = view if real_view is None else real_view
        self._split, self._real_split = split, real_split
        ReservoirOptions.of(reservoir, seed)  # checked before anything is read
        self._reservoir = reservoir
        self._family = family
        self._modules = candidate_modules(self, candidates)
        self._candidates: list[Candidate] | None = None
        self._real: RealSample | None = None
        self._real_share = real_share
        self._labeled_real: LabeledRealData | None = None
        self._mixture = _as_mixture(mixture)
        self._label_edits: LabelEdits | None = None
        self._transform, self._epoch_length, self._seed = train_transform, epoch_length, seed
        self._tokens = TokenOptions.of(weigh_by, length, max_length)
        self._lengths: dict[str, NDArray[np.int64]] = {}  # of the examples to train on
        self._curriculum = curriculum
        self._ramp: int | None = None  # draws in a ramp, from when it is known
        # draws after each of which counts are exact, from when they are known
        self._counted_epoch: int | None = None
        self._batch_size = batch_size
        self._options: LoaderOptions = {}
        if num_workers is not None:
            self._options["num_workers"] = num_workers
        if pin_memory is not None:
            self._options["pin_memory"] = pin_memory
        if collate_fn is not None:
            self._options["collate_fn"] = collate_fn
        self._surrogate_options = _with_transform(surrogate_options(val), train_transform)
        if self._surrogate_options is not None and real is None:
            raise ConfigError("val='surrogate' needs real=: examples are drawn towards real ones")
        self._surrogate: SurrogateValidation | None = None
        self._eval_data = {
            f"{name}_dataloader": check_eval_data(name, data)
            for name, data in (("val", val), ("test", test), ("predict", predict))
            if data is not None and not (name == "val" and self.uses_surrogate)
        }
        if self._surrogate_options is not None:
            self._eval_data["val_dataloader"] = self._surrogate_options
        self._position = Position()
        self._is_resumed = False  # whether the position is that of a checkpoint
        self._changing: ChangingWeights | None = None
        self._changes_mixture = False  # whether those that may be drawn are those of the mixture
        self._built: Mixture | None = None  # what the train loader of the current fit serves
        self._served_batch_size: int | None = None
        self._fingerprints = Fingerprints()
        self._spawn_result: SpawnResult[dict[str, Json]] = SpawnResult()
        self._prepare_error: Exception | None = None  # raised once all ranks can be told
        self._inner = wraps  # last: from here on attributes lead to it

    def __getattr__(self, name: str) -> Any:
        inner = vars(self).get("_inner")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        inner = vars(self).get("_inner")
        own = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if inner is not None and not own and hasattr(inner, name):
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def wraps(self) -> DataModuleT | None:
        """The DataModule that this one wraps."""
        return self._inner

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, loaded at the first access."""
        if self._candidates is None:
            given = with_train_data(self._sources["candidates"], self._modules, self.trainer)
            self._candidates = load_candidates(
                given,
                view=self._view,
                label=self._label,
                family=self._family,
                split=self._split,
                reservoir=self._reservoir,
                seed=self._seed,
            )
            # the source may be a generator, which cannot be copied or sent to another process
            self._sources["candidates"] = self._candidates
        return self._candidates

    @property
    def real(self) -> RealSample | None:
        """The real sample, loaded at the first access; None without one."""
        if self._real is None and self._sources["real"] is not None:
            self._real = load_real(
                self._sources["real"],
                view=self._real_view,
                real_groups=self._real_groups,
                split=self._split,
                real_split=self._real_split,
            )
            self._sources["real"] = self._real
        return self._real

    @property
    def labeled_real(self) -> LabeledRealData | None:
        """The labeled real data and its share of the draws, loaded at the first access; or None."""
        if self._labeled_real is None and self._real_share is not None:
            source = self._sources["labeled_real"]
            data = load_labeled(source, self.candidates, self._real_view, self._label)
            self._sources["labeled_real"] = data
            self._labeled_real = LabeledRealData(data, self._real_share)
        return self._labeled_real

    @property
    def sampling(self) -> JsonObject:
        """How examples are drawn, where this is not the default: part of the key of run records.

        "weigh_by" is "tokens" if weights are shares of tokens, with "max_length" if it is limited;
        "curriculum" describes the order, with its "draws" and "encoder" if they are given.
        """
        sampling: dict[str, Json] = {}
        if self._tokens is not None:
            sampling["weigh_by"] = "tokens"
            if self._tokens.max_length is not None:
                sampling["max_length"] = self._tokens.max_length
        if self._curriculum is not None:
            sampling |= self._curriculum.key
        return sampling

    @property
    def uses_surrogate(self) -> bool:
        """Whether validation uses examples of the candidates instead of labeled real ones."""
        return self._surrogate_options is not None

    @property
    def surrogate(self) -> SurrogateValidation | None:
        """The surrogate validation set, drawn at the first access; None without one."""
        if self._surrogate is None and self._surrogate_options is not None:
            self.use_surrogate(self.draw_surrogate())
        return self._surrogate

    def draw_surrogate(self) -> SurrogateDraw | None:
        """Return which examples are for surrogate validation, for `use_surrogate` on other ranks.

        None without a surrogate validation set.
        """
        if self._surrogate is not None:
            return self._surrogate.draw
        options, real = self._surrogate_options, self.real
        return None if options is None or real is None else draw_for(self.candidates, real, options)

    def use_surrogate(self, draw: SurrogateDraw | None) -> None:
        """Use what `draw_surrogate` returned on rank 0, so that every rank has the same set."""
        options = self._surrogate_options
        if draw is None or options is None or self._surrogate is not None:
            return
        self._surrogate = SurrogateValidation(self.candidates, draw, options)
        for message in draw.messages:
            rank_zero_info(message)

    def on_labeled_validation(self) -> Self | None:
        """Return a copy that validates on the labeled data beside a surrogate validation set.

        This is how the reliability of the surrogate is measured, where labels exist.

        Returns:
            None without a surrogate validation set, or without labeled data beside it.
        """
        if not self.uses_surrogate:
            return None
        other = copy.copy(self)
        other._surrogate_options = other._surrogate = None
        other._eval_data = {k: v for k, v in self._eval_data.items() if k != "val_dataloader"}
        return other if is_overridden("val_dataloader", other) else None

    @property
    def _training_candidates(self) -> list[Candidate]:
        """The candidates without the examples that are held out, or that the label filter drops."""
        parts = self.candidates if self.surrogate is None else self.surrogate.training
        edits = self._label_edits
        if edits is None:
            return parts
        pairs = zip(parts, self.candidates, strict=True)
        return [edits.apply(part, of=ranked) for part, ranked in pairs]

    @property
    def mixture(self) -> Mixture | None:
        """The mixture to train on; None until it is chosen or a fit has begun.

        After a fit in launched processes (`ddp_spawn`, `ddp_notebook`), it is the mixture that they
        trained on.
        """
        launched = self._spawn_result.take()
        if launched is not None:
            self._mixture = Mixture.from_dict(launched)
        return self._mixture

    def set_mixture(self, mixture: Mixture) -> None:
        """Set the mixture of the next train loader; allowed until `setup("fit")` ends.

        Raises:
            LightningError: The current fit already has a train loader for another mixture.
            ConfigError: The mixture names an unknown candidate.
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
            self._start_over()
            self.forget_changes()
        self._mixture = mixture

    def _start_over(self) -> None:
        """Begin at draw 0 of other data."""
        self._position.restore(Position().state())
        self._ramp = self._counted_epoch = None

    def enable_changes(self, candidates: Sequence[str] | None = None) -> None:
        """Let the weights change while a model trains; allowed until `setup("fit")` ends.

        The draws stay as they are until the first change.

        Args:
            candidates: Names of the candidates that may be drawn, with those of the mixture; None
                for those of the mixture that is trained on, which need not be chosen yet.

        Raises:
            ConfigError: A name is not that of a candidate, or the mixture names another candidate.
            LightningError: The current fit already has a train loader, or trains on the same
                batches again and again (`overfit_batches`).
        """
        known = None if self._changing is None else self._changing.names
        if candidates is not None and known == tuple(sorted(candidates)):
            self._changes_mixture = False
            return
        if self._built is not None:
            raise LightningError(
                "the train loader of this fit was already built: call enable_changes by the end of "
                "setup('fit') (estimated_stepping_batches in configure_optimizers builds the "
                "loader too)"
            )
        if getattr(self.trainer, "overfit_batches", 0):
            raise LightningError(
                "overfit_batches trains on the same batches again and again, so weights cannot "
                "change: leave it out"
            )
        self._changes_mixture = candidates is None
        if candidates is not None:
            self._changing = self._changing_of(candidates)

    def _changing_of(self, candidates: Sequence[str]) -> ChangingWeights:
        labeled = self.labeled_real
        fixed = {} if labeled is None else {labeled.data.name: labeled.share}
        changing = ChangingWeights(candidates, fixed)
        check_weights(self._served_mixture().weights, changing.names)
        chosen_candidates(self.candidates, Mixture.equal(changing.names))
        return changing

    def _changes_for(self, mixture: Mixture) -> WeightTable | None:
        """Return the changes of the weights in a training on a mixture; None if there are none."""
        known = () if self._changing is None else self._changing.names
        if self._changes_mixture and not set(mixture.names) <= set(known):
            self._changing = self._changing_of(mixture.names)
        return None if self._changing is None else self._changing.table

    def change_weights(self, weights: Mapping[str, float]) -> int:
        """Set the weights of later draws while a model trains.

        Call it on every rank with the same weights, after a training step, such as in
        `Callback.on_train_batch_end`. The weights hold from 1 + num_workers · prefetch_factor
        batches later on, as batches are fetched ahead; from there on, candidate a is drawn
        1,000·w_a times (± 1) in each 1,000 draws. No loader or worker is started again, and each
        candidate's examples go on where they were: none comes again before all have been drawn.

        Args:
            weights: Candidate name to weight, at least 0; they sum to 1. Candidates that are not
                named get 0.

        Returns:
            The first draw, counted from 0 over all ranks, that the weights hold for.

        Raises:
            ConfigError: The weights are not allowed.
            LightningError: No fit is training, changes were not enabled, or there
                are too many.
        """
        if self._changing is None or self._built is None or self.trainer is None:
            raise LightningError(
                "weights can change while a fit trains: call enable_changes in Callback.setup, and "
                "change_weights after a training step"
            )
        return self._changing.change(
            weights,
            step=self.trainer.global_step,
            trained=self.trained_draws,
        )

    def forget_changes(self) -> None:
        """Forget the changes of an earlier training; for callbacks, when another one begins."""
        if self._changing is not None:
            self._changing.table.restore([])

    @property
    def trained_draws(self) -> int:
        """Number of draws, over all ranks, that this training has been trained on."""
        return self._position.trained(*self._progress)

    @property
    def weight_changes(self) -> tuple[WeightChange, ...]:
        """The changes of the weights in this training, in the order of their draws.

        Until the first one, the weights are those of `mixture`.
        """
        return () if self._changing is None else self._changing.table.changes

    @property
    def label_edits(self) -> LabelEdits | None:
        """What the label filter changes in the candidates; None without a filter."""
        return self._label_edits

    def set_label_edits(self, edits: LabelEdits | None) -> None:
        """Set the examples that training leaves out or relabels; allowed until `setup("fit")` ends.

        `candidates` are what was ranked and stay as they are; only the train loader changes.

        Raises:
            LightningError: The current fit already has a train loader for other examples.
            ConfigError: An example cannot get another label.
            DataError: A candidate would be left with fewer than 2 examples.
        """
        if edits == self._label_edits:
            return
        if self._built is not None:
            raise LightningError(
                "the train loader of this fit was already built: set the label filter by the end "
                "of setup('fit') (estimated_stepping_batches in configure_optimizers builds the "
                "loader too)"
            )
        if edits is not None:
            for candidate in self.candidates:
                edits.apply(candidate)  # its errors come here, not in the middle of training
        self._label_edits = edits
        self._lengths = {}
        self._start_over()

    def with_mixture(self, mixture: Mixture) -> Self:
        """Return a DataModule that serves another mixture of the same data from the beginning.

        The wrapped DataModule is shared, with the setup that it has here.
        """
        other = copy.copy(self)
        other._position, other._spawn_result = Position(), SpawnResult()
        other._changing = other._built = None
        other._changes_mixture = False
        other._ramp = other._counted_epoch = None
        other.set_mixture(mixture)
        return other

    def detached(self) -> Self:
        """Return a copy without a trainer, around a copy of the wrapped DataModule."""
        other = copy.copy(self)
        other._inner, other._spawn_result = copy.copy(self._inner), SpawnResult()
        other.trainer = None
        return other

    @property
    def batch_size(self) -> int:
        """Number of examples per batch on each rank."""
        batch_size = self._batch_size or self._served_batch_size or self._known_batch_size
        if batch_size is None and self._inner is not None:  # as Lightning sees the wrapped module
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
    def trainer(self) -> TrainerT | None:
        """The trainer that this DataModule and the wrapped one are attached to."""
        return vars(self).get("_trainer")

    @trainer.setter
    def trainer(self, trainer: TrainerT | None) -> None:
        check_package(self, "the Trainer", trainer)
        self._trainer = trainer
        inner = vars(self).get("_inner")
        if inner is not None:
            inner.trainer = trainer

    @property
    def _known_batch_size(self) -> int | None:
        """The batch size that was given or tuned, or that of the wrapped DataModule."""
        if self._batch_size is not None or self._inner is None:
            return self._batch_size
        inner_size = getattr(self._inner, "batch_size", None)
        inner_size = inner_size or self._inner.hparams.get("batch_size")
        return None if inner_size is None else int(inner_size)

    def setup(self, stage: str) -> None:
        """Set up the wrapped DataModule; for fit, load the candidates and check the mixture."""
        trainer = self.trainer
        if trainer is None or not self._has_ranks:
            self._set_up(stage)
            return
        with raise_on_all_ranks(trainer):
            self._set_up(stage)

    def _set_up(self, stage: str) -> None:
        error, self._prepare_error = self._prepare_error, None
        if error is not None:
            raise error
        if self._inner is not None:
            self._inner.setup(stage=stage)
        if stage == _FIT:
            self._built = None
            self._forget_last_training()
            self._share_iterables()
            if self.mixture is not None:
                chosen_candidates(self.candidates, self.mixture)
            _ = self.labeled_real  # loaded here, so that an error comes before the train loader
            self._score_for_curriculum()
        if self.uses_surrogate and stage in (_FIT, "validate"):
            self._prepare_surrogate()

    def _forget_last_training(self) -> None:
        """Plan anew if the trainer has not trained; a checkpoint is loaded later."""
        self._is_resumed = False
        if self.trainer is not None and not self._has_begun:
            self._ramp = self._counted_epoch = None

    def _score_for_curriculum(self) -> None:
        """Score the examples for the curriculum, unless this has been done."""
        curriculum = self._curriculum
        if curriculum is None or ramp_scores(self.candidates[0]) is not None:
            return
        score = functools.partial(
            curriculum_scores, curriculum, self.candidates, self.real, seed=self._seed
        )
        self._candidates = with_scores(self.candidates, self._once(score))
        self._sources["candidates"] = self._candidates
        if self._surrogate is not None:
            self._surrogate.use_candidates(self._candidates)

    def _token_lengths(self, parts: Sequence[Candidate]) -> dict[str, NDArray[np.int64]]:
        """Return the number of tokens of each example; measured where this has not been done."""
        options = self._tokens
        assert options is not None
        new = [part for part in parts if part.name not in self._lengths]
        if new:
            transform, seed = self._transform, self._seed
            measured = self._once(
                lambda: {p.name: token_lengths(p, options, transform, seed=seed) for p in new}
            )
            self._lengths = {**self._lengths, **measured}
        return {part.name: self._lengths[part.name] for part in parts}

    def _once(self, work: Callable[[], _T]) -> _T:
        """Do work that all ranks of a fit come to on rank 0 alone."""
        trainer = self.trainer
        return work() if trainer is None or not self._has_ranks else on_rank_zero(trainer, work)

    def _prepare_surrogate(self) -> None:
        trainer = self.trainer
        if trainer is not None:
            self.use_surrogate(on_rank_zero(trainer, self.draw_surrogate))
            mark_loggers(trainer)
        _ = self.surrogate

    @property
    def _has_ranks(self) -> bool:
        """Whether this is one of several processes that fit together."""
        trainer = self.trainer
        return self._fitting and trainer is not None and trainer.world_size > 1

    def teardown(self, stage: str) -> None:
        """Tear down the wrapped DataModule; after fit the mixture may change again."""
        if stage == _FIT:
            self._built = None
            with bookkeeping("the mixture did not come back from the launched process"):
                if self._mixture is not None and getattr(self.trainer, "local_rank", 0) == 0:
                    self._spawn_result.write(self._mixture.to_dict())
        self._unmark_loggers()
        if self._inner is not None:
            self._inner.teardown(stage=stage)

    def _unmark_loggers(self) -> None:
        if self.uses_surrogate and self.trainer is not None:
            unmark_loggers(self.trainer)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the wrapped DataModule, and hint at a missing transform; the mixture may change."""
        if self._built is not None and self._transform is None:
            add_transform_note(exception, self.candidates[0])
        self._built = None
        self._unmark_loggers()
        if self._inner is not None:
            self._inner.on_exception(exception)

    def _eval_loaders(self, data: object) -> Any:
        """Return the loaders of the data given as val, test or predict."""
        batch_size = getattr(self, "batch_size", _DEFAULT_BATCH_SIZE)
        if isinstance(data, SurrogateOptions):
            return self._surrogate_loader()
        return eval_loaders(data, batch_size, self._options)

    def _surrogate_loader(self) -> DataLoader[object]:
        """Serve the part of the surrogate validation set that the mixture is measured on."""
        assert self.surrogate is not None
        mixture = self._served_mixture()
        # as in training, because the examples are those of candidates
        options = self._loader_options(self._template().loader)
        options.pop("drop_last", None)
        return DataLoader(self.surrogate.for_mixture(mixture), **options)

    def train_dataloader(self) -> Any:
        """Serve the mixture, split over the ranks, from the current position of training.

        Returns:
            A DataLoader; inside a CombinedLoader if the wrapped DataModule returns a collection of
            loaders, so that batches keep their structure.

        Raises:
            ConfigError: The batch size is unknown, or an epoch is shorter than a batch.
            DataError: The examples cannot be in one batch.
        """
        loaders = self._template()
        return loaders.replaced(self._mixture_loader(loaders.loader))

    def mixture_loader(self) -> MixtureLoader:
        """Return the DataLoader that `train_dataloader` returns, without a collection around it."""
        return self._mixture_loader(self._template().loader)

    def _served_mixture(self) -> Mixture:
        names = [candidate.name for candidate in self.candidates]
        return self.mixture or Mixture.equal(names, "all candidates, equal weights")

    def _mixture_loader(self, template: DataLoader[object] | None) -> MixtureLoader:
        mixture = self._served_mixture()
        options = self._loader_options(template)
        replicas: dict[str, int] = getattr(self.trainer, "distributed_sampler_kwargs", None) or {}
        dataset = self._mixture_dataset(mixture, options, replicas.get("num_replicas", 1))
        collate = options.get("collate_fn")
        with seeded(self._seed):  # a transform may be random
            first = first_examples(dataset.candidates, self._transform)
            if collate in (None, default_collate):
                check_collatable(first)
            elif template is not None and self._options.get("collate_fn") is None:
                check_collate(template, first, has_transform=self._transform is not None)
        self._served_batch_size = options["batch_size"]
        if self._fitting:
            self._mixture = self._built = mixture
        if options.get("num_workers") and dataset.has_streams:
            # new workers would read each stream from its beginning up to the position of training
            options = {"persistent_workers": True, **options}
        sampler = MixtureSampler(dataset, **replicas)
        loader = MixtureLoader(dataset, sampler=sampler, begin=self._begin, **options)
        if self._changing is not None:
            n_ahead = loader.num_workers * (loader.prefetch_factor or 0)
            self._changing.serve((loader.batch_size or 1) * sampler.num_replicas, n_ahead)
        return loader

    def _mixture_dataset(
        self, mixture: Mixture, options: LoaderOptions, replicas: int
    ) -> MixtureDataset:
        self._score_for_curriculum()
        parts, weighted = self.with_labeled_real(mixture)
        changes = self._changes_for(mixture)
        drawn = weighted.names if changes is None else changes.names
        parts = [part for part in parts if part.name in drawn]
        lengths = None if self._tokens is None else self._token_lengths(parts)
        epoch_length = self._epoch_draws(mixture, options, replicas, lengths)
        if self._counted_epoch is None or not self._has_begun:
            self._counted_epoch = epoch_length
        return MixtureDataset(
            parts,
            weighted,
            seed=self._seed,
            epoch_length=epoch_length,
            counted_epoch=self._counted_epoch,
            transform=self._transform,
            changes=changes,
            lengths=lengths,
            ramp=self._named_ramp(parts, epoch_length),
        )

    def _named_ramp(self, parts: Sequence[Candidate], epoch_length: int) -> NamedRamp | None:
        if self._curriculum is None:
            return None
        if self._ramp is None or not self._has_begun:  # nothing has been drawn by it
            planned = self.planned_draws
            if planned is not None:
                planned = math.ceil(planned / (1 - (self._real_share or 0.0)))
            wanted = self._curriculum.draws or min(epoch_length, planned or epoch_length)
            self._ramp = max(wanted, 1)
        scores = {part.name: ramp_scores(part) for part in parts}
        known = {name: each for name, each in scores.items() if each is not None}
        return NamedRamp(known, self._ramp)

    def export(
        self, out: str | os.PathLike[str], *, n: int | None = None, force: bool = False
    ) -> Export:
        """Write the examples that training draws, in their order, for another trainer.

        They are the first draws of a fit on one process: with the weights, label filter, labeled
        real data and epoch length of this DataModule, and before `train_transform`. The column
        `synque_origin` has the name of the candidate.

        Args:
            out: A `.parquet` or `.jsonl` file, or a folder for `datasets.load_from_disk`.
            n: Number of draws; None for one epoch.
            force: Whether an existing file, or folder of a saved dataset, is replaced.

        Raises:
            ConfigError: `out` has another suffix, or n is below 1.
            DataError: An example cannot be read or written.
            RecordError: `out` exists and will not be replaced, or cannot be written.

        Example:
            >>> import tempfile
            >>> from synque_select import SynqueDataModule
            >>> dm = SynqueDataModule({"a": ["x", "y"], "b": ["u", "v"]}, batch_size=2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     export = dm.export(Path(folder, "mix.jsonl"), n=2)
            ...     print(export.path.read_text(), end="")
            {"text": "v", "synque_origin": "b"}
            {"text": "x", "synque_origin": "a"}
        """
        options = self._loader_options(self._template().loader)
        return export_draws(
            self._mixture_dataset(self._served_mixture(), options, 1), out, n=n, force=force
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the mixture, position, fingerprints of the candidates, and wrapped state."""
        epoch, batches = self._progress
        chosen = [] if self._mixture is None else chosen_candidates(self.candidates, self._mixture)
        state: _State = {
            # a state without news is one that version 0.4 and before can read
            "version": 1 if self._changing is None and not self.sampling else 2,
            "mixture": None if self._mixture is None else self._mixture.to_dict(),
            "seed": self._seed,
            "position": self._position.state(epoch, batches),
            "candidates": {
                candidate.name: self._fingerprints.of(candidate) for candidate in chosen
            },
            "labeled_real": self._labeled_real_state(),
            "surrogate": None if self.surrogate is None else self.surrogate.sha256,
            "label_edits": None if self._label_edits is None else self._label_edits.to_dict(),
            "changes": None if self._changing is None else self._changing.state_dict(),
            "sampling": {**self.sampling},
            "ramp": self._ramp,
            "counted_epoch": self._counted_epoch,
            "inner": {} if self._inner is None else self._inner.state_dict(),
        }
        return {**state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """If loaded for fit, continue with the mixture and at the position of a checkpoint.

        Raises:
            LightningError: The current fit already has a train loader for another mixture, the
                mixture names an unknown candidate, or the state has another version.
        """
        if state_dict.get("version") not in (1, 2):
            raise LightningError(
                "the checkpoint holds a state of SynqueDataModule of version "
                f"{state_dict.get('version')!r}; allowed are 1 and 2"
            )
        if self._inner is not None:
            self._inner.load_state_dict(state_dict["inner"])
        if self.trainer is not None and self.trainer.state.fn != _FIT:
            return
        # `state_dict` of this version or an earlier one has written it
        state = cast("_State", with_new_names(state_dict))
        check_same_labeled(state.get("labeled_real"), self._labeled_real_state())
        self._check_same_surrogate(state.get("surrogate"))
        edits = state.get("label_edits")  # checkpoints of earlier versions have none
        self._restore_label_edits(None if edits is None else LabelEdits.from_dict(edits))
        if state["mixture"] is not None:
            self._restore_mixture(Mixture.from_dict(state["mixture"]), state)
        self._restore_changes(state.get("changes"))
        self._restore_sampling(state.get("sampling", {}))
        self._restore_ramp(state.get("ramp"))
        self._restore_counted_epoch(state.get("counted_epoch"))
        self._position.restore(state["position"])
        self._is_resumed = bool(self._position.trained())

    def _check_same_surrogate(self, then: str | None) -> None:
        now = None if self.surrogate is None else self.surrogate.sha256
        if (then is None) != (now is None):
            before, after = ("without" if part is None else "with" for part in (then, now))
            raise LightningError(
                f"the checkpoint was trained {before} surrogate validation data, which is held out "
                f"of training, and this run is {after} it: give val= as it was"
            )
        if then != now:
            rank_zero_warn(
                "the surrogate validation set has changed since the checkpoint was written: "
                "metrics from before and after cannot be compared"
            )

    def _restore_label_edits(self, edits: LabelEdits | None) -> None:
        if edits == self._label_edits:
            return
        if self._built is not None:
            raise LightningError(
                "the checkpoint was trained with another label filter, but the train loader of "
                "this run was already built, because its strategy restores checkpoints late: rank "
                "with the label_filter= of the run that wrote the checkpoint"
            )
        rank_zero_warn(
            "training continues with the label filter of the checkpoint, not with that of this run"
        )
        self._label_edits = edits
        self._lengths = {}

    def _restore_changes(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            if self._changing is not None:
                self._changing.table.restore([])
            return
        # without what changed them, the last weights stay
        if self._changing is None or (self._changes_mixture and self._built is None):
            self._changing = self._changing_of(state["candidates"])
        self._changing.load_state_dict(state)

    def _restore_sampling(self, sampling: Mapping[str, Json]) -> None:
        if dict(sampling) != self.sampling:
            before, now = (
                ", ".join(f"{name}={value!r}" for name, value in part.items()) or "the defaults"
                for part in (sampling, self.sampling)
            )
            raise LightningError(
                f"the run that wrote the checkpoint drew examples with {before}, and this one "
                f"draws them with {now}: give weigh_by, max_length and curriculum as they were"
            )

    def _restore_ramp(self, ramp: int | None) -> None:
        if ramp is None:  # written before a loader was built, as a finder does
            return
        if self._built is not None and ramp != self._ramp:
            raise LightningError(
                f"the checkpoint has a curriculum with draws={ramp}, but the train loader of this "
                f"run was already built with draws={self._ramp}, because its strategy restores "
                f"checkpoints late: give Curriculum(draws={ramp})"
            )
        self._ramp = ramp

    def _restore_counted_epoch(self, draws: int | None) -> None:
        if draws is None:  # that of an earlier version, or written before a loader was built
            return
        if self._built is not None and draws != self._counted_epoch:
            raise LightningError(
                f"the checkpoint was trained with epochs of {counted(draws, 'draw')}, but the "
                f"train loader of this run was already built with {self._counted_epoch:,}, because "
                "its strategy restores checkpoints late: resume with the same epoch_length and "
                "number of ranks"
            )
        self._counted_epoch = draws

    def _restore_mixture(self, mixture: Mixture, state: _State) -> None:
        try:
            chosen = chosen_candidates(self.candidates, mixture)
        except ConfigError as error:
            raise LightningError(f"the checkpoint cannot be resumed: {error}") from error
        if self._built is not None and self._built.weights != mixture.weights:
            raise LightningError(
                f"the checkpoint was trained on {_show(mixture)}, but the train loader of this run "
                f"was already built for {_show(self._built)}, because its strategy restores "
                f"checkpoints late: to continue, give SynqueDataModule(mixture="
                f"{dict(mixture.weights)}) and leave the SelectionCallback out"
            )
        if self._mixture is not None and self._mixture.weights != mixture.weights:
            rank_zero_warn(
                f"training continues with the mixture of the checkpoint, {_show(mixture)}, "
                f"not with {_show(self._mixture)}"
            )
        self._mixture = mixture
        self._warn_of_changes(chosen, state)

    def _warn_of_changes(self, chosen: list[Candidate], state: _State) -> None:
        parts = [(candidate, state["candidates"][candidate.name]) for candidate in chosen]
        if self.labeled_real is not None and state["labeled_real"] is not None:
            parts.append((self.labeled_real.data, state["labeled_real"]))
        changed = [part.name for part, then in parts if self._fingerprints.has_changed(part, then)]
        if changed:
            rank_zero_warn(
                f"the content of {', '.join(changed)} has changed since the checkpoint was written"
            )
        if state["seed"] != self._seed:
            rank_zero_warn(
                f"seed is {self._seed}, but was {state['seed']} when the checkpoint was written: "
                "the order of examples differs, so some may be repeated early"
            )

    @property
    def planned_draws(self) -> int | None:
        """Largest number of draws from candidates, over all ranks, that the trainer's limits allow.

        None if only the number of epochs is limited, and their length follows from the mixture.
        """
        trainer = self.trainer
        if trainer is None:
            return None
        bounds = []
        if trainer.max_steps > 0:
            batches = trainer.max_steps * trainer.accumulate_grad_batches * n_data_replicas(trainer)
            batch_size = self._loader_options(self._template().loader)["batch_size"]
            bounds.append(batches * (batch_size or _DEFAULT_BATCH_SIZE))
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and self._epoch_length:
            bounds.append(trainer.max_epochs * self._epoch_length)
        return math.floor(min(bounds) * (1 - (self._real_share or 0.0))) if bounds else None

    def with_labeled_real(self, mixture: Mixture) -> tuple[list[Candidate], Mixture]:
        """Return candidates and labeled real data, and the share of each in the draws.

        Without the examples that are held out for surrogate validation.
        """
        labeled, candidates = self.labeled_real, self._training_candidates
        if labeled is None:
            return candidates, mixture
        return [*candidates, labeled.data], labeled.beside(mixture)

    def _labeled_real_state(self) -> LabeledRealState | None:
        labeled = self.labeled_real
        if labeled is None:
            return None
        fingerprint = self._fingerprints.of(labeled.data)
        return {"name": labeled.data.name, "share": labeled.share, **fingerprint}

    @property
    def _fitting(self) -> bool:
        trainer = self.trainer
        return (
            trainer is not None and trainer.state.fn == _FIT and trainer.state.status == "running"
        )

    @property
    def _progress(self) -> tuple[int | None, int]:
        """The trainer's epoch, and the number of its batches that were trained on."""
        if self.trainer is None:
            return None, 0
        loop: Any = self.trainer.fit_loop  # its counters are declared as a base class
        progress = loop.epoch_loop.batch_progress
        return loop.epoch_progress.current.processed, progress.current.processed

    @property
    def _has_begun(self) -> bool:
        """Whether a batch was trained on; those of a finder, which are forgotten, do not count."""
        if self.trainer is None:
            return bool(self._position.trained())
        loop: Any = self.trainer.fit_loop
        return self._is_resumed or bool(loop.epoch_loop.batch_progress.total.processed)

    def _begin(self, epoch: int) -> Position | None:
        """Return where a train loader begins in training; None for other uses: a whole epoch."""
        if not self._fitting:
            return None
        self._position.begin(epoch, self._progress[1])
        if self._changing is not None:  # a run that begins again does not have its later changes
            self._changing.table.keep_until(self._position.start + self._position.drawn)
        return self._position

    def _share_iterables(self) -> None:
        """Let rank 0 store data that can be read only once, or differs each time, for all ranks."""
        trainer, sources = self.trainer, self._sources
        if trainer is None or trainer.world_size == 1 or self._candidates is not None:
            return
        if self._reservoir is not None:  # not stored: each rank reads on its own
            on_rank_zero(trainer, lambda: len(self.candidates))  # others find what it has counted
            sources = {name: part for name, part in sources.items() if name != "candidates"}
        else:
            sources["candidates"] = with_train_data(sources["candidates"], self._modules, trainer)
        iterables: list[tuple[str, Any]] = []
        for source in sources.values():
            replace_iterables(source, lambda name, data: iterables.append((name, data)))
        if not iterables:
            return
        stored = on_rank_zero(trainer, lambda: [str(store_iterable(*each)) for each in iterables])
        paths = iter(stored)
        for name, source in list(sources.items()):
            self._sources[name] = replace_iterables(
                source, lambda *_: open_stored(Path(next(paths)))
            )

    def _template(self) -> TrainLoaders:
        """Return the training loader that the mixture replaces, or whose options it takes."""
        if self._inner is not None or not self._modules:
            return inner_train_loaders(self._inner)
        return TrainLoaders(inner_train_loaders(next(iter(self._modules.values()))).loader)

    def _loader_options(self, template: DataLoader[object] | None) -> LoaderOptions:
        """Return the options of the train loader, with a batch size in any case."""
        options = loader_options(template, self._options)
        # that of the loader comes before the attribute, which may be a size for all ranks
        batch_size = self._batch_size or options.get("batch_size") or self._known_batch_size
        if batch_size is None and None not in (template, self._inner):
            raise ConfigError(
                f"the training loader of {type(self._inner).__name__} has no batch size: give "
                "batch_size="
            )
        return {**options, "batch_size": batch_size or _DEFAULT_BATCH_SIZE}

    def _epoch_draws(
        self,
        mixture: Mixture,
        options: LoaderOptions,
        replicas: int,
        lengths: Mapping[str, NDArray[np.int64]] | None,
    ) -> int:
        """Return the number of draws per epoch on all ranks together."""
        chosen = chosen_candidates(self._training_candidates, mixture)
        wanted = self._epoch_length
        if wanted is None:  # labeled real data, which is usually small, does not shorten an epoch
            sizes = {candidate.name: candidate.n_all for candidate in chosen}
            if lengths is None:
                longest = longest_epoch(sizes, mixture)
                candidates_share = 1 - (self._real_share or 0.0)
            else:
                means = {name: float(each.mean()) for name, each in lengths.items()}
                longest = longest_epoch(sizes, mixture, means)
                candidates_share = self._candidates_share(mixture, means)
            wanted = int(longest / candidates_share)
        batch_size = options["batch_size"] or _DEFAULT_BATCH_SIZE
        unit = replicas * (batch_size if options.get("drop_last") else 1)
        if wanted < unit:
            share = "one draw" if unit == replicas else f"one whole batch of {unit // replicas}"
            raise ConfigError(
                f"an epoch of {counted(wanted, 'draw')} is shorter than {share} on each of "
                f"{counted(replicas, 'rank')}: raise epoch_length, or lower batch_size"
            )
        return wanted // unit * unit

    def _candidates_share(self, mixture: Mixture, means: Mapping[str, float]) -> float:
        """Return the share of the candidates in the draws if weights are shares of tokens."""
        weights = self.with_labeled_real(mixture)[1].weights
        draws = {name: weight / means[name] for name, weight in weights.items()}
        return sum(draws[name] for name in mixture.names) / sum(draws.values())


def _with_transform(
    options: SurrogateOptions | None, transform: Transform | None
) -> SurrogateOptions | None:
    """Let validation examples pass through the training transform if they have none."""
    if options is None or options.transform is not None:
        return options
    return replace(options, transform=transform)


def is_synque_datamodule(value: object) -> TypeGuard[AnySynqueDataModule]:
    """Return whether an object is a SynqueDataModule, of either package."""
    return isinstance(value, BaseSynqueDataModule)


def attached_datamodule(trainer: AnyTrainer) -> AnySynqueDataModule | None:
    """Return the trainer's DataModule; None if it has none or one of another class."""
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule if is_synque_datamodule(datamodule) else None


def _prepare(data: AnySynqueDataModule, prepare: Callable[[], None]) -> None:
    data._prepare_error = None
    try:
        for module in data._modules.values():
            module.prepare_data()
        prepare()
    except Exception as error:
        if not data._has_ranks:
            raise
        data._prepare_error = error


def _as_mixture(mixture: Mixture | Mapping[str, float] | None) -> Mixture | None:
    if mixture is None or isinstance(mixture, Mixture):
        return mixture
    return Mixture(mixture, "given")


_LEAST = {"epoch_length": 1, "batch_size": 1, "num_workers": 0}


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None:
            check_int(name, value, _LEAST[name])


def _check_curriculum(curriculum: object) -> None:
    if curriculum is not None and not isinstance(curriculum, Curriculum):
        raise ConfigError(
            f"curriculum={curriculum!r}: allowed is a Curriculum; in a config, by: and order: of "
            "one"
        )


def _check_functions(**functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ConfigError(f"{name}={function!r}: allowed is a function")


def _show(mixture: Mixture) -> str:
    return "{" + ", ".join(f"{name}: {w:.4g}" for name, w in mixture.weights.items()) + "}"
