"""Language models behind any server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from synque_select.errors import LLMError
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_constraint
from synque_select.llm.openai.async_bridge import iterate_in_thread
from synque_select.llm.openai.dialect import Dialect, Question, messages
from synque_select.llm.openai.endpoint import (
    Endpoint,
    RequestFailed,
    RetryableFailure,
    error_text,
)
from synque_select.llm.openai.json_access import count_at, text_or_none, value_at
from synque_select.llm.openai.label_logprobs import (
    ChoiceMass,
    Step,
    choice_probabilities,
    read_choice_mass,
)
from synque_select.llm.openai.served_choices import ServedChoices
from synque_select.llm.prompt import PromptLike, has_images, join_prompts
from synque_select.llm.structured import without_thinking
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import JsonObject
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

__all__ = ["OpenAILLM"]

Result = TypeVar("Result")

# tokens of the JSON around an answer
_FRAME_TOKENS = 16
_MAX_SHOWN = 200


class OpenAILLM(BaseLLM):
    """A model behind an OpenAI-compatible server: `vllm serve`, llama.cpp, or a hosted model.

    Requests run concurrently up to a limit. Requests that fail temporarily (429, 5xx, a closed
    connection, an answer that is not JSON) are repeated after a pause, whose length the server may
    set with Retry-After; if they still fail, the result is a `Failure`. A server that cannot be
    reached, or rejects the key or the model, raises an error at once.

    Choices and schemas are enforced by the server's structured outputs. If the server has none,
    the model answers freely, and an answer that is not one of the choices is a `Failure`.

    Probabilities of choices are exact with vLLM, which reports the probability of any token: one
    token is generated at each place where the choices differ. With other servers, and with vLLM
    for images, they are computed from the 20 most probable tokens shown at each place of one
    answer. A text with which only one choice begins counts for that choice. If several choices
    begin with it, they are distinguished by another request for these choices only. So is a choice
    that is not shown but may have more than 1 %, if the server shows the tokens of the
    unconstrained model. What is not shown otherwise counts as 0, and the probabilities are scaled
    to sum to 1. A model that shows no tokens (most hosted reasoning models) can only judge with
    `readout="label"`.

    The API key is read from the environment when a request is made and is never stored. Cached
    answers are identified by model id and revision, whichever server gave them: set a revision if
    servers may differ.

    Args:
        model_id: Name of the model on the server.
        base_url: Address of the server, up to `/v1`; None for the environment variable
            OPENAI_BASE_URL or, if it is not set, api.openai.com.
        key_variable: Environment variable with the API key; local servers need none.
        revision: Version of the weights, if known.
        max_concurrency: Maximum number of concurrent requests.
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute, of prompts and the longest answers
            that are allowed; None for no limit.
        timeout_s: Maximum time for an answer, in seconds.
        max_retries: Maximum number of times that a request is repeated.
        context_length: Maximum number of tokens of prompt and answer; None if unknown (vLLM's
            server reports it).

    Raises:
        ConfigError: An argument is not allowed.
        DependencyError: The package openai is missing.

    Example:
        >>> OpenAILLM("Qwen/Qwen2.5-32B-Instruct", base_url="http://localhost:8000/v1").key
        '{"id": "Qwen/Qwen2.5-32B-Instruct", "revision": "user"}'
    """

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        revision: str = "user",
        max_concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 600.0,
        max_retries: int = 6,
        context_length: int | None = None,
    ) -> None:
        check_int("max_concurrency", max_concurrency, 1)
        self.id = model_id
        self.revision = revision
        self.context_length = context_length
        self._max_concurrency = max_concurrency
        self._endpoint = Endpoint(
            model_id,
            base_url=base_url,
            key_variable=key_variable,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            max_retries=max_retries,
            usage=self.usage,
        )
        self._dialect = Dialect()
        # whether the server reports the probability of any token: without images, with images
        self._reports_any_token = {False: False, True: False}
        self._server_identified = False

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: JsonObject | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts concurrently, in the order in which the answers arrive."""
        allowed = check_constraint(choices, schema)

        async def answer(client: AsyncOpenAI, position: int) -> str | Failure:
            completion = await self._ask(
                client,
                Question(prompts[position], allowed, schema, max_tokens, temperature, seed),
            )
            if isinstance(completion, Failure):
                return completion
            return _text(completion, allowed, schema, max_tokens)

        yield from self._concurrently(len(prompts), answer)

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return the probability of each choice, from tokens that the server reports or shows."""
        allowed = check_choices(choices)
        served = ServedChoices(allowed)

        async def rows_of_item(client: AsyncOpenAI, position: int) -> list[list[float]] | Failure:
            rows = []
            for suffix in suffixes:
                prompt = join_prompts(shared_prefix, items[position], suffix)
                row = await self._exact_probabilities(client, prompt, served)
                if row is None:
                    row = await self._shown_probabilities(client, prompt, allowed)
                if isinstance(row, Failure):
                    return row
                rows.append(row)
            return rows

        yield from self._concurrently(len(items), rows_of_item)

    async def _exact_probabilities(
        self, client: AsyncOpenAI, prompt: PromptLike, served: ServedChoices
    ) -> list[float] | Failure | None:
        """Return the probabilities that the server reports; None if it does not report them."""
        images = has_images(prompt)
        if not self._reports_any_token[images]:
            return None
        self.usage.n_requests += 1
        try:
            return await served.probabilities(partial(self._endpoint.post, client), prompt)
        except RequestFailed as error:
            return error.failure
        except (LookupError, TypeError, ValueError, AttributeError):
            # an older vLLM, or a proxy in front of it that passes chats only
            self._reports_any_token[images] = False
            return None

    async def _shown_probabilities(
        self, client: AsyncOpenAI, prompt: PromptLike, choices: tuple[str, ...]
    ) -> list[float] | Failure:
        """Return the probabilities computed from the most probable tokens."""
        mass = await self._choice_mass(client, prompt, choices, choices)
        if isinstance(mass, Failure):
            return mass
        probabilities = choice_probabilities(mass, choices)
        return probabilities or Failure(
            "no choice begins with any of the tokens that the server shows"
        )

    async def _choice_mass(
        self,
        client: AsyncOpenAI,
        prompt: PromptLike,
        choices: tuple[str, ...],
        among: Sequence[str],
    ) -> ChoiceMass | Failure:
        """Return the probability of the choices if the answer is constrained to some of them."""
        longest = max(len(choice.encode()) for choice in choices)
        question = Question(prompt, among, max_tokens=longest + _FRAME_TOKENS, logprobs=True)
        completion = await self._ask(client, question)
        if isinstance(completion, Failure):
            return completion
        logprobs = completion.get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if not content:
            raise LLMError(
                f"{self.id} does not show the probabilities of tokens: judge with readout='label' "
                "instead"
            )
        try:
            # the shape is not checked beforehand: what is wrong with it raises one of these errors
            steps = cast("Sequence[Step]", content)
            mass = read_choice_mass(steps, choices, self._dialect.frame)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            return Failure(
                f"the probabilities of tokens cannot be read ({type(error).__name__}): "
                f"{str(content)[:_MAX_SHOWN]}"
            )
        if self._dialect.choices[0] != "none":
            await self._resolve(client, prompt, choices, among, mass)
        return mass

    async def _resolve(
        self,
        client: AsyncOpenAI,
        prompt: PromptLike,
        choices: tuple[str, ...],
        among: Sequence[str],
        mass: ChoiceMass,
    ) -> None:
        """Ask again about choices that one answer did not distinguish, or did not show."""
        for group in mass.undecided_groups():
            if len(group) < len(among):
                part = await self._choice_mass(client, prompt, choices, group)
                if isinstance(part, ChoiceMass):
                    _split_group(mass, group, part)
        for choice in mass.missing_choices(among):
            part = await self._choice_mass(client, prompt, choices, (choice,))
            if isinstance(part, ChoiceMass):
                mass.add((choice,), part.by_choice.get(choice, 0.0))

    def _concurrently(
        self, n: int, answer: Callable[[AsyncOpenAI, int], Awaitable[Result]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield the answers to n questions as they arrive."""
        if n == 0:
            return

        async def work(emit: Callable[[tuple[int, Result]], None]) -> None:
            # all workers draw from one iterator, so each position is answered once
            positions = iter(range(n))

            async def worker() -> None:
                for position in positions:
                    emit((position, await answer(client, position)))

            async with self._endpoint.client() as client:
                if not self._server_identified:
                    await self._identify_server(client)
                await _all_or_none(worker() for _ in range(min(n, self._max_concurrency)))

        yield from iterate_in_thread(work)

    async def _identify_server(self, client: AsyncOpenAI) -> None:
        """Find out whether the server is vLLM, and the model's context length."""
        for model in await self._endpoint.models(client):
            if isinstance(model, Mapping) and model.get("id") == self.id:
                n_positions = count_at(model, "max_model_len")
                self.context_length = self.context_length or n_positions or None
                if model.get("owned_by") == "vllm":
                    self._dialect = Dialect(choices=("vllm", "json_schema", "none"))
                    self._reports_any_token = {False: True, True: True}
        self._server_identified = True

    async def _ask(self, client: AsyncOpenAI, question: Question) -> JsonObject | Failure:
        """Return the first choice of a chat completion."""
        self.usage.n_requests += 1
        n_tokens = self.count_tokens(question.prompt) + question.max_tokens
        return await self._endpoint.with_retries(n_tokens, lambda: self._try(client, question))

    async def _try(
        self, client: AsyncOpenAI, question: Question
    ) -> JsonObject | Failure | RetryableFailure:
        import openai

        while True:
            dialect = self._dialect
            request = client.chat.completions.with_raw_response.create(
                model=self.id,
                messages=messages(question.prompt),
                extra_body=dialect.parameters(question),
            )
            try:
                text = await self._endpoint.send(request)
            except openai.APIStatusError as error:
                next_dialect = _next_dialect(dialect, error, question)
                if next_dialect is None:
                    return self._endpoint.on_status(error)
                # if another request has changed the dialect in the meantime, try that one first
                if self._dialect is dialect:
                    self._dialect = next_dialect
                continue
            return text if isinstance(text, RetryableFailure) else self._read(text)

    def _read(self, text: str) -> JsonObject | RetryableFailure:
        """Return the first choice of a completion, and count its tokens."""
        state = self._endpoint.read_object(text)
        if isinstance(state, RetryableFailure):
            return state
        try:
            choice = value_at(state, "choices", 0)
            message = value_at(choice, "message")
        except (LookupError, TypeError):
            choice = message = None
        if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
            return RetryableFailure(f"the answer is not a chat completion: {text[:_MAX_SHOWN]!r}")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            return RetryableFailure(f"the answer does not contain text: {text[:_MAX_SHOWN]!r}")
        return choice


