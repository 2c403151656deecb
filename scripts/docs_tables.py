"""Measured tables of the docs: `python -m scripts.docs_tables results` and `… proxies`.

`results` runs the four small recipes and writes docs/results.md; `proxies` measures the proxies on
the released SynQuE data and writes docs/choosing-a-proxy.md. Only what stands between a page's
markers is written; what could not be run keeps what it says. Both go on where they were broken off:
finished fits are kept in `runs/recipes-small`, and removing that folder begins anew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synque_select.functional.paired import PairedComparison
from synque_select.records.experiment_result import ExperimentResult, load_result
from synque_select.records.ranking_file import load_ranking
from synque_select.report.correlation_tables import correlation_table
from synque_select.report.experiment_tables import arms_table, comparison_table, cost_table
from synque_select.report.formats import format_interval, format_number
from synque_select.report.table import Column, Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS, CHOOSING = ROOT / "docs" / "results.md", ROOT / "docs" / "choosing-a-proxy.md"
DATA = "SYNQUE_BENCHMARK_DATA"
# recipe's config, and whether it needs the released data
RECIPES = {
    "sentiment-small": True,
    "sentiment-small-natural": True,
    "text2sql-small": False,
    "image-small": False,
    "web-small": True,
}
# sizes of the real sample that are tried, all below the released one
TASKS = {"text2sql": "5,10,20", "sentiment_analysis": "5,10,20,50,100", "web_agent": "5,10"}
PROXIES = "pad,mmd,coverage,ngram,energy,density,knn_coverage,mauve,lens,lens_raw,lens_balanced"
CORRUPTIONS = "false_facts,truncated,off_topic"
_MIN_PAIRS = 5
_PACKAGES = ("synque-select", "torch", "pytorch-lightning", "transformers", "scikit-learn")


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=["results", "proxies"])
    parser.add_argument("--only", nargs="+", help="configs of recipes, or tasks")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where runs are kept")
    options = parser.parse_args()
    known = RECIPES if options.page == "results" else TASKS
    chosen = [name for name in known if options.only is None or name in options.only]
    return (_results if options.page == "results" else _proxies)(chosen, options.root)


def _results(configs: Sequence[str], root: Path) -> int:
    failed, began = [], time.monotonic()
    home = root / "recipes-small"
    for i, config in enumerate(configs, 1):
        if RECIPES[config] and not os.environ.get(DATA):
            print(f"{config}: skipped, {DATA} is not set", file=sys.stderr)
            continue
        print(f"recipe {i} of {len(configs)}", file=sys.stderr)
        folder, started = home / config, time.monotonic()
        kept = (f"--experiment.run_dir={folder}", f"--experiment.store={home / 'records.sqlite'}")
        if _run("experiment", "--config", config, *kept):
            failed.append(config)
            continue
        write_between(RESULTS, config, recipe_text(config, folder, time.monotonic() - started))
        print(f"{config}: {time.monotonic() - started:.0f} s, in {RESULTS}", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    results = {config: home / config / "result.json" for config in RECIPES}
    if all(path.is_file() for path in results.values()):
        found = {config: load_result(path.parent) for config, path in results.items()}
        write_between(RESULTS, "summary", summary_text(found))
    else:
        print("not all recipes have been run: the summary is left as it is", file=sys.stderr)
    return _said(failed)


def _proxies(tasks: Sequence[str], root: Path) -> int:
    data = os.environ.get(DATA)
    if not data:
        print(f"skipped, {DATA} is not set", file=sys.stderr)
        return 0
    failed = []
    for task in tasks:
        status = _run(
            *("benchmark", "released", "--data", data, "--task", task, "--proxies", PROXIES),
            *("--sample-size", TASKS[task], "--corrupt", CORRUPTIONS),
            *("--json", str(_figures(root, task)), "--quiet"),
        )
        failed += [task] * bool(status)
    found = {task: _figures(root, task) for task in TASKS}
    read = {t: json.loads(p.read_text())["tasks"][t] for t, p in found.items() if p.is_file()}
    for name, text in proxy_texts(read).items():
        write_between(CHOOSING, name, text)
    return _said(failed)


def _figures(root: Path, task: str) -> Path:
    return root / "proxies" / f"{task}.json"


def _run(*arguments: str) -> int:
    print(f"synque-select {' '.join(arguments)}", file=sys.stderr)
    command = Path(sys.executable).with_name("synque-select")
    return subprocess.run([command, *arguments], check=False).returncode


def _said(failed: Sequence[str]) -> int:
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's markers of that name."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    whole = page.read_text()
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(whole):
        raise ValueError(f"{page} has no markers {begin} … {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", whole))


def _stamp() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{datetime.now(UTC):%Y-%m-%d}; {packages}"


def recipe_text(config: str, folder: Path, seconds: float) -> str:
    """Return the section of one recipe."""
    result = load_result(folder)
    data, budget = result.data, result.budget
    if data is None or budget is None:
        raise ValueError(f"{folder}: result.json has no sizes")
    head = (
        f"`synque-select experiment --config {config}`; {_stamp()}; {seconds:.0f} s in all.\n\n"
        f"{data.n_candidates} candidates, real samples of {data.n_real}, "
        f"{data.n_validation} labeled real examples for validation and {data.n_test} for "
        f"test, none of them in a real sample; every fit {budget.max_steps} steps of "
        f"{budget.batch_size} on {budget.n_distinct} distinct examples; top {budget.top_k}."
        f"\n\n{chosen_text(folder, budget.top_k)}"
    )
    tables = [arms_table(result), comparison_table(result)]
    blocks = {"": result.correlations}
    if result.without_false_labels is not None:
        blocks[" without the candidate with false labels"] = result.without_false_labels
    for title, block in blocks.items():
        title = f"Proxies against {result.metric.name} of the single candidates{title}"
        tables.append(correlation_table(block.proxies, title=title))
    tables.append(cost_table(result.wall_s))
    parts = [head, *(table.markdown() for table in tables)]
    parts.insert(3, why_text(result.comparisons))
    return "\n\n".join(parts)


def why_text(comparisons: Mapping[str, PairedComparison]) -> str:
    """Say for each comparison without a difference what could have been shown."""
    lines = []
    for name, found in comparisons.items():
        if found.verdict != "no difference shown":
            continue
        arm = name.removeprefix("chosen_vs_")
        if math.isnan(found.low) or math.isnan(found.high):
            lines.append(f"{arm}: too few pairs ({found.n}) for an interval.")
            continue
        half = (found.high - found.low) / 2
        lines.append(
            f"{arm}: with {found.n} pairs that vary as these do, a difference under {half:.3f} "
            f"cannot be shown; the one found is {abs(found.difference):.3f}."
        )
    if not lines:
        return "Every comparison shows a difference."
    return "Why no difference is shown:\n\n" + "\n".join(f"- {line}" for line in lines)


def chosen_text(folder: Path, k: int) -> str:
    """Say which candidates were chosen, and in how many of the replicates."""
    files = sorted((folder / "rankings").glob("replicate-*.json"))
    counts = Counter(name for file in files for name in load_ranking(file).top(k).names)
    names = ", ".join(f"{name} {n}" for name, n in counts.most_common())
    return f"Chosen, in how many of the {len(files)} replicates: {names}."


def summary_text(results: Mapping[str, ExperimentResult]) -> str:
    """Return what the recipes came to: in a few sentences, and a line a comparison."""
    rows = [row for config, result in results.items() for row in _summary_rows(config, result)]
    heads = ("metric", "chosen", "the other", "difference", "pairs", "verdict")
    columns = (
        Column("recipe", is_name=True),
        Column("chosen against", is_name=True),
        *map(Column, heads),
    )
    table = Table("", columns, tuple(rows)).markdown()
    return f"{_summary_sentences(results, rows)}\n\n{table}"


def _summary_sentences(
    results: Mapping[str, ExperimentResult], rows: Sequence[tuple[str, ...]]
) -> str:
    """Count the verdicts, and say what choosing took beside training on every candidate."""
    said = [f"Of {len(rows)} comparisons of the chosen mixture"]
    for verdict in ("beats", "is beaten by", "no difference shown"):
        found = [f"{row[0]}, {row[1]}" for row in rows if row[-1] == verdict]
        shown = f" ({'; '.join(found)})" if found and verdict != "no difference shown" else ""
        said.append(f"“{verdict}” {len(found)}{shown}")
    stages = [result.wall_s for result in results.values()]
    choosing = [stage["encode"] + stage["score"] for stage in stages]
    probing = [stage["probes"] for stage in stages]
    return (
        f"{said[0]}: {', '.join(said[1:])}. Choosing by all real samples took "
        f"{min(choosing):.0f} to {max(choosing):.0f} seconds a recipe, embeddings that were in the "
        f"cache not counted; training on every candidate alone took {min(probing):.0f} to "
        f"{max(probing):.0f}. The five experiments took "
        f"{sum(result.seconds for result in results.values()) / 60:.0f} minutes together."
    )


def _summary_rows(config: str, result: ExperimentResult) -> Iterable[tuple[str, ...]]:
    words = {"random_k": "k at random", "all": "all, as many examples", "mean_single": "one, mean"}
    for arm, word in words.items():
        found = result.comparisons.get(f"chosen_vs_{arm}")
        if found is not None and found.n >= _MIN_PAIRS:
            interval = format_interval(found.low, found.high, 3)
            yield (
                config,
                word,
                result.metric.name,
                format_number(result.arms["chosen"].mean, 3),
                format_number(result.arms[arm].mean, 3),
                f"{found.difference:+.3f} {interval}",
                str(found.n),
                found.verdict,
            )


def proxy_texts(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return marker to text, of what the benchmark found on each task."""
    texts = {f"proxies {name}": _proxy_table(task).markdown() for name, task in tasks.items()}
    texts["false facts"] = _reactions(tasks).markdown()
    texts["sample size"] = "\n\n".join(_sizes(name, t).markdown() for name, t in tasks.items())
    texts["simple and complex"] = _complexity(tasks).markdown()
    texts["measured"] = (
        f"Measured by `make docs-tables`; {_stamp()}; encoder all-MiniLM-L6-v2; what part of the "
        "released data: "
        + "; ".join(f"{name}: {_part(task)}" for name, task in tasks.items())
        + "."
    )
    return texts


