"""Language models behind Anthropic's Messages API, also through Message Batches."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from synque_select.errors import LLMError
from synque_select.llm.anthropic.batch_service import AnthropicBatches
from synque_select.llm.anthropic.endpoint import AnthropicEndpoint, with_text
from synque_select.llm.base import Failure, check_choices
from synque_select.llm.batches import BatchService
from synque_select.llm.openai.completion import Completion
from synque_select.llm.openai.dialect import Dialect, Question
from synque_select.llm.openai.endpoint import HasText, RetryableFailure
from synque_select.llm.openai.engine import OpenAILLM
from synque_select.llm.openai.json_access import value_at
from synque_select.llm.prompt import PromptLike, prompt_parts
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import MessageParam
    from openai import AsyncOpenAI
    from PIL.Image import Image

__all__ = ["AnthropicLLM"]

# of JSON schemas, what structured outputs do not enforce: the caller checks it
_NOT_ENFORCED = frozenset(("minLength", "maxLength", "minItems", "maxItems", "uniqueItems"))


class AnthropicLLM(OpenAILLM):
    """A model behind Anthropic's Messages API (extra `anthropic`).

    Requests run concurrently and are repeated as by the engine `openai`. Choices and schemas are
    enforced by structured outputs; a model that has none answers freely. A parameter that the
    server refuses is left out from then on, and `notes` says so.

    The API shows no probabilities of tokens: judge with `readout="label"`.

    Args:
        model_id: Name of the model.
        base_url: Address of the server; None for the environment variable ANTHROPIC_BASE_URL or,
            if it is not set, api.anthropic.com.
        key_variable: Environment variable with the API key.
        revision: Version of the weights, if known.
        max_concurrency: Maximum number of concurrent requests.
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute; None for no limit.
        timeout_s: Maximum time for a whole answer, in seconds.
        max_retries: Maximum number of times that a request is repeated.
        context_length: Maximum number of tokens of prompt and answer; None if unknown.
        batch: Whether to answer through Message Batches: within 24 hours, at half the price; see
            the engine `openai`.

    Raises:
        ConfigError: An argument is not allowed.
        DependencyError: The package anthropic is missing.

    Example:
        >>> AnthropicLLM("claude-haiku-4-5", batch=True).key
        '{"id": "claude-haiku-4-5", "revision": "user"}'
    """

    _endpoint_class = AnthropicEndpoint
    _first_dialect = Dialect(
        choices=("json_schema", "none"),
        schema=("json_schema", "none"),
        top_logprobs=(),
        dropped=frozenset(("seed",)),
    )

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None = None,
        key_variable: str = "ANTHROPIC_API_KEY",
        revision: str = "user",
        max_concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 600.0,
        max_retries: int = 6,
        context_length: int | None = None,
        batch: bool = False,
    ) -> None:
        super().__init__(
            model_id,
            base_url=base_url,
            key_variable=key_variable,
            revision=revision,
            max_concurrency=max_concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            max_retries=max_retries,
            context_length=context_length,
            batch=batch,
        )

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Raise LLMError, unless there is nothing to ask: the API shows no probabilities."""
        check_choices(choices)
        if items:
            raise LLMError(
                f"{self.id}: Anthropic's API shows no probabilities of tokens: judge with "
                "readout='label' instead"
            )
        return iter(())

    def _batch_service(self, client: AsyncOpenAI) -> BatchService:
        return AnthropicBatches(self._endpoint, cast("AsyncAnthropic", client))

    def _body(self, question: Question, dialect: Dialect) -> JsonObject:
        given = dialect.parameters(question)
        body: dict[str, Json] = {
            "model": self.id,
            "max_tokens": question.max_tokens,  # the API requires it
            "messages": [{"role": "user", "content": _content(question.prompt)}],
        }
        if "temperature" in given:
            body["temperature"] = given["temperature"]
        if "response_format" in given:
            schema = value_at(given["response_format"], "json_schema", "schema")
            enforced = {"type": "json_schema", "schema": _enforced(schema)}
            body["output_config"] = {"format": cast("Json", enforced)}
        return body

    def _request(self, client: AsyncOpenAI, body: JsonObject) -> Awaitable[HasText]:
        messages = cast("AsyncAnthropic", client).messages.with_raw_response
        known = ("model", "max_tokens", "messages")
        return with_text(
            messages.create(
                model=self.id,
                max_tokens=int(str(body["max_tokens"])),
                messages=cast("list[MessageParam]", body["messages"]),
                extra_body={name: value for name, value in body.items() if name not in known},
            )
        )

    def _read(self, text: str) -> Completion | RetryableFailure:
        state = self._endpoint.read_object(text)
        if isinstance(state, RetryableFailure):
            return state
        content, reason = state.get("content"), str(state.get("stop_reason"))
        if not isinstance(content, list):
            shown = self._endpoint.excerpt(text)
            return RetryableFailure(f"the answer is not a message with text: {shown!r}")
        blocks = [block for block in content if isinstance(block, Mapping)]
        words = "".join(str(b.get("text")) for b in blocks if b.get("type") == "text")
        refused = "the model declined (stop_reason 'refusal')" if reason == "refusal" else None
        no_text = "the answer contains reasoning only" if blocks else "the answer is empty"
        completion = Completion(words, refused, reason, no_text, None)
        return replace(completion, text=self._endpoint.without_secrets(words))


def _content(prompt: PromptLike) -> Json:
    if isinstance(prompt, str):
        return prompt
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": _png(part)},
        }
        for part in prompt_parts(prompt)
    ]


def _png(image: Image) -> str:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _enforced(schema: Json) -> Json:
    """Return a schema without the keywords that structured outputs reject."""
    if isinstance(schema, Mapping):
        kept = {name: part for name, part in schema.items() if name not in _NOT_ENFORCED}
        return {name: _enforced(part) for name, part in kept.items()}
    if isinstance(schema, list):
        return [_enforced(part) for part in schema]
    return schema
