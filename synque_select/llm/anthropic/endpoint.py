"""Requests to Anthropic's API: what differs from a server of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from synque_select.llm.openai.address import Address
from synque_select.llm.openai.endpoint import Endpoint, HasText
from synque_select.llm.openai.json_access import count_at
from synque_select.llm.openai.limited_sending import ACCEPTED_ENCODING, LimitedSending
from synque_select.utils.json_types import JsonObject

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncAPIResponse
    from openai import AsyncOpenAI

__all__ = ["AnthropicEndpoint", "with_text"]


@dataclass(frozen=True)
class _Answer:
    text: str


async def with_text(request: Awaitable[AsyncAPIResponse[Any]]) -> HasText:
    """Send a request, whose answer is read to its end, unlike the package does."""
    return _Answer(await (await request).text())


class AnthropicEndpoint(Endpoint):
    """One model of Anthropic's API; see `Endpoint`."""

    package = "anthropic"
    address_variable = "ANTHROPIC_BASE_URL"
    public = "https://api.anthropic.com"

    def _open(self, key: str, address: Address | None) -> AsyncOpenAI:
        import anthropic

        class LimitedClient(LimitedSending, anthropic.DefaultAsyncHttpxClient):
            """The client that requests go through; see `LimitedSending`."""

        opened = anthropic.AsyncAnthropic(
            api_key=key,
            # the package adds /v1 itself
            base_url=self.public
            if address is None
            else address.base.rstrip("/").removesuffix("/v1"),
            default_query=None if address is None else address.query,
            timeout=self._timeout_s,
            default_headers={"Accept-Encoding": ACCEPTED_ENCODING},
            http_client=LimitedClient(),
            max_retries=0,
        )
        # both packages are made by one generator; the engine knows which one it has
        return cast("AsyncOpenAI", opened)

    def _list_models(self, client: AsyncOpenAI) -> Awaitable[HasText]:
        models = cast("AsyncAnthropic", client).models
        return with_text(models.with_raw_response.list(limit=1000))

    def _count(self, state: JsonObject) -> None:
        n_cached = count_at(state, "usage", "cache_read_input_tokens")
        n_written = count_at(state, "usage", "cache_creation_input_tokens")
        n_new = count_at(state, "usage", "input_tokens")
        self._usage.n_prompt_tokens += n_new + n_cached + n_written
        self._usage.n_cached_tokens += n_cached
        self._usage.n_answer_tokens += count_at(state, "usage", "output_tokens")
