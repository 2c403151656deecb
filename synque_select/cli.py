"""The command `synque-select`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synque_select.errors import ConfigError, DependencyError, SynqueError, did_you_mean

__all__ = ["main", "packaged_config"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 after one line on stderr.

    Args:
        arguments: What stands after `synque-select`; None for the process' own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except Exception as error:
        ours = _said(error)
        if ours is None:
            raise
        # a name in the message may carry escapes that a terminal would obey
        shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in ours)
        print(f"synque-select: error: {shown}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("synque-select: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _said(error: BaseException) -> str | None:
    """Find what is for the user: an error of ours, also where jsonargparse has wrapped it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, SynqueError):
            return str(found)
        found = found.__cause__ or found.__context__
    if isinstance(error, argparse.ArgumentError):
        return str(error)
    return None


def _dispatch(given: Sequence[str]) -> int:
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"synque-select {importlib.metadata.version('synque-select')}")
        return 0
    if name not in _COMMANDS:
        raise ConfigError(f"unknown command {name!r}: {did_you_mean(name, _COMMANDS)}")
    command = _COMMANDS[name]
    if command.arguments is None:
        return int(command.run(list(given[1:])))
    parser = _jsonargparse().ArgumentParser(
        prog=f"synque-select {name}", description=command.run.__doc__, exit_on_error=False
    )
    command.arguments(parser)
    options = parser.parse_args(_with_config_paths(given[1:]))
    # jsonargparse renamed the method in one of the versions that the package admits
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return int(command.run(instantiate(options)))


_PROXIES_HELP = (
    "comma-separated keys, with options after a colon: pad,mmd:protocol=released "
    "(default: the default suite of the modality)"
)


@dataclass(frozen=True)
class _Command:
    """What a command does with parsed options; without `arguments` it parses them itself."""

    run: Callable[[Any], int]
    arguments: Callable[[Any], None] | None


def _help() -> str:
    lines = [
        "usage: synque-select COMMAND [OPTIONS]",
        "",
        "Rank candidate synthetic datasets against a small unannotated real sample, train on the",
        "best mixture, and see how far the proxies could be trusted.",
        "",
        "commands:",
        *(f"  {n:<11} {_first_sentence(command)}" for n, command in _COMMANDS.items()),
        "",
        "synque-select COMMAND --help lists a command's options; --version prints the version.",
    ]
    return "\n".join(lines)


def _first_sentence(command: _Command) -> str:
    return str(command.run.__doc__).partition(". ")[0].rstrip(".")


def _jsonargparse() -> Any:
    try:
        import jsonargparse
    except ImportError as error:
        raise DependencyError("jsonargparse", extra="cli", purpose="the command line") from error
    return jsonargparse


def _comma_list(text: str) -> list[str]:
    """Split at commas; a text that names an existing file stays whole."""
    if "," not in text or Path(text).exists():
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _flat(given: Sequence[str]) -> list[str]:
    return [part for text in given for part in _comma_list(text)]


_LENS = ("lens", "lens_balanced", "lens_raw")


