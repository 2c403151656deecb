"""LENS: one language model writes rubrics, another judges examples by them.

Each name is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.lens.cache import AnswerCache, default_answers_path
    from synque_select.lens.config import AdaptiveJudging, LensConfig, packaged_lens_configs
    from synque_select.lens.feedback import Feedback, feedback_of
    from synque_select.lens.prompt_sets import PromptSet, load_prompts, prompt_kinds
    from synque_select.lens.rubric import Rubric, RubricSampling, load_rubrics, save_rubrics

__all__ = [
    "AdaptiveJudging",
    "AnswerCache",
    "Feedback",
    "LensConfig",
    "PromptSet",
    "Rubric",
    "RubricSampling",
    "default_answers_path",
    "feedback_of",
    "load_prompts",
    "load_rubrics",
    "packaged_lens_configs",
    "prompt_kinds",
    "save_rubrics",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AdaptiveJudging": "config",
        "AnswerCache": "cache",
        "Feedback": "feedback",
        "LensConfig": "config",
        "PromptSet": "prompt_sets",
        "Rubric": "rubric",
        "RubricSampling": "rubric",
        "default_answers_path": "cache",
        "feedback_of": "feedback",
        "load_prompts": "prompt_sets",
        "load_rubrics": "rubric",
        "packaged_lens_configs": "config",
        "prompt_kinds": "prompt_sets",
        "save_rubrics": "rubric",
    },
)
