"""The result of a benchmark run: figures of every proxy by task, and their form as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils.display import BLUE, GREY, INK, Shown, drawable, new_axes, set_names
from synque_select.utils.json_fields import JsonFields, null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "Analysis",
    "BenchmarkResult",
    "Comparison",
    "Cost",
    "DecoyFigures",
    "Difference",
    "GroupCeiling",
    "GroupCorrelation",
    "ProxyFigures",
    "Reaction",
    "ReactionFigures",
    "TaskResult",
    "TopFigures",
]

_T = TypeVar("_T")


@dataclass(frozen=True)
class GroupCorrelation:
    """Correlation of a proxy with performance in one group; NaN where undefined."""

    pearson: float
    spearman: float


@dataclass(frozen=True)
class TopFigures:
    """Performance gained by selecting the best candidates by a proxy.

    Args:
        chosen: Mean performance of the selected candidates, a share in 0..1.
        blind: Mean performance of all candidates: what a random selection is expected to give.
        oracle: Mean performance of the truly best candidates.
        share: (chosen − blind) / (oracle − blind).
        p: Probability that a random selection performs as well as the chosen one.
        share_without_a_group: Lowest and highest share if one group is left out; None for a single
            group.
    """

    chosen: float
    blind: float
    oracle: float
    share: float
    p: float
    share_without_a_group: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        ends = self.share_without_a_group
        state: dict[str, Json] = {
            "chosen": null_if_undefined(self.chosen),
            "blind": null_if_undefined(self.blind),
            "oracle": null_if_undefined(self.oracle),
            "share": null_if_undefined(self.share),
            "p": null_if_undefined(self.p),
        }
        if ends is not None:
            state["share_without_a_group"] = [null_if_undefined(end) for end in ends]
        return state

    @classmethod
    def from_fields(cls, fields: JsonFields) -> TopFigures:
        """Read what `to_dict` returned."""
        ends = None
        if "share_without_a_group" in fields:
            values = fields.number_list("share_without_a_group")
            fields.expect(len(values) == 2, "share_without_a_group", "a list of two numbers")
            ends = (values[0], values[1])
        return cls(
            chosen=fields.number("chosen"),
            blind=fields.number("blind"),
            oracle=fields.number("oracle"),
            share=fields.number("share"),
            p=fields.number("p"),
            share_without_a_group=ends,
        )


@dataclass(frozen=True)
class ProxyFigures:
    """The figures of one proxy (or the consensus) on one task; NaN where undefined.

    Args:
        pearson: Mean over groups of the within-group Pearson correlation with performance.
        spearman: Mean over groups of the within-group Spearman correlation.
        low: Lower end of the 95 % jackknife interval of `spearman`.
        high: Upper end.
        n_groups: Number of groups in which the correlation is defined.
        seed_spread: Standard deviation over the seeds of the real sample.
        by_group: Group to its correlations.
        top3: Performance gained by selecting the best three.
        seconds: Mean wall time of scoring one case; None for the consensus, which takes none.
    """

    pearson: float
    spearman: float
    low: float
    high: float
    n_groups: int
    seed_spread: float
    by_group: Mapping[str, GroupCorrelation]
    top3: TopFigures
    seconds: float | None = None

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        state: dict[str, Json] = {
            "pearson": null_if_undefined(self.pearson),
            "spearman": null_if_undefined(self.spearman),
            "low": null_if_undefined(self.low),
            "high": null_if_undefined(self.high),
            "n_groups": self.n_groups,
            "seed_spread": null_if_undefined(self.seed_spread),
            "by_group": {
                name: {
                    "pearson": null_if_undefined(group.pearson),
                    "spearman": null_if_undefined(group.spearman),
                }
                for name, group in self.by_group.items()
            },
            "top3": self.top3.to_dict(),
        }
        if self.seconds is not None:
            state["seconds"] = null_if_undefined(self.seconds)
        return state

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ProxyFigures:
        """Read what `to_dict` returned."""
        return cls(
            pearson=fields.number("pearson"),
            spearman=fields.number("spearman"),
            low=fields.number("low"),
            high=fields.number("high"),
            n_groups=fields.integer("n_groups"),
            seed_spread=fields.number("seed_spread"),
            by_group={
                name: GroupCorrelation(group.number("pearson"), group.number("spearman"))
                for name, group in fields.named_objects("by_group").items()
            },
            top3=TopFigures.from_fields(fields.object("top3")),
            seconds=fields.number("seconds") if "seconds" in fields else None,
        )


@dataclass(frozen=True)
class Difference:
    """Paired difference in Spearman correlation: the consensus minus one proxy.

    Args:
        difference: The mean over groups.
        low: Lower end of its 95 % jackknife interval.
        high: Upper end.
        n_groups: Number of groups in which both are defined.
        verdict: "beats", "is beaten by", "no difference shown" or "undefined"; decided by `p_holm`.
        p: Two-sided p-value of this difference alone; NaN if undefined or not in the file.
        p_holm: The same, adjusted by Holm for all differences of the table.
    """

    difference: float
    low: float
    high: float
    n_groups: int
    verdict: str
    p: float = math.nan
    p_holm: float = math.nan

    def to_dict(self) -> dict[str, Json]:
        """Return the difference as JSON values, None for undefined."""
        return {
            "difference": null_if_undefined(self.difference),
            "low": null_if_undefined(self.low),
            "high": null_if_undefined(self.high),
            "n_groups": self.n_groups,
            "verdict": self.verdict,
            "p": null_if_undefined(self.p),
            "p_holm": null_if_undefined(self.p_holm),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Difference:
        """Read what `to_dict` returned."""
        return cls(
            difference=fields.number("difference"),
            low=fields.number("low"),
            high=fields.number("high"),
            n_groups=fields.integer("n_groups"),
            verdict=fields.text("verdict"),
            p=fields.number("p") if "p" in fields else math.nan,
            p_holm=fields.number("p_holm") if "p_holm" in fields else math.nan,
        )


@dataclass(frozen=True)
class Comparison:
    """The consensus compared with the single proxies.

    Args:
        best_baseline: Key of the best baseline that never reads the real sample, chosen after the
            fact; None if no baseline is defined.
        consensus_minus: Proxy key to the paired difference.
        groups_below_the_median_proxy: Groups in which the consensus is below the median proxy.
    """

    best_baseline: str | None
    consensus_minus: Mapping[str, Difference]
    groups_below_the_median_proxy: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """The figures of all proxies on one task.

    Args:
        proxies: Proxy key to its figures.
        comparison: The consensus compared with the others; None if the consensus was not computed,
            because the default suite was not run as a whole.
    """

    proxies: Mapping[str, ProxyFigures]
    comparison: Comparison | None = None

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        state: dict[str, Json] = {
            "proxies": {key: figures.to_dict() for key, figures in self.proxies.items()}
        }
        if self.comparison is not None:
            minus = self.comparison.consensus_minus
            state["best_baseline"] = self.comparison.best_baseline
            state["consensus_minus"] = {key: part.to_dict() for key, part in minus.items()}
            below = self.comparison.groups_below_the_median_proxy
            state["groups_below_the_median_proxy"] = list(below)
        return state

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Analysis:
        """Read what `to_dict` returned."""
        comparison = None
        if "consensus_minus" in fields:
            minus = fields.named_objects("consensus_minus")
            comparison = Comparison(
                best_baseline=fields.optional_text("best_baseline"),
                consensus_minus={key: Difference.from_fields(part) for key, part in minus.items()},
                groups_below_the_median_proxy=fields.texts("groups_below_the_median_proxy"),
            )
        proxies = fields.named_objects("proxies")
        return cls({key: ProxyFigures.from_fields(p) for key, p in proxies.items()}, comparison)


@dataclass(frozen=True)
class GroupCeiling:
    """The Spearman correlation that a perfect proxy is expected to reach in one group.

    Args:
        spearman: The noise ceiling; NaN where the size of the test set is unknown.
        n_test: Size of the test set, None if unknown.
        n_test_source: How the size was found.
    """

    spearman: float
    n_test: int | None
    n_test_source: str

    def to_dict(self) -> dict[str, Json]:
        """Return the ceiling as JSON values, None for undefined."""
        return {
            "spearman": null_if_undefined(self.spearman),
            "n_test": self.n_test,
            "n_test_source": self.n_test_source,
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> GroupCeiling:
        """Read what `to_dict` returned."""
        is_known = fields.value("n_test") is not None
        return cls(
            spearman=fields.number("spearman"),
            n_test=fields.integer("n_test") if is_known else None,
            n_test_source=fields.text("n_test_source"),
        )


@dataclass(frozen=True)
class DecoyFigures:
    """How well a proxy ranks a group's own candidates above those of other groups.

    Args:
        auc: Probability that an own candidate is ranked above a decoy, mean over groups.
        by_group: Group to its AUC.
    """

    auc: float
    by_group: Mapping[str, float]

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        groups = {name: {"auc": null_if_undefined(auc)} for name, auc in self.by_group.items()}
        return {"auc": null_if_undefined(self.auc), "by_group": groups}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> DecoyFigures:
        """Read what `to_dict` returned."""
        groups = fields.named_objects("by_group")
        return cls(fields.number("auc"), {name: g.number("auc") for name, g in groups.items()})


@dataclass(frozen=True)
class Reaction:
    """How a proxy reacts when candidates are corrupted.

    Args:
        noticed: Share of the candidates whose corrupted twin scores worse, ties counted half.
        shift: Mean change of the score, in standard deviations of the candidates' scores.
    """

    noticed: float
    shift: float

    def to_dict(self) -> dict[str, Json]:
        """Return the reaction as JSON values, None for undefined."""
        return {
            "noticed": null_if_undefined(self.noticed),
            "shift": null_if_undefined(self.shift),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Reaction:
        """Read what `to_dict` returned."""
        return cls(fields.number("noticed"), fields.number("shift"))


@dataclass(frozen=True)
class ReactionFigures:
    """The mean reaction over groups, and that of each group."""

    mean: Reaction
    by_group: Mapping[str, Reaction]

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        groups = {name: reaction.to_dict() for name, reaction in self.by_group.items()}
        return {**self.mean.to_dict(), "by_group": groups}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> ReactionFigures:
        """Read what `to_dict` returned."""
        groups = fields.named_objects("by_group")
        by_group = {name: Reaction.from_fields(group) for name, group in groups.items()}
        return cls(Reaction.from_fields(fields), by_group)


@dataclass(frozen=True)
class Cost:
    """What one task cost.

    Args:
        seconds: Wall time.
        encoder_calls: Texts encoded in this run.
        views: Distinct texts of the task.
        judge_calls: Questions that a language model was asked in this run.
        scores_resumed: Columns of scores read from an earlier run.
    """

    seconds: float
    encoder_calls: int
    views: int
    judge_calls: int
    scores_resumed: int

    def to_dict(self) -> dict[str, Json]:
        """Return the cost as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Cost:
        """Read what `to_dict` returned."""
        return cls(
            seconds=fields.number("seconds"),
            encoder_calls=fields.integer("encoder_calls"),
            views=fields.integer("views"),
            judge_calls=fields.integer("judge_calls"),
            scores_resumed=fields.integer("scores_resumed"),
        )


