"""Language models run by vLLM, in a process of their own.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.llm.vllm.engine import VllmLLM

__all__ = ["VllmLLM"]

__getattr__ = lazy_names(__name__, {"VllmLLM": "engine"})
