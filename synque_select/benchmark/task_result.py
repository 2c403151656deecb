"""The result of a benchmark of tasks of your own: figures by task, and over the tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from synque_select.benchmark.task_mixtures import Arm
from synque_select.benchmark.task_quality import Learner
from synque_select.functional.paired import PairedComparison, compare_paired
from synque_select.selection.default_order import NOT_BY_TRANSFER
from synque_select.types import Ranking
from synque_select.types.label_filter import LabelFilterRecord
from synque_select.utils.display import Shown
from synque_select.utils.json_fields import null_if_undefined
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COMPARED", "ArmFigures", "Over", "Recommendation", "TaskFigures", "TasksResult"]

# what is compared with what, over the tasks: first minus second
COMPARED: tuple[tuple[Arm, Arm], ...] = (
    ("recommended", "all"),
    ("top3", "all"),
    ("half", "all"),
    ("all_filtered", "all"),
    ("half_filtered", "all"),
    ("half_filtered", "half"),
    ("all_filtered_always", "all"),
    ("top3", "random3"),
    ("half", "random_half"),
    ("oracle_half", "all"),
)


@dataclass(frozen=True)
class ArmFigures:
    """The metric of one arm on one task.

    Args:
        mean: Mean over the replicates: pairs of a real sample and a draw of training examples.
        std: Standard deviation over the replicates.
        n: Number of replicates.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> ArmFigures:
        """Return the figures of some replicates; one that is undefined leaves the arm undefined."""
        array = np.array(values)
        std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
        return cls(float(array.mean()), std, len(array))

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        return {
            "mean": null_if_undefined(self.mean),
            "std": null_if_undefined(self.std),
            "n": self.n,
        }


@dataclass(frozen=True)
class Over:
    """A mean over tasks with its t-interval: NaN ends for fewer than two tasks."""

    mean: float
    low: float
    high: float
    n_tasks: int

    @classmethod
    def of(cls, coefficients: Sequence[float]) -> Over:
        """Return the mean of correlation coefficients, one per task; NaN is left out."""
        over = compare_paired(coefficients, np.zeros(len(coefficients)), mode="max", bound=1.0)
        return cls(over.difference, over.low, over.high, over.n)


@dataclass(frozen=True)
class Recommendation:
    """What a ranking recommends for one real sample, if nothing but the data is given.

    Args:
        rank_by: What orders the candidates by default.
        names: The candidates that it selects.
        sentence: Its decision, and why the order is not by `transfer` where that was scored.
    """

    rank_by: str
    names: tuple[str, ...]
    sentence: str

    @classmethod
    def of(cls, ranking: Ranking) -> Recommendation:
        """Return what a ranking recommends."""
        sentences = [] if ranking.decision is None else [ranking.decision.sentence]
        sentences += [m for m in ranking.messages if m.startswith(NOT_BY_TRANSFER)]
        return cls(ranking.rank_by, ranking.top().names, " ".join(sentences))

    def to_dict(self) -> dict[str, Json]:
        """Return the recommendation as JSON values."""
        return {"rank_by": self.rank_by, "names": list(self.names), "sentence": self.sentence}


