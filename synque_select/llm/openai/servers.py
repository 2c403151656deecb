"""Several servers of one model: requests go to the one with the fewest, and never to a dead one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from synque_select.llm.openai.address import Address
from synque_select.utils.wording import counted

__all__ = ["Server", "ServerPool"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 5.0
_TICK_S = 0.05  # between looks at a request that finds out whether a server answers again
_MAX_PAUSE_S = 300.0
# failures in a row after which a server that can be reached is left out
_MAX_FAILED = 3


_ONLY: ContextVar[Server | None] = ContextVar("_ONLY", default=None)


@dataclass(eq=False)
class Server:
    """One server and what is known of its health.

    Args:
        address: Its address.
        n_open: Number of requests that it has not answered yet.
        n_failed: Number of requests in a row that failed because of it.
        n_pauses: Number of pauses since its last answer.
        paused_until: Time of the monotonic clock until which it gets no request.
        is_busy: Whether it asked for the pause itself.
        is_checked: Whether it is known to serve the same model as the others.
    """

    address: Address
    n_open: int = 0
    n_failed: int = 0
    n_pauses: int = 0
    paused_until: float = 0.0
    is_busy: bool = False
    is_checked: bool = False

    @property
    def is_out(self) -> bool:
        """Whether it gets no request at the moment."""
        if self.paused_until > time.monotonic():
            return True
        # after a pause, a single request finds out whether it answers again
        return (self.n_pauses > 0 or self.is_busy) and self.n_open > 0

    def url_of(self, url: str, first: Address) -> str:
        """Return an address of the first server as one of this server.

        Args:
            url: Address of a request, without its query.
            first: The address that requests are made for.
        """
        for theirs, ours in ((first.base, self.address.base), (_root(first), _root(self.address))):
            if url.startswith(theirs.rstrip("/")):
                return ours.rstrip("/") + url[len(theirs.rstrip("/")) :]
        return url


def _root(address: Address) -> str:
    return address.base.rstrip("/").removesuffix("/v1")


class ServerPool:
    """The servers of one model.

    A server that cannot be reached, or fails three times in a row, gets no requests for 5 s, then
    for twice as long, up to 5 minutes; after each pause, one request finds out whether it answers.
    A server that asks for a pause gets one.

    Args:
        addresses: Addresses of the servers.

    Example:
        >>> from synque_select.llm.openai.address import parse_address
        >>> pool = ServerPool([parse_address("base_url", f"http://{n}/v1") for n in "ab"])
        >>> for server, n_open in zip(pool.servers, (2, 0)):
        ...     server.is_checked, server.n_open = True, n_open
        >>> [server.address.shown for server in pool.by_load()]
        ['http://b/v1', 'http://a/v1']
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.servers = [Server(address) for address in addresses]

    @property
    def shown(self) -> str:
        """The addresses as messages show them."""
        return ", ".join(server.address.shown for server in self.servers)

    def by_load(self) -> list[Server]:
        """Return the servers in the order in which they should be asked.

        Servers that were not checked yet are left out, unless a task asks `only` one.
        """
        only = _ONLY.get()
        if only is not None:
            return [only]
        order = {id(server): place for place, server in enumerate(self.servers)}
        return sorted(
            [server for server in self.servers if server.is_checked],
            key=lambda one: (
                (one.is_out, one.paused_until if one.is_out else one.n_open, order[id(one)])
            ),
        )

    async def wait(self) -> None:
        """Wait while all servers that could be asked have asked for a pause."""
        while all(server.is_busy and server.is_out for server in self.by_load()):
            soonest = min(server.paused_until for server in self.by_load())
            await asyncio.sleep(max(_TICK_S, soonest - time.monotonic()))

    @contextmanager
    def only(self, server: Server) -> Iterator[None]:
        """Let requests of this task go to one server while the body runs."""
        token = _ONLY.set(server)
        try:
            yield
        finally:
            _ONLY.reset(token)

    def on_answer(self, server: Server) -> None:
        """Note that a server works."""
        if server.n_pauses:
            _log.warning("The server %s answers again.", server.address.shown)
        server.n_failed = server.n_pauses = 0
        server.paused_until, server.is_busy = 0.0, False

    def on_failure(self, server: Server, *, unreachable: bool = False) -> None:
        """Note that a request failed because of a server."""
        server.n_failed += 1
        if server.paused_until > time.monotonic():
            return  # another request has failed in the meantime
        if unreachable or server.n_pauses or server.n_failed >= _MAX_FAILED:
            pause_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0**server.n_pauses)
            server.paused_until = time.monotonic() + pause_s
            if not server.n_pauses:
                why = "cannot be reached" if unreachable else "fails"
                left = sum(not other.is_out for other in self.servers)
                _log.warning(
                    "The server %s %s: the others get its requests, %s left. It is tried again.",
                    *(server.address.shown, why, counted(left, "server is", "servers are")),
                )
            server.n_pauses += 1
            server.is_busy = False

    def on_busy(self, server: Server, wait_s: float | None) -> None:
        """Note that a server asked for a pause."""
        pause_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S if wait_s is None else wait_s)
        server.paused_until = max(server.paused_until, time.monotonic() + pause_s)
        server.is_busy = True
