"""Six real surfaces from scikit-image's photographs, and generators that imitate them.

The real images are cut into tiles of 32 by 32 pixels that share no pixel. A generator draws each
surface by a rule, never from a photograph, and has its own scale, contrast, blur and noise. Equal
arguments give equal images.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synque_select.errors import DependencyError

__all__ = ["GENERATORS", "SIDE", "SURFACES", "SurfaceGenerator", "real_tiles"]

SIDE = 32
_MAX_TILES = 120
_SEED = 20_251_103
_PHOTOGRAPHS = {
    "brick": "brick.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "page": "page.png",
    "stars": "hubble_deep_field.jpg",
}
SURFACES = tuple(_PHOTOGRAPHS)

_Grey = NDArray[np.float64]
_Rng = np.random.Generator


@lru_cache(maxsize=1)
def real_tiles() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return at most 120 random tiles of each photograph, and their surfaces.

    Returns:
        Tiles (n, 32, 32) uint8 and the position of their surface in `SURFACES`, (n,).

    Raises:
        DependencyError: scikit-image or Pillow is missing.
    """
    tiles, labels = [], []
    for label, file in enumerate(_PHOTOGRAPHS.values()):
        cut = _tiles(_photograph(file))
        order = np.random.default_rng([_SEED, label]).permutation(len(cut))[:_MAX_TILES]
        tiles.append(cut[order])
        labels += [label] * len(order)
    return np.concatenate(tiles), np.array(labels)


def _photograph(file: str) -> NDArray[np.uint8]:
    from PIL import Image

    # the package is located, not imported: only its data is read
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise DependencyError("scikit-image", extra="image", purpose="its photographs")
    with Image.open(Path(package.origin).parent / "data" / file) as image:
        return np.asarray(image.convert("L"))


