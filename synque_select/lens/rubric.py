"""Rubrics: what the real sample and a candidate have in common, and how they differ."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synque_select.data.views import View
from synque_select.errors import ConfigError, DataError, LLMError
from synque_select.lens.cache import AnswerCache, answer_key
from synque_select.lens.markup import plain_line
from synque_select.lens.prompt_sets import PromptSet
from synque_select.lens.samples import Limits, content_order, quote_sample, rubric_line
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.prompt import PromptLike, join_prompts, prompt_text
from synque_select.llm.structured import without_thinking
from synque_select.utils.atomic import write_text_atomic
from synque_select.utils.json_files import parse_json, read_json_file
from synque_select.utils.json_types import Json
from synque_select.utils.progress import ProgressBar
from synque_select.utils.validation import check_int, is_number
from synque_select.utils.wording import counted, one_line

__all__ = [
    "Rubric",
    "RubricSampling",
    "SampleSet",
    "ask_points_ahead",
    "kept_rubric",
    "load_rubrics",
    "rubric_prompts",
    "save_rubrics",
    "write_rubric",
]

_log = logging.getLogger(__name__)

_FIELDS = {
    "similarities": "sims",
    "only_synthetic": "diffs_synth_from_real",
    "only_real": "diffs_real_from_synth",
}
_REPAIRS = 2
_SHOWN = 2000
_NUMBER = re.compile(r"\A\s*\d{1,2}[.)]\s+")
_MAX_POINT = 300


@dataclass(frozen=True)
class Rubric:
    """What a judge is told about the real sample and a candidate.

    In the points of a list, "dataset B" is the set that the list is about and "dataset A" the
    other one, as in the released rubrics; `shown` swaps the names if the judge sees the sets the
    other way round.

    Args:
        similarities: C: what both have in common.
        only_synthetic: C_sr: what is typical of the candidate and not of the real sample.
        only_real: C_rs: what is typical of the real sample and not of the candidate.
    """

    similarities: tuple[str, ...]
    only_synthetic: tuple[str, ...]
    only_real: tuple[str, ...]

    def shown(
        self, synthetic_is: str, control_tokens: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Return the three lists as a judge sees them, with the candidate as dataset A or B.

        Args:
            synthetic_is: Which dataset the candidate is: "A" or "B".
            control_tokens: Special and added tokens of the judge's tokenizer, which are escaped.

        Example:
            >>> rubric = Rubric(("Short.",), ("Dataset B names tables, while A does not.",), ("x",))
            >>> rubric.shown("A")["only_a"]
            '1. Dataset A names tables, while B does not.'
        """
        real_is = "B" if synthetic_is == "A" else "A"
        lists = {
            "similarities": self.similarities,
            f"only_{synthetic_is.lower()}": _named(self.only_synthetic, synthetic_is),
            f"only_{real_is.lower()}": _named(self.only_real, real_is),
        }
        return {name: _numbered(points, control_tokens) for name, points in lists.items()}

    def with_names(self, real: str, synthetic: str) -> Rubric:
        """Return the rubric with other names than "dataset A" and "dataset B" for the sets.

        Args:
            real: What to call the real sample.
            synthetic: What to call the candidate.

        Example:
            >>> rubric = Rubric(("x",), ("Dataset B is longer than dataset A.",), ("B is terse.",))
            >>> renamed = rubric.with_names("the real data", "your data")
            >>> renamed.only_synthetic, renamed.only_real
            (('Your data is longer than the real data.',), ('The real data is terse.',))
        """
        return Rubric(
            tuple(map(plain_line, self.similarities)),
            tuple(_renamed(p, {"A": real, "B": synthetic}) for p in self.only_synthetic),
            tuple(_renamed(p, {"A": synthetic, "B": real}) for p in self.only_real),
        )


def _numbered(points: Sequence[str], control_tokens: frozenset[str]) -> str:
    lines = (plain_line(point, control_tokens) for point in points)
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))


def _named(points: Sequence[str], own: str) -> list[str]:
    return list(points) if own == "B" else [_turned(point) for point in points]


# "A" is the name of a dataset, unless it starts a sentence and neither a verb nor "'s" follows
_NAME = re.compile(r"(?<![\w'’-])(?:(?P<word>[Dd]atasets? )(?P<of>[AB])|(?P<bare>[AB]))(?![\w-])")
_VERB = re.compile(r"['’]s\b| (?:\w+s|tends|has|does|is|and B|or B)\b")


