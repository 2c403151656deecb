"""Readers of file formats: the base class, and the registry that maps suffixes to readers."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from synque_select.data.compressed import inner_name, is_compressed
from synque_select.data.examples import MapDataset
from synque_select.errors import ConfigError, DataError, SynqueError
from synque_select.utils.registry import Registry, is_dotted, named_parameters

__all__ = [
    "READERS",
    "BaseReader",
    "is_data_file",
    "name_without_suffix",
    "read_file",
    "reader_key",
    "reader_suffixes",
    "register_reader",
    "split_reader",
]


class BaseReader(ABC):
    r"""Base class of readers; a subclass defines `suffixes` and `read`.

    A reader is created without arguments, unless its constructor has an argument `as_text`. This
    is the set of fields that the user has chosen as view; an untyped format such as CSV must keep
    them as text even if they look like numbers.

    Attributes:
        suffixes: Lower-case suffixes of the files that it reads, such as (".xml",) or
            (".json.gz", ".json.bz2"). Without the first dot, they are the keys of the reader.
        reads_compressed: Whether `read` also takes such a file with a further suffix .gz, .bz2,
            .xz, .zst or .zip, as the built-in readers do.

    Example:
        >>> class LineReader(BaseReader):
        ...     suffixes = (".txt",)
        ...
        ...     def read(self, path):
        ...         return [{"text": line} for line in path.read_text("utf-8").splitlines()]
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     _ = path.write_text("Shares rise\nShares fall\n")
        ...     LineReader().read(path)
        [{'text': 'Shares rise'}, {'text': 'Shares fall'}]
    """

    suffixes: ClassVar[tuple[str, ...]]
    reads_compressed: ClassVar[bool] = False

    @abstractmethod
    def read(self, path: Path) -> MapDataset:
        """Read a file as a dataset.

        It is called once per load, with an existing path. Equal files must give equal examples in
        the same order, because results are cached by content.

        Args:
            path: Path of a file, or of a folder if the user named the reader ("xml:folder").

        Returns:
            A list, a `datasets.Dataset` or another object with a length and integer indexing. An
            example is usually a mapping from field names to values.

        Raises:
            DataError: The file is invalid; the message names the file and, if possible, the line.
                Any other exception is reported as a DataError that names the file.
        """


Reader = TypeVar("Reader", bound=BaseReader)

_BUILT_IN = {
    "arrow": "synque_select.data.arrow_reader:ArrowReader",
    "csv": "synque_select.data.csv_reader:CsvReader",
    "json": "synque_select.data.json_reader:JsonReader",
    "jsonl": "synque_select.data.json_reader:JsonLinesReader",
    "ndjson": "synque_select.data.json_reader:JsonLinesReader",
    "parquet": "synque_select.data.arrow_reader:ParquetReader",
    "tar": "synque_select.data.tar_reader:TarReader",
    "tsv": "synque_select.data.csv_reader:TsvReader",
}


def _check_class(value: object) -> type[BaseReader]:
    if not (inspect.isclass(value) and issubclass(value, BaseReader)):
        raise ConfigError(f"expected a subclass of BaseReader, got {value!r}")
    if inspect.isabstract(value):
        missing = ", ".join(sorted(value.__abstractmethods__))
        raise ConfigError(f"the reader class {value.__name__} does not define {missing}")
    suffixes: object = getattr(value, "suffixes", None)
    good = isinstance(suffixes, tuple) and suffixes and all(map(_is_suffix, suffixes))
    if not good:
        raise ConfigError(
            f"the reader class {value.__name__} has suffixes={suffixes!r}: allowed is a tuple of "
            "lower-case suffixes such as ('.xml',)"
        )
    return value


def _is_suffix(value: object) -> bool:
    return isinstance(value, str) and value[:1] == "." and len(value) > 1 and value == value.lower()


def _keys(cls: type[BaseReader]) -> tuple[str, ...]:
    return tuple(suffix.removeprefix(".") for suffix in cls.suffixes)


READERS: Registry[type[BaseReader]] = Registry(
    "reader", "synque_select.readers", _BUILT_IN, check=_check_class, keys_of=_keys
)


def register_reader(cls: type[Reader], *, overwrite: bool = False) -> type[Reader]:
    """Register a custom reader for its suffixes; usable as a class decorator.

    Args:
        cls: A subclass of `BaseReader`.
        overwrite: Whether the reader may replace a built-in or registered reader of a suffix.

    Returns:
        The class.

    Raises:
        ConfigError: A suffix already has a reader, or the class lacks `read` or `suffixes`.
    """
    for key in _keys(READERS.check(cls)):
        READERS.register(key, cls, overwrite=overwrite)
    return cls


def reader_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all supported file formats, sorted."""
    return tuple(f".{key}" for key in READERS.keys())  # noqa: SIM118 - not a mapping