# a text in place of figures says why an ablation was not possible
Decoys: TypeAlias = Mapping[str, DecoyFigures] | str
Reactions: TypeAlias = Mapping[str, ReactionFigures] | str


@dataclass(frozen=True)
class TaskResult:
    """The figures of one task.

    Args:
        groups: Names of the groups.
        seeds: Seeds of the real samples; numbers as int.
        noise_ceiling: Mean over groups of the Spearman correlation that a perfect proxy reaches.
        noise_ceiling_by_group: Group to its noise ceiling.
        analysis: The figures of all proxies.
        absent: Plain sentences on what is missing or undefined.
        cost: What the run cost.
        cross_group: Proxy key to its figures among decoys, or why there are none; None if not
            requested.
        sample_sizes: Size of the real sample to the figures at that size, or why there are none.
        corruptions: Corruption to proxy key to its reaction, or why there are none.
    """

    groups: tuple[str, ...]
    seeds: tuple[int | str, ...]
    noise_ceiling: float
    noise_ceiling_by_group: Mapping[str, GroupCeiling]
    analysis: Analysis
    absent: tuple[str, ...]
    cost: Cost
    cross_group: Decoys | None = None
    sample_sizes: Mapping[str, Analysis | str] = field(default_factory=dict)
    corruptions: Mapping[str, Reactions] = field(default_factory=dict)

    @property
    def proxies(self) -> Mapping[str, ProxyFigures]:
        """Proxy key to its figures."""
        return self.analysis.proxies

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        state: dict[str, Json] = {
            "groups": list(self.groups),
            "seeds": list(self.seeds),
            "noise_ceiling": null_if_undefined(self.noise_ceiling),
            "noise_ceiling_by_group": {
                name: ceiling.to_dict() for name, ceiling in self.noise_ceiling_by_group.items()
            },
            **self.analysis.to_dict(),
            "absent": list(self.absent),
        }
        if self.cross_group is not None:
            state["cross_group"] = _ablation_to_dict(self.cross_group)
        if self.sample_sizes:
            state["sample_sizes"] = {
                size: {"message": part} if isinstance(part, str) else part.to_dict()
                for size, part in self.sample_sizes.items()
            }
        if self.corruptions:
            state["corruptions"] = {
                name: _ablation_to_dict(part) for name, part in self.corruptions.items()
            }
        return {**state, "cost": self.cost.to_dict()}

    @classmethod
    def from_fields(cls, fields: JsonFields) -> TaskResult:
        """Read what `to_dict` returned."""
        ceilings = fields.named_objects("noise_ceiling_by_group")
        decoys = fields.optional_object("cross_group")
        sizes = fields.named_objects("sample_sizes") if "sample_sizes" in fields else {}
        corruptions = fields.named_objects("corruptions") if "corruptions" in fields else {}
        return cls(
            groups=fields.texts("groups"),
            seeds=_seeds(fields),
            noise_ceiling=fields.number("noise_ceiling"),
            noise_ceiling_by_group={k: GroupCeiling.from_fields(c) for k, c in ceilings.items()},
            analysis=Analysis.from_fields(fields),
            absent=fields.texts("absent"),
            cost=Cost.from_fields(fields.object("cost")),
            cross_group=None if decoys is None else _ablation(decoys, DecoyFigures.from_fields),
            sample_sizes={
                size: part.text("message") if "message" in part else Analysis.from_fields(part)
                for size, part in sizes.items()
            },
            corruptions={
                name: _ablation(part, ReactionFigures.from_fields)
                for name, part in corruptions.items()
            },
        )


