"""Configs and command lines as files show them: without keys, passwords and parts of addresses."""

from __future__ import annotations

import re

from synque_select.errors import without_keys
from synque_select.llm.openai.address import shown_address, shown_variable

__all__ = ["mask_keys", "mask_secrets"]

_MASK = "…"
_ADDRESS = re.compile(r"\bhttps?://[^\s\"'<>\]}\\]+")
# names of keys, and what stands between name and value in YAML, JSON and on a command line
_KEY = (
    r"(?:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|pwd|credentials?"
    r"|authorization|(?:auth|access|hub|hf|api|bot|refresh|login)[_-]?token|(?<![\w-])token)"
)
_GIVEN = r"(?:\\?[\"'])?[ \t]*[:=][ \t]*(?:\\?[\"'])?"
_VALUE = r"(?:bearer[ \t]+)?(?P<value>[^\s\"',}\]\\]{4,})"
_NAMED = re.compile(rf"(?P<name>{_KEY}{_GIVEN}){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<name>--[\w.-]*?{_KEY}[ \t]+[\"']?)(?!-){_VALUE}", re.IGNORECASE)
_VARIABLE = re.compile(
    rf"(?P<name>key_variable(?:{_GIVEN}|[ \t]+[\"']?))(?P<value>[^\s\"',}}\]\\]+)"
)
_BASE_URL = re.compile(
    rf"(?P<name>base_url(?:{_GIVEN}|[ \t]+[\"']?)(?:[>|&!][^\s,]*\s+)*)(?P<value>https?://[^\s\"'<>\]}}\\]+)"
)
# several servers, as YAML and JSON write a list
_BASE_URLS = re.compile(
    rf"base_url(?:{_GIVEN}|[ \t]+[\"']?)\s*(?:\[[^\]]*\]|(?:\s*-[ \t]+[^\s]+)+)"
)
# not a key: a number, a word of YAML, a variable, a list or a mapping
_NO_KEY = re.compile(r"(?:\d+|null|none|true|false|~)\Z|[$*&!|>\[{<]", re.IGNORECASE)


def mask_secrets(text: str) -> str:
    """Return a config or a command line without what may be a key.

    Masked are keys of known forms, values of names such as `api_key` or `password`, user names and
    passwords in addresses, and of addresses of servers the query and unusual parts of the path.

    Args:
        text: YAML, JSON or a command line.

    Example:
        >>> mask_secrets("{base_url: http://host/tenant-7f3a/v1?key=abc, api_key: abcdef}")
        '{base_url: http://host/…/v1?…, api_key: …}'
        >>> mask_secrets("max_tokens: 400, token: true")
        'max_tokens: 400, token: true'
    """
    return mask_keys(_ADDRESS.sub(lambda match: _shown(match[0]), text))


def mask_keys(text: str) -> str:
    r"""Return a config without keys, with all other addresses than those of language models.

    Args:
        text: YAML, JSON or a command line.

    Example:
        >>> mask_keys("base_url: http://host/tenant-7f3a/v1\ntracking_uri: http://host/mlflow")
        'base_url: http://host/…/v1\ntracking_uri: http://host/mlflow'
        >>> mask_keys('"base_url": ["http://a/tenant-7f3a/v1", "http://b/v1"]')
        '"base_url": ["http://a/…/v1", "http://b/v1"]'
    """
    text = _BASE_URL.sub(lambda match: match["name"] + _shown(match["value"]), text)
    text = _BASE_URLS.sub(lambda match: _ADDRESS.sub(lambda one: _shown(one[0]), match[0]), text)
    text = without_keys(text)
    for pattern in (_NAMED, _OPTION):
        text = pattern.sub(_masked, text)
    return _VARIABLE.sub(lambda match: match["name"] + shown_variable(match["value"]), text)


def _shown(address: str) -> str:
    plain = address.rstrip(",.;:)")
    is_shown = _MASK in plain  # it has been masked before
    return address if is_shown else shown_address(plain) + address[len(plain) :]


def _masked(match: re.Match[str]) -> str:
    return match[0] if _NO_KEY.match(match["value"]) else match["name"] + _MASK
