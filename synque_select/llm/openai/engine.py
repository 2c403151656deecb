"""Language models behind any server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from synque_select.errors import LLMError
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_form
from synque_select.llm.openai.async_bridge import iterate_in_thread
from synque_select.llm.openai.dialect import Dialect, Question
from synque_select.llm.openai.endpoint import (
    Endpoint,
    RequestFailed,
    RetryableFailure,
    counted,
    openai_package,
    said,
)
from synque_select.llm.openai.label_logprobs import Seen, read_path, shares
from synque_select.llm.openai.served_choices import ServedChoices
from synque_select.llm.prompt import PromptLike, has_images, join_prompts
from synque_select.llm.structured import without_thinking
from synque_select.utils.json_files import parse_json
from synque_select.utils.validation import check_int

__all__ = ["OpenAILLM"]

_FRAME_TOKENS = 16
_SHOWN = 200


class OpenAILLM(BaseLLM):
    """A model behind an OpenAI-compatible server: `vllm serve`, llama.cpp, a hosted one.

    Requests run side by side up to a bound. What fails for a time (429, 5xx, a cut connection,
    an answer that is no JSON) is asked again after a pause, which the server may set by
    Retry-After; what still fails then is a `Failure`. A server that cannot be reached, or does not
    know the key or the model, ends the run at once.

    Choices and schemas are forced by the server's structured outputs; where it has none, the
    model is asked without, and an answer that is none of the choices is a `Failure`.

    Probabilities of choices are those of their usual tokens, all of them, where vLLM serves: it
    tells them, from one generated token at each place where the choices part. Other servers do
    not, nor does vLLM for images: there, they come from the 20 most probable tokens that are shown
    at each place of one answer, by the text that they write: a text that only one choice can begin
    with counts for it in whole. Texts that several choices begin with are told apart by another
    request for these choices only, and so is a choice that is not shown, where the server shows
    the unconstrained model's tokens and the choice may have over 1 %; what is not shown beyond
    that counts as 0, and the rest is scaled to sum to 1. A model that shows no tokens (most
    hosted reasoning models) can only judge by `way="label"`.

    The key is read from the environment when a request is made; it is kept nowhere. Answers are
    kept by model id and revision, whatever server gave them: name a revision where it matters.

    Args:
        model_id: As the server names it.
        base_url: Of the server, up to `/v1`; None for OPENAI_BASE_URL, else api.openai.com.
        key_variable: The environment variable of the key. Servers on this machine need none.
        revision: Which weights, where you know.
        max_concurrency: Requests at the same time.
        requests_per_minute: None for no limit but the server's.
        tokens_per_minute: Of prompts and the longest answers; None for no limit but the server's.
        timeout_s: How long an answer may take.
        max_retries: How often a request is repeated.
        context_length: Tokens of prompt and answer, where you know; vLLM tells.

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
        # where the server tells the probability of any token: without images, with images
        self._tells = {False: False, True: False}
        self._met = False

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts side by side, in the order in which the answers arrive."""
        allowed = check_form(choices, schema)

        async def answer(client: Any, position: int) -> str | Failure:
            found = await self._ask(
                client,
                Question(prompts[position], allowed, schema, max_tokens, temperature, seed),
            )
            if isinstance(found, Failure):
                return found
            return _text(found, allowed, schema, max_tokens)

        yield from self._side_by_side(len(prompts), answer)

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return how probable each choice is, by the tokens that the server tells or shows."""
        allowed = check_choices(choices)
        served = ServedChoices(allowed)

        async def row(client: Any, position: int) -> list[list[float]] | Failure:
            found = []
            for suffix in suffixes:
                prompt = join_prompts(shared_prefix, items[position], suffix)
                parts = await self._told(client, prompt, served)
                if parts is None:
                    parts = await self._shown(client, prompt, allowed)
                if isinstance(parts, Failure):
                    return parts
                found.append(parts)
            return found

        yield from self._side_by_side(len(items), row)

    async def _told(
        self, client: Any, prompt: PromptLike, served: ServedChoices
    ) -> list[float] | Failure | None:
        """Return the probabilities that the server tells, None where it tells none."""
        images = has_images(prompt)
        if not self._tells[images]:
            return None
        self.usage.n_requests += 1
        try:
            return await served.shares(partial(self._endpoint.post, client), prompt)
        except RequestFailed as unanswered:
            return unanswered.failure
        except (LookupError, TypeError, ValueError, AttributeError):
            # it is older than that, or something before it lets only chats in
            self._tells[images] = False
            return None

    async def _shown(
        self, client: Any, prompt: PromptLike, choices: tuple[str, ...]
    ) -> list[float] | Failure:
        """Return the probabilities by the tokens that the server shows."""
        seen = await self._seen(client, prompt, choices, choices)
        if isinstance(seen, Failure):
            return seen
        parts = shares(seen, choices)
        return parts or Failure("no beginning of a choice is among the tokens that it shows")

    async def _seen(
        self, client: Any, prompt: PromptLike, choices: tuple[str, ...], among: Sequence[str]
    ) -> Seen | Failure:
        """Return where the probability goes when the answer is one among some of the choices."""
        longest = max(len(choice.encode()) for choice in choices)
        question = Question(prompt, among, max_tokens=longest + _FRAME_TOKENS, logprobs=True)
        found = await self._ask(client, question)
        if isinstance(found, Failure):
            return found
        logprobs = found.get("logprobs")
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if not content:
            raise LLMError(
                f"{self.id} shows no probabilities of tokens: judge with way='label' instead"
            )
        try:
            seen = read_path(content, choices, self._dialect.frame)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            return Failure(
                f"probabilities of tokens that cannot be read ({type(error).__name__}): "
                f"{str(content)[:_SHOWN]}"
            )
        if self._dialect.choices[0] != "none":
            await self._clear_up(client, prompt, choices, among, seen)
        return seen

    async def _clear_up(
        self,
        client: Any,
        prompt: PromptLike,
        choices: tuple[str, ...],
        among: Sequence[str],
        seen: Seen,
    ) -> None:
        """Ask again about the choices that one answer did not tell apart, or did not show."""
        for group in seen.unclear():
            if len(group) < len(among):
                part = await self._seen(client, prompt, choices, group)
                if isinstance(part, Seen):
                    _divide(seen, group, part)
        for choice in seen.hidden(among):
            part = await self._seen(client, prompt, choices, (choice,))
            if isinstance(part, Seen):
                seen.add((choice,), part.of_choice.get(choice, 0.0))

    def _side_by_side(
        self, n: int, answer: Callable[[Any, int], Awaitable[Any]]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the answers to n questions as they arrive."""
        if n == 0:
            return

        async def work(give: Callable[[tuple[int, Any]], None]) -> None:
            positions = iter(range(n))

            async def one_after_the_other() -> None:
                for position in positions:
                    give((position, await answer(client, position)))

            async with self._endpoint.client() as client:
                if not self._met:
                    await self._meet(client)
                await _all_or_none(
                    one_after_the_other() for _ in range(min(n, self._max_concurrency))
                )

        yield from iterate_in_thread(work)

    async def _meet(self, client: Any) -> None:
        """Ask the server what it is."""
        for model in await self._endpoint.models(client):
            if isinstance(model, dict) and model.get("id") == self.id:
                self.context_length = self.context_length or counted(model, "max_model_len") or None
                if model.get("owned_by") == "vllm":
                    self._dialect = Dialect(choices=("vllm", "json_schema", "none"))
                    self._tells = {False: True, True: True}
        self._met = True

    async def _ask(self, client: Any, question: Question) -> dict[str, Any] | Failure:
        """Return the first choice of a chat completion."""
        self.usage.n_requests += 1
        n_tokens = self.count_tokens(question.prompt) + question.max_tokens
        return await self._endpoint.repeated(n_tokens, lambda: self._try(client, question))

    async def _try(
        self, client: Any, question: Question
    ) -> dict[str, Any] | Failure | RetryableFailure:
        openai = openai_package()
        while True:
            dialect = self._dialect
            body = dialect.body(self.id, question)
            request = client.chat.completions.with_raw_response.create(
                model=body.pop("model"), messages=body.pop("messages"), extra_body=body
            )
            try:
                text = await self._endpoint.sent(request)
            except openai.APIStatusError as error:
                changed = self._changed(dialect, error, question)
                if changed is None:
                    return self._endpoint.on_status(error)
                # another request may have learnt something meanwhile: that comes first
                if self._dialect is dialect:
                    self._dialect = changed
                continue
            return text if isinstance(text, RetryableFailure) else self._read(text)

    def _changed(self, dialect: Dialect, error: Any, question: Question) -> Dialect | None:
        if error.status_code not in (400, 422):
            return None
        return dialect.after(said(error), question)

    def _read(self, text: str) -> dict[str, Any] | RetryableFailure:
        """Return the first choice of a completion, and count its tokens."""
        state = self._endpoint.read_object(text)
        if isinstance(state, RetryableFailure):
            return state
        try:
            (choice, *_) = state["choices"]
            content = choice["message"].get("content")
        except (ValueError, KeyError, TypeError, AttributeError):
            return RetryableFailure(f"an answer that is no chat completion: {text[:_SHOWN]!r}")
        if content is not None and not isinstance(content, str):
            return RetryableFailure(f"an answer without a text: {text[:_SHOWN]!r}")
        return dict(choice)


async def _all_or_none(coroutines: Iterator[Awaitable[None]]) -> None:
    """Wait for all; when one raises, the others stop and its error is raised as it is."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _divide(seen: Seen, group: tuple[str, ...], part: Seen) -> None:
    """Put in place of a group's probability what its choices have of it."""
    weights = shares(part, group)
    if weights is not None:
        mass = seen.of_group.pop(group)
        for choice, weight in zip(group, weights, strict=True):
            seen.add((choice,), mass * weight)


def _text(
    found: Mapping[str, Any],
    choices: Sequence[str] | None,
    schema: Mapping[str, Any] | None,
    max_tokens: int,
) -> str | Failure:
    content, ended = found["message"].get("content") or "", found.get("finish_reason")
    if ended == "content_filter" or found["message"].get("refusal"):
        refusal = found["message"].get("refusal") or "its filter"
        return Failure(f"the model refuses: {str(refusal)[:_SHOWN]}")
    if choices is not None:
        choice = _chosen(content, choices)
        return choice or Failure(f"answered {content[:_SHOWN]!r}, which is none of the choices")
    if ended == "length" and (schema is not None or not content):
        return Failure(f"the answer was not complete after {max_tokens} tokens")
    return content


def _chosen(content: str, choices: Sequence[str]) -> str | None:
    """Return the choice that an answer is, whether it is in JSON, in quotes or plain."""
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
