"""The exceptions of the library, all derived from `SynqueError`.

SynqueError
├── ConfigError        an argument, option or config value is not allowed (also a ValueError)
├── DataError          a file, line, field or example is invalid (also a ValueError)
├── EncoderError       a model cannot be loaded, or its embeddings are invalid
├── LLMError           a language model cannot be loaded, or its answers are invalid
├── ProxyError         a proxy cannot score the data that it was given
├── DependencyError    an optional package is missing (also an ImportError)
├── LightningError     a Trainer, DataModule or callback is of the wrong type or misused
└── RecordError        a run directory, ranking file or run store cannot be read or written
    └── NotSavedError  a result cannot be written; the error holds it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "DependencyError",
    "EncoderError",
    "LLMError",
    "LightningError",
    "NotSavedError",
    "ProxyError",
    "RecordError",
    "SynqueError",
    "did_you_mean",
]


class SynqueError(Exception):
    """Base class of all exceptions of this library."""


class ConfigError(SynqueError, ValueError):
    """An argument, option or config value is not allowed."""


class DataError(SynqueError, ValueError):
    """A file, line, field or example is invalid."""


class EncoderError(SynqueError):
    """An encoder cannot be loaded, or its embeddings are invalid."""


class LLMError(SynqueError):
    """A language model cannot be loaded, or its answers are invalid."""


class ProxyError(SynqueError):
    """A proxy cannot score the data that it was given."""


class DependencyError(SynqueError, ImportError):
    """An optional package is missing.

    Example:
        >>> str(DependencyError("matplotlib", extra="report", purpose="the report page"))
        "the report page needs the package matplotlib: pip install 'synque-select[report]'"
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}: pip install 'synque-select[{extra}]'"
        )


class LightningError(SynqueError):
    """A Trainer, DataModule or callback is of the wrong type or used at the wrong time."""


class RecordError(SynqueError):
    """A run directory, ranking file or run store cannot be read or written."""


class NotSavedError(RecordError):
    """A result was computed, but cannot be written.

    Attributes:
        result: The result, to be saved elsewhere.
    """

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: the closest allowed name, and all allowed names.

    Example:
        >>> did_you_mean("padd", ["mmd", "pad"])
        "did you mean 'pad'? There are: mmd, pad"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{'There' if hint else 'there'} are: {', '.join(names)}"
