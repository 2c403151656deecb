"""The heads that judge labels: one fit for the label checks, the camps and the label filter."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import torch

from synque_select.functional.transfer import Heads, fit_heads

__all__ = ["label_heads"]

# small: some of the last fits of this process, each a few numbers per class and column
_KEPT: OrderedDict[str, Heads] = OrderedDict()
_MOST_KEPT = 4


def label_heads(
    features: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], *, size: int, seed: int
) -> Heads:
    """Fit the heads of `fit_heads`, unless they were fitted before in this process.

    The label checks, the search for camps and the label filter of a ranking ask for the same heads,
    and so do rankings of the same candidates against other real samples: heads do not depend on it.

    Args:
        features: K tensors (N_k, d), float32, on the CPU.
        targets: K tensors (N_k, C) bool, the classes of each row.
        size: Common number of training rows.
        seed: Random seed for the subsamples; without effect if no candidate is above the size.
    """
    drawn = seed if any(len(part) > size for part in features) else None
    key = _key(features, targets, f"{size}/{drawn}")
    heads = _KEPT.pop(key, None)
    if heads is None:
        heads = fit_heads(features, targets, size=size, seed=seed)
    _KEPT[key] = heads
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return heads


def _key(features: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], options: str) -> str:
    """Hash the contents; 60 MB take 0.1 s, their fit several seconds."""
    digest = hashlib.sha256(options.encode())
    for part in (*features, *targets):
        digest.update(f"{tuple(part.shape)}/{part.dtype}/".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
