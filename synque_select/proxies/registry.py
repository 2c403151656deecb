"""One registry of proxies: key to class, imported when asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from synque_select.errors import ConfigError, ProxyError, did_you_mean
from synque_select.proxies.base import BaseProxy
from synque_select.types.modality import Modality

__all__ = [
    "ProxySpec",
    "default_suite",
    "get_proxy",
    "proxy_keys",
    "register_proxy",
    "required_options",
    "resolve_suite",
]

ProxySpec = str | BaseProxy | Mapping[str, Any]

_BUILT_IN = {
    "baseline_distinct": "synque_select.proxies.baselines:BaselineDistinct",
    "baseline_entropy": "synque_select.proxies.baselines:BaselineEntropy",
    "baseline_length": "synque_select.proxies.baselines:BaselineLength",
    "baseline_n": "synque_select.proxies.baselines:BaselineSize",
    "baseline_vocabulary": "synque_select.proxies.baselines:BaselineVocabulary",
    "mauve": "synque_select.proxies.divergence:MAUVE",
    "mauve_star": "synque_select.proxies.divergence:MAUVEStar",
    "ngram": "synque_select.proxies.lexical:NGram",
    "coverage": "synque_select.proxies.neighbours:Coverage",
    "density": "synque_select.proxies.neighbours:Density",
    "energy": "synque_select.proxies.kernel:Energy",
    "frechet": "synque_select.proxies.divergence:Frechet",
    "knn_coverage": "synque_select.proxies.neighbours:KNNCoverage",
    "lens": "synque_select.proxies.lens:Lens",
    "lens_balanced": "synque_select.proxies.lens:LensBalanced",
    "lens_raw": "synque_select.proxies.lens:LensRaw",
    "lens_zero_shot": "synque_select.proxies.lens:LensZeroShot",
    "mdm": "synque_select.proxies.diversity:MDM",
    "mmd": "synque_select.proxies.kernel:MMD",
    "pad": "synque_select.proxies.domain:PAD",
    "sql_validity": "synque_select.proxies.sql_validity:SQLValidity",
}
_registered: dict[str, type[BaseProxy]] = {}


def proxy_keys() -> tuple[str, ...]:
    """Return the keys of all proxies, built in and registered, sorted."""
    return tuple(sorted({*_BUILT_IN, *_registered}))


def register_proxy(cls: type[BaseProxy]) -> type[BaseProxy]:
    """Make a user's proxy known by its key; usable as a class decorator.

    Raises:
        ConfigError: The key is taken by another class, or an attribute of the contract is missing.
    """
    for attribute in ("key", "higher_is_better", "unit", "source", "family"):
        if not hasattr(cls, attribute):
            raise ConfigError(f"proxy class {cls.__name__} does not set {attribute}")
    known = _registered.get(cls.key)
    if cls.key in _BUILT_IN or (known is not None and known is not cls):
        raise ConfigError(f"the proxy key {cls.key!r} is taken")
    _registered[cls.key] = cls
    return cls


def get_proxy(key: str, **options: Any) -> BaseProxy:
    """Return the proxy of that key with these options.

    Raises:
        ConfigError: There is no such proxy, it has no such option (the message lists what is), or
            one that it needs is not given.

    Example:
        >>> get_proxy("mmd").higher_is_better
        False
    """
    cls = _class_of(key)
    allowed = inspect.signature(cls).parameters
    for option in options:
        if option not in allowed:
            raise ConfigError(
                f"proxy {key!r} has no option {option!r}: {did_you_mean(option, allowed)}"
            )
    missing = [name for name in required_options(key) if name not in options]
    if missing:
        raise ConfigError(f"proxy {key!r} needs {', '.join(f'{name}=…' for name in missing)}")
    return cls(**options)


def required_options(key: str) -> tuple[str, ...]:
    """Return the options of a proxy that have no default.

    Raises:
        ConfigError: There is no such proxy.

    Example:
        >>> required_options("sql_validity")
        ('database',)
    """
    parameters = inspect.signature(_class_of(key)).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(p.name for p in named if p.default is p.empty)


def _class_of(key: str) -> type[BaseProxy]:
    if key not in proxy_keys():
        raise ConfigError(f"unknown proxy {key!r}: {did_you_mean(key, proxy_keys())}")
    return _registered.get(key) or _load(_BUILT_IN[key])


def _load(path: str) -> type[BaseProxy]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def default_suite(modality: Modality) -> tuple[str, ...]:
    """Return the keys of the default suite: one proxy a family, fixed before figures were seen."""
    keys = ("pad", "mmd", "coverage", "ngram")
    return tuple(key for key in keys if modality in _load(_BUILT_IN[key]).modalities)


def resolve_suite(proxies: Sequence[ProxySpec] | None, modality: Modality) -> tuple[BaseProxy, ...]:
    """Turn what a user gave into proxies that can score the modality.

    Args:
        proxies: Keys, instances, or mappings {"key": …, option: value}; None for the default.
        modality: What the views are.

    Raises:
        ConfigError: None is given, one is unknown, or two have the same key.
        ProxyError: One cannot score the modality.
    """
    if isinstance(proxies, str | Mapping | BaseProxy):
        raise ConfigError(f"proxies={proxies!r}: allowed is a list, such as ['pad', 'mmd']")
    suite = tuple(
        _resolve(spec) for spec in (default_suite(modality) if proxies is None else proxies)
    )
    if not suite:
        raise ConfigError("no proxies given")
    keys = [proxy.key for proxy in suite]
    double = sorted({key for key in keys if keys.count(key) > 1})
    if double:
        raise ConfigError(f"given more than once: {', '.join(double)}")
    for proxy in suite:
        if modality not in proxy.modalities:
            raise ProxyError(f"the proxy {proxy.key!r} cannot score views that are {modality}s")
    return suite


def _resolve(spec: ProxySpec) -> BaseProxy:
    if isinstance(spec, BaseProxy):
        return spec
    if isinstance(spec, str):
        return get_proxy(spec)
    if not isinstance(spec, Mapping):
        raise ConfigError(
            f"a proxy is a key, an instance of BaseProxy or a mapping with 'key', found {spec!r}"
        )
    options = dict(spec)
    key = options.pop("key", None)
    if not isinstance(key, str):
        raise ConfigError(f"a proxy given as a mapping needs a 'key', found {dict(spec)!r}")
    return get_proxy(key, **options)
