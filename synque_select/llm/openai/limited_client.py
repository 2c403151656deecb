"""The client of the package openai, with a largest size of an answer."""

from __future__ import annotations

import openai

from synque_select.llm.openai.limited_sending import LimitedSending

__all__ = ["LimitedClient"]


class LimitedClient(LimitedSending, openai.DefaultAsyncHttpxClient):
    """The client that requests go through; see `LimitedSending`."""
