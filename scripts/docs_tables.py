"""Measured tables of the docs: `python -m scripts.docs_tables results` or `… proxies`.

`results` runs the small recipes and writes docs/results.md; `proxies` measures the proxies on the
released SynQuE data and writes docs/choosing-a-proxy.md. Only the text between a page's markers is
written; tables of what could not be run are left as they are. Both continue where they were
interrupted: finished work is kept under `--root`, and deleting that directory starts over.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from synque_select.benchmark.result import (
    Analysis,
    BenchmarkResult,
    ProxyFigures,
    ReactionFigures,
    TaskResult,
)
from synque_select.functional.paired import MIN_PAIRS, PairedComparison, holm_verdicts
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import read_json
from synque_select.report.correlation_tables import correlation_table
from synque_select.report.experiment_tables import (
    arm_words,
    arms_table,
    comparison_tables,
    cost_table,
)
from synque_select.report.formats import format_interval, format_number, format_p
from synque_select.report.table import Column, Table
from synque_select.utils.wording import percent

ROOT = Path(__file__).resolve().parents[1]
RESULTS, CHOOSING = ROOT / "docs" / "results.md", ROOT / "docs" / "choosing-a-proxy.md"
DATA = "SYNQUE_BENCHMARK_DATA"
# config of a recipe to whether it needs the released data
RECIPES = {
    "sentiment-small": True,
    "sentiment-small-natural": True,
    "text2sql-small": False,
    "image-small": False,
    "web-small": True,
}
# task to the sizes of the real sample that are tried, all below the released one
TASKS = {"text2sql": "5,10,20", "sentiment_analysis": "5,10,20,50,100", "web_agent": "5,10"}
PROXIES = "pad,mmd,coverage,ngram,energy,density,knn_coverage,mauve,lens,lens_raw,lens_balanced"
CORRUPTIONS = "false_facts,truncated,off_topic"
_NO_DIFFERENCE = "no difference shown"
_ALPHA = 0.05
_SUMMARY_ARMS = {
    "random_k": "k at random",
    "all": "all, as many examples",
    "mean_single": "one, mean",
}
_PACKAGES = ("synque-select", "torch", "pytorch-lightning", "transformers", "scikit-learn")


def main() -> int:
    """Run the recipes or the benchmark, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=["results", "proxies"])
    parser.add_argument("--only", nargs="+", help="configs of recipes, or tasks")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where runs are kept")
    options = parser.parse_args()
    known = RECIPES if options.page == "results" else TASKS
    unknown = sorted(set(options.only or ()) - set(known))
    if unknown:
        parser.error(f"--only {' '.join(unknown)}: allowed are {', '.join(known)}")
    names = [name for name in known if options.only is None or name in options.only]
    run = write_results if options.page == "results" else write_proxies
    return run(names, options.root)


def write_results(configs: Sequence[str], root: Path) -> int:
    """Run recipes and write docs/results.md; return the exit status."""
    failed, start = [], time.monotonic()
    home = root / "recipes-small"
    for i, config in enumerate(configs, 1):
        if RECIPES[config] and not os.environ.get(DATA):
            _log(f"{config}: skipped, {DATA} is not set")
            continue
        _log(f"recipe {i} of {len(configs)}")
        run_dir, recipe_start = home / config, time.monotonic()
        places = (
            f"--experiment.run_dir={run_dir}",
            f"--experiment.store={home / 'records.sqlite'}",
        )
        if _synque_select("experiment", "--config", config, *places):
            failed.append(config)
            continue
        seconds = time.monotonic() - recipe_start
        write_between(RESULTS, config, recipe_text(config, run_dir, seconds))
        _log(f"{config}: {seconds:.0f} s, in {RESULTS}")
    _log(f"{time.monotonic() - start:.0f} s in total")
    if all((home / config / "result.json").is_file() for config in RECIPES):
        results = {config: load_result(home / config) for config in RECIPES}
        write_between(RESULTS, "summary", summary_text(results))
    else:
        _log("not all recipes have been run: the summary is left as it is")
    return _exit_status(failed)


