"""Prompts of a kind of task: files of sections, which a user can replace by one of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from synque_select.errors import ConfigError, did_you_mean
from synque_select.llm.prompt import PromptLike, join_prompts
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

    A file begins with the line `version: 1`; sections follow, each behind a line `=== name ===`:
    `similarities` and `differences` (what of dataset B is not in dataset A) ask for a rubric and
    hold the places {{samples_a}}, {{samples_b}}, {{n_points}}; `shared` (with {{similarities}},
    {{only_a}}, {{only_b}}), `sample` (with {{sample}}) and `question` (with {{asked}}) make, one
    behind the other, a question to the judge. In place of {{sample}} may stand names of fields,
    such as {{task}} and {{page}}: then a view is the text of a JSON object that has them. The
    section `zero_shot` (with {{kind_a}} and {{kind_b}}) stands for `shared` where there is no
    rubric; it may be left out.

    Args:
        name: A packaged kind, or the file.
        sections: Name to text.
    """

    name: str
    sections: Mapping[str, str]

    def fill(self, section: str, **values: PromptLike) -> PromptLike:
        """Put values into the places of a section; what stands in a value is left as it is."""
        parts = _PLACE.split(self.sections[section])
        # a split gives text and name of a place in turn
        return join_prompts(*[values[part] if i % 2 else part for i, part in enumerate(parts)])

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a view that make a sample; empty where the view is the sample."""
        found = tuple(dict.fromkeys(_PLACE.findall(self.sections["sample"])))
        return () if found == ("sample",) else found


def prompt_kinds() -> tuple[str, ...]:
    """Return the packaged kinds of task.

    Example:
        >>> prompt_kinds()
        ('image', 'text', 'text2sql', 'web', 'web_page')
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.txt")))


def load_prompts(kind: str | Path = "text") -> PromptSet:
    """Load the prompts of a packaged kind, or a file.

    Args:
        kind: One of `prompt_kinds()`, or the path of a file of the same form (`PromptSet`).

    Raises:
        ConfigError: There is neither, or a section or place is missing or unknown.

    Example:
        >>> load_prompts("text2sql").fill("question", asked="A").splitlines()[0]
        'How likely is it that this question comes from dataset A?'
    """
    path = Path(kind)
    if not path.is_file():
        if str(kind) not in prompt_kinds():
            known = did_you_mean(str(kind), prompt_kinds())
            raise ConfigError(f"prompts={str(kind)!r} is neither a file nor a kind: {known}")
        path = _FOLDER / f"{kind}.txt"
    return _read(str(kind), path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read(name: str, path: Path, changed: int) -> PromptSet:
    text = read_text(path, error=ConfigError)
    first, _, rest = text.partition("\n")
    match = _FIRST_LINE.fullmatch(first.strip())
    if match is None or int(match[1]) != _VERSION:
        raise ConfigError(f"{path}: the first line must be 'version: {_VERSION}', found {first!r}")
    parts = _SECTION.split(rest)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if not set(_PLACES) - _OPTIONAL <= set(sections) <= set(_PLACES):
        found = ", ".join(sections) or "none"
        raise ConfigError(f"{path}: sections must be {', '.join(_PLACES)}; found {found}")
    for section, body in sections.items():
        places = set(_PLACE.findall(body))
        has_fields = section == "sample" and places and "sample" not in places
        if places != _PLACES[section] and not has_fields:
            raise ConfigError(
                f"{path}, section {section}: its places must be {sorted(_PLACES[section])}, "
                f"found {sorted(places)}"
            )
    return PromptSet(name, sections)
