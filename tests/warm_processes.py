"""Python programs in processes of their own that need not import torch and Lightning first.

These imports take several seconds, most of the time of a small program. A server
(`tests.warm_server`) makes them once, and each program is a fork of it: with a state, variables, a
folder and an exit status of its own, and with this library imported anew. It has the hash seed of
the server. So where imports, hashes or the start of the interpreter are tested, or where several
programs run at the same time, start real processes with `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

SERVER = Path(__file__).with_name("warm_server.py")
# read when the interpreter or a package is imported, which the server has done
FIXED = ("PYTHON", "OMP_", "MKL_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "SYNQUE_TEST_")


def run_warm(
    command: Sequence[str | Path],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    start_new_session: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the arguments of a Python interpreter, as `subprocess.run` does with captured text.

    Args:
        command: `["-c", code]`, `["-m", module]` or `[script]`, each with arguments.
        cwd: The working directory; None for that of this process.
        env: The environment; None for that of this process.
        timeout: Seconds after which it is killed.
        start_new_session: Whether it leads a new process group.

    Raises:
        subprocess.TimeoutExpired: It was killed.
    """
    variables = dict(os.environ if env is None else env)
    words = [str(word) for word in command]
    server = _server(tuple(sorted(_fixed(variables).items())))
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        pipes = [Path(folder, name) for name in ("stdout", "stderr")]
        for pipe in pipes:
            os.mkfifo(pipe)
        request = {
            "command": words,
            "cwd": os.path.abspath(cwd or os.curdir),
            "env": variables,
            "new_session": start_new_session,
            "output": [str(pipe) for pipe in pipes],
        }
        server.stdin.write(json.dumps(request).encode() + b"\n")
        server.stdin.flush()
        pid = json.loads(server.stdout.readline())
        # they end when the program and all that it has started have ended
        reading = [pool.submit(pipe.read_text, errors="replace") for pipe in pipes]
        late = wait(reading, timeout).not_done
        if late:
            os.kill(pid, signal.SIGKILL)
        out, err = (one.result() for one in reading)
        status = json.loads(server.stdout.readline())
    if late:
        raise subprocess.TimeoutExpired(words, timeout, out, err)
    return subprocess.CompletedProcess(words, status, out, err)


def _fixed(variables: Mapping[str, str]) -> dict[str, str]:
    # each program gets the PYTHONPATH of its own
    names = (name for name in variables if name.startswith(FIXED) and name != "PYTHONPATH")
    return {name: variables[name] for name in names}


@functools.cache
def _server(fixed: tuple[tuple[str, str], ...]) -> subprocess.Popen[bytes]:
    """Start a server with these variables, which ends with this process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FIXED)}
    server = subprocess.Popen(
        [sys.executable, str(SERVER)],
        env={**own, **dict(fixed), "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.communicate()
