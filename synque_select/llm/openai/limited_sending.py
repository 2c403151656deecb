"""How requests are sent: an answer of a server has a largest size, and may come from several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synque_select.llm.openai.rate_limit import retry_after_s
from synque_select.llm.openai.servers import ServerPool
from synque_select.utils.wording import one_line

__all__ = ["ACCEPTED_ENCODING", "MAX_ANSWER_BYTES", "AnswerNotReadError", "LimitedSending"]

# 4,096 tokens, each with the 20 most probable ones, take about 8 MB
MAX_ANSWER_BYTES = 32 * 2**20
# of other encodings, a few bytes may decode to gigabytes at once
ACCEPTED_ENCODING = "gzip"
_ENCODINGS = frozenset(("", "identity", "gzip", "x-gzip"))
# errors of a connection that was never there, and statuses of a server that does not work
_UNREACHABLE = frozenset(("ConnectError", "ConnectTimeout"))
_OF_SERVER = frozenset((502, 503, 504))
_CONNECT_S = 10.0  # with several servers, one that does not answer must not hold up a request
_FRAMING = frozenset(("content-encoding", "content-length", "transfer-encoding"))


class AnswerNotReadError(Exception):
    """Raised for an answer that is too large, or in an encoding that was not asked for."""


class LimitedSending:
    """A part of a client of httpx, which by itself reads an answer of any size into memory.

    Args:
        pool: The servers to spread requests over; None for the one that requests are made for.

    Raises:
        AnswerNotReadError: From a request: its answer has more than 32 MiB, unpacked.
    """

    def __init__(self, pool: ServerPool | None = None) -> None:
        super().__init__()
        self._pool = pool

    # Any: the packages of the servers have changed their HTTP library, and both must work
    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request and read its answer."""
        if self._pool is None:
            return await self._read(request, stream, options)
        return await self._send_to_one_of(self._pool, request, stream, options)

    async def _send_to_one_of(
        self, pool: ServerPool, request: Any, stream: bool, options: dict[str, Any]
    ) -> Any:
        """Send a request to the server with the fewest; to the next if it cannot be reached."""
        await pool.wait()
        url = str(request.url.copy_with(query=None))
        for place, server in enumerate(order := pool.by_load()):
            _address(request, server.url_of(url, pool.servers[0].address), server.address.query)
            server.n_open += 1
            try:
                response = await self._read(request, stream, options)
            except AnswerNotReadError:
                pool.on_answer(server)
                raise
            except BaseException as error:  # also where the time for the answer is over
                unreachable = type(error).__name__ in _UNREACHABLE
                pool.on_failure(server, unreachable=unreachable)
                if not unreachable or place == len(order) - 1:
                    raise
                continue
            finally:
                server.n_open -= 1
            if response.status_code == 429:
                pool.on_busy(server, retry_after_s(response.headers))
            elif response.status_code in _OF_SERVER:
                pool.on_failure(server)
            else:
                pool.on_answer(server)
            return response
        raise AssertionError("there is at least one server")

    async def _read(self, request: Any, stream: bool, options: dict[str, Any]) -> Any:
        response = await super().send(request, stream=True, **options)  # type: ignore[misc]
        if stream:
            return response
        try:
            content = await _content(response)
        finally:
            await response.aclose()
        headers = [
            pair for pair in response.headers.multi_items() if pair[0].lower() not in _FRAMING
        ]
        return type(response)(
            response.status_code, headers=headers, content=content, request=response.request
        )


def _address(request: Any, url: str, query: Mapping[str, str]) -> None:
    """Let a request go to another server."""
    request.url = type(request.url)(url).copy_merge_params(query)
    request.headers["Host"] = request.url.netloc.decode("ascii")
    limits = dict(request.extensions.get("timeout") or {})
    connect_s = limits.get("connect")
    limits["connect"] = _CONNECT_S if connect_s is None else min(_CONNECT_S, connect_s)
    request.extensions["timeout"] = limits


async def _content(response: Any) -> bytes:
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    if encoding not in _ENCODINGS:
        raise AnswerNotReadError(f"the answer is packed in a way not asked for: {_shown(encoding)}")
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise AnswerNotReadError(
                f"the answer has more than {MAX_ANSWER_BYTES // 2**20} MiB and was not read"
            )
    return bytes(content)


def _shown(encoding: str) -> str:
    return repr(one_line(encoding, 40))
