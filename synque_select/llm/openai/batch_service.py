"""The Batch API of OpenAI's protocol: a file of requests, a batch, and files of results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from synque_select.errors import LLMError
from synque_select.llm.base import Failure
from synque_select.llm.batches import BatchLine, BatchRecord, BatchState
from synque_select.llm.openai.endpoint import (
    Endpoint,
    HasText,
    RetryableFailure,
    UnreachableError,
)
from synque_select.llm.openai.json_access import count_at, value_at
from synque_select.llm.openai.limited_sending import MAX_ANSWER_BYTES
from synque_select.llm.openai.server_errors import ServerError, server_words
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["OpenAIBatches", "json_of", "lines_of"]

_PATH: Final = "/v1/chat/completions"
_NAME = "synque-select"  # of the entry of a batch's metadata that it is found by
_OVER = ("completed", "failed", "expired", "cancelled")
_NOT_ANSWERED = ("batch_expired", "batch_cancelled")
_CLOCKS_S = 300.0  # by which the clock of a server may differ
_PAGE = 100


async def json_of(endpoint: Endpoint, request: Awaitable[HasText]) -> JsonObject:
    """Return the answer to a request about batches.

    Args:
        endpoint: The server.
        request: The request.

    Raises:
        ServerError: The server has no such file or batch, or rejects the request.
        UnreachableError: It cannot be reached at the moment, or is busy.
        LLMError: It rejects the key.
    """
    try:
        text = await endpoint.send(request)
    except ServerError as error:
        if error.status in (401, 402, 403):
            raise endpoint.rejected(error) from None
        if error.status in (408, 409, 425, 429) or error.status >= 500:
            raise UnreachableError(f"the server of {endpoint.id} answered {error}") from None
        raise
    if isinstance(text, Failure | RetryableFailure):
        raise UnreachableError(f"the server of {endpoint.id}: {text.reason}")
    state = parse_json(text, "the answer", error=UnreachableError)
    if not isinstance(state, Mapping):
        raise UnreachableError(f"the server of {endpoint.id} sent no JSON object about a batch")
    return state


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a file of results, of which each has a largest size.

    Raises:
        LLMError: A line has more than 32 MiB.
    """
    begun = bytearray()
    async for chunk in chunks:
        begun += chunk
        if b"\n" in chunk:
            *whole, begun = begun.split(b"\n")
            for line in whole:
                if line.strip():
                    yield bytes(line)
        if len(begun) > MAX_ANSWER_BYTES:
            raise LLMError(f"a result of a batch has more than {MAX_ANSWER_BYTES // 2**20} MiB")
    if begun.strip():
        yield bytes(begun)


