"""One registry for everything that a user names: built in, registered, or from another package."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json

__all__ = [
    "Registry",
    "check_options",
    "checked_class",
    "is_dotted",
    "named_parameters",
    "split_options",
]

_log = logging.getLogger(__name__)

Entry = TypeVar("Entry")

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*")


def is_dotted(name: str) -> bool:
    """Return whether a name has the form of "package.Name" or "package.module:Name".

    Example:
        >>> is_dotted("my_package.MyProxy"), is_dotted("my_package:MyProxy"), is_dotted("pad")
        (True, True, False)
    """
    return _DOTTED.fullmatch(name) is not None


def checked_class(value: object, base: type, kind: str, contract: Sequence[str] = ()) -> Any:
    """Return a class that can be an entry.

    Args:
        value: Anything.
        base: The class that it must be derived from.
        kind: What an entry is called in messages.
        contract: Attributes that it must define, besides the abstract methods of `base`.

    Raises:
        ConfigError: It is not a subclass, or does not define all that it must.

    Example:
        >>> checked_class(dict, Collection, "bag").__name__
        'dict'
        >>> checked_class(3, Collection, "bag")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: expected a subclass of Collection, got 3
    """
    if not (inspect.isclass(value) and issubclass(value, base)):
        raise ConfigError(f"expected a subclass of {base.__name__}, got {value!r}")
    missing = [name for name in contract if not hasattr(value, name)]
    missing += sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"the {kind} class {value.__name__} does not define {', '.join(missing)}")
    return value


class Registry(Generic[Entry]):
    """Entries by key; nothing is imported before it is asked for by its key.

    A name is looked up among the registered entries, the built-in ones and the entry points of
    installed packages, in this order; a dotted name is imported from its module.

    Args:
        kind: What an entry is called in messages, such as "proxy".
        group: Entry-point group in which packages list their entries.
        built_in: Key to "module:Name".
        check: Returns a loaded object if it can be an entry, else raises ConfigError.
        keys_of: The keys that an entry states itself; entries that state none go by any key.

    Example:
        >>> def check(value):
        ...     return value
        >>> encodings = Registry("codec", "my.codecs", {"json": "json:dumps"}, check)
        >>> encodings.get("json")([1])
        '[1]'
        >>> encodings.get("jsn")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: unknown codec 'jsn': did you mean 'json'? There are: json
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, str],
        check: Callable[[object], Entry],
        keys_of: Callable[[Entry], Collection[str] | None] = lambda entry: None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._built_in = built_in
        self.check = check
        self._keys_of = keys_of
        self._registered: dict[str, Entry] = {}
        self._read: tuple[object, tuple[EntryPoint, ...]] | None = None

    def keys(self) -> tuple[str, ...]:
        """Return all keys, sorted."""
        return tuple(sorted({*self._built_in, *self._registered, *self._installed()}))

    def __contains__(self, key: str) -> bool:
        # the scan of the installed packages comes last: it reads files
        return key in self._registered or key in self._built_in or key in self._installed()

    def get(self, name: str) -> Entry:
        """Return the entry of a key or of a dotted name.

        Raises:
            ConfigError: No entry has this key, or the package that brings it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            return self.check(getattr(importlib.import_module(module), attribute))
        points = self._installed().get(name)
        if points is not None:
            return self._from_package(name, points)
        key, _, option = name.partition(":")
        if option and key in self.keys():
            raise ConfigError(
                f"{self.kind} {name!r}: the option {option!r} has no value: {name}=VALUE"
            )
        if is_dotted(name):
            return self._from_module(name)
        raise ConfigError(f"unknown {self.kind} {name!r}: {did_you_mean(name, self.keys())}")

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Yield every key with its entry; what cannot be imported is left out with a warning."""
        for key in self.keys():
            try:
                yield key, self.get(key)
            except ConfigError as error:
                _log.warning("left out: %s", error)

    def is_built_in(self, name: str) -> bool:
        """Return whether a name belongs to an entry of this library."""
        return name in self._built_in and name not in self._registered

    def installed_keys(self) -> tuple[str, ...]:
        """Return the keys that installed packages list, sorted; nothing is imported."""
        return tuple(sorted(self._installed()))

    def origin(self, key: str) -> str:
        """Return which package lists a key, with its version."""
        return _packages(self._installed()[key])

    def register(self, key: str, entry: Entry, *, overwrite: bool = False) -> None:
        """Add an entry, for this process.

        The same class may be registered again, as happens when a module is reloaded or a notebook
        cell is run twice.

        Args:
            key: The name to look it up by.
            entry: A class or another object that `check` accepts.
            overwrite: Whether the key may be taken from a built-in or another entry.

        Raises:
            ConfigError: The entry cannot be used, or the key is taken.
        """
        entry = self.check(entry)
        if not isinstance(key, str) or not key or set(key) & set(":=, /"):
            raise ConfigError(
                f"{self.kind} key {key!r}: allowed is a text without spaces and without : = , /"
            )
        owner = self._owner(key, entry)
        if owner is not None and not overwrite:
            raise ConfigError(
                f"the {self.kind} key {key!r} is taken ({owner}): choose another key, or register "
                "with overwrite=True to replace it"
            )
        self._registered[key] = entry

    def _owner(self, key: str, entry: Entry) -> str | None:
        """Say what else has the key already; None for nothing, or an earlier form of the entry."""
        if key in self._registered:
            known = self._registered[key]
            return None if _place(known) == _place(entry) else "registered"
        if key in self._built_in:
            return "built in"
        # a package may both list a class as entry point and register it when it is imported
        module = str(getattr(entry, "__module__", "")).partition(".")[0]
        others = [p for p in self._installed().get(key, []) if p.module.partition(".")[0] != module]
        return _packages(others) if others else None

    def _installed(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points by key, those of one key that differ in a list.

        They are read anew when a folder of packages has changed, as a package may be installed
        while a notebook is open.
        """
        stamp = _package_folders()
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, tuple(entry_points(group=self.group))
        by_key: dict[str, dict[str, EntryPoint]] = {}
        for point in self._read[1]:
            if point.name not in self._built_in:
                by_key.setdefault(point.name, {})[point.value] = point
            elif point.name not in self._registered:
                _warn_once(
                    f"the package {_packages([point])} lists the {self.kind} {point.name!r}, "
                    "which is built in: the built-in one is used"
                )
        return {key: list(points.values()) for key, points in by_key.items()}

    def _from_package(self, key: str, points: list[EntryPoint]) -> Entry:
        if len(points) > 1:
            raise ConfigError(
                f"{self.kind} {key!r}: {len(points)} installed packages list it "
                f"({_packages(points)}): uninstall all but one, or use a dotted name such as "
                f"{points[0].value!r}"
            )
        where = f"{self.kind} {key!r} of the package {_packages(points)}"
        try:
            loaded: object = points[0].load()
        except Exception as error:  # the import of another package may raise anything
            raise ConfigError(
                f"{where} cannot be imported from {points[0].value!r}: {_reason(error)}; repair "
                "or uninstall the package"
            ) from error
        try:
            entry = self.check(loaded)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        stated = self._keys_of(entry)
        if stated is not None and key not in stated:
            raise ConfigError(
                f"{where}: {points[0].value} states the key {', '.join(map(repr, stated))}; "
                "allowed is the same name in both places"
            )
        return entry

    def _from_module(self, name: str) -> Entry:
        path, _, attribute = name.replace(":", ".").rpartition(".")
        try:
            module = importlib.import_module(path)
        except Exception as error:  # a user's module may raise anything
            raise ConfigError(
                f"{self.kind} {name!r}: the module {path} cannot be imported: {_reason(error)}"
            ) from error
        if not hasattr(module, attribute):
            defined = [n for n, v in vars(module).items() if inspect.isclass(v)]
            raise ConfigError(
                f"{self.kind} {name!r}: the module {path} has no {attribute}: "
                f"{did_you_mean(attribute, defined)}"
            )
        try:
            return self.check(getattr(module, attribute))
        except ConfigError as error:
            raise ConfigError(f"{self.kind} {name!r}: {error}") from error


def split_options(text: str) -> tuple[str, dict[str, Json]]:
    """Split "name:option=value:option=value"; values are read as JSON where they are JSON.

    Raises:
        ConfigError: An option has no name or no value.

    Example:
        >>> split_options("pad:protocol=released:n_folds=3")
        ('pad', {'protocol': 'released', 'n_folds': 3})
        >>> split_options("my_package:MyProxy:scale=0.5")
        ('my_package:MyProxy', {'scale': 0.5})
    """
    name, *pairs = text.split(":")
    if pairs and is_dotted(f"{name}:{pairs[0]}"):
        name = f"{name}:{pairs.pop(0)}"
    options: dict[str, Json] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not (option and equals):
            raise ConfigError(f"{text!r}: expected name:option=value, got {pair!r}")
        try:
            options[option] = parse_json(value, "the value", error=ConfigError)
        except ValueError:
            options[option] = value
    return name, options


def check_options(what: str, factory: Callable[..., object], options: Collection[str]) -> None:
    """Check options by name before a class is called with them.

    Args:
        what: The class in messages, such as "proxy 'pad'".
        factory: The class.
        options: The names given.

    Raises:
        ConfigError: It has no such option, or one without a default is missing.

    Example:
        >>> check_options("codec 'zip'", lambda level=9: None, ["levle"])
        Traceback (most recent call last):
        synque_select.errors.ConfigError: codec 'zip' has no option 'levle': did you mean 'level'?
        There are: level
    """
    parameters = inspect.signature(factory).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        allowed = [p.name for p in named_parameters(factory)]
        for option in options:
            if option not in allowed:
                hint = did_you_mean(option, allowed) if allowed else "it has no options"
                raise ConfigError(f"{what} has no option {option!r}: {hint}")
    missing = [p.name for p in named_parameters(factory) if p.default is p.empty]
    missing = [name for name in missing if name not in options]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(f'{name}=…' for name in missing)}")


def named_parameters(factory: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters that can be given by name."""
    parameters = inspect.signature(factory).parameters.values()
    return [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)


def _place(entry: object) -> tuple[object, object] | object:
    name = getattr(entry, "__qualname__", None)
    return entry if name is None else (getattr(entry, "__module__", None), name)


def _package_folders() -> list[tuple[str, int]]:
    """Return the folders in which packages are installed, and when each of them has changed."""
    folders = []
    for folder in sys.path:
        with suppress(OSError):
            folders.append((folder, os.stat(folder or os.curdir).st_mtime_ns))
    return folders


def _packages(points: Collection[EntryPoint]) -> str:
    dists = [point.dist for point in points]
    return ", ".join(f"{d.name} {d.version}" if d else "unknown" for d in dists)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
