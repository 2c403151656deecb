"""Options and parsing that several commands share."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils import registry
from synque_select.utils.interrupts import INTERRUPTED
from synque_select.utils.json_types import Json
from synque_select.utils.text_files import check_regular, read_text
from synque_select.utils.validation import kind_of
from synque_select.utils.wording import one_line
from synque_select.utils.yaml_files import read_yaml_file

if TYPE_CHECKING:
    from argparse import Action, Namespace

    from jsonargparse import ArgumentParser, DefaultHelpFormatter
    from pytorch_lightning import LightningDataModule
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

    from synque_select.report.table import Table
    from synque_select.selection.scorer import Scorer

__all__ = [
    "EXIT_STATUSES",
    "NONE_IS_CLOSE",
    "PROXIES_HELP",
    "RUN_FILES",
    "add_compute_options",
    "add_reservoir_option",
    "check_values",
    "comma_list",
    "command_line",
    "configs_help",
    "executor_of",
    "fit_steps",
    "flat",
    "help_formatter",
    "lightning_cli",
    "lightning_command_line",
    "max_device_memory_of",
    "packaged_config",
    "packaged_configs",
    "print_tables",
    "proxy_options",
    "scorer_of",
    "short_fit_options",
    "split_options",
    "utf8_configs",
    "whole",
    "with_config_paths",
    "with_run_name",
]

_Options = TypeVar("_Options")

# exit statuses besides 0 and 1, which is any error
NONE_IS_CLOSE = 3
EXIT_STATUSES = (
    f"exit status: 0 if all is done, also where the advice is to train on all; {NONE_IS_CLOSE} if "
    "`rank --strict` finds no candidate close to the real sample; 1 after an error, such as input "
    f"that is not allowed; {INTERRUPTED} if interrupted: the same command continues, except that "
    "`fit` starts its training anew"
)

# options whose values in a config may be mappings, and values other than texts
_MAPPINGS = ("candidates", "family")
_LISTS = ("view", "real_view")  # several fields as one text; on the command line, with commas
_NO_TEXTS: dict[str, tuple[type, ...]] = {
    "label_filter": (int, float),
    "real_groups": (bool,),
    "max_device_memory": (int,),
    **dict.fromkeys(("generator", "reasoner", "prices"), (dict,)),
}

# options that the function of a command takes as separate arguments
RUN_FILES = frozenset(("store", "run_dir", "name"))

PROXIES_HELP = (
    "comma-separated keys, each optionally with options after colons: pad,mmd:protocol=released "
    "(default: the default suite for the modality)"
)


def help_formatter() -> type[DefaultHelpFormatter]:
    """Return jsonargparse's help formatter, without empty defaults and breaks at hyphens."""
    from jsonargparse import DefaultHelpFormatter

    class HelpFormatter(DefaultHelpFormatter):
        def _expand_help(self, action: Action) -> str:
            text: str = super()._expand_help(action)
            return re.sub(
                r" \(default: (?:null|\(\)|\[\])\)|, default: (?:null|\(\)|\[\])(?=[,)])", "", text
            )

        def _split_lines(self, text: str, width: int) -> list[str]:
            # names and commands, such as synque-select init, stay whole
            return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            lines = textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)
            return "\n".join(f"{indent}{line}" for line in lines)

    return HelpFormatter


def add_compute_options(parser: ArgumentParser, *, quiet: str = "hide progress bars") -> None:
    """Add the options of a command that scores candidates: how and where it computes.

    Args:
        parser: The parser.
        quiet: What --quiet does.
    """
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--max-device-memory",
        metavar="SIZE",
        help="what a batch of scoring may take on a GPU, such as 8GB; encoders and judges are not "
        "bounded by it (default: half of what is free)",
    )
    parser.add_argument(
        "--cache-dir",
        help="directory of cached embeddings and scores, or an address such as s3://bucket/cache "
        "(default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument(
        "--executor",
        metavar="WHERE",
        help="where to compute: local (default), local:workers=4 for processes, local:devices=0,1 "
        "for one process per GPU, ray for the Ray cluster of $RAY_ADDRESS or of this machine, "
        "ray://HOST:PORT for another; of Ray also ray:cpus=4:gpus=1:workers=8, the first two per "
        "worker",
    )
    parser.add_argument(
        "--devices",
        metavar="LIST",
        help="GPUs of --executor local, such as 0,1: the same as --executor local:devices=0,1",
    )
    parser.add_argument("--quiet", action="store_true", help=quiet)


