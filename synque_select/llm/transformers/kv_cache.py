"""A model's cache of keys and values, under the name that its release of transformers gives it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["cache_of", "forget", "going_on"]


def going_on(model: Any, cache: Any) -> dict[str, Any]:
    """Return the arguments with which a model reads on behind a cache, and keeps what it reads.

    From 5.24 on, transformers calls the cache `cache`; models that bring their own code may call it
    `past_key_values` still, as all did before.

    Args:
        model: Of transformers.
        cache: From `cache_of`; None to begin anew.
    """
    return {_name(type(model).forward): cache, "use_cache": True}


@functools.cache  # asked for with every token
def _name(forward: Callable[..., Any]) -> str:
    parameters = inspect.signature(forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def cache_of(output: Any) -> Any:
    """Return the cache in what a model gave."""
    return output["cache" if "cache" in output else "past_key_values"]


def forget(cache: Any, n_tokens: int) -> None:
    """Drop the last tokens of a cache."""
    if n_tokens > 0:
        # a positive length means different things in different versions of transformers
        cache.crop(-n_tokens)
