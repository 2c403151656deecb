"""A surrogate validation set: examples of the candidates, where no labeled real example exists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from synque_select.data.candidate import Candidate, RealSample, check_not_drawn
from synque_select.data.families import FamilySpec, candidate_families
from synque_select.data.sources import load_candidates, load_real
from synque_select.data.views import Selector, select
from synque_select.encoders import BaseEncoder
from synque_select.errors import ConfigError, DataError
from synque_select.selection.surrogate import SurrogateDraw, draw_surrogate, held_out
from synque_select.training.mixture_loader import Transform, training_example
from synque_select.types import Mixture, surrogate_name
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from synque_select.training.lightning_compat import AnyTrainer

__all__ = [
    "SurrogateOptions",
    "SurrogateValidation",
    "draw_for",
    "mark_loggers",
    "marked_metrics",
    "surrogate_options",
    "surrogate_validation",
    "unmark_loggers",
]


@dataclass(frozen=True, kw_only=True)
class SurrogateOptions:
    """Options of a surrogate validation set; `SynqueDataModule(val="surrogate")` has the defaults.

    Args:
        size: Number of validation examples over all candidates.
        held_out: Share of the distinct examples of each candidate that is held out of training, by
            content; validation examples are drawn from these.
        family: Which candidates come from one generator, and judge as one: a regular expression or
            a mapping, as in `candidate_families`; None if each candidate is a family of its own.
        transform: Turns an example into a validation example; None for the `train_transform` of the
            DataModule. Give it if `train_transform` is random.
        encoder: Model id or encoder of the domain classifier's embeddings; None for the default of
            the modality.
        seed: Random seed of the held-out split and the draw.

    Raises:
        ConfigError: A value is not allowed.

    Example:
        >>> SurrogateOptions(size=500).held_out
        0.2
        >>> SurrogateOptions(held_out=1.0)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: held_out=1.0: allowed is a share above 0 and below 1
    """

    size: int = 1000
    held_out: float = 0.2
    family: FamilySpec | None = None
    transform: Transform | None = None
    encoder: str | BaseEncoder | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("size", self.size, 2)
        check_int("seed", self.seed, 0)
        if not (isinstance(self.held_out, float) and 0 < self.held_out < 1):
            raise ConfigError(f"held_out={self.held_out!r}: allowed is a share above 0 and below 1")
        if self.transform is not None and not callable(self.transform):
            raise ConfigError(f"transform={self.transform!r}: allowed is a function")


def surrogate_options(val: object) -> SurrogateOptions | None:
    """Return the options if `val=` asks for a surrogate validation set, else None.

    Raises:
        ConfigError: It is another text, or options that a config parser could not instantiate.
    """
    if isinstance(val, SurrogateOptions):
        return val
    if isinstance(val, str):
        if val != "surrogate":
            raise ConfigError(f"val={val!r}: the only text allowed is 'surrogate'")
        return SurrogateOptions()
    if isinstance(val, Mapping) and "class_path" in val:
        raise ConfigError(
            f"val: no object could be made of {dict(val)}; allowed is 'surrogate', or the "
            "class_path synque_select.SurrogateOptions with init_args that it takes"
        )
    return None


class SurrogateValidation(Dataset[object]):
    """Examples of all candidates for validation, each with the candidate that it comes from.

    What a model that was trained on mixture w scores on candidate c's part also rewards that c was
    in its training: its style, its classes, its systematic errors. So nothing is measured on the
    part of its own: each training draw is judged by the other families alone, with equal weight.
    With F families, candidate c of family f has the weight

        v_c(w) = (1 − Σ_{a in f} w_a) / ((F − 1) · |f|)

    in what mixture w is measured on (`for_mixture`). For a probe of one candidate this is 0 for
    its own family and equal for the others; it sums to 1 for every mixture. No validation example
    is trained on: `training` holds the candidates without the examples that are held out, by
    content, for validation.

    Two errors remain, and they are why a figure measured here is always marked "surrogate". A
    mixture of many candidates is in part measured on what is like its own training data, each
    family with weight 1 − w_f, so that only mixtures of one size should be compared; and two
    mixtures are measured on parts of different difficulty, in shares that differ by at most
    1/(F − 1). Errors that most candidates share are not seen at all.

    Args:
        candidates: The candidates.
        draw: Which examples the set consists of.
        options: How the set was drawn.

    Attributes:
        candidates: The candidates.
        draw: Which examples the set consists of.
        families: (K,) family of each candidate.
        owners: (n,) int64 position of each example's candidate in `candidates`.
    """

    def __init__(
        self, candidates: Sequence[Candidate], draw: SurrogateDraw, options: SurrogateOptions
    ) -> None:
        self.candidates = list(candidates)
        self.families = _families(candidates, options.family)
        self.owners: NDArray[np.int64] = draw.owners
        self.draw, self._options = draw, options

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, index: int) -> object:
        candidate = self.candidates[self.owners[index]]
        position = int(self.draw.positions[index])
        return training_example(candidate, position, self._options.transform)

    @property
    def effective_sizes(self) -> dict[str, float]:
        """Candidate name to the effective number of its held-out examples, (Σw)²/Σw²."""
        values = self.draw.effective_sizes.tolist()
        return dict(zip([c.name for c in self.candidates], values, strict=True))

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences about the set for the user: its size and effective sizes."""
        return self.draw.messages

    def use_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Take the same candidates with scores of their examples."""
        self.candidates = list(candidates)
        vars(self).pop("training", None)

    @cached_property
    def training(self) -> list[Candidate]:
        """The candidates without the examples that are held out.

        Raises:
            DataError: Fewer than 2 examples of a candidate are left.
        """
        return [_without_held_out(candidate, self._options) for candidate in self.candidates]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of what is measured: views, owners and options, in hexadecimal."""
        hashed = hashlib.sha256(repr((self.families, self._options.held_out)).encode())
        for owner, position in zip(self.owners.tolist(), self.draw.positions.tolist(), strict=True):
            hashed.update(
                self.candidates[owner].digests[position].tobytes() + owner.to_bytes(4, "big")
            )
        return hashed.hexdigest()

    def for_mixture(self, mixture: Mixture) -> Subset[object]:
        """Return what a mixture is measured on: the set with candidate c in proportion to v_c(w).

        Of the m_c examples of candidate c these are the first m_c·(1 − w_f), rounded, so that
        mixtures with similar weights are measured on the same examples.

        Args:
            mixture: Names and weights; its names are those of the candidates.

        Example:
            >>> records = [{"text": f"{i}", "label": 0} for i in range(60)]
            >>> sets = [Candidate(name, records, view="text") for name in "abc"]
            >>> owners, places = np.tile(np.arange(3), 10), np.arange(30)
            >>> draw = SurrogateDraw(owners, places, np.ones(3), ())
            >>> surrogate = SurrogateValidation(sets, draw, SurrogateOptions())
            >>> part = surrogate.for_mixture(Mixture({"a": 0.5, "b": 0.5}))
            >>> np.bincount(owners[part.indices]).tolist()
            [5, 5, 10]
        """
        shares = dict.fromkeys(self.families, 0.0)
        family_of = {c.name: f for c, f in zip(self.candidates, self.families, strict=True)}
        for name, weight in mixture.weights.items():
            shares[family_of[name]] += weight
        kept = np.zeros(len(self), dtype=bool)
        for k, family in enumerate(self.families):
            own = np.flatnonzero(self.owners == k)
            kept[own[: round(len(own) * (1 - shares[family]))]] = True
        return Subset(self, np.flatnonzero(kept).tolist())


