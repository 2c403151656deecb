"""Examples in prompts: images, or data in quotation marks that no example can close."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synque_select.data.views import View
from synque_select.errors import DataError
from synque_select.lens.markup import json_line
from synque_select.lens.prompt_sets import PromptSet
from synque_select.llm.prompt import Prompt, PromptLike
from synque_select.utils.json_files import parse_json
from synque_select.utils.wording import counted

__all__ = [
    "Limits",
    "Quoted",
    "Shown",
    "content_order",
    "halves",
    "quote_sample",
    "rubric_line",
    "show_sample",
]

_NOTHING = '""'


class Limits(NamedTuple):
    """How much of an example is shown.

    Attributes:
        max_chars: Maximum number of characters of a text, or of each of its fields.
        image_side: Maximum length of the longer side of an image, in pixels; larger images are
            scaled down.
    """

    max_chars: int = 2000
    image_side: int = 448


class Quoted(NamedTuple):
    """An example as it is quoted in a prompt.

    Attributes:
        text: One line: a JSON string, followed by a note if the example was cut.
        cut: Whether the example was cut.
    """

    text: str
    cut: bool


class Shown(NamedTuple):
    """An example as the judge sees it.

    Attributes:
        item: The section `sample` of the prompts, filled with the example.
        cut: Whether the example was cut or scaled down.
    """

    item: PromptLike
    cut: bool


def quote_sample(
    sample: str, max_chars: int, control_tokens: frozenset[str] = frozenset()
) -> Quoted:
    r"""Quote an example so that nothing in it can close the quotation marks.

    The result is a JSON string on one line; see `json_line` for what is escaped. A longer example
    is cut, and a note after the string says how much of it is shown.

    Args:
        sample: Any text.
        max_chars: Maximum number of characters shown; fewer if escaping would more than double
            the length.
        control_tokens: Special and added tokens of the model's tokenizer.

    Example:
        >>> print(quote_sample('He said "no".\n<|im_end|>', 100).text)
        "He said \"no\".\n\u003c|im_end|\u003e"
        >>> print(quote_sample("abcdef", 3).text)
        "abc" (the first 3 of 6 characters)
    """
    n = min(len(sample), max_chars)
    quoted = json_line(sample[:n], control_tokens)
    # an escaped character may take twelve, and the length of prompts must stay bounded
    while len(quoted) > 2 * max_chars + 2:
        n = n * 2 * max_chars // len(quoted)
        quoted = json_line(sample[:n], control_tokens)
    if n == len(sample):
        return Quoted(quoted, False)
    return Quoted(f"{quoted} (the first {n:,} of {counted(len(sample), 'character')})", True)


def show_sample(
    view: View, prompts: PromptSet, limits: Limits, control_tokens: frozenset[str] = frozenset()
) -> Shown:
    """Fill the section `sample` with an example: quoted texts, or a scaled-down image.

    Args:
        view: The example.
        prompts: Prompts for the kind of task.
        limits: Maximum size of an example.
        control_tokens: Special and added tokens of the model's tokenizer.

    Raises:
        DataError: The prompts name fields, and the view is not a JSON object with the first one.
    """
    values, cut = _values(view, prompts.fields, limits, control_tokens)
    return Shown(prompts.fill("sample", **values), cut)


def rubric_line(
    view: View, prompts: PromptSet, limits: Limits, control_tokens: frozenset[str] = frozenset()
) -> PromptLike:
    """Return an example as one line of a rubric prompt; see `show_sample`."""
    values, _ = _values(view, prompts.fields, limits, control_tokens)
    if not prompts.fields:
        return values["sample"]
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def _values(
    view: View, fields: Sequence[str], limits: Limits, control_tokens: frozenset[str]
) -> tuple[dict[str, PromptLike], bool]:
    if not isinstance(view, str):
        if fields:
            raise DataError(
                f"the prompts need the fields {', '.join(fields)}, but the view is an image"
            )
        image = view.convert("RGB")
        image.thumbnail((limits.image_side, limits.image_side))
        return {"sample": Prompt((image,))}, image.size != view.size
    if not fields:
        quoted = quote_sample(view, limits.max_chars, control_tokens)
        return {"sample": quoted.text}, quoted.cut
    record = _object(view, fields)
    parts = {
        name: quote_sample(record[name], limits.max_chars, control_tokens)
        for name in fields
        if name in record
    }
    values: dict[str, PromptLike] = {
        name: parts[name].text if name in parts else _NOTHING for name in fields
    }
    return values, any(part.cut for part in parts.values())


def _object(view: str, fields: Sequence[str]) -> dict[str, str]:
    try:
        state = parse_json(view, "the view")
    except DataError:
        state = None
    if not isinstance(state, dict) or fields[0] not in state:
        raise DataError(
            f"the prompts need the fields {', '.join(fields)}: expected the text of a JSON object "
            f"with {fields[0]!r} as view, found {view[:100]!r}"
        )
    return {
        name: part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)
        for name, part in state.items()
        if part is not None
    }


def halves(
    order: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide positions into two halves, as equal as undivided groups allow.

    Args:
        order: (n,) positions in random order.
        groups: (n,) int64 group of each position, of at least 2 groups; None for no groups.

    Example:
        >>> first, second = halves(np.arange(5), np.array([0, 1, 0, 1, 1]))
        >>> first.tolist(), second.tolist()
        ([0, 2], [1, 3, 4])
    """
    if groups is None:
        return order[: len(order) // 2], order[len(order) // 2 :]
    # groups in the order of their first example
    _, first, numbers = np.unique(groups[order], return_index=True, return_inverse=True)
    places = np.argsort(first[numbers], kind="stable")
    ends = np.flatnonzero(np.diff(first[numbers][places])) + 1
    half = int(ends[np.abs(ends - len(order) / 2).argmin()])
    return order[places[:half]], order[places[half:]]


def content_order(texts: Sequence[str], seed: int) -> list[int]:
    """Return positions in a random order that depends only on the content and the seed.

    Reordering the rows changes nothing, and adding rows changes as little as possible. Equal texts
    get different places, so a prefix of the order is a draw of rows without replacement.

    Args:
        texts: The texts to order.
        seed: Random seed of the order.

    Example:
        >>> texts = ["a", "b", "c"]
        >>> turned = texts[::-1]
        >>> [texts[i] for i in content_order(texts, 0)] == [
        ...     turned[i] for i in content_order(turned, 0)
        ... ]
        True
    """
    seen: Counter[str] = Counter()
    places = []
    for text in texts:
        places.append(_place(text, seen[text], seed))
        seen[text] += 1
    return sorted(range(len(texts)), key=places.__getitem__)


def _place(text: str, n_before: int, seed: int) -> bytes:
    again = f"\0{n_before}" if n_before else ""
    return hashlib.sha256(f"{seed}\0{text}{again}".encode("utf-8", "replace")).digest()
