"""An extension of griffe, which reads the docstrings for the documentation site.

Griffe renders doctests as code under the heading "Examples:" only; ours are under "Example:".
"""

from __future__ import annotations

import re

import griffe


class ExampleSections(griffe.Extension):
    """Read "Example:" as "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
