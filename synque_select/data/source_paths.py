"""Sources of datasets as absolute paths, and where data that was read once is now."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from synque_select.data.readers import split_reader

__all__ = ["absolute_source", "find_source", "places_of_sources"]

_HUB = "hub:"


def absolute_source(source: str, folder: str | os.PathLike[str] = "") -> str:
    """Return a source with an absolute path.

    Args:
        source: Source of a dataset: a path, a glob, either after the key of a reader and a colon,
            a dataset of the Hub, or "" for an object in memory. The last two stay as they are.
        folder: Folder that a relative path starts from; "" for the working directory.

    Example:
        >>> absolute_source("data/a.json", "/home/ada"), absolute_source("hub:ada/texts")
        ('/home/ada/data/a.json', 'hub:ada/texts')
    """
    if not source or source.startswith(_HUB):
        return source
    reader, path = split_reader(source)
    path = os.path.abspath(os.path.join(folder, path))
    return path if reader is None else f"{reader}:{path}"


def find_source(source: str, folders: Iterable[str | os.PathLike[str]]) -> str | None:
    """Return a source with the path that is there; None if there is none.

    Args:
        source: As for `absolute_source`.
        folders: Folders from which a relative path may start, the most likely one first.
    """
    if source.startswith(_HUB):
        return source
    for folder in folders:
        full = absolute_source(source, folder)
        path = split_reader(full)[1]
        if os.path.exists(path) or (glob.has_magic(path) and glob.glob(path)):
            return full
    return None


def places_of_sources(working_dir: str, file: str | os.PathLike[str] | None) -> list[str]:
    """Return the folders from which the relative sources in a file may start.

    They are the directory in which the file was made, the working directory, and, in case the
    project was moved, the folder of the file and those around it.

    Args:
        working_dir: The directory in which the file was made; "" if it is unknown.
        file: The file; None for what is in memory only.
    """
    around = [] if file is None else [str(folder) for folder in Path(file).absolute().parents]
    return list(dict.fromkeys([*([working_dir] if working_dir else []), os.getcwd(), *around]))
