"""Language models behind Anthropic's API.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.llm.anthropic.engine import AnthropicLLM

__all__ = ["AnthropicLLM"]

__getattr__ = lazy_names(__name__, {"AnthropicLLM": "engine"})