def reader_key(path: Path) -> str | None:
    """Return the key of the reader of a file's longest known suffix, or None.

    Of a compressed file, the suffix of the file in it counts.

    Args:
        path: Path of the file, which need not exist.

    Example:
        >>> reader_key(Path("a.v2.JSON")), reader_key(Path("a.csv.gz")), reader_key(Path("a.txt"))
        ('json', 'csv', None)
    """
    key = _key_of_name(path.name)
    return _key_of_name(inner_name(path)) if key is None and is_compressed(path) else key


def is_data_file(path: Path) -> bool:
    """Whether a file in a folder is read: it has a known suffix, and can be read as compressed.

    Args:
        path: Path of the file.

    Example:
        >>> is_data_file(Path("a.jsonl.gz")), is_data_file(Path("a.tar.gz"))
        (True, False)
    """
    key = reader_key(path)
    if key is None or _key_of_name(path.name) is not None:
        return key is not None
    return READERS.get(key).reads_compressed


def _key_of_name(name: str) -> str | None:
    parts = name.lower().split(".")[1:]
    keys = (".".join(parts[start:]) for start in range(len(parts)))
    return next((key for key in keys if key in READERS), None)


def name_without_suffix(path: Path) -> str:
    """Return the name of a file without the suffix of its reader and of its compression.

    Example:
        >>> name_without_suffix(Path("a.v2.json")), name_without_suffix(Path("a.csv.gz"))
        ('a.v2', 'a')
    """
    name = path.name
    if _key_of_name(name) is None and is_compressed(path):
        name = path.stem
        if _key_of_name(name) is None:
            return name  # a .zip, whose name need not be that of the file in it
    key = _key_of_name(name)
    return Path(name).stem if key is None else name[: -len(key) - 1]


def split_reader(text: str) -> tuple[str | None, str]:
    """Split "reader:path" into its parts; the reader is None if it is not given.

    Args:
        text: A path, optionally preceded by the key or dotted name of a reader and a colon.

    Example:
        >>> split_reader("jsonl:data/*.txt"), split_reader("my_package.XmlReader:a.xml")
        (('jsonl', 'data/*.txt'), ('my_package.XmlReader', 'a.xml'))
        >>> split_reader("data/a.json")
        (None, 'data/a.json')
    """
    head, _, rest = text.partition(":")
    name, _, after = rest.partition(":")
    if not rest or os.path.lexists(text):
        return None, text
    if after and is_dotted(f"{head}:{name}"):
        return f"{head}:{name}", after
    return (head, rest) if head in READERS or is_dotted(head) else (None, text)


def read_file(path: Path, key: str, as_text: Collection[str] = ()) -> MapDataset:
    """Read a file with a reader and check the dataset that it returns.

    Args:
        path: An existing file or folder.
        key: Key of the reader, or the dotted name of its class.
        as_text: Names of fields that are kept as text even if they look like numbers.

    Raises:
        ConfigError: The reader is unknown.
        DataError: The file is empty, invalid or cannot be read; the message names it.
    """
    cls = READERS.get(key)
    takes_as_text = any(parameter.name == "as_text" for parameter in named_parameters(cls))
    if is_compressed(path) and _key_of_name(path.name) is None and not cls.reads_compressed:
        raise DataError(f"{path}: {cls.__name__} reads no compressed files; unpack the file")
    reader = cls(**({"as_text": frozenset(as_text)} if takes_as_text else {}))
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        dataset: object = reader.read(path)
    except (SynqueError, PermissionError):
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from error
    except Exception as error:  # a user's reader may raise anything
        raise DataError(
            f"{path}: {cls.__name__} failed: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if not isinstance(dataset, MapDataset) or isinstance(dataset, Mapping | str | bytes):
        raise DataError(
            f"{path}: {cls.__name__}.read returned {type(dataset).__name__}; expected a list of "
            "records, or another dataset with a length and integer indexing"
        )
    if not len(dataset):
        raise DataError(f"{path}: the file contains no examples")
    return dataset


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
