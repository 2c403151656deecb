"""Exact probabilities of choices from vLLM's server, which reports any token it is asked for."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, cast

from synque_select.llm.choice_tokens import branch_points, choice_shares
from synque_select.llm.openai.dialect import messages
from synque_select.llm.openai.endpoint import RequestFailed
from synque_select.llm.openai.json_access import integers, value_at
from synque_select.llm.prompt import PromptLike, has_images
from synque_select.utils.json_types import Json, JsonObject

__all__ = ["Post", "ServedChoices"]

# number of tokens at the end of a prompt that decide how an answer is tokenized behind it
_TAIL = 8
# log-probabilities are rounded: the sum of the probabilities may exceed 1 by this
_ROUNDING = 0.02

Post: TypeAlias = Callable[[str, JsonObject, int], Awaitable[JsonObject]]


class ServedChoices:
    """The choices as tokens of a server's model, and their probabilities after a prompt.

    One generated token is requested at each place where the choices differ, with the
    probabilities of the choices' tokens only: what the model would rather write does not matter.

    Args:
        choices: Possible answers, none of them a prefix of another.
    """

    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = choices
        self._continuations: dict[tuple[int, ...], list[list[int]]] = {}

    async def probabilities(self, post: Post, prompt: PromptLike) -> list[float]:
        """Return the probability of each choice.

        Args:
            post: Function that sends a JSON body to a path of the server and returns its JSON
                answer; its third argument is the number of tokens that the request reads and
                writes.
            prompt: The user turn.

        Raises:
            LookupError: The server does not report the probabilities: it is older than these
                parameters, or the model's template does not allow an answer about an image to be
                continued.
            TypeError: The server's answer has another shape.
        """
        # the messages are JSON objects, but mypy does not take a TypedDict for a mapping of Json
        turn = cast("list[Json]", messages(prompt))
        tokens = await _tokens(post, {"messages": turn})
        tail = tuple(tokens[-_TAIL:])
        if tail not in self._continuations:
            self._continuations[tail] = [
                await _continuation(post, turn, tokens, choice) for choice in self._choices
            ]
        continuations = self._continuations[tail]
        if not (tokens and all(continuations)):
            raise ValueError("the server returns no tokens for a text")
        log_p = {
            beginning: await _log_p(post, turn, tokens, beginning, children, has_images(prompt))
            for beginning, children in branch_points(continuations).items()
        }
        return choice_shares(log_p, continuations)


async def _continuation(post: Post, turn: list[Json], tokens: list[int], choice: str) -> list[int]:
    whole = await _tokens_of_begun_answer(post, _begun_answer(turn, choice))
    if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
        return whole[len(tokens) :]
    # the template or the tokenizer would change the end of the prompt: tokenize the choice alone
    return await _tokens(post, {"prompt": choice, "add_special_tokens": False})


async def _tokens(post: Post, body: JsonObject) -> list[int]:
    return integers(value_at(await post("/tokenize", body, 0), "tokens"))


def _begun_answer(turn: list[Json], answer: str) -> JsonObject:
    """Return a chat whose last message is the beginning of an answer."""
    begun: list[Json] = [*turn, {"role": "assistant", "content": answer}]
    return {"messages": begun, "add_generation_prompt": False, "continue_final_message": True}


async def _tokens_of_begun_answer(post: Post, chat: JsonObject) -> list[int]:
    try:
        return await _tokens(post, chat)
    except RequestFailed:  # the model's template does not allow an answer to be continued
        return []


async def _log_p(
    post: Post,
    turn: list[Json],
    tokens: list[int],
    beginning: tuple[int, ...],
    children: list[int],
    images: bool,
) -> dict[int, float]:
    """Return the log-probabilities of some tokens after the beginning of an answer."""
    begun = [*tokens, *beginning]
    options: JsonObject = {
        "max_tokens": 1,
        "temperature": 0.0,
        "logprob_token_ids": children,
        "return_tokens_as_token_ids": True,
    }
    if not images:
        answer = await post(
            "/v1/completions", {"prompt": begun, "logprobs": 1, **options}, len(begun) + 1
        )
        shown = value_at(answer, "choices", 0, "logprobs", "top_logprobs", 0)
    else:
        chat = await _chat(post, turn, begun, beginning)
        answer = await post(
            "/v1/chat/completions", {"logprobs": True, **options, **chat}, len(begun) + 1
        )
        tops = value_at(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs")
        if not isinstance(tops, list):
            raise TypeError("top_logprobs is not a list")
        shown = {str(value_at(top, "token")): value_at(top, "logprob") for top in tops}
    log_p = {token: _number(value_at(shown, f"token_id:{token}")) for token in children}
    shown_p = sorted(map(math.exp, log_p.values()))
    # a model gives every token some probability: 1 for one of several is made up
    if sum(shown_p) > 1 + _ROUNDING or shown_p[-2:] == [0.0, 1.0]:
        raise ValueError(f"{log_p} are not log-probabilities of tokens")
    return log_p


def _number(value: Json) -> float:
    if value is None:  # JSON has no -inf
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, found {value!r}")
    return float(value)


async def _chat(
    post: Post, turn: list[Json], begun: list[int], beginning: tuple[int, ...]
) -> Mapping[str, Json]:
    """Return the chat with these tokens: images can be sent only in a chat, which takes text."""
    if not beginning:
        return {"messages": turn}
    text = value_at(await post("/detokenize", {"tokens": list(beginning)}, 0), "prompt")
    chat = _begun_answer(turn, str(text))
    if await _tokens_of_begun_answer(post, chat) != begun:
        raise LookupError(f"no text gives the tokens {beginning} at the beginning of an answer")
    return chat
