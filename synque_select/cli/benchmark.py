"""`synque-select benchmark`."""

from __future__ import annotations

from typing import Any

from synque_select.cli.options import PROXIES_HELP, flat, proxy_options, whole

__all__ = ["arguments", "run"]


def arguments(parser: Any) -> None:
    """Declare the options."""
    parser.add_argument("name", choices=["released"], help="released: the data of the SynQuE paper")
    parser.add_argument(
        "--data", required=True, help="the data folder of a clone of the released benchmark"
    )
    parser.add_argument("--task", nargs="+", help="comma-separated folders (default: all found)")
    parser.add_argument("--encoder", help="model id (default: all-MiniLM-L6-v2)")
    parser.add_argument("--proxies", nargs="+", help=PROXIES_HELP)
    parser.add_argument("--json", help="write the figures here; a run that was cut off resumes")
    parser.add_argument(
        "--cross-group",
        action="store_true",
        help="add the other groups' candidates as decoys: AUC of each proxy against them",
    )
    parser.add_argument("--sample-size", nargs="+", help="sizes of the real sample, such as 5,10")
    parser.add_argument(
        "--corrupt",
        nargs="+",
        help="rank every candidate beside a spoilt twin: KIND or KIND:SHARE, with KIND one of "
        "false_facts, near_duplicates, off_topic, shuffled_labels, truncated",
    )
    parser.add_argument(
        "--lens",
        help="judge with models of your own (default: the released judgements): a config of LENS, "
        "a YAML file or a packaged name; without --proxies, adds its ablations: not debiased, "
        "balanced, without rubrics",
    )
    parser.add_argument(
        "--lens-rubrics",
        choices=["released", "new"],
        default="new",
        help="with --lens: judge by the released rubrics, or by new ones of its reasoner",
    )
    parser.add_argument(
        "--max-samples", type=int, help="with --lens: samples of a candidate that are judged"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--cache-dir", help="where embeddings are kept")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(options: Any) -> int:
    """Measure proxies on the released SynQuE data. Correlations, intervals, baselines, cost."""
    from synque_select.benchmark.released import BenchmarkOptions, render, run_released

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
    result = run_released(
        options.data,
        settings,
        encoder=options.encoder,
        out=options.json,
        progress=not options.quiet,
        cache_dir=options.cache_dir,
    )
    print(render(result))
    return 0