@dataclass(frozen=True)
class TaskFigures:
    """The figures of one task.

    Args:
        n_candidates: Number of candidates.
        seeds: Seeds of the real samples.
        metric: Metric of the test set.
        n_test: Number of test examples; None without a test set.
        proxies: Proxy key to truth ("embedding", "tfidf", or "performance" for `performance.csv`)
            to Spearman's coefficient, the mean over the real samples; NaN where undefined.
        seed_spread: Proxy key to the standard deviation of the first truth's coefficient over the
            real samples.
        noise_ceiling: Truth to the coefficient that a perfect proxy would reach on a test set of
            this size.
        mixtures: Learner to arm to figures; empty without a test set.
        size: Number of training examples of each mixture.
        label_filters: Seed to the decision of the label filter on all candidates.
        recommended: Seed to what a ranking recommends by default.
        messages: Plain sentences.
        seconds: Wall time.
    """

    n_candidates: int
    seeds: tuple[str, ...]
    metric: str
    n_test: int | None
    proxies: Mapping[str, Mapping[str, float]]
    seed_spread: Mapping[str, float]
    noise_ceiling: Mapping[str, float]
    mixtures: Mapping[Learner, Mapping[Arm, ArmFigures]]
    size: int
    label_filters: Mapping[str, LabelFilterRecord]
    recommended: Mapping[str, Recommendation]
    messages: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def ordered_by(self) -> str:
        """The columns that chose the best candidates: one, unless it differs by real sample."""
        return " or ".join(dict.fromkeys(each.rank_by for each in self.recommended.values()))

    def to_dict(self) -> dict[str, Json]:
        """Return the figures as JSON values, None for undefined."""
        embedding, tfidf = self.mixtures.get("embedding", {}), self.mixtures.get("tfidf", {})
        return {
            "n_candidates": self.n_candidates,
            "seeds": list(self.seeds),
            "metric": self.metric,
            "n_test": self.n_test,
            "proxies": {
                key: {
                    truth: {"spearman": null_if_undefined(row.get(truth))}
                    for truth in _json_truths(row)
                }
                for key, row in self.proxies.items()
            },
            "noise_ceiling": {t: null_if_undefined(v) for t, v in self.noise_ceiling.items()},
            "mixtures": {
                arm: {**figures.to_dict(), "tfidf": tfidf[arm].to_dict()}
                for arm, figures in embedding.items()
            },
            "mixture_size": self.size,
            "recommended": {seed: each.to_dict() for seed, each in self.recommended.items()},
            "label_filters": {seed: each.to_dict() for seed, each in self.label_filters.items()},
            "messages": list(self.messages),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, repr=False)
