"""The page of a fit: map, examples and `report.html` in the run's folder."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from synque_select.errors import SynqueError
from synque_select.report.examples_and_map import write_examples, write_map
from synque_select.report.page import write_report
from synque_select.selection.scorer import Scorer
from synque_select.training.datamodule import SynqueDataModule

__all__ = ["write_page"]


def write_page(folder: Path, datamodule: SynqueDataModule, scorer: Scorer | None) -> Path | None:
    """Write the page after training; what cannot be shown is warned of, and nothing is lost.

    Args:
        folder: The run's folder.
        datamodule: Its candidates and real sample are shown.
        scorer: Its cached embeddings make the map; None for no map.

    Returns:
        The page's path; None where there is none.
    """
    sets = [*datamodule.candidates, *([datamodule.real] if datamodule.real is not None else [])]
    try:
        write_examples(folder, {examples.name: examples.views for examples in sets})
        embedded = None
        if scorer is not None and datamodule.real is not None:
            embedded = scorer.embeddings(datamodule.candidates, datamodule.real)
        if embedded is not None:
            write_map(folder, *embedded)
        return write_report(folder)
    except SynqueError as error:
        rank_zero_warn(f"the page of the run in {folder} is not complete: {error}")
        return None
