"""The page of a fit: map, examples and `report.html` in the directory of the run."""

from __future__ import annotations

from pathlib import Path

from synque_select.report.examples_and_map import write_examples, write_map
from synque_select.report.page import write_report
from synque_select.selection.scorer import Scorer
from synque_select.training.bookkeeping import bookkeeping
from synque_select.training.datamodule import SynqueDataModule

__all__ = ["write_page"]


def write_page(run_dir: Path, datamodule: SynqueDataModule, scorer: Scorer | None) -> Path | None:
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
        real = [] if datamodule.real is None else [datamodule.real]
        sets = [*datamodule.candidates, *real]
        write_examples(run_dir, {examples.name: examples.views for examples in sets})
        embedded = None
        if scorer is not None and datamodule.real is not None:
            embedded = scorer.embeddings(datamodule.candidates, datamodule.real)
        if embedded is not None:
            write_map(run_dir, *embedded)
        return write_report(run_dir)
    return None
