"""`--help` of the commands that take a fit config: our options, then the way to Lightning's."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from synque_select.cli.options import (
    EXIT_STATUSES,
    RUN_FILES,
    configs_help,
    help_formatter,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["asks_for_help", "help_parser", "print_help", "with_full_help"]

_ALL = "--help-all"
_TYPE = re.compile(
    r"\s*\((?P<required>required, )?type: .*?(?:, default: (?P<default>[^()]*?))?"
    r"(?:, known subclasses: .*)?\)$",
    re.DOTALL,
)
_OF_LIGHTNING = (
    ("--model CLASS", "the LightningModule; its arguments are --model.NAME"),
    ("--trainer.max_steps N", "optimizer steps; --trainer.max_epochs N for epochs"),
    ("--trainer.accelerator NAME", "cpu, gpu, …; --trainer.devices, .strategy and .precision, too"),
    ("--trainer.callbacks LIST", "best given in the config, with SelectionCallback among them"),
    ("--seed_everything N", "seed of the initial weights"),
)
_EPILOG = f"""All other options are LightningCLI's: `{{prog}} {_ALL}` lists them, and
`{{prog}} --trainer.callbacks.help=synque_select.SelectionCallback` those of a class.

{EXIT_STATUSES}"""


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Return whether the arguments ask for the help of a command that takes a fit config."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def with_full_help(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as LightningCLI takes them."""
    return ["--help" if argument == _ALL else argument for argument in arguments]


def print_help(
    name: str,
    description: str,
    options: type | None = None,
    function: Callable[..., object] | None = None,
) -> int:
    """Print the help that `help_parser` makes."""
    help_parser(name, description, options, function).print_help()
    return 0


def help_parser(
    name: str,
    description: str = "",
    options: type | None = None,
    function: Callable[..., object] | None = None,
) -> ArgumentParser:
    """Return a parser with the options that are not Lightning's, and the most used of Lightning's.

    Args:
        name: Name of the command.
        description: What it does.
        options: A dataclass whose fields are options of the command.
        function: A function whose arguments of `RUN_FILES` also are.
    """
    from jsonargparse import ArgumentParser

    from synque_select.training.pytorch_lightning import SynqueDataModule

    prog = f"synque-select {name}"
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} --config CONFIG [OPTIONS]",
        description=description,
        epilog=_EPILOG.format(prog=prog),
        formatter_class=_formatter(),
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this help")
    parser.add_argument(_ALL, action="store_true", help="show Lightning's options, too")
    parser.add_argument("-c", "--config", help=configs_help())
    if name == "fit":
        parser.add_argument("--name", help="name of the run (default: two words, such as red-fox)")
        parser.add_argument("--ckpt_path", help="checkpoint to continue from")
    parser.add_argument("--print_config", action="store_true", help="print the config and exit")
    if options is not None and function is not None:
        parser.add_class_arguments(options, name, instantiate=False)
        skipped: set[str | int] = {*inspect.signature(function).parameters}
        skipped -= RUN_FILES
        parser.add_function_arguments(function, name, skip=skipped, as_group=False)
    parser.add_class_arguments(SynqueDataModule, "data", instantiate=False)
    group = parser.add_argument_group("The most used options of Lightning")
    for option, text in _OF_LIGHTNING:
        flag, _, value = option.partition(" ")
        group.add_argument(flag, metavar=value, help=text)
    return parser


def _formatter() -> type[argparse.HelpFormatter]:
    """Return a formatter that leaves types out, which are Python's, and options for their help."""

    class Formatter(help_formatter()):  # type: ignore[misc]  # made where jsonargparse is imported
        def _expand_help(self, action: argparse.Action) -> str:
            text: str = super()._expand_help(action)
            return _TYPE.sub(_without_type, text.removesuffix(" (default: False)"))

        def add_argument(self, action: argparse.Action) -> None:
            is_help = any(option.endswith(".help") for option in action.option_strings)
            if not is_help and action.metavar != "CONFIG":
                super().add_argument(action)

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            fill: Any = super()._fill_text
            return "\n\n".join(fill(part, width, indent) for part in text.split("\n\n"))

    return Formatter


def _without_type(match: re.Match[str]) -> str:
    default = match["default"]
    if match["required"]:
        return " (required)"
    return "" if default in (None, "null") else f" (default: {default})"
