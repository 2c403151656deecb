"""The commands of `synque-select`: one file each, with `run` and, for most, `arguments`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synque_select.cli import (
    benchmark,
    doctor,
    experiment,
    feedback,
    fit,
    rank,
    report,
    sweep,
    tune,
)
from synque_select.cli.options import packaged_config

__all__ = ["COMMANDS", "Command", "packaged_config"]


@dataclass(frozen=True)
class Command:
    """A command; if `arguments` is None, `run` parses the command line itself."""

    run: Callable[[Any], int]
    arguments: Callable[[Any], None] | None = None


COMMANDS = {
    "rank": Command(rank.run, rank.arguments),
    "fit": Command(fit.run),
    "experiment": Command(experiment.run, experiment.arguments),
    "sweep": Command(sweep.run),
    "tune": Command(tune.run),
    "benchmark": Command(benchmark.run, benchmark.arguments),
    "feedback": Command(feedback.run, feedback.arguments),
    "report": Command(report.run, report.arguments),
    "doctor": Command(doctor.run, doctor.arguments),
}
