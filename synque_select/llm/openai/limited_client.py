"""The client that requests go through: an answer of a server has a largest size."""

from __future__ import annotations

from typing import Any

import openai

from synque_select.utils.wording import one_line

__all__ = ["ACCEPTED_ENCODING", "MAX_ANSWER_BYTES", "AnswerNotReadError", "LimitedClient"]

# 4,096 tokens, each with the 20 most probable ones, take about 8 MB
MAX_ANSWER_BYTES = 32 * 2**20
# of other encodings, a few bytes may decode to gigabytes at once
ACCEPTED_ENCODING = "gzip"
_ENCODINGS = frozenset(("", "identity", "gzip", "x-gzip"))
_FRAMING = frozenset(("content-encoding", "content-length", "transfer-encoding"))


class AnswerNotReadError(openai.OpenAIError):
    """Raised for an answer that is too large, or in an encoding that was not asked for."""


class LimitedClient(openai.DefaultAsyncHttpxClient):
    """The client of the package openai, which by itself reads an answer of any size into memory.

    Raises:
        AnswerNotReadError: From a request: its answer has more than 32 MiB, unpacked.
    """

    # Any: the package openai has changed its HTTP library, and both must work
    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request and read its answer."""
        response = await super().send(request, stream=True, **options)
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
