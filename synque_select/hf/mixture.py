"""HFMixture: a mixture of candidates in the Trainer of Hugging Face and in those of TRL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.data.candidate import check_not_drawn
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.views import Selector
from synque_select.errors import ConfigError
from synque_select.hf.callback import MixtureCallback
from synque_select.hf.sampler import MixtureOrder
from synque_select.hf.storage import ROW, stored_rows
from synque_select.selection.scorer import Scorer
from synque_select.training.distributed import on_rank_zero
from synque_select.training.draws import RankedMixture, load_ranked_mixture, ranked_mixture
from synque_select.types import Mixture, Ranking
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

__all__ = ["HFMixture"]

_Trainer = TypeVar("_Trainer", bound="Trainer")


class HFMixture:
    """Dataset, sampler and callback for a Hugging Face `Trainer`, or a trainer of TRL.

    The trainer sees the same draws, in the same order, as `SynqueDataModule` serves on one process:
    with the ranking's weights and label filter, exact in each 1,000 draws, an epoch continuing
    where the previous one ended. A run that resumes from a checkpoint sees the examples that an
    undisturbed one would have seen, on any number of ranks.

    Args:
        candidates: Anything that `load_candidates` takes; None to load them from where the ranking
            says that they were.
        real: The real sample, as for `load_real`, to score the candidates now; None if `ranking`
            is given. With several ranks, rank 0 scores, after `TrainingArguments` has opened the
            process group.
        ranking: A `ranking.json`, the directory that holds it, or a Ranking.
        scorer: How the candidates are scored; None for the defaults of `rank`.
        view: What a proxy sees of an example; see `load_candidates`.
        label: Field with the label; see `load_candidates`.
        seed: Random seed for the order of examples, not negative.
        epoch_length: Draws per epoch, over all ranks; None for the longest epoch without
            repetitions. Rounded down to whole batches with several ranks.

    Attributes:
        ranking: The ranking.
        dataset: The examples of the selected candidates, a `datasets.Dataset` with the columns
            `synque_origin`, the candidate, and `synque_row`, the position. Tokenize it with
            `dataset.map`, or let the trainer do that.
        sampler: The order in which the trainer reads it.
        callback: The `TrainerCallback` that keeps the position; `attach` adds it.

    Raises:
        ConfigError: Both or neither of `real` and `ranking` are given, or an argument is not
            allowed.
        DataError: Data cannot be read, or is not what was ranked.
        DependencyError: A package of the extra `hf` is missing.

    Source:
        The sampler of a trainer, changed from a callback: the answer in TRL's issue 2801.

    Example:
        >>> from synque_select import rank
        >>> real = [{"text": t} for t in ("how many apps", "list all users", "which app is free")]
        >>> near = [{"text": t} for t in ("how many users", "list all free apps", "which is new")]
        >>> far = [{"text": t} for t in ("qx zz", "vv kk", "zz vv")]
        >>> data = {"near": near, "far": far}
        >>> ranking = rank(data, real, proxies=["ngram"], top_k=1, progress=False)
        >>> mix = HFMixture(data, ranking=ranking)
        >>> mix.dataset.column_names, len(mix.sampler)
        (['text', 'synque_origin', 'synque_row'], 3)
        >>> # trainer = mix.attach(SFTTrainer(model, args, train_dataset=mix.dataset))
    """

    def __init__(
        self,
        candidates: Any = None,
        real: Any = None,
        *,
        ranking: str | Path | Ranking | None = None,
        scorer: Scorer | None = None,
        view: Selector | None = None,
        label: Selector | None = None,
        seed: int = 0,
        epoch_length: int | None = None,
    ) -> None:
        check_int("seed", seed, 0)
        if epoch_length is not None:
            check_int("epoch_length", epoch_length, 1)
        _check_sources(candidates, real, ranking, scorer)
        if ranking is not None:
            ranked = load_ranked_mixture(ranking, candidates, view=view, label=label)
        else:
            ranked = _scored(scorer or Scorer(), candidates, real, view, label)
        self.ranking = ranked.ranking
        self.sampler = MixtureOrder(
            ranked.candidates, ranked.mixture, seed=seed, epoch_length=epoch_length
        )
        check_not_drawn(ranked.candidates, "HFMixture")
        self.dataset: Dataset = stored_rows(ranked.candidates)
        self.callback = MixtureCallback(self.sampler, ranked)

    @property
    def mixture(self) -> Mixture:
        """The mixture of the current epoch."""
        return self.sampler.mixture

    def attach(self, trainer: _Trainer) -> _Trainer:
        """Let a trainer read the mixture, and return it.

        Args:
            trainer: A `transformers.Trainer`, or one that is derived from it, such as TRL's
                `SFTTrainer`, whose `train_dataset` is `dataset`, or what `dataset.map` made of it.

        Raises:
            ConfigError: The trainer packs its examples, its dataset has other rows than `dataset`,
                or an argument of the trainer orders the examples.
        """
        _check_arguments(trainer)
        positions = self._positions(trainer.train_dataset)

        def sampler(*_: object) -> MixtureOrder:
            # again for each `train`: auto_find_batch_size lowers the batch size
            self.sampler.fit_to(_n_per_step(trainer), positions)
            return self.sampler

        # what TRL names as the way: the method that its own trainers override
        trainer._get_train_sampler = sampler  # type: ignore[method-assign, assignment]
        if self.callback not in trainer.callback_handler.callbacks:
            trainer.add_callback(self.callback)
        return trainer

    def set_mixture(self, mixture: Mixture | Mapping[str, float]) -> None:
        """Change the weights from the next epoch on, as from a `TrainerCallback`.

        Checkpoints store the change. The length of an epoch stays, so that an example may be
        repeated in it.

        Args:
            mixture: New weights for candidates of the mixture; one without a weight is not drawn.

        Raises:
            ConfigError: The mixture names another candidate.
        """
        given = mixture if isinstance(mixture, Mixture) else Mixture(mixture, "given")
        self.callback.change(given)

    def _positions(self, dataset: Any) -> NDArray[np.int64] | None:
        """Return where in a trainer's dataset the rows are; None if they are as they were."""
        n = len(self.dataset)
        hint = (
            "the trainer must get mix.dataset, or what mix.dataset.map made of it, row by row. "
            "Packing merges rows: set packing=False, or train on the exported draws (synque-select "
            "export)"
        )
        if dataset is None or not hasattr(dataset, "__len__"):
            raise ConfigError(f"the trainer's train_dataset has no length: {hint}")
        if ROW not in getattr(dataset, "column_names", ()):
            if len(dataset) != n:
                raise ConfigError(
                    f"the trainer's train_dataset has {counted(len(dataset), 'row')}, the mixture "
                    f"{n:,}: {hint}"
                )
            return None
        rows = np.asarray(dataset.with_format(None)[ROW][:], dtype=np.int64)
        positions = np.full(n, -1, dtype=np.int64)
        positions[rows] = np.arange(len(rows))
        missing = int((positions < 0).sum())
        if missing or len(rows) != n:
            raise ConfigError(
                f"{counted(missing, 'row')} of the mixture are missing in the trainer's "
                f"train_dataset, which has {counted(len(rows), 'row')}, as after packing, or after "
                f"truncation to max_length leaves a prompt without its answer: {hint}"
            )
        return None if (rows == np.arange(n)).all() else positions


