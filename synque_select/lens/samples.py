"""Samples in prompts: data between quotation marks, which no sample can close, or images."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from synque_select.data.views import View
from synque_select.errors import DataError
from synque_select.lens.prompt_sets import PromptSet
from synque_select.llm.prompt import Prompt, PromptLike

__all__ = [
    "Limits",
    "Quoted",
    "Shown",
    "content_order",
    "plain_line",
    "quote_sample",
    "rubric_line",
    "show_sample",
]

# what chat templates are made of: <|im_end|>, <｜User｜>, <s>, <global-img>, [INST], [gMASK]
_MARKUP = re.compile(
    r"<(?=[|｜]|/?[\w▁][\w▁:.-]{0,39}>)|(?<=[|｜])>|\[(?=/?[a-z]?[A-Z_][A-Z_\d]{1,39}\])"
)
# what a reader does not see, or that breaks a line or its direction
_INVISIBLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u180e\\u200b-\\u200f\\u2028-\\u202e"
    "\\u2060-\\u2069\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\U000e0000-\\U000e01ef]"
)
_NOTHING = '""'


class Limits(NamedTuple):
    """How much of a sample is shown.

    Attributes:
        max_chars: Characters of a text, or of each field of one.
        image_side: Pixels of the longer side of an image; larger ones are made smaller.
    """

    max_chars: int = 2000
    image_side: int = 448


class Quoted(NamedTuple):
    """A sample as it stands in a prompt.

    Attributes:
        text: One line: a JSON string, and a note behind it where the sample was cut.
        cut: Whether it was.
    """

    text: str
    cut: bool


class Shown(NamedTuple):
    """A sample as the judge sees it.

    Attributes:
        item: The section `sample` of the prompts with the sample in it.
        cut: Whether it was cut or made smaller.
    """

    item: PromptLike
    cut: bool


def quote_sample(sample: str, max_chars: int) -> Quoted:
    r"""Put a sample between quotation marks that nothing in it can close.

    It becomes a JSON string on one line: quotation marks, line breaks, control and invisible
    characters and the markup of chat templates are escaped, so that `json.loads` gives the sample
    back. A longer one is cut, and says behind the string how much is shown.

    Args:
        sample: Any text.
        max_chars: Characters that are shown, at most; fewer where escapes make more than twice as
            many of them.

    Example:
        >>> print(quote_sample('He said "no".\n<|im_end|>', 100).text)
        "He said \"no\".\n\u003c|im_end|\u003e"
        >>> print(quote_sample("abcdef", 3).text)
        "abc" (the first 3 of 6 characters)
    """
    n = min(len(sample), max_chars)
    quoted = _json_string(sample[:n])
    # a character may take twelve when it is escaped, and prompts have to keep their length
    while len(quoted) > 2 * max_chars + 2:
        n = n * 2 * max_chars // len(quoted)
        quoted = _json_string(sample[:n])
    if n == len(sample):
        return Quoted(quoted, False)
    return Quoted(f"{quoted} (the first {n:,} of {len(sample):,} characters)", True)


def _json_string(text: str) -> str:
    shown = text.encode("utf-8", "replace").decode()
    return _without_markup(json.dumps(shown, ensure_ascii=False))


def plain_line(text: str) -> str:
    r"""Put a text that a model wrote on one line without any markup of chat templates.

    A model that has read hostile samples may write it, and its words stand in prompts unquoted.

    Example:
        >>> print(plain_line("It is short.\n<|im_end|>"))
        It is short. \u003c|im_end|\u003e
    """
    return _without_markup(" ".join(text.encode("utf-8", "replace").decode().split()))


def _without_markup(text: str) -> str:
    return _MARKUP.sub(_escaped, _INVISIBLE.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return f"\\u{ord(char):04x}" if char < "\x80" else json.dumps(char)[1:-1]


def show_sample(view: View, prompts: PromptSet, limits: Limits) -> Shown:
    """Put a sample into the section `sample`: quoted texts, or an image made small enough.

    Raises:
        DataError: The prompts name fields, and the view is no JSON object with the first of them.
    """
    values, cut = _values(view, prompts.fields, limits)
    return Shown(prompts.fill("sample", **values), cut)


def rubric_line(view: View, prompts: PromptSet, limits: Limits) -> PromptLike:
    """Return a sample as one line of those that a rubric is written from; errors as above."""
    values, _ = _values(view, prompts.fields, limits)
    if not prompts.fields:
        return values["sample"]
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def _values(
    view: View, fields: Sequence[str], limits: Limits
) -> tuple[dict[str, PromptLike], bool]:
    if not isinstance(view, str):
        if fields:
            raise DataError(f"the prompts ask for the fields {', '.join(fields)}, found an image")
        image = view.convert("RGB")
        image.thumbnail((limits.image_side, limits.image_side))
        return {"sample": Prompt((image,))}, image.size != view.size
    if not fields:
        quoted = quote_sample(view, limits.max_chars)
        return {"sample": quoted.text}, quoted.cut
    found = _object(view, fields)
    parts = {name: quote_sample(found[name], limits.max_chars) for name in fields if name in found}
    values: dict[str, PromptLike] = {
        name: parts[name].text if name in parts else _NOTHING for name in fields
    }
    return values, any(part.cut for part in parts.values())


def _object(view: str, fields: Sequence[str]) -> dict[str, str]:
    try:
        state = json.loads(view)
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict) or fields[0] not in state:
        raise DataError(
            f"the prompts ask for the fields {', '.join(fields)}: a view must be the text of a "
            f"JSON object with {fields[0]!r}, found {view[:100]!r}"
        )
    return {
        name: part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)
        for name, part in state.items()
        if part is not None
    }


def content_order(texts: Sequence[str], seed: int) -> list[int]:
    """Return the positions of texts in a random order that their content and the seed decide.

    So another order of the rows, or more rows, changes as little as it can. Equal texts have
    places of their own: a part of the order is a draw without replacement of the rows.

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
