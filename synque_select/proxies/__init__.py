"""Proxies, which score candidates against the real sample.

Modules are imported when one of their names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.proxies.base import BaseProxy, Contributions, ProxyInput, ProxyScores
    from synque_select.proxies.baselines import (
        BaselineDistinct,
        BaselineEntropy,
        BaselineLength,
        BaselineSize,
        BaselineSpread,
        BaselineVocabulary,
    )
    from synque_select.proxies.divergence import MAUVE, Frechet, MAUVEStar
    from synque_select.proxies.diversity import MDM
    from synque_select.proxies.domain import PAD
    from synque_select.proxies.kernel import MMD, Energy
    from synque_select.proxies.lens import Lens, LensBalanced, LensRaw, LensZeroShot, with_lens
    from synque_select.proxies.lexical import NGram
    from synque_select.proxies.neighbours import Coverage, Density, KNNCoverage
    from synque_select.proxies.registry import (
        ProxySpec,
        default_suite,
        get_proxy,
        proxy_keys,
        register_proxy,
        required_options,
        resolve_suite,
    )
    from synque_select.proxies.sql_validity import SQLValidity
    from synque_select.proxies.transfer import Agreement, BaselineTransfer, Transfer

__all__ = [
    "MAUVE",
    "MDM",
    "MMD",
    "PAD",
    "Agreement",
    "BaseProxy",
    "BaselineDistinct",
    "BaselineEntropy",
    "BaselineLength",
    "BaselineSize",
    "BaselineSpread",
    "BaselineTransfer",
    "BaselineVocabulary",
    "Contributions",
    "Coverage",
    "Density",
    "Energy",
    "Frechet",
    "KNNCoverage",
    "Lens",
    "LensBalanced",
    "LensRaw",
    "LensZeroShot",
    "MAUVEStar",
    "NGram",
    "ProxyInput",
    "ProxyScores",
    "ProxySpec",
    "SQLValidity",
    "Transfer",
    "default_suite",
    "get_proxy",
    "proxy_keys",
    "register_proxy",
    "required_options",
    "resolve_suite",
    "with_lens",
]

__getattr__ = lazy_names(
    __name__,
    {
        "MAUVE": "divergence",
        "MDM": "diversity",
        "MMD": "kernel",
        "PAD": "domain",
        "Agreement": "transfer",
        "BaseProxy": "base",
        "BaselineDistinct": "baselines",
        "BaselineEntropy": "baselines",
        "BaselineLength": "baselines",
        "BaselineSize": "baselines",
        "BaselineSpread": "baselines",
        "BaselineTransfer": "transfer",
        "BaselineVocabulary": "baselines",
        "Contributions": "base",
        "Coverage": "neighbours",
        "Density": "neighbours",
        "Energy": "kernel",
        "Frechet": "divergence",
        "KNNCoverage": "neighbours",
        "Lens": "lens",
        "LensBalanced": "lens",
        "LensRaw": "lens",
        "LensZeroShot": "lens",
        "MAUVEStar": "divergence",
        "NGram": "lexical",
        "ProxyInput": "base",
        "ProxyScores": "base",
        "ProxySpec": "registry",
        "SQLValidity": "sql_validity",
        "Transfer": "transfer",
        "default_suite": "registry",
        "get_proxy": "registry",
        "proxy_keys": "registry",
        "register_proxy": "registry",
        "required_options": "registry",
        "resolve_suite": "registry",
        "with_lens": "lens",
    },
)