@dataclass(frozen=True)
class _World:
    """The ranks of the process group that is open, if there is one."""

    world_size: int = 1
    rank: int = 0

    @property
    def is_global_zero(self) -> bool:
        return self.rank == 0

    @classmethod
    def current(cls) -> _World:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_world_size(), torch.distributed.get_rank())
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "HFMixture scores on rank 0 for all ranks, but the process group is not open yet: "
                "create the TrainingArguments first, which open it, or give ranking="
            )
        return cls()


def _check_sources(candidates: object, real: object, ranking: object, scorer: object) -> None:
    if (real is None) == (ranking is None):
        raise ConfigError(
            "HFMixture takes either ranking=, an existing ranking, or real=, the real sample to "
            f"score the candidates against; found {'both' if ranking is not None else 'neither'}"
        )
    if ranking is not None and scorer is not None:
        raise ConfigError("ranking= is already scored: leave scorer= out")
    if real is not None and candidates is None:
        raise ConfigError("give the candidates to score, such as HFMixture('data/*.jsonl', real)")


def _scored(
    scorer: Scorer, candidates: object, real: object, view: Selector | None, label: Selector | None
) -> RankedMixture:
    world = _World.current()
    loaded = load_candidates(candidates, view=view, label=label)

    def score() -> tuple[dict[str, Any], str]:
        ranking, findings = scorer.cached_selection(loaded, load_real(real, view=view))
        return ranking.to_dict(), str(findings)

    state, findings = on_rank_zero(world, score)
    return ranked_mixture(Ranking.from_dict(state), loaded, Path(findings))


_ORDERS = ("train_sampling_strategy", "group_by_length")


def _check_arguments(trainer: Trainer) -> None:
    args = trainer.args
    # where each row fills a block alone, packing reorders the rows and keeps their number
    if getattr(args, "packing", False):
        raise ConfigError(
            "packing=True merges and reorders the rows that a mixture draws from: set "
            "packing=False, or train on the exported draws (synque-select export)"
        )
    for name in _ORDERS:  # under the older name, it is a flag
        value = getattr(args, name, None)
        if value not in (None, False, "random"):
            raise ConfigError(f"{name}={value!r} orders the examples, as a mixture does: remove it")


def _n_per_step(trainer: Trainer) -> int:
    """Return the number of examples in a batch, over all ranks, that must not be incomplete."""
    args = trainer.args
    if args.world_size == 1 and not args.dataloader_drop_last:
        return 1
    n_per_step: int = trainer._train_batch_size * args.world_size
    return n_per_step
