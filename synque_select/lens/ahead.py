"""Questions asked before judging, all at once: an engine that answers in batches takes hours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from synque_select.lens.cache import AnswerCache, AnswerSession
from synque_select.lens.judge import Questions, Tally
from synque_select.llm.base import Failure
from synque_select.llm.prompt import PromptLike, has_images
from synque_select.utils.progress import ProgressBar

__all__ = ["ask_ahead"]

# pairs of questions, whose prompts are in memory together
_AT_ONCE, _IMAGES_AT_ONCE = 25_000, 1_000


@dataclass(frozen=True)
class _Pair:
    """The two questions about an example, with the candidate in one place."""

    keys: tuple[str, ...]
    questions: Questions
    item: PromptLike


def ask_ahead(
    parts: Iterable[tuple[Questions, Iterable[PromptLike]]],
    cache: AnswerCache,
    tally: Tally,
    *,
    progress: bool = True,
) -> None:
    """Ask the questions that the cache does not answer, of all candidates together.

    The answers go into the cache, where `judge` finds them, and what became of them into
    `tally.ahead`.

    Args:
        parts: Questions, and the examples that they are about.
        cache: Answer cache.
        tally: Counts of the run.
        progress: Whether to show progress.

    Raises:
        LLMError: The server cannot be reached, or a batch failed; finished answers are kept.
    """
    distinct: dict[tuple[str, ...], _Pair] = {}
    pairs = (
        _Pair(tuple(questions.keys(item)), questions, item)
        for questions, items in parts
        for item in items
    )
    for pair in pairs:
        if pair.keys not in tally.ahead:
            distinct.setdefault(pair.keys, pair)
        if len(distinct) >= (_IMAGES_AT_ONCE if has_images(pair.item) else _AT_ONCE):
            _ask(distinct, cache, tally, progress)
            distinct = {}
    _ask(distinct, cache, tally, progress)


def _ask(
    distinct: dict[tuple[str, ...], _Pair], cache: AnswerCache, tally: Tally, progress: bool
) -> None:
    with cache.session() as session:
        kept = session.get([key for keys in distinct for key in keys])
        missing = [
            pair
            for pair in distinct.values()
            if not all(k in kept and pair.questions.is_usable(kept[k]) for k in pair.keys)
        ]
        if not missing:
            return
        prompts = [prompt for pair in missing for prompt in pair.questions.prompts(pair.item)]
        n = len(missing[0].keys)
        rows: dict[int, dict[int, Any]] = {}
        bar = ProgressBar(
            missing[0].questions.ask_each(prompts),
            desc="asking all questions",
            total=len(prompts),
            unit="question",
            delay=2,
            leave=False,
            disable=not progress,
        )
        for position, answer in bar:
            row = rows.setdefault(position // n, {})
            row[position % n] = answer
            if len(row) == n:
                _keep(missing[position // n], [row[i] for i in range(n)], session, tally)
                del rows[position // n]


def _keep(pair: _Pair, answers: list[Any], session: AnswerSession, tally: Tally) -> None:
    for answer in answers:
        if isinstance(answer, Failure):
            tally.ahead[pair.keys] = answer
            return
        if not pair.questions.is_usable(answer):
            return  # it is asked again where it is needed, and its failure is counted there
    session.put(zip(pair.keys, answers, strict=True))
    tally.ahead[pair.keys] = None