def add_reservoir_option(parser: ArgumentParser) -> None:
    """Add the option that draws from large candidates."""
    parser.add_argument(
        "--reservoir",
        type=int,
        metavar="N",
        help="of each candidate with more than N examples, score N that are drawn at random; all "
        "are read once, in bounded memory, and Hub datasets are streamed. N-grams are counted over "
        "all; for the other scores, the error of the draw is part of the intervals (default: all)",
    )


def executor_of(options: Namespace) -> str | None:
    """Return the executor that the options name.

    Raises:
        ConfigError: --devices is given for an executor other than local.
    """
    if options.devices is None:
        executor: str | None = options.executor
        return executor
    if options.executor not in (None, "local"):
        raise ConfigError(
            f"--devices {options.devices} is for --executor local; --executor {options.executor} "
            "says itself where it computes"
        )
    return f"local:devices={options.devices}"


def max_device_memory_of(options: Namespace) -> int | None:
    """Return the number of bytes that --max-device-memory gives.

    Raises:
        ConfigError: It is not a size.
    """
    from synque_select.utils.cache_files import parse_size

    given = options.max_device_memory
    return None if given is None else parse_size("max_device_memory", given)


def check_values(parser: ArgumentParser, options: Namespace) -> None:
    """Check the values that a config gives to options which take texts or are on or off.

    On the command line all values are texts, but YAML reads `no`, `1` and `2.10` as others.

    Raises:
        ConfigError: A value is of another kind, or a text holds a NUL character.
    """
    for action in parser._actions:
        name, value = action.dest, getattr(options, action.dest, None)
        if action.nargs == 0 and action.const is True:  # such as --quiet
            if not isinstance(value, bool):
                raise ConfigError(f"{name}={one_line(repr(value))}: allowed is true or false")
        elif type(action).__module__ != "argparse" and action.nargs != "+":
            continue  # jsonargparse itself checks options that have a type
        elif value is not None and not isinstance(value, _NO_TEXTS.get(name, ())):
            _check_texts(name, value, is_list=action.nargs == "+" or name in _LISTS)


def _check_texts(name: str, value: object, *, is_list: bool) -> None:
    parts: list[object] = [value]
    if isinstance(value, dict) and name in _MAPPINGS:
        parts = [*value]
        for part in value.values():
            parts += part if isinstance(part, list) and is_list else [part]
    elif isinstance(value, list) and is_list:
        parts = value
    for part in parts:
        shown = one_line(repr(part))
        if not isinstance(part, str):
            raise ConfigError(
                f"{name}={shown}: allowed is {'a list of texts' if is_list else 'a text'}; in a "
                "config, what looks like a number or a date, yes and no are texts in quotes only"
            )
        if "\0" in part:
            raise ConfigError(f"{name}={shown}: the text holds a NUL character")


def comma_list(text: str) -> list[str]:
    """Split at commas, unless the text is the name of an existing file."""
    if "," not in text or Path(text).exists():
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def flat(given: str | Sequence[str]) -> list[str]:
    """Split every text at its commas; a config may have one text in place of a list."""
    texts = [given] if isinstance(given, str) else given
    return [part for text in texts for part in comma_list(text)]


def proxy_options(given: str | Sequence[str] | None) -> list[dict[str, Json]] | None:
    """Parse proxies with options, such as "pad,mmd:protocol=released:kernel=rbf"."""
    if given is None:
        return None
    return [_proxy(text) for text in flat(given)]


def _proxy(text: str) -> dict[str, Json]:
    key, options = registry.split_options(text)
    if "key" in options:
        raise ConfigError(f"proxy {text!r}: expected KEY:OPTION=VALUE; 'key' is not an option")
    return {"key": key, **options}


def packaged_configs() -> dict[str, Path]:
    """Return the names of the configs that are part of this package, and their paths."""
    import synque_select.configs

    folder = Path(str(synque_select.configs.__file__)).parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def configs_help() -> str:
    """Return the help of --config of the commands that take a fit config."""
    names = (
        name
        for name, path in packaged_configs().items()
        if "\ntrainer:" in path.read_text(encoding="utf-8")
    )
    return f"a YAML file, or a packaged config: {', '.join(names)}"