def _tiles(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = (length // SIDE for length in grey.shape)
    cut = grey[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
    return cut.swapaxes(1, 2).reshape(-1, SIDE, SIDE)


@dataclass(frozen=True)
class SurfaceGenerator:
    """One way of drawing the surfaces.

    Args:
        name: Name of the candidate.
        scale: Size of bricks, stones, letters, …, relative to the photographs.
        contrast: Factor of the contrast; 1 keeps it, 0 removes it.
        noise: Standard deviation of white noise, as a share of the grey scale.
        blur: Standard deviation of a Gaussian blur, in pixels.
        light: Largest slope of the light across a tile, as a share of the grey scale.
        inverted: Swap dark and bright.
        shuffled: Put the pixels in random order, which keeps only the grey levels.
        false_labels: Share of labels that are replaced by another surface.
    """

    name: str
    scale: float = 1.0
    contrast: float = 1.0
    noise: float = 0.04
    blur: float = 0.6
    light: float = 0.15
    inverted: bool = False
    shuffled: bool = False
    false_labels: float = 0.0

    def render(self, n: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Draw n tiles, balanced over the surfaces.

        Args:
            n: Number of tiles.
            seed: Random seed, combined with the name of the generator.

        Returns:
            Tiles (n, 32, 32) uint8, and labels (n,).

        Example:
            >>> tiles, labels = GENERATORS[0].render(12, seed=0)
            >>> tiles.shape, sorted(labels.tolist())
            ((12, 32, 32), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        drawn = rng.permutation(np.arange(n) % len(SURFACES))
        tiles = np.stack([self._tile(SURFACES[i], rng) for i in drawn])
        false = rng.random(n) < self.false_labels
        other = (drawn + rng.integers(1, len(SURFACES), n)) % len(SURFACES)
        return tiles, np.where(false, other, drawn)

    def _tile(self, surface: str, rng: _Rng) -> NDArray[np.uint8]:
        from scipy.ndimage import gaussian_filter

        grey = _DRAW[surface](rng, self.scale)
        grey = gaussian_filter(grey, self.blur)
        if self.shuffled:
            grey = rng.permutation(grey.ravel()).reshape(grey.shape)
        slope = rng.uniform(-self.light, self.light, 2)
        across = np.linspace(-0.5, 0.5, SIDE)
        grey = grey + slope[0] * across[:, None] + slope[1] * across
        grey = grey.mean() + self.contrast * (grey - grey.mean())
        grey = (1 - grey if self.inverted else grey) + rng.normal(0, self.noise, grey.shape)
        tile: NDArray[np.uint8] = (grey.clip(0, 1) * 255).round().astype(np.uint8)
        return tile


def _grid(rng: _Rng) -> tuple[_Grey, _Grey]:
    """Return the coordinates of the pixels, with a random origin."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    return y + rng.uniform(0, 1000), x + rng.uniform(0, 1000)


def _brick(rng: _Rng, scale: float) -> _Grey:
    y, x = _grid(rng)
    width, height, joint = scale * rng.uniform(24, 36), scale * rng.uniform(90, 130), 4 * scale
    x = x + y * rng.uniform(-0.2, 0.2)
    column = np.floor(x / width)
    y = y + column * height / 2
    is_joint = (x % width < joint) | (y % height < joint)
    ground = rng.uniform(0.3, 0.45)
    tile: _Grey = np.where(is_joint, ground + rng.uniform(0.15, 0.3), ground)
    return tile


def _gravel(rng: _Rng, scale: float) -> _Grey:
    n = max(3, round(26 / scale**2))
    points = rng.uniform(-12, SIDE + 12, (n, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    two = np.partition(distance, 1, axis=-1)[..., :2]
    stone: _Grey = rng.uniform(0.35, 0.8, n)[distance.argmin(-1)]
    return np.where(two[..., 1] - two[..., 0] < 1.5 * scale, stone * 0.45, stone)


def _grass(rng: _Rng, scale: float) -> _Grey:
    image, draw = _canvas(rng.uniform(0.35, 0.45))
    for _ in range(round(60 / scale)):
        y, x = rng.uniform(-4, SIDE + 4, 2)
        angle, length = rng.uniform(0, 2 * np.pi), scale * rng.uniform(5, 18)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line((x, y, *end), int(255 * rng.uniform(0.2, 0.85)), max(1, round(1.6 * scale)))
    return _levels(image)


def _coins(rng: _Rng, scale: float) -> _Grey:
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:SIDE, :SIDE]
    radius, centre = scale * rng.uniform(17, 27), rng.uniform(-12, SIDE + 12, 2)
    inside = np.hypot(y - centre[0], x - centre[1]) < radius
    relief = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5 * scale) * 0.6 * scale
    return np.where(inside, rng.uniform(0.45, 0.65) + relief, rng.uniform(0.12, 0.35))


def _page(rng: _Rng, scale: float) -> _Grey:
    from PIL import ImageFont

    image, draw = _canvas(rng.uniform(0.6, 0.9))
    size = scale * rng.uniform(11, 14)
    font, ink = ImageFont.load_default(size), int(255 * rng.uniform(0.05, 0.25))
    letters = list("abcdefghiklmnoprstuvwy      ")
    for top in np.arange(rng.uniform(-size, 0), SIDE, 1.35 * size):
        draw.text((rng.uniform(-8, 4), top), "".join(rng.choice(letters, 14)), ink, font)
    return _levels(image)


def _stars(rng: _Rng, scale: float) -> _Grey:
    y, x = np.mgrid[:SIDE, :SIDE]
    sky = np.full((SIDE, SIDE), 0.05)
    for _ in range(rng.poisson(4 / scale) + 1):
        centre, width = rng.uniform(0, SIDE, 2), scale * rng.exponential(1.2) + 0.5
        sky += rng.exponential(0.4) * np.exp(
            -((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * width**2)
        )
    return sky


def _canvas(level: float) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("L", (SIDE, SIDE), int(255 * level))
    return image, ImageDraw.Draw(image)


def _levels(image: Any) -> _Grey:
    return np.asarray(image, dtype=np.float64) / 255


_DRAW: dict[str, Callable[[_Rng, float], _Grey]] = {
    "brick": _brick,
    "coins": _coins,
    "grass": _grass,
    "gravel": _gravel,
    "page": _page,
    "stars": _stars,
}

# chosen before any of them was trained on
GENERATORS = (
    SurfaceGenerator("careful"),
    SurfaceGenerator("drawn", noise=0.0, blur=0.0, light=0.0),
    SurfaceGenerator("coarse", scale=2.5),
    SurfaceGenerator("fine", scale=0.4),
    SurfaceGenerator("blurred", blur=2.0),
    SurfaceGenerator("noisy", noise=0.25),
    SurfaceGenerator("faint", contrast=0.25),
    SurfaceGenerator("negative", inverted=True),
    SurfaceGenerator("shuffled", shuffled=True),
    SurfaceGenerator("careful_false_labels", false_labels=0.5),
)
