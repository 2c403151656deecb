"""A model's cache of keys and values, under the name it has in the release of transformers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel
    from transformers.utils.generic import ModelOutput

__all__ = ["cache_arguments", "cache_of", "drop_last"]


def cache_arguments(model: PreTrainedModel, cache: Cache | None) -> dict[str, Any]:
    """Return the arguments with which a model continues from a cache and extends it.

    From 5.24 on, transformers calls the argument `cache`; models with code of their own may still
    call it `past_key_values`, as all did before.

    Args:
        model: A model of transformers.
        cache: Result of `cache_of`; None to start without one.
    """
    return {_argument_name(type(model).forward): cache, "use_cache": True}


# cached, because it is asked for with every token
@functools.cache
def _argument_name(forward: Callable[..., object]) -> str:
    parameters = inspect.signature(forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def cache_of(output: ModelOutput) -> Cache:
    """Return the cache in the output of a model."""
    cache: Cache = output["cache" if "cache" in output else "past_key_values"]
    return cache


def drop_last(cache: Cache, n_tokens: int) -> None:
    """Remove the last tokens from a cache."""
    if n_tokens > 0:
        # a positive length means different things in different versions of transformers
        cache.crop(-n_tokens)