def packaged_config(name: str) -> Path:
    """Return the path of a config, given as a file or a packaged name such as "digits".

    Raises:
        ConfigError: It is neither; the message lists the packaged names.
    """
    path = Path(name)
    if path.is_file():
        return path
    check_regular(path, error=ConfigError)
    known = packaged_configs()
    if name not in known:
        raise ConfigError(
            f"config {name!r} is neither a file nor a packaged config: {did_you_mean(name, known)}"
        )
    return known[name]


def with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Replace the value of --config (or -c) with the path of the config.

    Configs and all YAML files that they or other options name are checked first.

    Raises:
        ConfigError: A config does not exist, or is not YAML that is read without loss.
    """
    out: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "--config" and equals:
            argument = f"--config={_checked_config(value)}"
        elif out and out[-1] in ("--config", "-c"):
            argument = str(_checked_config(argument))
        else:
            _check_named_config(value or argument, Path(), set())
        out.append(argument)
    return out


def _checked_config(name: str) -> Path:
    path = packaged_config(name)
    content = _check_config(path, set())
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        kind = "other keys" if isinstance(content, dict) else kind_of(content)
        raise ConfigError(f"{path}: found {kind}; a config must be a mapping of names to values")
    for name in content:
        other = name.replace("-", "_")  # the parser takes either
        if other != name and other in content:
            raise ConfigError(f"{path}: {name!r} and {other!r} are one option; remove one of them")
    return path


def _check_config(path: Path, checked: set[Path]) -> object:
    """Check a config, and the YAML files that it names, which jsonargparse reads for its parts."""
    checked.add(path.resolve())
    content = read_yaml_file(path)
    values = [content]
    while values:
        value = values.pop()
        if isinstance(value, str):
            _check_named_config(value, path.parent, checked)
        elif isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return content


def _check_named_config(text: str, folder: Path, checked: set[Path]) -> None:
    # os.path.isfile, because Path.is_file raises for a text that is too long to be a name
    if text.endswith((".yaml", ".yml")) and os.path.isfile(folder / text):
        path = (folder / text).resolve()
        if path not in checked:
            _check_config(path, checked)


@contextmanager
def command_line(*arguments: str) -> Iterator[None]:
    """Set `sys.argv`, which is read by LightningCLI and by every process that DDP launches."""
    given = sys.argv
    sys.argv = [given[0], *arguments]
    try:
        yield
    finally:
        sys.argv = given


@contextmanager
def utf8_configs() -> Iterator[None]:
    """Make jsonargparse read configs as UTF-8, whatever the locale.

    It opens them in the locale's encoding: with LC_ALL=C a config that names a file in Chinese
    fails, and on Windows it is read as other characters.
    """
    import jsonargparse

    ConfigPath = jsonargparse.Path  # type: ignore[attr-defined]
    # the supported versions of jsonargparse have this method under two names
    name = "read_text" if hasattr(ConfigPath, "read_text") else "get_content"
    read = getattr(ConfigPath, name)

    def read_utf8(path: Any, *mode: str) -> str:
        is_local = os.path.isfile(path.absolute)
        text: str = read_text(path.absolute, error=ConfigError) if is_local else read(path, *mode)
        return text

    setattr(ConfigPath, name, read_utf8)
    try:
        yield
    finally:
        setattr(ConfigPath, name, read)


@contextmanager
def lightning_command_line(*arguments: str) -> Iterator[None]:
    """Set `sys.argv` for a LightningCLI whose config may name modules of the user.

    Modules are looked up in the working directory first, as `python -m` does.
    """
    folder = os.getcwd()
    with command_line(*arguments), warnings.catch_warnings(), _no_tips(), utf8_configs():
        # Lightning itself calls a function that torch has deprecated
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


@contextmanager
def _no_tips() -> Iterator[None]:
    """Hide Lightning's advertisements, but no other log messages."""

    def is_not_tip(record: logging.LogRecord) -> bool:
        return "Tip: " not in str(record.msg)

    packages = ("pytorch_lightning", "lightning.pytorch")
    logs = [logging.getLogger(f"{package}.utilities.rank_zero") for package in packages]
    for log in logs:
        log.addFilter(is_not_tip)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(is_not_tip)