def _turned(point: str) -> str:
    return _with_names(point, lambda word, name: f"{word}{'B' if name == 'A' else 'A'}")


def _renamed(point: str, names: Mapping[str, str]) -> str:
    text = plain_line(_with_names(point, lambda _, name: names[name]))
    return text[:1].upper() + text[1:]


def _with_names(point: str, named: Callable[[str, str], str]) -> str:
    def name_of(match: re.Match[str]) -> str:
        before = point[: match.start()].rstrip()
        begins = not before or before[-1] in ".!?"
        if match["bare"] == "A" and begins and not _VERB.match(point, match.end()):
            return match[0]
        return named(match["word"] or "", match["of"] or match["bare"])

    return _NAME.sub(name_of, point)


def _read(path: str | Path) -> Json:
    """Read a rubric file; one of the released files has three candidates twice."""
    try:
        return read_json_file(path)
    except DataError as error:
        value = read_json_file(path, unique_keys=False)  # raises the error if it is another one
        _log.warning("%s: the last one is used", error)
        return value


def load_rubrics(path: str | Path, group: str | None = None) -> dict[str, Rubric]:
    """Read a rubric file of this library or of the released SynQuE data.

    Args:
        path: JSON file with `sims`, `diffs_synth_from_real` and `diffs_real_from_synth`, each a
            mapping of candidate names to points, or of groups to such mappings.
        group: Group to read, if the file has several.

    Returns:
        Candidate name to its rubric. Of a name that the file has more than once, it is the last
        one, with a warning.

    Raises:
        DataError: The file cannot be used; the message says what is missing.
    """
    # Any: the shape of the file is checked below
    state: Any = _read(path)
    absent = [key for key in _FIELDS.values() if not isinstance(state, dict) or key not in state]
    if absent:
        raise DataError(f"{path} is not a rubric file: it has no {', '.join(absent)}")
    lists = {field: _of_group(state[key], group, path) for field, key in _FIELDS.items()}
    names = list(lists["similarities"])
    for field, points_of in lists.items():
        for name in names:
            points = points_of.get(name)
            if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
                raise DataError(
                    f"{path}: expected a list of strings for {name!r} in {_FIELDS[field]}, "
                    f"found {one_line(repr(points), 100)}"
                )
    return {
        name: Rubric(**{f: tuple(map(_printable, part[name])) for f, part in lists.items()})
        for name in names
    }


def _printable(point: str) -> str:
    # JSON allows half a surrogate pair; files and prompts do not
    return point.encode("utf-8", "replace").decode()


def _of_group(points: Any, group: str | None, path: str | Path) -> dict[str, Any]:
    if not isinstance(points, dict) or not points:
        raise DataError(f"{path} is not a rubric file: expected candidate names with their points")
    if not isinstance(next(iter(points.values())), dict):
        return points
    if group is None and len(points) == 1:
        group = next(iter(points))
    if group not in points:
        raise DataError(f"{path} has the groups {', '.join(points)}: choose one with rubrics_group")
    if not isinstance(points[group], dict):
        raise DataError(f"{path}, group {group}: expected candidate names with their points")
    return dict(points[group])


def save_rubrics(
    path: str | Path, rubrics: Mapping[str, Rubric], about: Mapping[str, str | None] | None = None
) -> Path:
    """Write rubrics to a JSON file, which people can edit and `load_rubrics` can read.

    Args:
        path: File to write.
        rubrics: Candidate name to its rubric.
        about: Further entries, such as the model and the prompts.
    """
    state: dict[str, object] = {"version": 1, **(about or {})}
    for field, key in _FIELDS.items():
        state[key] = {name: list(getattr(rubric, field)) for name, rubric in rubrics.items()}
    path = Path(path)
    write_text_atomic(path, json.dumps(state, indent=2, ensure_ascii=False) + "\n")
    return path


