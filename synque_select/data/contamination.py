"""Exact and near duplicates between candidates and data they should not contain."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from synque_select.data.duplicates import content_numbers
from synque_select.data.examples import Examples, Views
from synque_select.data.groups import number_groups
from synque_select.data.thumbnails import kept_thumbnails, thumbnails
from synque_select.data.views import View
from synque_select.errors import ConfigError
from synque_select.functional.segmentation import split_words
from synque_select.utils.progress import ProgressBar
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted

__all__ = [
    "DuplicateGroups",
    "Overlap",
    "check_real_copies",
    "contamination_messages",
    "count_overlap",
    "duplicate_groups",
    "duplicates_in",
    "shown_example",
]

_BLOCK = 1024
# of scripts without spaces, pairs of characters are compared: any two long texts in an alphabet
# such as Thai hold the same single ones
_N_CHARACTERS = 2
_N_SHOWN = 3
_SHOWN_CHARACTERS = 80
# the Jaccard index of the words of two texts, and the correlation of two thumbnails, from which
# the two count as near duplicates
_TEXT_THRESHOLD = 0.8
_IMAGE_THRESHOLD = 0.99
# a text is a twin of a real one if the two are nearer than this share of the distance of either to
# any other real one, and have at least this similarity and this many words in common; see
# `check_real_copies`
_TWIN_DISTANCE = 0.75
_TWIN_SIMILARITY = 0.4
_TWIN_WORDS = 4


@dataclass(frozen=True)
class Overlap:
    """How many examples of a candidate also occur in other data.

    Args:
        n_exact: Number of examples of the candidate whose view also occurs in the other data.
        n_near: Number of further examples whose view has a near duplicate there.
        examples: Up to 3 pairs (position in the candidate, position in the other data), exact
            duplicates first.
    """

    n_exact: int
    n_near: int
    examples: tuple[tuple[int, int], ...] = ()


def count_overlap(candidate: Examples, other: Examples) -> Overlap:
    """Count the examples of a candidate that have an exact or near duplicate in other data.

    Views that are equal are exact duplicates. Two texts are near duplicates if their sets of words
    (ignoring case, punctuation and order, with Unicode in compatibility form; in scripts without
    spaces, pairs of adjacent characters) have a Jaccard index
    |A ∩ B| / |A ∪ B| of at least 0.8. Two images are near duplicates if their centered 8×8×3
    thumbnails have a cosine of at least 0.99, which survives scaling, JPEG at quality 75 and a
    change of brightness or contrast; an image of a single color has no near duplicates. Both
    searches are exact: no duplicate is missed because of hashing.

    The cost is one pass over the candidate, and memory for the words or thumbnails of the other
    data only.

    Args:
        candidate: The dataset whose examples are counted.
        other: The data in which duplicates are searched, such as the real sample.

    Raises:
        ConfigError: One dataset holds texts and the other images.
        DataError: The view of an example is missing or invalid.

    Example:
        >>> from synque_select.data.candidate import Candidate, RealSample
        >>> real = RealSample("real", ["Which app has the most reviews?", "How many apps?"])
        >>> made = Candidate("a", ["How many apps?", "which app has the most reviews", "No."])
        >>> count_overlap(made, real)
        Overlap(n_exact=1, n_near=1, examples=((0, 1), (1, 0)))
    """
    return _count(candidate, _Index(other))


def duplicates_in(candidate: Examples, other: Examples) -> NDArray[np.bool_]:
    """Return for each example whether it has an exact or near duplicate in other data, (N,).

    Args:
        candidate: The dataset whose examples are checked; see `count_overlap` for what is near.
        other: The data in which duplicates are searched.

    Raises:
        ConfigError: One dataset holds texts and the other images.
        DataError: The view of an example is missing or invalid.

    Example:
        >>> made = Examples("a", ["how many apps", "No."])
        >>> duplicates_in(made, Examples("real", ["How many apps?", "Why?"])).tolist()
        [True, False]
    """
    exact, near = _found(candidate, _Index(other))
    has_one: NDArray[np.bool_] = (exact >= 0) | (near >= 0)
    return has_one


@dataclass(frozen=True, eq=False)
class DuplicateGroups:
    """Groups of examples of one dataset that are duplicates of each other.

    Args:
        groups: (n,) int64 group number of each example, from 0 on in the order of first occurrence.
        n_exact: Number of examples whose view also occurs earlier.
        n_near: Number of distinct views that have a near duplicate.
        pair: Positions of two duplicates, a near one if there is one; None without duplicates.
    """

    groups: NDArray[np.int64]
    n_exact: int
    n_near: int
    pair: tuple[int, int] | None


def duplicate_groups(examples: Examples) -> DuplicateGroups:
    """Group the exact and near duplicates within one dataset; see `count_overlap` for what is near.

    Two examples are in one group if a chain of duplicates leads from one to the other.

    Args:
        examples: A small dataset, such as the real sample.

    Raises:
        DataError: The view of an example is missing or invalid.

    Example:
        >>> copies = duplicate_groups(Examples("real", ["How many apps?", "Why?", "how many apps"]))
        >>> copies.groups.tolist(), copies.n_exact, copies.n_near, copies.pair
        ([0, 1, 0], 0, 2, (0, 2))
    """
    _, first, contents = np.unique(
        examples.digests.view("V32").ravel(), return_index=True, return_inverse=True
    )
    firsts = np.sort(first)  # positions of the distinct views, in the order of the dataset
    # near duplicates are searched among distinct views only: a text that occurs a thousand times
    # would be compared with itself a million times
    views = (examples.views[int(position)] for position in firsts)
    near = _TextIndex(list(views)) if examples.modality == "text" else _ImageIndex(views)
    pairs = near.pairs()
    left, right = (firsts[side] for side in pairs.T)
    copies = np.flatnonzero(first[contents] != np.arange(len(examples)))
    links = coo_array(
        (
            np.ones(len(left) + len(copies), dtype=np.int8),
            (np.r_[left, copies], np.r_[right, first[contents][copies]]),
        ),
        shape=(len(examples), len(examples)),
    )
    component = connected_components(links, directed=False)[1]
    pair = None
    if len(left):
        pair = (int(left[0]), int(right[0]))
    elif len(copies):
        pair = (int(first[contents[copies[0]]]), int(copies[0]))
    return DuplicateGroups(
        groups=number_groups(component.tolist()),
        n_exact=len(copies),
        n_near=len(np.unique(pairs)),
        pair=pair,
    )


def contamination_messages(
    candidates: Sequence[Examples], others: Mapping[str, Examples]
) -> tuple[str, ...]:
    """Report in plain sentences which candidates overlap with data they should not contain.

    Args:
        candidates: The candidates.
        others: The other datasets by the name used in the sentence, such as "real sample".

    Returns:
        One sentence per pair of a candidate and a dataset that overlap.

    Raises:
        ConfigError: Texts and images are mixed.
        DataError: The view of an example is missing or invalid.

    Example:
        >>> from synque_select.data.candidate import Candidate, RealSample
        >>> real = RealSample("real", ["How many apps?", "Which app?"])
        >>> contamination_messages([Candidate("a", ["How many apps?", "No."])], {"test data": real})
        ("a: 1 of 2 examples is also in the test data (1 exact copy): 'How many apps?'.",)
    """
    messages = []
    for name, other in others.items():
        index = _Index(other)
        for candidate in candidates:
            overlap = _count(candidate, index)
            if overlap.n_exact + overlap.n_near:
                messages.append(_sentence(candidate, name, overlap))
    return tuple(messages)


def check_real_copies(
    candidates: Sequence[Examples], real: Examples, groups: NDArray[np.int64] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the candidates that are the real sample or a near copy of it, such as a paraphrase.

    A candidate is one if more than half of the real examples have a twin in it: an exact or near
    duplicate (see `count_overlap`), or a text that is far nearer than real examples are to each
    other. That is: their distance is less than 3/4 of the distance of either to the nearest other
    real example, their similarity is 0.4 or more, and they have at least 4 words in common. The
    similarity of two texts is the Jaccard index of their words, each weighted by
    log((D + 1) / (df + 1)), with df the number of the D real and candidate texts that contain the
    word; the distance is 1 minus that. A text of which a third of the words is replaced keeps a
    similarity of about 0.5.

    Args:
        candidates: The candidates.
        real: The real sample.
        groups: Group of each real example, (n,); examples of one group are not compared.

    Returns:
        The sentences of `contamination_messages` and one per near copy; and the names of the
        candidates that are copies.

    Raises:
        ConfigError: Texts and images are mixed.
        DataError: The view of an example is missing or invalid.

    Example:
        >>> from synque_select.data.candidate import Candidate, RealSample
        >>> real = RealSample("real", ["How many apps?", "Which app has the most reviews?"])
        >>> copy = Candidate("a", ["how many apps", "Which page has the most reviews?"])
        >>> check_real_copies([copy], real)[1]
        ('a',)
    """
    index = _Index(real)
    numbers = np.arange(len(real)) if groups is None else groups
    twins = _Twins(real.views, numbers) if real.modality == "text" else None
    messages, copies = [], []
    for candidate in candidates:
        exact, near = _found(candidate, index)
        overlap = _overlap(exact, near)
        if overlap.n_exact + overlap.n_near:
            messages.append(_sentence(candidate, "real sample", overlap))
        has_twin = np.isin(content_numbers(real.digests), content_numbers(candidate.digests))
        has_twin[near[near >= 0]] = True
        if twins is not None:
            has_twin |= twins.find(candidate.views)
        n_twins = int(has_twin.sum())
        if 2 * n_twins <= len(real):
            continue
        copies.append(candidate.name)
        if overlap.n_exact < len(candidate):
            messages.append(
                f"{candidate.name}: {n_twins:,} of the {counted(len(real), 'real example')} have "
                "a copy or near copy in it, so its scores say nothing about other real data."
            )
    return tuple(messages), tuple(copies)


