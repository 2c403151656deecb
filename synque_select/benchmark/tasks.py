"""A benchmark of proxies and mixtures on tasks of your own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.benchmark.case_scores import (
    Case,
    CaseScorer,
    CaseScores,
    never_reads_real,
)
from synque_select.benchmark.released import benchmark_suite, parts_folder, write_result
from synque_select.benchmark.task_folders import LabeledTask, TestSet, find_labeled_tasks
from synque_select.benchmark.task_mixtures import (
    ARMS,
    Arm,
    Choice,
    MixtureBench,
    MixtureValues,
)
from synque_select.benchmark.task_quality import Learner, Learners, quality
from synque_select.benchmark.task_result import (
    ArmFigures,
    Recommendation,
    TaskFigures,
    TasksResult,
)
from synque_select.benchmark.task_tables import render
from synque_select.data.candidate import Candidate
from synque_select.encoders import BaseEncoder, embed, get_encoder
from synque_select.functional.benchmark_statistics import agreement, noise_ceiling
from synque_select.functional.correlation import MIN_UNITS
from synque_select.proxies.registry import ProxySpec
from synque_select.records.run_folder import read_json, write_json
from synque_select.selection.consensus import may_enter
from synque_select.selection.default_order import TRANSFER
from synque_select.selection.label_filter import LabelJudges
from synque_select.selection.scorer import Scorer
from synque_select.types import Ranking
from synque_select.types.label_filter import LabelFilterRecord
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.progress import ProgressBar
from synque_select.utils.wording import counted

__all__ = ["render", "run_tasks"]


def run_tasks(
    data: str | Path,
    names: Sequence[str] | None = None,
    *,
    proxies: Sequence[ProxySpec] | None = None,
    encoder: str | BaseEncoder | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> TasksResult:
    """Score tasks of your own, and measure what choosing and filtering gain on a labeled test set.

    The true quality of a candidate is the metric of a small learner that is trained on it, at the
    size of the smallest candidate: a logistic regression on the encoder's embeddings, and another
    one on tf-idf. If the task has a `performance.csv`, its figures are a third truth. Test examples
    that occur in any real sample are left out. Spearman's coefficient of each proxy with the truth
    is averaged over the real samples; over tasks, means have a t-interval, whose unit is the task.

    Mixtures have equal totals and share their draws. "recommended" is what a ranking selects by
    default, without `top_k`; "top3" and "half" are the best in its order, "random" are random
    candidates of the same number, "oracle" the best by true quality, and "filtered" what the label
    filter leaves.

    Args:
        data: Folder of tasks, or one task: `candidates/*.jsonl`, `real_sample*.jsonl` (one per
            seed), `test.jsonl` with labels or `performance.csv`, and optionally `task.yaml` with
            `view`, `label` and `metric`.
        names: Names of the tasks; None for all.
        proxies: As for `rank`; None for the default suite. The baselines are always added.
        encoder: Id of a text encoder, or an instance; None for all-MiniLM-L6-v2.
        seed: Seed of everything random.
        out: JSON file to write after each task. Scores are kept in the folder beside it that ends
            in ".parts" as they are computed: an interrupted run resumes from there.
        progress: Whether to show progress.
        cache_dir: Directory of the embedding cache; None for the default.

    Raises:
        DataError: A file of a task is missing or cannot be used; the message names it.
        ConfigError: No task or proxy has that name, or a `task.yaml` is wrong.
        RecordError: `out` cannot be written; checked before anything is scored.
        NotSavedError: `out` could not be written later; the error holds the result so far.
    """
    path = None if out is None else Path(out)
    folder = None if path is None else parts_folder(path)
    suite = benchmark_suite(proxies, labels=True)
    tasks = find_labeled_tasks(Path(data), names)
    model = get_encoder(encoder, "text")
    cache = None if cache_dir is None else cache_root(cache_dir)
    scorer = CaseScorer(suite, model, folder, cache, seed, progress)
    figures: dict[str, TaskFigures] = {}
    baselines = tuple(proxy.key for proxy in suite if never_reads_real(proxy))
    result = TasksResult(seed, model.id, model.revision, figures, baselines)
    try:
        for task in tasks:
            figures[task.name] = _run_task(task, scorer)
            if path is not None:
                write_result(path, result)
    finally:
        if model is not encoder:  # an instance that was passed in stays open
            model.close()
    return result


def _run_task(task: LabeledTask, scorer: CaseScorer) -> TaskFigures:
    started = time.perf_counter()
    scores, rankings = {}, {}
    for case in _bar(_cases(task), task, scorer, "ranking"):
        scores[case.seed] = scorer.scores(case)
        rankings[case.seed] = _ranking(case, scorer)
    choices = [_choice(seed, ranking) for seed, ranking in rankings.items()]
    measured = None if task.test is None else _measured(task, task.test, choices, scorer)
    truths: dict[str, NDArray[np.float64]] = {}
    if measured is not None:
        truths = {learner: np.array(values) for learner, values in measured.quality.items()}
    if task.performance is not None:
        truths["performance"] = task.performance
    keys = dict.fromkeys(key for each in scores.values() for key in each.keys)
    by_seed = {
        key: {truth: _coefficients(key, scores, values) for truth, values in truths.items()}
        for key in keys
    }
    n_test = None if task.test is None else len(task.test.labels)
    return TaskFigures(
        n_candidates=len(task.candidates),
        seeds=tuple(scores),
        metric=task.metric,
        n_test=n_test,
        proxies={k: {t: _mean(each) for t, each in row.items()} for k, row in by_seed.items()},
        seed_spread={key: _spread(next(iter(row.values()))) for key, row in by_seed.items()},
        noise_ceiling={
            truth: noise_ceiling(values, n_test, seed=scorer.seed)
            for truth, values in truths.items()
            if n_test is not None and truth != "performance"
        },
        mixtures={} if measured is None else measured.arms(),
        size=0 if measured is None else measured.size,
        label_filters={} if measured is None else measured.filters,
        recommended={seed: Recommendation.of(each) for seed, each in rankings.items()},
        messages=(*task.messages, *_undefined(task)),
        seconds=time.perf_counter() - started,
    )


def _cases(task: LabeledTask) -> list[Case]:
    return [
        Case(task.name, task.name, seed, "as given", task.candidates, real)
        for seed, real in task.reals.items()
    ]


def _bar(cases: list[Case], task: LabeledTask, scorer: CaseScorer, unit: str) -> Iterable[Case]:
    bar: Iterable[Case] = ProgressBar(cases, desc=task.name, unit=unit, disable=not scorer.progress)
    return bar


def _ranking(case: Case, scorer: CaseScorer) -> Ranking:
    """Return the ranking of the candidates by the defaults, from scores that are already known."""
    suite = [proxy for proxy in scorer.suite if not never_reads_real(proxy)]
    # a suite of baselines alone has no order of its own
    suite = suite or list(scorer.suite)
    may_order = len(suite) == 1 or any(may_enter(p) or p.key == TRANSFER for p in suite)
    job = Scorer(
        suite,
        None if may_order else suite[0].key,
        encoder=scorer.encoder,
        seed=scorer.seed,
        cache_dir=scorer.cache_dir,
        keep_models=True,
        progress=scorer.progress,
    ).prepare(case.candidates, case.real)
    if scorer.last_scoring is None or scorer.last_scoring[0] is not case:
        return job.cached_ranking()
    _, scoring = scorer.last_scoring
    if any(proxy.key not in scoring.scores for proxy in suite):
        return job.cached_ranking()
    scores = {proxy.key: scoring.scores[proxy.key] for proxy in suite}
    # not kept in the cache: its messages are those of the whole suite
    return job.rank(replace(scoring, suite=job.suite, scores=scores))


def _choice(seed: str, ranking: Ranking) -> Choice:
    names = tuple(row.name for row in ranking.order())
    weights = None
    if TRANSFER in ranking.proxies:
        scores = {row.name: row.scores[TRANSFER].value for row in ranking.candidates}
        weights = scores if np.isfinite(list(scores.values())).all() else None
    return Choice(seed, names, ranking.top().names, weights)


def _coefficients(
    key: str, scores: Mapping[str, CaseScores], truth: NDArray[np.float64]
) -> list[float]:
    if len(truth) < MIN_UNITS:
        return []
    return [agreement(s.oriented(key), truth)[1] for s in scores.values() if key in s.keys]


def _undefined(task: LabeledTask) -> list[str]:
    if len(task.candidates) >= MIN_UNITS:
        return []
    return [
        f"{counted(len(task.candidates), 'candidate')}, too few for a coefficient (at least "
        f"{MIN_UNITS})."
    ]


@dataclass
class _Measured:
    """What needs the test set's labels; kept on disk, because it takes most of the time."""

    quality: dict[Learner, list[float]]
    mixtures: MixtureValues
    filters: dict[str, LabelFilterRecord]
    size: int

    def arms(self) -> dict[Learner, Mapping[Arm, ArmFigures]]:
        return {
            learner: {arm: ArmFigures.of(values) for arm, values in by_arm.items()}
            for learner, by_arm in self.mixtures.items()
        }

    def to_dict(self) -> dict[str, Json]:
        return {
            "quality": {learner: list(values) for learner, values in self.quality.items()},
            "mixtures": {
                learner: {arm: list(values) for arm, values in by_arm.items()}
                for learner, by_arm in self.mixtures.items()
            },
            "filters": {seed: record.to_dict() for seed, record in self.filters.items()},
            "size": self.size,
        }

    @classmethod
    def from_dict(cls, state: object) -> _Measured:
        fields = JsonFields(state)
        qualities, mixtures = fields.object("quality"), fields.object("mixtures")
        return cls(
            {learner: [*qualities.number_list(learner)] for learner in get_args(Learner)},
            {
                learner: {arm: [*mixtures.object(learner).number_list(arm)] for arm in ARMS}
                for learner in get_args(Learner)
            },
            {
                seed: LabelFilterRecord.from_fields(each)
                for seed, each in fields.named_objects("filters").items()
            },
            fields.integer("size"),
        )


