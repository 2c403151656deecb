"""Reader of WebDataset tars of images; nothing is unpacked to disk, and nothing in it is run."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, ClassVar, NamedTuple, cast

from synque_select.data.images import IMAGE_SUFFIXES, open_image
from synque_select.data.readers import BaseReader
from synque_select.errors import DataError
from synque_select.utils.json_files import parse_json
from synque_select.utils.progress import ProgressBar
from synque_select.utils.text_files import decode_utf8, valid_name
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

__all__ = ["TarImages", "TarReader"]

_MAX_IMAGE_BYTES = 256 << 20
_MAX_TEXT_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 20
_MAX_MEMBERS = 5_000_000
_PART_BYTES = 1 << 20
_TEXTS = {"cls": "label", "txt": "text", "json": "json"}


class TarReader(BaseReader):
    """Reads a tar of images in the layout of WebDataset: files of one stem are one example."""

    suffixes: ClassVar[tuple[str, ...]] = (".tar",)

    def read(self, path: Path) -> TarImages:
        """List the examples; an image is read when it is accessed."""
        return TarImages(path)


class _Member(NamedTuple):
    name: str
    offset: int
    size: int


class TarImages:
    """The images of a tar as a map-style dataset.

    The files "dir/7.jpg", "dir/7.cls", "dir/7.txt" and "dir/7.json" are one example: {"key":
    "dir/7", "image": PIL image, "label": …, "text": …, "json": …}. Only these kinds are read: no
    pickle and no array, which is counted in `left_out`, as are links. Files are read from their
    place in the tar, so that a name such as "../7.jpg" has no effect.

    Args:
        path: An uncompressed tar.

    Raises:
        DataError: It is damaged, has no images, or a file in it is larger than 256 MiB (an image)
            or 1 MiB (a text). Also raised when an example is accessed that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left_out: Counter[str] = Counter()
        examples: dict[str, dict[str, _Member]] = {}
        for member in self._members():
            key, field = _key_and_field(member.name)
            if field is None:
                suffix = PurePosixPath(member.name).suffix
                self._left_out[suffix or "without a suffix"] += 1
            elif field in examples.setdefault(key, {}):
                raise DataError(
                    f"{path}: {valid_name(member.name)}: the example {valid_name(key)} already has "
                    f"the field {field!r}; allowed is one image and one file of each kind per stem"
                )
            else:
                examples[key][field] = member
        self._examples = [
            (valid_name(key), fields) for key, fields in examples.items() if "image" in fields
        ]
        without = len(examples) - len(self._examples)
        if without:
            self._left_out["without an image"] += without
        if not self._examples:
            shown = f" ({self.left_out})" if self.left_out else ""
            raise DataError(
                f"{path}: no images in it{shown}; allowed is a tar in the layout of WebDataset, "
                f"with files such as 000.jpg and 000.cls"
            )
        fields = {field for _, files in self._examples for field in files}
        known = [name for name in ("image", "label", "text", "json") if name in fields]
        self.column_names = ["key", *known]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the examples, sorted; () if none has a `cls` file."""
        if "label" not in self.column_names:
            return ()
        with self.path.open("rb") as file:
            labels = {self._read(file, i, ["label"])["label"] for i in range(len(self))}
        return tuple(sorted(str(label) for label in labels if label is not None))

    @property
    def left_out(self) -> str:
        """What of the tar is not read; "" if nothing."""
        if not self._left_out:
            return ""
        kinds = [f"{n:,} {valid_name(kind)}" for kind, n in self._left_out.most_common()]
        return f"left out: {counted(self._left_out.total(), 'file')} ({listed(kinds, 8)})"

    def select_columns(self, names: list[str]) -> TarImages | Dataset:
        """Return a dataset with these fields; without "image", no image is opened."""
        if "image" in names:
            return self
        from datasets import Dataset

        rows: list[dict[str, object]] = []
        with self.path.open("rb") as file:
            for place in range(len(self)):
                example = self._read(file, place, names)
                rows.append({name: example.get(name) for name in names})
        return Dataset.from_list(rows)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, object]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self.path.open("rb") as file:
            return self._read(file, index, ["key", "image", *_TEXTS.values()])

    def _read(self, file: IO[bytes], index: int, names: list[str]) -> dict[str, object]:
        key, members = self._examples[index]
        example: dict[str, object] = {"key": key} if "key" in names else {}
        for field in self.column_names:
            if field in members and field in names:
                member = members[field]
                file.seek(member.offset)
                example[field] = self._decoded(field, member, file.read(member.size))
            elif field in names and field != "key":
                example[field] = None
        return example

    def _decoded(self, field: str, member: _Member, data: bytes) -> object:
        where = f"{self.path}, {valid_name(member.name)}"
        if field == "image":
            image: Image = open_image(io.BytesIO(data), where)
            return image
        if field == "json":
            return parse_json(data, where, unique_keys=True)
        return decode_utf8(data, where).strip()

    def _members(self) -> list[_Member]:
        size = self.path.stat().st_size
        members = []
        try:
            with self.path.open("rb") as file:
                limited = cast("IO[bytes]", _LimitedReads(file, self.path))
                with tarfile.open(fileobj=limited, mode="r:") as archive:
                    bar = ProgressBar(archive, self.path.name, unit="file", delay=2, leave=False)
                    for number, info in enumerate(bar):
                        self._check(info, number, size)
                        if info.isreg() and not info.issparse():
                            members.append(_Member(info.name, info.offset_data, info.size))
                        elif not info.isdir():
                            self._left_out["a link or another special file"] += 1
                    self._check_end(archive.offset, members)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise DataError(f"{self.path}: the tar is damaged: {error}") from error
        return members

    def _check_end(self, offset: int, members: list[_Member]) -> None:
        """Check that the files that were found are all there are.

        At a damaged header, and at the end mark of the first of two joined tars, `tarfile` stops
        without a word.
        """
        with self.path.open("rb") as file:
            file.seek(offset)
            mark = file.read(tarfile.BLOCKSIZE)
            rest = iter(lambda: file.read(_PART_BYTES), b"")
            if mark.strip(b"\0"):
                problem = "the header of the next one is damaged; copy the tar again"
            elif len(mark) < tarfile.BLOCKSIZE:
                problem = "the mark of its end is missing: it was cut; copy the tar again"
            elif any(part.strip(b"\0") for part in rest):
                problem = (
                    "there is more data after the mark of its end: were tars joined? Give them one "
                    "by one; or else it is damaged: copy it again"
                )
            else:
                return
        after = f" after {valid_name(members[-1].name)}" if members else ""
        raise DataError(
            f"{self.path}: {counted(len(members), 'file')} can be read;{after} {problem}"
        )

    def _check(self, info: tarfile.TarInfo, number: int, size: int) -> None:
        name = valid_name(info.name)
        if number >= _MAX_MEMBERS:
            raise DataError(f"{self.path}: more than {_MAX_MEMBERS:,} files; split the tar")
        if info.isreg() and info.offset_data + info.size > size:
            raise DataError(f"{self.path}: the tar ends within {name}; copy it again")
        field = _key_and_field(info.name)[1]
        limit = _MAX_IMAGE_BYTES if field == "image" else _MAX_TEXT_BYTES
        if field is not None and info.size > limit:
            raise DataError(
                f"{self.path}: {name} has {counted(info.size, 'byte')}; allowed are {limit:,} for "
                f"{'an image' if field == 'image' else 'a text'}"
            )


def _key_and_field(name: str) -> tuple[str, str | None]:
    """Return the key of a file's example, and its field; None for a kind that is not read."""
    folder, _, base = name.removeprefix("./").rpartition("/")  # tar -c . writes ./000.jpg
    stem, _, suffix = base.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    if not stem or base.startswith("._"):  # hidden files, and those of macOS
        return key, None
    if f".{suffix.lower()}" in IMAGE_SUFFIXES:
        return key, "image"
    return key, _TEXTS.get(suffix.lower())


class _LimitedReads(io.RawIOBase):
    """A file of which the headers are read, with a limit on what one of them may hold.

    A header of a tar may say that a name of many gigabytes follows, which would be read at once.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise DataError(
                f"{self._path}: a header of the tar holds {counted(size, 'byte')}; allowed are "
                f"{_MAX_HEADER_BYTES:,}"
            )
        return self._file.read(size)
