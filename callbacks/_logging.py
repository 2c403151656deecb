"""Tables, figures and texts for whatever loggers a Trainer has."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_warn

from synque_select.report.plots import to_png
from synque_select.report.table import Column, Table
from synque_select.training.datamodule import SynqueDataModule

__all__ = ["LoggedTable", "log_figure", "log_mixture", "log_table", "log_text"]


@dataclass(frozen=True)
class LoggedTable:
    """A table of plain values, and the Markdown text that says the same and more.

    Args:
        columns: Names of the columns.
        rows: Numbers, texts, and None for what is undefined.
        text: Markdown, for loggers that show texts.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    text: str


def log_table(trainer: Trainer, name: str, table: LoggedTable) -> None:
    """Give a table to every logger that can hold one; called on rank 0.

    TensorBoard gets a text, CSVLogger the file `<name>.csv` in its `log_dir`, W&B a Table, MLflow
    the artifacts `<name>.md` and `<name>.csv`, any other logger what its `log_table` or its
    experiment's `add_text` takes. A logger that fails is warned of, and training goes on.
    """
    _for_each_logger(trainer, name, lambda logger: _log_table(logger, name, table, trainer))


def log_figure(trainer: Trainer, name: str, figure: Any) -> None:
    """Give a matplotlib figure to every logger that can hold one; called on rank 0."""
    _for_each_logger(trainer, name, lambda logger: _log_figure(logger, name, figure, trainer))


def log_mixture(trainer: Trainer, datamodule: SynqueDataModule) -> None:
    """Give what is trained on to every logger: each part, its examples, its share of the draws.

    Called on rank 0, once a checkpoint is restored.
    """
    if datamodule.mixture is None:
        return
    parts, mixture = datamodule.drawn(datamodule.mixture)
    sizes = {part.name: len(part) for part in parts}
    rows: list[list[Any]] = [[n, sizes[n], share] for n, share in mixture.weights.items()]
    columns = ["trained on", "n", "share"]
    shown = Table(
        f"Mixture: {mixture.source}",
        tuple(Column(column, is_name=column == "trained on") for column in columns),
        tuple((name, str(n), f"{share:.4f}") for name, n, share in rows),
    )
    log_table(trainer, "synque_mixture", LoggedTable(columns, rows, shown.markdown()))


def log_text(trainer: Trainer, name: str, text: str) -> None:
    """Give a text, such as a rubric, to every logger that can hold one; called on rank 0.

    TensorBoard gets a text, CSVLogger the file `<name>.md` in its `log_dir`, W&B a Table of one
    cell, MLflow the artifact `<name>.md`.
    """
    _for_each_logger(trainer, name, lambda logger: _log_text(logger, name, text, trainer))


def _for_each_logger(trainer: Trainer, name: str, give: Callable[[Logger], None]) -> None:
    for logger in trainer.loggers:
        try:
            give(logger)
        except Exception as error:  # a logger's trouble is no reason to lose a training
            rank_zero_warn(
                f"{type(logger).__name__} could not take {name!r}: {type(error).__name__}: {error}"
            )


def _log_table(logger: Logger, name: str, table: LoggedTable, trainer: Trainer) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, CSVLogger):
        _write(logger.log_dir, f"{name}.csv", _csv(table).encode())
    elif isinstance(logger, MLFlowLogger):
        experiment.log_text(logger.run_id, table.text, f"{name}.md")
        experiment.log_text(logger.run_id, _csv(table), f"{name}.csv")
    elif hasattr(logger, "log_table"):
        rows = [list(row) for row in table.rows]
        logger.log_table(key=name, columns=list(table.columns), data=rows)
    elif hasattr(experiment, "add_text"):
        experiment.add_text(name, table.text, trainer.global_step)


def _log_text(logger: Logger, name: str, text: str, trainer: Trainer) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, CSVLogger):
        _write(logger.log_dir, f"{name}.md", text.encode())
    elif isinstance(logger, MLFlowLogger):
        experiment.log_text(logger.run_id, text, f"{name}.md")
    elif isinstance(logger, WandbLogger):
        logger.log_text(key=name, columns=["text"], data=[[text]])
    elif hasattr(experiment, "add_text"):
        experiment.add_text(name, text, trainer.global_step)


def _log_figure(logger: Logger, name: str, figure: Any, trainer: Trainer) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, CSVLogger):
        _write(logger.log_dir, f"{name}.png", to_png(figure))
    elif isinstance(logger, MLFlowLogger):
        experiment.log_figure(logger.run_id, figure, f"{name}.png")
    elif isinstance(logger, WandbLogger):
        logger.log_image(key=name, images=[figure])
    elif hasattr(experiment, "add_figure"):
        experiment.add_figure(name, figure, trainer.global_step, close=False)


def _write(folder: str, file: str, content: bytes) -> None:
    # Lightning's log_dir may be in an object store; it depends on fsspec itself
    import fsspec  # type: ignore[import-untyped]

    with fsspec.open(posixpath.join(folder, file), "wb", auto_mkdir=True) as stream:
        stream.write(content)


def _csv(table: LoggedTable) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([table.columns, *table.rows])
    return text.getvalue()