def _part(task: Mapping[str, Any]) -> str:
    n_groups, n_seeds = len(task["groups"]), len(task["seeds"])
    return f"{n_groups} group{'s' * (n_groups > 1)}, {n_seeds} real samples each"


def _proxy_table(task: Mapping[str, Any]) -> Table:
    heads = ("Spearman", "95 % interval", "consensus minus it", "", "top-3 share", "p", "seconds")
    proxies = sorted(
        (item for item in task["proxies"].items() if item[1]["spearman"] is not None),
        key=lambda item: -item[1]["spearman"],
    )
    rows = []
    for key, row in proxies:
        minus, top = task.get("consensus_minus", {}).get(key), row["top3"] or {}
        rows.append(
            (
                key,
                format_number(row["spearman"]),
                format_interval(row["low"], row["high"], 2),
                "" if minus is None else f"{minus['difference']:+.2f}",
                "" if minus is None else minus["verdict"],
                format_number(top.get("share")),
                _p(top.get("p")),
                "-" if key.startswith("lens") else format_number(row.get("seconds"), 2),
            )
        )
    note = f"ceiling, a perfect proxy on a test of that size: {task['noise_ceiling']:.2f}"
    return Table("", (Column("proxy", is_name=True), *map(Column, heads)), tuple(rows), (note,))


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.0005 else format_number(value, 3)


