"""The command `synque-select`."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib.metadata
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pydoc import locate

from synque_select.cli.commands import COMMANDS, Command, ConfigCommand
from synque_select.cli.options import (
    help_formatter,
    jsonargparse_module,
    modules_of_working_folder,
    with_config_paths,
)
from synque_select.cli.safe_output import safe_output
from synque_select.errors import ConfigError, SynqueError, did_you_mean
from synque_select.utils.wording import printable

__all__ = ["main"]

_MAX_PARSER_ERROR = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line on stderr and status 1.

    Args:
        arguments: Arguments after `synque-select`; None for those of the process.
    """
    ended: SystemExit | None = None
    with safe_output() as output:
        try:
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
        except SystemExit as error:  # after --help, or an error of the parser of options
            ended, status = error, bool(error.code)
    if output is not None and output.problem is not None and status == 0:
        print(
            f"synque-select: error: the output was not written: {output.problem}", file=sys.stderr
        )
        return 1
    if ended is not None:
        raise ended
    return status


def _run(given: list[str]) -> int:
    try:
        return _dispatch(given)
    except Exception as error:
        message = _user_message(error)
        if message is None:
            raise
        # a name in the message may contain escape sequences that a terminal would execute
        print(f"synque-select: error: {printable(message)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("synque-select: interrupted; finished work is kept", file=sys.stderr)
        return 130


def _user_message(error: BaseException) -> str | None:
    """Return the message if the error, or one that it wraps, is meant for the user."""
    problem: BaseException | None = error
    while problem is not None:
        if isinstance(problem, SynqueError):
            return str(problem)
        problem = problem.__cause__ or problem.__context__
    if isinstance(error, argparse.ArgumentError):
        return _unrecognized(error) or _unknown_option(str(error)) or _cut(str(error))
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.ENOSPC:
        return str(error)
    return None


def _unrecognized(error: argparse.ArgumentError) -> str | None:
    """Name the options that are closest to those that no parser knows."""
    message = str(error)
    unknown = re.search(r"[Uu]nrecognized arguments: (.*)", message, re.DOTALL)
    # an error of argparse does not say which parser it is from
    places = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    parsers = [place for place in places if isinstance(place, argparse.ArgumentParser)]
    if unknown is None or not parsers:
        return None
    of_subcommands = [
        part
        for parser in parsers
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for part in action.choices.values()
    ]
    known = {o for parser in (*parsers, *of_subcommands) for o in parser._option_string_actions}
    hints = []
    for name in (part.partition("=")[0] for part in unknown[1].split() if part[:2] == "--"):
        close = difflib.get_close_matches(name, known, n=1)
        hints += [f"{name}: did you mean {close[0]}?"] if close else []
    command = f"{parsers[-1].prog}{' fit' * bool(of_subcommands)}"  # the only one with subcommands
    hints.append(f"`{command} --help` lists the options")
    return f"{_cut(message).rstrip('.')}. {' '.join(hints)}"


def _unknown_option(message: str) -> str | None:
    """Name the option that jsonargparse does not know, and list the ones it does."""
    of_class = re.search(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message)
    of_group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    parent = re.search(r"class_path '([\w.]+)':\s+Group ", message)
    if of_class is not None:
        owner, name = of_class.groups()
        allowed = list(inspect.signature(locate(owner)).parameters)  # type: ignore[arg-type]
    elif of_group is not None and parent is not None:
        owner, name = of_group.groups()
        parameters = inspect.signature(locate(parent[1]), eval_str=True).parameters  # type: ignore[arg-type]
        allowed = list(inspect.signature(parameters[owner].annotation).parameters)
    elif of_group is not None and of_group[1] == "experiment":
        from synque_select.experiment import ExperimentOptions

        owner, name = of_group.groups()
        allowed = list(inspect.signature(ExperimentOptions).parameters)
    else:
        return None
    return f"{owner} has no option {name!r}: {did_you_mean(name, allowed)}"


def _cut(message: str) -> str:
    """Shorten a message that quotes a whole file to its beginning and end."""
    half = _MAX_PARSER_ERROR // 2
    return message if len(message) <= 2 * half else f"{message[:half]} [...] {message[-half:]}"


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
    parser = jsonargparse_module().ArgumentParser(
        prog=f"synque-select {name}",
        description=command.run.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=help_formatter(),
    )
    command.arguments(parser)
    with modules_of_working_folder():
        options = parser.parse_args(with_config_paths(given[1:]))
        # the supported versions of jsonargparse have this method under two names
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        return command.run(instantiate(options))


def _help() -> str:
    lines = [
        "usage: synque-select COMMAND [OPTIONS]",
        "",
        "Rank candidate synthetic datasets against a small unlabeled real sample, train on the",
        "best mixture, and see how well the proxies predicted the results.",
        "",
        "commands:",
        *(f"  {n:<11} {_first_sentence(command)}" for n, command in COMMANDS.items()),
        "",
        "synque-select COMMAND --help lists a command's options; --version prints the version.",
    ]
    return "\n".join(lines)


def _first_sentence(command: Command | ConfigCommand) -> str:
    return str(command.run.__doc__).partition(". ")[0].rstrip(".")
