"""Requests to a server that speaks OpenAI's protocol: rate limits, retries, readable errors."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from synque_select.errors import ConfigError, DependencyError, LLMError
from synque_select.llm.base import Failure, Usage
from synque_select.llm.openai.address import (
    Address,
    Secrets,
    check_key_variable,
    parse_address,
    shown_variable,
)
from synque_select.llm.openai.dialect import is_about_length
from synque_select.llm.openai.event_stream import completion_of_events
from synque_select.llm.openai.json_access import count_at
from synque_select.llm.openai.limited_sending import ACCEPTED_ENCODING, AnswerNotReadError
from synque_select.llm.openai.rate_limit import RateLimiter, backoff_s, retry_after_s
from synque_select.llm.openai.server_errors import (
    ServerError,
    error_in_answer,
    is_refusal,
    server_words,
)
from synque_select.llm.openai.servers import ServerPool
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.validation import check_int, is_number, kind_of
from synque_select.utils.wording import counted, one_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Endpoint", "HasText", "RequestFailed", "RetryableFailure", "UnreachableError"]

# a server that asks for a longer pause has, in effect, refused
_MAX_PAUSE_S = 600.0
_MAX_SHOWN = 200
_MAX_FORBIDDEN = 3


class HasText(Protocol):
    """An answer of a server."""

    @property
    def text(self) -> str:
        """Its body."""
        ...


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


_CLOSED = "the connection was closed before the answer was complete"
# errors of httpx that are not about the connection
_CAUSES = {
    "TooManyRedirects": "the server redirects without end: check base_url",
    "UnsupportedProtocol": "the server redirects to an address that is not HTTP: check base_url",
    "DecodingError": "the answer cannot be decompressed",
}


class UnreachableError(LLMError):
    """A server cannot be reached at the moment."""


class RequestFailed(Exception):
    """Raised for a request that failed for good, up to the code that knows its prompt.

    Args:
        failure: What went wrong.
        may_lack_path: Whether servers fail in this way at a path that they do not have.
    """

    def __init__(self, failure: Failure, *, may_lack_path: bool = False) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.may_lack_path = may_lack_path


class Endpoint:
    """One model of a server, with the state that all requests to it share.

    A subclass is for a server of another protocol, whose package has the same classes.

    Attributes:
        package: Name of the package that speaks the protocol, and of the extra and the engine.
        address_variable: Environment variable with the address.
        public: Address without `base_url` and without that variable.

    Args:
        model_id: Name of the model on the server.
        base_url: Address of the server, up to `/v1`, or of several servers of the same model;
            None for the environment variable OPENAI_BASE_URL or, if it is not set, api.openai.com.
        key_variable: Environment variable with the API key, read when a request is made.
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute; None for no limit.
        timeout_s: Maximum time for a whole answer, in seconds.
        max_retries: Maximum number of times that a request is repeated.
        usage: Counts that are updated with every answer.

    Raises:
        ConfigError: An argument is not allowed.
        DependencyError: The package openai is missing.
    """

    package = "openai"
    address_variable = "OPENAI_BASE_URL"
    public = "https://api.openai.com/v1"

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | Sequence[str] | None,
        key_variable: str,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        timeout_s: float,
        max_retries: int,
        usage: Usage,
    ) -> None:
        addresses = _addresses(base_url)
        self._address = addresses[0] if addresses else None
        self.pool = ServerPool(addresses) if len(addresses) > 1 else None
        self._key_variable = check_key_variable(key_variable)
        check_int("max_retries", max_retries, 0)
        _check_positive(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
        )
        _check_installed(self.package)
        self.id = model_id
        self._rate_limiter = RateLimiter(requests_per_minute, tokens_per_minute)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._usage = usage
        self._jitter = random.Random()
        # whether a request has succeeded: then an error is about its prompt, not the whole model
        self._has_answered = False
        # the errors 403 before that: one may be a firewall that dislikes the first prompt
        self._forbidden: list[ServerError] = []

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncOpenAI]:
        """Open a client with the current API key; while it is open, logs do not show secrets.

        Raises:
            LLMError: The key is missing and no address of a server is given, or the key contains
                characters that cannot be sent.
            ConfigError: The address in the environment is not allowed.
        """
        key, address = os.environ.get(self._key_variable), self._where()
        variable = shown_variable(self._key_variable)
        if not key and address is None:
            raise LLMError(f"no API key for {self.id}: set the environment variable {variable}")
        if key and not (key.isascii() and key.isprintable()):
            raise LLMError(
                f"the API key for {self.id} in the environment variable {variable} "
                "contains characters that are not allowed in a key, such as a line break: set it "
                "again"
            )
        try:
            # with None, the package would look for a key in other places
            opened = self._open(key or "none", address)
        except Exception as error:
            # not its message, which may contain the address of a proxy with its password
            raise LLMError(
                f"no connection to the server of {self.id} can be set up "
                f"({type(error).__name__}): check base_url and the environment variables of proxies"
            ) from None
        with self._secrets().out_of_logs():
            async with opened as client:
                yield client

    def _open(self, key: str, address: Address | None) -> AsyncOpenAI:
        import openai

        from synque_select.llm.openai.limited_client import LimitedClient

        return openai.AsyncOpenAI(
            api_key=key,
            base_url=None if address is None else address.base,
            default_query=None if address is None or self.pool else address.query,
            timeout=self._timeout_s,
            default_headers={"Accept-Encoding": ACCEPTED_ENCODING},
            http_client=LimitedClient(self.pool),
            # retries are made here, where they share the rate limits
            max_retries=0,
        )

    def _where(self) -> Address | None:
        """Return the address of the server; None for the public one."""
        url = os.environ.get(self.address_variable)
        return self._address or (parse_address(self.address_variable, url) if url else None)

    @property
    def where_hash(self) -> str:
        """Hash of the address of the server."""
        address = self._where()
        state = self.public if address is None else [address.base, sorted(address.query.items())]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]

    def _secrets(self) -> Secrets:
        address = self._where()
        hidden = () if address is None else address.secrets
        if self.pool is not None:
            hidden = tuple(text for one in self.pool.servers for text in one.address.secrets)
        return Secrets([os.environ.get(self._key_variable), *hidden])

    async def models(self, client: AsyncOpenAI) -> Sequence[Json]:
        """Return the models that the server lists, if it does; a wrong address or key is an error.

        Raises:
            LLMError: The server cannot be reached, or rejects the key.
        """
        try:
            text = await self.send(self._list_models(client))
        except ServerError as error:
            if error.status in (401, 403):
                raise self.rejected(error) from None
            return []
        if not isinstance(text, str):
            return []
        try:
            listed = parse_json(text, "the answer", error=LLMError)
        except LLMError:
            return []  # not every server lists its models
        models = listed.get("data") if isinstance(listed, Mapping) else None
        return models if isinstance(models, list) else []

    def _list_models(self, client: AsyncOpenAI) -> Awaitable[HasText]:
        return client.models.with_raw_response.list()

    async def acquire(self, n_tokens: int) -> None:
        """Wait until the limits per minute allow a request that reads and writes this much."""
        await self._rate_limiter.acquire(n_tokens)

    async def with_retries(
        self,
        n_tokens: int | None,
        attempt: Callable[[], Awaitable[JsonObject | Failure | RetryableFailure]],
    ) -> JsonObject | Failure:
        """Repeat an attempt until it succeeds, fails for good, or has failed too often.

        Args:
            n_tokens: Number of tokens that it reads and writes, for the limits per minute; None if
                the attempt waits for these itself.
            attempt: Sends the request.
        """
        reason = ""
        for n_failed in range(1, self._max_retries + 2):
            if n_tokens is not None:
                await self.acquire(n_tokens)
            result = await attempt()
            if not isinstance(result, RetryableFailure):
                return result
            reason = result.reason
            if result.wait_s is not None and result.wait_s > _MAX_PAUSE_S:
                return Failure(f"{reason}; it asks to wait {result.wait_s:.6g} s")
            wait_s = result.wait_s
            if wait_s is None:
                wait_s = backoff_s(n_failed, self._jitter)
            if result.for_all:
                self._rate_limiter.pause(wait_s)
            elif n_failed <= self._max_retries:
                await asyncio.sleep(wait_s)
        return Failure(f"{reason}; asked {counted(self._max_retries + 1, 'time')}")

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

        url = str(client.base_url).rstrip("/").removesuffix("/v1") + path
        is_unknown = False

        async def attempt() -> JsonObject | Failure | RetryableFailure:
            nonlocal is_unknown
            is_unknown = False
            try:
                text = await self.send(
                    client.post(url, cast_to=httpx.Response, body={"model": self.id, **body})
                )
                answer = self.read_object(text) if isinstance(text, str) else text
                is_unknown = isinstance(text, str) and isinstance(answer, RetryableFailure)
                return answer
            except ServerError as error:
                is_about_prompt = is_refusal(error.words) or is_about_length(error.words)
                if error.status in (401, 403, 404, 405) and not is_about_prompt:
                    raise LookupError(path) from None
                is_unknown = error.status in (400, 422, 500, 501) and not is_about_prompt
                return self.on_error(error)

        answer = await self.with_retries(n_tokens, attempt)
        if isinstance(answer, Failure):
            raise RequestFailed(answer, may_lack_path=is_unknown)
        return answer

    async def has_tokenizer(self, client: AsyncOpenAI) -> bool:
        """Return whether the server tokenizes any text at all."""
        try:
            await self.post(client, "/tokenize", {"prompt": "a"}, 0)
        except RequestFailed as error:
            return not error.may_lack_path
        except LookupError:
            return False
        return True

    def check_answered(self) -> None:
        """Raise LLMError if the server has forbidden every request so far."""
        if self._forbidden and not self._has_answered:
            raise self.rejected(self._forbidden[-1])

    async def send(self, request: Awaitable[HasText]) -> str | Failure | RetryableFailure:
        """Return the text of the server's answer, if it is complete in time and not too large.

        Raises:
            ServerError: The status of the answer is an error.
            LLMError: The server cannot be reached.
        """
        sdk = importlib.import_module(self.package)
        try:
            # the timeout of the client is that of a single read: a server that sends a byte now
            # and then would be waited for without end
            async with asyncio.timeout(self._timeout_s):
                return str((await request).text)
        except (TimeoutError, sdk.APITimeoutError) as error:
            if self.pool is not None and type(error.__cause__).__name__ == "ConnectTimeout":
                raise self._unreachable(error) from None
            return RetryableFailure(f"no complete answer in {self._timeout_s:g} s")
        except sdk.APIStatusError as error:
            headers = {str(name).lower(): value for name, value in error.response.headers.items()}
            mask = self._secrets().mask
            # before it is cut, and once more after escapes such as \u002f have been read
            words = mask(server_words(mask(error.response.text)))
            raise ServerError(error.status_code, words, headers) from None
        except AnswerNotReadError as error:
            return Failure(str(error))  # asked again, it would be as large
        except sdk.APIConnectionError as error:
            # older versions of the package wrap any error
            if isinstance(error.__cause__, AnswerNotReadError):
                return Failure(str(error.__cause__))
            if type(error.__cause__).__name__ == "ConnectError":
                raise self._unreachable(error) from None
            return RetryableFailure(_CAUSES.get(type(error.__cause__).__name__, _CLOSED))

    def on_error(self, error: ServerError) -> Failure | RetryableFailure:
        """Return what an error means for its request.

        Raises:
            LLMError: It applies to all requests: a wrong key, an unknown model, or no credit left.
        """
        status, reason = error.status, f"{error.status}: {error.words}"
        if is_refusal(error.words) and status < 500 and status not in (401, 402, 429):
            return Failure(f"the server refused to answer: {reason}")
        if status in (401, 402) or "insufficient_quota" in reason:
            raise self.rejected(error)
        # after answers to other prompts, this is about the prompt: a firewall that dislikes it
        if status in (403, 404) and not self._has_answered:
            self._forbidden.append(error)
            if len(self._forbidden) >= _MAX_FORBIDDEN:
                raise self.rejected(error)
        if status in (408, 409, 425, 429) or status >= 500:
            if status == 429 and self.pool is not None:
                return RetryableFailure(reason, 0.0)  # the pause is that of one server
            return RetryableFailure(reason, retry_after_s(error.headers), for_all=status == 429)
        return Failure(f"the server answered {reason}")

    def read_object(self, text: str) -> JsonObject | RetryableFailure:
        """Parse a JSON object, and count the tokens that it reports as used.

        Raises:
            ServerError: The object is an error, although the status of the answer is not.
        """
        try:
            state = parse_json(text.removeprefix("\ufeff"), "the answer", error=LLMError)
        except LLMError:
            state = completion_of_events(text)
        if not isinstance(state, Mapping):
            return RetryableFailure(f"the answer is not a JSON object: {self.excerpt(text)!r}")
        error = error_in_answer(state)
        if error is not None:
            raise ServerError(error.status, self._secrets().mask(error.words))
        self._has_answered = True
        self._count(state)
        return state

    def _count(self, state: JsonObject) -> None:
        self._usage.n_prompt_tokens += count_at(state, "usage", "prompt_tokens")
        self._usage.n_answer_tokens += count_at(state, "usage", "completion_tokens")
        n_cached = count_at(state, "usage", "prompt_tokens_details", "cached_tokens")
        self._usage.n_cached_tokens += n_cached

    def without_secrets(self, text: str) -> str:
        """Return an answer without the keys that a server repeats in it."""
        return self._secrets().mask_whole(text)

    def excerpt(self, text: str) -> str:
        """Return the beginning of what a server sent, on one line and without secrets."""
        return one_line(self._secrets().mask(text), _MAX_SHOWN)

    def _unreachable(self, error: Exception) -> UnreachableError:
        address = self._where()
        reason = self.excerpt(str(error.__cause__ or error))
        if self.pool is not None:
            return UnreachableError(
                f"none of the servers of {self.id} can be reached ({self.pool.shown}): {reason}. "
                "The answers so far are cached; the same command continues."
            )
        where = self.public if address is None else address.shown
        return UnreachableError(f"the server of {self.id}, {where}, cannot be reached: {reason}")

    def rejected(self, error: ServerError) -> LLMError:
        """Return the error of a server that rejects all requests."""
        variable = shown_variable(self._key_variable)
        advice = {
            401: f"; the API key is read from the environment variable {variable}",
            404: "; check the name of the model, and that the address ends with /v1",
        }.get(error.status, "")
        return LLMError(
            f"the server of {self.id} rejects the request: {error.status} {error.words}{advice}"
        )


def _addresses(base_url: str | Sequence[str] | None) -> list[Address]:
    if base_url is None:
        return []
    given = [base_url] if isinstance(base_url, str) else base_url
    if not isinstance(given, Sequence) or not given:
        raise ConfigError(
            f"base_url is {kind_of(given)}: allowed is an address, or a list of addresses of "
            "servers of the same model"
        )
    addresses = [parse_address("base_url", url) for url in given]
    shown = [(address.base, tuple(sorted(address.query.items()))) for address in addresses]
    if len(set(shown)) < len(shown):
        raise ConfigError(
            f"base_url names a server twice among {', '.join(a.shown for a in addresses)}: give "
            "each once"
        )
    return addresses


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (is_number(value) and value > 0):
            raise ConfigError(f"{name}={value!r}: allowed is a number above 0")


def _check_installed(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(package, extra=package, purpose=f"the engine '{package}'") from error
