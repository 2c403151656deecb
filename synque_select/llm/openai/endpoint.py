"""Requests to a server that speaks OpenAI's protocol: rate limits, retries, readable errors."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from synque_select.errors import ConfigError, DependencyError, LLMError
from synque_select.llm.base import Failure, Usage
from synque_select.llm.openai.json_access import count_at
from synque_select.llm.openai.rate_limit import RateLimiter, backoff_s, retry_after_s
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.validation import check_int, is_number

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

__all__ = ["Endpoint", "RequestFailed", "RetryableFailure", "error_text"]

# a server that asks for a longer pause has, in effect, refused
_MAX_PAUSE_S = 600.0
_MAX_SHOWN = 200


class _Response(Protocol):
    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class RetryableFailure:
    """A request that failed for now and may be repeated.

    Args:
        reason: What went wrong.
        wait_s: Seconds to wait that the server asked for; None if it did not.
        for_all: Whether the pause applies to all requests.
    """

    reason: str
    wait_s: float | None = None
    for_all: bool = False


class RequestFailed(Exception):
    """Raised for a request that failed for good, up to the code that knows its prompt."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Endpoint:
    """One model of a server, with the state that all requests to it share.

    Args:
        model_id: Name of the model on the server.
        base_url: Address of the server, up to `/v1`; None for the environment variable
            OPENAI_BASE_URL or, if it is not set, api.openai.com.
        key_variable: Environment variable with the API key, read when a request is made.
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute; None for no limit.
        timeout_s: Maximum time for an answer, in seconds.
        max_retries: Maximum number of times that a request is repeated.
        usage: Counts that are updated with every answer.

    Raises:
        ConfigError: An argument is not allowed.
        DependencyError: The package openai is missing.
    """

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None,
        key_variable: str,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        timeout_s: float,
        max_retries: int,
        usage: Usage,
    ) -> None:
        _check_url(base_url)
        if not (isinstance(key_variable, str) and key_variable):
            raise ConfigError(
                f"key_variable={key_variable!r}: allowed is the name of an environment variable"
            )
        check_int("max_retries", max_retries, 0)
        _check_positive(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
        )
        _check_installed()
        self.id = model_id
        self._base_url = base_url
        self._key_variable = key_variable
        self._rate_limiter = RateLimiter(requests_per_minute, tokens_per_minute)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._usage = usage
        self._jitter = random.Random()

    def client(self) -> AsyncOpenAI:
        """Return a client with the current API key.

        Raises:
            LLMError: The key is missing and no address of a server is given, or the key contains
                characters that cannot be sent.
        """
        import openai

        key = os.environ.get(self._key_variable)
        url = self._base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and url is None:
            raise LLMError(
                f"no API key for {self.id}: set the environment variable {self._key_variable}"
            )
        if key and not (key.isascii() and key.isprintable()):
            raise LLMError(
                f"the API key for {self.id} in the environment variable {self._key_variable} "
                "contains characters that are not allowed in a key, such as a line break: set it "
                "again"
            )
        return openai.AsyncOpenAI(
            # with None, the package would look for a key in other places
            api_key=key or "none",
            base_url=url,
            timeout=self._timeout_s,
            # retries are made here, where they share the rate limits
            max_retries=0,
        )

    async def models(self, client: AsyncOpenAI) -> Sequence[Json]:
        """Return the models that the server lists, if it does; a wrong address or key is an error.

        Raises:
            LLMError: The server cannot be reached, or rejects the key.
        """
        import openai

        try:
            response = await client.models.with_raw_response.list()
            models = json.loads(response.text)["data"]
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._rejected(error) from None
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            return []  # not every server lists its models
        return models if isinstance(models, list) else []

    async def with_retries(
        self,
        n_tokens: int,
        attempt: Callable[[], Awaitable[JsonObject | Failure | RetryableFailure]],
    ) -> JsonObject | Failure:
        """Repeat an attempt until it succeeds, fails for good, or has failed too often."""
        reason = ""
        for n_failed in range(1, self._max_retries + 2):
            await self._rate_limiter.acquire(n_tokens)
            result = await attempt()
            if not isinstance(result, RetryableFailure):
                return result
            reason = result.reason
            if result.wait_s is not None and result.wait_s > _MAX_PAUSE_S:
                return Failure(f"{reason}; it asks to wait {result.wait_s:.0f} s")
            wait_s = result.wait_s
            if wait_s is None:
                wait_s = backoff_s(n_failed, self._jitter)
            if result.for_all:
                self._rate_limiter.pause(wait_s)
            elif n_failed <= self._max_retries:
                await asyncio.sleep(wait_s)
        return Failure(f"{reason}; asked {self._max_retries + 1} times")

    async def post(
        self, client: AsyncOpenAI, path: str, body: JsonObject, n_tokens: int
    ) -> JsonObject:
        """Send a JSON body to a path of the server that is not part of OpenAI's protocol.

        Args:
            client: Client from `client`.
            path: Path, including `/v1` if it has it.
            body: Parameters, apart from the model.
            n_tokens: Number of tokens that the request reads and writes, for the rate limit.

        Raises:
            LookupError: The server does not have the path, or does not allow it.
            RequestFailed: The request failed for good.
        """
        import httpx
        import openai

        url = str(client.base_url).rstrip("/").removesuffix("/v1") + path

        async def attempt() -> JsonObject | Failure | RetryableFailure:
            try:
                text = await self.send(
                    client.post(url, cast_to=httpx.Response, body={"model": self.id, **body})
                )
            except openai.APIStatusError as error:
                if error.status_code in (401, 403, 404, 405):
                    raise LookupError(path) from None
                return self.on_status(error)
            return text if isinstance(text, RetryableFailure) else self.read_object(text)

        answer = await self.with_retries(n_tokens, attempt)
        if isinstance(answer, Failure):
            raise RequestFailed(answer)
        return answer

    async def send(self, request: Awaitable[_Response]) -> str | RetryableFailure:
        """Return the text of the server's answer.

        Raises:
            openai.APIStatusError: The status of the answer is an error.
            LLMError: The server cannot be reached.
        """
        import openai

        try:
            return str((await request).text)
        except openai.APITimeoutError:
            return RetryableFailure(f"no answer in {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError":
                raise self._unreachable(error) from None
            return RetryableFailure("the connection was closed before the answer was complete")

    def on_status(self, error: APIStatusError) -> Failure | RetryableFailure:
        """Return what the error status of an answer means for its request.

        Raises:
            LLMError: It applies to all requests: a wrong key, an unknown model, or no credit left.
        """
        status = error.status_code
        reason = self._without_key(f"{status}: {error_text(error)}")
        if status in (401, 403, 404) or "insufficient_quota" in reason:
            raise self._rejected(error)
        if status in (408, 409, 425, 429) or status >= 500:
            return RetryableFailure(
                reason, retry_after_s(error.response.headers), for_all=status == 429
            )
        return Failure(f"the server answered {reason}")

    def read_object(self, text: str) -> JsonObject | RetryableFailure:
        """Parse a JSON object, and count the tokens that it reports as used."""
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            return RetryableFailure(f"the answer is not a JSON object: {text[:_MAX_SHOWN]!r}")
        self._usage.n_prompt_tokens += count_at(state, "usage", "prompt_tokens")
        self._usage.n_answer_tokens += count_at(state, "usage", "completion_tokens")
        n_cached = count_at(state, "usage", "prompt_tokens_details", "cached_tokens")
        self._usage.n_cached_tokens += n_cached
        return state

    def _unreachable(self, error: Exception) -> LLMError:
        address = self._base_url or os.environ.get("OPENAI_BASE_URL") or "api.openai.com"
        reason = self._without_key(str(error.__cause__ or error))
        return LLMError(f"the server of {self.id}, {address}, cannot be reached: {reason}")

    def _rejected(self, error: APIStatusError) -> LLMError:
        advice = {
            401: f"; the API key is read from the environment variable {self._key_variable}",
            404: "; check the name of the model, and that the address ends with /v1",
        }.get(error.status_code, "")
        reason = self._without_key(error_text(error))
        return LLMError(
            f"the server of {self.id} rejects the request: {error.status_code} {reason}{advice}"
        )

    def _without_key(self, text: str) -> str:
        """Return a server's message without the API key, which some servers repeat."""
        key = os.environ.get(self._key_variable)
        return (text.replace(key, "…") if key else text)[: 2 * _MAX_SHOWN]


def error_text(error: APIStatusError) -> str:
    """Return the message of a server's error, and the parameter that it names."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body[name]) for name in ("message", "param") if body.get(name)) or str(
        error.message
    )


def _check_url(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"base_url={url!r}: {error}; allowed is http://… or https://…") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url={url!r}: allowed is http://… or https://…")
    if parts.username or parts.password:
        raise ConfigError(
            "base_url contains a user name or password: set the key in the environment instead"
        )


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (is_number(value) and value > 0):
            raise ConfigError(f"{name}={value!r}: allowed is a number above 0")


def _check_installed() -> None:
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise DependencyError("openai", extra="openai", purpose="the engine 'openai'") from error
