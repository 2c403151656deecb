"""Finding the files of a model: in a local folder, a package, or the hub at a fixed commit."""

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
from synque_select.utils.file_state import FileState, file_state

__all__ = ["ModelFiles", "content_revision", "find_on_hub", "resolve_model", "split_revision"]

_MARKERS = ("modules.json", "config.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelFiles:
    """The location of a model and its exact revision.

    Args:
        location: Path of a local folder, or id on the hub.
        commit: Commit on the hub; None for a local folder.
        revision: String for records and cache keys that changes whenever a weight changes.
        packaged: The package that contains the model, if it is from one.
    """

    location: str
    commit: str | None
    revision: str
    packaged: PackagedModel | None = None


def split_revision(spec: str) -> tuple[str, str | None]:
    """Split "id@revision" into its parts; an existing path is not split.

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
    """Find a model in a local folder, an installed package or the hub, in this order.

    Args:
        model_id: Path of a folder, or id on the hub.
        revision: Branch, tag or commit on the hub; if given, packages are not searched.
        role: Name of the model's purpose in error messages.

    Raises:
        ConfigError: `revision` is given with a local folder.
        EncoderError: The model cannot be found; the message says what to do.
    """
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(
                f"revision={revision!r}: {folder} is a local folder, which has no revisions"
            )
        return ModelFiles(str(folder), None, content_revision(folder))
    packaged = find_packaged(model_id) if revision is None else None
    if packaged is not None:
        return ModelFiles(str(packaged.folder), None, packaged.revision, packaged)
    hub_id = model_id if "/" in model_id else f"sentence-transformers/{model_id}"
    try:
        return find_on_hub(hub_id, _MARKERS, revision)
    except Exception as error:  # the hub client's exceptions differ between versions
        raise EncoderError(_unreachable(model_id, revision, error, role)) from error


def content_revision(path: Path) -> str:
    """Return a hash of a file's bytes, or of the names and bytes of all files in a folder."""
    if path.is_file():
        return f"sha256:{_hash_of(path)}"
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in inside.parts):
            total.update(f"{inside.as_posix()}\0{_hash_of(file)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _hash_of(path: Path) -> str:
    return _hash_once(path, file_state(path))


@lru_cache(maxsize=1024)
def _hash_once(path: Path, _state: FileState) -> str:
    return file_sha256(path)


def find_on_hub(hub_id: str, markers: Sequence[str], revision: str | None = None) -> ModelFiles:
    """Ask the hub once for the commit of a model; if it does not answer, use the local hub cache.

    The request is not retried, because without a network the client's retries take most of a
    minute. $HF_HUB_ETAG_TIMEOUT sets the timeout in seconds, 5 by default.

    Args:
        hub_id: Id on the hub, "owner/name".
        markers: Names of files of which a model has at least one.
        revision: Branch, tag or commit.

    Raises:
        Exception: Any exception of the hub client or the network, unless a cached copy exists.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    if revision is not None and _COMMIT.fullmatch(revision):
        copy = _cached_copy(hub_id, markers, revision)
        if copy is not None:
            return copy
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _TIMEOUT_S)
    cause: Exception = EntryNotFoundError(f"it contains none of {', '.join(markers)}")
    for marker in markers:
        try:
            url = hf_hub_url(hub_id, marker, revision=revision)
            commit = get_hf_file_metadata(url, timeout=timeout).commit_hash
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub client's exceptions differ between versions
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
            # a folder, so that the client does not ask the hub for optional files
            snapshot = Path(path).parent
            return ModelFiles(str(snapshot), None, snapshot.name)
    return None


def _unreachable(model_id: str, revision: str | None, cause: Exception, role: str) -> str:
    what = model_id if revision is None else f"{model_id} at revision {revision}"
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
    help_ = packaged_help(model_id) if revision is None else None
    if help_ is None and role != "encoder":
        help_ = "give the path of a local copy"
    elif help_ is None:
        help_ = (
            "give the path of a local copy; offline, the extra 'synque-select[offline]' installs "
            "sentence-transformers/all-MiniLM-L6-v2"
        )
    return (
        f"the {role} {what} was not found as a folder, in a package or on the model hub "
        f"({reason}): {help_}"
    )
