"""Datasets in several files: shards, splits, and the files of a folder."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from synque_select.data.examples import MapDataset
from synque_select.data.images import is_system_folder
from synque_select.data.label_sets import features_of
from synque_select.data.readers import is_data_file, name_without_suffix
from synque_select.errors import DataError, did_you_mean
from synque_select.utils.text_files import valid_name
from synque_select.utils.wording import counted, listed

__all__ = [
    "SPLIT_NAMES",
    "FileGroup",
    "JoinedDataset",
    "choose_split",
    "data_files",
    "file_groups",
    "folder_group",
    "is_description",
    "join",
]

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SPLIT_NAMES = frozenset(_SPLITS)
_SPLIT_NAME = re.compile(rf"({'|'.join(_SPLITS)})(?=$|[^a-z])", re.IGNORECASE)
_SHARD = re.compile(
    r"(?P<head>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(-[0-9a-f]{8,})?", re.IGNORECASE
)
# without a total, only names that writers of shards give, as Spark's part-00000-3f2a….c000
_NUMBERED = re.compile(
    rf"(?P<head>|part|shard|chunk|data|{'|'.join(_SPLITS)})[-_.]?(?P<number>0\d{{3,}})"
    r"([-.][-.0-9a-z]*)?",
    re.IGNORECASE,
)
_DESCRIPTIONS = frozenset(("dataset_dict.json", "dataset_info.json", "dataset_infos.json"))
_PER_SIDE = "For the real sample alone: real_split= (--real-split)"
_PLAIN_HEADS = frozenset(("", "part", "shard", "chunk", "data"))


class FileGroup(NamedTuple):
    """Files that are one dataset.

    Args:
        name: Name of the dataset.
        files: The files, in the order of their examples.
        notes: Sentences on what was left out or joined.
        has_splits: Whether the files belong to splits.
    """

    name: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    has_splits: bool = False


def choose_split(
    where: str, sizes: Mapping[str, str], split: str | None
) -> tuple[str, tuple[str, ...]]:
    """Choose the split of a dataset: the one that is asked for, else "train", else the only one.

    Args:
        where: The dataset, for messages.
        sizes: Name of each split to its size in words.
        split: The split that is asked for; None for the default.

    Returns:
        The name, and a note on what is left out, if anything is.

    Raises:
        DataError: The split is missing, or there are several and none is "train".

    Example:
        >>> choose_split("a", {"test": "5", "train": "9"}, None)
        ('train', ("the split 'train' is read; left out: test (5)",))
    """
    if split is not None and split not in sizes:
        raise DataError(f"{where}: no split {split!r}; {did_you_mean(split, sizes)}. {_PER_SIDE}")
    if split is None and len(sizes) > 1 and "train" not in sizes:
        raise DataError(
            f"{where}: has the splits {', '.join(sizes)}; give one with split= (--split). "
            f"{_PER_SIDE}"
        )
    used = split or ("train" if "train" in sizes else next(iter(sizes)))
    others = [f"{name} ({size})" for name, size in sizes.items() if name != used]
    notes = (f"the split {used!r} is read; left out: {listed(others, 8)}",) if others else ()
    return used, notes


def data_files(folder: Path) -> list[Path]:
    """Return the files of data in a folder and its sub-folders, without hidden ones.

    Files in which `datasets` describes the data are none of them.

    Args:
        folder: A folder.
    """
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if not (name.startswith(".") or is_system_folder(name))
        ]
        files += [
            Path(root, name)
            for name in names
            if not name.startswith(".") and is_data_file(Path(root, name))
        ]
    return sorted(file for file in files if not is_description(file))


def is_description(path: Path) -> bool:
    """Whether a file is one in which `datasets` describes the data beside it.

    Example:
        >>> is_description(Path("a/dataset_infos.json")), is_description(Path("a/train.json"))
        (True, False)
    """
    if path.name == "state.json":
        return path.with_name("dataset_info.json").is_file()
    return path.name in _DESCRIPTIONS


def folder_group(folder: Path, files: Sequence[Path], split: str | None) -> FileGroup:
    """Return the files of a folder as one dataset; of several splits, one is chosen.

    Splits are recognized by the names of all files, or of the folders that they are in.

    Args:
        folder: The folder.
        files: Its files.
        split: As for `choose_split`.

    Raises:
        DataError: As for `choose_split`; or a shard is missing.
    """
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_split[_split_of(file, folder)].append(file)
    name = valid_name(folder.resolve().name)
    if "" in by_split:
        return FileGroup(name, _complete(files), _joined(files))
    sizes = {key: counted(len(part), "file") for key, part in by_split.items()}
    used, notes = choose_split(str(folder), sizes, split)
    return FileGroup(name, _complete(by_split[used]), (*notes, *_joined(by_split[used])), True)


def file_groups(files: Sequence[Path], split: str | None) -> list[FileGroup]:
    """Group files so that the shards of one dataset are one group; other files are one group each.

    Args:
        files: Files of data.
        split: As for `choose_split`.

    Raises:
        DataError: As for `folder_group`.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in files:
        head = _head(file)
        groups.setdefault((file.parent, f"/{file.name}" if head is None else head), []).append(file)
    merged: dict[tuple[Path, str], list[Path]] = {}
    for (parent, head), part in groups.items():
        # train-… and test-… are splits of one dataset, which is named after its folder
        is_split = head.lower() in _SPLITS or head.lower() in _PLAIN_HEADS
        merged.setdefault((parent, "" if is_split else head), []).extend(part)
    return [_group(parent, head, part, split) for (parent, head), part in merged.items()]


