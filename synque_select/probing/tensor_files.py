"""Files of the cache with gradients, each named after what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from synque_select.training.comparability import content_sha256
from synque_select.utils.cache_dir import cache_root, temporary_twin, write_in_cache
from synque_select.utils.checksums import (
    DamagedFileError,
    checksummed_file,
    read_checked,
    remove_damaged,
)
from synque_select.utils.versions import package_versions, source_hash

__all__ = ["TensorFiles"]

_FORMAT = 2


@dataclass(frozen=True)
class TensorFiles:
    """Named tensors, one file per key; a damaged file is removed and made again.

    Args:
        cache_dir: Directory of the cache; None for the default one.
    """

    cache_dir: str | Path | None = None

    def key(self, *parts: object) -> str:
        """Return the name of what depends on these values, the code and the packages."""
        return content_sha256([_FORMAT, source_hash(), package_versions(), *parts])

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what was kept; None if nothing was."""
        for folder in self._folders:
            path = folder / f"{key}.safetensors"
            try:
                return load(read_checked(path))
            except (DamagedFileError, SafetensorError) as error:
                remove_damaged(path, error)
            except OSError:
                pass
        return None

    def keep(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors; a cache that cannot be written costs time in the next run, not this one.

        Raises:
            OSError: Temporary files cannot be written, either.
        """
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})

        def write(folder: Path) -> None:
            with checksummed_file(folder / f"{key}.safetensors") as stream:
                stream.write(content)

        write_in_cache(self._folders[0], write)

    @property
    def _folders(self) -> tuple[Path, Path]:
        """The folder, and the one that replaces it where it cannot be written."""
        folder = cache_root(self.cache_dir) / "influence"
        return folder, temporary_twin(folder)
