"""Prompts for a kind of task, read from files that users can replace with their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from synque_select.errors import ConfigError, did_you_mean
from synque_select.llm.prompt import PromptLike, join_prompts
from synque_select.utils.file_state import FileState, file_state
from synque_select.utils.text_files import read_text

__all__ = ["PromptSet", "load_prompts", "prompt_kinds"]

_FOLDER = Path(__file__).parent / "prompts"
_FIRST_LINE = re.compile(r"version: (\d+)")
_SECTION = re.compile(r"^=== (\w+) ===\n", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_VERSION = 1
_PLACES: Mapping[str, frozenset[str]] = {
    "similarities": frozenset(("samples_a", "samples_b", "n_points")),
    "differences": frozenset(("samples_a", "samples_b", "n_points")),
    "shared": frozenset(("similarities", "only_a", "only_b")),
    "sample": frozenset(("sample",)),
    "question": frozenset(("asked",)),
    "zero_shot": frozenset(("kind_a", "kind_b")),
}
_OPTIONAL = frozenset(("zero_shot",))


@dataclass(frozen=True)
class PromptSet:
    """The prompts for one kind of task.

    A prompt file starts with the line `version: 1`. Sections follow, each after a line
    `=== name ===`. The sections `similarities` and `differences` (what dataset B has and dataset A
    lacks) ask for a rubric, and contain the placeholders {{samples_a}}, {{samples_b}} and
    {{n_points}}. The sections `shared` (with {{similarities}}, {{only_a}}, {{only_b}}), `sample`
    (with {{sample}}) and `question` (with {{asked}}) are joined into one question to the judge.
    {{sample}} may be replaced by field names such as {{task}} and {{page}}; a view must then be the
    text of a JSON object with these fields. The optional section `zero_shot` (with {{kind_a}} and
    {{kind_b}}) replaces `shared` when judging without a rubric.

    Args:
        name: Name of a packaged kind, or path of the file.
        sections: Section name to text.
    """

    name: str
    sections: Mapping[str, str]

    def fill(self, section: str, **values: PromptLike) -> PromptLike:
        """Fill the placeholders of a section; placeholders inside a value are not replaced."""
        parts = _PLACE.split(self.sections[section])
        # splitting by a pattern with a group alternates between text and placeholder name
        return join_prompts(*[values[part] if i % 2 else part for i, part in enumerate(parts)])

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a view that are shown; empty if the whole view is shown."""
        names = tuple(dict.fromkeys(_PLACE.findall(self.sections["sample"])))
        return () if names == ("sample",) else names


def prompt_kinds() -> tuple[str, ...]:
    """Return the kinds of task that have packaged prompts.

    Example:
        >>> prompt_kinds()
        ('image', 'text', 'text2sql', 'web', 'web_page')
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.txt")))


def load_prompts(kind: str | Path = "text") -> PromptSet:
    """Load packaged prompts, or those of a file.

    Args:
        kind: One of `prompt_kinds()`, or the path of a prompt file (see `PromptSet`).

    Raises:
        ConfigError: `kind` is neither, or a section or placeholder is missing or unknown.

    Example:
        >>> load_prompts("text2sql").fill("question", asked="A").splitlines()[0]
        'How likely is it that this question comes from dataset A?'
    """
    path = Path(kind)
    if not _is_file(path):
        if str(kind) not in prompt_kinds():
            known = did_you_mean(str(kind), prompt_kinds())
            raise ConfigError(f"prompts={str(kind)[:200]!r} is neither a file nor a kind: {known}")
        path = _FOLDER / f"{kind}.txt"
    return _read(str(kind), path, file_state(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or not allowed to look
        return False


@lru_cache(maxsize=32)
def _read(name: str, path: Path, _state: FileState) -> PromptSet:
    # files of other systems have other line ends, which change no prompt
    text = read_text(path, error=ConfigError).replace("\r\n", "\n").replace("\r", "\n")
    first, _, rest = text.partition("\n")
    match = _FIRST_LINE.fullmatch(first.strip())
    if match is None or int(match[1]) != _VERSION:
        raise ConfigError(f"{path}, line 1: expected 'version: {_VERSION}', found {first!r}")
    parts = _SECTION.split(rest)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not set(_PLACES) - _OPTIONAL <= set(sections) <= set(_PLACES):
        present = ", ".join(sections) or "none"
        raise ConfigError(f"{path}: expected the sections {', '.join(_PLACES)}; found {present}")
    for section, body in sections.items():
        places = set(_PLACE.findall(body))
        has_fields = section == "sample" and places and "sample" not in places
        if places != _PLACES[section] and not has_fields:
            raise ConfigError(
                f"{path}, section {section}: expected the placeholders {sorted(_PLACES[section])}, "
                f"found {sorted(places)}"
            )
    return PromptSet(name, sections)
