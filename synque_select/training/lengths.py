"""How many tokens each example has, for weights that are shares of tokens; measured once."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate, check_not_drawn
from synque_select.errors import ConfigError, DataError
from synque_select.functional.ngram import hash_ngrams
from synque_select.training.mixture_loader import Transform, training_example
from synque_select.utils.cache_dir import default_cache_dir, note_not_written
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.process_state import seeded
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int

__all__ = ["Length", "TokenOptions", "WeighBy", "has_length", "token_lengths"]

Length = Callable[[Any], int]
WeighBy = Literal["examples", "tokens"]

_FORMAT_VERSION = 1
_N_MEASURED = 64  # examples whose lengths are part of the key, because a transform has no hash
_INPUT_IDS = "input_ids"


@dataclass(frozen=True)
class TokenOptions:
    """How the tokens of an example are counted.

    Args:
        length: Takes a training example; returns its number of tokens. None for the number of its
            `input_ids`, or of the words of its view where the training example has none.
        max_length: A longer example counts as this long, because training truncates it; None for
            no limit.

    Raises:
        ConfigError: `length` is not a function, or `max_length` is not a whole number from 1.

    Example:
        >>> TokenOptions(max_length=512).max_length
        512
    """

    length: Length | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.length is not None and not callable(self.length):
            raise ConfigError(f"length={self.length!r}: allowed is a function")
        if self.max_length is not None:
            check_int("max_length", self.max_length, 1)

    @classmethod
    def of(
        cls, weigh_by: str, length: Length | None, max_length: int | None
    ) -> TokenOptions | None:
        """Return the options for weights that are shares of tokens; None for shares of examples.

        Raises:
            ConfigError: `weigh_by` is neither "examples" nor "tokens", or an option is not allowed.
        """
        if weigh_by == "tokens":
            return cls(length, max_length)
        if weigh_by != "examples":
            raise ConfigError(f"weigh_by={weigh_by!r}: allowed are 'examples' and 'tokens'")
        if length is not None or max_length is not None:
            raise ConfigError("length and max_length need weigh_by='tokens'")
        return None


def token_lengths(
    candidate: Candidate,
    options: TokenOptions,
    transform: Transform | None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> NDArray[np.int64]:
    """Return the number of tokens of each example, (N,), at least 1.

    They are kept in the cache under the content of the examples and the lengths of 64 of them,
    which are measured each time, so that another tokenizer is noticed. Examples that cannot be
    written as JSON, such as tensors, are measured each time.

    Args:
        candidate: The candidate.
        options: How tokens are counted.
        transform: Turns an example into a training example.
        seed: Random seed for a random transform.
        progress: Whether to show progress that takes more than two seconds.

    Raises:
        ConfigError: The examples have no default length, or only some of them were loaded.
        DataError: An example cannot be read, or `length` fails or returns something else.

    Example:
        >>> a = Candidate("a", [{"text": "one"}, {"text": "one two three"}], view="text")
        >>> token_lengths(a, TokenOptions(max_length=2), None).tolist()
        [1, 2]
    """
    check_not_drawn([candidate], "weigh_by='tokens'")
    measure = _Measure(candidate, options, transform)
    with seeded(seed):
        file = _file_of(candidate, measure)
        lengths = None if file is None else _kept(file, len(candidate))
        if lengths is None:
            lengths = measure.all(progress)
            if file is not None:
                _keep(file, lengths)
    return np.clip(lengths, 1, options.max_length)


class _Measure:
    """Measures lengths without a limit."""

    def __init__(
        self, candidate: Candidate, options: TokenOptions, transform: Transform | None
    ) -> None:
        self.candidate, self._transform = candidate, transform
        self._length = options.length
        how = "length" if options.length is not None else _default_length(candidate, transform)
        if how is None:
            raise ConfigError(
                f"{candidate.where}: weigh_by='tokens' needs a length, and a training example has "
                f"no {_INPUT_IDS} and its view is not a text: give length= a function of a "
                "training example"
            )
        self.how = how

    def all(self, progress: bool) -> NDArray[np.int64]:
        bar = ProgressBar(
            range(len(self.candidate)),
            f"lengths of {self.candidate.name}",
            delay=2,
            leave=False,
            unit="example",
            disable=not progress,
        )
        return np.array([self.one(position) for position in bar], dtype=np.int64)

    def one(self, position: int) -> int:
        if self.how == "words":
            text = str(self.candidate.views[position])
            return len(hash_ngrams([text], max_order=1).texts)
        example = training_example(self.candidate, position, self._transform)
        where = f"{self.candidate.where}, example {position} (counted from 0)"
        if self._length is None:
            if not _has_input_ids(example):
                raise DataError(f"{where}: it has no {_INPUT_IDS}, which the first example has")
            return _count(example[_INPUT_IDS])  # type: ignore[index]
        try:
            length: object = self._length(example)
        except Exception as error:  # a user's function may raise anything
            raise DataError(f"{where}: length fails: {type(error).__name__}: {error}") from error
        if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 0:
            raise DataError(
                f"{where}: length returned {length!r}: allowed is a whole number from 0"
            )
        return int(length)


def has_length(candidate: Candidate, transform: Transform | None) -> bool:
    """Return whether the tokens of the examples can be counted without a function of the user.

    Example:
        >>> has_length(Candidate("a", [{"text": "one"}, {"text": "two"}], view="text"), None)
        True
    """
    return _default_length(candidate, transform) is not None


def _default_length(candidate: Candidate, transform: Transform | None) -> str | None:
    """Return what is counted if no function is given; None for an image without tokens."""
    if _has_input_ids(training_example(candidate, 0, transform)):
        return _INPUT_IDS
    return "words" if candidate.modality == "text" else None


def _has_input_ids(example: object) -> bool:
    # a BatchEncoding of transformers is a UserDict, which is a Mapping
    return isinstance(example, Mapping) and _INPUT_IDS in example


def _count(ids: Any) -> int:
    """Return the number of tokens of a list, an array or a tensor, also of shape (1, n)."""
    shape = getattr(ids, "shape", None)
    return len(ids) if shape is None else int(shape[-1]) if len(shape) else 1


def _file_of(candidate: Candidate, measure: _Measure) -> Path | None:
    """Return the file for the lengths; None if the examples cannot be hashed."""
    places = np.unique(np.linspace(0, len(candidate) - 1, _N_MEASURED).astype(int)).tolist()
    hashed = hashlib.sha256()
    try:
        for text in _texts(candidate):
            hashed.update(text.encode() + b"\0")
    except (TypeError, ValueError):
        return None
    measured = [measure.one(place) for place in places]
    # the view, which words are counted of, is not all of an example
    key = [_FORMAT_VERSION, hashed.hexdigest(), measure.how, str(candidate.selector), measured]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return default_cache_dir() / "lengths" / f"{name}.npy"


def _texts(candidate: Candidate) -> Iterator[str]:
    for position in range(len(candidate)):
        yield json.dumps(candidate[position], sort_keys=True)


def _kept(file: Path, n: int) -> NDArray[np.int64] | None:
    with suppress(OSError):
        try:
            kept = np.load(io.BytesIO(read_checked(file)), allow_pickle=False)
            if kept.shape == (n,) and kept.dtype == np.int64:
                return np.asarray(kept)
        except ValueError as error:  # also damaged files
            remove_damaged(file, error)
    return None


def _keep(file: Path, lengths: NDArray[np.int64]) -> None:
    try:
        with checksummed_file(file) as stream:
            np.save(stream, lengths, allow_pickle=False)
    except OSError as error:
        note_not_written(file.parent, error)
