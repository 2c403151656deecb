"""Messages about views that were chosen because none was given."""

from __future__ import annotations

from collections.abc import Sequence

from synque_select.data.examples import Examples
from synque_select.utils.wording import listed

__all__ = ["view_messages"]


def view_messages(parts: Sequence[Examples]) -> tuple[str, ...]:
    """Say which view was chosen for records of a known format, once per format.

    Args:
        parts: The candidates and the real sample.

    Example:
        >>> record = {"prompt": "Say hi", "completion": "Hi"}
        >>> view_messages([Examples("a", [record, record])])
        ('a: the view is prompt, as the examples are prompts with answers. Others: completion, \
prompt+completion (view=, or --view).',)
    """
    by_choice: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for part in parts:
        if part.choice is not None and part.choice.kind:
            kind, view = part.choice.kind, str(part.choice.selector)
            by_choice.setdefault((kind, view, part.choice.others), []).append(part.name)
    return tuple(
        f"{listed(names)}: the view is {view}, as the examples are {kind}."
        + (f" Others: {', '.join(others)} (view=, or --view)." if others else "")
        for (kind, view, others), names in by_choice.items()
    )