def print_tables(tables: Sequence[Table], json_file: str | None) -> None:
    """Print tables, or write their cells as JSON.

    Args:
        tables: The tables; one is a list of rows in JSON, several a list of such lists.
        json_file: The file, "-" for the standard output; None to print the tables.
    """
    from synque_select.records.run_folder import write_json
    from synque_select.report.terminal import print_table

    if json_file is None:
        for number, table in enumerate(tables):
            print("\n" * (number > 0), end="")
            print_table(table)
        return
    parts = [
        [
            {column.name: cell for column, cell in zip(table.columns, row, strict=True)}
            for row in table.rows
        ]
        for table in tables
    ]
    state = parts[0] if len(parts) == 1 else parts
    if json_file == "-":
        print(json.dumps(state, indent=2, ensure_ascii=False))
    else:
        print(f"wrote {write_json(json_file, state)}")


def whole(text: str, option: str) -> int:
    """Parse a non-negative integer; the error message names the option."""
    if not text.isdecimal():
        raise ConfigError(f"{option}: expected whole numbers, found {text!r}")
    return int(text)


def lightning_cli(
    name: str, description: str, options: type, function: Callable[..., Any]
) -> LightningCLI:
    """Parse a fit config together with the options of a command.

    Args:
        name: Name of the command, and prefix of its options.
        description: Text at the beginning of the help.
        options: A dataclass whose fields become options of the command.
        function: A function whose arguments of `RUN_FILES` also become options.

    Returns:
        The LightningCLI, with all objects created but nothing run.
    """
    from synque_select.cli.lightning_classes import lightning_classes

    def add_arguments(_: LightningCLI, parser: LightningArgumentParser) -> None:
        # `split_options` creates the object later, when all options are known
        parser.add_class_arguments(options, name, instantiate=False)
        rest: set[str | int] = {*inspect.signature(function).parameters}
        rest -= RUN_FILES
        parser.add_function_arguments(function, name, skip=rest, as_group=False)

    classes = lightning_classes(sys.argv[1:])
    hooks = {"add_arguments_to_parser": add_arguments}
    command_cli: type[LightningCLI] = type("CommandCLI", (classes.cli,), hooks)
    return command_cli(
        datamodule_class=cast("type[LightningDataModule]", classes.datamodule),  # see check_inner
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        parser_kwargs={
            "prog": f"synque-select {name}",
            "description": description,
            "exit_on_error": False,
            "allow_abbrev": False,
        },
    )


def with_run_name(arguments: Sequence[str], command: str) -> list[str]:
    """Return the arguments with short options as the command's own.

    They are `--name` of a run, `--executor`, and `--workers`, the number of them.
    """
    own = {"name": "name", "executor": "executor", "workers": "n_workers"}

    def lengthened(match: re.Match[str]) -> str:
        return f"--{command}.{own[match[1]]}"

    return [re.sub(r"^--(name|executor|workers)(?==|$)", lengthened, text) for text in arguments]


def fit_steps(trainer: Namespace) -> int:
    """Return the optimizer steps of each fit of a command.

    Raises:
        ConfigError: The config does not limit them.
    """
    steps: int = trainer.max_steps
    if steps == -1:  # the Trainer's default
        raise ConfigError(
            "trainer.max_steps is not set: give the optimizer steps of a fit, such as "
            "--trainer.max_steps 100"
        )
    return steps


def short_fit_options(trainer: Namespace) -> dict[str, Any]:
    """Return the arguments of a config's trainer that probes and trials are trained with."""
    names = ("accelerator", "precision", "accumulate_grad_batches", "gradient_clip_val")
    options = {n: getattr(trainer, n) for n in names if getattr(trainer, n) is not None}
    if options.get("accumulate_grad_batches") == 1:  # the default, as if it were not given
        del options["accumulate_grad_batches"]
    return options


def split_options(given: Namespace, options: type[_Options]) -> tuple[_Options, dict[str, Any]]:
    """Return the options of a command as an object, and those of `RUN_FILES` as a dict."""
    values = vars(given)
    files = {name: value for name, value in values.items() if name in RUN_FILES}
    return options(**{n: v for n, v in values.items() if n not in RUN_FILES}), files


def scorer_of(cli: LightningCLI) -> Scorer | None:
    """Return the scorer of the config's SelectionCallback, or None if there is none."""
    from synque_select.callbacks.selection import BaseSelectionCallback
    from synque_select.training.lightning_compat import callbacks_of

    selection = [c for c in callbacks_of(cli.trainer) if isinstance(c, BaseSelectionCallback)]
    return selection[0].scorer(cli.trainer) if selection else None
