"""The commands of `synque-select`, each in a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synque_select.cli import (
    ask,
    benchmark,
    cache,
    compare,
    completion,
    doctor,
    experiment,
    export,
    feedback,
    fit,
    gather,
    improve,
    influence,
    init,
    ls,
    plan,
    rank,
    report,
    sweep,
    tune,
    validate,
    work,
)
from synque_select.cli.options import packaged_config

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

__all__ = ["COMMANDS", "Command", "ConfigCommand", "packaged_config"]


@dataclass(frozen=True)
class Command:
    """A command with options of its own.

    Args:
        run: Runs it.
        arguments: Adds the options to the parser.
        of_config: Other commands that may follow its name and take the rest of the arguments, with
            the options of a fit config.
    """

    run: Callable[[Namespace], int]
    arguments: Callable[[ArgumentParser], None]
    of_config: Mapping[str, Callable[[Sequence[str]], int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigCommand:
    """A command that takes a fit config; `run` parses the command line with LightningCLI."""

    run: Callable[[Sequence[str]], int]


COMMANDS: dict[str, Command | ConfigCommand] = {
    "init": Command(init.run, init.arguments),
    "validate": Command(validate.run, validate.arguments),
    "rank": Command(rank.run, rank.arguments),
    "plan": Command(plan.run, plan.arguments, plan.OF_CONFIG),
    "work": Command(work.run, work.arguments),
    "gather": Command(gather.run, gather.arguments),
    "ask": Command(ask.run, ask.arguments),
    "fit": ConfigCommand(fit.run),
    "experiment": Command(experiment.run, experiment.arguments),
    "sweep": ConfigCommand(sweep.run),
    "influence": ConfigCommand(influence.run),
    "tune": ConfigCommand(tune.run),
    "benchmark": Command(benchmark.run, benchmark.arguments),
    "export": Command(export.run, export.arguments),
    "feedback": Command(feedback.run, feedback.arguments),
    "improve": Command(improve.run, improve.arguments),
    "cache": Command(cache.run, cache.arguments),
    "ls": Command(ls.run, ls.arguments),
    "compare": Command(compare.run, compare.arguments),
    "completion": Command(completion.run, completion.arguments),
    "report": Command(report.run, report.arguments),
    "doctor": Command(doctor.run, doctor.arguments),
}
