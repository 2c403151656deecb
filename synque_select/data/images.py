"""A folder of images as a map-style dataset, decoded when an example is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from synque_select.errors import DataError, DependencyError

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "holds_images", "subfolders"]

IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)


class ImageFolder:
    """The images of a folder; those of class sub-folders carry the sub-folder's name as label.

    An example is {"image": PIL image} or {"image": PIL image, "label": "class"}. The label is the
    name, not a number, so that it means the same in every candidate. Order: by class, then by
    name. The mode is the file's; an orientation in the EXIF part is applied.

    Args:
        path: A folder of images, or of one sub-folder a class (images may lie deeper in it).

    Raises:
        DataError: No image, images beside class sub-folders, or (when an example is asked for) a
            file that does not decode.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        flat = [name for name in _names(self.path) if _is_image(name)]
        self.classes = tuple(folder.name for folder in subfolders(self.path) if _tree(folder))
        if flat and self.classes:
            raise DataError(
                f"{self.path}: holds images ({flat[0]}, …) beside sub-folders with images "
                f"({self.classes[0]}, …); allowed is one of the two"
            )
        self._files = flat or [
            os.path.join(name, file) for name in self.classes for file in _tree(self.path / name)
        ]
        if not self._files:
            raise DataError(
                f"{self.path}: no image in it; suffixes known are {', '.join(IMAGE_SUFFIXES)}"
            )

    @property
    def column_names(self) -> list[str]:
        """The fields of an example."""
        return ["image", "label"] if self.classes else ["image"]

    def select_columns(self, names: list[str]) -> Any:
        """Return the labels alone, for which no image is opened, or all, as `datasets` does."""
        if "image" in names:
            return self
        from datasets import Dataset

        return Dataset.from_dict({"label": [self._label(file) for file in self._files]})

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._files[index]
        example = {"image": _open(self.path / file)}
        if self.classes:
            example["label"] = self._label(file)
        return example

    def _label(self, file: str) -> str:
        return file.split(os.sep, 1)[0]


def holds_images(path: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(_is_image(name) for name in _names(path))


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder, by name; hidden ones left out."""
    return [path / name for name in _names(path) if (path / name).is_dir()]


def _names(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _tree(folder: Path) -> list[str]:
    """Return the images at any depth, by path relative to the folder."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = sorted(name for name in files if _is_image(name) and not name.startswith("."))
        found += [os.path.relpath(os.path.join(root, name), folder) for name in images]
    return found


def _open(path: Path) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyError("pillow", extra="image", purpose="a folder of images") from error
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the image does not decode: {error}") from error
