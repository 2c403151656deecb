"""Language models behind one interface.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.llm.anthropic.engine import AnthropicLLM
    from synque_select.llm.base import BaseLLM, Failure, Usage, check_choices, check_constraint
    from synque_select.llm.openai.engine import OpenAILLM
    from synque_select.llm.prompt import Prompt, PromptLike
    from synque_select.llm.registry import LLMSpec, get_llm, register_engine
    from synque_select.llm.scripted import ScriptedLLM
    from synque_select.llm.transformers.engine import TransformersLLM
    from synque_select.llm.vllm.engine import VllmLLM

__all__ = [
    "AnthropicLLM",
    "BaseLLM",
    "Failure",
    "LLMSpec",
    "OpenAILLM",
    "Prompt",
    "PromptLike",
    "ScriptedLLM",
    "TransformersLLM",
    "Usage",
    "VllmLLM",
    "check_choices",
    "check_constraint",
    "get_llm",
    "register_engine",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AnthropicLLM": "anthropic.engine",
        "BaseLLM": "base",
        "Failure": "base",
        "LLMSpec": "registry",
        "OpenAILLM": "openai.engine",
        "Prompt": "prompt",
        "PromptLike": "prompt",
        "ScriptedLLM": "scripted",
        "TransformersLLM": "transformers.engine",
        "Usage": "base",
        "VllmLLM": "vllm.engine",
        "check_choices": "base",
        "check_constraint": "base",
        "get_llm": "registry",
        "register_engine": "registry",
    },
)
