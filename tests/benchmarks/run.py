"""Run the benchmarks: `python -m tests.benchmarks.run [--only NAME] [--write]`."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import inspect
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.benchmarks.base import NotMeasured, Row
from tests.benchmarks.page import FILE, INSTRUCTIONS, PAGE, keep, line, write_page

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of all benchmarks: the modules bench_<name>.py beside this one."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def measure(module: str) -> tuple[str, list[Row], dict[str, Any], bool]:
    """Run one benchmark in a process of its own, printing each row.

    Returns:
        Its title, its rows, what they were measured on, and whether it ran to its end. One that
        failed has a last row that says so.
    """
    context = multiprocessing.get_context("spawn")
    default = multiprocessing.get_start_method()
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_rows, args=(sender, module, default))
    child.start()
    sender.close()
    rows: list[Row] = []
    title, environment, error = module, _environment(1), ""
    with receiver:
        try:
            title, environment = receiver.recv()
            while (row := receiver.recv()) is not None:
                if isinstance(row, str):
                    error = row
                    break
                print(line(row), flush=True)
                rows.append(row)
        except EOFError:
            child.join()
            error = f"its process ended with exit status {child.exitcode}"
    child.join()
    if error:
        rows.append(NotMeasured("the rest of this benchmark", f"failed: {error}"))
        print(line(rows[-1]), flush=True)
    return title, rows, environment, not error


def _send_rows(sender: Connection, module: str, start_method: str) -> None:
    """Send the title and surroundings, the rows, and None; or a sentence on the error."""
    # a spawned process would spawn the workers of its DataLoaders too, unlike a user's script
    multiprocessing.set_start_method(start_method, force=True)
    try:
        benchmark = importlib.import_module(module)
        title = (inspect.getdoc(benchmark) or module).split("\n\n")[0].split("\n")[0].rstrip(".")
        import torch

        sender.send((title, _environment(torch.get_num_threads())))
        for row in benchmark.run():
            sender.send(row)
        sender.send(None)
    except Exception as error:
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _environment(n_threads: int) -> dict[str, Any]:
    flags = Path("/proc/cpuinfo")
    known = set(flags.read_text().split()) if flags.exists() else set()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "instructions": sorted(known & set(INSTRUCTIONS)),
        "n_threads": n_threads,
        "torch": importlib.metadata.version("torch"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 if a benchmark failed, also after all others ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=names(), help="one benchmark")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the rows in {FILE.name}, and write {PAGE.name}"
    )
    options = parser.parse_args(arguments)
    failed = []
    for name in options.only or names():
        start = time.monotonic()
        title, rows, environment, is_whole = measure(f"tests.benchmarks.bench_{name}")
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        failed += [name] * (not is_whole)
        if options.write:
            keep(name, title, rows, environment)
            write_page()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