def _rank_arguments(parser: Any) -> None:
    parser.add_argument(
        "--candidates",
        nargs="+",
        required=True,
        help="files, folders or globs, one candidate a file or sub-folder: JSON, JSONL, CSV, "
        "Parquet, Arrow, image folders, or hub:OWNER/NAME",
    )
    parser.add_argument(
        "--real", required=True, help="the unannotated real sample: a file or folder"
    )
    parser.add_argument("--view", help="the field that the proxies see; needed where several fit")
    parser.add_argument(
        "--encoder",
        help="model id; default: all-MiniLM-L6-v2 for text, efficientnet-lite0 for images",
    )
    parser.add_argument(
        "--proxies",
        nargs="+",
        help=_PROXIES_HELP,
    )
    parser.add_argument(
        "--lens",
        help="config of the LENS proxies: a YAML file or a packaged name such as lens-small",
    )
    parser.add_argument(
        "--rank-by", help="a proxy's key or consensus (default: consensus, or the only proxy given)"
    )
    parser.add_argument("--top-k", type=int, default=3, help="how many to select")
    parser.add_argument("--json", help="write ranking.json here (and ranking.csv beside it)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--cache-dir",
        help="where embeddings are kept (default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _rank(options: Any) -> int:
    """Rank candidates against a real sample. Prints the table; --json keeps it."""
    from synque_select.records.ranking_file import check_ranking_target, save_ranking
    from synque_select.report.tables import ranking_table
    from synque_select.selection.ranking import rank

    if options.json is not None:
        check_ranking_target(options.json)
    ranking = rank(
        _flat(options.candidates),
        options.real,
        view=_position(options.view),
        encoder=options.encoder,
        proxies=_with_lens(_proxies(options.proxies), options.lens),
        rank_by=options.rank_by,
        top_k=options.top_k,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        progress=not options.quiet,
    )
    print(ranking_table(ranking))
    if options.json is not None:
        print(f"\nwrote {save_ranking(ranking, Path(options.json))}")
    return 0


def _position(view: str | None) -> str | int | None:
    return int(view) if view is not None and view.isdecimal() else view


def _proxies(given: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """Read "pad,mmd:protocol=released:kernel=rbf" as proxies with options."""
    if given is None:
        return None
    return [_proxy(text) for text in _flat(given)]


def _with_lens(
    proxies: list[dict[str, Any]] | None, config: str | None
) -> list[dict[str, Any]] | None:
    """Give the config to every LENS proxy that has none of its own."""
    if config is None:
        return proxies
    given = [proxy for proxy in proxies or [] if proxy["key"] in _LENS]
    if not given:
        raise ConfigError(f"--lens is given, but --proxies has none of {', '.join(_LENS)}")
    return [{"config": config, **proxy} if proxy in given else proxy for proxy in proxies or []]


def _proxy(text: str) -> dict[str, Any]:
    key, *pairs = text.split(":")
    options: dict[str, Any] = {"key": key}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals) or name == "key":
            raise ConfigError(f"proxy {text!r}: expected key:option=value, found {pair!r}")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def packaged_config(name: str) -> Path:
    """Return the path of a config: a file that exists, or a packaged name such as "digits".

    Raises:
        ConfigError: There is neither; the message lists the packaged names.
    """
    import synque_select.configs

    path = Path(name)
    if path.is_file():
        return path
    folder = Path(str(synque_select.configs.__file__)).parent
    known = {p.stem: p for p in folder.glob("*.yaml")}
    if name not in known:
        raise ConfigError(f"no config {name!r}, as a file or packaged: {did_you_mean(name, known)}")
    return known[name]


def _with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Replace what follows --config (or -c) by the path of the config."""
    out: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "--config" and equals:
            argument = f"--config={packaged_config(value)}"
        elif out and out[-1] in ("--config", "-c"):
            argument = str(packaged_config(argument))
        out.append(argument)
    return out


def _fit(arguments: Sequence[str]) -> int:
    """Run one trainer.fit of a LightningCLI config. `fit --help` lists its options."""
    _jsonargparse()
    from pytorch_lightning.cli import LightningCLI

    with _command_line("fit", *_with_config_paths(arguments)):
        LightningCLI(
            parser_kwargs={"prog": "synque-select", "exit_on_error": False},
            save_config_kwargs={"overwrite": True},
        )
    return 0


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    """Set the process' arguments: LightningCLI reads them, and every rank of plain DDP does."""
    given = sys.argv
    sys.argv = [given[0], *arguments]
    try:
        yield
    finally:
        sys.argv = given


def _report_arguments(parser: Any) -> None:
    parser.add_argument("run", help="a run's folder, such as runs/digits/20260101-120000-abcdef")


def _report(options: Any) -> int:
    """Rebuild a run's page. Reads what is in the folder, writes report.html."""
    from synque_select.report.page import write_report

    print(f"wrote {write_report(Path(options.run))}")
    return 0


def _doctor_arguments(parser: Any) -> None:
    parser.add_argument("--cache-dir", help="the cache to look at")


def _doctor(options: Any) -> int:
    """Check the environment. Exit status 1 if something will fail."""
    from synque_select.doctor import examine

    bad = 0
    for finding in examine(Path(options.cache_dir) if options.cache_dir else None):
        bad += finding.level == "bad"
        print(f"{finding.level:>4}  {finding.what:<32} {finding.found}")
    return 1 if bad else 0


def _experiment_arguments(parser: Any) -> None:
    from synque_select.experiment import BaseTask, run_experiment

    parser.add_argument(
        "--config",
        action=_jsonargparse().ActionConfigFile,
        help="a YAML file or a packaged name such as digits; options after it override it",
    )
    parser.add_argument("--version", type=int, default=1, help="version of the config's format")
    parser.add_subclass_arguments(BaseTask, "task", required=True)
    parser.add_function_arguments(run_experiment, "experiment", skip={"task"})


def _experiment(options: Any) -> int:
    """Run a recipe's experiment. Every arm at the same budget, paired over replicates; resumes."""
    from synque_select.experiment import run_experiment

    if options.version != 1:
        raise ConfigError(f"config of version {options.version}; allowed is 1")
    print(run_experiment(options.task, **vars(options.experiment)))
    return 0


def _sweep(arguments: Sequence[str]) -> int:
    """Train on each candidate alone, and correlate proxies with validation. Takes a fit config.

    The model, the data and the trainer's accelerator, precision and max_steps are those of the
    config, and candidates are scored as its SelectionCallback says, if it has one; finished probes
    are reused.
    """
    _jsonargparse()
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

    from synque_select.callbacks.selection import SelectionCallback
    from synque_select.sweep import run_sweep

    taken: set[str | int] = {"module", "datamodule", "max_steps", "trainer_options", "scorer"}

    class SweepCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_function_arguments(run_sweep, "sweep", skip=taken)

    with _command_line(*_with_config_paths(arguments)):
        cli = SweepCLI(
            run=False,
            save_config_callback=None,
            parser_kwargs={"prog": "synque-select sweep", "exit_on_error": False},
        )
    given = cli.config.trainer
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    selection = [c for c in callbacks if isinstance(c, SelectionCallback)]
    run_sweep(
        cli.model,
        cli.datamodule,
        max_steps=given.max_steps,
        scorer=selection[0].scorer(cli.trainer) if selection else None,
        trainer_options={"accelerator": given.accelerator, "precision": given.precision},
        **vars(cli.config.sweep),
    )
    return 0


def _benchmark_arguments(parser: Any) -> None:
    parser.add_argument("name", choices=["released"], help="released: the data of the SynQuE paper")
    parser.add_argument(
        "--data", required=True, help="the data folder of a clone of the released benchmark"
    )
    parser.add_argument("--task", nargs="+", help="comma-separated folders (default: all found)")
    parser.add_argument("--encoder", help="model id (default: all-MiniLM-L6-v2)")
    parser.add_argument("--proxies", nargs="+", help=_PROXIES_HELP)
    parser.add_argument("--json", help="write the figures here; a run that was cut off resumes")
    parser.add_argument(
        "--cross-group",
        action="store_true",
        help="add the other groups' candidates as decoys: AUC of each proxy against them",
    )
    parser.add_argument("--sample-size", nargs="+", help="sizes of the real sample, such as 5,10")
    parser.add_argument(
        "--corrupt",
        nargs="+",
        help="rank every candidate beside a spoilt twin: KIND or KIND:SHARE, with KIND one of "
        "false_facts, near_duplicates, off_topic, shuffled_labels, truncated",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--cache-dir", help="where embeddings are kept")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _benchmark(options: Any) -> int:
    """Measure proxies on the released SynQuE data. Correlations, intervals, baselines, cost."""
    from synque_select.benchmark.released import render, run_released

    result = run_released(
        options.data,
        tasks=None if options.task is None else _flat(options.task),
        encoder=options.encoder,
        proxies=_proxies(options.proxies),
        out=options.json,
        cross_group=options.cross_group,
        sample_sizes=[_whole(text, "--sample-size") for text in _flat(options.sample_size or ())],
        corrupt=_flat(options.corrupt or ()),
        progress=not options.quiet,
        cache_dir=options.cache_dir,
        seed=options.seed,
    )
    print(render(result))
    return 0


def _whole(text: str, option: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{option}: expected whole numbers, found {text!r}")
    return int(text)


_COMMANDS = {
    "rank": _Command(_rank, _rank_arguments),
    "fit": _Command(_fit, None),
    "experiment": _Command(_experiment, _experiment_arguments),
    "sweep": _Command(_sweep, None),
    "benchmark": _Command(_benchmark, _benchmark_arguments),
    "report": _Command(_report, _report_arguments),
    "doctor": _Command(_doctor, _doctor_arguments),
}
