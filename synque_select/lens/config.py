"""Configuration of LENS: engines, rubrics, prompts, sizes, and where answers are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

from synque_select.errors import ConfigError, did_you_mean
from synque_select.lens.judge import Readout
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import Rubric, RubricSampling
from synque_select.llm.registry import LLMSpec, check_llm, describe_llm
from synque_select.utils.json_files import parse_json
from synque_select.utils.validation import check_int, is_number
from synque_select.utils.yaml_files import read_yaml_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["AdaptiveJudging", "LensConfig", "packaged_lens_configs"]

_ROLES = ("reasoner", "scorer")
_PRICED = ("input", "output")


def _small() -> LLMSpec:
    return {"engine": "transformers"}


@dataclass(frozen=True)
class AdaptiveJudging:
    """Stop judging a candidate once it is decided whether it is among the best `top_k`.

    Without `top_k`, the border is that of the default selection, which leaves out candidates that
    are worse than at least half of the others: the best half of K candidates, rounded down.

    Args:
        delta: Allowed error. With probability 1 − delta over the random choice of examples, every
            decision is the one that judging all examples would have led to. Rubrics and the real
            sample are held fixed.
        rounds: Maximum number of rounds; each doubles the number of judged examples of a candidate.
        top_k: Number of best candidates; None for the `top_k` of the callback or command, or half
            of the candidates if that is not set either.

    Raises:
        ConfigError: A value is not allowed.
    """

    delta: float = 0.05
    rounds: int = 6
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not is_number(self.delta) or not 0 < self.delta < 1:
            raise ConfigError(f"adaptive: delta={self.delta!r}: allowed are values in (0, 1)")
        check_int("adaptive: rounds", self.rounds, 1)
        if self.top_k is not None:
            check_int("adaptive: top_k", self.top_k, 1)


@dataclass(frozen=True)
class LensConfig:
    """Configuration of LENS.

    Args:
        scorer: The model that judges examples: an engine, or a mapping with "engine" and its
            arguments. The default has 135M parameters: enough to try LENS, too weak to rely on.
        reasoner: The model that writes rubrics; None for the scorer.
        prompts: A kind of task ("text", "text2sql", "web", "web_page", "image") or a prompt file;
            None for "text" or "image", depending on the views.
        zero_shot: Whether to judge without rubrics.
        rubrics: A rubric file to use, or a mapping of candidate names to `Rubric`; new rubrics are
            written for candidates without one.
        rubrics_group: Group within the rubric file, if it has several.
        save_rubrics: File to write the rubrics to.
        sampling: How rubrics are written.
        readout: How an answer becomes a number: "expectation" or "label"; see `judge`.
        max_samples: Maximum number of examples per candidate that are judged, drawn at random;
            None for all.
        adaptive: Stop judging a candidate early (`AdaptiveJudging`); None to judge all of them in
            full.
        max_sample_chars: Maximum number of characters of an example that the judge sees. How many
            examples were cut is counted.
        image_side: Maximum length of the longer side of an image, in pixels; larger images are
            scaled down.
        split_real: Whether to write rubrics from one half of the real sample and to debias with
            the other half.
        failure_threshold: Share of questions that may fail before the run stops, in [0, 1).
        prices: Price per million tokens, in any currency: {"scorer": {"input": …, "output": …},
            "reasoner": …}. With prices, the estimated cost is shown before the first question.
        answers: SQLite file of the answer cache; None for the default cache.
        progress: Whether to show progress.

    Raises:
        ConfigError: A value is not allowed.
    """

    scorer: LLMSpec = field(default_factory=_small)
    reasoner: LLMSpec | None = None
    prompts: str | None = None
    zero_shot: bool = False
    rubrics: str | Mapping[str, Rubric] | None = None
    rubrics_group: str | None = None
    save_rubrics: str | None = None
    sampling: RubricSampling = field(default_factory=RubricSampling)
    readout: Readout = "expectation"
    max_samples: int | None = None
    adaptive: AdaptiveJudging | None = None
    max_sample_chars: int = 2000
    image_side: int = 448
    split_real: bool = False
    failure_threshold: float = 0.02
    prices: Mapping[str, Mapping[str, float]] | None = None
    answers: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, part in (("sampling", RubricSampling), ("adaptive", AdaptiveJudging)):
            value = getattr(self, name)
            if not isinstance(value, part) and not (name == "adaptive" and value is None):
                raise ConfigError(f"{name}={value!r}: expected an instance of {part.__name__}")
        if self.readout not in get_args(Readout):
            raise ConfigError(
                f"readout={self.readout!r}: allowed is {', '.join(get_args(Readout))}"
            )
        for role in _ROLES:
            _check_role(role, getattr(self, role))
        _check_kinds(self)
        if self.max_samples is not None:
            check_int("max_samples", self.max_samples, 2)
        check_int("max_sample_chars", self.max_sample_chars, 1)
        check_int("image_side", self.image_side, 1)
        if not is_number(self.failure_threshold) or not 0 <= self.failure_threshold < 1:
            raise ConfigError(
                f"failure_threshold={self.failure_threshold!r}: allowed are values in [0, 1)"
            )
        _check_prices(self.prices)
        prompts = load_prompts(self.prompts or "text")
        if self.zero_shot and "zero_shot" not in prompts.sections:
            raise ConfigError(
                f"zero_shot=True: the prompts {prompts.name} have no section 'zero_shot'"
            )
        if self.zero_shot and self.rubrics is not None:
            raise ConfigError("zero_shot=True judges without rubrics: remove rubrics= or zero_shot")

    @classmethod
    def read(cls, config: LensConfig | Mapping[str, object] | str | Path) -> LensConfig:
        """Return the config that an instance, a mapping, JSON, a file or a packaged name describes.

        Raises:
            ConfigError: It is none of these, cannot be read, or a value is not allowed.
        """
        if isinstance(config, LensConfig):
            return config
        if isinstance(config, Mapping):
            return cls.from_mapping(config)
        if isinstance(config, str) and config.startswith("{"):
            return cls.from_mapping(_json(config))
        if isinstance(config, str | Path):
            return cls.from_file(config)
        raise ConfigError(
            f"expected a LensConfig, a mapping or a file for LENS, got {type(config).__name__}"
        )

    @classmethod
    def from_mapping(cls, state: Mapping[str, object], where: str = "lens") -> LensConfig:
        """Build a config from a mapping, with `sampling` and `adaptive` as mappings too.

        Args:
            state: Names of fields to values.
            where: What error messages call the mapping, such as the path of its file.

        Raises:
            ConfigError: A name is unknown, or a value is not allowed.
        """
        values: dict[str, Any] = {**state}
        if values.pop("version", 1) != 1:
            raise ConfigError(f"{where}: got version {state['version']!r}; allowed is 1")
        values.pop("content", None)  # hashes that `to_dict` adds
        if "way" in values:  # what `to_dict` writes, and the name in configs of 0.1
            values.setdefault("readout", values.pop("way"))
        _check_names(values, cls, where)
        for name, part in (("sampling", RubricSampling), ("adaptive", AdaptiveJudging)):
            if values.get(name) is not None and not isinstance(values[name], part):
                _check_names(values[name], part, f"{where}, {name}")
                values[name] = part(**values[name])
        if isinstance(values.get("rubrics"), Mapping):
            values["rubrics"] = {n: _rubric(n, rubric) for n, rubric in values["rubrics"].items()}
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> LensConfig:
        """Read a YAML config: a file, or a packaged name such as "lens-small".

        Raises:
            ConfigError: The config does not exist, is not valid YAML, or a value is not allowed.
        """
        path = _packaged(path)
        state = read_yaml_file(path)
        if not isinstance(state, dict):
            raise ConfigError(f"{path}: expected a mapping, found {type(state).__name__}")
        try:
            return cls.from_mapping(state, str(path))
        except ConfigError as error:
            if str(path) in str(error):
                raise
            raise ConfigError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, object]:
        """Return the settings that change a score as JSON values, for records and cache keys."""
        reasoner = None if self.reasoner is None else describe_llm(self.reasoner)
        return {
            "scorer": describe_llm(self.scorer),
            "reasoner": reasoner,
            "prompts": self.prompts,
            "zero_shot": self.zero_shot,
            "rubrics": _rubrics_state(self.rubrics),
            "rubrics_group": self.rubrics_group,
            "sampling": dataclasses.asdict(self.sampling),
            "way": self.readout,  # its name in the records and kept scores of 0.1
            "max_samples": self.max_samples,
            "adaptive": None if self.adaptive is None else dataclasses.asdict(self.adaptive),
            "max_sample_chars": self.max_sample_chars,
            "image_side": self.image_side,
            "split_real": self.split_real,
            "content": {name: _sha256(getattr(self, name)) for name in ("prompts", "rubrics")},
        }

    def for_top_k(self, top_k: int | None) -> LensConfig:
        """Return the config with this `top_k` for adaptive judging, unless it sets its own."""
        if self.adaptive is None or self.adaptive.top_k is not None:
            return self
        adaptive = dataclasses.replace(self.adaptive, top_k=top_k)
        return dataclasses.replace(self, adaptive=adaptive)


def _rubric(name: str, rubric: object) -> Rubric:
    if isinstance(rubric, Rubric):
        return rubric
    lists = _check_names(rubric, Rubric, f"lens, rubrics, {name}")
    points_of: dict[str, tuple[str, ...]] = {}
    for part in dataclasses.fields(Rubric):
        points = lists.get(part.name)
        if not isinstance(points, list | tuple) or not all(isinstance(p, str) for p in points):
            raise ConfigError(
                f"lens, rubrics, {name}, {part.name}: expected a list of strings, found {points!r}"
            )
        points_of[part.name] = tuple(points)
    return Rubric(**points_of)


def _json(text: str) -> Mapping[str, object]:
    state = parse_json(text, "the LENS config", error=ConfigError)
    if not isinstance(state, Mapping):
        raise ConfigError(f"the LENS config: expected a mapping, found {type(state).__name__}")
    return state


def _check_role(role: str, spec: LLMSpec | None) -> None:
    if spec is None and role == "reasoner":
        return
    try:
        check_llm(spec)
    except ConfigError as error:
        raise ConfigError(f"{role}: {error}") from error


def _check_kinds(config: LensConfig) -> None:
    """Check the types that `check_int` does not: "false" in quotes would count as true."""
    kinds: dict[str, tuple[type | UnionType, str]] = {
        **dict.fromkeys(("zero_shot", "split_real", "progress"), (bool, "true or false")),
        **dict.fromkeys(("prompts", "rubrics_group"), (str | None, "a string, or None")),
        **dict.fromkeys(
            ("save_rubrics", "answers"), (str | os.PathLike | None, "the path of a file, or None")
        ),
        "rubrics": (str | Mapping | None, "a file, or a mapping of candidate names to rubrics"),
    }
    for name, (kind, words) in kinds.items():
        value = getattr(config, name)
        if not isinstance(value, kind):
            raise ConfigError(f"{name}={value!r}: allowed is {words}")
    if isinstance(config.rubrics, Mapping):
        for candidate, rubric in config.rubrics.items():
            if not isinstance(rubric, Rubric):
                raise ConfigError(f"rubrics, {candidate}: expected a Rubric, found {rubric!r}")


def _rubrics_state(
    rubrics: str | Mapping[str, Rubric] | None,
) -> str | dict[str, dict[str, list[str]]] | None:
    if rubrics is None or isinstance(rubrics, str):
        return rubrics
    return {name: {k: list(v) for k, v in vars(r).items()} for name, r in rubrics.items()}


def _sha256(path: object) -> str | None:
    """Hash the content of a file, so that an edited file makes another config."""
    if not isinstance(path, str) or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def packaged_lens_configs() -> dict[str, Path]:
    """Return the packaged LENS configs: name to path.

    Example:
        >>> "lens-small" in packaged_lens_configs()
        True
    """
    import synque_select.configs

    folder = Path(str(synque_select.configs.__file__)).parent
    return {path.stem: path for path in sorted(folder.glob("*lens*.yaml"))}


def _packaged(path: str | Path) -> Path:
    """Return the path of a file, or of the packaged config of that name."""
    if Path(path).exists():
        return Path(path)
    known = packaged_lens_configs()
    if str(path) not in known:
        hint = did_you_mean(str(path), known)
        raise ConfigError(
            f"LENS config {str(path)!r} is neither a file nor a packaged config: {hint}"
        )
    return known[str(path)]


def _check_prices(prices: object) -> None:
    if prices is None:
        return
    form = 'expected {"scorer": {"input": 1.0, "output": 2.0}}, and the same for "reasoner"'
    if not isinstance(prices, Mapping) or not set(prices) <= set(_ROLES):
        raise ConfigError(f"prices={prices!r}: {form}")
    for role, price in prices.items():
        if not isinstance(price, Mapping) or set(price) != set(_PRICED):
            raise ConfigError(f"prices, {role}: found {price!r}; {form}")
        for name, value in price.items():
            if not is_number(value) or not 0 <= value < math.inf:
                raise ConfigError(f"prices, {role}, {name}: expected 0 or more, found {value!r}")


def _check_names(values: object, cls: type[DataclassInstance], where: str) -> Mapping[str, object]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {type(values).__name__}")
    allowed = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in allowed:
            raise ConfigError(f"{where}: unknown name {name!r}: {did_you_mean(str(name), allowed)}")
    return values
