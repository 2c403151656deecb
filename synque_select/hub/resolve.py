"""Where a model's files are: a local folder, a package, or the model hub at a fixed commit."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from synque_select.errors import ConfigError, EncoderError
from synque_select.hub.packaged import PackagedModel, file_sha256, find_packaged, packaged_help

__all__ = ["ModelFiles", "content_revision", "find_on_hub", "resolve_model", "split_revision"]

_MARKERS = ("modules.json", "config.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelFiles:
    """What to load, and the revision that says exactly what it is.

    Args:
        location: A local folder, or a hub id.
        commit: The hub's commit; None for a local folder.
        revision: For records and cache keys: it changes when any weight changes.
        packaged: The package that ships it, if that is where it comes from.
    """

    location: str
    commit: str | None
    revision: str
    packaged: PackagedModel | None = None


def split_revision(spec: str) -> tuple[str, str | None]:
    """Split "id@revision"; a path that exists is taken as it is.

    Example:
        >>> split_revision("BAAI/bge-small-en-v1.5@main")
        ('BAAI/bge-small-en-v1.5', 'main')
    """
    name, at, revision = spec.rpartition("@")
    if not at or not name or Path(spec).exists():
        return spec, None
    return name, revision


def resolve_model(
    model_id: str, revision: str | None = None, *, role: str = "encoder"
) -> ModelFiles:
    """Find a model: a local folder, else a package that ships it, else the hub.

    Args:
        model_id: A folder or a hub id.
        revision: Branch, tag or commit on the hub; with one, no package is used.
        role: What the model is used as, for messages.

    Raises:
        ConfigError: A revision is given for a folder.
        EncoderError: The model cannot be found; the message says what would help.
    """
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"revision {revision!r} given for the local folder {folder}")
        return ModelFiles(str(folder), None, content_revision(folder))
    packaged = find_packaged(model_id) if revision is None else None
    if packaged is not None:
        return ModelFiles(str(packaged.folder), None, packaged.revision, packaged)
    hub_id = model_id if "/" in model_id else f"sentence-transformers/{model_id}"
    try:
        return find_on_hub(hub_id, _MARKERS, revision)
    except Exception as error:  # what the client raises differs between its versions
        raise EncoderError(_unreachable(model_id, revision, error, role)) from error


def content_revision(path: Path) -> str:
    """Return a hash over the names and bytes of a file, or of all files of a folder."""
    if path.is_file():
        return f"sha256:{_hash_of(path)}"
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            total.update(f"{inside.as_posix()}\0{_hash_of(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _hash_of(path: Path) -> str:
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def find_on_hub(hub_id: str, markers: Sequence[str], revision: str | None = None) -> ModelFiles:
    """Ask the model hub, once, for a model's commit; without an answer take the hub's cache.

    Without a network, the client's own retries would take most of a minute. $HF_HUB_ETAG_TIMEOUT
    is how many seconds it has to answer, 5 by default.

    Args:
        hub_id: "owner/name".
        markers: Files of which a model has at least one.
        revision: Branch, tag or commit.

    Raises:
        Exception: Whatever the hub's client raises, or the network below it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    if revision is not None and _COMMIT.fullmatch(revision):
        copy = _cached_copy(hub_id, markers, revision)
        if copy is not None:
            return copy
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _TIMEOUT_S)
    cause: Exception = EntryNotFoundError(f"it has none of {', '.join(markers)}")
    for marker in markers:
        try:
            url = hf_hub_url(hub_id, marker, revision=revision)
            commit = get_hf_file_metadata(url, timeout=timeout).commit_hash
        except EntryNotFoundError:
            continue
        except Exception as error:  # what else the client raises differs between its versions
            cause = error
            break
        return ModelFiles(hub_id, commit, str(commit))
    known = not isinstance(cause, EntryNotFoundError | RepositoryNotFoundError)
    copy = _cached_copy(hub_id, markers, revision) if known else None
    if copy is None:
        raise cause
    return copy


def _cached_copy(hub_id: str, markers: Sequence[str], revision: str | None) -> ModelFiles | None:
    from huggingface_hub import try_to_load_from_cache

    for marker in markers:
        path = try_to_load_from_cache(hub_id, marker, revision=revision)
        if isinstance(path, str):
            # loaded as a folder, or the client would ask the hub for what the model does not have
            snapshot = Path(path).parent
            return ModelFiles(str(snapshot), None, snapshot.name)
    return None


def _unreachable(asked: str, revision: str | None, cause: Exception, role: str) -> str:
    what = asked if revision is None else f"{asked} at revision {revision}"
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
    help_ = packaged_help(asked) if revision is None else None
    if help_ is None and role != "encoder":
        help_ = "give the path of a local copy"
    elif help_ is None:
        help_ = (
            "give the path of a local copy as encoder; without any network the extra "
            "'synque-select[offline]' brings sentence-transformers/all-MiniLM-L6-v2"
        )
    return (
        f"the {role} {what} is neither a folder, nor in a package, nor found on the model hub "
        f"({reason}): {help_}"
    )
