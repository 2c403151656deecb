"""Which parameter a server refuses, found by trial where its error does not name one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from synque_select.llm.openai.dialect import Dialect, Question, is_about_length
from synque_select.llm.openai.server_errors import ServerError, is_refusal

__all__ = ["find_dialect", "may_be_a_parameter"]

Answer = TypeVar("Answer")

_STATUSES = (400, 422, 500, 501)


def may_be_a_parameter(error: ServerError) -> bool:
    """Whether an error that names no parameter could be about one all the same.

    Example:
        >>> may_be_a_parameter(ServerError(422, "Unprocessable Entity"))
        True
        >>> may_be_a_parameter(ServerError(503, "busy"))
        False
    """
    is_prompt = is_refusal(error.words) or is_about_length(error.words)
    return error.status in _STATUSES and not is_prompt


async def find_dialect(
    refused: Dialect, question: Question, ask: Callable[[Dialect], Awaitable[Answer | None]]
) -> tuple[Dialect, Answer] | None:
    """Leave parameters out until a server answers, and put back those that were not to blame.

    Args:
        refused: The dialect whose request was rejected.
        question: The question.
        ask: Function that sends the question in a dialect; None if it is rejected.

    Returns:
        The dialect that leaves out as little as possible and its answer: `refused` itself if it is
        not rejected again. None if the question is rejected without all parameters, too. There are
        at most twice as many requests as parameters and their forms, some 20.
    """
    # once more as it was: the server may have had a bad moment
    dialect, answer = refused, await ask(refused)
    while answer is None:
        smaller = dialect.without_one_more(question)
        if smaller is None:
            return None
        dialect, answer = smaller, await ask(smaller)
    tried: set[str] = set()
    while left := [one for one in dialect.with_one_back(refused) if one[0] not in tried]:
        name, larger = left[0]
        tried.add(name)
        given = await ask(larger)
        if given is not None:
            dialect, answer = larger, given
    return dialect, answer
