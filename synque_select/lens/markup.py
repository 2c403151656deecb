"""Escaping of what a tokenizer or a chat template would read as control, not as text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from synque_select.llm.chat import ControlTokens

__all__ = ["json_line", "plain_line"]

# markup of chat templates, by family; texts are compared in a form without full-width characters
# and accents, as some tokenizers normalize them
_FAMILIES = re.compile(
    r"""
      [<\[{⟨〈《【‹«](?=\|)                            # <|im_end|>, [|user|], <｜User｜>
    | (?<=\|)[>\]}⟩〉》】›»]
    | [◁⁅](?=/?\w{1,40}[▷⁆])                         # ◁think▷
    | <(?=/?[\w▁!$@~\#][\w▁:.@~!$\#/-]{0,63}>)        # <s>, </s>, <global-img>, <start_of_turn>
    | \[(?=/?@?[a-z]?[A-Z_][A-Z_\d-]{1,39}@?\])       # [INST], [/INST], [gMASK], [@BOS@]
    | \[(?=/?(?i:[bes]o[a-z]|im_\w{1,16}|pad|unk|cls|sep|mask|inst|sys|system|user|assistant)\])
    | \[(?=(?i:img|image|round)[ _-]?\d{1,4}\])      # [img-1], [Round 1]
    | \[(?=(?:unused|UNUSED)_?\w{1,40}\])             # [unused7]
    | \[(?=e~\[) | \](?=~!?b[\[\]]) | \](?=<\])       # [e~[, ]~b], ]~!b[, ]<]image[>[
    | \[(?=(?:control_\d{1,9}|multimodal|toxicity=\d)\])
    | <(?=(?:reserved|special|extra|unused)[ ][\w ]{1,40}>)  # <reserved special token 0>
    | <(?=(?:start|end)[ ]of[ ]\w{1,20}>)            # <end of turn>
    | >(?=>[A-Za-z_][\w-]{0,39}<<)                    # >>QUESTION<<, >>zh-cn<<
    | \|(?=\|\|?[A-Za-z_]\w{0,39}\|\|)               # |||IP_ADDRESS|||
    | \|(?=[A-Z_]{4,40}\|)                           # |ENDOFTEXT|
    """,
    re.VERBOSE,
)
# characters that are invisible, break a line or change its direction
_INVISIBLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u180e\\u200b-\\u200f\\u2028-\\u202e"
    "\\u2060-\\u2069\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\ufffd\\U000e0000-\\U000e01ef]"
)
_UNIT = re.compile(r"\\u[0-9a-f]{4}|\\.|.", re.DOTALL)
_SPACES = " ▁"
_NONE: frozenset[str] = frozenset()
# no token of one of these characters can be escaped: every escape has them
_OF_ESCAPES = frozenset("\\u0123456789abcdef")


def json_line(text: str, control_tokens: frozenset[str] = _NONE) -> str:
    r"""Return a JSON string on one line that no tokenizer reads as anything but text.

    Line breaks, control and invisible characters, the markup of chat templates and the given
    tokens are escaped, so `json.loads` gives the text back.

    Args:
        text: Any text; half a surrogate pair is replaced by "?".
        control_tokens: Special and added tokens of the model's tokenizer
            (`BaseLLM.control_tokens`). Runs of spaces among them are not escaped.

    Example:
        >>> print(json_line('He said "no".\n<|im_end|>'))
        "He said \"no\".\n\u003c|im_end|\u003e"
        >>> print(json_line("END of turn", frozenset({"END"})))
        "\u0045ND of turn"
    """
    quoted = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return f'"{_escaped(quoted[1:-1], control_tokens, quotes=True)}"'


def plain_line(text: str, control_tokens: frozenset[str] = _NONE) -> str:
    r"""Put a text that a model wrote on one line, with the same escapes as in `json_line`.

    A model that has read hostile examples may write such markup, and its words enter prompts
    without quotation marks.

    Args:
        text: Any text.
        control_tokens: Special and added tokens of the model's tokenizer.

    Example:
        >>> print(plain_line("It is short.\n<|im_end|>"))
        It is short. \u003c|im_end|\u003e
    """
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return _escaped(line, control_tokens, quotes=False)


def _escaped(text: str, control_tokens: frozenset[str], *, quotes: bool) -> str:
    """Escape a line, or with `quotes` the inside of a JSON string."""
    shown = _INVISIBLE.sub(lambda match: _escape(match[0]), text)
    patterns = (_FAMILIES, *_patterns(control_tokens))
    mark = '"' if quotes else ""
    # units that may be escaped: a character, or an escape sequence of JSON that is there already
    units = [mark, *(_UNIT.findall(shown) if quotes else shown), mark]
    # an escape may reveal another match, or be one: then it is left out. Each round escapes a unit
    # or leaves one out, so that there is an end
    while hits := _one_of_each(
        _matches(units, patterns) or _read_by_tokenizer(units, control_tokens), units
    ):
        for i in hits:
            units[i] = "" if units[i].startswith("\\u") else _escape(units[i])
    return "".join(units[1:-1])


def _matches(units: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> list[tuple[int, int]]:
    """Return the first and last unit of every match of a pattern, those that overlap too."""
    text = "".join(units)
    origin: list[int] | None = None
    if not text.isascii():
        text, origin = _folded(units)
    spans = [match.span(pattern.groups) for pattern in patterns for match in pattern.finditer(text)]
    if spans and origin is None:
        origin = _origin(units)
    return _of_units(spans, origin or [], units)


def _read_by_tokenizer(
    units: Sequence[str], control_tokens: frozenset[str]
) -> list[tuple[int, int]]:
    """Return the first and last unit of every token that the tokenizer reads in the text."""
    if not isinstance(control_tokens, ControlTokens):
        return []
    text = "".join(units)
    return _of_units(control_tokens.spans(text, _OF_ESCAPES), _origin(units), units)


def _origin(units: Sequence[str]) -> list[int]:
    return [i for i, unit in enumerate(units) for _ in unit]


def _of_units(
    spans: Iterable[tuple[int, int]], origin: Sequence[int], units: Sequence[str]
) -> list[tuple[int, int]]:
    """Return spans of characters as spans of units, without the marks at both ends."""
    of_units = ((origin[first], origin[last - 1]) for first, last in spans)
    return [(max(first, 1), min(last, len(units) - 2)) for first, last in of_units]


def _one_of_each(matches: Iterable[tuple[int, int]], units: Sequence[str]) -> list[int]:
    """Return few units that every match has one of, its first that is not escaped if there is one.

    From the right, so that one unit serves all matches that overlap in it.
    """
    hits: list[int] = []
    for first, last in sorted(matches, reverse=True):
        if hits and first <= hits[-1] <= last:
            continue
        here = [i for i in range(first, last + 1) if units[i]]
        plain = (i for i in here if not units[i].startswith("\\u"))
        hits += [next(plain, here[0])] if here else []
    return hits


def _folded(units: Sequence[str]) -> tuple[str, list[int]]:
    """Return the text in a form without full-width characters and accents, and its units."""
    parts = [_fold(unit) for unit in units]
    return "".join(parts), [i for i, part in enumerate(parts) for _ in part]


def _fold(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _escape(unit: str) -> str:
    char = json.loads(f'"{unit}"') if len(unit) > 1 else unit
    return "".join(
        f"\\u{int.from_bytes(pair, 'big'):04x}" for pair in _pairs(char.encode("utf-16-be"))
    )


def _pairs(data: bytes) -> list[bytes]:
    return [data[i : i + 2] for i in range(0, len(data), 2)]


@lru_cache(maxsize=8)
def _patterns(control_tokens: frozenset[str]) -> tuple[re.Pattern[str], ...]:
    """Return patterns of the tokens that the families do not match."""
    folded = {_fold(token) for token in control_tokens if token.strip(_SPACES)}
    # many tokenizers replace spaces by this mark before they look for a token
    folded |= {token.replace("▁", " ") for token in folded}
    rest = {token for token in folded if token.strip() and not _FAMILIES.search(token)}
    # a tokenizer may lower the case before it looks for a token; words would match too much then
    words = {token for token in rest if token.isalnum()}
    rest -= _OF_ESCAPES
    words -= _OF_ESCAPES
    return tuple(
        re.compile(_alternatives(part), flags)
        for part, flags in ((words, 0), (rest - words, re.IGNORECASE))
        if part
    )


def _alternatives(tokens: Collection[str]) -> str:
    # the shortest first: a longer one that begins there has the same unit to escape. All is a
    # look-ahead, which finds tokens that overlap
    shortest = sorted(tokens, key=lambda token: (len(token), token))
    first = "".join(sorted({re.escape(token[0]) for token in shortest}))
    # the first one skips most positions without trying thousands of tokens
    return f"(?=[{first}])(?=({'|'.join(map(re.escape, shortest))}))"