def _next_dialect(dialect: Dialect, error: APIStatusError, question: Question) -> Dialect | None:
    if error.status_code not in (400, 422):
        return None
    return dialect.after(error_text(error), question)


async def _all_or_none(coroutines: Iterator[Awaitable[None]]) -> None:
    """Wait for all coroutines; if one raises, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _split_group(mass: ChoiceMass, group: tuple[str, ...], part: ChoiceMass) -> None:
    """Divide the probability of a group among its choices, in proportion to another answer."""
    weights = choice_probabilities(part, group)
    if weights is not None:
        group_mass = mass.by_group.pop(group)
        for choice, weight in zip(group, weights, strict=True):
            mass.add((choice,), group_mass * weight)


def _text(
    completion: JsonObject,
    choices: Sequence[str] | None,
    schema: JsonObject | None,
    max_tokens: int,
) -> str | Failure:
    message = completion["message"]
    assert isinstance(message, Mapping)  # checked when the completion was read
    content = text_or_none(message.get("content")) or ""
    finish_reason, refusal = completion.get("finish_reason"), message.get("refusal")
    if finish_reason == "content_filter" or refusal:
        return Failure(f"the model refused to answer: {str(refusal or 'its filter')[:_MAX_SHOWN]}")
    if choices is not None:
        choice = _matching_choice(content, choices)
        return choice or Failure(f"answered {content[:_MAX_SHOWN]!r}, which is none of the choices")
    if finish_reason == "length" and (schema is not None or not content):
        return Failure(f"the answer was not complete after {max_tokens} tokens")
    return content


def _matching_choice(content: str, choices: Sequence[str]) -> str | None:
    """Return the choice that an answer means, whether it is in JSON, in quotes or plain."""
    answer = without_thinking(content).strip()
    try:
        state = parse_json(answer, "the answer", error=LLMError)
    except LLMError:
        state = answer
    answer = str(state.get("answer") if isinstance(state, dict) else state)
    if answer in choices:
        return answer
    bare = answer.strip("\"'*`. \n").casefold()
    return next((choice for choice in choices if choice.casefold() == bare), None)