def _group(parent: Path, head: str, files: Sequence[Path], split: str | None) -> FileGroup:
    if head.startswith("/"):
        return FileGroup(valid_name(name_without_suffix(files[0])), tuple(files))
    if head:
        return FileGroup(valid_name(head), _complete(files), _joined(files))
    group = folder_group(parent, files, split)
    inner = parent.resolve()
    while inner.name.lower() in {*_SPLITS, "data"} and inner.parent != inner:
        inner = inner.parent
    return group._replace(name=valid_name(inner.name or group.name))


def _head(file: Path) -> str | None:
    """Return what the names of the shards of a dataset begin with; None for another file."""
    stem = name_without_suffix(file)
    match = _SHARD.fullmatch(stem) or _NUMBERED.fullmatch(stem)
    return None if match is None else match["head"]


def _split_of(file: Path, folder: Path) -> str:
    """Return the split to which a file belongs by its name, or that of its folder; "" if none."""
    match = _SPLIT_NAME.match(name_without_suffix(file))
    if match is not None:
        return _SPLITS[match[1].lower()]
    parents = reversed(file.relative_to(folder).parts[:-1])
    return next((_SPLITS[part.lower()] for part in parents if part.lower() in _SPLITS), "")


def _complete(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files in the order of their numbers; check that these are all, each once."""
    shards: dict[tuple[Path, str, int], dict[int, Path]] = defaultdict(dict)
    stems: dict[Path, Path] = {}
    for file in files:
        same = stems.setdefault(file.parent / name_without_suffix(file), file)
        if same is not file:  # in two formats, or also compressed
            raise _twice(file.parent, same, file)
        match = _SHARD.fullmatch(name_without_suffix(file))
        if match is not None:
            numbered = shards[file.parent, match["head"], int(match["total"])]
            number = int(match["number"])
            if number in numbered:
                raise _twice(file.parent, numbered[number], file)
            numbered[number] = file
    totals: dict[tuple[Path, str], int] = {}
    for (folder, head, total), numbers in shards.items():
        other = totals.setdefault((folder, head), total)
        if other != total:
            one = shards[folder, head, other]
            raise _twice(folder, one[min(one)], numbers[min(numbers)])
        if len(numbers) < total:
            raise DataError(
                f"{folder}: {counted(total - len(numbers), 'file')} of {total} missing: there "
                f"{'is' if len(numbers) == 1 else 'are'} {head}-*-of-{total:05d} with the "
                f"{'number' if len(numbers) == 1 else 'numbers'} "
                f"{listed([str(number) for number in sorted(numbers)])}; download it again, or "
                "rename the files if they are all there is"
            )
    return tuple(sorted(files, key=_place))


def _twice(folder: Path, one: Path, other: Path) -> DataError:
    return DataError(
        f"{folder}: {valid_name(one.name)} and {valid_name(other.name)} look like two copies of "
        "one dataset, whose examples would count twice: remove one of them, or rename its files"
    )


def _place(file: Path) -> tuple[str, str, int, str]:
    """Sort shards by their numbers, of which not all writers pad the shorter ones with zeros."""
    match = _SHARD.fullmatch(name_without_suffix(file))
    if match is None:
        return (str(file.parent), file.name, 0, "")
    return (str(file.parent), match["head"], int(match["number"]), file.name)


def _joined(files: Sequence[Path]) -> tuple[str, ...]:
    if len(files) < 2:
        return ()
    names = listed([valid_name(file.name) for file in files])
    return (f"{counted(len(files), 'file')} are read as one dataset ({names})",)


def join(parts: Sequence[MapDataset]) -> MapDataset:
    """Return datasets one after another as one dataset.

    Args:
        parts: At least one dataset.
    """
    if len(parts) == 1:
        return parts[0]
    from datasets import Dataset, concatenate_datasets

    tables = [part for part in parts if isinstance(part, Dataset)]
    is_plain = len(tables) == len(parts) and all(t.format["type"] is None for t in tables)
    if is_plain and all(table.features == tables[0].features for table in tables):
        joined: MapDataset = concatenate_datasets(tables)
        return joined
    return JoinedDataset(parts)


class JoinedDataset:
    """Datasets one after another, each with fields and types of its own.

    Args:
        parts: The datasets.

    Example:
        >>> JoinedDataset([["x", "y"], ["z"]])[2]
        'z'
    """

    def __init__(self, parts: Sequence[MapDataset]) -> None:
        self._parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in parts))

    @property
    def column_names(self) -> list[str]:
        """The fields that all parts have."""
        names = [getattr(part, "column_names", ()) for part in self._parts]
        return [name for name in names[0] if all(name in other for other in names)]

    @property
    def features(self) -> object:
        """The types of the fields, if all parts agree on them."""
        kinds = [features_of(part) for part in self._parts]
        return kinds[0] if all(kind == kinds[0] for kind in kinds) else None

    def select_columns(self, names: list[str]) -> JoinedDataset:
        """Return the dataset with these fields alone."""
        parts: list[Any] = list(self._parts)
        return JoinedDataset([part.select_columns(names) for part in parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._columns(*index.indices(len(self)))
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = bisect_right(self._ends, index)
        return self._parts[place][index - (self._ends[place - 1] if place else 0)]

    def _columns(self, begin: int, end: int, step: int) -> dict[str, list[object]]:
        """Return the fields of several examples, as `datasets.Dataset` does."""
        rows = [self[index] for index in range(begin, end, step)]
        return {name: [row[name] for row in rows] for name in self.column_names}
