"""The command `synque-select`."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import importlib.metadata
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synque_select.cli.commands import COMMANDS, Command, ConfigCommand
from synque_select.cli.options import (
    EXIT_STATUSES,
    check_values,
    help_formatter,
    utf8_configs,
    with_config_paths,
)
from synque_select.cli.parser_errors import parser_message, with_place
from synque_select.cli.safe_output import safe_output
from synque_select.errors import ConfigError, SynqueError, did_you_mean, without_keys
from synque_select.records.run_info import command_to_record
from synque_select.utils.interrupts import INTERRUPTED, PromptInterrupts
from synque_select.utils.wording import one_line, printable
from synque_select.utils.working_folder import modules_of_working_folder

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["first_sentence", "main", "parser_of"]

_WITH_FITS = ("fit", "sweep", "influence", "tune", "experiment")
_CLEANUP_S, _CLEANUP_OF_FITS_S = 0.5, 10.0
_NEW_OBJECTS = 100_000
_MAX_COMMAND = 600  # characters
_MAX_PATH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line on stderr and status 1.

    Args:
        arguments: Arguments after `synque-select`; None for those of the process.
    """
    ended: SystemExit | None = None
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and (not given or given[0] not in _WITH_FITS):
        _collect_rarely()
    interrupts = PromptInterrupts(
        lambda: _interrupted(given),
        # Lightning saves and tears down before a fit ends
        cleanup_s=_CLEANUP_OF_FITS_S if given[:1] and given[0] in _WITH_FITS else _CLEANUP_S,
        ends_process=arguments is None,
    )
    with interrupts, safe_output() as output:
        try:
            status = _run(given)
        except SystemExit as error:  # after --help, or an error of the parser of options
            ended, status = error, bool(error.code)
        except KeyboardInterrupt:
            status = INTERRUPTED
        if interrupts.happened:  # Lightning ends an interrupted fit with SystemExit(1)
            ended, status = None, INTERRUPTED
            print(f"\n{_interrupted(given)}", file=sys.stderr)
            interrupts.note_printed()
    if output is not None and output.problem is not None and status == 0:
        print(
            f"synque-select: error: the output was not written: {output.problem}; files that were "
            "asked for, as with --json, are written",
            file=sys.stderr,
        )
        return 1
    if ended is not None:
        raise ended
    return status


def _collect_rarely() -> None:
    """Let Python search for garbage rarely, and not at the end of the process.

    Imports make a million objects that stay. Searching among them again and again, and once more
    before the end, which frees the memory anyway, takes as long as all else that `rank` does when
    everything is cached.
    """
    gc.set_threshold(_NEW_OBJECTS)
    atexit.register(gc.freeze)


def _run(given: list[str]) -> int:
    try:
        with command_to_record(*given):
            return _dispatch(given)
    except Exception as error:
        message = _user_message(error, given)
        if message is None:
            raise
        # a name in the message may contain escape sequences that a terminal would execute
        print(f"synque-select: error: {printable(without_keys(message))}", file=sys.stderr)
        return 1


def _interrupted(arguments: Sequence[str]) -> str:
    """Say what an interrupt has kept, and how to go on."""
    from synque_select.llm.openai.masking import mask_secrets

    command = printable(mask_secrets(shlex.join(["synque-select", *arguments])))
    how = "give the same command again" if len(command) > _MAX_COMMAND else command
    if arguments[:1] == ["fit"]:
        how = f"{how} (training starts anew; --ckpt_path FILE continues from a checkpoint)"
    return f"synque-select: interrupted; finished work is kept. To go on: {how}"


def _user_message(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return the message if the error, or one that it wraps, is meant for the user."""
    problem: BaseException | None = error
    while problem is not None:
        if isinstance(problem, SynqueError):
            return with_place(str(problem), arguments)
        problem = problem.__cause__ or problem.__context__
    if isinstance(error, argparse.ArgumentError):
        return parser_message(error, arguments)
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.ENOSPC:
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:  # such as a name that is too long
        return f"{one_line(os.fsdecode(error.filename), _MAX_PATH)}: {error.strerror}"
    return None


def _dispatch(given: Sequence[str]) -> int:
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"synque-select {importlib.metadata.version('synque-select')}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}: {did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    if isinstance(command, ConfigCommand):
        return command.run(list(given[1:]))
    if given[1:2] and given[1] in command.of_config:
        return command.of_config[given[1]](list(given[2:]))
    parser = parser_of(name, command)
    with modules_of_working_folder(), utf8_configs():
        options = parser.parse_args(with_config_paths(given[1:]))
        # the supported versions of jsonargparse have this method under two names
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        created = instantiate(options)
        check_values(parser, created)
        return command.run(created)


def parser_of(name: str, command: Command) -> ArgumentParser:
    """Return the parser of a command's options."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=f"synque-select {name}",
        description=command.run.__doc__,
        epilog=EXIT_STATUSES,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=help_formatter(),
    )
    command.arguments(parser)
    return parser


def _help() -> str:
    lines = [
        "usage: synque-select COMMAND [OPTIONS]",
        "",
        "Rank candidate synthetic datasets against a small unlabeled real sample, train on the",
        "best mixture, and see how well the proxies predicted the results.",
        "",
        "commands:",
        *(line for name, command in COMMANDS.items() for line in _described(name, command)),
        "",
        "synque-select COMMAND --help lists a command's options; --version prints the version.",
        "",
        *textwrap.wrap(EXIT_STATUSES, 80, break_on_hyphens=False),
    ]
    return "\n".join(lines)


def _described(name: str, command: Command | ConfigCommand) -> list[str]:
    lead, rest = f"  {name:<11} ", " " * 14
    return textwrap.wrap(first_sentence(command), 80, initial_indent=lead, subsequent_indent=rest)


def first_sentence(command: Command | ConfigCommand) -> str:
    """Return what a command does, without a full stop."""
    return " ".join(str(command.run.__doc__).split()).partition(". ")[0].rstrip(".")
