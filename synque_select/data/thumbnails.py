"""Thumbnails by which near duplicates of images are found."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from synque_select.data.examples import Examples
from synque_select.data.views import View

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["kept_thumbnails", "thumbnails"]

_SIZE = (8, 8)
_KEPT: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
_MOST_KEPT_IMAGES = 2**15  # of all datasets together: 24 MiB


def thumbnails(images: Iterable[View]) -> NDArray[np.float32]:
    """Return centered thumbnails of unit length, (n, 192); zeros for an image of one gray level.

    Args:
        images: The images, at least one.

    Example:
        >>> from PIL import Image
        >>> bool(thumbnails([Image.new("RGB", (20, 20), "gray")]).any())
        False
    """
    pixels = np.stack([_thumbnail(image) for image in images])
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # with a standard deviation of less than one gray level, only rounding is left
    flat = lengths < math.sqrt(centred.shape[1])
    result: NDArray[np.float32] = np.where(flat, 0, centred / np.where(flat, 1, lengths))
    return result


def kept_thumbnails(examples: Examples) -> NDArray[np.float32] | None:
    """Return the thumbnails of a dataset, which are computed once in this process for its content.

    An experiment compares the same candidates with one real sample after another.

    Args:
        examples: A dataset of images.

    Returns:
        (N, 192); None for a dataset that is empty or too large to keep.
    """
    if not 0 < len(examples) <= _MOST_KEPT_IMAGES:
        return None
    known = _KEPT.pop(examples.sha256, None)
    if known is None:
        known = thumbnails(examples.views[i] for i in range(len(examples)))
    _KEPT[examples.sha256] = known
    while sum(map(len, _KEPT.values())) > _MOST_KEPT_IMAGES:
        _KEPT.popitem(last=False)
    return known


def _thumbnail(view: View) -> NDArray[np.float32]:
    from PIL import Image

    image = cast("PILImage", view)  # the modality of the dataset was checked
    small = image.convert("RGB").resize(_SIZE, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()
