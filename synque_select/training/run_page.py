"""The page of a fit: map, examples and `report.html` in the directory of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synque_select.data.views import View
from synque_select.records.ranking_file import load_ranking
from synque_select.records.run_folder import write_json
from synque_select.records.run_info import save_run_info
from synque_select.report.examples_and_map import name_of_real, write_examples, write_map
from synque_select.report.page import write_report
from synque_select.selection.scorer import Scorer
from synque_select.training.bookkeeping import bookkeeping

if TYPE_CHECKING:
    from synque_select.training.datamodule import AnySynqueDataModule

__all__ = ["write_page"]


def write_page(
    run_dir: Path, datamodule: AnySynqueDataModule, scorer: Scorer | None
) -> Path | None:
    """Write the page after training; an error becomes a warning, so that the run is not lost.

    Args:
        run_dir: Directory of the run.
        datamodule: The page shows its candidates and its real sample.
        scorer: The map shows its cached embeddings; None for no map.

    Returns:
        Path of the page; None if it could not be written.
    """
    how = f"`synque-select report {run_dir}` writes it again"
    with bookkeeping(f"the page of the run in {run_dir} is not complete ({how})"):
        embedded = None
        if scorer is not None and datamodule.real is not None:
            embedded = scorer.embeddings(datamodule.candidates, datamodule.real)
        write_examples(run_dir, _views(run_dir, datamodule), embeddings=embedded)
        if embedded is not None:
            write_map(run_dir, *embedded)
        save_run_info(run_dir)
        if datamodule.sampling:
            write_json(run_dir / "sampling.json", datamodule.sampling)
        return write_report(run_dir)
    return None


def _views(run_dir: Path, datamodule: AnySynqueDataModule) -> Mapping[str, Sequence[View]]:
    """Return the views of the real sample, then of the candidates in the order of the ranking."""
    views = {candidate.name: candidate.views for candidate in datamodule.candidates}
    has_ranking = (run_dir / "ranking.json").is_file()
    order = [row.name for row in load_ranking(run_dir)] if has_ranking else list(views)
    ordered = {name: views[name] for name in order if name in views}
    if datamodule.real is None:
        return ordered
    return {name_of_real(views): datamodule.real.views, **ordered}
