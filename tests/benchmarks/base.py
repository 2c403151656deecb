"""What every benchmark is made of: rows, a fair comparison, and a peak of memory.

A benchmark is a module `bench_<name>.py` beside this one. The first line of its docstring is its
title, and its function `run()` yields a row per figure: a `Result` against a rival, a `Growth`
over several sizes, or a `NotMeasured` with the reason. Functions handed to `peak_bytes` stand at
the top level of their module, because they run in a fresh process.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Growth", "NotMeasured", "Result", "Row", "compare", "cpu_seconds", "peak_bytes"]


@dataclass(frozen=True)
class Result:
    """One figure against a rival.

    Args:
        name: What was done.
        ratio: How many times faster (or smaller) ours is than the rival; above 1 is better.
        target: The ratio to reach.
        rival: What it is compared with.
        seconds: Ours, median, in CPU seconds.
        rival_seconds: The rival's.
        peak_bytes: Ours: peak of memory above what the inputs took; None where not measured.
        rival_peak_bytes: The rival's.
        note: Anything that a reader must know (agreement of the two results, hardware).
        is_wall: Whether the seconds are those of a clock, for work on another device.
    """

    kind: ClassVar[str] = "result"

    name: str
    ratio: float
    target: float
    rival: str
    seconds: float
    rival_seconds: float
    peak_bytes: int | None = None
    rival_peak_bytes: int | None = None
    note: str = ""
    is_wall: bool = False

    @property
    def reached(self) -> bool:
        """Whether the ratio is at least the target."""
        return self.ratio >= self.target


@dataclass(frozen=True)
class Growth:
    """How the work grows with its size.

    Args:
        name: What was done, and what grew.
        exponent: Exponent of the growth: 1 is linear.
        at_most: The exponent that may not be passed.
        seconds: CPU seconds at each size, such as `{"1,000": 0.2}`.
        peak_bytes: Peak of memory at the largest size, above what the inputs took.
        note: Anything that a reader must know.
    """

    kind: ClassVar[str] = "growth"

    name: str
    exponent: float
    at_most: float
    seconds: dict[str, float]
    peak_bytes: int | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the exponent is at most what is allowed."""
        return self.exponent <= self.at_most


@dataclass(frozen=True)
class NotMeasured:
    """A figure that could not be measured here.

    Args:
        name: What was not done.
        reason: Why, and how to have it measured.
    """

    kind: ClassVar[str] = "not measured"

    name: str
    reason: str

    @property
    def reached(self) -> None:
        """Nothing is known."""
        return None


Row = Result | Growth | NotMeasured


def cpu_seconds() -> float:
    """Return the CPU seconds of this process so far, and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def compare(
    ours: Callable[[], Any],
    rival: Callable[[], Any],
    repeats: int = 5,
    *,
    warm_up: bool = True,
    clock: Callable[[], float] = cpu_seconds,
) -> tuple[float, float]:
    """Time the two in alternation and return the medians, (ours, rival), in seconds.

    CPU seconds do not count what other programs take, and alternation makes what they slow down
    (caches, memory, frequency) hit both. The first call of each is not counted.

    Args:
        ours: Our work.
        rival: The rival's work.
        repeats: How often each is timed.
        warm_up: Whether each is called once before.
        clock: Seconds so far; `time.perf_counter` for work on another device.
    """
    if warm_up:
        ours()
        rival()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for slot, work in zip(times, (ours, rival), strict=True):
            start = clock()
            work()
            slot.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_bytes(work: Callable[..., Any], prepare: Callable[[], tuple[Any, ...]]) -> int:
    """Return the peak of resident memory that `work(*prepare())` adds to its inputs, in bytes.

    Both run in a fresh process; what `prepare` leaves (imports, inputs) is not counted.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, work, prepare))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process that measured {work.__name__} died") from None
    finally:
        child.join()
    if isinstance(answer, BaseException):
        raise answer
    return int(answer)


def _measure(
    sender: Connection, work: Callable[..., Any], prepare: Callable[[], tuple[Any, ...]]
) -> None:
    try:
        inputs = prepare()
        before = _status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        work(*inputs)
        sender.send(max(0, _status_bytes("VmHWM") - before))
    except Exception as error:
        sender.send(error)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
