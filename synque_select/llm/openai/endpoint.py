"""A server that speaks OpenAI's protocol: requests that are repeated, spaced out, and explained."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from synque_select.errors import ConfigError, DependencyError, LLMError
from synque_select.llm.base import Failure, Usage
from synque_select.llm.openai.rate_limit import RateLimiter, backoff_s, retry_after_s
from synque_select.utils.validation import check_int, is_number

__all__ = ["Endpoint", "RequestFailed", "RetryableFailure", "counted", "openai_package", "said"]

_LONGEST_PAUSE_S = 600.0
_SHOWN = 200


@dataclass(frozen=True)
class RetryableFailure:
    """A request that failed for a time; `for_all`: the server means all requests."""

    reason: str
    wait_s: float | None = None
    for_all: bool = False


class RequestFailed(Exception):
    """A request that got no answer, on the way up to its prompt."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Endpoint:
    """One model of a server, and what all requests to it share.

    Args:
        model_id: As the server names it.
        base_url: Of the server, up to `/v1`; None for OPENAI_BASE_URL, else api.openai.com.
        key_variable: The environment variable of the key, which is read when a request is made.
        requests_per_minute: None for no limit but the server's.
        tokens_per_minute: None for no limit but the server's.
        timeout_s: How long an answer may take.
        max_retries: How often a request is repeated.
        usage: Where the tokens of answers are counted.

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
                f"key_variable={key_variable!r}: allowed is an environment variable's name"
            )
        check_int("max_retries", max_retries, 0)
        _check_positive(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
        )
        openai_package()
        self.id = model_id
        self._base_url = base_url
        self._key_variable = key_variable
        self._pace = RateLimiter(requests_per_minute, tokens_per_minute)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._usage = usage
        self._dice = random.Random()

    def client(self) -> Any:
        """Return openai's client, with the key as it is now.

        Raises:
            LLMError: There is no usable key, and the server is none of the user's.
        """
        openai = openai_package()
        key = os.environ.get(self._key_variable)
        url = self._base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and url is None:
            raise LLMError(
                f"the key of {self.id}: set the environment variable {self._key_variable}"
            )
        if key and not (key.isascii() and key.isprintable()):
            raise LLMError(
                f"the key of {self.id}: the environment variable {self._key_variable} holds "
                "characters that no key has"
            )
        return openai.AsyncOpenAI(
            # without a key, the package would look for one in other places
            api_key=key or "none",
            base_url=url,
            timeout=self._timeout_s,
            max_retries=0,
        )

    async def models(self, client: Any) -> list[Any]:
        """Return what the server lists; a wrong address or key shows at once.

        Raises:
            LLMError: It cannot be reached, or does not know the key.
        """
        openai = openai_package()
        try:
            listed = await client.models.with_raw_response.list()
            found = json.loads(listed.text)["data"]
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._refused(error) from None
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            return []  # not every server lists its models
        return found if isinstance(found, list) else []

    async def repeated(
        self,
        n_tokens: int,
        attempt: Callable[[], Awaitable[dict[str, Any] | Failure | RetryableFailure]],
    ) -> dict[str, Any] | Failure:
        """Make an attempt until it no longer fails for a time, or too often."""
        reason = ""
        for n_failed in range(1, self._max_retries + 2):
            await self._pace.acquire(n_tokens)
            found = await attempt()
            if not isinstance(found, RetryableFailure):
                return found
            reason = found.reason
            if found.wait_s is not None and found.wait_s > _LONGEST_PAUSE_S:
                return Failure(f"{reason}; it asks to wait {found.wait_s:.0f} s")
            wait_s = found.wait_s if found.wait_s is not None else backoff_s(n_failed, self._dice)
            if found.for_all:
                self._pace.pause(wait_s)
            elif n_failed <= self._max_retries:
                await asyncio.sleep(wait_s)
        return Failure(f"{reason}; asked {self._max_retries + 1} times")

    async def post(
        self, client: Any, path: str, body: Mapping[str, Any], n_tokens: int
    ) -> dict[str, Any]:
        """Return the JSON that a path beside /v1 answers to a body of so many tokens.

        Raises:
            LookupError: The server has no such path, or keeps it closed.
            RequestFailed: It was asked often enough.
        """
        openai = openai_package()
        url = str(client.base_url).rstrip("/").removesuffix("/v1") + path

        async def attempt() -> dict[str, Any] | Failure | RetryableFailure:
            try:
                text = await self.sent(
                    client.post(url, cast_to=_raw_response(), body={"model": self.id, **body})
                )
            except openai.APIStatusError as error:
                if error.status_code in (401, 403, 404, 405):
                    raise LookupError(path) from None
                return self.on_status(error)
            return text if isinstance(text, RetryableFailure) else self.read_object(text)

        found = await self.repeated(n_tokens, attempt)
        if isinstance(found, Failure):
            raise RequestFailed(found)
        return found

    async def sent(self, request: Awaitable[Any]) -> str | RetryableFailure:
        """Return what the server wrote; a status that is no success is an error of openai's."""
        openai = openai_package()
        try:
            return str((await request).text)
        except openai.APITimeoutError:
            return RetryableFailure(f"no answer in {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError":
                raise self._unreachable(error) from None
            return RetryableFailure("the connection was cut")

    def on_status(self, error: Any) -> Failure | RetryableFailure:
        """Return what a status means that is no success.

        Raises:
            LLMError: It means all requests: a wrong key, no such model, nothing left to pay with.
        """
        status = error.status_code
        reason = self._clean(f"{status}: {said(error)}")
        if status in (401, 403, 404) or "insufficient_quota" in reason:
            raise self._refused(error)
        if status in (408, 409, 425, 429) or status >= 500:
            return RetryableFailure(
                reason, retry_after_s(error.response.headers), for_all=status == 429
            )
        return Failure(f"the server answered {reason}")

    def read_object(self, text: str) -> dict[str, Any] | RetryableFailure:
        """Return a JSON object, and count the tokens that it says were used."""
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            return RetryableFailure(f"an answer that is no JSON object: {text[:_SHOWN]!r}")
        used = state.get("usage")
        self._usage.n_prompt_tokens += counted(used, "prompt_tokens")
        self._usage.n_answer_tokens += counted(used, "completion_tokens")
        details = used.get("prompt_tokens_details") if isinstance(used, dict) else None
        self._usage.n_cached_tokens += counted(details, "cached_tokens")
        return state

    def _unreachable(self, error: Exception) -> LLMError:
        where = self._base_url or os.environ.get("OPENAI_BASE_URL") or "api.openai.com"
        why = self._clean(str(error.__cause__ or error))
        return LLMError(f"the server of {self.id}, {where}, cannot be reached: {why}")

    def _refused(self, error: Any) -> LLMError:
        help_ = {
            401: f"; its key is read from the environment variable {self._key_variable}",
            404: "; is that its name there, and does the address end with /v1?",
        }.get(error.status_code, "")
        reason = self._clean(said(error))
        return LLMError(f"the server of {self.id} refuses: {error.status_code} {reason}{help_}")

    def _clean(self, text: str) -> str:
        """A server's words without the key, should it repeat it."""
        key = os.environ.get(self._key_variable)
        return (text.replace(key, "…") if key else text)[: 2 * _SHOWN]


def counted(state: Any, name: str) -> int:
    """What a server says it counted; nothing where it says no number."""
    value = state.get(name) if isinstance(state, dict) else None
    return value if isinstance(value, int) else 0


def said(error: Any) -> str:
    """What the server wrote, and the parameter that it names."""
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
        raise ConfigError("base_url has a password in it: give the key in the environment instead")


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (is_number(value) and value > 0):
            raise ConfigError(f"{name}={value!r}: allowed is a number above 0")


def _raw_response() -> type[Any]:
    import httpx  # comes with openai

    return httpx.Response


def openai_package() -> Any:
    """Return the package openai.

    Raises:
        DependencyError: It is missing.
    """
    try:
        import openai
    except ImportError as error:
        raise DependencyError("openai", extra="openai", purpose="the engine 'openai'") from error
    return openai
