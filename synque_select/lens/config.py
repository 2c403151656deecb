"""How LENS is computed: engines, rubrics, prompts, sizes, what is kept where."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from synque_select.errors import ConfigError, did_you_mean
from synque_select.lens.judge import Readout
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import Rubric, RubricSampling
from synque_select.llm.registry import LLMSpec, check_llm, describe_llm
from synque_select.utils.json_files import parse_json
from synque_select.utils.text_files import read_text
from synque_select.utils.validation import check_int, is_number

__all__ = ["AdaptiveJudging", "LensConfig", "packaged_lens_configs"]

_ROLES = ("reasoner", "scorer")
_PRICED = ("input", "output")


def _small() -> LLMSpec:
    return {"engine": "transformers"}


@dataclass(frozen=True)
class AdaptiveJudging:
    """Judge a candidate only until it is decided whether it is among the best k.

    Args:
        delta: Error: with probability 1 − delta over which samples are drawn, all that is decided
            is what judging every sample would have said. Rubrics and real sample are held fixed.
        rounds: In how many rounds, at most; each doubles what is judged of a candidate.
        top_k: How many are to be the best; None for the `top_k` of a callback or a command, and
            3 elsewhere.

    Raises:
        ConfigError: A value is not allowed.
    """

    delta: float = 0.05
    rounds: int = 6
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not is_number(self.delta) or not 0 < self.delta < 1:
            raise ConfigError(f"adaptive: delta={self.delta!r}: allowed is above 0 and below 1")
        check_int("adaptive: rounds", self.rounds, 1)
        if self.top_k is not None:
            check_int("adaptive: top_k", self.top_k, 1)


@dataclass(frozen=True)
class LensConfig:
    """How LENS is computed.

    Args:
        scorer: Judges samples: an engine, or a mapping with "engine" and its arguments. The
            default is a model of 135M parameters: enough to try it out, too weak to rely on.
        reasoner: Writes rubrics; None for the scorer.
        prompts: A kind of task ("text", "text2sql", "web", "web_page", "image"), or a file of
            prompts; None for "text" or "image", whatever the views are.
        zero_shot: Whether to judge without rubrics.
        rubrics: A file of rubrics to use, or name of a candidate to `Rubric`; candidates that it
            does not name get new ones.
        rubrics_group: Which group of that file, where it has several.
        save_rubrics: Where to write the rubrics that were used.
        sampling: How rubrics are written.
        readout: "expectation" or "label" (`judge`).
        max_samples: How many samples of a candidate are judged, drawn at random; None for all.
        adaptive: Stop judging a candidate when it is decided (`AdaptiveJudging`); None to judge
            all in full.
        max_sample_chars: Longer samples are cut when judged, and counted.
        image_side: Larger images are made smaller when judged: pixels of the longer side.
        split_real: Whether the rubric is written from one half of the real sample, and the other
            half is judged to debias.
        failure_threshold: Share of questions that may fail before the run ends.
        prices: What a million tokens cost: {"scorer": {"input": …, "output": …}, "reasoner": …},
            in any currency; the cost is then said before the first question.
        answers: The SQLite file that answers are kept in; None for the default cache.
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
            found = getattr(self, name)
            if not isinstance(found, part) and not (name == "adaptive" and found is None):
                raise ConfigError(f"{name}={found!r}: allowed is a {part.__name__}")
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
                f"failure_threshold={self.failure_threshold!r}: allowed is 0 to below 1"
            )
        _check_prices(self.prices)
        prompts = load_prompts(self.prompts or "text")
        if self.zero_shot and "zero_shot" not in prompts.sections:
            raise ConfigError(f"zero_shot=True: the prompts {prompts.name} have no such section")
        if self.zero_shot and self.rubrics is not None:
            raise ConfigError("zero_shot=True uses no rubrics, and rubrics= is given")

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
            return cls.from_mapping(_json(given))
        if isinstance(given, str | Path):
            return cls.from_file(given)
        raise ConfigError(
            f"a config of LENS is a {type(given).__name__}: allowed is a LensConfig, a mapping or "
            "a file"
        )

    @classmethod
    def from_mapping(cls, state: Mapping[str, Any], where: str = "lens") -> LensConfig:
        """Make a config from plain values, `sampling` and `adaptive` as mappings.

        Raises:
            ConfigError: A name is unknown, or a value not allowed.
        """
        values = {**state}
        if values.pop("version", 1) != 1:
            raise ConfigError(f"{where}: version {state['version']!r}; allowed is 1")
        values.pop("content", None)  # of `to_dict`: it tells files apart, and is not read
        if "way" in values:  # what `to_dict` writes, and the name in configs of 0.1
            values.setdefault("readout", values.pop("way"))
        _check_names(values, cls, where)
        for name, part in (("sampling", RubricSampling), ("adaptive", AdaptiveJudging)):
            if values.get(name) is not None and not isinstance(values[name], part):
                _check_names(values[name], part, f"{where}, {name}")
                values[name] = part(**values[name])
        if isinstance(values.get("rubrics"), Mapping):
            values["rubrics"] = {n: _rubric(n, found) for n, found in values["rubrics"].items()}
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
            state = yaml.safe_load(read_text(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"the lens config {path} cannot be read: {error}") from error
        if not isinstance(state, dict):
            raise ConfigError(f"{path}: expected names with values, found {type(state).__name__}")
        return cls.from_mapping(state, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return what changes a score as plain values, for records."""
        reasoner = None if self.reasoner is None else describe_llm(self.reasoner)
        return {
            "scorer": describe_llm(self.scorer),
            "reasoner": reasoner,
            "prompts": self.prompts,
            "zero_shot": self.zero_shot,
            "rubrics": _plain_rubrics(self.rubrics),
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

    def for_top_k(self, top_k: int) -> LensConfig:
        """Return the config with that border to decide, where adaptive judging has none."""
        if self.adaptive is None or self.adaptive.top_k is not None:
            return self
        adaptive = dataclasses.replace(self.adaptive, top_k=top_k)
        return dataclasses.replace(self, adaptive=adaptive)


def _rubric(name: str, found: Any) -> Rubric:
    if isinstance(found, Rubric):
        return found
    _check_names(found, Rubric, f"lens, rubrics, {name}")
    for part in dataclasses.fields(Rubric):
        points = found.get(part.name)
        if not isinstance(points, list | tuple) or not all(isinstance(p, str) for p in points):
            raise ConfigError(
                f"lens, rubrics, {name}, {part.name}: found {points!r}; allowed is a list of texts"
            )
    return Rubric(**{field: tuple(points) for field, points in found.items()})


def _json(text: str) -> Any:
    return parse_json(text, "a config of LENS", error=ConfigError)


def _check_role(role: str, spec: Any) -> None:
    if spec is None and role == "reasoner":
        return
    try:
        check_llm(spec)
    except ConfigError as error:
        raise ConfigError(f"{role}: {error}") from error


def _check_kinds(config: LensConfig) -> None:
    """Refuse values of another type than is said of them; a bool in quotes would count as true."""
    kinds: dict[str, tuple[Any, str]] = {
        **dict.fromkeys(("zero_shot", "split_real", "progress"), (bool, "true or false")),
        **dict.fromkeys(("prompts", "rubrics_group"), (str | None, "a text, or None")),
        **dict.fromkeys(
            ("save_rubrics", "answers"), (str | os.PathLike | None, "the path of a file, or None")
        ),
        "rubrics": (str | Mapping | None, "a file, or names of candidates with rubrics"),
    }
    for name, (kind, words) in kinds.items():
        value = getattr(config, name)
        if not isinstance(value, kind):
            raise ConfigError(f"{name}={value!r}: allowed is {words}")
    if isinstance(config.rubrics, Mapping):
        for candidate, found in config.rubrics.items():
            if not isinstance(found, Rubric):
                raise ConfigError(f"rubrics, {candidate}: found {found!r}; allowed is a Rubric")


def _plain_rubrics(rubrics: str | Mapping[str, Rubric] | None) -> Any:
    if rubrics is None or isinstance(rubrics, str):
        return rubrics
    return {name: {k: list(v) for k, v in vars(r).items()} for name, r in rubrics.items()}


def _sha256(path: Any) -> str | None:
    """Hash of a file, so that another content under the same name is another config."""
    if not isinstance(path, str) or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def packaged_lens_configs() -> dict[str, Path]:
    """Return the configs of LENS that the package brings, by name.

    Example:
        >>> "lens-small" in packaged_lens_configs()
        True
    """
    import synque_select.configs

    folder = Path(str(synque_select.configs.__file__)).parent
    return {path.stem: path for path in sorted(folder.glob("*lens*.yaml"))}


def _packaged(path: str | Path) -> Path:
    """Return a file as it is, and else the packaged config of that name."""
    if Path(path).exists():
        return Path(path)
    known = packaged_lens_configs()
    if str(path) not in known:
        found = did_you_mean(str(path), known)
        raise ConfigError(f"no LENS config {str(path)!r}, as a file or packaged: {found}")
    return known[str(path)]


def _check_prices(prices: Any) -> None:
    if prices is None:
        return
    form = 'allowed is {"scorer": {"input": 1.0, "output": 2.0}}, also for "reasoner"'
    if not isinstance(prices, Mapping) or not set(prices) <= set(_ROLES):
        raise ConfigError(f"prices={prices!r}: {form}")
    for role, price in prices.items():
        if not isinstance(price, Mapping) or set(price) != set(_PRICED):
            raise ConfigError(f"prices, {role}: found {price!r}; {form}")
        for name, value in price.items():
            if not is_number(value) or not 0 <= value < math.inf:
                raise ConfigError(f"prices, {role}, {name}: found {value!r}; allowed is 0 or more")


def _check_names(values: Any, cls: Any, where: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected names with values, found {type(values).__name__}")
    allowed = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in allowed:
            raise ConfigError(f"{where}: no value {name!r}; {did_you_mean(str(name), allowed)}")