@dataclass(frozen=True)
class RubricSampling:
    """How many examples a rubric is written from, and how long it is.

    Args:
        n_samples: Maximum number of examples of the real sample, and of the candidate.
        max_tokens: Maximum number of tokens of these examples, for each of the two.
        max_sample_chars: Maximum number of characters shown of an example.
        image_side: Maximum length of the longer side of an image, in pixels.
        n_points: Number of points in each of the three lists.
        max_answer_tokens: Maximum number of tokens in an answer, reasoning included.
        temperature: Sampling temperature; 0 for the most probable answer.
        seed: Random seed of the choice of examples, and of the answer if the temperature is not 0.

    Raises:
        ConfigError: A value is not allowed.
    """

    n_samples: int = 30
    max_tokens: int = 6000
    max_sample_chars: int = 2000
    image_side: int = 448
    n_points: int = 10
    max_answer_tokens: int = 4096
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "n_samples", "max_tokens", "max_sample_chars", "image_side", "n_points",
            "max_answer_tokens",
        ):  # fmt: skip
            check_int(f"sampling: {name}", getattr(self, name), 1)
        check_int("sampling: seed", self.seed, 0)
        if not is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"sampling: temperature={self.temperature!r}: allowed are finite numbers from 0"
            )


@dataclass(frozen=True)
class SampleSet:
    """The examples of the real sample or of a candidate, and keys that identify their content.

    Args:
        views: Texts or images; an image may be loaded only when it is accessed.
        keys: One key per view that depends only on its content: the text itself, or a hash.
    """

    views: Sequence[View]
    keys: Sequence[str]

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> SampleSet:
        """Build a set of texts, each its own key."""
        return cls(texts, texts)

    def part(self, positions: Iterable[int]) -> SampleSet:
        """Return the examples at these positions."""
        chosen = [int(i) for i in positions]
        return SampleSet([self.views[i] for i in chosen], [self.keys[i] for i in chosen])


def write_rubric(
    engine: BaseLLM,
    asked: Mapping[str, PromptLike],
    sampling: RubricSampling,
    cache: AnswerCache,
    *,
    progress: bool = False,
) -> Rubric:
    """Have a model compare examples of both sets.

    The reasoning part of an answer is removed. An answer that does not follow the schema is sent
    back with the reason, at most twice; a refused or empty one is asked for again as often.

    Args:
        engine: The model that writes the rubric.
        asked: Prompts from `rubric_prompts`.
        sampling: Length of the rubric and decoding options.
        cache: Answer cache.
        progress: Whether to show which of the three lists are written.

    Raises:
        LLMError: The third answer is not usable either; the message shows it.
    """
    return _rubric(engine, asked, sampling, cache, ask=True, progress=progress)


def kept_rubric(
    engine: BaseLLM, asked: Mapping[str, PromptLike], sampling: RubricSampling, cache: AnswerCache
) -> Rubric | None:
    """Return the rubric in the cache, or None if one of its answers is missing.

    Args:
        engine: The model that writes the rubric.
        asked: Prompts from `rubric_prompts`.
        sampling: Length of the rubric and decoding options.
        cache: Answer cache.

    Raises:
        LLMError: The cached answers are not usable.
    """
    try:
        return _rubric(engine, asked, sampling, cache, ask=False)
    except _NotKeptError:
        return None


class _NotKeptError(Exception):
    pass


def rubric_prompts(
    engine: BaseLLM,
    real: SampleSet,
    synthetic: SampleSet,
    prompts: PromptSet,
    sampling: RubricSampling,
) -> dict[str, PromptLike]:
    """Return the prompts for the three lists of a rubric, by field of `Rubric`.

    Args:
        engine: The model that writes the rubric; its tokenizer counts the tokens.
        real: The real sample.
        synthetic: The candidate.
        prompts: Prompts for the kind of task.
        sampling: How many examples are shown, and how many points are asked for.
    """
    r = _sample_lines(engine, real, prompts, sampling)
    s = _sample_lines(engine, synthetic, prompts, sampling)
    n = str(sampling.n_points)
    # in each list of differences, dataset B is the set that it is about
    asked = {
        "similarities": ("similarities", r, s),
        "only_synthetic": ("differences", r, s),
        "only_real": ("differences", s, r),
    }
    return {
        field: prompts.fill(section, samples_a=a, samples_b=b, n_points=n)
        for field, (section, a, b) in asked.items()
    }


def _rubric(
    engine: BaseLLM,
    asked: Mapping[str, PromptLike],
    sampling: RubricSampling,
    cache: AnswerCache,
    *,
    ask: bool,
    progress: bool = False,
) -> Rubric:
    bar = ProgressBar(
        total=len(asked),
        desc="writing the rubric",
        unit="call",
        delay=2,
        leave=False,
        disable=not progress,
    )
    lists = {}
    with bar:
        for field, prompt in asked.items():
            lists[field] = _points(engine, prompt, sampling, cache, ask=ask)
            bar.update()
    return Rubric(**lists)


