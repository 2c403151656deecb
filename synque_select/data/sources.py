"""Candidates and the real sample from files, folders, the Hub, datasets and lists of records."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast

from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.compressed import inner_name, is_compressed, left_out_of_zip, open_data
from synque_select.data.csv_reader import count_blank_rows
from synque_select.data.digest_cache import keep_digests, large_file_state
from synque_select.data.examples import Examples, MapDataset
from synque_select.data.families import FamilySpec, candidate_families
from synque_select.data.frames import dataset_of_frame, is_frame
from synque_select.data.groups import GroupSelector
from synque_select.data.hub_datasets import HubId, hub_commit, hub_id, load_hub
from synque_select.data.images import (
    IMAGE_SUFFIXES,
    ImageFolder,
    has_images,
    holds_images,
    subfolders,
)
from synque_select.data.iterables import is_iterable, open_stored, store_iterable
from synque_select.data.population import ReservoirOptions
from synque_select.data.readers import (
    READERS,
    is_data_file,
    name_without_suffix,
    read_file,
    reader_key,
    reader_suffixes,
    split_reader,
)
from synque_select.data.reservoir import drawn_candidate, streamed_candidate
from synque_select.data.selectors import text_fields
from synque_select.data.shards import (
    SPLIT_NAMES,
    FileGroup,
    choose_split,
    data_files,
    file_groups,
    folder_group,
    is_description,
    join,
)
from synque_select.data.tables import open_saved, unnamed_files
from synque_select.data.tar_reader import TarImages
from synque_select.data.views import Selector
from synque_select.errors import ConfigError, DataError
from synque_select.utils.file_state import FileState, settled_state
from synque_select.utils.text_files import check_regular, valid_name
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted, listed, one_line

_SHOWN = 200

__all__ = ["load_candidates", "load_dataset_file", "load_real", "replace_iterables"]

_PathLike: TypeAlias = str | os.PathLike[str]
_Kind = TypeVar("_Kind", bound=Examples)

_REAL = "real"
_MAX_PATH = 4096
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:[^/@]*@)?(?P<host>[^/?#]{0,100})")


class _Source(NamedTuple):
    """A dataset before it has become a candidate or a real sample."""

    name: str
    dataset: MapDataset
    source: str = ""
    view: Selector | None = None
    label: Selector | None = None
    given: Examples | None = None
    state: FileState | None = None
    notes: tuple[str, ...] = ()
    path: Path | None = None
    is_named: bool = False
    has_splits: bool = False
    identity: tuple[object, ...] = ()  # with a reservoir: what tells whether the data has changed


def load_candidates(
    source: Any,
    *,
    view: Selector | None = None,
    label: Selector | None = None,
    names: Sequence[str] | None = None,
    family: FamilySpec | None = None,
    split: str | None = None,
    reservoir: int | None = None,
    seed: int = 0,
) -> list[Candidate]:
    """Load candidate synthetic datasets.

    Args:
        source: One of

            - a file (JSON, JSONL, CSV, TSV, Parquet, Arrow, a WebDataset tar of images), also
              "name=path": one candidate, named after the file, or after the folders where files
              have one name;
            - a glob: one candidate for each file or folder that it matches, or for the shards of
              one dataset (`train-00000-of-00002.parquet`);
            - a folder: one candidate for each data file or sub-folder in it; a folder that itself
              holds images or shards, or was written by `save_to_disk`, is one candidate;
            - a Hub dataset ("owner/name", unless a path of that name exists, or
              "hub:owner/name:config@revision#split");
            - a dataset with a length and integer indexing (`datasets.Dataset`, a torch Dataset);
            - a DataFrame of pandas or polars, or another table that exports Arrow data;
            - a finite iterable dataset or generator, such as a streamed one: it is read to its end
              and stored in the cache under a hash of its content; from then on it is map-style
              (lists stay lists);
            - a list of these; in a list, a folder with one sub-folder per class is one candidate;
            - a mapping from name to a file, a folder, a glob or a list of paths, which are read
              one after another, to a dataset, a `DatasetDict` or a list of records.
        view: A field name, a position in a tuple, a function of the example, or a text such as
            "chat:user", "premise+hypothesis" or "turns.0.text" (see
            `synque_select.data.selectors.find_selector`). None for the only text or image of the
            first example, or the view of its format, which a message says. A `Candidate` that was
            made with a view, or a label, keeps it.
        label: Field, position or function that gives the label; None for no label or, in image
            folders with classes, for the name of the class folder.
        names: One name per candidate, instead of those derived from the source.
        family: Which candidates come from the same generator and so do not judge each other's
            labels: a regular expression, whose first group (or whole match) in a candidate's name
            is its family, or a mapping from names to families.
        split: The split of datasets that have several; None for "train". Other sources are read
            whole.
        reservoir: Number of examples that are drawn at random from each larger candidate, for
            proxies to score; None for all. One pass over all examples counts them, their n-grams
            and their labels. Iterables may then have any length and are not stored, and Hub
            datasets are streamed. Training still draws from all examples.
        seed: Random seed for the reservoir, not negative.

    Returns:
        The candidates, in the order given; those from a glob or a folder are sorted by name.

    Raises:
        DataError: A file, line, field or example is not usable; the message names it.
        ConfigError: Two candidates have the same name, the number of names does not match,
            candidates are of different modalities, `family` matches none of them, a split is
            asked for and no source has any, or `reservoir` is below 100.

    Example:
        >>> a, b = load_candidates({"a": ["x", "y"], "b": [{"text": "z"}, {"text": "w"}]})
        >>> a.views[1], b.views[0]
        ('y', 'z')
    """
    drawn = ReservoirOptions.of(reservoir, seed)
    with _permission_said():
        how = _How(text_fields(view), split, drawn is not None)
        sources = list(_candidate_sources(source, how))
    if split is not None and not any(part.has_splits for part in sources):
        raise ConfigError(
            f"split={split!r}: no candidate has splits; leave it out, or give real_split= "
            "(--real-split) if it is a split of the real sample"
        )
    if names is not None:
        sources = _renamed(sources, names)
    sources = _distinct(sources)
    candidates = [_candidate(part, view, label, drawn) for part in sources]
    _check_one_modality(candidates)
    if family is None:
        return candidates
    families = candidate_families([candidate.name for candidate in candidates], family)
    grouped = [replace(candidate, family=families[candidate.name]) for candidate in candidates]
    return [
        candidate if candidate.population is not None else keep_digests(candidate, part.state)
        for candidate, part in zip(grouped, sources, strict=True)
    ]


def load_real(
    source: Any,
    *,
    view: Selector | None = None,
    real_groups: GroupSelector | None = None,
    split: str | None = None,
    real_split: str | None = None,
) -> RealSample:
    """Load the real sample; its labels are never read.

    Args:
        source: A file, a folder of images, a saved dataset, a Hub dataset id, a glob that matches
            one of these, a table, a dataset, a list of records or of texts, or a `RealSample`.
        view: As for `load_candidates`; a `RealSample` that was made with a view keeps it.
        real_groups: What examples share that do not vary independently, such as a thread, author,
            session or page: a field name, a position, or a function of an example. Intervals and
            comparisons then count groups, not examples. None groups exact and near duplicates
            (or keeps the groups of a `RealSample`); False if all examples are independent.
        split: The split of a dataset that has several; None for "train". A source without splits
            is read whole.
        real_split: As `split`, before which it goes; the source must have splits.

    Raises:
        DataError: A file, line, field or example is not usable; the message names it.
        ConfigError: The source is a mapping, or matches more than one file or folder; it has no
            splits and `real_split` is given; or `real_groups` selects the view or the label, or has
            a wrong type.

    Example:
        >>> load_real(["Shares rise", "Shares fall"]).views[0]
        'Shares rise'
    """
    if isinstance(source, RealSample) and view is real_groups is real_split is None:
        return source
    if isinstance(source, Mapping) and not _are_splits(source):
        raise ConfigError("real: found a mapping; allowed is one file, dataset or list of records")
    if _is_list(source) and len(source) == 1 and isinstance(source[0], str | os.PathLike):
        source = source[0]
    with _permission_said():
        part = _one_source(source, _REAL, _How(text_fields(view), real_split or split))
    if real_split is not None and not part.has_splits:
        raise ConfigError(f"real_split={real_split!r}: the real sample has no splits; leave it out")
    real = _build(RealSample, part, view, None)
    if real_groups is None and isinstance(source, RealSample):
        real_groups = source.group_by
    if real_groups is None:
        return real
    return keep_digests(replace(real, group_by=real_groups), part.state)


def load_dataset_file(path: _PathLike) -> MapDataset:
    """Read one file or folder as a map-style dataset.

    A large table is converted once into the cache and memory-mapped from there. The fields
    are "text" for a list of texts, "key" and "text" for an object with texts as its values, and
    "image" for a folder of images, with "label" (the sub-folder's name) if there is one sub-folder
    per class. In a field with values of several types, every value stays as it is in the file.

    Args:
        path: A JSON, JSONL, CSV, TSV, Parquet or Arrow file (IPC file or stream), a folder that
            `Dataset.save_to_disk` wrote, or a folder of images.

    Raises:
        DataError: The file is missing, empty, broken or of an unknown kind; the message names the
            file and, for JSON, JSONL and CSV, the line.

    Example:
        >>> import json, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "tasks.json")
        ...     _ = path.write_text(json.dumps({"7": "Find a recipe.", "9": "Find a song."}))
        ...     load_dataset_file(path)[1]
        {'key': '9', 'text': 'Find a song.'}
    """
    with _permission_said():
        reader, text = split_reader(os.path.expanduser(os.fspath(path)))
        return _read(_existing(text), _How(frozenset(), None), reader).dataset


def replace_iterables(source: Any, replace: Callable[[str, Any], Any]) -> Any:
    """Return a source of candidates or of one dataset with each iterable in it replaced.

    Args:
        source: As for `load_candidates`.
        replace: Function of a name, for messages, and the iterable.
    """

    def one(name: str, value: Any) -> Any:
        return replace(name, value) if is_iterable(value) else value

    if isinstance(source, Mapping):
        return {name: one(name, value) for name, value in source.items()}
    if _is_list(source):
        return [one(f"candidate_{number}", item) for number, item in enumerate(source, 1)]
    return one("candidate_1", source)


@contextmanager
def _permission_said() -> Iterator[None]:
    """Turn a PermissionError into a DataError that names the file or folder."""
    try:
        yield
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read it") from error


class _How(NamedTuple):
    """How files are read: which fields stay texts, which split is chosen, what may be a stream."""

    as_text: frozenset[str]
    split: str | None
    streams: bool = False


def _candidate_sources(source: Any, how: _How) -> Iterator[_Source]:
    if _is_list(source) and len(source) == 1 and not _are_splits(source[0]):
        source = source[0]
    if isinstance(source, Mapping):
        for name, value in source.items():
            name = _name(name)
            yield _one_source(value, name, how)._replace(name=name, is_named=True)
    elif isinstance(source, str | os.PathLike):
        yield from _path_sources(source, how, alone=True)
    elif _is_list(source):
        if not source:
            raise ConfigError("candidates: found an empty list; allowed is at least one candidate")
        for number, item in enumerate(source, 1):
            yield from _item_sources(item, f"candidate_{number}", how)
    else:
        yield _one_source(source, "candidate_1", how)


def _item_sources(item: Any, name: str, how: _How) -> Iterator[_Source]:
    if isinstance(item, str | os.PathLike):
        yield from _path_sources(item, how, alone=False)
    elif (isinstance(item, Mapping) and not _are_splits(item)) or _is_list(item):
        raise ConfigError(
            f"candidates: found a {type(item).__name__} inside the list; a list of records is one "
            "candidate: give it a name, as in {'a': [records of a], 'b': 'b.json'}"
        )
    else:
        yield _one_source(item, name, how)


def _path_sources(path: _PathLike, how: _How, *, alone: bool) -> Iterator[_Source]:
    text = os.path.expanduser(os.fspath(path))
    name, named = _split_name(text)
    if name is not None:
        yield _one_source(named, name, how)._replace(name=name, is_named=True)
        return
    on_hub = hub_id(text)
    if on_hub is not None:
        yield _from_hub(on_hub, how)
        return
    reader, text = split_reader(text)
    matches = _matches(text)
    if reader is not None:
        yield from (_read(match, how, reader) for match in matches)
        return
    if len(matches) > 1:  # what a glob matches is one candidate each, and shards are one together
        yield from _grouped(matches, how)
        return
    parts, notes = _parts(matches[0], alone=alone)
    for source in _grouped(parts, how):
        yield source._replace(notes=source.notes + notes)
        notes = ()  # what is left out of the folder is said once


def _split_name(text: str) -> tuple[str | None, str]:
    """Split "name=path" into its parts; the name is None if it is not given."""
    name, equals, rest = text.partition("=")
    is_name = bool(equals and rest and name.strip()) and not os.path.lexists(text)
    if not is_name or re.search(r"[/\\:*?\[]", name):
        return None, text
    return name.strip(), os.path.expanduser(rest.strip())


def _grouped(parts: Sequence[Path], how: _How) -> Iterator[_Source]:
    """Read files and folders, of which the shards of one dataset are one candidate."""
    groups = {
        group.files[0]: group
        for group in file_groups([part for part in parts if not part.is_dir()], how.split)
    }
    for part in parts:
        if part.is_dir():
            yield _read(part, how)
        elif part in groups:
            yield _read_group(groups[part], part.parent, how)


def _read_group(group: FileGroup, where: Path, how: _How) -> _Source:
    sources = [_read(file, how) for file in group.files]
    if len(sources) == 1:
        (source,) = sources
        notes = source.notes + group.notes
        return source._replace(name=group.name, notes=notes, has_splits=group.has_splits)
    return _Source(
        group.name,
        join([source.dataset for source in sources]),
        _source_of(group, where),
        sources[0].view,
        sources[0].label,
        notes=(*(note for source in sources for note in source.notes), *group.notes),
        path=group.files[0],
        has_splits=group.has_splits,
        identity=_identities(sources),
    )


def _source_of(group: FileGroup, where: Path) -> str:
    """Return the folder of a group, or a glob that matches its files alone, to load it again."""
    if {*group.files} == {*data_files(where)}:
        return str(where)
    # of characters, not of folders
    begin = os.path.commonprefix([str(file) for file in group.files])  # noqa: RUF071
    pattern = f"{glob.escape(begin)}*{group.files[0].suffix}"
    return pattern if {*glob.glob(pattern)} == {*map(str, group.files)} else str(where)


def _one_source(source: Any, name: str, how: _How) -> _Source:
    """Resolve a source that must be a single dataset."""
    if isinstance(source, Examples):
        return _Source(
            source.name, source.dataset, source.source, source.view, source.label, source
        )
    if isinstance(source, str | os.PathLike):
        return _one_path(source, name, how)
    if _are_splits(source):
        chosen = _chosen(name, source, how)
        stored = _one_source(chosen.dataset, name, how)  # a split may be streamed
        return stored._replace(notes=chosen.notes, has_splits=True)
    if is_frame(source):
        return _Source(name, dataset_of_frame(name, source))
    if _are_paths(source):
        _check_paths_differ(name, source)
        sources = [_one_path(path, name, how) for path in source]
        return _joined(name, sources)
    if is_iterable(source) and not how.streams:
        source = open_stored(store_iterable(name, source))
    return _Source(name, cast(MapDataset, source))


def _one_path(path: _PathLike, name: str, how: _How) -> _Source:
    text = os.path.expanduser(os.fspath(path))
    on_hub = hub_id(text)
    if on_hub is not None:
        return _from_hub(on_hub, how)
    reader, text = split_reader(text)
    matches = _matches(text)
    if len(matches) == 1:
        return _read(matches[0], how, reader)
    sources = list(_grouped(matches, how))
    if len(sources) > 1 and name == _REAL:
        raise ConfigError(
            f"{name}: {path} matches {len(matches)} ({matches[0]}, {matches[1]}, …); "
            "allowed is one, or the shards of one"
        )
    return _joined(name, sources)


def _joined(name: str, sources: Sequence[_Source]) -> _Source:
    """Return several sources one after another as one."""
    if len(sources) == 1:
        return sources[0]
    if any(is_iterable(source.dataset) for source in sources):
        raise ConfigError(
            f"{name}: datasets that are streamed cannot be joined: give each as a candidate, or "
            "leave reservoir (--reservoir) out"
        )
    shown = listed([source.source or source.name for source in sources])
    note = f"{counted(len(sources), 'part')} are read as one dataset ({shown})"
    return _Source(
        name,
        join([source.dataset for source in sources]),
        sources[0].source,
        sources[0].view,
        sources[0].label,
        notes=(*(note for source in sources for note in source.notes), note),
        identity=_identities(sources),
    )


def _identities(sources: Sequence[_Source]) -> tuple[object, ...]:
    """Return what tells whether the data of any source has changed; () if nothing does for one."""
    parts = tuple(source.identity for source in sources)
    return parts if all(parts) else ()


def _are_splits(source: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a source is a DatasetDict or an IterableDatasetDict."""
    datasets = sys.modules.get("datasets")  # not imported: such an object exists only if it was
    kinds = () if datasets is None else (datasets.DatasetDict, datasets.IterableDatasetDict)
    return isinstance(source, kinds)


