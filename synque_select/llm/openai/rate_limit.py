"""When the next request to a server may start: its limits, its pauses, and waiting longer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

__all__ = ["RateLimiter", "backoff_s", "retry_after_s"]

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0


class RateLimiter:
    """Spaces out the starts of requests, for all requests of one engine.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: Of prompts and the longest answers asked for; None for no limit.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next = 0.0

    async def acquire(self, n_tokens: int) -> None:
        """Wait until a request of so many tokens may start."""
        start = max(time.monotonic(), self._next)
        self._next = start + max(self._request_s, n_tokens * self._token_s)
        await asyncio.sleep(max(0.0, start - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Let nothing start for a while: the server said so to one request, and means all."""
        self._next = max(self._next, time.monotonic() + seconds)


def backoff_s(n_failed: int, dice: random.Random) -> float:
    """Return how long to wait after so many failures in a row: doubling, half of it by chance.

    Example:
        >>> 2.0 <= backoff_s(4, random.Random(0)) <= 4.0
        True
        >>> backoff_s(99, random.Random(0)) <= 60
        True
    """
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (min(n_failed, 30) - 1))
    return longest * dice.uniform(0.5, 1.0)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server's Retry-After asks for, None without a usable one.

    Example:
        >>> retry_after_s({"retry-after": "2.5"}), retry_after_s({"retry-after": "soon"})
        (2.5, None)
        >>> retry_after_s({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})
        0.0
    """
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        wait_s = float(given)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(given).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, wait_s)
