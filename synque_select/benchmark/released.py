"""The released SynQuE benchmark, scored with any proxies."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from synque_select.benchmark.ablations import against_decoys, at_sample_size, reactions
from synque_select.benchmark.analysis import analyse, noise_ceilings, undefined
from synque_select.benchmark.case_scores import Case, CaseScorer, never_reads_real
from synque_select.benchmark.corruptions import Corruption, parse_corruption
from synque_select.benchmark.judgments import judged_columns
from synque_select.benchmark.layout import Task, find_tasks
from synque_select.benchmark.lens import LensRubrics, fitted, with_models
from synque_select.benchmark.result import BenchmarkResult, Cost, TaskResult
from synque_select.benchmark.tables import render
from synque_select.benchmark.task_result import TasksResult
from synque_select.encoders import BaseEncoder, get_encoder
from synque_select.errors import ConfigError, NotSavedError, RecordError
from synque_select.lens.config import LensConfig
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import (
    PROXIES,
    ProxySpec,
    default_suite,
    get_proxy,
    required_options,
    resolve_suite,
)
from synque_select.records.run_folder import write_json
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.progress import ProgressBar

__all__ = [
    "BenchmarkOptions",
    "benchmark_suite",
    "parts_folder",
    "render",
    "run_released",
    "write_result",
]


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is computed on the released data.

    Args:
        tasks: Folder names of tasks; None for all that exist.
        proxies: As for `rank`; None for the default suite. `lens`, `lens_raw` and `lens_balanced`
            without options are computed from the released judgments; with the option `lens`, or
            with a config of their own, a language model is asked.
        cross_group: Whether each group's candidates are also ranked among those of other groups.
        sample_sizes: Further sizes of the real sample to score with: nested random subsets.
        corrupt: "kind" or "kind:share" (share 0.5 if omitted), with kind one of false_facts,
            near_duplicates, off_topic, shuffled_labels, truncated: every candidate is also ranked
            together with a corrupted twin.
        lens: How the LENS proxies are computed, with language models of your own. If `proxies` is
            None, this adds LENS and its ablations: `lens_raw` (not debiased), `lens_balanced` and
            `lens_zero_shot` (no rubric). Prompts are those of the task unless it names some.
        lens_rubrics: Whether these models judge by the "released" rubrics or by "new" ones.
        max_samples: Maximum number of examples per candidate that they judge; None for the value
            in `lens`.
        seed: Seed of everything random.

    Raises:
        ConfigError: A corruption is unknown, or a sample size is below 2.
    """

    tasks: Sequence[str] | None = None
    proxies: Sequence[ProxySpec] | None = None
    cross_group: bool = False
    sample_sizes: Sequence[int] = ()
    corrupt: Sequence[str] = ()
    lens: LensConfig | Mapping[str, object] | str | Path | None = None
    lens_rubrics: LensRubrics = "new"
    max_samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.corruptions
        for size in self.sample_sizes:
            if size < 2:
                raise ConfigError(f"sample_sizes: found {size}; allowed is 2 or more")

    @property
    def corruptions(self) -> list[Corruption]:
        """The corruptions, parsed."""
        return [parse_corruption(text) for text in self.corrupt]


