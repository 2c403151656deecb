"""Language models behind servers that speak OpenAI's protocol.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.llm.openai.engine import OpenAILLM

__all__ = ["OpenAILLM"]

__getattr__ = lazy_names(__name__, {"OpenAILLM": "engine"})
