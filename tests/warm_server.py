"""Runs Python programs in forks of a process that has imported torch and Lightning.

Started by `tests.warm_processes`: one JSON object per line in, and two out, the id of the process
and then its exit status.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import runpy
import sys
import types
from pathlib import Path
from typing import Any

# packages of others only: what this library imports, each program imports for itself
PRELOADED = (
    "torch",
    "scipy.stats",
    "sklearn.linear_model",
    os.environ.get("SYNQUE_TEST_LIGHTNING", "pytorch_lightning"),
    "datasets",
    "transformers",
    "jsonargparse",
    "sentence_transformers",
    "torchvision",
)


def main() -> None:
    """Answer requests; in a fork, return only once it is the program that was asked for."""
    for name in PRELOADED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection of each fork would copy all of these objects
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            answers.close()
            _become(request)
            return _run(request["command"])
        print(json.dumps(pid), file=answers)
        _, status = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), file=answers)
    return None


def _become(request: dict[str, Any]) -> None:
    """Take the place of a process that was started with these files, variables and folder."""
    if request["new_session"]:
        os.setsid()
    files = [(os.devnull, os.O_RDONLY), *((path, os.O_WRONLY) for path in request["output"])]
    for number, (path, flags) in enumerate(files):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[1:1] = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _run(command: list[str]) -> None:
    first, *arguments = command
    if first == "-m":
        name, *arguments = arguments
        sys.argv, sys.path[0] = [name, *arguments], os.getcwd()
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-c":
        code, *arguments = arguments
        sys.argv, sys.path[0] = ["-c", *arguments], ""
        program = compile(code, "<string>", "exec")
    else:
        script = module.__file__ = os.path.abspath(first)
        sys.argv, sys.path[0] = [first, *arguments], os.path.dirname(script)
        program = compile(Path(script).read_bytes(), script, "exec")
    exec(program, vars(module))


if __name__ == "__main__":
    main()
