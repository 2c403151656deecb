"""Engines by name, imported when asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from synque_select.errors import ConfigError, did_you_mean
from synque_select.llm.base import BaseLLM

__all__ = ["LLMSpec", "check_llm", "describe_llm", "get_llm"]

LLMSpec = BaseLLM | Mapping[str, Any]

_ENGINES = {
    "openai": "synque_select.llm.openai.engine:OpenAILLM",
    "transformers": "synque_select.llm.transformers.engine:TransformersLLM",
    "vllm": "synque_select.llm.vllm.engine:VllmLLM",
}


def get_llm(spec: LLMSpec) -> BaseLLM:
    """Return an engine; nothing is loaded before it is asked something.

    Args:
        spec: An engine, which is returned as it is, or a mapping with "engine" (a name) and that
            engine's arguments.

    Raises:
        ConfigError: There is no such engine, or it has no such argument.
        LLMError: The model is nowhere to be found.

    Example:
        >>> get_llm({"engine": "transformer"})
        Traceback (most recent call last):
        ...
        synque_select.errors.ConfigError: unknown engine 'transformer': did you mean 'transformers'?
        There are: openai, transformers, vllm
    """
    if isinstance(spec, BaseLLM):
        return spec
    check_llm(spec)
    options = dict(spec)
    engine: BaseLLM = _engine(options.pop("engine"))(**options)
    return engine


def check_llm(spec: Any) -> None:
    """Refuse, before anything is made, what is no engine and no mapping that names one.

    Raises:
        ConfigError: It is something else, there is no such engine, or it has no such argument.
    """
    if isinstance(spec, BaseLLM):
        return
    if not isinstance(spec, Mapping):
        raise ConfigError(
            f"{spec!r} is no engine: allowed is an engine, or a mapping such as "
            "{'engine': 'transformers'}"
        )
    name = spec.get("engine")
    if not isinstance(name, str) or name not in _ENGINES:
        raise ConfigError(f"unknown engine {name!r}: {did_you_mean(str(name), _ENGINES)}")
    allowed = inspect.signature(_engine(name)).parameters
    for option in spec:
        if option != "engine" and option not in allowed:
            hint = did_you_mean(str(option), allowed)
            raise ConfigError(f"engine {name!r} has no argument {option!r}: {hint}")


def _engine(name: str) -> type[BaseLLM]:
    module, _, attribute = _ENGINES[name].partition(":")
    cls: type[BaseLLM] = getattr(importlib.import_module(module), attribute)
    return cls


def describe_llm(spec: LLMSpec) -> dict[str, Any]:
    """Return a specification as plain values, for records."""
    if isinstance(spec, BaseLLM):
        return {"engine": type(spec).__name__, "id": spec.id, "revision": spec.revision}
    return {**spec}
