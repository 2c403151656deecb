"""`synque-select completion`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from synque_select.errors import DependencyError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["arguments", "run"]

_SHELLS = ("bash", "zsh", "tcsh")


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    parser.add_argument("shell", choices=_SHELLS, help="the shell that completes")


def run(options: Namespace) -> int:
    """Print a script that completes commands and options. For bash, add it to your ~/.bashrc.

    bash: `synque-select completion bash >> ~/.bashrc`; zsh: write it to a file `_synque-select` in
    a directory of $fpath.
    """
    try:
        import shtab
    except ImportError as error:
        raise DependencyError("shtab", extra="completion", purpose="shell completion") from error
    print(shtab.complete(_all_options(), options.shell))
    return 0


def _all_options() -> argparse.ArgumentParser:
    """Return one plain parser with the commands and their options."""
    from synque_select.cli.commands import COMMANDS, Command
    from synque_select.cli.main import first_sentence, parser_of

    root = argparse.ArgumentParser(prog="synque-select")
    commands = root.add_subparsers()
    for name, command in COMMANDS.items():
        known = parser_of(name, command) if isinstance(command, Command) else _of_lightning(name)
        part = commands.add_parser(name, help=_plain(first_sentence(command)))
        for action in known._actions:
            _add(part, action)
    return root


def _of_lightning(name: str) -> argparse.ArgumentParser:
    from synque_select.cli.lightning_help import help_parser

    if name == "sweep":
        from synque_select.probing.sweep import run_sweep
        from synque_select.training.short_fit import ShortFitOptions

        return help_parser(name, "", ShortFitOptions, run_sweep)
    if name == "influence":
        from synque_select.probing.influence import InfluenceOptions, run_influence

        return help_parser(name, "", InfluenceOptions, run_influence)
    if name == "tune":
        from synque_select.tuning.command import run_tuning
        from synque_select.tuning.options import TuneOptions

        return help_parser(name, "", TuneOptions, run_tuning)
    return help_parser(name)


def _add(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    """Add what a shell completes of an option: its names, its choices, and whether it is a path."""
    import shtab

    names = action.option_strings
    if {"-h", "--help"} & {*names} or any(name.endswith(".help") for name in names):
        return
    choices: Iterable[object] | None = action.choices
    listed = None if choices is None else list(map(str, choices))
    is_flag = action.nargs == 0
    if names:
        made = parser.add_argument(
            *names,
            dest=action.dest.replace(".", "_"),
            help=argparse.SUPPRESS if action.help is None else _plain(action.help),
            **({"action": "store_true"} if is_flag else {"choices": listed}),
        )
    else:
        made = parser.add_argument(action.dest, choices=listed)
    if not is_flag and listed is None:
        made.complete = shtab.FILE  # type: ignore[attr-defined]


def _plain(text: str) -> str:
    """Return a text that neither argparse nor a shell reads as a format."""
    return "".join(c for c in " ".join(text.split()) if c not in "%`$\"'\\[]:")[:80]
