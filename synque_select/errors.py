"""The exceptions of the library, all derived from `SynqueError`.

SynqueError
├── ConfigError        an argument, option or config value is not allowed (also a ValueError)
│   └── BudgetError    a policy needs more evaluations than the budget allows
├── DataError          a file, line, field or example is invalid (also a ValueError)
├── EncoderError       a model cannot be loaded, or its embeddings are invalid
├── LLMError           a language model cannot be loaded, or its answers are invalid
├── ProxyError         a proxy cannot score the data that it was given
├── DependencyError    an optional package is missing (also an ImportError)
├── LightningError     a Trainer, DataModule or callback is of the wrong type or misused
├── ExecutorError      work cannot be sent to other processes or machines, or failed there
└── RecordError        a run directory, ranking file or run store cannot be read or written
    └── NotSavedError  a result cannot be written; the error holds it
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "EncoderError",
    "ExecutorError",
    "LLMError",
    "LightningError",
    "NotSavedError",
    "ProxyError",
    "RecordError",
    "SynqueError",
    "did_you_mean",
    "without_keys",
]

# keys as they are issued: by their known beginnings, as tokens of the web, and otherwise by their
# length and mixture of characters; not in paths, where folders may have such names
_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:proj|ant|or|svcacct|admin|live|test)[-_][\w.+/=-]{3,}"
    r"|sk-(?=[A-Za-z]*\d)[A-Za-z0-9]{8,}[\w-]*"
    r"|sk-[A-Za-z0-9]{20,}[\w-]*"
    r"|(?:hf|gsk|ghp|gho|ghs|github_pat|glpat|xai|pplx|nvapi|fw|r8|tgp_v1|csk)[-_]"
    r"(?=[A-Za-z]*\d)[A-Za-z0-9]{8,}[\w-]*"
    r"|(?:hf|gsk|ghp|glpat|xai|pplx|nvapi)[-_][A-Za-z0-9]{20,}[\w-]*"
    r"|AIza[\w-]{20,}"
    r"|eyJ[\w-]{10,}\.[\w.-]{10,}"
    r"|(?<![\w/.\\-])(?=[A-Za-z]*\d)(?=[A-Z0-9]*[a-z])(?=[a-z0-9]*[A-Z])"
    r"(?=(?:[A-Za-z]*\d){3})[A-Za-z0-9]{24,}(?![\w/.\\-])"
    r")"
)
# of addresses, also of databases: user and password, and the query
_USER = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_QUERY = re.compile(
    r"(\b[A-Za-z][\w+.-]{0,30}://[^\s?\"'<>]{0,1000}\?)(?!…)[^\s\"'<>]*[^\s\"'<>,.;:)]"
)

# of a value such as a cell of 100 kB, the beginning and the end are enough; nearly all paths are
# shorter, and are shown as a whole
_MOST_OF_A_VALUE, _VALUE_ENDS = 400, (160, 60)
_LONG_VALUE = re.compile(
    rf"\S{{{_MOST_OF_A_VALUE},}}"
    + "".join(rf"|(?<!\w){q}(?:[^{q}\\\n]|\\.){{{_MOST_OF_A_VALUE},}}{q}" for q in "'\"")
)
_MOST_OF_A_MESSAGE, _MESSAGE_ENDS = 3000, (2000, 900)


class SynqueError(Exception):
    """Base class of all exceptions of this library.

    Keys in a message, which a config may have at a wrong place, are replaced by "…", and long
    values by their beginning and end.

    Example:
        >>> str(SynqueError("max_retries='sk-proj-a1b2c3d4': allowed is a whole number from 0"))
        "max_retries='…': allowed is a whole number from 0"
        >>> len(str(SynqueError(f"top_k={'9' * 4000}: allowed is a whole number from 1")))
        254
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_shown(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(SynqueError, ValueError):
    """An argument, option or config value is not allowed."""


class BudgetError(ConfigError):
    """A policy needs more evaluations of the model than the budget allows by now.

    Attributes:
        needed: Number of examples that may have been evaluated when it is asked again.
    """

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


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


class ExecutorError(SynqueError):
    """Work cannot be sent to other processes or machines, or failed there."""


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


def without_keys(text: str) -> str:
    """Return a text with "…" for everything in it that looks like a key of a server.

    So are a user name, a password and a query in an address.

    Example:
        >>> without_keys("unknown engine 'sk-proj-a1b2c3d4'")
        "unknown engine '…'"
        >>> without_keys("postgresql://me:secret@host/db?password=secret")
        'postgresql://…@host/db?…'
    """
    return _QUERY.sub(r"\1…", _USER.sub("…@", _KEYS.sub("…", text)))


def _shown(message: str) -> str:
    # keys first: the rest of half a key would not be known as one
    message = without_keys(message)
    if len(message) < _MOST_OF_A_VALUE:
        return message
    message = _LONG_VALUE.sub(lambda match: _ends(match[0], *_VALUE_ENDS), message)
    return _ends(message, *_MESSAGE_ENDS) if len(message) > _MOST_OF_A_MESSAGE else message


def _ends(text: str, n_first: int, n_last: int) -> str:
    return f"{text[:n_first]}…{text[-n_last:]}"


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
