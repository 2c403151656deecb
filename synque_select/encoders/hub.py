"""Where a model's files are: a local folder, a package, or the model hub at a fixed commit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from synque_select.encoders.packaged import (
    PackagedModel,
    file_sha256,
    find_packaged,
    packaged_help,
)
from synque_select.errors import ConfigError, EncoderError

__all__ = ["ModelFiles", "content_revision", "resolve_model", "split_revision"]

_MARKERS = ("modules.json", "config.json")


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
        role: What the model is to be, for messages.

    Raises:
        ConfigError: A revision is given for a folder.
        EncoderError: It is nowhere to be found; the message says what would help.
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
    commit = _hub_commit(hub_id, model_id, revision, role)
    return ModelFiles(hub_id, commit, commit)


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


def _hub_commit(hub_id: str, asked: str, revision: str | None, role: str) -> str:
    """Return the commit of a model on the hub, or of its copy in the hub's cache when offline."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cause: Exception | None = None
    for marker in _MARKERS:
        try:
            path = Path(hf_hub_download(hub_id, marker, revision=revision))
        except LocalEntryNotFoundError as error:
            cause = error
        except EntryNotFoundError as error:
            cause = cause or error
        except Exception as error:  # what else the client raises differs between its versions
            cause = error
            break
        else:
            return path.parent.name
    raise EncoderError(_unreachable(asked, revision, cause, role)) from cause


def _unreachable(asked: str, revision: str | None, cause: Exception | None, role: str) -> str:
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
