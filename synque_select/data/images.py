"""A folder of images as a map-style dataset that decodes an image when it is accessed."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from synque_select.data.readers import reader_key
from synque_select.errors import DataError, DependencyError
from synque_select.utils.text_files import valid_name
from synque_select.utils.unicode_forms import normalized
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "class_name",
    "has_images",
    "holds_images",
    "is_system_folder",
    "open_image",
    "subfolders",
]

IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
_FRAME_SUFFIXES = (".apng", ".avif", ".gif", ".tif", ".tiff", ".webp")
# folders that operating systems, network drives and tools leave behind
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information")
)


class ImageFolder:
    """The images of a folder, with the names of class sub-folders as labels.

    An example is {"image": PIL image} or {"image": PIL image, "label": "class"}. The label is the
    name of the sub-folder, not a number, so that it means the same in every candidate; names that
    differ only in their Unicode form, as after copying from macOS, are one class. Images are sorted
    by class, then by name. They keep the mode of their file, and the EXIF orientation is applied.
    Links to folders are followed. What is left out is counted in `left_out`.

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
        listing = _Listing(self.path)
        flat, nested = listing.files, listing.nested
        self.classes = tuple(sorted({class_name(_first_part(file)) for file in nested}))
        if flat and nested:
            raise DataError(
                f"{self.path}: holds images ({flat[0]}, …) beside sub-folders with images "
                f"({self.classes[0]}, …): allowed are either images or one sub-folder per class"
            )
        self._files = flat or sorted(nested, key=self._label)
        if not self._files and not os.listdir(self.path):
            raise DataError(f"{self.path}: the folder is empty")
        if not self._files:
            raise DataError(
                f"{self.path}: contains no images{listing.skipped(', but ')}; supported suffixes "
                f"are {', '.join(IMAGE_SUFFIXES)}{listing.how_to_read_data()}"
            )
        parts = (listing.skipped("left out: "), self._further_frames())
        self.left_out = "; ".join(filter(None, parts))

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

    def _further_frames(self) -> str:
        """Say of how many images only the first frame or page is read."""
        paths = map(self.file, range(len(self)))
        n = sum(_has_frames(path) for path in paths if path.suffix.lower() in _FRAME_SUFFIXES)
        return (
            f"of {counted(n, 'image')} with several frames or pages, the first is read" if n else ""
        )

    def _label(self, file: str) -> str:
        return class_name(_first_part(file))


def class_name(folder: str) -> str:
    r"""Return the class of a folder's name: composed Unicode, as every system but macOS writes it.

    Example:
        >>> class_name("cafe\u0301") == "café"
        True
    """
    return normalized(valid_name(folder))


def holds_images(path: Path) -> bool:
    """Whether the folder itself, not only a sub-folder, contains images."""
    return any(_is_image(name) for name in _names(path))


def subfolders(path: Path) -> list[Path]:
    """Return the sub-folders of a folder, sorted by name, without hidden ones and the system's."""
    names = [name for name in _names(path) if not is_system_folder(name)]
    return [path / name for name in names if (path / name).is_dir()]


def is_system_folder(name: str) -> bool:
    """Whether an operating system or a network drive makes folders of this name.

    Example:
        >>> is_system_folder("__MACOSX"), is_system_folder("cat")
        (True, False)
    """
    return name.lower() in _SYSTEM_FOLDERS


