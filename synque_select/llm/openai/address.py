"""Addresses of servers and names of variables as they may be shown: without anything secret."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from synque_select.errors import ConfigError
from synque_select.utils.validation import kind_of

__all__ = [
    "Address",
    "Secrets",
    "check_key_variable",
    "parse_address",
    "shown_address",
    "shown_variable",
]

# parts of a path that every server of this protocol may have; any other part may be a key
_PLAIN = re.compile(r"v\d+(?:alpha|beta)?\d*|api|openai")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USUAL_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
# a part of a name that is this long and has digits or both cases looks like a key
_LONG = 16
_WORD = re.compile(r"[^\s\"'`]+")
_STARS = "***"  # what a server writes of a key that it hides itself: sk-ab***yz
# other ways to hide the middle of a key; then its ends must be those of a secret
_GAP = re.compile(
    r"(?<![\w+/=~-])([\w+/=~-]*?)"
    r"(?:\*{2,}|\.{2,}|…|[•·●█]|\#{2,}|[xX]{3,}|\[\w+\]|<\w+>)+"
    r"([\w+/=~-]*)"
)
_LEAST_END = 3  # characters of an end
_LEAST = 6  # characters of a part of a path or query that is hidden wherever it occurs
_LEAST_RUN = 8  # characters of a part of a long secret
_MASK = "…"
_NO_ADDRESS = "is not the address of a server: allowed is http://… or https://…"
# loggers of the packages that send requests: their records contain addresses
_LOGGERS = ("httpx", "httpx2", "openai", "anthropic", "httpcore.http11", "httpcore2.http11")


@dataclass(frozen=True)
class Address:
    """Address of a server.

    Args:
        base: The address without its query.
        query: Names and values of the query, which are sent with every request.
        shown: The address as messages and files show it: unusual parts of the path, the query, and
            parts of the host's name that look like keys are replaced by "…"; a fragment is left
            out.
        secrets: Texts that messages must not contain.
    """

    base: str
    query: dict[str, str]
    shown: str
    secrets: tuple[str, ...]


def parse_address(name: str, url: str) -> Address:
    """Parse the address of a server; errors do not show it.

    Args:
        name: What the address is, for messages: "base_url".
        url: The address.

    Raises:
        ConfigError: It is not an address of HTTP, or contains a user name or password.

    Example:
        >>> parse_address("base_url", "https://host/tenant-7f3a/v1?key=abc").shown
        'https://host/…/v1?…'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"{name} {_NO_ADDRESS}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ConfigError(f"{name} {_NO_ADDRESS}")
    if "…" in url:
        raise ConfigError(
            f"{name} contains '…', which replaces what may be a key where configs are saved: give "
            "the whole address"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            f"{name} contains a user name or password: set the key in the environment instead"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    hidden = [part for part in parts.path.split("/") if part and not _PLAIN.fullmatch(part)]
    # a part of a query without "=", such as "?abc", may be a key of its own
    given = [value or name for name, value in query.items()]
    secrets = [part for part in (*hidden, *given) if len(part) >= _LEAST]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    labels = host.split(".")
    secrets += [parts.fragment, *(label for label in labels if _is_label_a_key(label))]
    shown_host = ".".join(_MASK if _is_label_a_key(label) else label for label in labels)
    end = "" if port is None else f":{port}"
    path = "/".join(_MASK if part in hidden else part for part in parts.path.split("/"))
    shown = f"{parts.scheme}://{shown_host}{end}{path}{'?…' if parts.query else ''}"
    base = f"{parts.scheme}://{host}{end}{parts.path}"
    return Address(base, query, shown, tuple(filter(None, secrets)))


def _is_label_a_key(label: str) -> bool:
    """Whether a part of the name of a host looks like a key, such as "sk-0123456789abcdef0123"."""
    if label.startswith("["):
        return False  # an address of IPv6
    n_digits = sum(c.isdigit() for c in label)
    return any(
        len(part) >= _LONG and not part.isdigit() and any(c.isdigit() for c in part)
        for part in label.split("-")
    ) or (len(label) > _LONG + 4 and n_digits >= _LEAST)


def shown_address(url: object) -> str:
    """Return an address as it may be shown; "…" if it is not one.

    Example:
        >>> shown_address("http://localhost:8000/v1"), shown_address("http://me:pw@host/v1")
        ('http://localhost:8000/v1', '…')
    """
    try:
        return parse_address("base_url", str(url)).shown
    except ConfigError:
        return _MASK


def check_key_variable(name: object) -> str:
    """Return the name of the environment variable with the key, if it is a name.

    Raises:
        ConfigError: It is not a name, or looks like a key; then the message does not show it.
    """
    if not (isinstance(name, str) and name):
        kind = "an empty text" if name == "" else kind_of(name)  # not its value: [sk-…] is a list
        raise ConfigError(f"key_variable is {kind}: allowed is the name of an environment variable")
    if name not in os.environ and (not _NAME.fullmatch(name) or _looks_like_key(name)):
        raise ConfigError(
            "key_variable is not the name of an environment variable, and may be a key, so it is "
            "not shown: put the key into a variable such as OPENAI_API_KEY, and give its name"
        )
    return name


def _looks_like_key(name: str) -> bool:
    return any(
        len(part) >= _LONG and (any(c.isdigit() for c in part) or part.upper() != part)
        for part in name.split("_")
    )


def shown_variable(name: object) -> str:
    """Return the name of a variable as it may be shown: "…" unless it is usual, or is set.

    Example:
        >>> shown_variable("OPENAI_API_KEY"), shown_variable("hf_abc")
        ('OPENAI_API_KEY', '…')
    """
    text = str(name)
    usual = _USUAL_NAME.fullmatch(text) and not _looks_like_key(text)
    return text if usual or text in os.environ else _MASK


class Secrets:
    """Texts that must not reach a message or a file.

    Args:
        texts: The texts; empty ones are ignored.

    Example:
        >>> Secrets(["sk-abc"]).mask("the key sk-abc, or sk-a***bc, is wrong")
        'the key …, or …, is wrong'
    """

    def __init__(self, texts: Iterable[str | None]) -> None:
        plain = {text for text in texts if text}
        # a longer one first, or it would be replaced in part
        longest = sorted(plain.union(*map(_encoded, plain)), key=lambda text: (-len(text), text))
        self._pattern = re.compile("|".join(map(_anyhow, longest))) if longest else None
        self._plain = sorted(plain | set(map(unquote, plain)))

    def mask(self, text: str) -> str:
        """Return a text with every secret replaced by "…", however it is quoted.

        So are parts of it: 8 characters or more of one of 16 or more, and what is left where a
        server hides its middle.
        """
        if self._pattern is None:
            return text
        masked = self._pattern.sub(_MASK, text)
        masked = _GAP.sub(lambda match: _MASK if self._is_cut(match) else match[0], masked)
        masked = self._without_runs(masked)
        # a pattern with the stars in it would take quadratic time on a text without spaces
        return _WORD.sub(lambda word: _MASK if _STARS in word[0] else word[0], masked)

    def mask_whole(self, text: str) -> str:
        """Return an answer without the secrets that it repeats as a whole.

        Answers are kept, and their own words must not change: a secret of letters only, or of fewer
        than 8 characters, may be a word such as "models".

        Example:
            >>> Secrets(["sk-abc123", "models"]).mask_whole("Of models: key sk-abc123.")
            'Of models: key ….'
        """
        for secret in sorted(self._plain, key=len, reverse=True):
            if len(secret) >= _LEAST_RUN and not secret.isalpha():
                text = text.replace(secret, _MASK)
        return text

    def _without_runs(self, text: str) -> str:
        """Mask what is also a part of a long secret."""
        hidden: set[int] = set()
        for secret in self._plain:
            for i in range(len(secret) - _LEAST_RUN + 1 if len(secret) >= _LONG else 0):
                run = secret[i : i + _LEAST_RUN]
                at = text.find(run)
                while at >= 0:
                    hidden.update(range(at, at + _LEAST_RUN))
                    at = text.find(run, at + 1)
        if not hidden:
            return text
        return "".join(
            c if i not in hidden else "" if i - 1 in hidden else _MASK for i, c in enumerate(text)
        )

    def _is_cut(self, match: re.Match[str]) -> bool:
        before, after = match[1], match[2]
        return any(
            before.endswith(secret[:n]) or after.startswith(secret[-n:])
            for secret in self._plain
            for n in range(_LEAST_END, len(secret) + 1)
        )

    @contextmanager
    def out_of_logs(self) -> Iterator[None]:
        """Mask the records that the packages below this one log while the body runs."""
        mask = _MaskingFilter(self)
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(mask)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(mask)


class _MaskingFilter(logging.Filter):
    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._secrets.mask(record.getMessage()), ()
        return True


def _encoded(text: str) -> set[str]:
    """Return a text as it may be hashed, in one case, or in base64, wherever it begins there."""
    if len(text) < _LEAST:
        return set()
    data = text.encode(errors="replace")
    forms = {text.lower(), text.upper(), hashlib.sha256(data).hexdigest()}
    for before in range(3):
        # characters that also hold bits of what stands before or behind are left out
        first, bits = -(-8 * before // 6), 8 * (before + len(data))
        packed = base64.b64encode(bytes(before) + data).decode()[first : bits // 6]
        forms |= {packed, packed.replace("+", "-").replace("/", "_")}
    return forms


def _anyhow(text: str) -> str:
    """Return a pattern of a text as it may be written in an address, in JSON, or in Python."""
    plain = unquote(text)
    chars = [
        f"(?:{re.escape(c)}|(?i:{''.join(f'%{byte:02x}' for byte in c.encode(errors='replace'))}))"
        for c in plain
    ]
    forms = {text, json.dumps(text)[1:-1], repr(text)[1:-1], plain.replace(" ", "+")}
    return "|".join(["".join(chars), *map(re.escape, sorted(forms, key=len, reverse=True))])