def run_released(
    data: str | Path,
    options: BenchmarkOptions | None = None,
    *,
    encoder: str | BaseEncoder | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> BenchmarkResult:
    """Score the released SynQuE data, as far as it exists, and correlate with performance.

    Within each group (a database, a website; sentiment is a single group) and for each seed, the
    scores of a proxy, oriented so that higher is better, are correlated with the measured task
    performance of the candidates; means are taken over seeds, then over groups. The interval is a
    jackknife over candidates, stratified by group. `noise_ceiling` is what a perfect proxy would
    reach on test sets of that size. Baselines that never read the real sample, MDM among them, are
    always added; the consensus is computed if the whole default suite runs.

    Args:
        data: A clone of the released repository, its folder `data`, or the folder of one task.
        options: What is computed; None for the defaults.
        encoder: Id of a text encoder, or an instance; None for all-MiniLM-L6-v2.
        out: JSON file to write. The scores of each case are kept in the folder beside it that ends
            in ".parts" as they are computed: an interrupted run resumes from there.
        progress: Whether to show progress.
        cache_dir: Directory of the embedding cache; None for the default.

    Raises:
        DataError: None of the benchmark was found, or a file cannot be used.
        ConfigError: A task or proxy is unknown, or an argument is out of its range.
        RecordError: `out` cannot be written; checked before anything is scored.
        NotSavedError: `out` could not be written later; the error holds the result so far.

    Source:
        Chen and Zhong, arXiv 2511.03928, section 4. The intervals, the noise ceiling and the tests
        are additions of this library.
    """
    options = BenchmarkOptions() if options is None else options
    tasks, absent = find_tasks(Path(data), options.tasks)
    suite = benchmark_suite(
        with_models(
            options.proxies,
            options.lens,
            options.lens_rubrics,
            options.max_samples,
            progress=progress,
        )
    )
    judged = tuple(p.key for p in suite if options.lens is None and _was_judged(p))
    model = get_encoder(encoder, "text")
    path = None if out is None else Path(out)
    scorer = CaseScorer(
        suite=[proxy for proxy in suite if proxy.key not in judged],
        encoder=model,
        folder=None if path is None else parts_folder(path),
        cache_dir=None if cache_dir is None else cache_root(cache_dir),
        seed=options.seed,
        progress=progress,
        for_case=partial(fitted, {task.name: task.folder for task in tasks}, options.lens_rubrics),
    )
    if options.lens_rubrics == "released":
        for case in (case for task in tasks for case in _cases(task)):
            for proxy in suite:  # missing rubrics are reported now, not hours later
                scorer.for_case(case, proxy)
    needs_others = any(corruption.kind == "off_topic" for corruption in options.corruptions)
    others = find_tasks(Path(data))[0] if needs_others else tasks
    results: dict[str, TaskResult] = {}
    result = BenchmarkResult(options.seed, model.id, model.revision, absent, results)
    try:
        for task in tasks:
            results[task.name] = _run_task(task, others, scorer, options, judged)
            if path is not None:
                write_result(path, result)
    finally:
        if model is not encoder:  # an instance that was passed in stays open
            model.close()
    return result


def write_result(path: Path, result: BenchmarkResult | TasksResult) -> None:
    """Write the figures.

    Raises:
        NotSavedError: The file cannot be written; the error holds the result.
    """
    try:
        write_json(path, result.to_dict())
    except RecordError as error:
        raise NotSavedError(str(error), result) from error


def parts_folder(path: Path) -> Path:
    """Create the folder of scores beside a result, and check that both can be written."""
    if path.is_dir() or path.suffix == ".parts":
        raise ConfigError(f"{path}: the figures are written to a file, such as released.json")
    parts = path.with_suffix(".parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, parts):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error}") from error
    return parts


def benchmark_suite(
    proxies: Sequence[ProxySpec] | None, *, labels: bool = False
) -> tuple[BaseProxy, ...]:
    """Return the requested proxies and all baselines that need no options.

    Args:
        proxies: As for `rank`; None for the default suite.
        labels: Whether all candidates have labels that are classes.
    """
    suite = resolve_suite(
        default_suite("text", labels=labels) if proxies is None else proxies, "text"
    )
    known = {proxy.key for proxy in suite}
    others = [key for key, _ in PROXIES.items() if key not in known and not required_options(key)]
    added = [get_proxy(key) for key in others]
    usable = [p for p in added if "text" in p.modalities and (labels or not p.needs_labels)]
    return (*suite, *(p for p in usable if never_reads_real(p)))


def _was_judged(proxy: BaseProxy) -> bool:
    """Return whether a proxy is computed from the released judgments: LENS with its defaults."""
    return proxy.family == "lens" and proxy.options() == get_proxy(proxy.key).options()


def _run_task(
    task: Task,
    others: Sequence[Task],
    scorer: CaseScorer,
    options: BenchmarkOptions,
    judged: Sequence[str],
) -> TaskResult:
    started, encoded, resumed = time.perf_counter(), scorer.n_encoded, scorer.n_resumed
    asked = scorer.n_judged
    baselines = [proxy.key for proxy in scorer.suite if never_reads_real(proxy)]
    bar = _bar(task, scorer)
    cases = _cases(task)
    columns, unjudged = judged_columns(task.folder, cases, judged)
    scores = {
        (case.group, case.seed): scorer.scores(case).joined(columns.get((case.group, case.seed)))
        for case in bar(cases, len(cases))
    }
    ceiling, ceiling_by_group = noise_ceilings(task, scorer.seed)
    analysis = analyse(task.groups, scores, baselines)
    messages = undefined(task.groups, scores, analysis.proxies)
    cross_group = against_decoys(task, scorer, bar) if options.cross_group else None
    sample_sizes = {
        str(n): at_sample_size(task, scorer, n, baselines, bar, judged)
        for n in options.sample_sizes
    }
    corruptions = {str(c): reactions(task, scorer, c, others, bar) for c in options.corruptions}
    return TaskResult(
        groups=tuple(group.name for group in task.groups),
        seeds=tuple(int(seed) if seed.isdigit() else seed for seed in task.seeds),
        noise_ceiling=ceiling,
        noise_ceiling_by_group=ceiling_by_group,
        analysis=analysis,
        absent=(*task.absent, *messages, *unjudged),
        cost=Cost(
            seconds=time.perf_counter() - started,
            encoder_calls=scorer.n_encoded - encoded,
            views=_n_views(task),
            judge_calls=scorer.n_judged - asked,
            scores_resumed=scorer.n_resumed - resumed,
        ),
        cross_group=cross_group,
        sample_sizes=sample_sizes,
        corruptions=corruptions,
    )


def _cases(task: Task) -> list[Case]:
    return [
        Case(task.name, group.name, seed, "as released", group.candidates, real)
        for group in task.groups
        for seed, real in group.reals.items()
    ]


def _bar(task: Task, scorer: CaseScorer) -> Callable[[Iterable[Case], int], Iterable[Case]]:
    def bar(cases: Iterable[Case], n: int) -> Iterable[Case]:
        return ProgressBar(
            cases, desc=task.name, total=n, unit="ranking", disable=not scorer.progress
        )

    return bar


def _n_views(task: Task) -> int:
    """Return the number of distinct texts in all rankings of a task."""
    texts = {
        digest.tobytes()
        for group in task.groups
        for examples in (*group.candidates, *group.reals.values())
        for digest in examples.digests
    }
    return len(texts)
