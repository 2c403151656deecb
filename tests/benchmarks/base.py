"""What every benchmark is made of: a result, a fair comparison, and a peak of memory.

A benchmark is a module `bench_<name>.py` beside this one with a function `run()` that yields a
`Result` for each figure. Functions handed to `peak_bytes` stand at the top level of their module,
because they run in a fresh process.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["Result", "compare", "peak_bytes"]


@dataclass(frozen=True)
class Result:
    """One figure of a benchmark.

    Args:
        name: What was done.
        ratio: How many times faster (or smaller) ours is than the rival; above 1 is better.
        target: The ratio to reach.
        rival: What it is compared with.
        seconds: Ours, median.
        rival_seconds: The rival's, median.
        peak_bytes: Ours: peak of memory above what the inputs took; None where not measured.
        rival_peak_bytes: The rival's.
        note: Anything that a reader must know (agreement of the two results, hardware).
    """

    name: str
    ratio: float
    target: float
    rival: str
    seconds: float
    rival_seconds: float
    peak_bytes: int | None = None
    rival_peak_bytes: int | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the ratio is at least the target."""
        return self.ratio >= self.target

    def row(self) -> str:
        """One line for the terminal."""
        peaks = f"peak {_mib(self.peak_bytes)} | {_mib(self.rival_peak_bytes)}"
        word = "ok" if self.reached else "BELOW TARGET"
        return (
            f"{self.name}: {self.ratio:.2f}x (target {self.target:g}x, {word}) "
            f"{self.seconds:.3f} s | {self.rival} {self.rival_seconds:.3f} s, {peaks}"
            + (f", {self.note}" if self.note else "")
        )


def _mib(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / 2**20:.0f} MiB"


def compare(
    ours: Callable[[], Any], rival: Callable[[], Any], repeats: int = 5, *, warm_up: bool = True
) -> tuple[float, float]:
    """Time the two in alternation and return the medians, (ours, rival), in seconds.

    Alternation makes a load from elsewhere hit both; the first call of each is not counted.
    """
    if warm_up:
        ours()
        rival()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for slot, work in zip(times, (ours, rival), strict=True):
            start = time.perf_counter()
            work()
            slot.append(time.perf_counter() - start)
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
