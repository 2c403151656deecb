"""LENS on the benchmark with your own models: prompts and rubrics that fit each ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from synque_select.benchmark.case_scores import Case
from synque_select.benchmark.judgments import released_rubrics
from synque_select.errors import ConfigError
from synque_select.lens.config import LensConfig
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.lens import Lens, with_lens
from synque_select.proxies.registry import ProxySpec, default_suite, get_proxy

__all__ = ["LensRubrics", "fitted", "with_models"]

LensRubrics = Literal["released", "new"]
_ABLATIONS = ("lens", "lens_raw", "lens_balanced", "lens_zero_shot")
_PROMPTS = {"sentiment_analysis": "text", "text2sql": "text2sql", "web_agent": "web"}


def with_models(
    proxies: Sequence[ProxySpec] | None,
    lens: LensConfig | Mapping[str, object] | str | Path | None,
    rubrics: LensRubrics,
    max_samples: int | None,
    *,
    progress: bool,
) -> Sequence[ProxySpec] | None:
    """Give a suite the models that judge for LENS.

    Args:
        proxies: As for `rank`; None for the default suite, LENS and its ablations.
        lens: How LENS is computed; None for the released judgments.
        rubrics: Whether to judge by the released rubrics or by new ones.
        max_samples: Number of examples judged per candidate; None for the value in `lens`.
        progress: Whether to show progress.

    Raises:
        ConfigError: `rubrics` or `max_samples` is given without `lens`, or a value is not allowed.
    """
    if rubrics not in get_args(LensRubrics):
        raise ConfigError(f"lens_rubrics={rubrics!r}: allowed is released or new")
    if lens is None:
        if max_samples is not None or rubrics == "released":
            raise ConfigError(
                "lens_rubrics='released' and max_samples= need lens=, the models that judge; "
                "without lens=, the released judgments are used unchanged"
            )
        return proxies
    config = LensConfig.read(lens)
    if max_samples is not None:
        config = dataclasses.replace(config, max_samples=max_samples)
    if proxies is None:
        # the bounds of adaptive judging hold for means of judgments only
        ablations = [k for k in _ABLATIONS if config.adaptive is None or k != "lens_balanced"]
        proxies = [*default_suite("text"), *ablations]
    return with_lens(proxies, config, progress=progress)


def fitted(
    folders: Mapping[str, Path], rubrics: LensRubrics, case: Case, proxy: BaseProxy
) -> BaseProxy:
    """Return a LENS proxy with the prompts of the case's task, and its rubrics if requested.

    Args:
        folders: Task name to its folder.
        rubrics: Whether to judge by the released rubrics or by new ones.
        case: The ranking that is scored.
        proxy: Any proxy; those other than LENS are returned unchanged.

    Raises:
        DataError: The released rubrics are requested and missing.
    """
    if not isinstance(proxy, Lens):
        return proxy
    config = proxy.config
    if config.prompts is None:
        config = dataclasses.replace(config, prompts=_PROMPTS[case.task])
    if rubrics == "released" and not config.zero_shot:
        released = released_rubrics(folders[case.task], case.group, case.seed)
        config = dataclasses.replace(config, rubrics=released)
    return get_proxy(proxy.key, config=config)
