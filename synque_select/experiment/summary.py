"""What an experiment prints at its end, and the files of its run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synque_select.data.candidate import RealSample
from synque_select.experiment.task import BaseTask
from synque_select.records.correlation import KeyCorrelations
from synque_select.records.correlation_file import save_correlations
from synque_select.records.experiment_result import (
    ExperimentResult,
    ProxyCorrelations,
    save_result,
)
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_info import save_run_info
from synque_select.report.correlation_tables import correlation_table
from synque_select.report.examples_and_map import name_of_real, write_examples, write_map
from synque_select.report.experiment_tables import arms_table, comparison_tables, cost_table
from synque_select.report.formats import format_number
from synque_select.report.page import write_report
from synque_select.report.table import Column, Table
from synque_select.report.terminal import ranking_text
from synque_select.selection.scorer import Scorer
from synque_select.types import Findings, Ranking
from synque_select.utils.wording import counted

__all__ = ["summary", "write_run"]


def write_run(
    run_dir: Path,
    task: BaseTask,
    sample: RealSample,
    rankings: Sequence[Ranking],
    result: ExperimentResult,
    correlations: Sequence[KeyCorrelations],
    scorer: Scorer,
) -> Path:
    """Write all files of a run and return the path of its page.

    Args:
        run_dir: The run's directory.
        task: The task.
        sample: The real sample of the first replicate.
        rankings: One ranking per replicate; the first is written as `ranking.json`, with its label
            checks beside it.
        result: The result of the experiment.
        correlations: Correlations over the probes, one entry per real sample.
        scorer: How the rankings were made.
    """
    save_result(run_dir, result)
    save_ranking(rankings[0], run_dir)
    for replicate, ranking in enumerate(rankings):
        alone = replace(ranking, findings=Findings())
        save_ranking(alone, run_dir / "rankings" / f"replicate-{replicate + 1}.json")
    save_correlations(correlations, run_dir)
    embeddings = scorer.embeddings(task.candidates, sample)
    views = {candidate.name: candidate.views for candidate in task.candidates}
    ordered = {row.name: views[row.name] for row in rankings[0]}
    sets = {name_of_real(views): sample.views, **ordered}
    write_examples(run_dir, sets, embeddings=embeddings)
    if embeddings is not None:
        write_map(run_dir, *embeddings)
    save_run_info(run_dir)
    return write_report(run_dir)


def summary(result: ExperimentResult, ranking: Ranking) -> str:
    """Return the closing tables of an experiment as text."""
    reliability = result.correlations.proxies.get(ranking.rank_by)
    tables = [
        _singles_table(result),
        arms_table(result),
        *comparison_tables(result),
        *_correlation_tables(result),
        cost_table(result.wall_s),
    ]
    first = ranking_text(ranking, reliability=reliability)
    return "\n\n".join([first, *(table.text() for table in tables)])


def _singles_table(result: ExperimentResult) -> Table:
    better = result.metric.mode == "max"
    rows = sorted(result.candidates.items(), key=lambda item: item[1].test, reverse=better)
    notes = []
    if result.budget is not None and result.data is not None:
        budget, data = result.budget, result.data
        notes.append(
            f"{counted(budget.n_distinct, 'distinct example')}, "
            f"{counted(budget.max_steps, 'step')} of "
            f"{budget.batch_size}; {counted(data.n_test, 'real example')} for test, "
            f"{data.n_validation} for validation, none of them in a real sample"
        )
    return Table(
        f"Each candidate alone, {result.metric.name}",
        (Column("candidate", is_name=True), *map(Column, ("test", "std", "validation", "seeds"))),
        tuple(
            (
                name,
                *(format_number(value, 3) for value in (row.test, row.std, row.validation)),
                str(row.n_seeds),
            )
            for name, row in rows
        ),
        tuple(notes),
    )


def _correlation_tables(result: ExperimentResult) -> list[Table]:
    metric, n = result.metric.name, len(result.candidates)
    tables = [_correlation_table(result.correlations, f"{metric} over {counted(n, 'probe')}")]
    if result.without_false_labels is not None:
        left_out = ", ".join(result.false_labels)
        title = f"{metric} over the probes without {left_out} (false labels)"
        tables.append(_correlation_table(result.without_false_labels, title))
    return tables


def _correlation_table(correlations: ProxyCorrelations, title: str) -> Table:
    table = correlation_table(
        correlations.proxies, title=f"Proxies against {title}, first real sample"
    )
    means = correlations.mean_over_real_samples
    words = ", ".join(f"{key} {mean.spearman:+.2f}" for key, mean in means.items())
    n_keys = max((mean.n_keys for mean in means.values()), default=0)
    notes = [f"mean Spearman over {counted(n_keys, 'real sample')}: {words}"] if n_keys > 1 else []
    return Table(
        table.title, table.columns, table.rows, (*table.notes, *notes, *correlations.messages)
    )
