"""Probes in a separate process, because the one that trains has more than one rank.

Inside an open process group, a Trainer of one device would sync its metrics over the group and
hang. So rank 0 starts `python -m synque_select.probing.worker` without the rank variables and sends
the work through a pipe, pickled as for `ddp_spawn`; only this child reads it.

A `concurrent.futures.ProcessPoolExecutor` cannot replace this process:

- With the spawn method it imports the user's script in the child, even if nothing of the work is
  defined there; a script without an `if __name__ == "__main__":` guard would train a second time.
- Its child outlives a killed parent and holds the GPU, because it holds both ends of its queue.
- An error in the parent waits for the running task: before Python 3.14 a pool cannot end its child.
- A child that the kernel has killed is reported without its exit status.
- Model and data are held in memory once more as bytes before they are sent.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from synque_select.errors import LightningError
from synque_select.records.store import RunStore
from synque_select.training.lightning_compat import package_of
from synque_select.training.short_fit import ModelFactory, ShortFits
from synque_select.utils.rank_variables import without_rank_variables

__all__ = ["ProbeWork", "check_sendable", "run_in_worker"]

_SCRIPT_NAMES = (b"__main__", b"__mp_main__")


@dataclass(frozen=True)
class ProbeWork:
    """The arguments of `train_probes`, as they are sent to the worker."""

    fits: ShortFits
    model_factory: ModelFactory
    store: RunStore
    progress: bool


def check_sendable(value: object) -> None:
    """Check before training whether a value can be sent to the worker after it.

    Raises:
        LightningError: A part of the value cannot be pickled, or is defined in a script that the
            worker cannot import without running it.
    """
    sink = _PickleSink()
    try:
        pickle.dump(value, sink)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise LightningError(
            "with more than one rank the probes run in a separate process, to which model and data "
            f"cannot be sent: {error}. Use functions of a module instead of lambdas and local "
            "functions, or leave probes= out and run `synque-select sweep`"
        ) from error
    if sink.names_script:
        _check_guarded(_script())


class _PickleSink:
    """A file for pickle that keeps nothing but whether the pickle names the running script."""

    def __init__(self) -> None:
        self.names_script = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        block = bytes(data)
        self.names_script |= any(name in block for name in _SCRIPT_NAMES)
        return len(block)


def _script() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


def _check_guarded(script: str | None) -> None:
    if script is None:
        raise LightningError(
            "with more than one rank the probes run in a separate process, which cannot import "
            "what a notebook defines: move model and functions into a module, or leave probes= out"
        )
    body = ast.parse(Path(script).read_bytes()).body
    tests = [node.test for node in body if isinstance(node, ast.If)]
    names = {part.id for test in tests for part in ast.walk(test) if isinstance(part, ast.Name)}
    if "__name__" not in names:
        raise LightningError(
            "with more than one rank the probes run in a separate process, which imports "
            f"{script}, where model or data are defined: put what the script does under "
            "`if __name__ == '__main__':`, or leave probes= out"
        )


def run_in_worker(work: ProbeWork) -> list[str]:
    """Run the probes in the worker and return the ids of their records, which are in the store.

    Raises:
        LightningError: The worker failed, with its error; finished probes stay in the store.
    """
    with _worker() as (process, answer):
        assert process.stdin is not None
        head = {
            "script": _script(),
            "sys_path": sys.path,
            "package": package_of(work.fits.datamodule) or "pytorch_lightning",
        }
        with suppress(BrokenPipeError):  # the worker has died, so its answer is empty
            process.stdin.write(json.dumps(head).encode() + b"\n")
            pickle.dump(work, process.stdin)
            process.stdin.flush()
        text = answer.read()
        status = process.wait()
    if not text:
        raise LightningError(f"the process of the probes ended with status {status}")
    result = json.loads(text)
    if "error" in result:
        raise LightningError(f"the process of the probes: {result['error']}")
    return list(result["run_ids"])


@contextmanager
def _worker() -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    # the answer has a pipe of its own: libraries and the user's code may write to stdout
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "synque_select.probing.worker", str(writer)],
        stdin=subprocess.PIPE,
        pass_fds=[writer],
        env=without_rank_variables(os.environ),
    )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answer:
            yield process, answer
    finally:
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()
