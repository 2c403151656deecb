"""Run the benchmarks: `python -m tests.benchmarks.run [--only NAME] [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.base import Result

FOLDER = Path(__file__).parent
# what decides how fast matrix products in float32, bfloat16 and int8 are
_INSTRUCTIONS = {"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16"}


def names() -> list[str]:
    """Names of all benchmarks: the modules bench_<name>.py beside this one."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def results(name: str) -> Iterator[Result]:
    """Run one benchmark."""
    module = importlib.import_module(f"tests.benchmarks.bench_{name}")
    yield from module.run()


def append(path: Path, result: Result) -> None:
    """Add a result to a JSON list, with what it was measured on."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows.append({**dataclasses.asdict(result), "reached": result.reached, **_environment()})
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows, indent=1))
    os.replace(temporary, path)


def _environment() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo")
    known = set(flags.read_text().split()) if flags.exists() else set()
    return {
        "instructions": sorted(known & _INSTRUCTIONS),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "n_threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0],
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
    }


def main() -> None:
    """Run what was asked for, print each row, keep it in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=names(), help="one benchmark")
    parser.add_argument("--json", type=Path, help="append the results to this file")
    arguments = parser.parse_args()
    for name in arguments.only or names():
        for result in results(name):
            print(result.row(), flush=True)
            if arguments.json:
                append(arguments.json, result)


if __name__ == "__main__":
    main()
