"""`result.json`: what an experiment measured, as typed values and as a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from synque_select.errors import RecordError
from synque_select.functional.correlation import Correlation
from synque_select.functional.paired import (
    PairedComparison,
    Verdict,
    holm_verdicts,
    paired_p,
)
from synque_select.records.correlation import MeanCorrelation, read_correlation
from synque_select.records.run_folder import read_json, to_jsonable, write_json
from synque_select.utils.display import BLUE, GREY, INK, Shown, drawable, new_axes, set_names
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "ArmResult",
    "CandidateResult",
    "ExperimentBudget",
    "ExperimentData",
    "ExperimentResult",
    "Metric",
    "ProxyCorrelations",
    "load_result",
    "save_result",
]

_FILE = "result.json"
_VERDICTS: Mapping[str, Verdict] = {
    "beats": "beats",
    "is beaten by": "is beaten by",
    "no difference shown": "no difference shown",
    "hint only": "hint only",
    "not compared": "not compared",
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Metric:
    """The metric of every reported figure.

    Args:
        name: Name of the metric, as the module logs it in test.
        mode: "max" if a larger value is better, else "min".
    """

    name: str
    mode: Literal["max", "min"]

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Metric:
        """Read the metric of a `result.json`.

        Raises:
            RecordError: A field is missing or not allowed.
        """
        name, mode = fields.text("name"), fields.text("mode")
        if mode not in ("max", "min"):
            raise RecordError(f"{fields.path('mode')} must be 'max' or 'min', found {mode!r}")
        return cls(name, "max" if mode == "max" else "min")


@dataclass(frozen=True)
class ExperimentBudget:
    """What every arm is given.

    Args:
        n_distinct: Number of distinct training examples.
        max_steps: Number of optimizer steps.
        batch_size: Number of examples per step.
        top_k: Number of candidates that the arms of mixtures select.
        n_random: Number of random mixtures per replicate.
    """

    n_distinct: int
    max_steps: int
    batch_size: int
    top_k: int
    n_random: int

    def to_dict(self) -> dict[str, Json]:
        """Return the budget as JSON values, `top_k` under its old key "k"."""
        state: dict[str, Json] = dict(vars(self))
        return {("k" if name == "top_k" else name): value for name, value in state.items()}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ExperimentBudget:
        """Read the budget of a `result.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        names = ("n_distinct", "max_steps", "batch_size", "k", "n_random")
        return cls(*(fields.count(name) for name in names))


@dataclass(frozen=True)
class ExperimentData:
    """Sizes of the data.

    Args:
        n_candidates: Number of candidates.
        n_real: Number of examples in a real sample.
        n_validation: Number of labeled real examples for validation.
        n_test: Number of labeled real examples for test.
    """

    n_candidates: int
    n_real: int
    n_validation: int
    n_test: int

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ExperimentData:
        """Read the sizes of a `result.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        names = ("n_candidates", "n_real", "n_validation", "n_test")
        return cls(*(fields.count(name) for name in names))


@dataclass(frozen=True)
class ArmResult:
    """Test figures of one arm.

    Args:
        mean: Mean over replicates; NaN if the arm was not run.
        std: Standard deviation over replicates; NaN for fewer than two.
        n: Number of replicates in which the arm was run.
        uses_labels: Whether the arm uses labels of real data, so that it is a bound and not a
            competitor.
        values: One figure per replicate; NaN where the arm was not run.
    """

    mean: float
    std: float
    n: int
    uses_labels: bool = False
    values: tuple[float, ...] = ()

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ArmResult:
        """Read one arm of a `result.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        values = fields.list("values") if "values" in fields else ()
        numbers = JsonFields(
            {str(i): value for i, value in enumerate(values)}, fields.path("values")
        )
        return cls(
            mean=fields.number("mean"),
            std=fields.number("std"),
            n=fields.integer("n", least=0),
            uses_labels=fields.flag("uses_labels", False),
            values=tuple(map(numbers.number, numbers)),
        )


@dataclass(frozen=True)
class CandidateResult:
    """Figures of training on one candidate alone.

    Args:
        n: Number of examples in the candidate.
        test: Mean test figure over training seeds.
        std: Standard deviation of the test figure over training seeds; NaN for a single one.
        validation: Mean validation figure; NaN if unknown.
        n_seeds: Number of training seeds.
        false_labels: Whether the candidate is known to have false labels.
    """

    n: int
    test: float
    std: float
    validation: float = math.nan
    n_seeds: int = 1
    false_labels: bool = False

    @classmethod
    def from_fields(cls, fields: JsonFields) -> CandidateResult:
        """Read one candidate of a `result.json`.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        return cls(
            n=fields.count("n"),
            test=fields.number("test"),
            std=fields.number("std"),
            validation=fields.number("validation") if "validation" in fields else math.nan,
            n_seeds=fields.count("n_seeds"),
            false_labels=fields.flag("false_labels", False),
        )


