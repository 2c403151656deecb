"""Selectors as texts, for files from which data is loaded again."""

from __future__ import annotations

import importlib

from synque_select.data.selectors import ChatView, TextsView, WordsView
from synque_select.data.views import FieldsView, Selector

__all__ = ["selector_name"]


def selector_name(selector: Selector | None) -> str | int | None:
    """Return a selector as a field, a position, fields joined by commas, or a dotted name.

    Args:
        selector: The selector; None for none.

    Returns:
        None also for a function that cannot be imported by its name, such as a lambda.

    Example:
        >>> from synque_select.data.views import fields_view
        >>> selector_name("text"), selector_name(0), selector_name(fields_view("task", "page"))
        ('text', 0, 'task,page')
        >>> selector_name(len), selector_name(lambda example: example["text"])
        ('builtins.len', None)
    """
    if selector is None or isinstance(selector, str | int):
        return selector
    if isinstance(selector, ChatView | FieldsView | TextsView | WordsView):
        return str(selector)
    module, name = (getattr(selector, key, "") for key in ("__module__", "__qualname__"))
    try:
        imported = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return f"{module}.{name}" if imported is selector and module != "__main__" else None