def write_proxies(tasks: Sequence[str], root: Path) -> int:
    """Run the benchmark and write docs/choosing-a-proxy.md; return the exit status."""
    data = os.environ.get(DATA)
    if not data:
        _log(f"skipped, {DATA} is not set")
        return 0
    files = {task: root / "proxies" / f"{task}.json" for task in TASKS}
    failed = []
    for task in tasks:
        status = _synque_select(
            *("benchmark", "released", "--data", data, "--task", task, "--proxies", PROXIES),
            *("--sample-size", TASKS[task], "--corrupt", CORRUPTIONS),
            *("--json", str(files[task]), "--quiet"),
        )
        failed += [task] * bool(status)
    results = {
        task: BenchmarkResult.from_dict(read_json(file)).tasks[task]
        for task, file in files.items()
        if file.is_file()
    }
    for name, text in proxy_texts(results).items():
        write_between(CHOOSING, name, text)
    if len(results) < len(TASKS):
        _log("not all tasks have been run: the tables over all of them are left as they are")
    return _exit_status(failed)


def _synque_select(*arguments: str) -> int:
    _log(f"synque-select {' '.join(arguments)}")
    command = Path(sys.executable).with_name("synque-select")
    return subprocess.run([command, *arguments], check=False).returncode


def _exit_status(failed: Sequence[str]) -> int:
    if failed:
        _log(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _log(line: str) -> None:
    print(line, file=sys.stderr)


def write_between(page: Path, name: str, text: str) -> None:
    """Replace the text between the markers of that name on a page.

    Raises:
        ValueError: The page has no such markers.
    """
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    whole = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(whole):
        raise ValueError(f"{page} has no markers {begin} … {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", whole))


def _stamp() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{datetime.now(UTC):%Y-%m-%d}; {packages}"


def recipe_text(config: str, run_dir: Path, seconds: float) -> str:
    """Return the section of one recipe."""
    result = load_result(run_dir)
    data, budget = result.data, result.budget
    if data is None or budget is None:
        raise ValueError(f"{run_dir}: result.json has no sizes")
    head = (
        f"`synque-select experiment --config {config}`; {_stamp()}; {seconds:.0f} s in total.\n\n"
        f"{data.n_candidates} candidates, real samples of {data.n_real}, "
        f"{data.n_validation} labeled real examples for validation and {data.n_test} for "
        f"test, none of them in a real sample; every fit {budget.max_steps} steps of "
        f"{budget.batch_size} on {budget.n_distinct} distinct examples; top {budget.top_k}."
        f"\n\n{selected_text(run_dir, budget.top_k)}"
    )
    comparisons = comparison_tables(result)
    tables = [arms_table(result), *comparisons]
    blocks = {"": result.correlations}
    if result.without_false_labels is not None:
        blocks[" without candidates with false labels"] = result.without_false_labels
    for title, block in blocks.items():
        title = f"Proxies against {result.metric.name} of the single candidates{title}"
        tables.append(correlation_table(block.proxies, title=title))
    tables.append(cost_table(result.wall_s))
    parts = [head, *(table.markdown() for table in tables)]
    # after the comparisons that it explains
    parts.insert(2 + len(comparisons), why_text(result.chosen_against))
    return "\n\n".join(parts)


def why_text(comparisons: Mapping[str, PairedComparison]) -> str:
    """Say for each comparison without a verdict how large a difference would have had to be."""
    lines = []
    for name, comparison in comparisons.items():
        if comparison.verdict in ("beats", "is beaten by"):
            continue
        arm = arm_words(name)
        half = (comparison.high - comparison.low) / 2
        observed = abs(comparison.difference)
        if comparison.n < MIN_PAIRS:
            lines.append(f"{arm}: {comparison.n} of the {MIN_PAIRS} pairs that a verdict needs.")
        elif observed > half:
            lines.append(
                f"{arm}: the interval of this comparison alone excludes 0 (p "
                f"{comparison.p:.3f}), but that happens too easily in one of several comparisons "
                f"(p {comparison.p_holm:.3f} after Holm)."
            )
        else:
            lines.append(
                f"{arm}: with {comparison.n} pairs that vary as these do, a difference below "
                f"{half:.3f} cannot be shown; the observed one is {observed:.3f}."
            )
    if not lines:
        return "Every comparison shows a difference."
    return "Why no difference is shown:\n\n" + "\n".join(f"- {line}" for line in lines)


def selected_text(run_dir: Path, top_k: int) -> str:
    """Say which candidates were selected, and in how many of the replicates."""
    files = sorted((run_dir / "rankings").glob("replicate-*.json"))
    counts = Counter(name for file in files for name in load_ranking(file).top(top_k).names)
    names = ", ".join(f"{name} {n}" for name, n in counts.most_common())
    return f"Selected, in how many of the {len(files)} replicates: {names}."