class OpenAIBatches:
    """The Batch API of a server; see `BatchService`.

    Args:
        endpoint: The server.
        client: Its open client.
    """

    max_lines = 10_000  # 50,000 are allowed; smaller ones end sooner
    max_bytes = 100 * 2**20  # 200 MB are allowed

    def __init__(self, endpoint: Endpoint, client: AsyncOpenAI) -> None:
        self._endpoint, self._client = endpoint, client
        self.where = endpoint.where_hash

    async def create(self, name: str, lines: Sequence[BatchLine]) -> str:
        """Upload the questions, submit a batch and return its id."""
        rows = [
            {"custom_id": line.custom_id, "method": "POST", "url": _PATH, "body": line.body}
            for line in lines
        ]
        data = "\n".join(json.dumps(row) for row in rows).encode()
        files, batches = self._client.files, self._client.batches
        try:
            file = await self._json(
                files.with_raw_response.create(file=(f"{name}.jsonl", data), purpose="batch")
            )
            batch = await self._json(
                batches.with_raw_response.create(
                    input_file_id=_text(file, "id"),
                    endpoint=_PATH,
                    completion_window="24h",
                    metadata={_NAME: name},
                )
            )
        except ServerError as error:
            if error.status in (404, 405, 501):
                raise LLMError(
                    f"the server of {self._endpoint.id} has no Batch API ({error}): leave out batch"
                ) from None
            raise LLMError(f"the server of {self._endpoint.id} takes no batch: {error}") from None
        return _text(batch, "id")

    async def find(self, record: BatchRecord, taken: Collection[str]) -> str | None:
        """Return the id of a batch that was submitted just before a kill; None if it was not."""
        del taken  # a batch has a name
        after: str | None = None
        while True:
            page = await self._page(after)
            for batch in page:
                metadata = batch.get("metadata")
                if isinstance(metadata, Mapping) and metadata.get(_NAME) == record.name:
                    return _text(batch, "id")
            # the newest come first
            oldest = min((_number(batch, "created_at") for batch in page), default=0.0)
            if len(page) < _PAGE or oldest < record.created - _CLOCKS_S:
                return None
            after = _text(page[-1], "id")

    async def _page(self, after: str | None) -> list[JsonObject]:
        request = self._client.batches.with_raw_response
        given = (
            request.list(limit=_PAGE) if after is None else request.list(limit=_PAGE, after=after)
        )
        try:
            state = await self._json(given)
        except ServerError as error:
            raise LLMError(f"the server of {self._endpoint.id} lists no batches: {error}") from None
        data = state.get("data")
        return [one for one in data if isinstance(one, Mapping)] if isinstance(data, list) else []

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is."""
        batch = await self._retrieve(batch_id)
        status = batch.get("status")
        problem, is_full = None, False
        if status == "failed":
            errors = batch.get("errors")
            text = json.dumps(errors.get("data") if isinstance(errors, Mapping) else errors)
            problem, is_full = self._endpoint.excerpt(server_words(text)), "token_limit" in text
        return BatchState(
            is_over=status in _OVER,
            n_answered=count_at(batch, "request_counts", "completed"),
            problem=problem,
            is_full=is_full,
            is_cancelled=status == "cancelled",
        )

    async def results(self, batch_id: str) -> AsyncIterator[tuple[str, str | ServerError]]:
        """Yield the name of each question that has a result, and its answer or error."""
        batch = await self._retrieve(batch_id)
        for kind in ("output_file_id", "error_file_id"):
            file_id = batch.get(kind)
            if isinstance(file_id, str):
                async for line in self._lines(file_id):
                    result = self._result(line)
                    if result is not None:
                        yield result

    async def _lines(self, file_id: str) -> AsyncIterator[bytes]:
        import openai

        try:
            content = self._client.files.with_streaming_response.content(file_id)
            async with content as response:
                async for line in lines_of(response.iter_bytes()):
                    yield line
        except openai.APIStatusError as error:
            words = self._endpoint.excerpt(f"{error.status_code} for a file of results")
            raise UnreachableError(f"the server of {self._endpoint.id} answered {words}") from None
        except LLMError:
            raise
        except Exception as error:  # the connection was closed: whatever its package raises
            name = type(error).__name__
            raise UnreachableError(
                f"the results of a batch of {self._endpoint.id} were not complete ({name})"
            ) from None

    def _result(self, line: bytes) -> tuple[str, str | ServerError] | None:
        row = parse_json(line.decode(errors="replace"), "a result of a batch", error=LLMError)
        if not isinstance(row, Mapping):
            raise LLMError("a result of a batch is not a JSON object")
        custom_id = _text(row, "custom_id")
        error, response = row.get("error"), row.get("response")
        if isinstance(error, Mapping) and error.get("code") in _NOT_ANSWERED:
            return None
        if not isinstance(response, Mapping):
            words = self._endpoint.excerpt(server_words(json.dumps(error)))
            return custom_id, ServerError(500, words)
        status, body = count_at(row, "response", "status_code"), value_at(row, "response", "body")
        if status == 200:
            return custom_id, json.dumps(body)
        return custom_id, ServerError(
            status, self._endpoint.excerpt(server_words(json.dumps(body)))
        )

    async def _retrieve(self, batch_id: str) -> JsonObject:
        return await self._json(self._client.batches.with_raw_response.retrieve(batch_id))

    async def _json(self, request: Awaitable[HasText]) -> JsonObject:
        return await json_of(self._endpoint, request)


def _text(state: JsonObject, name: str) -> str:
    value: Json = state.get(name)
    if not isinstance(value, str):
        raise LLMError(f"the server's answer about a batch lacks {name!r}")
    return value


def _number(state: JsonObject, name: str) -> float:
    value = state.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
