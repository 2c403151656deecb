"""Logging of tables, figures and texts to the loggers of a Trainer."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, TypeGuard

from lightning_utilities.core.rank_zero import rank_zero_warn

from synque_select.report.plots import to_png
from synque_select.report.table import Column, Table
from synque_select.training.bookkeeping import reason_of
from synque_select.training.lightning_compat import lightning_module_of
from synque_select.training.lineage import log_to_mlflow, log_to_wandb, trained_on
from synque_select.utils.csv_text import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, WandbLogger

    from synque_select.data.candidate import Candidate
    from synque_select.training.datamodule import AnySynqueDataModule
    from synque_select.training.lightning_compat import AnyLogger, AnyTrainer
    from synque_select.types import Mixture

__all__ = [
    "Cell",
    "LoggedTable",
    "log_figure",
    "log_mixture",
    "log_numbers",
    "log_table",
    "log_text",
    "warn_of_failed_logger",
]

Cell = str | float | None


@dataclass(frozen=True)
class LoggedTable:
    """A table of plain values, and a Markdown text with at least the same content.

    Args:
        columns: Names of the columns.
        rows: Numbers, texts, and None for undefined values.
        text: Markdown, for loggers that show texts.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text: str


def log_table(trainer: AnyTrainer, name: str, table: LoggedTable) -> None:
    """Log a table to every logger that supports tables; called on rank 0.

    TensorBoard gets a text, CSVLogger the file `<name>.csv` in its `log_dir`, W&B a Table, MLflow
    the artifacts `<name>.md` and `<name>.csv`. Any other logger gets the table through its
    `log_table`, or the text through its experiment's `add_text`, if it has one of them. A logger
    that fails causes a warning, and training continues.
    """
    _for_each_logger(trainer, name, lambda logger: _log_table(logger, name, table, trainer))


def log_numbers(trainer: AnyTrainer, numbers: Mapping[str, float]) -> None:
    """Log numbers at the current step to every logger; called on rank 0."""
    step = trainer.global_step
    for_logger = lambda logger: logger.log_metrics(dict(numbers), step=step)  # noqa: E731
    _for_each_logger(trainer, ", ".join(numbers), for_logger)


def log_figure(trainer: AnyTrainer, name: str, figure: Figure) -> None:
    """Log a matplotlib figure to every logger that supports figures; called on rank 0."""
    _for_each_logger(trainer, name, lambda logger: _log_figure(logger, name, figure, trainer))


def log_mixture(trainer: AnyTrainer, datamodule: AnySynqueDataModule) -> None:
    """Log the mixture: each dataset, its number of examples and its share of the draws.

    MLflow and W&B also get the datasets as inputs of the run, with digest, weight and source.
    Called on rank 0, after a checkpoint is restored.
    """
    if datamodule.mixture is None:
        return
    parts, mixture = datamodule.with_labeled_real(datamodule.mixture)
    sizes = {part.name: len(part) for part in parts}
    rows = [(name, sizes[name], share) for name, share in mixture.weights.items()]
    columns = ["trained on", "n", "share"]
    shown = Table(
        f"Mixture: {mixture.source}",
        tuple(Column(column, is_name=column == "trained on") for column in columns),
        tuple((name, str(n), f"{share:.4f}") for name, n, share in rows),
    )
    log_table(trainer, "synque_mixture", LoggedTable(columns, rows, shown.markdown()))
    _for_each_logger(trainer, "the datasets", lambda logger: _log_inputs(logger, parts, mixture))


def _log_inputs(logger: AnyLogger, parts: Sequence[Candidate], mixture: Mixture) -> None:
    if _is_mlflow(logger):
        log_to_mlflow(logger.experiment, str(logger.run_id), trained_on(parts, mixture))
    elif _is_wandb(logger):
        log_to_wandb(logger.experiment, trained_on(parts, mixture))


def log_text(trainer: AnyTrainer, name: str, text: str) -> None:
    """Log a text, such as a rubric, to every logger that supports texts; called on rank 0.

    TensorBoard gets a text, CSVLogger the file `<name>.md` in its `log_dir`, W&B a Table of one
    cell, MLflow the artifact `<name>.md`.
    """
    _for_each_logger(trainer, name, lambda logger: _log_text(logger, name, text, trainer))


