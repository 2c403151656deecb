"""The released SynQuE benchmark: any proxies on any part of it, with what the figures are worth."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from synque_select.benchmark.ablations import against_decoys, at_sample_size, reactions
from synque_select.benchmark.analysis import analyse, noise_ceilings, undefined
from synque_select.benchmark.case_scores import Case, CaseScorer, never_reads_real
from synque_select.benchmark.corruptions import Corruption, parse_corruption
from synque_select.benchmark.judgements import judged_columns
from synque_select.benchmark.layout import Task, find_tasks
from synque_select.benchmark.lens import fitted, with_models
from synque_select.benchmark.tables import render
from synque_select.encoders import BaseEncoder, get_encoder
from synque_select.errors import ConfigError, RecordError
from synque_select.lens.config import LensConfig
from synque_select.proxies.base import BaseProxy
from synque_select.proxies.registry import (
    ProxySpec,
    get_proxy,
    proxy_keys,
    required_options,
    resolve_suite,
)
from synque_select.records.run_folder import to_jsonable, write_json
from synque_select.utils.progress import ProgressBar

__all__ = ["render", "run_released"]


def run_released(
    data: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    encoder: str | BaseEncoder | None = None,
    proxies: Sequence[ProxySpec] | None = None,
    out: str | Path | None = None,
    cross_group: bool = False,
    sample_sizes: Sequence[int] = (),
    corrupt: Sequence[str] = (),
    lens: LensConfig | Mapping[str, Any] | str | Path | None = None,
    lens_rubrics: Literal["released", "new"] = "new",
    max_samples: int | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the released SynQuE data, or what there is of it, and correlate with performance.

    Per group (database, website; sentiment is one group) and seed, a proxy's scores, turned so
    that higher is better, are correlated with the candidates' measured task performance; means
    are over seeds, then over groups. The interval is a jackknife over candidates, stratified by
    group; `noise_ceiling` is what a perfect proxy would reach on test sets of that size. The
    baselines that never read the real sample, MDM among them, are always added; the consensus is
    there when the whole default suite is.

    Args:
        data: A clone of the released repository, its folder `data`, or the folder of one task.
        tasks: Folder names; None for all that are there.
        encoder: Id of a text encoder, or one; None for all-MiniLM-L6-v2.
        proxies: As for `rank`; None for the default suite. `lens`, `lens_raw` and `lens_balanced`
            without options are computed from the released judgements; with `lens`, or a config
            of their own, models are asked.
        out: JSON file to write. The scores of every case are kept as they arrive in the folder
            beside it that ends in ".parts": a run that was broken off goes on from there.
        cross_group: Whether to rank each group's candidates among those of the other groups too.
        sample_sizes: Sizes of real samples to try, nested random parts of the whole.
        corrupt: "kind" or "kind:share" (share 0.5 if left out) with kind false_facts,
            near_duplicates, off_topic, shuffled_labels or truncated: every candidate is ranked
            beside a spoilt twin.
        lens: How the LENS proxies are computed, with models of the user's; where `proxies` is
            None, the ablations are run too: `lens`, `lens_raw` (not debiased), `lens_balanced` and
            `lens_zero_shot` (no rubric). Prompts are those of the task, unless it names some.
        lens_rubrics: Whether these models judge by the released rubrics, or by new ones.
        max_samples: At most so many samples of a candidate are judged by them; None for what
            `lens` says.
        progress: Whether to show progress.
        cache_dir: Where embeddings are kept; None for the default cache.
        seed: Seed of everything random.

    Returns:
        What is written to `out`, undefined as None: {"version": 1, "tasks": {task: {"groups",
        "seeds", "noise_ceiling", "proxies": {key: {"pearson", "spearman", "low", "high",
        "by_group", "top3": {"chosen", "blind", "oracle", "share", "p"}}}, …}}}. Performances are
        shares in 0..1.

    Raises:
        DataError: Nothing of the benchmark is there, or a file cannot be used.
        ConfigError: A task, proxy or corruption is unknown, or an argument is out of its range.
        RecordError: `out` cannot be written; said before anything is scored.

    Source:
        Chen and Zhong, arXiv 2511.03928, section 4; statistics are ours.
    """
    corruptions = [parse_corruption(text) for text in corrupt]
    for size in sample_sizes:
        if size < 2:
            raise ConfigError(f"sample_sizes: found {size}; allowed is 2 or more")
    found, absent = find_tasks(Path(data), tasks)
    suite = _suite(with_models(proxies, lens, lens_rubrics, max_samples, progress=progress))
    judged = tuple(proxy.key for proxy in suite if lens is None and _was_judged(proxy))
    model = get_encoder(encoder, "text")
    path = None if out is None else Path(out)
    scorer = CaseScorer(
        suite=[proxy for proxy in suite if proxy.key not in judged],
        encoder=model,
        folder=None if path is None else _parts_folder(path),
        cache_dir=None if cache_dir is None else Path(cache_dir),
        seed=seed,
        progress=progress,
        for_case=partial(fitted, {task.name: task.folder for task in found}, lens_rubrics),
    )
    if lens_rubrics == "released":
        for case in (case for task in found for case in _cases(task)):
            _ = [scorer.for_case(case, proxy) for proxy in suite]  # one that is absent is said now
    result: dict[str, Any] = {
        "version": 1,
        "seed": seed,
        "encoder": {"id": model.id, "revision": model.revision},
        "absent": list(absent),
        "tasks": {},
    }
    needs_others = any(corruption.kind == "off_topic" for corruption in corruptions)
    others = find_tasks(Path(data))[0] if needs_others else found
    try:
        for task in found:
            result["tasks"][task.name] = _run_task(
                task, others, scorer, cross_group, sample_sizes, corruptions, judged
            )
            if path is not None:
                write_json(path, result)
    finally:
        if model is not encoder:  # the caller's own instance stays the caller's
            model.close()
    return to_jsonable(result)  # type: ignore[no-any-return]