def _sentence(candidate: Examples, name: str, overlap: Overlap) -> str:
    if overlap.n_exact == len(candidate):
        return (
            f"{candidate.name}: all of its {counted(len(candidate), 'example')} are in the "
            f"{name}: leave it out, unless you mean it as a bound."
        )
    n_both = overlap.n_exact + overlap.n_near
    kinds = [
        counted(n, noun, f"{noun[:-1]}ies")
        for n, noun in ((overlap.n_exact, "exact copy"), (overlap.n_near, "near copy"))
        if n
    ]
    shown = ", ".join(shown_example(candidate, position) for position, _ in overlap.examples)
    return (
        f"{candidate.name}: {n_both:,} of {counted(len(candidate), 'example')} "
        f"{'is' if n_both == 1 else 'are'} also in the {name} ({', '.join(kinds)})"
        f"{': ' if n_both == len(overlap.examples) else ', such as '}{shown}."
    )


def shown_example(candidate: Examples, position: int) -> str:
    """Return what a sentence shows of an example: its text, shortened, or its position.

    Args:
        candidate: The dataset.
        position: Position of the example.
    """
    if candidate.modality == "image":
        return f"example {position}"
    text = " ".join(candidate.views[position].split())
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


class _NearIndex(Protocol):
    def find(self, views: Iterable[View]) -> list[int]:
        """Return for each view the position of a near duplicate, or -1."""
        ...

    def pairs(self) -> NDArray[np.int64]:
        """Return all pairs of near duplicates in the index, (p, 2) positions, the lower first."""
        ...


