"""Probabilities of choices from vLLM's server, which tells those of the tokens it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from synque_select.llm.choice_tokens import choice_shares, nodes_of
from synque_select.llm.openai.dialect import messages
from synque_select.llm.openai.endpoint import RequestFailed
from synque_select.llm.prompt import PromptLike, has_images

__all__ = ["ServedChoices"]

_TAIL = 8  # tokens at a prompt's end that decide how an answer joins it

Post = Callable[[str, Mapping[str, Any], int], Awaitable[Any]]


class ServedChoices:
    """The choices as the server's tokens, and how probable they are behind a prompt.

    One generated token is asked for at each place where the choices part, and only for their
    tokens: nothing depends on what the model would rather write.

    Args:
        choices: Possible answers, none the beginning of another.
    """

    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = choices
        self._known: dict[tuple[int, ...], list[list[int]]] = {}

    async def shares(self, post: Post, prompt: PromptLike) -> list[float]:
        """Return the probability of each choice.

        Args:
            post: Sends a JSON body to a path of the server and returns its JSON answer; takes how
                many tokens the model reads and writes for it.
            prompt: The user turn.

        Raises:
            LookupError: The server does not tell: it is older than these parameters, or the model's
                template does not let an answer about an image be begun.
        """
        turn = messages(prompt)
        tokens = await _tokens(post, {"messages": turn})
        tail = tuple(tokens[-_TAIL:])
        if tail not in self._known:
            self._known[tail] = [
                await _continuation(post, turn, tokens, choice) for choice in self._choices
            ]
        continuations = self._known[tail]
        log_p = {
            node: await _log_p(post, turn, tokens, node, children, has_images(prompt))
            for node, children in nodes_of(continuations).items()
        }
        return choice_shares(log_p, continuations)


async def _continuation(
    post: Post, turn: list[dict[str, Any]], tokens: list[int], choice: str
) -> list[int]:
    whole = await _begun(post, _answered(turn, choice))
    if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
        return whole[len(tokens) :]
    # the template or the tokenizer would change the end of the prompt: keep them apart
    return await _tokens(post, {"prompt": choice, "add_special_tokens": False})


async def _tokens(post: Post, body: Mapping[str, Any]) -> list[int]:
    return list((await post("/tokenize", body, 0))["tokens"])


def _answered(turn: list[dict[str, Any]], answer: str) -> dict[str, Any]:
    """Return a chat in which the answer has been begun."""
    messages = [*turn, {"role": "assistant", "content": answer}]
    return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}


async def _begun(post: Post, chat: Mapping[str, Any]) -> list[int]:
    try:
        return await _tokens(post, chat)
    except RequestFailed:  # the template lets no answer be begun
        return []


async def _log_p(
    post: Post,
    turn: list[dict[str, Any]],
    tokens: list[int],
    node: tuple[int, ...],
    children: list[int],
    images: bool,
) -> dict[int, float]:
    begun = [*tokens, *node]
    asked = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": children}
    asked |= {"return_tokens_as_token_ids": True}
    if not images:
        body = {"prompt": begun, "logprobs": 1, **asked}
        answer = await post("/v1/completions", body, len(begun) + 1)
        (shown,) = answer["choices"][0]["logprobs"]["top_logprobs"]
    else:
        body = {"logprobs": True, **asked, **await _chat(post, turn, begun, node)}
        answer = await post("/v1/chat/completions", body, len(begun) + 1)
        (place,) = answer["choices"][0]["logprobs"]["content"]
        shown = {top["token"]: top["logprob"] for top in place["top_logprobs"]}
    return {token: float(shown[f"token_id:{token}"]) for token in children}


async def _chat(
    post: Post, turn: list[dict[str, Any]], begun: list[int], node: tuple[int, ...]
) -> dict[str, Any]:
    """Return the chat of some tokens: only a chat holds images, and only by its text."""
    if not node:
        return {"messages": turn}
    chat = _answered(turn, (await post("/detokenize", {"tokens": list(node)}, 0))["prompt"])
    if await _begun(post, chat) != begun:
        raise LookupError(f"no text for tokens {node} at an answer's beginning")
    return chat