def _for_each_logger(trainer: AnyTrainer, name: str, log: Callable[[AnyLogger], None]) -> None:
    for logger in trainer.loggers:
        try:
            log(logger)
        except Exception as error:  # a failing logger must not end the training
            rank_zero_warn(f"{type(logger).__name__} could not take {name!r}: {reason_of(error)}")


def warn_of_failed_logger(
    trainer: AnyTrainer, error: BaseException, run_dir: Path | None, *, has_finished: bool
) -> None:
    """Say what is left and what to do where a logger that Lightning itself calls ends the fit."""
    owners = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    logger = next((each for each in trainer.loggers if any(each is o for o in owners)), None)
    if logger is None or not isinstance(error, Exception):
        return
    failed = f"{type(logger).__name__} failed ({reason_of(error)})"
    if has_finished:
        rank_zero_warn(f"{failed} after the fit had finished: its files are in {run_dir}")
        return
    rank_zero_warn(
        f"{failed}, and Lightning, which calls it, has ended the fit at step "
        f"{trainer.global_step}. Free its disk or leave this logger out, and fit again; "
        "ckpt_path= of trainer.fit, with a checkpoint of this fit, continues the run in "
        f"{run_dir}"
    )


def _log_table(logger: AnyLogger, name: str, table: LoggedTable, trainer: AnyTrainer) -> None:
    experiment = _experiment(logger)
    if _is_csv(logger):
        _write(logger.log_dir, f"{name}.csv", csv_text([table.columns, *table.rows]))
    elif _is_mlflow(logger):
        experiment.log_text(logger.run_id, table.text, f"{name}.md")
        content = csv_text([table.columns, *table.rows])
        experiment.log_text(logger.run_id, content, f"{name}.csv")
    elif hasattr(logger, "log_table"):
        rows = [list(row) for row in table.rows]
        logger.log_table(key=name, columns=list(table.columns), data=rows)
    elif hasattr(experiment, "add_text"):
        experiment.add_text(name, table.text, trainer.global_step)


def _log_text(logger: AnyLogger, name: str, text: str, trainer: AnyTrainer) -> None:
    experiment = _experiment(logger)
    if _is_csv(logger):
        _write(logger.log_dir, f"{name}.md", text)
    elif _is_mlflow(logger):
        experiment.log_text(logger.run_id, text, f"{name}.md")
    elif _is_wandb(logger):
        logger.log_text(key=name, columns=["text"], data=[[text]])
    elif hasattr(experiment, "add_text"):
        experiment.add_text(name, text, trainer.global_step)


def _log_figure(logger: AnyLogger, name: str, figure: Figure, trainer: AnyTrainer) -> None:
    experiment = _experiment(logger)
    if _is_csv(logger):
        _write(logger.log_dir, f"{name}.png", to_png(figure))
    elif _is_mlflow(logger):
        experiment.log_figure(logger.run_id, figure, f"{name}.png")
    elif _is_wandb(logger):
        logger.log_image(key=name, images=[figure])
    elif hasattr(experiment, "add_figure"):
        experiment.add_figure(name, figure, trainer.global_step, close=False)


# of either package; the types of the other are the same
def _is_csv(logger: object) -> TypeGuard[CSVLogger]:
    return isinstance(logger, lightning_module_of(logger, "loggers").CSVLogger)


def _is_mlflow(logger: object) -> TypeGuard[MLFlowLogger]:
    return isinstance(logger, lightning_module_of(logger, "loggers").MLFlowLogger)


def _is_wandb(logger: object) -> TypeGuard[WandbLogger]:
    return isinstance(logger, lightning_module_of(logger, "loggers").WandbLogger)


def _experiment(logger: AnyLogger) -> Any:
    """Return the object of the logging library that the logger wraps; None if it wraps none."""
    return getattr(logger, "experiment", None)


def _write(log_dir: str, file: str, content: str | bytes) -> None:
    # log_dir may be in an object store; Lightning itself depends on fsspec
    import fsspec

    if isinstance(content, str):  # half a surrogate pair, which UTF-8 does not have, is escaped
        content = content.encode("utf-8", "backslashreplace")
    with fsspec.open(posixpath.join(log_dir, file), "wb", auto_mkdir=True) as stream:
        stream.write(content)
