"""Generators that render the digits 0 to 9 with matplotlib's fonts, each in its own way.

Each generator represents one way of making synthetic data: it has fonts, a pen, a deformation, a
frame and a finish. Glyphs are kept as signed distances to their outline, so that a batch of digits
with strokes of any width is one sampling of that table. Equal arguments give equal images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from synque_select.errors import DependencyError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FONTS", "GENERATORS", "SIZE", "DigitGenerator", "to_scanner_resolution"]

SIZE = 24
_SCANNER_SIZE = 8
_GLYPH_SIZE = 96

FONTS = {
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "cmss10.ttf"),
    "serif": ("DejaVuSerif.ttf", "STIXGeneral.ttf", "cmr10.ttf"),
    "italic": ("STIXGeneralItalic.ttf", "cmti10.ttf", "DejaVuSerif-Italic.ttf"),
    "mono": ("DejaVuSansMono.ttf", "DejaVuSansMono-Oblique.ttf", "cmtt10.ttf"),
    "bold": ("DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "STIXGeneralBol.ttf", "cmb10.ttf"),
}
_ALL_FONTS = tuple(name for names in FONTS.values() for name in names)

# a form is ten characters; handwriting has a 4 that is open at the top and often a bare 1
_PRINTED, _OPEN_FOUR, _BARE_ONE = "0123456789", "0123Ч56789", "0l23Ч56789"
_WRITTEN_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf")

Range = tuple[float, float]


@dataclass(frozen=True)
class DigitGenerator:
    """One way of rendering digits.

    Args:
        name: Name of the candidate.
        fonts: Font files in matplotlib's data path; each digit uses a random one.
        written: Also use the forms of handwriting (an open 4, a 1 without a foot).
        stroke: Width added to the font's own stroke, as a share of the glyph's height.
        tilt: Rotation in degrees.
        shear: Horizontal shear, 0.3 leans like an italic.
        wobble: Amplitude of a smooth random deformation, as a share of the height.
        aspect: Width over height, relative to the font's own.
        scale: Height as a share of the image; read only if the digit is not framed.
        shift: Largest offset from the center, as a share of the image; read only if the digit is
            not framed.
        framed: Crop to the ink and stretch it to the full height, as the real digits are.
        scanner: Reduce to 8 by 8 pixels of 17 grey levels, as the real digits are.
        blur: Standard deviation of a Gaussian blur, in pixels.
        contrast: Grey level of the ink, 0 to 1.
        clutter: Mean number of stray strokes per image.
        mirrored: Mirror the digit horizontally.
        inverted: Draw dark ink on a light background.
        false_labels: Share of labels that are replaced by another digit.
    """

    name: str
    fonts: tuple[str, ...]
    written: bool = False
    stroke: Range = (0.0, 0.0)
    tilt: Range = (0.0, 0.0)
    shear: Range = (0.0, 0.0)
    wobble: float = 0.0
    aspect: Range = (1.0, 1.0)
    scale: Range = (0.75, 0.75)
    shift: float = 0.0
    framed: bool = False
    scanner: bool = False
    blur: Range = (0.0, 0.0)
    contrast: Range = (1.0, 1.0)
    clutter: float = 0.0
    mirrored: bool = False
    inverted: bool = False
    false_labels: float = 0.0

    def render(self, n: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Render n digits, balanced over the ten classes.

        Args:
            n: Number of digits.
            seed: Random seed, combined with the name of the generator.

        Returns:
            Images (n, 24, 24) uint8, bright ink on black, and labels (n,) int64.

        Raises:
            DependencyError: matplotlib or Pillow is missing.

        Example:
            >>> images, labels = GENERATORS[0].render(20, seed=0)
            >>> images.shape, labels.bincount().tolist()
            (torch.Size([20, 24, 24]), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
        """
        # a crc of the name, because the built-in hash differs between processes
        generator = torch.Generator().manual_seed(_seed_of(self.name, seed))
        digits = (torch.arange(n) % 10)[torch.randperm(n, generator=generator)]
        images = torch.cat([self._render(part, generator) for part in torch.split(digits, 256)])
        return images, self._labels(digits, generator)

    def _render(self, digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        distance = self._deformed(digits, generator)
        stroke = _uniform(self.stroke, len(digits), generator)[:, None, None]
        # half a pixel of softness at the edge, in units of the glyph's height
        ink = torch.sigmoid((distance + stroke / 2) * 2 * SIZE)
        if self.framed:
            ink = _frame(ink)
        ink = F.avg_pool2d(ink[:, None], 2)[:, 0]
        if self.clutter:
            ink = torch.maximum(ink, _stray_strokes(self.clutter, len(digits), generator))
        ink = _blurred(ink, _uniform(self.blur, len(digits), generator))
        ink = ink * _uniform(self.contrast, len(digits), generator)[:, None, None]
        if self.inverted:
            ink = 1 - ink
        pixels = (ink * 255).round().to(torch.uint8)
        return to_scanner_resolution(pixels) if self.scanner else pixels

    def _deformed(self, digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n = len(digits)
        table = self._table()
        fonts = torch.randint(len(table), (n,), generator=generator)
        theta = self._affine(n, generator)
        grid = F.affine_grid(theta, [n, 1, 2 * SIZE, 2 * SIZE], align_corners=False)
        if self.wobble:
            grid = grid + 2 * self.wobble * _smooth_noise(n, generator)
        sampled = F.grid_sample(
            table[fonts, digits][:, None], grid, padding_mode="border", align_corners=False
        )
        return sampled[:, 0]

    def _table(self) -> torch.Tensor:
        """Return glyphs as signed distances, (forms, 10, 96, 96)."""
        printed = [_glyphs(name, _PRINTED) for name in self.fonts]
        if not self.written:
            return torch.stack(printed)
        forms = (_OPEN_FOUR, _BARE_ONE)
        written = [_glyphs(name, form) for name in _WRITTEN_FONTS for form in forms]
        return torch.stack(printed + written)

    def _affine(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Map output to glyph coordinates, (n, 2, 3)."""
        angle = _uniform(self.tilt, n, generator) * math.pi / 180
        lean = _uniform(self.shear, n, generator)
        width = _uniform(self.aspect, n, generator)
        # the glyph fills two thirds of its table; framing happens later, on the rendered ink
        height = torch.full((n,), 0.7) if self.framed else _uniform(self.scale, n, generator)
        zoom = _GLYPH_SHARE / height
        offset = (2 * torch.rand(n, 2, generator=generator) - 1) * 2 * self.shift
        turn = torch.stack(
            [
                torch.stack([angle.cos(), angle.sin()], -1),
                torch.stack([-angle.sin(), angle.cos()], -1),
            ],
            dim=1,
        )
        slant = torch.eye(2).repeat(n, 1, 1)
        slant[:, 0, 1] = lean
        slant[:, 0, 0] = (-1 if self.mirrored else 1) / width
        linear = (slant @ turn) * zoom[:, None, None]
        return torch.cat([linear, -(linear @ offset[:, :, None])], dim=-1)

    def _labels(self, digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        false = torch.rand(len(digits), generator=generator) < self.false_labels
        other = (digits + torch.randint(1, 10, digits.shape, generator=generator)) % 10
        return torch.where(false, other, digits)


_GLYPH_SHARE = 2 / 3


def to_scanner_resolution(images: torch.Tensor) -> torch.Tensor:
    """Reduce images to 8 by 8 pixels of 17 grey levels, then enlarge them again.

    This is how the real digits were made: of bitmaps whose ink was counted in square blocks.

    Args:
        images: (n, S, S) uint8, S = 8 or 24.

    Returns:
        (n, 24, 24) uint8, enlarged bilinearly.

    Example:
        >>> to_scanner_resolution(torch.full((1, 8, 8), 255, dtype=torch.uint8)).unique()
        tensor([255], dtype=torch.uint8)
    """
    block = images.shape[-1] // _SCANNER_SIZE
    counts = F.avg_pool2d(images[:, None].float() / 255 * 16, block).round()
    large = F.interpolate(counts, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return (large[:, 0] * 255 / 16).round().to(torch.uint8)


def _seed_of(name: str, seed: int) -> int:
    import zlib

    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _uniform(bounds: Range, n: int, generator: torch.Generator) -> torch.Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)


@lru_cache(maxsize=64)
def _glyphs(font_file: str, characters: str) -> torch.Tensor:
    """Return signed distances to the outlines of ten characters, (10, 96, 96); positive is ink.

    The unit is the height, which is the same for all ten.
    """
    try:
        import matplotlib
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise DependencyError("matplotlib", extra="report", purpose="rendering digits") from error
    from scipy.ndimage import distance_transform_edt

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font_file
    font = ImageFont.truetype(str(path), size=4 * _GLYPH_SIZE)
    height = _GLYPH_SIZE * _GLYPH_SHARE
    tables = []
    for character in characters:
        left, top, right, bottom = font.getbbox(character)
        canvas = Image.new("L", (int(right - left), int(bottom - top)))
        ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
        if characters != _PRINTED:
            canvas = _as_written(character, canvas)
        width = max(1, round(canvas.width * height / canvas.height))
        glyph = canvas.resize((width, round(height)), Image.Resampling.LANCZOS)
        table = Image.new("L", (_GLYPH_SIZE, _GLYPH_SIZE))
        table.paste(glyph, ((_GLYPH_SIZE - width) // 2, (_GLYPH_SIZE - glyph.height) // 2))
        ink = np.asarray(table) > 127
        tables.append((distance_transform_edt(ink) - distance_transform_edt(~ink)) / height)
    return torch.from_numpy(np.stack(tables)).float()


def _as_written(character: str, glyph: Image.Image) -> Image.Image:
    """Remove the foot of a 1, cross a 7, give a 9 a small loop and a long leg."""
    from PIL import ImageDraw

    width, height = glyph.size
    if character == "1":
        return glyph.crop((0, 0, round(0.7 * width), round(0.88 * height)))
    if character == "7":
        bar = (0.15 * width, 0.48 * height, 0.95 * width, 0.48 * height)
        ImageDraw.Draw(glyph).line(bar, fill=255, width=round(0.1 * height))
    if character == "9":
        loop = glyph.resize((width, round(0.48 * height)), box=(0, 0, width, 0.62 * height))
        glyph = glyph.resize((width, height), box=(0, 0.24 * height, width, height))
        glyph.paste(loop, (0, 0))
    return glyph


def _smooth_noise(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return displacements (n, 64, 64, 2) of unit variance at four by four knots."""
    knots = torch.randn(n, 2, 4, 4, generator=generator)
    field = F.interpolate(knots, size=(2 * SIZE, 2 * SIZE), mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def _frame(ink: torch.Tensor) -> torch.Tensor:
    """Stretch each image so that its ink has the full height and is centered."""
    boxes = torch.stack([_extent(ink.amax(1)), _extent(ink.amax(2))], dim=1)
    low, high = boxes[..., 0], boxes[..., 1]
    centre = (low + high) / 2
    half = ((high - low) / 2).clamp(min=0.05)
    theta = torch.zeros(len(ink), 2, 3)
    theta[:, 1, 1] = half[:, 1]
    # one factor for both axes keeps the shape; only digits that are too wide are squeezed
    theta[:, 0, 0] = half.amax(1)
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [len(ink), 1, *ink.shape[1:]], align_corners=False)
    return F.grid_sample(ink[:, None], grid, align_corners=False)[:, 0]


def _extent(profile: torch.Tensor) -> torch.Tensor:
    """Return the first and the last position with ink, (n, 2), in -1..1."""
    inked = (profile > 0.5).float()
    size = profile.shape[1]
    first = inked.argmax(1)
    last = size - inked.flip(1).argmax(1)
    return torch.stack([first, last], 1) / size * 2 - 1


def _stray_strokes(mean: float, n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw straight strokes at random places, (n, 24, 24)."""
    most = 2 * round(mean)
    ends = 2 * torch.rand(n, most, 2, 2, generator=generator) - 1
    shown = torch.rand(n, most, generator=generator) < mean / most
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    start, along = ends[:, :, :1], ends[:, :, 1:] - ends[:, :, :1]
    share = ((points - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)
    nearest = start + share.clamp(0, 1)[..., None] * along
    distance = (points - nearest).norm(dim=-1)
    strokes = torch.sigmoid((0.08 - distance) * SIZE) * shown[..., None]
    return strokes.amax(1).reshape(n, SIZE, SIZE)


def _blurred(ink: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Apply a Gaussian blur whose width differs by image, with repeated edges."""
    if not sigma.any():
        return ink
    reach = 6
    taps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-taps.square() / (2 * sigma.clamp(min=1e-2).square()[:, None]))
    kernel = kernel / kernel.sum(1, keepdim=True)
    n = len(ink)
    padded = F.pad(ink[None], (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, None, :, None], groups=n)
    return F.conv2d(rows, kernel[:, None, None, :], groups=n)[0]


def _generators() -> Sequence[DigitGenerator]:
    slanted = DigitGenerator(
        "slanted",
        FONTS["italic"],
        written=True,
        stroke=(0.0, 0.06),
        tilt=(-12, 12),
        shear=(-0.2, 0.4),
        wobble=0.02,
        framed=True,
        scanner=True,
    )
    return (
        DigitGenerator(
            "pen",
            ("DejaVuSans.ttf", "DejaVuSerif.ttf"),
            written=True,
            stroke=(0.0, 0.14),
            tilt=(-15, 15),
            shear=(-0.2, 0.4),
            wobble=0.06,
            aspect=(0.7, 1.2),
            framed=True,
            scanner=True,
        ),
        DigitGenerator(
            "brush",
            FONTS["bold"] + FONTS["mono"],
            written=True,
            stroke=(0.06, 0.14),
            tilt=(-10, 10),
            shear=(-0.2, 0.3),
            wobble=0.03,
            framed=True,
            scanner=True,
        ),
        slanted,
        DigitGenerator(**{**vars(slanted), "name": "slanted_false_labels", "false_labels": 0.5}),
        DigitGenerator(
            "loose",
            _ALL_FONTS,
            stroke=(-0.02, 0.06),
            tilt=(-15, 15),
            shear=(-0.2, 0.4),
            wobble=0.05,
            scale=(0.5, 0.9),
            shift=0.12,
            scanner=True,
        ),
        DigitGenerator(
            "typeset",
            FONTS["serif"],
            stroke=(0.0, 0.05),
            tilt=(-3, 3),
            framed=True,
            scanner=True,
        ),
        DigitGenerator(
            "printed", FONTS["sans"], scale=(0.55, 0.7), shift=0.05, contrast=(0.8, 1.0)
        ),
        DigitGenerator(
            "tiny", FONTS["mono"], scale=(0.25, 0.4), shift=0.3, tilt=(-5, 5), stroke=(0.0, 0.04)
        ),
        DigitGenerator(
            "blurred", FONTS["bold"], scale=(0.7, 0.9), shift=0.05, blur=(1.9, 3.0), tilt=(-5, 5)
        ),
        DigitGenerator(
            "faint",
            FONTS["serif"] + FONTS["italic"],
            scale=(0.6, 0.9),
            shift=0.08,
            contrast=(0.1, 0.3),
            blur=(0.4, 0.8),
        ),
        DigitGenerator(
            "cluttered",
            FONTS["sans"] + FONTS["serif"],
            scale=(0.5, 0.8),
            shift=0.1,
            tilt=(-20, 20),
            clutter=3.0,
        ),
        DigitGenerator(
            "mirror_negative",
            _ALL_FONTS,
            stroke=(-0.02, 0.1),
            tilt=(-180, 180),
            shear=(-0.5, 0.5),
            wobble=0.06,
            aspect=(0.6, 1.4),
            scale=(0.4, 1.0),
            shift=0.1,
            clutter=1.0,
            mirrored=True,
            inverted=True,
        ),
    )


GENERATORS = tuple(_generators())