def summary_text(results: Mapping[str, ExperimentResult]) -> str:
    """Return the summary of all recipes: a few sentences, and one row per comparison."""
    shown = _summarized(results)
    rows = []
    for (config, arm), comparison in shown.items():
        result = results[config]
        interval = format_interval(comparison.low, comparison.high, 3)
        rows.append(
            (
                config,
                _SUMMARY_ARMS[arm],
                result.metric.name,
                format_number(result.arms["chosen"].mean, 3),
                format_number(result.arms[arm].mean, 3),
                f"{comparison.difference:+.3f} {interval}",
                str(comparison.n),
                format_p(comparison.p_holm),
                comparison.verdict,
            )
        )
    heads = ("metric", "chosen", "the other", "difference", "pairs", "p (Holm)", "verdict")
    columns = (
        Column("recipe", is_name=True),
        Column("chosen against", is_name=True),
        *map(Column, heads),
    )
    table = Table("", columns, tuple(rows)).markdown()
    return f"{_summary_sentences(results, shown)}\n\n{table}"


def _summarized(
    results: Mapping[str, ExperimentResult],
) -> dict[tuple[str, str], PairedComparison]:
    """Return the comparisons of the summary, with the verdicts of this table as a whole."""
    shown = {
        (config, arm): comparison
        for config, result in results.items()
        for arm in _SUMMARY_ARMS
        if (comparison := result.comparisons.get(f"chosen_vs_{arm}")) is not None
        and comparison.n >= MIN_PAIRS
    }
    # recipes differ in whether a higher metric is better: Holm needs one orientation
    oriented = {
        f"{config} {arm}": replace(
            pair, difference=pair.difference * (1 if results[config].metric.mode == "max" else -1)
        )
        for (config, arm), pair in shown.items()
    }
    decided = holm_verdicts(oriented, mode="max").values()
    return {
        place: replace(pair, p_holm=verdict.p_holm, verdict=verdict.verdict)
        for (place, pair), verdict in zip(shown.items(), decided, strict=True)
    }


def _summary_sentences(
    results: Mapping[str, ExperimentResult], shown: Mapping[tuple[str, str], PairedComparison]
) -> str:
    """Count the verdicts, say how many are due to chance, and what choosing cost."""
    counts = []
    for verdict in ("beats", "is beaten by", _NO_DIFFERENCE):
        names = [
            f"{config}, {_SUMMARY_ARMS[arm]}"
            for (config, arm), comparison in shown.items()
            if comparison.verdict == verdict
        ]
        named = f" ({'; '.join(names)})" if names and verdict != _NO_DIFFERENCE else ""
        counts.append(f"“{verdict}” {len(names)}{named}")
    n = len(shown)
    alone = sum(comparison.p < _ALPHA for comparison in shown.values())
    stages = [result.wall_s for result in results.values()]
    choosing = [stage["encode"] + stage["score"] for stage in stages]
    probing = [stage["probes"] for stage in stages]
    return (
        f"Of {n} comparisons of the selected mixture: {', '.join(counts)}.\n\n"
        f"What chance would give: if choosing never mattered, {_ALPHA * n:.2f} of {n} intervals "
        f"would exclude 0 on average, and at least one in {percent(1 - (1 - _ALPHA) ** n)} of such "
        f"tables (if the comparisons were independent). Here {alone} of {n} "
        f"exclude{'s' * (alone == 1)} 0. Verdicts are therefore Holm's over the {n} comparisons, "
        "which gives a table without any real "
        f"difference one or more verdicts in at most {percent(_ALPHA)} of cases. A recipe's own "
        "section counts only its own comparisons, so its verdicts can differ.\n\n"
        f"Choosing with all real samples took {min(choosing):.0f} to {max(choosing):.0f} seconds "
        "per recipe, not counting embeddings that were in the cache; training on every candidate "
        f"alone took {min(probing):.0f} to {max(probing):.0f}. The {len(results)} experiments took "
        f"{sum(result.seconds for result in results.values()) / 60:.0f} minutes in total."
    )


def proxy_texts(tasks: Mapping[str, TaskResult]) -> dict[str, str]:
    """Return marker to text for docs/choosing-a-proxy.md: each task's table, and those over all."""
    texts = {f"proxies {name}": _proxy_table(task).markdown() for name, task in tasks.items()}
    if set(tasks) != set(TASKS):
        return texts
    texts["false facts"] = _reactions(tasks).markdown()
    texts["sample size"] = "\n\n".join(_sizes(name, t).markdown() for name, t in tasks.items())
    texts["simple and complex"] = _complexity(tasks).markdown()
    texts["measured"] = (
        f"Measured by `make docs-tables`; {_stamp()}; encoder all-MiniLM-L6-v2; part of the "
        "released data that was used: "
        + "; ".join(f"{name}: {_extent(task)}" for name, task in tasks.items())
        + "."
    )
    return texts