def _sample_lines(
    engine: BaseLLM, samples: SampleSet, prompts: PromptSet, sampling: RubricSampling
) -> PromptLike:
    lines: list[PromptLike] = []
    left = sampling.max_tokens
    limits = Limits(sampling.max_sample_chars, sampling.image_side)
    for position in content_order(samples.keys, sampling.seed)[: sampling.n_samples]:
        line = rubric_line(samples.views[position], prompts, limits, engine.control_tokens())
        left -= engine.count_tokens(line)
        if lines and left < 0:
            break
        lines += ["\n", line]
    return join_prompts(*lines[1:])


def _points(
    engine: BaseLLM,
    prompt: PromptLike,
    sampling: RubricSampling,
    cache: AnswerCache,
    *,
    ask: bool,
) -> tuple[str, ...]:
    schema = _schema(sampling.n_points)
    question, problem, last = prompt, "", ""
    for attempt in range(1 + _REPAIRS):
        answer = _answer(engine, question, schema, sampling, cache, ask=ask)
        if isinstance(answer, Failure):  # a refusal, or an empty answer: ask the same again
            problem, last = answer.reason, ""
            continue
        points = _parsed(answer, sampling.n_points)
        last = f". The last answer: {one_line(answer)}"
        if not isinstance(points, str):
            return points
        problem = points
        shown = quote_sample(answer, _SHOWN, engine.control_tokens()).text
        question = join_prompts(
            prompt,
            f"\n\nAnswer {attempt + 1} could not be used: {problem}. It was: {shown}\n"
            "Answer again, with JSON only.",
        )
    raise LLMError(
        f"{engine.id} wrote no usable rubric in {counted(1 + _REPAIRS, 'answer')}: "
        f"{one_line(problem)}{last}"
    )


def _answer(
    engine: BaseLLM,
    prompt: PromptLike,
    schema: Mapping[str, object],
    sampling: RubricSampling,
    cache: AnswerCache,
    *,
    ask: bool,
) -> str | Failure:
    """Return an answer from the cache, or ask for it.

    Raises:
        _NotKeptError: The answer is not in the cache, and `ask` is False.
    """
    decoding = _decoding(schema, sampling)
    key = answer_key(engine.key, prompt_text(prompt), decoding)
    cached = cache.get([key])
    if key in cached:
        return str(cached[key])
    if not ask:
        raise _NotKeptError
    ((_, answer),) = engine.generate([prompt], **decoding)
    if not isinstance(answer, Failure):
        cache.put({key: answer})
    return answer


def _decoding(schema: Mapping[str, object], sampling: RubricSampling) -> dict[str, Any]:
    return {
        "schema": schema,
        "max_tokens": sampling.max_answer_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
    }


def ask_points_ahead(
    engine: BaseLLM, prompts: Sequence[PromptLike], sampling: RubricSampling, cache: AnswerCache
) -> None:
    """Ask for the first answers of all rubrics at once, into the cache.

    Args:
        engine: The model that writes rubrics, in batches.
        prompts: Prompts of all missing rubrics, from `rubric_prompts`.
        sampling: How rubrics are written.
        cache: Answer cache, where `write_rubric` finds the answers.

    Raises:
        LLMError: The server cannot be reached, or a batch failed.
    """
    decoding = _decoding(_schema(sampling.n_points), sampling)
    key_of = {answer_key(engine.key, prompt_text(prompt), decoding): prompt for prompt in prompts}
    cached = cache.get(list(key_of))
    missing = [key for key in key_of if key not in cached]
    if not missing:
        return
    with cache.session() as session:
        for position, answer in engine.generate([key_of[key] for key in missing], **decoding):
            if not isinstance(answer, Failure):
                session.put({missing[position]: answer})


def _schema(n_points: int) -> dict[str, object]:
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
    """Return the points, or the reason why the answer is not usable."""
    text = without_thinking(answer)
    start, end = text.find("{"), text.rfind("}")
    try:
        state: Any = parse_json(text[start : end + 1], "the answer", error=LLMError)
    except LLMError as error:
        return f"it is not JSON ({error})"
    points = state.get("points")
    if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
        return 'it has no list of texts under "points"'
    points = [_NUMBER.sub("", _printable(p)).strip() for p in points]
    if not all(points):
        return "a point is empty"
    if len(points) != n_points:
        return f"it has {counted(len(points), 'point')} instead of {n_points}"
    if len({point.casefold() for point in points}) < n_points:
        return "it has the same point twice"
    return tuple(points)
