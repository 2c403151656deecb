"""How LENS is computed: engines, rubrics, prompts, sizes, what is kept where."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from synque_select.errors import ConfigError, did_you_mean
from synque_select.lens.judge import Way
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import RubricSampling
from synque_select.llm.registry import LLMSpec, describe_llm

__all__ = ["LensConfig"]


def _small() -> LLMSpec:
    return {"engine": "transformers"}


@dataclass(frozen=True)
class LensConfig:
    """How LENS is computed.

    Args:
        scorer: Judges samples: an engine, or a mapping with "engine" and its arguments. The
            default is a model of 135M parameters: enough to try it out, too weak to rely on.
        reasoner: Writes rubrics; None for the scorer.
        prompts: A kind of task ("text", "text2sql", "web"), or a file of prompts.
        rubrics: A file of rubrics to use; candidates that it does not name get new ones.
        rubrics_group: Which group of that file, where it has several.
        save_rubrics: Where to write the rubrics that were used.
        sampling: How rubrics are written.
        way: "expectation" or "label" (`judge`).
        max_samples: How many samples of a candidate are judged, drawn at random; None for all.
        max_sample_chars: Longer samples are cut when judged, and counted.
        split_real: Whether the rubric is written from one half of the real sample, and the other
            half is judged to debias.
        failure_threshold: Share of questions that may fail before the run ends.
        answers: The SQLite file that answers are kept in; None for the default cache.
        progress: Whether to show progress.

    Raises:
        ConfigError: A value is not allowed.
    """

    scorer: LLMSpec = field(default_factory=_small)
    reasoner: LLMSpec | None = None
    prompts: str = "text"
    rubrics: str | None = None
    rubrics_group: str | None = None
    save_rubrics: str | None = None
    sampling: RubricSampling = field(default_factory=RubricSampling)
    way: Way = "expectation"
    max_samples: int | None = None
    max_sample_chars: int = 2000
    split_real: bool = False
    failure_threshold: float = 0.02
    answers: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise ConfigError(f"way={self.way!r}: allowed is {', '.join(get_args(Way))}")
        if self.max_samples is not None and self.max_samples < 2:
            raise ConfigError(f"max_samples={self.max_samples}: allowed is 2 or more, or None")
        if self.max_sample_chars < 1:
            raise ConfigError(f"max_sample_chars={self.max_sample_chars}: allowed is 1 or more")
        if not 0 <= self.failure_threshold < 1:
            raise ConfigError(
                f"failure_threshold={self.failure_threshold}: allowed is 0 to below 1"
            )
        load_prompts(self.prompts)

    @classmethod
    def read(cls, given: LensConfig | Mapping[str, Any] | str | Path) -> LensConfig:
        """Return a config given as one, as a mapping, as JSON, or as a file or its packaged name.

        Raises:
            ConfigError: It is something else, cannot be read, or a value is not allowed.
        """
        if isinstance(given, LensConfig):
            return given
        if isinstance(given, Mapping):
            return cls.from_mapping(given)
        if isinstance(given, str) and given.startswith("{"):
            return cls.from_mapping(json.loads(given))
        if isinstance(given, str | Path):
            return cls.from_file(given)
        raise ConfigError(
            f"a config of LENS is a {type(given).__name__}: allowed is a LensConfig, a mapping or "
            "a file"
        )

    @classmethod
    def from_mapping(cls, state: Mapping[str, Any], where: str = "lens") -> LensConfig:
        """Make a config from plain values, `sampling` as a mapping.

        Raises:
            ConfigError: A name is unknown, or a value not allowed.
        """
        values = {**state}
        if values.pop("version", 1) != 1:
            raise ConfigError(f"{where}: version {state['version']!r}; allowed is 1")
        _check_names(values, cls, where)
        if "sampling" in values:
            _check_names(values["sampling"], RubricSampling, f"{where}, sampling")
            values["sampling"] = RubricSampling(**values["sampling"])
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> LensConfig:
        """Read a YAML config: a file, or a packaged name such as "lens-small".

        Raises:
            ConfigError: There is no such config, it is no YAML, or a value is not allowed.
        """
        import yaml

        path = _packaged(path)
        try:
            state = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"the lens config {path} cannot be read: {error}") from error
        if not isinstance(state, dict):
            raise ConfigError(f"{path}: expected names with values, found {type(state).__name__}")
        return cls.from_mapping(state, str(path))

    def plain(self) -> dict[str, Any]:
        """Return what changes a score as plain values, for records."""
        reasoner = None if self.reasoner is None else describe_llm(self.reasoner)
        return {
            "scorer": describe_llm(self.scorer),
            "reasoner": reasoner,
            "prompts": self.prompts,
            "rubrics": self.rubrics,
            "sampling": dataclasses.asdict(self.sampling),
            "way": self.way,
            "max_samples": self.max_samples,
            "max_sample_chars": self.max_sample_chars,
            "split_real": self.split_real,
        }


def _packaged(path: str | Path) -> Path:
    """Return a file as it is, and else the packaged config of that name if there is one."""
    import synque_select.configs

    named = Path(str(synque_select.configs.__file__)).parent / f"{path}.yaml"
    return named if not Path(path).exists() and named.is_file() else Path(path)


def _check_names(values: Any, cls: Any, where: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected names with values, found {type(values).__name__}")
    allowed = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in allowed:
            raise ConfigError(f"{where}: no value {name!r}; {did_you_mean(str(name), allowed)}")