def _names(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _first_part(file: str) -> str:
    return file.split(os.sep, 1)[0]


class _Listing:
    """The images in a folder and its sub-folders, and how much else there is.

    Attributes:
        files: Names of the images in the folder itself, sorted.
        nested: Paths of the images in sub-folders, relative to the folder.
    """

    def __init__(self, path: Path) -> None:
        self.files: list[str] = []
        self.nested: list[str] = []
        self._others: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._has_data = False
        # a link to a folder around this one would lead to everything in it
        around = [os.stat(folder) for folder in (path.resolve(), *path.resolve().parents)]
        seen = {(state.st_dev, state.st_ino) for state in around}
        without_files: dict[str, bool] = {}
        for root, folders, files in os.walk(path, followlinks=True, onerror=_raise):
            folders[:] = [name for name in sorted(folders) if self._is_wanted(root, name, seen)]
            inner = os.path.relpath(root, path)
            top = _first_part(inner)
            without_files[top] = without_files.get(top, True) and not files
            for name in sorted(files):
                if not _is_image(name) or name.startswith("."):
                    self._count(name)
                elif inner == os.curdir:
                    self.files.append(name)
                else:
                    self.nested.append(os.path.join(inner, name))
        without_files.pop(os.curdir, None)
        for name in (name for name, is_empty in without_files.items() if is_empty):
            self._folders[f"{name}, without a file"] += 1

    def _is_wanted(self, root: str, name: str, seen: set[tuple[int, int]]) -> bool:
        if name.startswith(".") or is_system_folder(name):
            self._folders[name] += 1
            return False
        state = os.stat(os.path.join(root, name))
        is_new = (state.st_dev, state.st_ino) not in seen
        seen.add((state.st_dev, state.st_ino))
        if not is_new:  # a link to a folder that is read elsewhere, or to one around it
            self._folders[f"{name}, a link to a folder that is already read"] += 1
        return is_new

    def _count(self, name: str) -> None:
        # .DS_Store and the like are not counted, but a hidden file that looks like an image is
        if not name.startswith("."):
            suffix = os.path.splitext(name)[1]
            self._others[valid_name(suffix) if suffix[1:] else "without a suffix"] += 1
            self._has_data = self._has_data or reader_key(Path(name)) is not None
        elif _is_image(name):
            self._others["hidden"] += 1

    def how_to_read_data(self) -> str:
        """Say how files of data are given, if there are any."""
        if not self._has_data:
            return ""
        return "; a folder in a folder is read as images: give files of data by a glob, a/*/*.jsonl"

    def skipped(self, begin: str) -> str:
        """Say what is left out, after the words `begin`; "" if there is nothing."""
        kinds = [f"{n:,} {kind}" for kind, n in self._others.most_common()]
        parts = [f"{counted(self._others.total(), 'file')} ({listed(kinds, 8)})"] if kinds else []
        folders = [
            valid_name(name) + (f" ({counted(n, 'time')})" if n > 1 else "")
            for name, n in self._folders.most_common()
        ]
        parts += [f"{counted(len(folders), 'folder')} ({listed(folders, 8)})"] if folders else []
        return begin + " and ".join(parts) if parts else ""


def _raise(error: OSError) -> None:
    raise error


def _has_frames(path: Path) -> bool:
    # an image that cannot be read is an error when it is accessed, which names it; a pipe would be
    # waited for
    with suppress(Exception):
        from PIL import Image

        if path.is_file():
            with Image.open(path) as image:
                return bool(getattr(image, "is_animated", False))
    return False


def _open(path: Path) -> Image:
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: not a file, or a link to a missing one")
    return open_image(path, str(path))


def open_image(file: Path | IO[bytes], where: str) -> Image:
    """Decode an image, with the EXIF orientation applied.

    Args:
        file: Path of the image, or its content.
        where: What it is, for messages.

    Raises:
        DependencyError: Pillow is not installed.
        DataError: The image cannot be decoded, or is too large.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyError("pillow", extra="image", purpose="files of images") from error
    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <_io.")[0]  # the name of the object that was read
        raise DataError(f"{where}: the image cannot be decoded: {reason}") from error


def has_images(path: Path) -> bool:
    """Whether a folder or a folder in it contains images.

    Args:
        path: A folder.
    """
    for _, folders, files in os.walk(path):
        folders[:] = [n for n in folders if not (n.startswith(".") or is_system_folder(n))]
        if any(_is_image(name) and not name.startswith(".") for name in files):
            return True
    return False