def _keys(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for task in tasks.values() for key in task["proxies"]))


def _reactions(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    kinds = [("false_facts:0.5", "false facts"), ("off_topic:0.5", "off topic")]
    parts = {
        f"{name}, {words}": task["corruptions"][kind]
        for kind, words in kinds
        for name, task in tasks.items()
        if "message" not in task["corruptions"].get(kind, {"message": ""})
    }
    rows = [
        (key, *(_noticed(part.get(key)) for part in parts.values()))
        for key in _keys(tasks)
        if any(key in part for part in parts.values())
    ]
    columns = (Column("proxy", is_name=True), *map(Column, parts))
    return Table("", columns, tuple(rows))


def _noticed(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else f"{row['noticed']:.2f}"


def _sizes(name: str, task: Mapping[str, Any]) -> Table:
    tried = {s: p["proxies"] for s, p in task["sample_sizes"].items() if "message" not in p}
    rows = [
        (
            key,
            *(format_number(part.get(key, {}).get("spearman")) for part in tried.values()),
            format_number(row["spearman"]),
        )
        for key, row in task["proxies"].items()
        if any(part.get(key, {}).get("spearman") is not None for part in tried.values())
        and not key.startswith("baseline")
        and key != "mdm"
    ]
    columns = (Column("proxy", is_name=True), *map(Column, (*tried, "all")))
    return Table(f"{name}, Spearman by size of the real sample", columns, tuple(rows))


def _complexity(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = [Column("task", is_name=True), Column("proxies above the best baseline", True)]
    columns += map(Column, ("best proxy", "consensus", "best baseline", "ceiling"))
    rows = []
    for name, task in tasks.items():
        base = task["best_baseline"]
        figures = {
            k: v["spearman"] for k, v in task["proxies"].items() if v["spearman"] is not None
        }
        real = {k: v for k, v in figures.items() if k != "mdm" and not k.startswith("baseline")}
        best = max(real, key=lambda key: real[key])
        above = [key for key, value in real.items() if value > figures[base]]
        rows.append(
            (
                name,
                ", ".join(above) or "none",
                f"{best} {real[best]:.2f}",
                format_number(figures.get("consensus")),
                f"{base} {figures[base]:.2f}",
                format_number(task["noise_ceiling"]),
            )
        )
    return Table("", tuple(columns), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
