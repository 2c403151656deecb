"""The datasets that are compared: synthetic candidates and the real sample."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synque_select.data.contamination import DuplicateGroups, duplicate_groups
from synque_select.data.examples import Examples, MapDataset, selected_values, without_format
from synque_select.data.groups import GroupSelector, check_group_selector, given_groups
from synque_select.data.label_sets import (
    NO_LABEL,
    class_names,
    features_of,
    label_text,
    named_label,
    without_empty_lists,
)
from synque_select.data.plain_rows import PlainRows, plain_rows
from synque_select.data.population import Population
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.utils.wording import counted, listed

__all__ = ["Candidate", "RealSample", "check_not_drawn"]

_MOST_KNOWN = 1000  # labels whose class is kept while those of a candidate are read


@dataclass(frozen=True, eq=False)
class Candidate(Examples):
    """One synthetic dataset that training may use.

    Args:
        name: Name of the candidate. For this and the next four arguments, see `Examples`.
        dataset: The examples.
        view: Selector of the text or image that proxies see.
        label: Selector of the label.
        source: Where the dataset comes from, for error messages.
        example_scores: For each proxy key, the realness of every example, (N,) float64, higher is
            more real; set by `synque_select.selection.example_scores.with_example_scores`.
        family: Name of the family, such as the generator; candidates of one family do not judge
            each other's labels. None if the candidate is a family of its own.
        population: All examples of which `dataset` holds some, drawn at random; None if it holds
            all.
        whole: All examples, to train on; None without a population, or if they cannot be read
            again.
    """

    example_scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    family: str | None = None
    population: Population | None = field(default=None, kw_only=True, repr=False)
    whole: MapDataset | None = field(default=None, kw_only=True, repr=False)

    @property
    def n_all(self) -> int:
        """Number of all examples, also of those that were not drawn to be scored."""
        return len(self) if self.population is None else self.population.n

    @property
    def all_examples(self) -> MapDataset | PlainRows:
        """All examples, to train on.

        Raises:
            DataError: They were those of an iterator, which cannot be read again.
        """
        if self.population is None:
            return self._rows
        if self.whole is None:
            n = counted(self.population.n, "example")
            raise DataError(
                f"{self.where}: {n} were read from an iterator, which can be read only once: to "
                "train on them, give a dataset whose iter() starts from the beginning, such as an "
                "IterableDataset, or a file"
            )
        return self.whole

    @property
    def content(self) -> tuple[str, ...]:
        """The name and hashes of all that scores depend on, for keys of cached results."""
        drawn_from = () if self.population is None else (self.population.sha256,)
        return (*super().content, *drawn_from)

    @property
    def sha256_of_all(self) -> str:
        """SHA-256 of the views of all examples, in hexadecimal."""
        return self.sha256 if self.population is None else self.population.sha256

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of all examples as texts; read only once.

        Several labels of one example become a JSON list; a missing label is "(no label)". Of a
        field of the type `ClassLabel`, the names are read, as numbers may differ between files.

        Raises:
            ConfigError: The candidate was created without `label`.
            DataError: An example lacks the field of the label, or its function fails.

        Example:
            >>> Candidate("a", [("x", 0), ("y", 1)], view=0, label=1).labels
            ('0', '1')
        """
        return self._read_labels[0]

    @property
    def merged_labels(self) -> Mapping[str, tuple[str, ...]]:
        """Class to the texts that were taken for it, where these are several; see `label_text`."""
        return {name: texts for name, texts in self._read_labels[1].items() if len(texts) > 1}

    @cached_property
    def _read_labels(self) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
        """The labels, and for each class the texts that it had."""
        if self.label is None:
            raise ConfigError(f"{self.where} has no label: give label= a field or position")
        names = class_names(self.dataset, self.label)
        texts: dict[str, dict[str, None]] = {}
        known: dict[object, str] = {}

        def read(value: object, _: int) -> str:
            # no other types: 1.0 and True are the same key as 1
            key = value if type(value) in (str, int) else None
            if key in known:
                return known[key]
            named = named_label(value, names)
            label = label_text(named)
            for part in named if isinstance(named, list | tuple) else [named]:
                if isinstance(part, str) and label != NO_LABEL:
                    texts.setdefault(label if part is named else label_text(part), {})[part] = None
            if key is not None and len(known) < _MOST_KNOWN:
                known[key] = label
            return label

        labels = without_empty_lists(selected_values(self, self.label, "label", read))
        return labels, {label: tuple(forms) for label, forms in texts.items()}

    @cached_property
    def labels_sha256(self) -> str:
        """Hash of the labels."""
        return hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()

    def filter(self, *, keep: float, by: str) -> Candidate:
        """Return the candidate with only its most real examples, in their original order.

        Args:
            keep: Share of the examples to keep, in (0, 1]; their number is rounded up.
            by: Key of the proxy in `example_scores` that ranks the examples; of equal ones, the
                earlier is kept.

        Raises:
            ConfigError: `keep` is out of range, or the candidate has no scores by that proxy.
            DataError: Fewer than 2 examples would remain.

        Example:
            >>> scores = {"pad": np.array([0.1, 0.9, 0.5, 0.7])}
            >>> a = Candidate("a", [{"text": t} for t in "wxyz"], example_scores=scores)
            >>> list(a.filter(keep=0.5, by="pad").views)
            ['x', 'z']
        """
        if not 0 < keep <= 1:
            raise ConfigError(f"keep={keep}: allowed is a share above 0 and up to 1")
        if by not in self.example_scores:
            known = (
                did_you_mean(by, self.example_scores) if self.example_scores else "there are none"
            )
            raise ConfigError(f"{self.where} has no example scores by {by!r}: {known}")
        order = np.argsort(-self.example_scores[by], kind="stable")
        return self._at(np.sort(order[: math.ceil(keep * len(self))]))

    def without(self, positions: Sequence[int]) -> Candidate:
        """Return the candidate without some examples.

        Args:
            positions: Positions to leave out.

        Raises:
            DataError: Fewer than 2 examples would remain.

        Example:
            >>> list(Candidate("a", ["x", "y", "z"]).without([1]).views)
            ['x', 'z']
        """
        return self._at(np.setdiff1d(np.arange(len(self)), np.asarray(positions, dtype=np.int64)))

    def drawn(self, population: Population) -> Candidate:
        """Return the candidate with the drawn examples of a population, which is this candidate."""
        part = dataclasses.replace(self, dataset=_Subset(self.dataset, population.positions))
        if part.selector != self.selector:
            # the first of the drawn examples may have other fields than the first one of all
            part = dataclasses.replace(part, view=self.selector)
        return part.of_population(population, self.dataset)

    def of_population(self, population: Population, whole: MapDataset | None) -> Candidate:
        """Return the candidate as a random draw from a population.

        Args:
            population: What is known of all examples.
            whole: All examples; None if they cannot be read again.
        """
        notes = (*self.notes, population.note)
        return dataclasses.replace(self, population=population, whole=whole, notes=notes)

    def positions_in(self, other: Candidate) -> NDArray[np.int64]:
        """Return where in another candidate, of which this one is a part, the examples are.

        Raises:
            ConfigError: This one is neither the other candidate nor a part of it.
        """
        if self.dataset is other.dataset:
            return np.arange(len(self))
        if isinstance(self.dataset, _Subset) and self.dataset.dataset is other.dataset:
            return self.dataset.positions
        raise ConfigError(f"{self.where} is not a part of {other.where}")

    def weighted(self, weights: ArrayLike, *, seed: int = 0) -> Candidate:
        """Return a candidate of N examples in which examples are repeated by weight.

        Example i occurs ⌊N·w_i/Σw⌋ or ⌈N·w_i/Σw⌉ times (systematic resampling), so that training
        on the result samples the examples in proportion to their weights.

        Args:
            weights: (N,) weights, finite and at least 0, such as `example_scores["pad"]`.
            seed: Random seed for the offset of the systematic resampling.

        Raises:
            ConfigError: The number of weights is not N, a weight is negative or not finite, or all
                weights are 0.

        Example:
            >>> list(Candidate("a", ["x", "y", "z", "w"]).weighted([2, 0, 1, 1]).views)
            ['x', 'x', 'z', 'w']
        """
        given = np.asarray(weights, dtype=np.float64)
        if given.shape != (len(self),) or not np.isfinite(given).all() or (given < 0).any():
            raise ConfigError(
                f"{self.where}: weights must be {len(self)} finite numbers of at least 0, one per "
                "example"
            )
        if not given.any():
            raise ConfigError(f"{self.where}: all weights are 0; at least one must be positive")
        steps = np.arange(len(self)) + np.random.default_rng(seed).random()
        ends = np.cumsum(given) / given.sum() * len(self)
        return self._at(np.minimum(np.searchsorted(ends, steps, side="right"), len(self) - 1))

    def _at(self, positions: NDArray[np.int64]) -> Candidate:
        return dataclasses.replace(
            self,
            dataset=_Subset(self.dataset, positions),
            view=self.selector,
            example_scores={key: scores[positions] for key, scores in self.example_scores.items()},
            population=None,
            whole=None,
        )


