"""The source of a class outside of this library, as its version in cache keys."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

__all__ = ["source_of"]

# their versions are part of the keys already, or of none that matter
_NOT_THE_USERS = ("abc", "builtins", "synque_select", "torch", "typing")


def source_of(cls: type, *, values: bool = True) -> str | None:
    """Return a hash of the code of a user's class and of its bases.

    Besides the classes themselves it covers their module and the modules of the same package from
    which that takes classes, functions or modules, so that an edited helper is noticed too. Of a
    class in a notebook, or in the script that runs, the class alone counts: another cell or line
    says nothing about it.

    Args:
        cls: Any class.
        values: Whether plain attributes of the classes count by their values of now; otherwise as
            they are written, so that a counter in a class does not count.

    Returns:
        SHA-256 in hexadecimal; "" for a class of this library, whose version is known; None where
        the source cannot be read.

    Example:
        >>> from json import JSONDecoder
        >>> len(source_of(JSONDecoder))
        64
        >>> source_of(Path) == source_of(JSONDecoder)
        False
    """
    own = [part for part in cls.__mro__ if _top(part.__module__) not in _NOT_THE_USERS]
    if not own:
        return ""
    # in a launched process the user's script has another module name
    home = cls.__module__.replace("__mp_main__", "__main__")
    hashed = hashlib.sha256(f"{home}.{cls.__qualname__}".encode())
    try:
        for part in own:
            hashed.update("\0".join(_parts(part, values)).encode())
        for path in sorted(_files(cls.__module__)):
            hashed.update(path.read_bytes())
    except (OSError, TypeError):  # made by exec, or typed into a shell
        return None
    return hashed.hexdigest()


def _parts(cls: type, values: bool) -> Iterator[str]:
    """Yield the source of a class's methods and its plain attributes.

    The source of the class as a whole cannot be read in a notebook before Python 3.13.
    """
    if not values:
        with suppress(OSError, TypeError):
            yield inspect.getsource(cls)
            return
    for name, value in vars(cls).items():
        if isinstance(value, str | int | float | bool | None) and not name.startswith("__"):
            yield f"{name}={value!r}"
        for attribute in ("", "__func__", "fget", "func"):  # a property, a static method, …
            method = getattr(value, attribute, None) if attribute else value
            if inspect.isfunction(method):
                yield inspect.getsource(method)


def _files(name: str) -> set[Path]:
    """Return the files of a module and of what it takes from its own package, step by step."""
    if _top(name) in ("__main__", "__mp_main__"):
        return set()
    waiting, seen = [name], set[str]()
    while waiting:
        module = sys.modules.get(current := waiting.pop())
        if module is None or current in seen:
            continue
        seen.add(current)
        used = {_home(value) for value in vars(module).values()}
        waiting += [other for other in used if _top(other) == _top(name)]
    files = [getattr(sys.modules[module], "__file__", None) for module in seen]
    return {Path(file) for file in files if file is not None and file.endswith(".py")}


def _home(value: object) -> str:
    return (
        value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
    )


def _top(module: str) -> str:
    return module.partition(".")[0]