def _measured(
    task: LabeledTask, test: TestSet, choices: Sequence[Choice], scorer: CaseScorer
) -> _Measured:
    place = None
    if scorer.folder is not None:
        place = scorer.folder / task.name / f"measured-{_hash(task, test, choices, scorer)}.json"
        if place.is_file():
            return _Measured.from_dict(read_json(place))
    measured = _measure(task, test, choices, scorer)
    if place is not None:
        write_json(place, measured.to_dict())
    return measured


def _measure(
    task: LabeledTask, test: TestSet, choices: Sequence[Choice], scorer: CaseScorer
) -> _Measured:
    embeddings = {candidate.name: _embedded(candidate, scorer) for candidate in task.candidates}
    tested = _embedded(test.examples, scorer).numpy()[test.positions]
    arrays = {name: rows.numpy() for name, rows in embeddings.items()}
    learners = Learners.of(task, test, arrays, tested)
    qualities = quality(task, learners, scorer.seed)
    labels = {candidate.name: candidate.labels for candidate in task.candidates}
    judges = LabelJudges.fit(labels, embeddings, seed=scorer.seed)
    names = np.array([candidate.name for candidate in task.candidates])
    oracle = {
        learner: names[np.argsort(-values, kind="stable")].tolist()
        for learner, values in qualities.items()
    }
    mixtures: MixtureValues = {name: {arm: [] for arm in ARMS} for name in get_args(Learner)}
    bench = MixtureBench.of(task, learners, judges, choices, oracle, scorer.seed)
    bar = ProgressBar(
        bench.measure(),
        desc=f"{task.name}, mixtures",
        total=len(choices),
        unit="real sample",
        disable=not scorer.progress,
    )
    for values in bar:
        for learner, by_arm in values.items():
            for arm, each in by_arm.items():
                mixtures[learner][arm] += each
    filters = {
        choice.seed: each["all_filtered"].record
        for choice, each in zip(choices, bench.filters, strict=True)
    }
    qualities_by = {learner: values.tolist() for learner, values in qualities.items()}
    return _Measured(qualities_by, mixtures, filters, bench.total)


def _embedded(examples: Candidate, scorer: CaseScorer) -> torch.Tensor:
    embedded = embed(scorer.encoder, examples, cache_dir=scorer.cache_dir, progress=scorer.progress)
    scorer.n_encoded += embedded.n_encoded
    return embedded.embeddings.float().cpu()


def _hash(task: LabeledTask, test: TestSet, choices: Sequence[Choice], scorer: CaseScorer) -> str:
    """Return a hash of everything that the measured values depend on."""
    depends = [
        version("synque-select"),
        scorer.encoder_key,
        scorer.seed,
        task.metric,
        [(c.name, c.sha256, c.labels) for c in task.candidates],
        [test.examples.sha256, test.positions.tolist(), test.labels.tolist()],
        [vars(choice) for choice in choices],
    ]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _spread(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")
