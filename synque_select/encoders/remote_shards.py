"""Embeddings that other machines have put into the store behind a cache."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synque_select.encoders.shards import (
    SUFFIX,
    Layout,
    ShardError,
    is_among,
    open_shard,
    parse_header,
    sorted_keys,
)
from synque_select.utils.remote_cache import RemoteCache, remote_of

__all__ = ["fetch_rows"]

_HEAD_BYTES = 1024  # a header has about 400
_MOST_KNOWN = 1 << 25  # keys that are kept in memory, of 8 bytes each


def fetch_rows(folder: Path, digests: NDArray[np.uint8]) -> bool:
    """Fetch the shards of a store that hold embeddings of some views.

    Of every shard that is not in the local folder, only the digests are read; a shard is fetched
    if it has a view that none of those fetched before it has.

    Args:
        folder: The local folder of an encoder.
        digests: (n, 32) uint8, digests of the views.

    Returns:
        Whether a shard was fetched.
    """
    remote = remote_of(folder)
    if remote is None:
        return False
    names = [n for n in remote.names(folder) if n.endswith(SUFFIX) and not (folder / n).exists()]
    keys = _keys_of(remote, folder, names)
    n_found = {name: int(is_among(of_shard, digests).sum()) for name, of_shard in keys.items()}
    is_missing = np.ones(len(digests), dtype=bool)
    fetched = False
    for name in sorted(keys, key=lambda name: (-n_found[name], name)):
        has = is_among(keys[name], digests) & is_missing
        if has.any():
            remote.fetch(folder / name, open_shard)
            if (folder / name).exists():
                is_missing &= ~has
                fetched = True
    return fetched


# sorted keys of shards of stores, which never change
_KNOWN: dict[Path, NDArray[np.uint64]] = {}


def _keys_of(
    remote: RemoteCache, folder: Path, names: Sequence[str]
) -> dict[str, NDArray[np.uint64]]:
    """Return the sorted keys of shards, without those that cannot be read."""
    unknown = [name for name in names if folder / name not in _KNOWN]
    heads = remote.read_ranges(folder, [(name, 0, _HEAD_BYTES) for name in unknown])
    layouts = {
        name: layout
        for name, head in zip(unknown, heads, strict=True)
        if head is not None and (layout := _layout(head, folder.name)) is not None
    }
    ranges = [(name, layout.digests_start, layout.stop) for name, layout in layouts.items()]
    contents = remote.read_ranges(folder, ranges)
    keys = {name: _KNOWN[folder / name] for name in names if folder / name in _KNOWN}
    for (name, layout), data in zip(layouts.items(), contents, strict=True):
        # what else may be wrong is noticed where the shard is fetched
        if data and len(data) == 32 * layout.n and zlib.crc32(data) == layout.digests_crc:
            keys[name] = sorted_keys(np.frombuffer(data, dtype=np.uint8).reshape(-1, 32))
            if sum(map(len, _KNOWN.values())) + layout.n <= _MOST_KNOWN:
                _KNOWN[folder / name] = keys[name]
    return keys


def _layout(head: bytes, folder: str) -> Layout | None:
    length = int.from_bytes(head[:8], "little")
    try:
        return parse_header(head[8 : 8 + length], folder)
    except ShardError:  # fetching it would find the same
        return None
