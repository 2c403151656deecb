"""Language models behind any server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakKeyDictionary

from synque_select.errors import ConfigError, LLMError
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_constraint
from synque_select.llm.batches import Batcher, BatchService, BatchStore
from synque_select.llm.openai.async_bridge import iterate_in_thread
from synque_select.llm.openai.batch_service import OpenAIBatches
from synque_select.llm.openai.completion import Completion, read_completion
from synque_select.llm.openai.dialect import Dialect, Question, messages
from synque_select.llm.openai.endpoint import (
    Endpoint,
    HasText,
    RequestFailed,
    RetryableFailure,
)
from synque_select.llm.openai.json_access import count_at
from synque_select.llm.openai.label_logprobs import (
    ChoiceMass,
    Step,
    choice_probabilities,
    frame_of,
    is_of_answer,
    read_choice_mass,
    steps_of_answer,
)
from synque_select.llm.openai.served_choices import ServedChoices
from synque_select.llm.openai.server_errors import ServerError, is_refusal
from synque_select.llm.openai.trial import find_dialect, may_be_a_parameter
from synque_select.llm.prompt import PromptLike, has_images, join_prompts
from synque_select.llm.structured import without_thinking
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["OpenAILLM"]

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

# tokens of the JSON around an answer
_FRAME_TOKENS = 16
_FENCE = re.compile(r"\A```\w*")
# special tokens that some servers leave at both ends of an answer
_SPECIAL = re.compile(r"\A(?:\s*<\|\w+\|>)+|(?:(?:<\|\w+\|>|</s>|<end_of_turn>)\s*)+\Z")
# how much more than it could have a choice may get from another answer of the same server
_CONSISTENT = 2.0
# in errors that name a parameter, but may be about one prompt only
_OF_PROMPT = re.compile(
    r"(?:this|your) (?:\w+ )?(?:request|prompt|messages?|inputs?|content)\b"
    r"|fail|could not|couldn't|internal|temporar",
    re.IGNORECASE,
)
# a rejected key, no credit left, and what passes
_NOT_A_PARAMETER = (401, 402, 408, 429, 502, 503, 504)
# prompts for which it is tried in vain whether a parameter is to blame for their error
_MAX_VAIN_TRIALS = 3
_LABELS_INSTEAD = "judge with readout='label' instead"
_NO_TOKENS = f"does not show the probabilities of tokens (logprobs): {_LABELS_INSTEAD}"
# one answer may come from a cache or a proxy that leaves the tokens out; several do not
_MAX_WITHOUT_TOKENS = 3
# questions that wait for batches at the same time
_MAX_IN_BATCHES = 50_000


class OpenAILLM(BaseLLM):
    """A model behind an OpenAI-compatible server: `vllm serve`, llama.cpp, or a hosted model.

    Requests run concurrently up to a limit. Requests that fail temporarily (429, 5xx, a closed
    connection, an answer that is not JSON) are repeated after a pause, whose length the server may
    set with Retry-After; if they still fail, the result is a `Failure`, and so is a refused,
    filtered or empty answer. A server that cannot be reached, or rejects the key or the model,
    raises an error at once.

    Choices and schemas are enforced by the server's structured outputs. If the server has none,
    the model answers freely, and an answer that is not one of the choices is a `Failure`. A
    parameter that the server refuses is left out from then on, and `notes` says so.

    Probabilities of choices are exact with vLLM, which reports the probability of any token: one
    token is generated at each place where the choices differ. With other servers, and with vLLM
    for images, they are computed from the 20 most probable tokens shown at each place of one
    answer. A text with which only one choice begins counts for that choice. If several choices
    begin with it, they are distinguished by another request for these choices only. So is a choice
    that is not shown but may have more than 1 %. Where more than 5 % of the probability could
    belong to choices that were not shown, the result is a `Failure`; less counts as 0, and the
    probabilities are scaled to sum to 1. A token of probability 1 that is shown without any other
    says nothing: then the result is a `Failure`, too. A model that shows no tokens (most hosted
    reasoning models) can only judge with `readout="label"`.

    The API key is read from the environment when a request is made and is never stored. Messages
    and logs show neither the key nor parts of the address that may be one (unusual parts of its
    path, its query). Cached
    answers are identified by model id and revision, whichever server gave them: set a revision if
    servers may differ.

    Args:
        model_id: Name of the model on the server.
        base_url: Address of the server, up to `/v1`; its query, if any, is sent with every
            request. A list of addresses is that of several servers of the same model, over which
            requests are spread: each goes to the server with the fewest, and a server that fails
            is left out for a while. None for the environment variable OPENAI_BASE_URL or, if it is
            not set, api.openai.com.
        key_variable: Environment variable with the API key; local servers need none.
        revision: Version of the weights, if known.
        max_concurrency: Maximum number of concurrent requests.
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute, of prompts and the longest answers
            that are allowed; None for no limit.
        timeout_s: Maximum time for a whole answer, in seconds.
        max_retries: Maximum number of times that a request is repeated.
        context_length: Maximum number of tokens of prompt and answer; None if unknown (vLLM's
            server reports it).
        batch: Whether to answer through the server's Batch API: within 24 hours, at half the
            price. The first question of each form, and fewer than 16 at a time, are asked directly.
            The limits per minute and `max_concurrency` apply to these only. Batches are noted in
            the cache: after a kill, the same questions wait for the same batch.

    Raises:
        ConfigError: An argument is not allowed.
        DependencyError: The package openai is missing.

    Example:
        >>> OpenAILLM("Qwen/Qwen2.5-32B-Instruct", base_url="http://localhost:8000/v1").key
        '{"id": "Qwen/Qwen2.5-32B-Instruct", "revision": "user"}'
    """

    can_batch = True
    _endpoint_class = Endpoint
    _first_dialect = Dialect()

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | Sequence[str] | None = None,
        key_variable: str = "OPENAI_API_KEY",
        revision: str = "user",
        max_concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 600.0,
        max_retries: int = 6,
        context_length: int | None = None,
        batch: bool = False,
    ) -> None:
        check_int("max_concurrency", max_concurrency, 1)
        if not isinstance(batch, bool):
            raise ConfigError(f"batch={batch!r}: allowed is true or false")
        if context_length is not None:
            check_int("context_length", context_length, 1)
        self.id = model_id
        self.revision = revision
        self.context_length = context_length
        self._max_concurrency = max_concurrency
        self.answers_in_batches = batch
        self._endpoint = self._endpoint_class(
            model_id,
            base_url=base_url,
            key_variable=key_variable,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            max_retries=max_retries,
            usage=self.usage,
        )
        if batch and self._endpoint.pool is not None:
            raise ConfigError(
                "batch=True and several servers in base_url: a batch is answered by one server; "
                "give one address, or leave out batch"
            )
        self._dialect = self._first_dialect
        # forms of requests that were answered: an error in the same form is about its prompt
        self._accepted: set[tuple[str, ...]] = set()
        # dialects that were left because of an error, oldest first, and the note that said so
        self._replaced: dict[Dialect, str] = {}
        # a dialect that was left because of the first prompt alone: the next one is to confirm it
        self._doubted: Dialect | None = None
        self._turns: WeakKeyDictionary[AsyncOpenAI, asyncio.Lock] = WeakKeyDictionary()
        self._batchers: WeakKeyDictionary[AsyncOpenAI, Batcher] = WeakKeyDictionary()
        # for the first question of each form, which shows what the server refuses
        self._first: WeakKeyDictionary[AsyncOpenAI, asyncio.Lock] = WeakKeyDictionary()
        self._n_vain_trials = 0
        # whether the server reports the probability of any token: without images, with images
        self._reports_any_token = {False: False, True: False}
        self._has_reported = {False: False, True: False}
        # whether some answer came with the probabilities of its tokens
        self._shows_tokens = False
        self._n_without_tokens = 0
        # "vllm" or "other", once the server was asked
        self._kind: str | None = None

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
            return self._answer(completion, allowed, schema, max_tokens)

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
        self._check_shows_tokens(1)

    async def _exact_probabilities(
        self, client: AsyncOpenAI, prompt: PromptLike, served: ServedChoices
    ) -> list[float] | Failure | None:
        """Return the probabilities that the server reports; None if it does not report them."""
        images = has_images(prompt)
        # these requests are not chats, which batches consist of
        if self.answers_in_batches or not self._reports_any_token[images]:
            return None
        self.usage.n_requests += 1
        try:
            row = await served.probabilities(partial(self._endpoint.post, client), prompt)
        except RequestFailed as error:
            is_prompt = not error.may_lack_path or await self._endpoint.has_tokenizer(client)
            if self._has_reported[images] or is_prompt:
                return error.failure
            # a gateway in front of it that passes chats only
            self._reports_any_token[images] = False
            return None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            if self._has_reported[images]:
                # one odd answer: another way to compute it would not be comparable with the rest
                reason = self._endpoint.excerpt(f"{type(error).__name__}: {error}")
                return Failure(f"the probabilities of tokens cannot be read ({reason})")
            # an older vLLM, or a proxy in front of it that passes chats only
            self._reports_any_token[images] = False
            return None
        self._has_reported[images] = True
        return row

    async def _shown_probabilities(
        self, client: AsyncOpenAI, prompt: PromptLike, choices: tuple[str, ...]
    ) -> list[float] | Failure:
        """Return the probabilities computed from the most probable tokens."""
        mass = await self._choice_mass(client, prompt, choices, choices)
        if isinstance(mass, Failure):
            return mass
        problem = mass.problem(choices)
        if problem is not None:
            return Failure(f"{problem}: {_LABELS_INSTEAD}")
        for group in mass.undecided_groups():
            self._note(
                f"{self.id}: the server's tokens do not distinguish {listed(group)}: their "
                "probability is divided evenly in some answers."
            )
        return choice_probabilities(mass, choices) or Failure("all choices have probability 0")

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
        if completion.refusal is not None:
            return self._refused(completion.refusal)
        if not (completion.tokens and completion.text.strip()):
            return self._without_tokens(completion, choices)
        self._shows_tokens = True
        try:
            # the shape is not checked beforehand: what is wrong with it raises one of these errors
            steps = cast("Sequence[Step]", completion.tokens)
            steps = steps_of_answer(steps, without_thinking(completion.text))
            frame = frame_of(steps)
            mass = read_choice_mass(steps, choices, frame, among)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = self._endpoint.excerpt(f"{type(error).__name__}: {error}")
            shown = self._endpoint.excerpt(str(completion.tokens))
            return Failure(
                f"the probabilities of tokens (logprobs) cannot be read ({reason}): {shown}"
            )
        if not is_of_answer(mass.written, without_thinking(completion.text), choices):
            shown = self._endpoint.excerpt(completion.text)
            return Failure(
                f"the tokens that the server shows (logprobs) are not those of its answer {shown!r}"
            )
        if self._dialect.choices[0] != "none" and self._dialect.frame == frame:
            await self._resolve(client, prompt, choices, among, mass)
        return mass

    def _answer(
        self,
        completion: Completion,
        choices: Sequence[str] | None,
        schema: JsonObject | None,
        max_tokens: int,
    ) -> str | Failure:
        if completion.refusal is not None:
            return self._refused(completion.refusal)
        if not completion.text.strip():
            return Failure(_why_empty(completion, max_tokens))
        if choices is not None:
            shown = self._endpoint.excerpt(completion.text)
            return _matching_choice(completion.text, choices) or Failure(
                f"answered {shown!r}, which is none of the choices"
            )
        if completion.is_cut and schema is not None:
            return Failure(f"the answer was not complete after {counted(max_tokens, 'token')}")
        return completion.text

    def _refused(self, words: str) -> Failure:
        return Failure(f"the model refused to answer: {self._endpoint.excerpt(words)}")

    def _without_tokens(self, completion: Completion, choices: tuple[str, ...]) -> Failure:
        """Return the failure of an answer without tokens.

        Raises:
            LLMError: It is the third proper answer, and none has come with tokens so far: the
                server shows none.
        """
        if not completion.text.strip():
            return Failure(_why_empty(completion, None))
        self._n_without_tokens += _matching_choice(completion.text, choices) is not None
        self._check_shows_tokens(_MAX_WITHOUT_TOKENS)
        return Failure(f"the answer {self._endpoint.excerpt(completion.text)!r} {_NO_TOKENS}")

    def _check_shows_tokens(self, most: int) -> None:
        """Raise LLMError if this many proper answers came without tokens, and none with them."""
        if not self._shows_tokens and self._n_without_tokens >= most:
            raise LLMError(f"{self.id} {_NO_TOKENS}")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            _log.warning("%s", text)

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
        for choice in mass.missing_choices(among) if len(among) > 1 else ():
            part = await self._choice_mass(client, prompt, choices, (choice,))
            if isinstance(part, ChoiceMass) and choice in part.by_choice:
                # a server that shows what the constraint allows says 1: then it stays unknown
                share = part.by_choice[choice]
                if share <= _CONSISTENT * mass.bound:
                    mass.add((choice,), share)

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
                await self._identify_servers(client)
                if not self.answers_in_batches:
                    await _all_or_none(worker() for _ in range(min(n, self._max_concurrency)))
                else:
                    service = self._batch_service(client)
                    async with Batcher(
                        service, BatchStore(), self.id, self._max_concurrency
                    ) as batcher:
                        self._batchers[client] = batcher
                        await _all_or_none(worker() for _ in range(min(n, _MAX_IN_BATCHES)))
                self._endpoint.check_answered()

        yield from iterate_in_thread(work)

    def _batch_service(self, client: AsyncOpenAI) -> BatchService:
        return OpenAIBatches(self._endpoint, client)

    async def _identify_servers(self, client: AsyncOpenAI) -> None:
        """Find out whether the server is vLLM, and the model's context length.

        Raises:
            LLMError: Of several servers none can be reached, one lacks the model, or some are vLLM
                and others are not: they would compute probabilities in different ways.
        """
        pool = self._endpoint.pool
        if pool is None:
            if self._kind is None:
                self._kind = self._learn_kind(await self._endpoint.models(client))
            return
        problem: LLMError | None = None
        for server in [server for server in pool.servers if not server.is_checked]:
            with pool.only(server):
                try:
                    models = await self._endpoint.models(client)
                except LLMError as error:
                    if not server.is_out:
                        raise
                    problem = error
                    continue
            if server.n_failed or server.is_busy:
                continue  # it is asked again before the next questions
            names = [str(m.get("id")) for m in models if isinstance(m, Mapping)]
            if names and self.id not in names:
                raise LLMError(
                    f"the server {server.address.shown} does not have the model {self.id!r}; it "
                    f"has {listed(names)}"
                )
            kind = self._learn_kind(models)
            if self._kind not in (None, kind):
                raise LLMError(
                    f"the servers of {self.id} differ ({pool.shown}): some are vLLM, others are "
                    "not, and their probabilities would not be comparable; give servers of one kind"
                )
            self._kind, server.is_checked = kind, True
        if not any(server.is_checked for server in pool.servers):
            raise problem or LLMError(
                f"none of the servers of {self.id} ({pool.shown}) lists its models: they are busy "
                "or failing; try again"
            )

    def _learn_kind(self, models: Sequence[Json]) -> str:
        """Return "vllm" or "other", and use what a list of models says of this one."""
        kind = "other"
        for model in models:
            if isinstance(model, Mapping) and model.get("id") == self.id:
                lengths = [self.context_length, count_at(model, "max_model_len")]
                self.context_length = min(filter(None, lengths), default=None)
                kind = "vllm" if model.get("owned_by") == "vllm" else kind
        if kind == "vllm" and self._kind is None:
            self._dialect = Dialect(choices=("vllm", "json_schema", "none"))
            self._reports_any_token = {False: True, True: True}
        return kind

    async def _ask(self, client: AsyncOpenAI, question: Question) -> Completion | Failure:
        """Return the first choice of a chat completion."""
        self.usage.n_requests += 1
        n_tokens = self.count_tokens(question.prompt) + question.max_tokens
        answers: list[Completion] = []

        async def attempt() -> JsonObject | Failure | RetryableFailure:
            answer = await self._try(client, question)
            if isinstance(answer, Completion):
                answers.append(answer)
                return {}
            return answer

        # batches have limits of their own: only what is asked directly is limited here
        limited = None if self.answers_in_batches else n_tokens
        result = await self._endpoint.with_retries(limited, attempt)
        return result if isinstance(result, Failure) else answers[0]

    async def _try(
        self, client: AsyncOpenAI, question: Question
    ) -> Completion | Failure | RetryableFailure:
        known = dialect = self._dialect
        first_error: ServerError | None = None
        doubted = None if question.schema is not None else self._doubted
        if doubted is not None:
            dialect, self._doubted = doubted, None
        while True:
            try:
                answer = await self._send(client, question, dialect)
            except ServerError as error:
                if dialect is doubted:
                    dialect, doubted = known, None
                    continue
                if self._dialect is not known:
                    # another request has changed it in the meantime: try that one first
                    known = dialect = self._dialect
                    continue
                is_repeated, first_error = first_error is not None, first_error or error
                next_dialect = _next_dialect(dialect, error, question)
                if next_dialect is not None and self._others_answered(question, known):
                    # other prompts were answered in this form: a bad moment, or about this prompt
                    if is_repeated:
                        return self._endpoint.on_error(first_error)
                    dialect = known
                    continue
                if next_dialect is not None:
                    dialect = next_dialect
                    continue
                result_of_trial = await self._by_trial(client, question, dialect, error)
                if result_of_trial is None and self._dialect is not known:
                    known = dialect = self._dialect
                    continue
                if result_of_trial is None:
                    return self._endpoint.on_error(error)
                dialect, answer = result_of_trial
            if isinstance(answer, Completion):
                if dialect != known and first_error and self._others_answered(question, known):
                    # another prompt was answered in the meantime: nothing is wrong with the form
                    return self._endpoint.on_error(first_error)
                self._learn(question, dialect, known, first_error)
            return answer

    async def _send(
        self, client: AsyncOpenAI, question: Question, dialect: Dialect
    ) -> Completion | Failure | RetryableFailure:
        """Send a question once.

        Raises:
            ServerError: The server rejects it.
        """
        batcher = self._batchers.get(client)
        if batcher is None:
            return await self._send_directly(client, question, dialect)
        body = self._body(question, dialect)
        if not batcher.knows(body) and not self._is_accepted(question, dialect):
            async with self._first.setdefault(client, asyncio.Lock()):
                if not self._is_accepted(question, dialect):
                    return await self._send_directly(client, question, dialect)
        answer = await batcher.answer(body)
        if isinstance(answer, str):
            return self._read(answer)
        if isinstance(answer, RetryableFailure):
            return answer
        async with batcher.direct:
            return await self._send_directly(client, question, dialect)

    async def _send_directly(
        self, client: AsyncOpenAI, question: Question, dialect: Dialect
    ) -> Completion | Failure | RetryableFailure:
        if self.answers_in_batches:
            await self._endpoint.acquire(self.count_tokens(question.prompt) + question.max_tokens)
        text = await self._endpoint.send(self._request(client, self._body(question, dialect)))
        return self._read(text) if isinstance(text, str) else text

    def _body(self, question: Question, dialect: Dialect) -> JsonObject:
        """Return a question as the parameters of a request."""
        # the messages are JSON objects, but mypy does not take a TypedDict for a mapping of Json
        turn = cast("list[Json]", messages(question.prompt))
        return {"model": self.id, "messages": turn, **dialect.parameters(question)}

    def _request(self, client: AsyncOpenAI, body: JsonObject) -> Awaitable[HasText]:
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        return client.chat.completions.with_raw_response.create(
            model=self.id,
            messages=cast("list[ChatCompletionMessageParam]", body["messages"]),
            extra_body=rest,
        )

    async def _by_trial(
        self, client: AsyncOpenAI, question: Question, dialect: Dialect, error: ServerError
    ) -> tuple[Dialect, Completion] | None:
        """Find out whether a parameter is to blame for an error that does not name one."""
        known = self._dialect
        if not may_be_a_parameter(error) or self._is_accepted(question, dialect):
            return None

        async def ask(tried: Dialect) -> Completion | None:
            try:
                answer = await self._send(client, question, tried)
            except ServerError:
                return None
            return answer if isinstance(answer, Completion) else None

        # one request at a time: the others wait for what it finds out
        async with self._turns.setdefault(client, asyncio.Lock()):
            is_over = self._dialect is not known or self._is_accepted(question, dialect)
            if is_over or self._n_vain_trials >= _MAX_VAIN_TRIALS:
                return None
            result = await find_dialect(dialect, question, ask)
            if result is None:
                self._n_vain_trials += 1
            else:
                self._learn(question, result[0], known, error)
            return result

    def _is_accepted(self, question: Question, dialect: Dialect) -> bool:
        return dialect.form(question) in self._accepted

    def _others_answered(self, question: Question, dialect: Dialect) -> bool:
        """Whether other prompts were answered in this form; each schema is one of its own."""
        return question.schema is None and self._is_accepted(question, dialect)

    def _learn(
        self, question: Question, dialect: Dialect, known: Dialect, error: ServerError | None
    ) -> None:
        """Use a dialect from now on in which the server has answered a question."""
        self._accepted.add(dialect.form(question))
        is_larger = dialect.form(question) != self._dialect.form(question)
        if dialect in self._replaced and is_larger and question.schema is None:
            # sent before an error about another prompt was put down to a parameter: it was not
            while self._replaced:
                earlier, note = self._replaced.popitem()
                self.notes.remove(note)
                if earlier == dialect:
                    break
            self._dialect = dialect
        elif error is not None and dialect != known and self._dialect is known:
            # only now is it known that the parameter was to blame, and not the prompt
            changed = ", ".join(dialect.left_out_since(known))
            note = f"{self.id}: the server refuses {changed}: left out ({error.words})."
            self._dialect, self._replaced[known] = dialect, note
            self._note(note)
            is_first = question.schema is None and len(self._accepted) == 1
            if is_first and _may_be_about_the_prompt(known, error, question):
                self._doubted = known

    def _read(self, text: str) -> Completion | RetryableFailure:
        """Return the first choice of a completion, and count its tokens.

        Raises:
            ServerError: The answer is an error.
        """
        state = self._endpoint.read_object(text)
        if isinstance(state, RetryableFailure):
            return state
        completion = read_completion(state)
        if completion is None:
            shown = self._endpoint.excerpt(text)
            return RetryableFailure(f"the answer is not a chat completion with text: {shown!r}")
        if completion.is_broken_off:
            return RetryableFailure(f"the server stopped: {completion.finish_reason}")
        # a gateway that echoes its request must not bring the key into files of results
        return replace(completion, text=self._endpoint.without_secrets(completion.text))


def _next_dialect(dialect: Dialect, error: ServerError, question: Question) -> Dialect | None:
    if is_refusal(error.words) or error.status in _NOT_A_PARAMETER:
        return None
    # other errors than these two are rarely about a parameter: it must be named exactly
    by_name = error.status not in (400, 422)
    return dialect.after(error.words, question, by_name=by_name)


def _may_be_about_the_prompt(dialect: Dialect, error: ServerError, question: Question) -> bool:
    """Whether an error names a parameter, but may be about this prompt alone."""
    is_named = _next_dialect(dialect, error, question) is not None
    return is_named and error.status != 501 and _OF_PROMPT.search(error.words) is not None


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
    # an answer that does not distinguish them either, or another one, says nothing
    if (
        weights is not None
        and not part.is_alone
        and any(choice in part.by_choice for choice in group)
    ):
        group_mass = mass.by_group.pop(group)
        for choice, weight in zip(group, weights, strict=True):
            mass.add((choice,), group_mass * weight)


def _why_empty(completion: Completion, max_tokens: int | None) -> str:
    if completion.is_cut and max_tokens is not None:
        return f"the answer was not complete after {counted(max_tokens, 'token')}"
    return completion.no_text


def _matching_choice(content: str, choices: Sequence[str]) -> str | None:
    """Return the choice that an answer means, whether it is in JSON, in quotes or plain."""
    answer = _SPECIAL.sub("", without_thinking(content).strip()).strip()
    if answer.startswith("```") and answer.endswith("```"):
        answer = _FENCE.sub("", answer, count=1).removesuffix("```").strip()
    try:
        state = parse_json(answer, "the answer", error=LLMError)
    except LLMError:
        state = answer
    # null is not the word "None", and 1.50 not 1.5
    value = state.get("answer") if isinstance(state, dict) else state
    if isinstance(state, dict) and value is None:
        return None
    answer = str(value) if isinstance(state, dict | str) else answer
    if answer in choices:
        return answer
    bare = _plain(answer.strip("\"'*`. \n"))
    same = [choice for choice in choices if _plain(choice) == bare]
    return same[0] if len(same) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