class _Index:
    """Exact and near lookup of views in the data that candidates should not contain."""

    def __init__(self, other: Examples) -> None:
        self.other = other
        self.exact: dict[bytes, int] = {}
        for position, row in enumerate(other.digests):
            self.exact.setdefault(row.tobytes(), position)
        self.near: _NearIndex = (
            _TextIndex(other.views) if other.modality == "text" else _ImageIndex(other.views)
        )


def _count(candidate: Examples, index: _Index) -> Overlap:
    return _overlap(*_found(candidate, index))


def _found(candidate: Examples, index: _Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the position of an exact and of a near duplicate of each example, or -1."""
    if candidate.modality != index.other.modality:
        raise ConfigError(
            f"{candidate.where} holds {candidate.modality}s, but {index.other.where} holds "
            f"{index.other.modality}s; both must be of the same modality"
        )
    exact = np.full(len(candidate), -1)
    numbers = content_numbers(candidate.digests)
    for position in np.flatnonzero(np.isin(numbers, content_numbers(index.other.digests))):
        exact[position] = index.exact.get(candidate.digests[position].tobytes(), -1)
    return exact, _near_positions(candidate, index.near, exact < 0)


def _overlap(exact: NDArray[np.int64], near: NDArray[np.int64]) -> Overlap:
    shown = [*np.flatnonzero(exact >= 0)[:_N_SHOWN], *np.flatnonzero(near >= 0)[:_N_SHOWN]]
    pairs = tuple((int(at), int(max(exact[at], near[at]))) for at in shown[:_N_SHOWN])
    return Overlap(int((exact >= 0).sum()), int((near >= 0).sum()), pairs)


def _near_positions(
    candidate: Examples, index: _NearIndex, wanted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    positions = np.full(len(candidate), -1)
    kept = kept_thumbnails(candidate) if isinstance(index, _ImageIndex) else None
    for start in range(0, len(candidate), _BLOCK):
        at = start + np.flatnonzero(wanted[start : start + _BLOCK])
        if isinstance(index, _ImageIndex) and kept is not None:
            positions[at] = index.find_thumbnails(kept[at])
        elif len(at):
            positions[at] = index.find(_views_at(candidate.views, start, at))
    return positions


def _views_at(views: Views, start: int, at: NDArray[np.int64]) -> Iterable[View]:
    if views.modality == "image":
        # one at a time: a block of photographs would not fit into memory
        return (views[int(position)] for position in at)
    block = views[start : start + _BLOCK]
    return [block[position - start] for position in at]


def _words(text: str) -> frozenset[str]:
    # a space of no width would divide words, and so hide a copy that looks the same
    folded = normalized(text.replace("\u200b", ""), "NFKC").casefold()
    # a text without words, such as an emoji, counts as one word
    return frozenset(split_words(folded, _N_CHARACTERS)) or frozenset([folded.strip()])


class _TextIndex:
    """Exact search for texts with a Jaccard index above the threshold, by prefix filtering.

    Two sets can reach a Jaccard index t only if one of the |A| - ceil(t |A|) + 1 rarest words of
    each is in both (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity
    search"), so only those words are indexed and looked up.
    """

    def __init__(self, texts: Sequence[View]) -> None:
        self._sets = [_words(str(text)) for text in texts]
        self._counts = Counter(word for words in self._sets for word in words)
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        for position, words in enumerate(self._sets):
            for word in self._rarest(words, len(words)):
                self._by_word[word].append(position)

    def find(self, views: Iterable[View]) -> list[int]:
        """Return for each text the position of its first near duplicate, or -1."""
        return [self._find(_words(str(view))) for view in views]

    def _find(self, words: frozenset[str]) -> int:
        return min(self._all_near(words), default=-1)

    def pairs(self) -> NDArray[np.int64]:
        """Return all pairs of near duplicates, (p, 2) positions, the lower first."""
        bar = ProgressBar(self._sets, "near duplicates", delay=2, leave=False, unit="example")
        pairs = [
            (at, position)
            for position, words in enumerate(bar)
            for at in sorted(self._all_near(words))
            if at < position
        ]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def _all_near(self, words: frozenset[str]) -> list[int]:
        known = [word for word in words if word in self._counts]
        near = {at for word in self._rarest(known, len(words)) for at in self._by_word[word]}
        return [at for at in near if _jaccard(words, self._sets[at]) >= _TEXT_THRESHOLD]

    def _rarest(self, known: Sequence[str] | frozenset[str], n_words: int) -> Iterator[str]:
        # the words that are missing here, unknown to the index, are the rarest of all and cannot
        # be in both sets; 1e-9 protects the product from being rounded above an integer
        n_prefix = len(known) - math.ceil(_TEXT_THRESHOLD * n_words - 1e-9) + 1
        if n_prefix < 1:
            return iter(())
        ordered = sorted(known, key=lambda word: (self._counts[word], word))
        return iter(ordered[:n_prefix])


class _Twins:
    """Search for the real texts that have a twin in a candidate; see `check_real_copies`."""

    def __init__(self, texts: Sequence[View], groups: NDArray[np.int64]) -> None:
        self._sets = [_words(str(text)) for text in texts]
        self._real = _WordNumbers.of(self._sets)
        self._is_one_group = groups[:, None] == groups[None, :]
        self._known = np.unique(self._real.words)

    def find(self, views: Views) -> NDArray[np.bool_]:
        """Return for each real text whether it has a twin, (n,)."""
        blocks = [
            _WordNumbers.of(_words(str(view)) for view in views[start : start + _BLOCK])
            for start in range(0, len(views), _BLOCK)
        ]
        weights = _WordWeights([self._real, *blocks])
        positions = np.arange(len(self._sets))
        nearest, twins = np.zeros(len(positions)), np.zeros(len(positions), dtype=np.int64)
        for number, block in enumerate(blocks):
            similar = self._similarity(block, weights)
            at = similar.argmax(axis=0)
            twins = np.where(similar[at, positions] > nearest, number * _BLOCK + at, twins)
            nearest = np.maximum(nearest, similar[at, positions])
        texts = [_words(str(views[int(twin)])) for twin in twins]
        # where texts have few words to choose from, a text near a real one is near others as well
        others = np.maximum(
            self._nearest_other(self._real, weights),
            self._nearest_other(_WordNumbers.of(texts), weights),
        )
        n_common = [len(a & b) for a, b in zip(self._sets, texts, strict=True)]
        has_twin: NDArray[np.bool_] = (
            (1 - nearest < _TWIN_DISTANCE * (1 - others))
            & (nearest >= _TWIN_SIMILARITY)
            & (np.array(n_common) >= _TWIN_WORDS)
        )
        return has_twin

    def _nearest_other(self, texts: _WordNumbers, weights: _WordWeights) -> NDArray[np.float64]:
        """Return the similarity of each text to the nearest real one of another group, (n,)."""
        similar = self._similarity(texts, weights)
        similar[self._is_one_group] = 0
        nearest: NDArray[np.float64] = similar.max(axis=1)
        return nearest

    def _similarity(self, texts: _WordNumbers, weights: _WordWeights) -> NDArray[np.float64]:
        """Return the weighted Jaccard index of each text with each real one, (N, n)."""
        weighted = self._real.matrix(self._known) * weights.of(self._known)
        common = (texts.matrix(self._known) @ weighted.T).toarray()
        # every text has a word
        total = np.add.reduceat(weights.of(texts.words), texts.ends[:-1])
        union = total[:, None] + weighted.sum(axis=1)[None, :] - common
        result: NDArray[np.float64] = common / np.where(union > 0, union, 1)
        return result


@dataclass(frozen=True, eq=False)
class _WordNumbers:
    """The distinct words of N texts as numbers: the sets of a million texts take gigabytes.

    Among a million words, two share a number with a probability of 3e-8.

    Args:
        words: The numbers, those of the first text first, int64.
        ends: (N + 1,) int64, 0 and where each text ends.
    """

    words: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[frozenset[str]]) -> _WordNumbers:
        words, ends = array("q"), array("q", [0])
        for text in texts:
            words.extend(map(hash, text))
            ends.append(len(words))
        return cls(np.array(words, dtype=np.int64), np.array(ends, dtype=np.int64))

    def matrix(self, known: NDArray[np.int64]) -> csr_array:
        """Return which of the known words, which are sorted, each text contains, (N, V)."""
        columns = np.searchsorted(known, self.words).clip(max=len(known) - 1)
        is_known = known[columns] == self.words
        ends = np.concatenate([[0], np.cumsum(is_known)])[self.ends]
        values = np.ones(int(ends[-1]))
        shape = (len(self.ends) - 1, len(known))
        return csr_array((values, columns[is_known], ends), shape=shape)


class _WordWeights:
    """The weight of each word of some texts: the rarer, the more."""

    def __init__(self, parts: Sequence[_WordNumbers]) -> None:
        words = np.concatenate([part.words for part in parts])
        words.sort()
        first = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))
        n_texts = sum(len(part.ends) - 1 for part in parts)
        self._words = words[first]
        self._counts = np.diff(first, append=len(words)).astype(np.int32)
        self._n_texts = n_texts

    def of(self, words: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weight of each word, all of which are in the texts."""
        counts = self._counts[np.searchsorted(self._words, words)]
        weights: NDArray[np.float64] = np.log((self._n_texts + 1) / (counts + 1))
        return weights


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    n_common = len(a & b)
    return n_common / (len(a) + len(b) - n_common)


class _ImageIndex:
    """Exact search for images whose thumbnails correlate above the threshold."""

    def __init__(self, images: Iterable[View]) -> None:
        self._thumbnails = thumbnails(images)

    def find(self, views: Iterable[View]) -> list[int]:
        """Return for each image the position of its nearest near duplicate, or -1."""
        return self.find_thumbnails(thumbnails(views))

    def find_thumbnails(self, wanted: NDArray[np.float32]) -> list[int]:
        """Return for each thumbnail the position of its nearest near duplicate, or -1."""
        best = np.full(len(wanted), _IMAGE_THRESHOLD, dtype=np.float32)
        nearest = np.full(len(wanted), -1)
        for start in range(0, len(self._thumbnails), _BLOCK):
            cosines = wanted @ self._thumbnails[start : start + _BLOCK].T
            at = cosines.argmax(axis=1)
            value = cosines[np.arange(len(wanted)), at]
            nearest = np.where(value >= best, start + at, nearest)
            best = np.maximum(best, value)
        return [int(position) for position in nearest]

    def pairs(self) -> NDArray[np.int64]:
        """Return all pairs of near duplicates, (p, 2) positions, the lower first."""
        blocks = []
        for start in range(0, len(self._thumbnails), _BLOCK):
            cosines = (
                self._thumbnails[: start + _BLOCK] @ self._thumbnails[start : start + _BLOCK].T
            )
            left, right = np.nonzero(cosines >= _IMAGE_THRESHOLD)
            blocks.append(np.stack((left, right + start), axis=1)[left < right + start])
        return np.concatenate(blocks)