def _size(part: object) -> str:
    return f"{len(part):,}" if isinstance(part, Sized) else "streamed"


def _are_paths(source: object) -> TypeGuard[Sequence[_PathLike]]:
    """Whether a list holds paths of files, rather than texts; a file may be missing."""
    if not isinstance(source, list | tuple) or not source:
        return False
    return all(
        isinstance(item, os.PathLike) or (isinstance(item, str) and _is_path(item))
        for item in source
    )


def _is_path(text: str) -> bool:
    if len(text) >= _MAX_PATH or "\0" in text:
        return False
    # of a missing file and of a glob, the suffix tells it from a text
    is_name = text.isprintable() and text == text.strip() and reader_key(Path(text)) is not None
    return is_name or os.path.lexists(os.path.expanduser(text))


def _check_paths_differ(name: str, paths: Sequence[_PathLike]) -> None:
    places = Counter(os.path.realpath(os.path.expanduser(path)) for path in paths)
    for place, count in places.items():
        if count > 1:
            raise ConfigError(
                f"{name}: {valid_name(place)} is given more than once, so that its examples would "
                "count more than once; give it once"
            )


def _check_no_url(text: str) -> None:
    url = _URL.match(text)
    if url is not None and not os.path.lexists(text):
        # the rest may hold a password or a signature
        raise DataError(
            f"{url['scheme']}://{url['host']}/…: a URL, which is not read; download the file, or "
            "give a dataset of the Hub as hub:OWNER/NAME"
        )


