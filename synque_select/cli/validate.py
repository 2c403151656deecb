"""The command `synque-select validate`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, cast

from synque_select.cli.options import (
    check_values,
    lightning_command_line,
    packaged_config,
    with_config_paths,
)
from synque_select.errors import ConfigError
from synque_select.utils.wording import counted, listed, printable
from synque_select.utils.yaml_files import read_yaml_file

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser, Namespace
    from pytorch_lightning import LightningDataModule, Trainer
    from pytorch_lightning.cli import LightningCLI

    from synque_select.data.candidate import Candidate
    from synque_select.data.examples import Examples
    from synque_select.selection.scorer import ScoringJob

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument(
        "file",
        metavar="CONFIG",
        help="a config of rank (as `synque-select init` writes it), or of fit, sweep and tune",
    )


def run(options: Namespace) -> int:
    """Check a config and all data that it names, without loading a model.

    Every example is read, views and labels are checked, and the proxies are resolved. Prints what
    will be ranked.
    """
    path = str(packaged_config(options.file))
    given = with_config_paths([f"--config={path}"])
    content = read_yaml_file(path)
    is_fit = isinstance(content, dict) and bool({"model", "data", "trainer"} & content.keys())
    job = _of_fit(given) if is_fit else _of_rank(given)
    if job is None:
        return 0
    _check_values(job)
    _print(job)
    for_command = "fit" if is_fit else "rank"
    print(f"{options.file} can be used: synque-select {for_command} --config {options.file}")
    return 0


def _of_rank(given: Sequence[str]) -> ScoringJob:
    import jsonargparse

    from synque_select.cli import rank

    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    rank.arguments(parser)
    options = parser.parse_args(list(given))
    check_values(parser, options)
    return rank.prepared(options)


def _of_fit(given: Sequence[str]) -> ScoringJob | None:
    """Parse a config of fit, and create its DataModule and callbacks, but no model."""
    import torch

    from synque_select.callbacks.selection import BaseSelectionCallback
    from synque_select.cli.lightning_classes import lightning_classes
    from synque_select.selection.scorer import Scorer
    from synque_select.training.datamodule import BaseSynqueDataModule

    with lightning_command_line(*given), _without_notes():
        classes = lightning_classes(given)
        cli = _parsing_only(classes.cli)(
            # see check_inner
            datamodule_class=cast("type[LightningDataModule]", classes.datamodule),
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
        )
        config = cli.config.clone()
        for key in [key for key in vars(config) if key not in ("data", "trainer")]:
            config.pop(key)
        callbacks = config.pop("trainer").callbacks
        if callbacks:
            config["trainer.callbacks"] = callbacks
        instantiate = getattr(cli.parser, "instantiate", None) or cli.parser.instantiate_classes
        created = instantiate(config)
        data = created.data
        if not isinstance(data, BaseSynqueDataModule):
            raise ConfigError(
                f"data: found {type(data).__name__}; what is ranked is in a SynqueDataModule"
            )
        if data.real is None:
            print(f"{counted(len(data.candidates), 'candidate')} and no real sample: no ranking")
            return None
        parts = created.trainer.callbacks if callbacks else []
        selection = [part for part in parts if isinstance(part, BaseSelectionCallback)]
        # a trainer would look for the accelerator of the config
        trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
        scorer = selection[0].scorer(cast("Trainer", trainer)) if selection else Scorer()
        return scorer.prepare(data.candidates, data.real)


def _parsing_only(cli: type[LightningCLI]) -> type[LightningCLI]:
    """Return a LightningCLI that leaves all but the Trainer as it is in the config."""

    class ParsingCLI(cli):  # type: ignore[valid-type,misc]
        def instantiate_classes(self) -> None:
            """Create the Trainer alone, which refuses what its types allow."""
            self.config_init = {"trainer": _plain_trainer(vars(self.config.trainer))}
            self.instantiate_trainer()

    return ParsingCLI


def _plain_trainer(given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a trainer on this machine that opens no logger and writes nothing."""
    kinds = (bool, int, float, str, type(None))
    plain: dict[str, object] = {k: v for k, v in given.items() if isinstance(v, kinds)}
    plain |= {"callbacks": None, "logger": False, "enable_checkpointing": False}
    # the config may be for a machine with other devices
    if plain["accelerator"] in ("gpu", "cuda", "mps", "tpu"):
        plain |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1}
        plain |= {"strategy": "auto", "precision": None}
    return plain


@contextmanager
def _without_notes() -> Iterator[None]:
    """Hide what Lightning logs of seeds and devices: nothing is trained."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _check_values(job: ScoringJob) -> None:
    """Read every label; `prepare` has read every view."""
    from synque_select.encoders import get_encoder

    for candidate in job.given:
        if candidate.label is not None:
            _ = candidate.labels
    if job.needs_embeddings:
        get_encoder(job.scorer.encoder, job.real.modality, device="cpu")


def _print(job: ScoringJob) -> None:
    from synque_select.data.left_out import left_out_messages
    from synque_select.data.view_messages import view_messages
    from synque_select.report.table import Column, Table, terminal_width, wrap_text

    rows = [_row(part) for part in (*job.given, job.real)]
    columns = (
        Column("data", is_name=True),
        Column("n"),
        Column("view", is_name=True),
        Column("label", is_name=True),
    )
    notes = [
        *view_messages((*job.given, job.real)),
        *left_out_messages(job.given, job.real),
        *(f"{part.candidate.name} is not compared, as {part.reason}." for part in job.degenerate),
        *((job.unchecked,) if job.unchecked else ()),
    ]
    print(Table("What will be ranked", columns, tuple(rows)))
    for note in notes:
        print(*wrap_text(printable(note), terminal_width()), sep="\n")
    print(f"proxies: {', '.join(proxy.key for proxy in job.suite)}")


def _row(part: Examples) -> tuple[str, ...]:
    from synque_select.data.candidate import Candidate

    label = "never read"
    if isinstance(part, Candidate):
        label = "-" if part.label is None else _label(part)
    return (part.name, f"{len(part):,}", _selector(part.selector), label)


def _label(part: Candidate) -> str:
    from synque_select.data.label_sets import label_kind

    kind, names = label_kind([part.labels]), sorted({*part.labels})
    return f"{_selector(part.label)}: {listed(names)}" if kind == "classes" else f"{kind}"


def _selector(selector: object) -> str:
    named = selector.__name__ if isinstance(selector, FunctionType) else str(selector)
    return "the example" if named == "_identity" else named