@dataclass(frozen=True)
class ProxyCorrelations:
    """Correlations of the proxies with the test figures of the candidates alone.

    Args:
        proxies: Proxy key to its correlation under the first real sample.
        mean_over_real_samples: Proxy key to the mean of its coefficients over all real samples.
        messages: What a reader must know of the correlations.
    """

    proxies: Mapping[str, Correlation] = field(default_factory=dict)
    mean_over_real_samples: Mapping[str, MeanCorrelation] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    def to_dict(self, name: str) -> dict[str, Json]:
        """Return the three entries that `result.json` has of them, which begin with `name`."""
        means = self.mean_over_real_samples
        return {
            name: {key: correlation.to_dict() for key, correlation in self.proxies.items()},
            f"{name}_mean_over_real_samples": {key: asdict(mean) for key, mean in means.items()},
            f"{name}_messages": list(self.messages),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields, name: str) -> ProxyCorrelations:
        """Read the three entries of a `result.json` that begin with `name`.

        Raises:
            RecordError: A field is of the wrong type.
        """
        return cls(
            _each(fields, name, read_correlation),
            _each(fields, f"{name}_mean_over_real_samples", _mean_correlation),
            fields.texts(f"{name}_messages"),
        )


@dataclass(frozen=True, repr=False)
class ExperimentResult(Shown):
    """What an experiment measured.

    `print` and a notebook show one row per arm; `plot` draws the arms.

    Args:
        metric: The metric of every reported figure.
        replicates: Number of paired replicates.
        recipe: Name of the task.
        budget: What every arm was given; None if the file does not say.
        data: Sizes of the data; None if the file does not say.
        arms: Arm to its figures.
        comparisons: "chosen_vs_<arm>", "<arm>_vs_none", "policy:<policy>_vs_<arm>" and
            "sampling:<sampling>_vs_<arm>" to the paired comparison; their verdicts are Holm's over
            all of them. Those of a file without p-values, of version 0.1.0, are decided anew.
        candidates: Candidate to the figures of training on it alone.
        correlations: Correlations over all candidates.
        without_false_labels: Correlations over the candidates without known false labels; None if
            no candidate has any.
        false_labels: Candidate with false labels to its clean twin.
        packages: Package to version.
        messages: What a reader of the figures must know.
        wall_s: Stage to seconds of work, including work that an earlier run did.
        seconds: Wall time of this run; NaN if the file does not say.
    """

    metric: Metric
    replicates: int
    recipe: str = ""
    budget: ExperimentBudget | None = None
    data: ExperimentData | None = None
    arms: Mapping[str, ArmResult] = field(default_factory=dict)
    comparisons: Mapping[str, PairedComparison] = field(default_factory=dict)
    candidates: Mapping[str, CandidateResult] = field(default_factory=dict)
    correlations: ProxyCorrelations = field(default_factory=ProxyCorrelations)
    without_false_labels: ProxyCorrelations | None = None
    false_labels: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    wall_s: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan

    @property
    def headlines(self) -> tuple[str, ...]:
        """What was measured."""
        of = f" of {self.recipe}" if self.recipe else ""
        replicates = counted(self.replicates, "paired replicate")
        better = "higher" if self.metric.mode == "max" else "lower"
        return (
            f"Experiment{of}: {self.metric.name} of {counted(len(self.arms), 'arm')} in "
            f"{replicates}; {better} is better.",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns mean, and the messages."""
        if not self.chosen_against:
            return self.messages
        return (
            "std: over replicates, each with a new real sample and training seed. difference: the "
            "selected mixture minus the arm, paired; low and high are the ends of a 95 % interval "
            "for this comparison alone. verdict: of the selected mixture, after Holm's correction "
            "over all comparisons.",
            *self.messages,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per arm, whose name is the index.

        The columns are `mean`, `std`, `n` (replicates) and `uses_labels`; of the comparison of the
        selected mixture with the arm `difference`, `low`, `high`, `p_holm` and `verdict`.
        """
        import pandas as pd

        rows = []
        for name, arm in self.arms.items():
            row = {"mean": arm.mean, "std": arm.std, "n": arm.n, "uses_labels": arm.uses_labels}
            pair = self.chosen_against.get(name)
            for figure in ("difference", "low", "high", "p_holm"):
                row[figure] = math.nan if pair is None else getattr(pair, figure)
            rows.append({**row, "verdict": "" if pair is None else pair.verdict})
        return pd.DataFrame(rows, index=pd.Index(list(self.arms), name="arm"))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw each arm's figures, one dot per replicate, and their mean.

        Args:
            ax: Axes of matplotlib to draw on; None for new ones.

        Returns:
            The axes. Arms that use labels of real data, which are bounds, are gray.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        ax = new_axes(ax, n_rows=len(self.arms))
        for height, arm in enumerate(self.arms.values(), start=1):
            color = GREY if arm.uses_labels else BLUE
            ax.plot(arm.values, [-height] * len(arm.values), "o", color=color, ms=5, alpha=0.45)
            ax.plot([arm.mean], [-height], "|", color=INK, ms=16, mew=2)
        set_names(ax, list(self.arms))
        better = "higher" if self.metric.mode == "max" else "lower"
        words = f"{drawable(self.metric.name)}; {better} is better"
        lines = [words, "dots: replicates; line: their mean; gray: uses labels of real data"]
        ax.set_xlabel("\n".join(lines), parse_math=False)
        return ax

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `result.json`, None for NaN."""
        state: dict[str, object] = {
            "version": 1,
            "recipe": self.recipe,
            "metric": vars(self.metric),
            "replicates": self.replicates,
            "budget": {} if self.budget is None else self.budget.to_dict(),
            "data": {} if self.data is None else vars(self.data),
            "arms": {name: vars(arm) for name, arm in self.arms.items()},
            "comparisons": {name: pair.to_dict() for name, pair in self.comparisons.items()},
            "candidates": {name: vars(single) for name, single in self.candidates.items()},
            **self.correlations.to_dict("correlations"),
        }
        if self.without_false_labels is not None:
            state |= self.without_false_labels.to_dict("correlations_without_false_labels")
            state["false_labels"] = dict(self.false_labels)
        state |= {
            "packages": dict(self.packages),
            "messages": list(self.messages),
            "wall_s": dict(self.wall_s),
            "seconds": self.seconds,
        }
        return {name: to_jsonable(part, where=f"{_FILE}.{name}") for name, part in state.items()}

    @property
    def chosen_against(self) -> dict[str, PairedComparison]:
        """Arm to the comparison of the selected mixture with it."""
        return {
            name.removeprefix("chosen_vs_"): pair
            for name, pair in self.comparisons.items()
            if name.startswith("chosen_vs_")
        }

    @property
    def policy_comparisons(self) -> dict[str, PairedComparison]:
        """`policy:<policy>_vs_<arm>` to the comparison of a policy with a static mixture."""
        return {name: pair for name, pair in self.comparisons.items() if name.startswith("policy:")}

    @property
    def sampling_comparisons(self) -> dict[str, PairedComparison]:
        """`sampling:<sampling>_vs_<arm>` to its comparison with the random order of examples."""
        pairs = self.comparisons.items()
        return {name: pair for name, pair in pairs if name.startswith("sampling:")}

    @property
    def against_none(self) -> dict[str, PairedComparison]:
        """Arm to its comparison with the model as it is; empty if that was not measured."""
        return {
            name.removesuffix("_vs_none"): pair
            for name, pair in self.comparisons.items()
            if name.endswith("_vs_none")
        }

    @classmethod
    def from_dict(cls, state: object) -> ExperimentResult:
        """Read the content of `result.json`.

        The metric and the number of replicates are needed; everything else may be missing.

        Raises:
            RecordError: The version is unknown, or a field is of the wrong type; the message names
                the field.
        """
        fields = JsonFields(state)
        fields.version(1)
        metric = Metric.from_fields(fields.object("metric"))
        budget, data = (_filled(fields, name) for name in ("budget", "data"))
        without = "correlations_without_false_labels"
        return cls(
            metric=metric,
            replicates=fields.count("replicates"),
            recipe=fields.text("recipe", ""),
            budget=None if budget is None else ExperimentBudget.from_fields(budget),
            data=None if data is None else ExperimentData.from_fields(data),
            arms=_each(fields, "arms", ArmResult.from_fields),
            comparisons=_comparisons(fields, metric.mode),
            candidates=_each(fields, "candidates", CandidateResult.from_fields),
            correlations=ProxyCorrelations.from_fields(fields, "correlations"),
            without_false_labels=(
                ProxyCorrelations.from_fields(fields, without) if without in fields else None
            ),
            false_labels=_texts(fields, "false_labels"),
            packages=_texts(fields, "packages"),
            messages=fields.texts("messages"),
            wall_s=fields.numbers("wall_s"),
            seconds=fields.number("seconds") if "seconds" in fields else math.nan,
        )


def save_result(run_dir: str | Path, result: ExperimentResult) -> Path:
    """Write `result.json` into a run's directory and return its path.

    Raises:
        RecordError: The file cannot be written.
    """
    return write_json(Path(run_dir) / _FILE, result.to_dict())


def load_result(run_dir: str | Path) -> ExperimentResult:
    """Read `result.json` from a run's directory.

    Raises:
        RecordError: The file cannot be read; the message names the file and the field.
    """
    path = Path(run_dir) / _FILE
    state = read_json(path)
    try:
        return ExperimentResult.from_dict(state)
    except RecordError as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def _each(fields: JsonFields, name: str, read: Callable[[JsonFields], _T]) -> dict[str, _T]:
    if name not in fields:
        return {}
    return {key: read(entry) for key, entry in fields.named_objects(name).items()}


def _filled(fields: JsonFields, name: str) -> JsonFields | None:
    """Return an object unless it is missing or empty."""
    if name not in fields:
        return None
    entry = fields.object(name)
    return entry if list(entry) else None


def _texts(fields: JsonFields, name: str) -> dict[str, str]:
    if name not in fields:
        return {}
    entry = fields.object(name)
    return {key: entry.text(key) for key in entry}


def _comparisons(fields: JsonFields, mode: Literal["max", "min"]) -> dict[str, PairedComparison]:
    comparisons = _each(fields, "comparisons", _comparison)
    parts = fields.named_objects("comparisons").values() if comparisons else ()
    if all("p" in part for part in parts):
        return comparisons
    return holm_verdicts(comparisons, mode=mode)


def _comparison(fields: JsonFields) -> PairedComparison:
    verdict = fields.text("verdict")
    fields.expect(verdict in _VERDICTS, "verdict", f"one of {', '.join(_VERDICTS)}")
    difference, low, high = (fields.number(name) for name in ("difference", "low", "high"))
    n = fields.integer("n", least=0)
    return PairedComparison(
        difference=difference,
        low=low,
        high=high,
        n=n,
        verdict=_VERDICTS[verdict],
        p=fields.number("p") if "p" in fields else paired_p(difference, low, high, n),
        p_holm=fields.number("p_holm") if "p_holm" in fields else math.nan,
    )


def _mean_correlation(fields: JsonFields) -> MeanCorrelation:
    coefficients = (fields.number(name) for name in ("pearson", "spearman", "kendall"))
    return MeanCorrelation(fields.count("n_keys"), *coefficients)
