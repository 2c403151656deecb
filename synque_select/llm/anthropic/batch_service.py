"""Anthropic's Message Batches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from synque_select.errors import LLMError
from synque_select.llm.anthropic.endpoint import with_text
from synque_select.llm.batches import BatchLine, BatchRecord, BatchState
from synque_select.llm.openai.batch_service import json_of, lines_of
from synque_select.llm.openai.endpoint import Endpoint, UnreachableError
from synque_select.llm.openai.json_access import count_at, value_at
from synque_select.llm.openai.server_errors import ServerError, server_words
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncAPIResponse
    from anthropic.types.messages.batch_create_params import Request

__all__ = ["AnthropicBatches"]

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_CLOCKS_S = 300.0  # by which the clock of the server may differ
_PAGE = 100
# statuses of the types of errors that a result may have
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatches:
    """The Message Batches of Anthropic's API; see `BatchService`.

    Args:
        endpoint: The server.
        client: Its open client.
    """

    max_lines = 10_000  # 100,000 are allowed; smaller ones end sooner
    max_bytes = 100 * 2**20  # 256 MB are allowed

    def __init__(self, endpoint: Endpoint, client: AsyncAnthropic) -> None:
        self._endpoint, self._client = endpoint, client
        self._batches = client.messages.batches
        self.where = endpoint.where_hash

    async def create(self, name: str, lines: Sequence[BatchLine]) -> str:
        """Submit a batch and return its id."""
        requests = [{"custom_id": line.custom_id, "params": line.body} for line in lines]
        try:
            batch = await self._json(
                self._batches.with_raw_response.create(requests=cast("list[Request]", requests))
            )
        except ServerError as error:
            if error.status in (404, 405, 501):
                raise LLMError(
                    f"the server of {self._endpoint.id} has no Message Batches ({error}): leave "
                    "out batch"
                ) from None
            raise LLMError(f"the server of {self._endpoint.id} takes no batch: {error}") from None
        return str(batch.get("id"))

    async def find(self, record: BatchRecord, taken: Collection[str]) -> str | None:
        """Return the id of a batch that was submitted just before a kill; None if it was not.

        The API keeps no names of batches, and tells the names of questions only once they have
        results: this is the first batch of the same size since then that no other record has.
        """
        after: str | None = None
        best: str | None = None
        while True:
            page = await self._page(after)
            for batch in page:
                is_new = _created(batch) >= record.created - _CLOCKS_S
                batch_id = str(batch.get("id"))
                if is_new and _n_lines(batch) == len(record.requests) and batch_id not in taken:
                    best = batch_id  # the newest come first
            oldest = min((_created(batch) for batch in page), default=0.0)
            if len(page) < _PAGE or oldest < record.created - _CLOCKS_S:
                return best
            after = str(page[-1].get("id"))

    async def _page(self, after: str | None) -> list[JsonObject]:
        given = self._batches.with_raw_response
        if after is None:
            request = given.list(limit=_PAGE)
        else:
            request = given.list(limit=_PAGE, after_id=after)
        try:
            state = await self._json(request)
        except ServerError as error:
            raise LLMError(f"the server of {self._endpoint.id} lists no batches: {error}") from None
        data = state.get("data")
        return [one for one in data if isinstance(one, Mapping)] if isinstance(data, list) else []

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is."""
        batch = await self._json(self._batches.with_raw_response.retrieve(batch_id))
        return BatchState(
            is_over=batch.get("processing_status") == "ended",
            n_answered=count_at(batch, "request_counts", "succeeded"),
            is_cancelled=batch.get("cancel_initiated_at") is not None,
        )

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, str | ServerError]]:
        """Yield the name of each question that has a result, and its answer or error."""
        async for line in self._lines(batch_id):
            row = _row(line)
            custom_id = str(row["custom_id"])
            kind = value_at(row, "result", "type")
            if kind == "succeeded":
                yield custom_id, json.dumps(value_at(row, "result", "message"))
            elif kind == "errored":
                error = value_at(row, "result", "error")
                inner = error.get("error", error) if isinstance(error, Mapping) else {}
                name = inner.get("type") if isinstance(inner, Mapping) else None
                words = self._endpoint.excerpt(server_words(json.dumps(inner)))
                yield custom_id, ServerError(_STATUSES.get(str(name), 500), words)

    async def _lines(self, batch_id: str) -> AsyncIterator[bytes]:
        import anthropic

        try:
            content = self._batches.with_streaming_response.results(batch_id)
            async with content as response:
                async for line in lines_of(response.iter_bytes()):
                    yield line
        except anthropic.APIStatusError as error:
            words = f"{error.status_code} for the results of a batch"
            raise UnreachableError(f"the server of {self._endpoint.id} answered {words}") from None
        except LLMError:
            raise
        except Exception as error:  # the connection was closed: whatever its package raises
            name = type(error).__name__
            raise UnreachableError(
                f"the results of a batch of {self._endpoint.id} were not complete ({name})"
            ) from None

    async def _json(self, request: Awaitable[AsyncAPIResponse[Any]]) -> JsonObject:
        return await json_of(self._endpoint, with_text(request))


def _row(line: bytes) -> JsonObject:
    row = parse_json(line.decode(errors="replace"), "a result of a batch", error=LLMError)
    if not isinstance(row, Mapping) or not isinstance(row.get("custom_id"), str):
        raise LLMError("a result of a batch has no name")
    return row


def _n_lines(batch: JsonObject) -> int:
    return sum(count_at(batch, "request_counts", name) for name in _COUNTS)


def _created(batch: JsonObject) -> float:
    try:
        return datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
    except ValueError:
        return 0.0
