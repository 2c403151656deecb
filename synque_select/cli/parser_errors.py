"""Errors of the parsers of options and configs: where, what was found, and what is allowed."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import TYPE_CHECKING

from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils.registry import is_dotted
from synque_select.utils.wording import one_line

if TYPE_CHECKING:
    import yaml

__all__ = ["parser_message", "with_place"]

_MAX_PARSER_ERROR = 2000
_MAX_VALUE = 200
# what gives the options of a group of a config
_OPTIONS = {
    "experiment": "synque_select.experiment.ExperimentOptions",
    "influence": "synque_select.probing.influence.InfluenceOptions",
    "sweep": "synque_select.training.short_fit.ShortFitOptions",
    "trainer": "pytorch_lightning.Trainer",
    "tune": "synque_select.tuning.options.TuneOptions",
}
_OF_PARSER = ("help", "config")
_OPTION = re.compile(r"(?:Option|does not accept option) '([\w.]+)'")
_OUTER = re.compile(r"(?:Subcommand '\w+' does not accept option|Option) '([\w.]+)'")
_GROUP = re.compile(r"Group '([\w.]+)' does not accept option")
_KEY = re.compile(r"Parser key \"([\w.]+)\":\s*")
_EXPECTED = re.compile(r"Expected an? <class '(?:[\w.]*\.)?(\w+)'>")
_LITERAL = re.compile(r"Expected a typing\.Literal\[([^\]]*)\]")
_LISTED = re.compile(r"^ *- ", re.MULTILINE)
_VALUE = re.compile(r"(?:Given value: |Got value: )([^\n]*)")
_CLASS_PATH = re.compile(
    r"Problem with given class_path ('[^']*'):\s+(.*?)\s*\n\s*(?:- |Given value)", re.DOTALL
)
_NO_FUNCTION = re.compile(r"expects a function or a callable class: ([^\n]+)")
_NO_WEIGHT = re.compile(
    r"Mapping\[str, float\](?:(?!Parser key).)*Expected a <class 'float'>\. Got value: ([^\n]*)",
    re.DOTALL,
)
_NO_CLASS = re.compile(r"Expected a dot import path string: ([^\n]+)")
# where a class is looked for whose module is not named, or not known
_HOMES = (
    "synque_select",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "torch.optim",
)
_ARGUMENT = re.compile(r"(\w+)=('[^']*'|[^:;,\s]+)")
_CHOICE = re.compile(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", re.DOTALL)


def parser_message(error: argparse.ArgumentError, arguments: Sequence[str]) -> str:
    """Return what an error of the parser says: where, what was found, and what is allowed.

    Args:
        error: The error.
        arguments: Arguments of the command, which may name configs.
    """
    message = str(error)
    problem = _unrecognized(error) or _missing(error)
    if problem is not None:
        return problem
    choice = _CHOICE.search(message)
    if choice is not None:
        option, given, allowed = choice.groups()
        names = re.findall(r"[^\s',]+", allowed)
        lead = f"{option} " if option.startswith("-") else ""
        return f"{lead}{one_line(given, _MAX_VALUE)!r}: {did_you_mean(given, names)}"
    name = _field(message)
    words = _no_weight(message) or _unknown_option(message) or _value_error(message)
    outer = _OUTER.match(message)
    if outer is not None:
        name, words = _unknown_name(outer[1], _own_options(error) or _outer(arguments))
    on_command_line = {argument.partition("=")[0] for argument in arguments}
    is_in_config = name is not None and f"--{name}" not in on_command_line
    place = _place(str(name), arguments) if is_in_config else None
    words = _cut(message) if words is None else words
    return words if place is None else f"{place}: {words}"


def with_place(message: str, arguments: Sequence[str]) -> str:
    """Put the place in a config before a message about an argument, such as "top_k=0: …".

    Args:
        message: Message of an error.
        arguments: Arguments of the command.
    """
    argument = _ARGUMENT.match(message)
    # an option on the command line may have the same name: the value must be that of the config
    place = None if argument is None else _place(argument[1], arguments, argument[2].strip("'"))
    return message if place is None else f"{place}: {message}"


def _unknown_name(name: str, known: Sequence[str]) -> tuple[str, str]:
    """Return the part of a dotted name that is not known, and what is allowed in its place."""
    owner, _, rest = name.partition(".")
    if owner not in known:
        return owner, f"unknown option {owner!r}: {did_you_mean(owner, known)}"
    inner = rest.partition(".")[0]
    kind = locate(_OPTIONS.get(owner, ""))
    allowed = "" if kind is None else did_you_mean(inner, list(inspect.signature(kind).parameters))  # type: ignore[arg-type]
    return f"{owner}.{inner}", f"{owner} has no option {inner!r}{': ' * bool(allowed)}{allowed}"


def _own_options(error: argparse.ArgumentError) -> list[str]:
    """Return what a config of `rank` may have; nothing if another parser failed."""
    for parser in _parsers(error):
        actions = {action.dest: action for action in parser._actions}
        if "candidates" in actions:
            # not those that print something about the parser itself
            return sorted(n for n in actions if n not in _OF_PARSER and n[:6] != "print_")
    return []


def _outer(arguments: Sequence[str]) -> list[str]:
    """Return the outermost options of the config of a command."""
    command = arguments[0] if arguments else ""
    if command == "experiment":
        return ["experiment", "task", "version"]
    of_lightning = ["ckpt_path", "data", "lr_scheduler", "model", "optimizer", "seed_everything"]
    return sorted([*of_lightning, "trainer", *({command} & {"influence", "sweep", "tune"})])


def _field(message: str) -> str | None:
    """Return the dotted name of what an error is about."""
    option, group, keys = _OPTION.search(message), _GROUP.search(message), _KEY.findall(message)
    if option is not None:
        return option[1] if group is None else f"{group[1]}.{option[1]}"
    # the error of an inner parser is in that of the outer one
    return keys[-1] if keys else None


def _value_error(message: str) -> str | None:
    """Return an error about a value on one line; None if it has another form."""
    name = _field(message)
    inner = message[message.rfind(f'"{name}"') :]
    value, problem = _VALUE.search(inner), _CLASS_PATH.search(inner)
    unknown = _NO_CLASS.search(inner)
    if value is None:
        return None
    if problem is not None:
        hint = _close_class(problem[1].strip("'"))
        return f"{name}: class_path {problem[1]}: {one_line(problem[2])}{hint}"
    if unknown is not None:
        hint = _close_class(unknown[1])
        return f"{name}: class_path {unknown[1]!r}: expected module.Class{hint}"
    errors = inner[: value.start()]
    function = _NO_FUNCTION.search(errors)
    if function is not None and is_dotted(value[1]):
        return f"{name}: {value[1]!r}: {one_line(function[1])}{_close_class(value[1])}"
    types, literals = _EXPECTED.findall(errors), _LITERAL.findall(errors)
    # of several types, some may be wrong for another reason
    if not types + literals or len(types + literals) < len(_LISTED.findall(errors)):
        return None
    texts = [text.strip("'") for part in literals for text in part.split(", ")]
    # a bool beside words is what YAML makes of the word off
    kinds = [kind for kind in dict.fromkeys(types) if not (literals and kind == "bool")]
    kinds = ["null" if kind == "NoneType" else kind for kind in kinds]
    allowed = " or ".join([*map(repr, texts), *kinds])
    close = difflib.get_close_matches(value[1], texts, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{name}: expected {allowed}, found {one_line(value[1], _MAX_VALUE)!r}{hint}"


def _no_weight(message: str) -> str | None:
    """Return an error about one of several weights, which may also be given as a class."""
    weight = _NO_WEIGHT.search(message)
    if weight is None:
        return None
    name = _KEY.findall(message)[-1]
    return f"{name}: expected a number for each name, found {one_line(weight[1])!r}"


def _close_class(path: str) -> str:
    """Return the end of a message: the name closest to one that does not exist; may be empty."""
    package, _, name = path.rpartition(".")
    homes = (package, *_HOMES) if package and _exists(package) else _HOMES
    known = {
        name: f"{home}.{name}"
        for home in reversed(homes)
        for name in getattr(locate(home), "__all__", None) or dir(locate(home))
    }
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {known[close[0]]}?" if close else ""


def _exists(package: str) -> bool:
    try:
        return locate(package) is not None
    except ErrorDuringImport:  # a module of the user's
        return False


def _place(name: str, arguments: Sequence[str], value: str | None = None) -> str | None:
    """Return the file and line of a dotted name, if only one config of the command has it."""
    places = [
        f"{path}, line {line}"
        for path in _configs(arguments)
        for line in _lines_of(path, name.split("."), value)
    ]
    return places[0] if len(places) == 1 else None


def _configs(arguments: Sequence[str]) -> Iterator[Path]:
    from synque_select.cli.options import packaged_config

    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, _, value = argument.partition("=")
        given = value if name == "--config" and value else argument
        # the config of validate is its only argument
        if given is value or before in ("--config", "-c", "validate"):
            try:
                yield packaged_config(given)
            except ConfigError:
                continue


def _lines_of(path: Path, names: Sequence[str], value: str | None) -> list[int]:
    """Return the lines of keys that have these names, one in the other, and this value if any."""
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return []
    lines, seen = [], set()
    waiting = [node]
    while waiting:
        part = waiting.pop(0)
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        key, inner = _inside(part, names)
        if key is not None and value in (None, inner.value):
            lines.append(key.start_mark.line + 1)
        waiting += _values(part)
    return lines


def _inside(node: yaml.Node, names: Sequence[str]) -> tuple[yaml.Node | None, yaml.Node]:
    """Return the key of the last name and its value, if a mapping has all of them; else no key."""
    import yaml

    key = None
    for name in names:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        key, node = next((pair for pair in pairs if pair[0].value == name), (None, node))
        if key is None:
            break
    return key, node


def _values(node: yaml.Node) -> list[yaml.Node]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _parsers(error: argparse.ArgumentError) -> list[argparse.ArgumentParser]:
    """Return the parsers that an error went through, as it does not say which it is from."""
    places = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [place for place in places if isinstance(place, argparse.ArgumentParser)]


def _unrecognized(error: argparse.ArgumentError) -> str | None:
    """Name the options that are closest to those that no parser knows."""
    message = str(error)
    unknown = re.search(r"[Uu]nrecognized arguments: (.*)", message, re.DOTALL)
    parsers = _parsers(error)
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


def _missing(error: argparse.ArgumentError) -> str | None:
    """Name the options that are required as they are written."""
    missing = re.fullmatch(r"(?:.*: )?the following arguments are required: (.*)", str(error))
    if missing is None:
        return None
    actions = {action.dest: action for parser in _parsers(error) for action in parser._actions}

    def written(name: str) -> str:
        action = actions.get(name)
        if action is None:
            return name
        return action.option_strings[-1] if action.option_strings else str(action.metavar or name)

    names = ", ".join(map(written, missing[1].split(", ")))
    return f"the following arguments are required: {names}"


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
    elif of_group is not None and of_group[1] in _OPTIONS:
        owner, name = of_group.groups()
        kind = locate(_OPTIONS[owner])
        allowed = list(inspect.signature(kind).parameters)  # type: ignore[arg-type]
    else:
        return None
    return f"{owner} has no option {name!r}: {did_you_mean(name, allowed)}"


def _cut(message: str) -> str:
    """Shorten a message that quotes a whole file to its beginning and end."""
    half = _MAX_PARSER_ERROR // 2
    return message if len(message) <= 2 * half else f"{message[:half]} [...] {message[-half:]}"