def _parts_folder(path: Path) -> Path:
    """Make the folder of scores that belongs to a result, where both can be written."""
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


def _suite(proxies: Sequence[ProxySpec] | None) -> tuple[BaseProxy, ...]:
    """What was asked for, and the baselines that were not, as far as they need no option."""
    suite = resolve_suite(proxies, "text")
    known = {proxy.key for proxy in suite}
    others = [key for key in proxy_keys() if key not in known and not required_options(key)]
    added = [get_proxy(key) for key in others]
    return (*suite, *(p for p in added if never_reads_real(p) and "text" in p.modalities))


def _was_judged(proxy: BaseProxy) -> bool:
    """Whether the released judgements stand for a proxy: LENS without a model of the user's."""
    return proxy.family == "lens" and proxy.options() == get_proxy(proxy.key).options()


def _run_task(
    task: Task,
    others: Sequence[Task],
    scorer: CaseScorer,
    cross_group: bool,
    sample_sizes: Sequence[int],
    corruptions: Sequence[Corruption],
    judged: Sequence[str],
) -> dict[str, Any]:
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
    found: dict[str, Any] = {
        "groups": [group.name for group in task.groups],
        "seeds": [int(seed) if seed.isdigit() else seed for seed in task.seeds],
        **noise_ceilings(task, scorer.seed),
        **analyse(task.groups, scores, baselines),
    }
    said = undefined(task.groups, scores, found["proxies"])
    found["absent"] = [*task.absent, *said, *unjudged]
    if cross_group:
        found["cross_group"] = against_decoys(task, scorer, bar)
    if sample_sizes:
        found["sample_sizes"] = {
            str(n): at_sample_size(task, scorer, n, baselines, bar, judged) for n in sample_sizes
        }
    if corruptions:
        found["corruptions"] = {
            str(c): reactions(task, scorer, c, others, bar) for c in corruptions
        }
    found["cost"] = {
        "seconds": time.perf_counter() - started,
        "encoder_calls": scorer.n_encoded - encoded,
        "views": _n_views(task),
        "judge_calls": scorer.n_judged - asked,
        "scores_resumed": scorer.n_resumed - resumed,
    }
    return found


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
    """Distinct texts that an encoder has to see for all rankings of a task."""
    texts = {
        digest.tobytes()
        for group in task.groups
        for examples in (*group.candidates, *group.reals.values())
        for digest in examples.digests
    }
    return len(texts)
