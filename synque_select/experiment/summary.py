"""What a run prints at its end, and the files of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synque_select.data.candidate import RealSample
from synque_select.encoders import embed, get_encoder
from synque_select.experiment.task import BaseTask
from synque_select.functional.correlation import Correlation
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import write_json
from synque_select.report.correlation_tables import correlation_table
from synque_select.report.examples_and_map import write_examples, write_map
from synque_select.report.experiment_tables import arms_table, comparison_table, cost_table
from synque_select.report.formats import format_number
from synque_select.report.page import write_report
from synque_select.report.ranking_tables import ranking_tables
from synque_select.report.table import Column, Table
from synque_select.types import Ranking

__all__ = ["summary", "write_run"]


def write_run(
    folder: Path,
    task: BaseTask,
    sample: RealSample,
    rankings: Sequence[Ranking],
    result: Mapping[str, Any],
    correlations: Sequence[KeyCorrelations],
    cache_dir: str | Path | None,
) -> Path:
    """Write all files of a run's folder and return the path of its page.

    Args:
        folder: Where to.
        task: What was run.
        sample: The real sample of the first replicate.
        rankings: One a replicate; the first is the folder's `ranking.json`.
        result: The content of `result.json`.
        correlations: Of the probes, one a real sample.
        cache_dir: Where embeddings are kept.
    """
    save_ranking(rankings[0], folder)
    for replicate, ranking in enumerate(rankings):
        save_ranking(ranking, folder / "rankings" / f"replicate-{replicate + 1}.json")
    write_json(folder / "result.json", result)
    save_correlations(correlations, folder)
    write_examples(
        folder, {"real sample": sample.views, **{c.name: c.views for c in task.candidates}}
    )
    if rankings[0].encoder is not None:
        encoder = get_encoder(task.encoder, sample.modality)
        where = None if cache_dir is None else Path(cache_dir)
        real, *others = (
            embed(encoder, examples, cache_dir=where, progress=False).embeddings
            for examples in (sample, *task.candidates)
        )
        names = [candidate.name for candidate in task.candidates]
        write_map(folder, real, dict(zip(names, others, strict=True)))
    return write_report(folder)


def summary(result: Mapping[str, Any], ranking: Ranking) -> str:
    """Return the closing tables of an experiment as text."""
    reliability = result["correlations"].get(ranking.rank_by)
    tables = [
        *ranking_tables(
            ranking,
            reliability=None if reliability is None else Correlation.from_dict(reliability),
        ),
        _singles_table(result),
        arms_table(result),
        comparison_table(result),
        *_correlation_tables(result),
        cost_table(result["wall_s"]),
    ]
    return "\n\n".join(table.text() for table in tables)


def _singles_table(result: Mapping[str, Any]) -> Table:
    better = result["metric"]["mode"] == "max"
    rows = sorted(result["candidates"].items(), key=lambda item: item[1]["test"], reverse=better)
    data, budget = result["data"], result["budget"]
    return Table(
        f"Each candidate alone, {result['metric']['name']}",
        (Column("candidate", is_name=True), *map(Column, ("test", "std", "validation", "seeds"))),
        tuple(
            (
                name,
                *(format_number(row[column], 3) for column in ("test", "std", "validation")),
                str(row["n_seeds"]),
            )
            for name, row in rows
        ),
        (
            f"{budget['n_distinct']:,} distinct examples, {budget['max_steps']} steps of "
            f"{budget['batch_size']}; {data['n_test']} real examples for test, "
            f"{data['n_validation']} for validation, none of them in a real sample",
        ),
    )


def _correlation_tables(result: Mapping[str, Any]) -> list[Table]:
    metric, n = result["metric"]["name"], result["data"]["n_candidates"]
    tables = [_correlation(result, "correlations", f"{metric} over {n} probes")]
    if "false_labels" in result:
        left_out = ", ".join(result["false_labels"])
        title = f"{metric} over the probes without {left_out} (false labels)"
        tables.append(_correlation(result, "correlations_without_false_labels", title))
    return tables


def _correlation(result: Mapping[str, Any], name: str, title: str) -> Table:
    found = {key: Correlation.from_dict(state) for key, state in result[name].items()}
    table = correlation_table(found, title=f"Proxies against {title}, first real sample")
    means = result[f"{name}_mean_over_real_samples"]
    words = ", ".join(f"{key} {mean['spearman']:+.2f}" for key, mean in means.items())
    n_keys = max((mean["n_keys"] for mean in means.values()), default=0)
    notes = [f"mean Spearman over {n_keys} real samples: {words}"] if n_keys > 1 else []
    return Table(
        table.title, table.columns, table.rows, (*table.notes, *notes, *result[f"{name}_messages"])
    )
