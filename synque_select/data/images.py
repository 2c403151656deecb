"""A folder of images as a map-style dataset that decodes an image when it is accessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.errors import DataError, DependencyError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "ImageFolder", "holds_images", "subfolders"]

IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)


class ImageFolder:
    """The images of a folder, with the names of class sub-folders as labels.

    An example is {"image": PIL image} or {"image": PIL image, "label": "class"}. The label is the
    name of the sub-folder, not a number, so that it means the same in every candidate. Images are
    sorted by class, then by name. They keep the mode of their file, and the EXIF orientation is
    applied.

    Args:
        path: A folder of images, or a folder with one sub-folder per class; the images of a class
            may be in nested folders.

    Raises:
        DataError: The folder has no images, or has images as well as class sub-folders. Also
            raised when an example is accessed whose file cannot be decoded.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "cat").mkdir()
        ...     Image.new("L", (4, 3)).save(Path(folder) / "cat" / "1.png")
        ...     example = ImageFolder(folder)[0]
        >>> example["image"].size, example["label"]
        ((4, 3), 'cat')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        flat = [name for name in _names(self.path) if _is_image(name)]
        self.classes = tuple(folder.name for folder in subfolders(self.path) if _tree(folder))
        if flat and self.classes:
            raise DataError(
                f"{self.path}: holds images ({flat[0]}, …) beside sub-folders with images "
                f"({self.classes[0]}, …): allowed are either images or one sub-folder per class"
            )
        self._files = flat or [
            os.path.join(name, file) for name in self.classes for file in _tree(self.path / name)
        ]
        if not self._files:
            raise DataError(
                f"{self.path}: contains no images; supported suffixes are "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )

    @property
    def column_names(self) -> list[str]:
        """The fields of an example."""
        return ["image", "label"] if self.classes else ["image"]

    def select_columns(self, names: list[str]) -> ImageFolder | Dataset:
        """Return a dataset with these fields, like `datasets.Dataset.select_columns`.

        If only labels are selected, no image is opened; with "image", the whole dataset is
        returned.
        """
        if "image" in names:
            return self
        from datasets import Dataset

        return Dataset.from_dict({"label": [self._label(file) for file in self._files]})

    def file(self, index: int) -> Path:
        """Return the path of an image."""
        return self.path / self._files[index]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, object]:
        file = self._files[index]
        example: dict[str, object] = {"image": _open(self.path / file)}
        if self.classes:
            example["label"] = self._label(file)
        return example

    def _label(self, file: str) -> str:
        return file.split(os.sep, 1)[0]


def holds_images(path: Path) -> bool:
    """Whether the folder itself, not only a sub-folder, contains images."""
    return any(_is_image(name) for name in _names(path))


def subfolders(path: Path) -> list[Path]:
    """Return the sub-folders of a folder, sorted by name, without hidden ones."""
    return [path / name for name in _names(path) if (path / name).is_dir()]


def _names(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _tree(folder: Path) -> list[str]:
    """Return the images at any depth, as sorted paths relative to the folder."""
    paths = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = sorted(name for name in files if _is_image(name) and not name.startswith("."))
        paths += [os.path.relpath(os.path.join(root, name), folder) for name in images]
    return paths


def _open(path: Path) -> Image:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyError("pillow", extra="image", purpose="a folder of images") from error
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the image cannot be decoded: {error}") from error
