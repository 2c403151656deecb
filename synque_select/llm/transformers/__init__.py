"""Language models in this process, run by the transformers library.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.llm.transformers.engine import TransformersLLM

__all__ = ["TransformersLLM"]

__getattr__ = lazy_names(__name__, {"TransformersLLM": "engine"})
