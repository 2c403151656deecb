"""Rubrics: what two sets of samples have in common, and what sets each apart from the other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synque_select.errors import DataError, LLMError
from synque_select.lens.cache import AnswerCache, answer_key
from synque_select.lens.prompt_sets import PromptSet
from synque_select.lens.samples import drawn, quote_sample
from synque_select.llm.base import BaseLLM, Failure

__all__ = ["Rubric", "RubricSampling", "load_rubrics", "save_rubrics", "write_rubric"]

_FIELDS = {
    "similarities": "sims",
    "only_synthetic": "diffs_synth_from_real",
    "only_real": "diffs_real_from_synth",
}
_REPAIRS = 2
_SHOWN = 2000
_THINKING = re.compile(r"\A.*</think>", re.DOTALL)
_NUMBER = re.compile(r"\A\s*\d{1,2}[.)]\s+")
_MAX_POINT = 300


@dataclass(frozen=True)
class Rubric:
    """What a judge is told of the real sample and a candidate.

    In the points, "dataset B" is the set that a list is about, "dataset A" the other one, as in
    the released rubrics; `shown` turns the names where a judge sees the sets the other way round.

    Args:
        similarities: C: what both have in common.
        only_synthetic: C_sr: what is typical of the candidate and not of the real sample.
        only_real: C_rs: what is typical of the real sample and not of the candidate.
    """

    similarities: tuple[str, ...]
    only_synthetic: tuple[str, ...]
    only_real: tuple[str, ...]

    def shown(self, synthetic_is: str) -> dict[str, str]:
        """Return the three lists as a judge sees them, with the candidate as dataset A or B.

        Args:
            synthetic_is: "A" or "B".

        Example:
            >>> rubric = Rubric(("Short.",), ("Dataset B names tables, while A does not.",), ("x",))
            >>> rubric.shown("A")["only_a"]
            '1. Dataset A names tables, while B does not.'
        """
        real_is = "B" if synthetic_is == "A" else "A"
        return {
            "similarities": _numbered(self.similarities),
            f"only_{synthetic_is.lower()}": _numbered(_named(self.only_synthetic, synthetic_is)),
            f"only_{real_is.lower()}": _numbered(_named(self.only_real, real_is)),
        }


def _numbered(points: Sequence[str]) -> str:
    return "\n".join(f"{i}. {' '.join(point.split())}" for i, point in enumerate(points, 1))


def _named(points: Sequence[str], own: str) -> list[str]:
    return list(points) if own == "B" else [_turned(point) for point in points]


# "A" is a dataset's name, unless it begins a sentence and no verb or "'s" follows
_NAME = re.compile(r"(?<![\w'’-])(?:(?P<word>[Dd]atasets? )(?P<of>[AB])|(?P<bare>[AB]))(?![\w-])")
_VERB = re.compile(r"['’]s\b| (?:\w+s|tends|has|does|is|and B|or B)\b")


def _turned(point: str) -> str:
    def turn(match: re.Match[str]) -> str:
        name = match["of"] or match["bare"]
        begins = not point[: match.start()].rstrip() or point[: match.start()].rstrip()[-1] in ".!?"
        if match["bare"] == "A" and begins and not _VERB.match(point, match.end()):
            return match[0]
        return f"{match['word'] or ''}{'B' if name == 'A' else 'A'}"

    return _NAME.sub(turn, point)


def load_rubrics(path: str | Path, group: str | None = None) -> dict[str, Rubric]:
    """Read rubrics: files of this library, and the released ones as they are.

    Args:
        path: JSON with `sims`, `diffs_synth_from_real` and `diffs_real_from_synth`, each from a
            candidate's name to its points, or from a group to candidates.
        group: Which group, where the file has several.

    Returns:
        Name of a candidate to its rubric.

    Raises:
        DataError: The file cannot be used; says what is missing.
    """
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        lists = {field: state[key] for field, key in _FIELDS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no rubrics: {type(error).__name__}: {error}") from error
    lists = {field: _of_group(found, group, path) for field, found in lists.items()}
    names = list(lists["similarities"])
    for field, found in lists.items():
        for name in names:
            points = found.get(name)
            if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
                raise DataError(f"{path}: {_FIELDS[field]} of {name!r} is no list of texts")
    return {name: Rubric(**{f: tuple(found[name]) for f, found in lists.items()}) for name in names}


def _of_group(found: Any, group: str | None, path: str | Path) -> dict[str, Any]:
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path} holds no rubrics: expected candidates with their points")
    if not isinstance(next(iter(found.values())), dict):
        return found
    if group is None and len(found) == 1:
        group = next(iter(found))
    if group not in found:
        raise DataError(f"{path} has the groups {', '.join(found)}: name one of them")
    return dict(found[group])


def save_rubrics(
    path: str | Path, rubrics: Mapping[str, Rubric], about: Mapping[str, Any] | None = None
) -> Path:
    """Write rubrics as JSON that can be read, edited and loaded again.

    Args:
        path: The file.
        rubrics: Name of a candidate to its rubric.
        about: What else to keep (model, prompts), plain values.
    """
    state: dict[str, Any] = {"version": 1, **(about or {})}
    for field, key in _FIELDS.items():
        state[key] = {name: list(getattr(rubric, field)) for name, rubric in rubrics.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class RubricSampling:
    """How many samples of each side a rubric is written from, and how long it is.

    Args:
        n_samples: Of each side, at most.
        max_tokens: Tokens that the samples of one side may have together.
        max_sample_chars: Characters of one sample that are shown.
        n_points: Points of each of the three lists.
        max_answer_tokens: Length of an answer, thinking included.
        temperature: 0 for the most probable answer.
        seed: Of the choice of samples, and of the answer where the temperature is not 0.
    """

    n_samples: int = 30
    max_tokens: int = 6000
    max_sample_chars: int = 2000
    n_points: int = 10
    max_answer_tokens: int = 4096
    temperature: float = 0.0
    seed: int = 0


def write_rubric(
    engine: BaseLLM,
    real: Sequence[str],
    synthetic: Sequence[str],
    prompts: PromptSet,
    sampling: RubricSampling,
    cache: AnswerCache,
) -> Rubric:
    """Have a model compare samples of both sets.

    The answer's thinking is taken off; what does not follow the schema is sent back with the
    reason, at most twice.

    Args:
        engine: The reasoner.
        real: Texts of the real sample.
        synthetic: Texts of the candidate.
        prompts: Of the kind of task.
        sampling: How much is shown, and how much is asked for.
        cache: Where answers are kept.

    Raises:
        LLMError: The third answer is not usable either; the message shows it.
    """
    r = _sample_lines(engine, real, sampling)
    s = _sample_lines(engine, synthetic, sampling)
    n = str(sampling.n_points)
    # in each list of differences, dataset B is the set that it is about
    asked = {
        "similarities": ("similarities", r, s),
        "only_synthetic": ("differences", r, s),
        "only_real": ("differences", s, r),
    }
    lists = {
        field: _points(
            engine,
            prompts.fill(section, samples_a=a, samples_b=b, n_points=n),
            sampling,
            cache,
        )
        for field, (section, a, b) in asked.items()
    }
    return Rubric(**lists)


def _sample_lines(engine: BaseLLM, texts: Sequence[str], sampling: RubricSampling) -> str:
    lines: list[str] = []
    left = sampling.max_tokens
    for position in drawn(texts, sampling.seed)[: sampling.n_samples]:
        line = quote_sample(texts[position], sampling.max_sample_chars).text
        left -= engine.count_tokens(line)
        if lines and left < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def _points(
    engine: BaseLLM, prompt: str, sampling: RubricSampling, cache: AnswerCache
) -> tuple[str, ...]:
    schema = _schema(sampling.n_points)
    question, answer = prompt, ""
    for attempt in range(1 + _REPAIRS):
        answer = _ask(engine, question, schema, sampling, cache)
        found = _parsed(answer, sampling.n_points)
        if not isinstance(found, str):
            return found
        shown = quote_sample(answer, _SHOWN).text
        question = (
            f"{prompt}\n\nAnswer {attempt + 1} could not be used: {found}. It was: {shown}\n"
            "Answer again, with JSON only."
        )
    raise LLMError(
        f"{engine.id} wrote no usable rubric in {1 + _REPAIRS} answers: {found}. The last answer: "
        f"{answer[:_SHOWN]}"
    )


def _ask(
    engine: BaseLLM,
    prompt: str,
    schema: Mapping[str, Any],
    sampling: RubricSampling,
    cache: AnswerCache,
) -> str:
    """Return an answer, kept or new.

    Raises:
        LLMError: There is none.
    """
    decoding: dict[str, Any] = {
        "schema": schema,
        "max_tokens": sampling.max_answer_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
    }
    key = answer_key(engine.key, prompt, decoding)
    kept = cache.get([key])
    if key in kept:
        return str(kept[key])
    ((_, answer),) = engine.generate([prompt], **decoding)
    if isinstance(answer, Failure):
        raise LLMError(f"{engine.id} wrote no rubric: {answer.reason}")
    cache.put({key: answer})
    return answer


def _schema(n_points: int) -> dict[str, Any]:
    point = {"type": "string", "minLength": 1, "maxLength": _MAX_POINT}
    points = {
        "type": "array",
        "items": point,
        "minItems": n_points,
        "maxItems": n_points,
        "uniqueItems": True,
    }
    return {
        "type": "object",
        "properties": {"points": points},
        "required": ["points"],
        "additionalProperties": False,
    }


def _parsed(answer: str, n_points: int) -> tuple[str, ...] | str:
    """Return the points, or why there are none."""
    text = _THINKING.sub("", answer)
    start, end = text.find("{"), text.rfind("}")
    try:
        state = json.loads(text[start : end + 1])
    except ValueError as error:
        return f"it is not JSON ({error})"
    points = state.get("points")
    if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
        return 'it has no list of texts under "points"'
    points = [_NUMBER.sub("", point).strip() for point in points]
    if not all(points):
        return "a point is empty"
    if len(points) != n_points:
        return f"it has {len(points)} points instead of {n_points}"
    if len({point.casefold() for point in points}) < n_points:
        return "a point stands in it twice"
    return tuple(points)