def check_not_drawn(candidates: Sequence[Candidate], what: str) -> None:
    """Refuse candidates of which only some examples were drawn.

    Args:
        candidates: The candidates.
        what: What needs all examples, for the message.

    Raises:
        ConfigError: There is such a candidate; the message names it.
    """
    names = [candidate.name for candidate in candidates if candidate.population is not None]
    if names:
        raise ConfigError(
            f"{what} needs all examples in the ranking, and of {listed(names)} some were drawn: "
            "leave reservoir (--reservoir) out, or raise it"
        )


@dataclass(frozen=True, eq=False)
class _Subset:
    """Examples of a dataset by position; a position may occur several times."""

    dataset: MapDataset
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int, /) -> object:
        return self._rows[int(self.positions[index])]

    @cached_property
    def _rows(self) -> MapDataset | PlainRows:
        rows = plain_rows(self.dataset)
        return self.dataset if rows is None else rows

    @property
    def features(self) -> object:
        """The types of the fields, if the dataset knows them."""
        return features_of(self.dataset)

    def without_format(self) -> MapDataset | None:
        """Return these examples of the dataset without its format; None if it has none."""
        whole = without_format(self.dataset)
        return None if whole is None else _Subset(whole, self.positions)


@dataclass(frozen=True, eq=False)
class RealSample(Examples):
    """The unlabeled real examples; if they have labels, these are never read.

    Args:
        name: Name for messages. For this and the next four arguments, see `Examples`.
        dataset: The examples.
        view: Selector of the text or image that proxies see.
        label: Selector of a label; never read.
        source: Where the dataset comes from, for error messages.
        group_by: What examples of one group share, such as a thread, author, session or page: a
            field name, a position, or a function of an example. None to group exact and near
            duplicates; False if all examples are independent.

    Raises:
        ConfigError: `group_by` selects the view or the label, or has a wrong type.
        DataError: The first example lacks what `group_by` selects.

    Example:
        >>> posts = [{"text": t, "thread": g} for t, g in (("x", 7), ("y", 8), ("z", 7))]
        >>> RealSample("real", posts, view="text", group_by="thread").groups.tolist()
        [0, 1, 0]
    """

    group_by: GroupSelector | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_by is not None:
            object.__setattr__(self, "group_by", check_group_selector(self, self.group_by))

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """Group number of each example, (n,) int64 from 0 on; None if all are independent.

        Raises:
            DataError: An example lacks what `group_by` selects, or its value cannot name a group.
            ConfigError: `group_by` puts all examples in one group.
        """
        if self.group_by is None:
            numbers = self.duplicates.groups
        elif self.group_by is False:
            return None
        else:
            numbers = given_groups(self, self.group_by)
        # groups of one change nothing, and are not passed on as groups
        return numbers if len(np.unique(numbers)) < len(self) else None

    @property
    def groups_sha256(self) -> str | None:
        """SHA-256 of the group numbers, in hexadecimal; None without groups."""
        return None if self.groups is None else hashlib.sha256(self.groups.tobytes()).hexdigest()

    @cached_property
    def duplicates(self) -> DuplicateGroups:
        """Exact and near duplicates among the examples."""
        return duplicate_groups(self)
