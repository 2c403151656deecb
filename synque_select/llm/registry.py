"""Engines by key: built in, registered, or from an installed package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from synque_select.errors import ConfigError
from synque_select.llm.base import BaseLLM
from synque_select.llm.openai.address import shown_address, shown_variable
from synque_select.utils.registry import Registry, check_options, checked_class
from synque_select.utils.wording import one_line

__all__ = ["ENGINES", "LLMSpec", "check_llm", "describe_llm", "get_llm", "register_engine"]

Engine = TypeVar("Engine", bound=BaseLLM)
LLMSpec = BaseLLM | Mapping[str, object]

_BUILT_IN = {
    "anthropic": "synque_select.llm.anthropic.engine:AnthropicLLM",
    "openai": "synque_select.llm.openai.engine:OpenAILLM",
    "transformers": "synque_select.llm.transformers.engine:TransformersLLM",
    "vllm": "synque_select.llm.vllm.engine:VllmLLM",
}


def _check_class(value: object) -> type[BaseLLM]:
    cls: type[BaseLLM] = checked_class(value, BaseLLM, "engine")
    return cls


ENGINES: Registry[type[BaseLLM]] = Registry(
    "engine", "synque_select.engines", _BUILT_IN, check=_check_class
)


def register_engine(key: str, *, overwrite: bool = False) -> Callable[[type[Engine]], type[Engine]]:
    """Register a custom engine under a key; used as a class decorator.

    Args:
        key: Key to select the engine with "engine" in a LENS config.
        overwrite: Whether the engine may replace a built-in or registered engine.

    Raises:
        ConfigError: The key is taken, or the class is not a complete engine.

    Example:
        >>> @register_engine("openai")
        ... class Mine(BaseLLM):
        ...     def generate(self, prompts, **options): ...
        ...     def choice_probabilities(self, shared_prefix, items, suffixes, choices): ...
        Traceback (most recent call last):
        ...
        synque_select.errors.ConfigError: the engine key 'openai' is taken (built in): choose
        another key, or register with overwrite=True to replace it
    """

    def register(cls: type[Engine]) -> type[Engine]:
        ENGINES.register(key, cls, overwrite=overwrite)
        return cls

    return register


def get_llm(spec: LLMSpec) -> BaseLLM:
    """Return an engine; its model is loaded when it is first used.

    Args:
        spec: An engine, which is returned unchanged, or a mapping with "engine" (a key, or the
            dotted name of a class) and that engine's options.

    Raises:
        ConfigError: The engine or an option is unknown, or an option without a default is missing.
        LLMError: The model cannot be found.

    Example:
        >>> get_llm({"engine": "transformer"})
        Traceback (most recent call last):
        ...
        synque_select.errors.ConfigError: unknown engine 'transformer': did you mean 'transformers'?
        There are: anthropic, openai, transformers,
        vllm
    """
    if isinstance(spec, BaseLLM):
        return spec
    check_llm(spec)
    options = {name: value for name, value in spec.items() if name != "engine"}
    return ENGINES.get(str(spec["engine"]))(**options)


def check_llm(spec: object) -> None:
    """Check that a value names an engine and valid options, without creating the engine.

    Raises:
        ConfigError: It is neither an engine nor a mapping, the engine or an option is unknown, or
            an option without a default is missing.
    """
    if isinstance(spec, BaseLLM):
        return
    if not isinstance(spec, Mapping):
        # an address may contain a key
        shown = type(spec).__name__ if "://" in str(spec) else one_line(repr(spec), 80)
        raise ConfigError(
            f"{shown} is not an engine: allowed is an engine, or a mapping such as "
            "{'engine': 'transformers'}"
        )
    name = spec.get("engine")
    cls = ENGINES.get(name if isinstance(name, str) else repr(name))
    options = [str(option) for option in spec if option != "engine"]
    check_options(f"engine {name!r}", cls, options)


def describe_llm(spec: LLMSpec) -> dict[str, object]:
    """Return a specification as plain values, for records: without anything that may be a key.

    Example:
        >>> describe_llm({"engine": "openai", "base_url": "https://host/v1?key=abc"})
        {'engine': 'openai', 'base_url': 'https://host/v1?…'}
    """
    if isinstance(spec, BaseLLM):
        return {"engine": type(spec).__name__, "id": spec.id, "revision": spec.revision}
    shown = dict(spec)
    address, variable = shown.get("base_url"), shown.get("key_variable")
    if isinstance(address, list | tuple):
        shown["base_url"] = [shown_address(one) for one in address]
    elif address is not None:
        shown["base_url"] = shown_address(address)
    if variable is not None:
        shown["key_variable"] = shown_variable(variable)
    return shown
