"""Fits that draw from a mixture in another way: by a curriculum, or with weights of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, did_you_mean
from synque_select.experiment.policies import check_specs
from synque_select.experiment.task import BaseTask, part_of
from synque_select.training.comparability import content_sha256
from synque_select.training.curriculum import (
    Curriculum,
    check_curriculum,
    curriculum_scores,
    is_by_field,
    with_scores,
)
from synque_select.training.lengths import TokenOptions, has_length, token_lengths
from synque_select.utils.json_types import JsonObject
from synque_select.utils.registry import check_options, split_options

__all__ = ["SamplingRun", "check_sampling", "sampling_arm", "sampling_messages"]

_Order = Literal["ascending", "descending"]


def _tokens(max_length: int | None = None) -> TokenOptions:
    return TokenOptions(max_length=max_length)


def _curriculum(by: str, order: _Order = "ascending", draws: int | None = None) -> Curriculum:
    return Curriculum(by=by, order=order, draws=draws)


_KINDS: Mapping[str, Callable[..., TokenOptions | Curriculum]] = {
    "curriculum": _curriculum,
    "tokens": _tokens,
}


@dataclass(frozen=True)
class SamplingRun:
    """How a fit draws from its mixture.

    Args:
        sampling: "tokens" or "curriculum", with options after colons: "tokens:max_length=512",
            "curriculum:by=pad:order=descending".
        real: Index of the task's real sample that a proxy compares with, and the random seed of the
            scores.

    Raises:
        ConfigError: The kind or an option is unknown or not allowed.

    Example:
        >>> SamplingRun("curriculum:by=surrogate_loss", 0).description
        {'curriculum': 'surrogate_loss, ascending'}
        >>> SamplingRun("token", 0)
        Traceback (most recent call last):
        synque_select.errors.ConfigError: sampling 'token': did you mean 'tokens'? There are:
        curriculum, tokens
    """

    sampling: str
    real: int

    def __post_init__(self) -> None:
        _ = self._options

    @cached_property
    def _options(self) -> TokenOptions | Curriculum:
        kind, options = split_options(self.sampling)
        if kind not in _KINDS:
            raise ConfigError(f"sampling {kind!r}: {did_you_mean(kind, _KINDS)}")
        check_options(f"sampling {kind!r}", _KINDS[kind], options)
        return _KINDS[kind](**options)

    @property
    def description(self) -> JsonObject:
        """What a comparability key says of it; as `SynqueDataModule.sampling`, with the draws."""
        options = self._options
        if isinstance(options, TokenOptions):
            limit = {} if options.max_length is None else {"max_length": options.max_length}
            return {"weigh_by": "tokens", **limit}
        return options.key

    def key(self, task: BaseTask) -> list[Any]:
        """Return what distinguishes the outcome of this run from that of another one."""
        if isinstance(self._options, TokenOptions):
            return ["sampling", self.sampling]
        if is_by_field(self._options, task.candidates):  # which is not part of the views
            scores = curriculum_scores(self._options, task.candidates, None)
            values = [[name, each.tolist()] for name, each in scores.items()]
            return ["sampling", self.sampling, content_sha256(values)]
        # scores by a proxy or the others' classifiers depend on all candidates and the encoder
        encoder = task.encoder if isinstance(task.encoder, str | None) else task.encoder.key
        contents = [[part.name, part.sha256] for part in task.candidates]
        real = task.real_sample(self.real)
        return ["sampling", self.sampling, self.real, real.sha256, encoder, contents]

    def check(self, task: BaseTask) -> None:
        """Refuse what the candidates of a task cannot be sampled by, before anything is trained.

        Raises:
            ConfigError: A curriculum is by something that is neither a field nor a score, or tokens
                of examples that have no length.
            DataError: The first examples cannot be measured.
        """
        options = self._options
        if isinstance(options, Curriculum):
            check_curriculum(options, task.candidates)
            return
        for part in task.candidates:
            if not has_length(part, task.train_transform):
                raise ConfigError(
                    f"sampling {self.sampling!r}: nothing to count in {part.where}: training "
                    "examples have no input_ids, and the view is not a text. Leave this arm out, "
                    "or have the task's train_transform return input_ids"
                )
            token_lengths(part_of(part, [0, 1]), options, task.train_transform)

    def datamodule_options(self, task: BaseTask) -> dict[str, Any]:
        """Return the arguments of the DataModule."""
        options = self._options
        if isinstance(options, TokenOptions):
            return {"weigh_by": "tokens", "max_length": options.max_length}
        return {"curriculum": options}

    def scored(
        self,
        task: BaseTask,
        parts: Sequence[Candidate],
        positions: Sequence[NDArray[np.int64]],
        *,
        cache_dir: str | Path | None = None,
    ) -> list[Candidate]:
        """Return parts of candidates with the scores that a curriculum orders them by.

        The scores are those of the whole candidates, and of all of them: a part may be too small to
        train a classifier on.

        Args:
            task: The task.
            parts: Parts of some of its candidates.
            positions: Positions of each part's examples in its candidate.
            cache_dir: Directory of cached embeddings; None for the default one.
        """
        options = self._options
        if not isinstance(options, Curriculum):
            return list(parts)
        scores = curriculum_scores(
            Curriculum(by=options.by, order=options.order, encoder=task.encoder),
            task.candidates,
            task.real_sample(self.real),
            seed=self.real,
            cache_dir=cache_dir,
            progress=False,
        )
        own = {part.name: scores[part.name][at] for part, at in zip(parts, positions, strict=True)}
        return with_scores(parts, own)


def check_sampling(sampling: Sequence[str]) -> None:
    """Check the options of an experiment before anything is trained.

    Raises:
        ConfigError: A kind or an option of it is unknown or not allowed, or one is given twice.
    """
    check_specs("sampling", sampling, lambda one: SamplingRun(one, 0), such_as=["tokens"])


def sampling_arm(sampling: str) -> str:
    """Return the name of its arm in `result.json`.

    Example:
        >>> sampling_arm("curriculum:by=pad:order=descending")
        'sampling:curriculum:by=pad:order=descending'
    """
    return f"sampling:{sampling}"


def sampling_messages(sampling: Sequence[str], start: str) -> list[str]:
    """Say how the arms of other samplings were trained."""
    if not sampling:
        return []
    whole = "the selected mixture" if start == "chosen" else "the mixture of all"
    return [
        f"sampling arms train on {whole}, whose arm is their control, with the same examples and "
        "steps: a curriculum changes the order, and with tokens, weights are shares of the tokens"
    ]
