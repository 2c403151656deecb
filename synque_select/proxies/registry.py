"""Proxies by key: built in, registered, or from an installed package."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TypeVar

from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import BaseProxy
from synque_select.types.modality import Modality
from synque_select.utils.registry import Registry, check_options, named_parameters

__all__ = [
    "PROXIES",
    "ProxySpec",
    "default_suite",
    "get_proxy",
    "proxy_keys",
    "register_proxy",
    "required_options",
    "resolve_suite",
]

Proxy = TypeVar("Proxy", bound=BaseProxy)
ProxySpec = str | BaseProxy | Mapping[str, object]

_CONTRACT = ("key", "higher_is_better", "unit", "source", "family")
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


def _check_class(value: object) -> type[BaseProxy]:
    if not (inspect.isclass(value) and issubclass(value, BaseProxy)):
        raise ConfigError(f"expected a subclass of BaseProxy, got {value!r}")
    missing = [name for name in _CONTRACT if not hasattr(value, name)]
    missing += sorted(value.__abstractmethods__)
    if missing:
        raise ConfigError(f"the proxy class {value.__name__} does not define {', '.join(missing)}")
    return value


PROXIES: Registry[type[BaseProxy]] = Registry(
    "proxy",
    "synque_select.proxies",
    _BUILT_IN,
    check=_check_class,
    keys_of=lambda cls: (cls.key,),
)


def proxy_keys() -> tuple[str, ...]:
    """Return the keys of all proxies, sorted: built in, registered, or of an installed package."""
    return PROXIES.keys()


def register_proxy(cls: type[Proxy], *, overwrite: bool = False) -> type[Proxy]:
    """Make a proxy of your own known by its key; usable as a class decorator.

    Args:
        cls: A subclass of `BaseProxy` that sets the attributes of the contract.
        overwrite: Whether its key may be taken from a built-in or another registered proxy.

    Raises:
        ConfigError: The key is taken by another class, or an attribute of the contract is missing.
    """
    PROXIES.register(PROXIES.check(cls).key, cls, overwrite=overwrite)
    return cls


def get_proxy(key: str, **options: object) -> BaseProxy:
    """Return a proxy with these options.

    Args:
        key: A key, or the dotted name of a class: "my_package.MyProxy".
        options: Keyword arguments of its constructor.

    Raises:
        ConfigError: The proxy or an option is unknown, or an option without a default is missing.

    Example:
        >>> get_proxy("mmd").higher_is_better
        False
    """
    cls = PROXIES.get(key)
    check_options(f"proxy {key!r}", cls, options)
    return cls(**options)


def required_options(key: str) -> tuple[str, ...]:
    """Return the options of a proxy that have no default.

    Raises:
        ConfigError: The proxy is unknown.

    Example:
        >>> required_options("sql_validity")
        ('database',)
    """
    options = named_parameters(PROXIES.get(key))
    return tuple(option.name for option in options if option.default is option.empty)


def default_suite(modality: Modality) -> tuple[str, ...]:
    """Return the keys of the default suite: one proxy a family, fixed before figures were seen."""
    keys = ("pad", "mmd", "coverage", "ngram")
    return tuple(key for key in keys if modality in PROXIES.get(key).modalities)


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