def _extent(task: TaskResult) -> str:
    n_groups, n_seeds = len(task.groups), len(task.seeds)
    return f"{n_groups} group{'s' * (n_groups > 1)}, {n_seeds} real samples each"


def _proxy_table(task: TaskResult) -> Table:
    heads = ("Spearman", "95 % interval", "consensus minus it", "", "top-3 share", "p", "seconds")
    minus = {} if task.analysis.comparison is None else task.analysis.comparison.consensus_minus
    rows = []
    for key, row in _defined(task, by_value=True).items():
        difference = minus.get(key)
        is_timed = row.seconds is not None and not key.startswith("lens")
        rows.append(
            (
                key,
                format_number(row.spearman),
                format_interval(row.low, row.high, 2),
                "" if difference is None else f"{difference.difference:+.2f}",
                "" if difference is None else difference.verdict,
                format_number(row.top3.share),
                "<0.001" if row.top3.p < 0.0005 else format_number(row.top3.p, 3),
                format_number(row.seconds, 2) if is_timed else "-",
            )
        )
    notes = [f"ceiling, a perfect proxy on a test of that size: {task.noise_ceiling:.2f}"]
    if minus:
        notes.append(f"verdicts on the consensus: Holm over the {len(minus)} differences")
    columns = (Column("proxy", is_name=True), *map(Column, heads))
    return Table("", columns, tuple(rows), tuple(notes))


def _defined(task: TaskResult, *, by_value: bool = False) -> dict[str, ProxyFigures]:
    """Return the proxies that have a coefficient, in their order or the best first."""
    items = [item for item in task.proxies.items() if not math.isnan(item[1].spearman)]
    return dict(sorted(items, key=lambda item: -item[1].spearman) if by_value else items)


def _reads_the_real_sample(key: str) -> bool:
    return key != "mdm" and not key.startswith("baseline")


def _reactions(tasks: Mapping[str, TaskResult]) -> Table:
    kinds = [("false_facts:0.5", "false facts"), ("off_topic:0.5", "off topic")]
    columns: dict[str, Mapping[str, ReactionFigures]] = {}
    for kind, words in kinds:
        for name, task in tasks.items():
            reactions = task.corruptions.get(kind, "")
            if not isinstance(reactions, str):  # a text says why there are none
                columns[f"{name}, {words}"] = reactions
    keys = dict.fromkeys(key for task in tasks.values() for key in task.proxies)
    rows = [
        (
            key,
            *(f"{part[key].mean.noticed:.2f}" if key in part else "-" for part in columns.values()),
        )
        for key in keys
        if any(key in part for part in columns.values())
    ]
    return Table("", (Column("proxy", is_name=True), *map(Column, columns)), tuple(rows))


def _sizes(name: str, task: TaskResult) -> Table:
    tried = {s: part for s, part in task.sample_sizes.items() if isinstance(part, Analysis)}
    rows = [
        (key, *(_spearman(part, key) for part in tried.values()), format_number(row.spearman))
        for key, row in task.proxies.items()
        if _reads_the_real_sample(key)
        and any(_spearman(part, key) != "-" for part in tried.values())
    ]
    columns = (Column("proxy", is_name=True), *map(Column, (*tried, "all")))
    return Table(f"{name}, Spearman by size of the real sample", columns, tuple(rows))


def _spearman(analysis: Analysis, key: str) -> str:
    figures = analysis.proxies.get(key)
    return "-" if figures is None else format_number(figures.spearman)


def _complexity(tasks: Mapping[str, TaskResult]) -> Table:
    columns = [Column("task", is_name=True), Column("proxies above the best baseline", True)]
    columns += map(Column, ("best proxy", "consensus", "best baseline", "ceiling"))
    rows = []
    for name, task in tasks.items():
        figures = {key: row.spearman for key, row in _defined(task).items()}
        comparison = task.analysis.comparison
        if comparison is None or comparison.best_baseline is None:
            continue
        baseline = comparison.best_baseline
        real = {key: value for key, value in figures.items() if _reads_the_real_sample(key)}
        best = max(real, key=lambda key: real[key])
        above = [key for key, value in real.items() if value > figures[baseline]]
        rows.append(
            (
                name,
                ", ".join(above) or "none",
                f"{best} {real[best]:.2f}",
                format_number(figures.get("consensus")),
                f"{baseline} {figures[baseline]:.2f}",
                format_number(task.noise_ceiling),
            )
        )
    return Table("", tuple(columns), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
