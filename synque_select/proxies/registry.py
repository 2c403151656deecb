"""Registry of the proxies: built-in ones, registered ones, and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from synque_select.errors import ConfigError, ProxyError
from synque_select.proxies.base import BaseProxy
from synque_select.types.modality import Modality
from synque_select.utils.registry import Registry, check_options, checked_class, named_parameters

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
    "agreement": "synque_select.proxies.transfer:Agreement",
    "baseline_distinct": "synque_select.proxies.baselines:BaselineDistinct",
    "baseline_entropy": "synque_select.proxies.baselines:BaselineEntropy",
    "baseline_length": "synque_select.proxies.baselines:BaselineLength",
    "baseline_n": "synque_select.proxies.baselines:BaselineSize",
    "baseline_spread": "synque_select.proxies.baselines:BaselineSpread",
    "baseline_transfer": "synque_select.proxies.transfer:BaselineTransfer",
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
    "transfer": "synque_select.proxies.transfer:Transfer",
}


def _check_class(value: object) -> type[BaseProxy]:
    cls: type[BaseProxy] = checked_class(value, BaseProxy, "proxy", _CONTRACT)
    return cls


PROXIES: Registry[type[BaseProxy]] = Registry(
    "proxy",
    "synque_select.proxies",
    _BUILT_IN,
    check=_check_class,
    keys_of=lambda cls: (cls.key,),
)


def proxy_keys() -> tuple[str, ...]:
    """Return the sorted keys of all proxies, those of installed packages included."""
    return PROXIES.keys()


def register_proxy(cls: type[Proxy], *, overwrite: bool = False) -> type[Proxy]:
    """Register a proxy class under its key; can be used as a class decorator.

    Args:
        cls: A subclass of `BaseProxy` that sets the required class attributes.
        overwrite: Whether to replace a built-in or registered proxy that has the same key.

    Returns:
        The class.

    Raises:
        ConfigError: The key belongs to another class, or a required attribute is missing.
    """
    PROXIES.register(PROXIES.check(cls).key, cls, overwrite=overwrite)
    return cls


def get_proxy(key: str, **options: object) -> BaseProxy:
    """Create a proxy from its key and options.

    Args:
        key: Key of the proxy, or the dotted name of its class, such as "my_package.MyProxy".
        options: Keyword arguments of the constructor.

    Raises:
        ConfigError: The proxy or an option is unknown, or a required option is missing.

    Example:
        >>> get_proxy("mmd").higher_is_better
        False
    """
    cls = PROXIES.get(key)
    check_options(f"proxy {key!r}", cls, options)
    return cls(**options)


def required_options(key: str) -> tuple[str, ...]:
    """Return the options of a proxy that have no default.

    Args:
        key: Key of the proxy.

    Raises:
        ConfigError: The proxy is unknown.

    Example:
        >>> required_options("sql_validity")
        ('database',)
    """
    options = named_parameters(PROXIES.get(key))
    return tuple(option.name for option in options if option.default is option.empty)


def default_suite(modality: Modality, *, labels: bool = False) -> tuple[str, ...]:
    """Return the keys of the default suite.

    Args:
        modality: Modality of the views; proxies that cannot score it are left out.
        labels: Whether the candidates have labels that are classes: adds `transfer` and
            `agreement`, which are columns of their own and not in the consensus.

    Example:
        >>> default_suite("image")
        ('pad', 'mmd', 'coverage')
    """
    # one proxy per family, so that no kind of evidence has two votes, and fixed before any result
    # was seen: a suite that was chosen by its correlations would look better than it is
    keys = ("pad", "mmd", "coverage", "ngram", *(("transfer", "agreement") if labels else ()))
    return tuple(key for key in keys if modality in PROXIES.get(key).modalities)


def resolve_suite(proxies: Sequence[ProxySpec] | None, modality: Modality) -> tuple[BaseProxy, ...]:
    """Return the proxies of a suite, checked for a modality.

    Args:
        proxies: Keys, instances, or mappings {"key": …, option: value}; None for the default suite.
        modality: Modality of the views.

    Raises:
        ConfigError: The list is empty, a proxy is unknown, or two proxies have the same key.
        ProxyError: A proxy cannot score the modality.
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