def _matches(text: str) -> list[Path]:
    _check_no_url(text)
    if os.path.lexists(text) or not glob.has_magic(text):
        return [_existing(text)]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    if not matches:
        fixed = Path(*[part for part in _until_magic(Path(text).parts)])
        shown = one_line(text, _SHOWN)
        raise DataError(f"{shown}: no file or folder matches; {_contents(fixed)}")
    return matches


def _until_magic(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _existing(path: _PathLike) -> Path:
    _check_no_url(os.fspath(path))
    expanded = Path(os.path.expanduser(os.fspath(path)))
    # not Path.exists, which raises if a name is too long, as a text in the place of a path is
    is_there = os.path.exists(expanded)
    if os.path.islink(expanded) and not is_there:
        raise DataError(f"{expanded}: a link to {os.readlink(expanded)}, which does not exist")
    if not is_there:
        shown = one_line(str(expanded), _SHOWN)
        inside = _contents(expanded.parent)
        if _has_other_form(expanded):
            inside += "; its name has another form of Unicode there: rename it, or give a glob"
        raise DataError(f"{shown}: no such file or folder; {inside}")
    return expanded


def _has_other_form(path: Path) -> bool:
    """Whether the folder of a missing file holds one whose name looks the same."""
    is_folder = not path.name.isascii() and os.path.isdir(path.parent)
    name = normalized(path.name)
    return is_folder and any(normalized(other) == name for other in os.listdir(path.parent))


def _contents(folder: Path) -> str:
    if not os.path.isdir(folder):
        return f"nor is there a folder {one_line(str(folder), _SHOWN)}"
    names = sorted(os.listdir(folder))
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{folder} holds {shown or 'nothing'}"


def _parts(path: Path, *, alone: bool) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files and folders of the candidates in a path, and what is left out.

    A folder with one sub-folder per class looks like one with one sub-folder per candidate. Given
    alone, it is read as the latter; in a list, as the former.
    """
    if not path.is_dir() or _is_saved(path) or holds_images(path):
        if path.is_dir() and not _is_saved(path):
            _check_images_alone(path)
        return [path], ()
    children = list(path.iterdir())
    folders = [folder for folder in subfolders(path) if not _is_around(folder, path)]
    data = [child for child in children if not child.is_dir() and is_data_file(child)]
    files = [c for c in data if not (c.name.startswith(".") or is_description(c))]
    if not files and not alone and any(has_images(folder) for folder in folders):
        return [path], ()
    if not files and _are_split_folders(folders):
        return [path], ()
    parts = sorted(files + folders)
    if not parts:
        raise DataError(
            f"{path}: no candidate in it; allowed are sub-folders, images and files of "
            f"{', '.join(reader_suffixes())}; {_contents(path)}"
        )
    # of hidden files, those with data are counted; .DS_Store and the like are not
    rest = {*children} - {*parts}
    seen = (c for c in rest if not c.name.startswith(".") or c in data or c.is_dir())
    # of a long list the first names are shown: those that may hold a candidate come first
    others = [valid_name(child.name) for child in sorted(seen, key=_by_interest)]
    shown = f"{counted(len(others), 'other file or folder', 'other files and folders')}"
    note = f"the folder {path} has {counted(len(parts), 'candidate')}; left out: {shown} "
    note += f"({listed(others, 8)})"
    return parts, (note,) if others else ()


def _by_interest(path: Path) -> tuple[bool, Path]:
    is_packed = is_compressed(path) or path.suffix.lower() in (".7z", ".rar", ".tgz")
    return not is_packed or path.name.startswith("."), path


def _are_split_folders(folders: Sequence[Path]) -> bool:
    """Whether folders hold the splits of one dataset, or its data, rather than candidates."""
    names = {folder.name.lower() for folder in folders}
    return bool(names) and names <= {*SPLIT_NAMES, "data"} and not any(map(has_images, folders))


def _check_images_alone(path: Path) -> None:
    """Refuse a folder with images and files of data: it may be one candidate or several."""
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    data = [child.name for child in children if child.is_file() and reader_key(child) is not None]
    # beside images, one table describes them, as metadata.csv does
    if len(data) > 1:
        images = [child.name for child in children if child.suffix.lower() in IMAGE_SUFFIXES]
        raise DataError(
            f"{path}: holds {counted(len(data), 'file of data', 'files of data')} "
            f"({listed(data)}) and {counted(len(images), 'image')} ({listed(images)}); allowed is "
            "one kind: move the others to another folder, or give a glob such as "
            f"{path / ('*' + Path(data[0]).suffix)}"
        )


def _is_around(folder: Path, path: Path) -> bool:
    """Whether a folder in a path is a link to the path itself, or to a folder around it."""
    return path.resolve().is_relative_to(folder.resolve())


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _read(path: Path, how: _How, reader: str | None = None) -> _Source:
    """Read a file or a folder as one dataset."""
    if reader is not None or not path.is_dir():
        check_regular(_existing(path))
        return _from_file(path, how, reader)
    name = valid_name(path.resolve().name)
    if _is_saved(path):
        saved = _chosen(str(path), open_saved(path), how)
        inner = path / how.split if saved.has_splits and how.split else path
        unnamed = unnamed_files(path)
        shown = f"{counted(len(unnamed), 'file')} that state.json does not name"
        notes = (f"left out: {shown} ({listed(unnamed, 8)})",) if unnamed else ()
        return saved._replace(name=name, source=str(inner), path=path, notes=saved.notes + notes)
    files = [] if has_images(path) else data_files(path)
    if files:
        source = _read_group(folder_group(path, files, how.split), path, how)
        about = sorted({file.name for file in path.rglob("*.json") if is_description(file)})
        notes = (f"left out: {listed(about)} (about the data)",) if about else ()
        return source._replace(notes=source.notes + notes)
    images = ImageFolder(path)
    label = "label" if images.classes else None
    notes = (images.left_out,) if images.left_out else ()
    return _Source(name, images, str(path), "image", label, notes=notes, path=path)


def _from_hub(name: HubId, how: _How) -> _Source:
    # a slice of a split, such as "train[:200]", cannot be streamed, and nothing without the Hub
    commit = hub_commit(name) if how.streams and "[" not in (name.split or "") else None
    streams = commit is not None
    loaded = _chosen(name.source, load_hub(name, streaming=streams), how)
    end = f"#{how.split}" if loaded.has_splits and how.split else ""
    source = name.source + end
    identity = () if commit is None else (source, commit)
    return loaded._replace(name=name.name, source=source, identity=identity)


def _chosen(where: str, loaded: Any, how: _How) -> _Source:
    """Return a dataset, or the chosen split of one that has splits."""
    if not _are_splits(loaded):
        return _Source(where, loaded)
    sizes = {name: _size(part) for name, part in loaded.items()}
    used, notes = choose_split(where, sizes, how.split)
    return _Source(where, loaded[used], notes=notes, has_splits=True)


def _from_file(path: Path, how: _How, reader: str | None) -> _Source:
    key = reader or reader_key(path)
    if key is None and path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path}: one image; allowed is the folder of images, {path.parent}")
    if key is None:
        suffix, packed = path.suffix, ""
        if is_compressed(path):
            open_data(path).close()  # a .zip of several files says so
            suffix, packed = Path(inner_name(path)).suffix, " of the file in it"
        raise DataError(
            f"{path}: the suffix {suffix!r}{packed} is not known; allowed are "
            f"{', '.join(reader_suffixes())}, each also compressed, and folders"
        )
    # a reader of the user's own may have changed while the file has not
    state = large_file_state(path) if READERS.is_built_in(key) else None
    identity: tuple[object, ...] = ()
    if how.streams and READERS.is_built_in(key):
        identity = (str(path.resolve()), settled_state(path), sorted(how.as_text))
    dataset = read_file(path, key, how.as_text)
    # a list of texts has "text", an object of texts "key" and "text": one field is the view
    columns: object = getattr(dataset, "column_names", None)
    return _Source(
        name=valid_name(name_without_suffix(path)),
        dataset=dataset,
        source=str(path) if reader is None else f"{reader}:{path}",
        view="text" if columns in (["text"], ["key", "text"]) else None,
        label="label" if getattr(dataset, "classes", ()) else None,
        state=state,
        notes=_left_out(path, key, columns, dataset),
        path=path,
        identity=identity,
    )


def _left_out(path: Path, key: str, columns: object, dataset: object) -> tuple[str, ...]:
    """Return notes on what of a file was not read."""
    notes = [dataset.left_out] if isinstance(dataset, TarImages) and dataset.left_out else []
    if path.suffix.lower() == ".zip" and READERS.is_built_in(key):
        names = left_out_of_zip(path)
        if names:
            shown = f"{counted(len(names), 'hidden or system file')} ({listed(names, 8)})"
            notes.append(f"left out of the .zip: {shown}")
    if READERS.is_built_in(key) and key in ("csv", "tsv") and isinstance(columns, list):
        # in a table of one column, a blank line may have been meant as an empty text
        n_blank = count_blank_rows(path, "\t" if key == "tsv" else ",") if len(columns) == 1 else 0
        if n_blank:
            notes.append(f'left out: {counted(n_blank, "blank line")}; an empty text is written ""')
    return tuple(notes)


def _is_list(source: Any) -> bool:
    return isinstance(source, list | tuple)


def _renamed(sources: list[_Source], names: Sequence[str]) -> list[_Source]:
    if isinstance(names, str) or len(names) != len(sources):
        raise ConfigError(
            f"names: found {names!r}; allowed is one name for each of the "
            f"{counted(len(sources), 'candidate')}"
        )
    return [
        part._replace(name=_name(name), is_named=True)
        for part, name in zip(sources, names, strict=True)
    ]


def _name(name: object) -> str:
    """Return the name that a user gave to a candidate; YAML reads 1 as a number."""
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ConfigError(f"candidates: found {name!r} as a name; allowed is a text")
    return str(name)


def _distinct(sources: list[_Source]) -> list[_Source]:
    """Name files of one name by the folders that they are in; refuse names that stay the same.

    Names that differ in their Unicode form only, as those of files from macOS do, are one name.
    """
    written = [part.name for part in sources]
    sources = [part._replace(name=normalized(part.name)) for part in sources]
    counts = Counter(part.name for part in sources)
    for name in (name for name, count in counts.items() if count > 1):
        same = [part for part in sources if part.name == name]
        paths = [part.path for part in same if part.path is not None and not part.is_named]
        taken = {part.name for part in sources} - {name}
        new = _names_by_folder(paths) if len(paths) == len(same) else None
        if new is None or not taken.isdisjoint(new.values()):
            where = [part.source or "a dataset" for part in same]
            texts = {*where, *(text for text in written if normalized(text) == name)}
            in_forms = len({*map(normalized, texts)}) < len(texts)
            raise ConfigError(
                f"candidates: {counts[name]} are named {name!r} ({', '.join(where)})"
                f"{', in several forms of Unicode' if in_forms else ''}; names must differ: "
                "rename a file, or give names as in a=PATH; in Python, a mapping from name to "
                "file, or names="
            )
        sources = [
            part._replace(name=new[part.path]) if part.path in new else part for part in sources
        ]
    return sources


def _names_by_folder(paths: Sequence[Path]) -> dict[Path | None, str] | None:
    """Return a name for each path: that of the nearest folders that all differ; None without."""
    parts = [Path(normalized(os.path.abspath(path))).parts for path in paths]
    depth = max(map(len, parts))
    for level in range(1, depth):
        names = [part[-1 - level] if len(part) > level else "" for part in parts]
        if len({*names}) == len(paths) and all(name.strip(os.sep) for name in names):
            return {path: valid_name(name) for path, name in zip(paths, names, strict=True)}
    whole = [part[-1] for part in parts]  # one stem with several suffixes
    if len({*whole}) == len(paths):
        return {path: valid_name(name) for path, name in zip(paths, whole, strict=True)}
    return None


def _check_one_modality(candidates: list[Candidate]) -> None:
    by_modality = {candidate.modality: candidate for candidate in candidates}
    if len(by_modality) > 1:
        raise ConfigError(
            f"candidates: texts and images are mixed: the view of {by_modality['text'].where} is "
            f"a text, that of {by_modality['image'].where} an image"
        )


def _candidate(
    part: _Source,
    view: Selector | None,
    label: Selector | None,
    drawn: ReservoirOptions | None,
) -> Candidate:
    identity = part.identity or None
    if drawn is not None and is_iterable(part.dataset):
        return streamed_candidate(
            part.name,
            part.dataset,
            drawn,
            view=part.view if view is None else view,
            label=part.label if label is None else label,
            source=part.source,
            identity=identity,
            notes=part.notes,
        )
    built = _build(Candidate, part, view, label)
    if drawn is None or built.population is not None:
        return built
    return drawn_candidate(built, drawn, identity)


def _build(
    kind: type[_Kind], part: _Source, view: Selector | None, label: Selector | None
) -> _Kind:
    # the view and the label that an object was made with are its own
    own = part.given is not None
    view = part.view if view is None or (own and part.view is not None) else view
    label = part.label if label is None or (own and part.label is not None) else label
    given = part.given
    if isinstance(given, kind) and (given.view, given.label) == (view, label):
        # as it is, with the digests that it may have computed
        return given if given.name == part.name else replace(given, name=part.name)
    if isinstance(given, kind) and isinstance(given, Candidate) and given.population is not None:
        raise ConfigError(
            f"{given.where}: its examples were drawn with view={given.view!r} and "
            f"label={given.label!r}, and other ones are asked for: load it with those"
        )
    built = kind(
        name=part.name,
        dataset=part.dataset,
        view=view,
        label=label,
        source=part.source,
        notes=part.notes if given is None else given.notes,
    )
    return keep_digests(built, part.state)