def surrogate_validation(
    candidates: object,
    real: object,
    *,
    view: Selector | None = None,
    label: Selector | None = None,
    options: SurrogateOptions | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> SurrogateValidation:
    """Draw a validation set from the candidates themselves, where no labeled real example exists.

    The examples are pooled from all candidates, in equal numbers per family, and drawn within each
    candidate by importance weight towards the real sample: the ratio of real to synthetic density
    by a domain classifier that is cross-fitted on embeddings, clipped. The effective sample size is
    in `messages`. See `SurrogateValidation` for what is measured on it, and
    `SynqueDataModule(val="surrogate")` for its use in training, sweeps and tuning.

    Args:
        candidates: Candidates, or anything that `load_candidates` takes.
        real: The real sample, or anything that `load_real` takes; its labels are never read.
        view: What the encoder sees: a field name, a position, or a function of an example.
        label: Field of an example with its label or target.
        options: Size, held-out share, families, encoder, seed; None for the defaults.
        device: Device for encoding; None for a GPU if there is one.
        cache_dir: Directory of cached embeddings; None for the default cache.
        progress: Whether to show progress of anything that takes more than two seconds.

    Raises:
        ConfigError: There are fewer than two candidates or families, or no labels.
        DataError: A candidate has too few examples, or a label is missing.

    Source:
        Sugiyama et al. 2007 (JMLR 8), importance-weighted cross-validation. Candidates as judges of
        each other: RoSE (EACL 2026).
    """
    loaded = load_candidates(candidates, view=view, label=label)
    sample = load_real(real, view=view)
    options = SurrogateOptions() if options is None else options
    draw = draw_for(loaded, sample, options, device=device, cache_dir=cache_dir, progress=progress)
    return SurrogateValidation(loaded, draw, options)


def draw_for(
    candidates: Sequence[Candidate],
    real: RealSample,
    options: SurrogateOptions,
    *,
    device: str | torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> SurrogateDraw:
    """Check the candidates' labels and draw; see `surrogate_validation`."""
    check_not_drawn(candidates, "a surrogate validation set")
    families = _families(candidates, options.family)
    _check_labeled(candidates)
    draw = draw_surrogate(
        candidates,
        real,
        families,
        size=options.size,
        share=options.held_out,
        encoder=options.encoder,
        seed=options.seed,
        device=device,
        cache_dir=cache_dir,
        progress=progress,
    )
    _check_labels(candidates, draw)
    return draw


def _families(candidates: Sequence[Candidate], family: FamilySpec | None) -> tuple[str, ...]:
    return tuple(candidate_families([c.name for c in candidates], family).values())


def _without_held_out(candidate: Candidate, options: SurrogateOptions) -> Candidate:
    is_held_out = held_out(candidate, options.held_out, seed=options.seed)
    n_left = int((~is_held_out).sum())
    if n_left < 2:
        raise DataError(
            f"{candidate.where}: {n_left} of its {counted(len(candidate), 'example')} are left to "
            "train on, as "
            f"held_out={options.held_out} of them are for validation: give a smaller share"
        )
    return candidate.without(np.flatnonzero(is_held_out).tolist())


def _check_labeled(candidates: Sequence[Candidate]) -> None:
    """Refuse candidates that have nothing to validate against."""
    without = [candidate for candidate in candidates if candidate.label is None]
    if len(without) < len(candidates):
        bare = without
    else:  # the target may be any part of an example beside its view
        bare = [candidate for candidate in without if _is_bare(candidate[0])]
    if bare:
        raise ConfigError(
            f"{bare[0].where} has no label, so nothing can be validated on its examples: give "
            "label= the field of an example with its label, number or answer (for a language model "
            "on plain text, the text itself)"
        )


def _is_bare(example: object) -> bool:
    """Whether an example has a single part, the text or image that proxies see."""
    if isinstance(example, str) or not isinstance(example, Mapping | Sequence):
        return True
    return len(example) < 2


def _check_labels(candidates: Sequence[Candidate], draw: SurrogateDraw) -> None:
    for owner, position in zip(draw.owners.tolist(), draw.positions.tolist(), strict=True):
        candidate = candidates[owner]
        if candidate.label is None:
            continue
        if select(candidate[position], candidate.label) is None:
            raise DataError(
                f"{candidate.where}, example {position} (counted from 0): its label "
                f"{candidate.label!r} is missing: remove examples without a label"
            )


def mark_loggers(trainer: AnyTrainer) -> None:
    """Let the trainer's loggers log validation metrics as "surrogate/…" until `unmark_loggers`.

    Callbacks such as EarlyStopping and ModelCheckpoint see the names that the module logs.
    """
    for logger in trainer.loggers:
        if "log_metrics" not in vars(logger):
            marked = partial(_log_marked, trainer, logger.log_metrics)
            logger.log_metrics = marked  # type: ignore[method-assign]


def unmark_loggers(trainer: AnyTrainer) -> None:
    """Undo `mark_loggers`."""
    for logger in trainer.loggers:
        if getattr(vars(logger).get("log_metrics"), "func", None) is _log_marked:
            del logger.log_metrics


def _log_marked(
    trainer: AnyTrainer,
    log_metrics: Callable[..., None],
    metrics: Mapping[str, float],
    step: int | None = None,
) -> None:
    if trainer.validating:
        metrics = {n if n == "epoch" else surrogate_name(n): v for n, v in metrics.items()}
    log_metrics(metrics=metrics, step=step)


def marked_metrics(trainer: AnyTrainer) -> dict[str, float]:
    """Return `trainer.callback_metrics` in `on_validation_end`, those of validation marked."""
    results = trainer._results
    validated = {} if results is None else results.metrics(on_step=False)["callback"]
    return {
        surrogate_name(name) if name in validated else name: float(value)
        for name, value in trainer.callback_metrics.items()
    }
