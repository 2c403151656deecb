"""Candidates that are too large to score whole: one pass over all examples, and a random draw."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synque_select.data.candidate import Candidate
from synque_select.data.examples import error_reason, field_alone
from synque_select.data.iterables import open_stored, read_examples, store_iterable
from synque_select.data.label_sets import class_names, features_of, label_text, named_label
from synque_select.data.population import (
    LabelCounts,
    Population,
    Reservoir,
    ReservoirOptions,
    TextCounts,
)
from synque_select.data.stream_rows import StreamRows
from synque_select.data.views import Selector, View, as_view, digest, select
from synque_select.errors import DataError, DependencyError
from synque_select.utils.cache_dir import default_cache_dir, note_not_written
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.progress import ProgressBar
from synque_select.utils.versions import package_versions, source_hash

__all__ = ["drawn_candidate", "streamed_candidate"]

_FORMAT_VERSION = 1
_BLOCK = 1024


def drawn_candidate(
    whole: Candidate, options: ReservoirOptions, identity: Sequence[object] | None
) -> Candidate:
    """Return a candidate with examples drawn from a larger one, and what a pass over it counts.

    Args:
        whole: The candidate, whose examples can be accessed by position.
        options: How many examples are drawn.
        identity: What tells whether the data is unchanged, such as states of files; None if
            nothing does, and then the pass is made each time.

    Returns:
        The candidate itself if it has no more examples than are to be drawn.
    """
    if len(whole) <= options.size:
        return whole
    reservoir = Reservoir(options, whole.name)
    reservoir.skip_to(len(whole))
    positions = np.sort(np.array(reservoir.positions, dtype=np.int64))

    def counted() -> tuple[Population, str]:
        counts = _Counts(whole)
        labels = itertools.repeat("") if whole.label is None else _labels(whole)
        views = ProgressBar(
            whole.views,
            f"reading {whole.name}",
            total=len(whole),
            delay=2,
            leave=False,
            unit="example",
        )
        for view, label in zip(views, labels, strict=False):
            counts.add(view, label)
        return counts.population(positions, options.seed), ""

    key = [whole.selector, whole.label, whole.modality, len(whole)]
    population, _ = _kept(whole.name, options, identity, key, counted)
    return whole.drawn(population)


def streamed_candidate(
    name: str,
    examples: Iterable[object],
    options: ReservoirOptions,
    *,
    view: Selector | None,
    label: Selector | None,
    source: str = "",
    identity: Sequence[object] | None = None,
    notes: tuple[str, ...] = (),
) -> Candidate:
    """Read an iterable to its end, once, and return a candidate with examples drawn from it.

    No more than the drawn examples are held in memory or stored.

    Args:
        name: Name of the candidate.
        examples: The dataset; a generator, which cannot be read again, can be scored but not
            trained on.
        options: How many examples are drawn.
        view: As for `Candidate`.
        label: As for `Candidate`.
        source: As for `Candidate`.
        identity: As for `drawn_candidate`.
        notes: As for `Candidate`.

    Returns:
        The candidate, which has all examples if there are no more than are to be drawn.

    Raises:
        DataError: The iterable yields fewer than 2 examples, raises, or an example has no view;
            the message names the example.

    Example:
        >>> import os, tempfile, unittest.mock
        >>> with (
        ...     tempfile.TemporaryDirectory() as folder,
        ...     unittest.mock.patch.dict(os.environ, {"SYNQUE_CACHE": folder}),
        ... ):
        ...     texts = (f"text {i}" for i in range(1000))
        ...     a = streamed_candidate("a", texts, ReservoirOptions(100), view=None, label=None)
        >>> len(a), a.n_all
        (100, 1000)
    """
    first: list[Candidate] = []

    def counted() -> tuple[Population, str]:
        rows, population, like = _pass(name, examples, options, view=view, label=label)
        first.append(like)
        stored = store_iterable(name, _Rows(rows, features_of(examples)))
        return population, str(stored)

    population, stored = _kept(name, options, identity, [view, label], counted)
    candidate = Candidate(name, open_stored(Path(stored)), view, label, source, notes=notes)
    if first and candidate.selector != first[0].selector:
        # the first of the drawn examples may have other fields than the first one of all
        candidate = replace(candidate, view=first[0].selector)
    if population.n <= options.size:
        return candidate
    is_again = iter(examples) is not examples
    rows = StreamRows(candidate.where, examples, population.n) if is_again else None
    return candidate.of_population(population, rows)


def _pass(
    name: str,
    examples: Iterable[object],
    options: ReservoirOptions,
    *,
    view: Selector | None,
    label: Selector | None,
) -> tuple[list[object], Population, Candidate]:
    """Read all examples; return the drawn ones in their order, and what was counted."""
    read = read_examples(name, examples)
    begin = list(itertools.islice(read, 2))
    if not begin:
        raise DataError(f"{name}: the iterable yields no examples")
    like = Candidate(name, _Rows(begin, features_of(examples)), view, label)
    names = () if label is None else class_names(examples, like.label)
    reservoir, counts = Reservoir(options, name), _Counts(like)
    rows: list[object] = []
    for position, example in enumerate(itertools.chain(begin, read)):
        try:
            seen = as_view(select(example, like.selector), like.modality, example=example)
            text = "" if like.label is None else _label(select(example, like.label), names)
        except DependencyError:
            raise
        except Exception as error:  # a user's view function may raise anything
            raise DataError(
                f"{name}, example {position} (counted from 0): {error_reason(error)}"
            ) from error
        counts.add(seen, text)
        slot = reservoir.place()
        if slot is not None:
            rows[slot : slot + 1] = [example]
    order = np.argsort(reservoir.positions)
    positions = np.array(reservoir.positions, dtype=np.int64)[order]
    return [rows[i] for i in order], counts.population(positions, options.seed), like


@dataclass(frozen=True, eq=False)
class _Rows:
    """Examples with the types of their fields, which a list does not keep."""

    rows: list[object]
    features: object

    def __iter__(self) -> Iterator[object]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> object:
        return self.rows[index]


class _Counts:
    """What is counted in a pass over all examples.

    Args:
        like: A candidate with the modality, and the label if there is one, of the examples.
    """

    def __init__(self, like: Candidate) -> None:
        self._n = 0
        self._hash = hashlib.sha256()
        self._texts = TextCounts() if like.modality == "text" else None
        self._labels = None if like.label is None else LabelCounts()

    def add(self, view: View, label: str) -> None:
        self._n += 1
        self._hash.update(digest(view))
        if self._texts is not None and isinstance(view, str):
            self._texts.add(view)
        if self._labels is not None:
            self._labels.add(label)

    def population(self, positions: NDArray[np.int64], seed: int) -> Population:
        return Population(
            self._n,
            self._hash.hexdigest(),
            positions,
            seed,
            () if self._texts is None else self._texts.totals(),
            None if self._labels is None else self._labels.total(),
        )


def _labels(whole: Candidate) -> Iterator[str]:
    assert whole.label is not None
    names = class_names(whole.dataset, whole.label)
    alone = field_alone(whole.readable, whole.label)
    for start in range(0, len(whole), _BLOCK):
        places = range(start, min(start + _BLOCK, len(whole)))
        values = None if alone is None else alone[start : places.stop][whole.label]
        for position in places:
            try:
                value = (
                    select(whole.readable[position], whole.label)
                    if values is None
                    else values[position - start]
                )
                yield _label(value, names)
            except Exception as error:  # a user's dataset or function may raise anything
                raise DataError(
                    f"{whole.where}, example {position} (counted from 0): "
                    f"label={whole.label!r}: {error_reason(error)}"
                ) from error


def _label(value: object, names: Sequence[str]) -> str:
    return label_text(named_label(value, names))


def _kept(
    name: str,
    options: ReservoirOptions,
    identity: Sequence[object] | None,
    further: Sequence[object],
    count: Callable[[], tuple[Population, str]],
) -> tuple[Population, str]:
    """Return what an earlier pass over the same data has counted, or make the pass.

    The second value is the path of the stored examples, "" if none are stored.
    """
    if identity is None or any(map(callable, further)):
        return count()
    # other code may count other n-grams
    code = [source_hash(), package_versions()]
    key = json.dumps([_FORMAT_VERSION, identity, name, options, further, code], default=str)
    folder = default_cache_dir() / "streams"
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    try:
        population, stored = _loaded(read_checked(file))
        if not stored or Path(stored).is_file():
            return population, stored
    except OSError:
        pass
    except (ValueError, KeyError, TypeError) as error:  # also damaged files
        remove_damaged(file, error)
    population, stored = count()
    try:
        with checksummed_file(file) as stream:
            stream.write(_packed(population, stored))
    except OSError as error:
        note_not_written(folder, error)
    return population, stored


def _packed(population: Population, stored: str) -> bytes:
    about = {
        "n": population.n,
        "sha256": population.sha256,
        "seed": population.seed,
        "labels": population.labels,
        "stored": stored,
    }
    stream = io.BytesIO()
    np.savez(
        stream,
        *population.ngrams,
        positions=population.positions,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
    )
    return stream.getvalue()


def _loaded(packed: bytes) -> tuple[Population, str]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        ngrams = [file[name] for name in file.files if name.startswith("arr_")]
        population = Population(
            about["n"],
            about["sha256"],
            file["positions"],
            about["seed"],
            tuple(ngrams),
            about["labels"],
        )
    return population, about["stored"]
