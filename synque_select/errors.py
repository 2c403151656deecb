"""The tree of errors: everything the library raises on purpose derives from `SynqueError`.

SynqueError
├── ConfigError        an argument, option or config value is not allowed (also a ValueError)
├── DataError          a file, line, field or example is not usable (also a ValueError)
├── EncoderError       a model cannot be loaded, or its embeddings are not usable
├── LLMError           a language model cannot be loaded, or its answers are not usable
├── ProxyError         a proxy cannot score what it was given
├── DependencyError    an optional package is missing (also an ImportError)
├── LightningError     a Trainer, DataModule or callback of the wrong kind, or at the wrong time
└── RecordError        a run folder, ranking file or run store cannot be read or written
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
    "ProxyError",
    "RecordError",
    "SynqueError",
    "did_you_mean",
]


class SynqueError(Exception):
    """Root of all errors of this library."""


class ConfigError(SynqueError, ValueError):
    """An argument, option or config value is not allowed."""


class DataError(SynqueError, ValueError):
    """A file, line, field or example is not usable."""


class EncoderError(SynqueError):
    """An encoder cannot be loaded, or what it returned is not usable."""


class LLMError(SynqueError):
    """A language model cannot be loaded, or its answers are not usable."""


class ProxyError(SynqueError):
    """A proxy cannot score what it was given."""


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
    """A trainer, DataModule or callback is of the wrong kind, or used at the wrong time."""


class RecordError(SynqueError):
    """A run folder, ranking file or run store cannot be read or written."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error sentence: the closest allowed name, and all of them.

    Example:
        >>> did_you_mean("padd", ["mmd", "pad"])
        "did you mean 'pad'? There are: mmd, pad"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{'There' if hint else 'there'} are: {', '.join(names)}"
