"""Probes in a process of their own, because the one that trains has more than one rank.

A one-device Trainer inside an open process group would sync its metrics over the group and hang.
So rank 0 starts `python -m synque_select.probing.worker` without the rank variables and sends it
the work through a pipe, as `ddp_spawn` sends its own: pickled, and read by nobody but this child.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from synque_select.errors import LightningError

__all__ = ["check_sendable", "run_in_worker", "without_rank_variables"]

_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_RANK_PREFIXES = ("TORCHELASTIC_", "SLURM_", "OMPI_COMM_", "PMI_", "LSB_")
_SCRIPT_NAMES = (b"__main__", b"__mp_main__")


def without_rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as it would be without a launcher.

    Example:
        >>> without_rank_variables({"LOCAL_RANK": "1", "MASTER_PORT": "1", "HOME": "/h"})
        {'HOME': '/h'}
    """
    return {
        name: value
        for name, value in environment.items()
        if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
    }


def check_sendable(what: Any) -> None:
    """Refuse, before anything is trained, what cannot be sent to the worker afterwards.

    Raises:
        LightningError: A part of it cannot be pickled, or stands in a script that a worker cannot
            import without running it.
    """
    sink = _Sink()
    try:
        pickle.dump(what, sink)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise LightningError(
            "with more than one rank the probes run in a process of their own, to which model and "
            f"data cannot be sent: {error}. Use functions of a module in place of lambdas and "
            "local ones, or leave probes= out and run `synque-select sweep`"
        ) from error
    if sink.names_script:
        _check_guarded(_script())


class _Sink:
    """Forgets what is written, but for whether it names the script that runs."""

    def __init__(self) -> None:
        self.names_script = False

    def write(self, data: Any) -> int:
        block = bytes(data)
        self.names_script |= any(name in block for name in _SCRIPT_NAMES)
        return len(block)


def _script() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


def _check_guarded(script: str | None) -> None:
    if script is None:
        raise LightningError(
            "with more than one rank the probes run in a process of their own, which cannot import "
            "what a notebook defines: put model and functions into a module, or leave probes= out"
        )
    body = ast.parse(Path(script).read_bytes()).body
    tests = [node.test for node in body if isinstance(node, ast.If)]
    names = {part.id for test in tests for part in ast.walk(test) if isinstance(part, ast.Name)}
    if "__name__" not in names:
        raise LightningError(
            f"with more than one rank the probes run in a process of their own, which imports "
            f"{script}, where model or data stand: put what the script does under "
            "`if __name__ == '__main__':`, or leave probes= out"
        )


def run_in_worker(work: Mapping[str, Any]) -> list[str]:
    """Run the probes in the worker and return the ids of their records, which are in the store.

    Raises:
        LightningError: The worker failed, with what it said; probes that it finished are kept.
    """
    with _worker() as (process, answer):
        assert process.stdin is not None
        head = {"script": _script(), "sys_path": sys.path}
        with suppress(BrokenPipeError):  # it has died, and its answer is empty
            process.stdin.write(json.dumps(head).encode() + b"\n")
            pickle.dump(dict(work), process.stdin)
            process.stdin.flush()
        said = answer.read()
        status = process.wait()
    if not said:
        raise LightningError(f"the process of the probes ended with status {status}")
    found = json.loads(said)
    if "error" in found:
        raise LightningError(f"the process of the probes: {found['error']}")
    return list(found["run_ids"])


@contextmanager
def _worker() -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
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
