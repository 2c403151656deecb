"""When the next request to a server may start: rate limits, pauses and backoff."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

__all__ = ["RateLimiter", "backoff_s", "retry_after_s"]

_FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 60.0


class RateLimiter:
    """Spaces out the starts of all requests of one engine.

    Args:
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute, of prompts and the longest
            answers that are allowed; None for no limit.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next = 0.0

    async def acquire(self, n_tokens: int) -> None:
        """Wait until a request of `n_tokens` tokens may start."""
        # the slot is taken before waiting, so that requests that wait together are spaced too
        start = max(time.monotonic(), self._next)
        self._next = start + max(self._request_s, n_tokens * self._token_s)
        await asyncio.sleep(max(0.0, start - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Let no request start for a time, as the server asked in its answer to one of them."""
        self._next = max(self._next, time.monotonic() + seconds)


def backoff_s(n_failed: int, generator: random.Random) -> float:
    """Return the time to wait after failures in a row: exponential backoff with jitter.

    Args:
        n_failed: Number of failures in a row, at least 1.
        generator: Source of the jitter.

    Returns:
        Seconds, between half of min(60, 0.5 · 2^(n_failed − 1)) and all of it.

    Example:
        >>> 2.0 <= backoff_s(4, random.Random(0)) <= 4.0
        True
        >>> backoff_s(99, random.Random(0)) <= 60
        True
    """
    longest = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2.0 ** (min(n_failed, 30) - 1))
    # jitter, so that requests that failed together are not repeated together
    return longest * generator.uniform(0.5, 1.0)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the time to wait according to a Retry-After header.

    Args:
        headers: Headers of an answer, a number of seconds or a date.

    Returns:
        Seconds, at least 0; None without a usable header.

    Example:
        >>> retry_after_s({"retry-after": "2.5"}), retry_after_s({"retry-after": "soon"})
        (2.5, None)
        >>> retry_after_s({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})
        0.0
    """
    header = headers.get("retry-after")
    if header is None:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, wait_s)
