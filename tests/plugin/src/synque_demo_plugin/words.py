"""A helper in a module of its own: the proxy's cached scores depend on it too."""

from __future__ import annotations


def words(views, min_length):
    """Return the distinct words of some texts."""
    return {w for view in views for w in view.lower().split() if len(w) >= min_length}