class TasksResult(Shown):
    """The figures of all tasks.

    `print` and a notebook show one row per proxy and truth, with its mean over the tasks.

    Args:
        seed: Random seed.
        encoder_id: Model id of the encoder.
        encoder_revision: Its revision.
        tasks: Task to its figures.
        baselines: Keys of the proxies that never read the real sample.
    """

    seed: int
    encoder_id: str
    encoder_revision: str
    tasks: Mapping[str, TaskFigures] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """What was run."""
        tasks = counted(len(self.tasks), "task")
        return (f"Proxies on {tasks} of your own: encoder {self.encoder_id}, seed {self.seed}.",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns mean, and the messages of the tasks."""
        meaning = (
            "spearman: mean over tasks of the correlation with the true quality; low and high: "
            "95 % t-interval over tasks; truth: what the true quality was measured by"
        )
        messages = (text for task in self.tasks.values() for text in task.messages)
        return (meaning, *dict.fromkeys(messages))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per proxy and truth.

        The columns are `proxy`, `truth`, `spearman`, `low`, `high`, `n_tasks`, `is_baseline` (never
        reads the real sample), and Spearman's coefficient on each task under the task's name.
        """
        import pandas as pd

        rows = []
        for key in self.keys:
            for truth in self.truths:
                over = self.spearman(key, truth)
                figures = {"spearman": over.mean, "low": over.low, "high": over.high}
                counts = {"n_tasks": over.n_tasks, "is_baseline": key in self.baselines}
                each = zip(self.tasks, self.coefficients(key, truth), strict=True)
                rows.append({"proxy": key, "truth": truth, **figures, **counts, **dict(each)})
        return pd.DataFrame(rows)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all columns, in the order in which the tasks have them."""
        return tuple(dict.fromkeys(key for task in self.tasks.values() for key in task.proxies))

    @property
    def truths(self) -> tuple[str, ...]:
        """What the true quality was measured by, in any task."""
        rows = [row for task in self.tasks.values() for row in task.proxies.values()]
        return tuple(dict.fromkeys(truth for row in rows for truth in row))

    def coefficients(self, key: str, truth: str) -> list[float]:
        """Return Spearman's coefficient of a proxy on each task; NaN where it has none."""
        return [t.proxies.get(key, {}).get(truth, math.nan) for t in self.tasks.values()]

    def spearman(self, key: str, truth: str) -> Over:
        """Return a proxy's mean coefficient over the tasks."""
        return Over.of(self.coefficients(key, truth))

    def difference(self, first: str, second: str, truth: str) -> PairedComparison:
        """Compare the coefficients of two proxies over the tasks that have both."""
        return compare_paired(
            self.coefficients(first, truth), self.coefficients(second, truth), mode="max", bound=2.0
        )

    def arm_means(self, arm: Arm, learner: Learner) -> list[float]:
        """Return the mean of an arm on each task; NaN where it has none."""
        figures = [task.mixtures.get(learner, {}).get(arm) for task in self.tasks.values()]
        return [math.nan if each is None else each.mean for each in figures]

    def comparison(self, first: Arm, second: Arm, learner: Learner) -> PairedComparison:
        """Compare two arms over the tasks; within a task their replicates are paired."""
        return compare_paired(
            self.arm_means(first, learner), self.arm_means(second, learner), mode="max", bound=1.0
        )

    def left_out(self, truth: str) -> dict[str, tuple[str, float]]:
        """Choose a column on all tasks but one, by its mean coefficient, and apply it to that one.

        Returns:
            Task to the column with the largest mean over the other tasks, and its coefficient on
            this task. Empty for fewer than three tasks with coefficients.
        """
        columns = {key: np.array(self.coefficients(key, truth)) for key in self.keys}
        full = {key: values for key, values in columns.items() if np.isfinite(values).all()}
        if len(self.tasks) < 3 or not full:
            return {}
        chosen = {}
        for i, name in enumerate(self.tasks):
            means = {key: float(np.delete(values, i).mean()) for key, values in full.items()}
            best = max(means, key=lambda key: means[key])
            chosen[name] = (best, float(full[best][i]))
        return chosen

    def best_baseline(self, truth: str) -> str | None:
        """Return the baseline with the largest mean coefficient, chosen after the fact."""
        means = {key: self.spearman(key, truth).mean for key in self.baselines if key in self.keys}
        return max((k for k, v in means.items() if not math.isnan(v)), key=means.get, default=None)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Json]:
        """Return the result as JSON values, None for undefined."""
        truths = _json_truths(self.truths)
        return {
            "version": 1,
            "seed": self.seed,
            "encoder": {"id": self.encoder_id, "revision": self.encoder_revision},
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "summary": {
                "proxies": {
                    key: {truth: _over(self.spearman(key, truth)) for truth in truths}
                    for key in self.keys
                },
                "leave_one_task_out": {truth: self._left_out(truth) for truth in truths},
                "comparisons": {
                    f"{first}_vs_{second}": {
                        **_compared(self.comparison(first, second, "embedding")),
                        "tfidf": _compared(self.comparison(first, second, "tfidf")),
                    }
                    for first, second in COMPARED
                },
            },
        }

    def _left_out(self, truth: str) -> dict[str, Json]:
        chosen = self.left_out(truth)
        values = [value for _, value in chosen.values()]
        over = Over.of(values)
        return {**_over(over), "chosen": {task: key for task, (key, _) in chosen.items()}}


def _json_truths(truths: Iterable[str]) -> tuple[str, ...]:
    """Return the truths of the JSON: both learners even if all is by `performance.csv`."""
    return tuple(dict.fromkeys((*get_args(Learner), *truths)))


def _over(figures: Over) -> dict[str, Json]:
    return {
        "mean": null_if_undefined(figures.mean),
        "low": null_if_undefined(figures.low),
        "high": null_if_undefined(figures.high),
        "n_tasks": figures.n_tasks,
    }


def _compared(comparison: PairedComparison) -> dict[str, Json]:
    return {
        "difference": null_if_undefined(comparison.difference),
        "low": null_if_undefined(comparison.low),
        "high": null_if_undefined(comparison.high),
        "n_tasks": comparison.n,
    }
