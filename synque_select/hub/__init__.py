"""Models by id: from a folder, an installed package or the model hub.

A module is imported when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.hub.language_models import DEFAULT_MODEL, locate_llm
    from synque_select.hub.packaged import PackagedModel, find_packaged, packaged_help
    from synque_select.hub.resolve import (
        ModelFiles,
        content_revision,
        find_on_hub,
        resolve_model,
        split_revision,
    )

__all__ = [
    "DEFAULT_MODEL",
    "ModelFiles",
    "PackagedModel",
    "content_revision",
    "find_on_hub",
    "find_packaged",
    "locate_llm",
    "packaged_help",
    "resolve_model",
    "split_revision",
]

__getattr__ = lazy_names(
    __name__,
    {
        "DEFAULT_MODEL": "language_models",
        "ModelFiles": "resolve",
        "PackagedModel": "packaged",
        "content_revision": "resolve",
        "find_on_hub": "resolve",
        "find_packaged": "packaged",
        "locate_llm": "language_models",
        "packaged_help": "packaged",
        "resolve_model": "resolve",
        "split_revision": "resolve",
    },
)
