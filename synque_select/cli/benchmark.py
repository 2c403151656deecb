"""`synque-select benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.cli.options import PROXIES_HELP, flat, proxy_options, whole
from synque_select.errors import ConfigError, NotSavedError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from synque_select.benchmark.result import BenchmarkResult
    from synque_select.benchmark.task_result import TasksResult

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "name",
        choices=["released", "tasks"],
        help="released: the data of the SynQuE paper; tasks: tasks of your own",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="released: `data` folder of a clone of the released repository; tasks: a folder with "
        "one folder per task: candidates/*.jsonl with labels, real_sample*.jsonl (one per seed), "
        "test.jsonl with labels or performance.csv (columns candidate, performance), and "
        "optionally task.yaml (view, label, metric: macro_f1 or accuracy)",
    )
    parser.add_argument(
        "--task",
        action="extend",
        nargs="+",
        help="comma-separated task folders (default: all tasks in --data)",
    )
    parser.add_argument("--encoder", help="model id (default: all-MiniLM-L6-v2)")
    parser.add_argument("--proxies", action="extend", nargs="+", help=PROXIES_HELP)
    parser.add_argument(
        "--json", help="write the results to this file; an interrupted run resumes from it"
    )
    parser.add_argument(
        "--cross-group",
        action="store_true",
        help="add candidates of other groups as decoys; report each proxy's AUC against them",
    )
    parser.add_argument(
        "--sample-size",
        action="extend",
        nargs="+",
        help="also score with real samples of these sizes, such as 5,10",
    )
    parser.add_argument(
        "--corrupt",
        action="extend",  # a repeated option adds to the first
        nargs="+",
        help="rank each candidate along with a corrupted copy: KIND or KIND:SHARE, where KIND is "
        "false_facts, near_duplicates, off_topic, shuffled_labels or truncated",
    )
    parser.add_argument(
        "--lens",
        help="LENS config for judging with your own models: a YAML file or a packaged name "
        "(default: the released judgments); without --proxies, this adds the ablations of LENS: "
        "not debiased, balanced, without rubrics",
    )
    parser.add_argument(
        "--lens-rubrics",
        choices=["released", "new"],
        default="new",
        help="with --lens: use the released rubrics, or have the config's reasoner write new ones",
    )
    parser.add_argument(
        "--max-samples", type=int, help="with --lens: number of examples to judge per candidate"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--cache-dir", help="directory of cached embeddings")
    parser.add_argument("--quiet", action="store_true", help="hide progress bars")


def run(options: Namespace) -> int:
    """Evaluate proxies on the released SynQuE data, or proxies and mixtures on your own tasks."""
    from synque_select.benchmark.result import BenchmarkResult
    from synque_select.benchmark.task_result import TasksResult

    compute = _run_tasks if options.name == "tasks" else _run_released
    try:
        print(_text(compute(options)))
    except NotSavedError as error:
        if isinstance(error.result, BenchmarkResult | TasksResult):
            print(_text(error.result))
        raise
    return 0


def _text(result: BenchmarkResult | TasksResult) -> str:
    from synque_select.benchmark import tables, task_tables
    from synque_select.benchmark.result import BenchmarkResult

    if isinstance(result, BenchmarkResult):
        return tables.render(result)
    return task_tables.render(result)


def _run_released(options: Namespace) -> BenchmarkResult:
    from synque_select.benchmark.released import BenchmarkOptions, run_released

    settings = BenchmarkOptions(
        tasks=None if options.task is None else flat(options.task),
        proxies=proxy_options(options.proxies),
        cross_group=options.cross_group,
        sample_sizes=[whole(text, "--sample-size") for text in flat(options.sample_size or ())],
        corrupt=flat(options.corrupt or ()),
        lens=options.lens,
        lens_rubrics=options.lens_rubrics,
        max_samples=options.max_samples,
        seed=options.seed,
    )
    return run_released(
        options.data,
        settings,
        encoder=options.encoder,
        out=options.json,
        progress=not options.quiet,
        cache_dir=options.cache_dir,
    )


# the options that are not read by `benchmark tasks`, and the value that means "not given"
_RELEASED_ONLY = {
    "cross_group": False,
    "sample_size": None,
    "corrupt": None,
    "lens": None,
    "max_samples": None,
}


def _run_tasks(options: Namespace) -> TasksResult:
    from synque_select.benchmark.tasks import run_tasks

    for name, default in _RELEASED_ONLY.items():
        if getattr(options, name) != default:
            raise ConfigError(f"--{name.replace('_', '-')} belongs to `benchmark released`")
    return run_tasks(
        options.data,
        None if options.task is None else flat(options.task),
        proxies=proxy_options(options.proxies),
        encoder=options.encoder,
        seed=options.seed,
        out=options.json,
        progress=not options.quiet,
        cache_dir=options.cache_dir,
    )