def _seeds(fields: JsonFields) -> tuple[int | str, ...]:
    values = fields.list("seeds")
    seeds = tuple(seed for seed in values if isinstance(seed, (int, str)))
    fields.expect(len(seeds) == len(values), "seeds", "a list of numbers or texts")
    return seeds


def _ablation_to_dict(part: Decoys | Reactions) -> Json:
    if isinstance(part, str):
        return {"message": part}
    return {key: figures.to_dict() for key, figures in part.items()}


def _ablation(fields: JsonFields, read: Callable[[JsonFields], _T]) -> dict[str, _T] | str:
    if "message" in fields:
        return fields.text("message")
    return {key: read(fields.object(key)) for key in fields}


@dataclass(frozen=True, repr=False)
class BenchmarkResult(Shown):
    """The result of `run_released`, and the content of the file that it writes.

    `print` and a notebook show one row per task and proxy; `plot` draws those of one task.

    Args:
        seed: Seed of everything random.
        encoder_id: Id of the text encoder.
        encoder_revision: Its revision.
        absent: Plain sentences on tasks that were not run.
        tasks: Name of a task to its figures. Performances are shares in 0..1.
    """

    seed: int
    encoder_id: str
    encoder_revision: str
    absent: tuple[str, ...] = ()
    tasks: Mapping[str, TaskResult] = field(default_factory=dict)

    @property
    def headlines(self) -> tuple[str, ...]:
        """What was run."""
        tasks = counted(len(self.tasks), "task")
        return (f"Benchmark on {tasks}: encoder {self.encoder_id}, seed {self.seed}.",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns mean, and what is absent."""
        meaning = (
            "spearman: mean over groups of the correlation with performance; low and high: 95 % "
            "jackknife interval over candidates; seed_spread: standard deviation over real samples"
        )
        ceilings = (
            f"{name}: a perfect proxy would reach {task.noise_ceiling:.2f}"
            for name, task in self.tasks.items()
            if not math.isnan(task.noise_ceiling)
        )
        absent = (text for task in self.tasks.values() for text in task.absent)
        return (meaning, *ceilings, *self.absent, *absent)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per task and proxy.

        The columns are `task`, `proxy`, `spearman`, `low`, `high`, `n_groups`, `n_seeds` (real
        samples), `seed_spread`, `pearson` and `top3_share`.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "task": name,
                    "proxy": key,
                    "spearman": one.spearman,
                    "low": one.low,
                    "high": one.high,
                    "n_groups": one.n_groups,
                    "n_seeds": len(task.seeds),
                    "seed_spread": one.seed_spread,
                    "pearson": one.pearson,
                    "top3_share": one.top3.share,
                }
                for name, task in self.tasks.items()
                for key, one in task.proxies.items()
            ]
        )

    def plot(self, task: str, *, ax: Axes | None = None) -> Axes:
        """Draw the correlation of each proxy with performance on one task, with its interval.

        Args:
            task: Name of the task.
            ax: Axes of matplotlib to draw on; None for new ones.

        Returns:
            The axes. The dotted line is what a perfect proxy would reach.

        Raises:
            ConfigError: The task was not run.
            DependencyError: matplotlib is not installed.
        """
        if task not in self.tasks:
            raise ConfigError(f"no figures of the task {task!r}: {did_you_mean(task, self.tasks)}")
        result = self.tasks[task]
        ax = new_axes(ax, n_rows=len(result.proxies))
        for height, one in enumerate(result.proxies.values(), start=1):
            ax.plot([one.low, one.high], [-height, -height], color=BLUE, lw=2, alpha=0.45)
            ax.plot([one.spearman], [-height], "o", color=BLUE, ms=6)
        set_names(ax, list(result.proxies))
        ax.axvline(0, color=GREY, lw=0.8)
        if not math.isnan(result.noise_ceiling):
            ax.axvline(result.noise_ceiling, color=INK, lw=0.8, ls=":")
        words = f"Spearman correlation with performance on {drawable(task)}"
        ax.set_xlabel(f"{words}\n95 % intervals over candidates", parse_math=False)
        return ax

    def to_dict(self) -> dict[str, Json]:
        """Return the result as JSON values, None for undefined."""
        return {
            "version": 1,
            "seed": self.seed,
            "encoder": {"id": self.encoder_id, "revision": self.encoder_revision},
            "absent": list(self.absent),
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
        }

    @classmethod
    def from_dict(cls, state: object) -> BenchmarkResult:
        """Read what `to_dict` returned, or what was read from its file.

        Raises:
            RecordError: The version is unknown, or a field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        fields.version(1)
        encoder = fields.object("encoder")
        tasks = fields.named_objects("tasks")
        return cls(
            seed=fields.integer("seed"),
            encoder_id=encoder.text("id"),
            encoder_revision=encoder.text("revision"),
            absent=fields.texts("absent"),
            tasks={name: TaskResult.from_fields(task) for name, task in tasks.items()},
        )
