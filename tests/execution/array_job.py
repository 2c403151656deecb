"""Runs the processes of a batch job and kills some: `python -m … PLAN LOG`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from synque_select.cli import work
from synque_select.cli.main import main


def wait_for(pid: int, log: Path) -> None:
    """Wait until a process encodes or trains."""
    deadline = time.monotonic() + 300
    while str(pid) not in (log.read_text().split() if log.exists() else ()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_array(plan: str, n: int, killed: set[int], log: Path) -> list[int]:
    """Run `work` in n processes, kill some of them in the middle; return the statuses."""
    job = work.read_plan(Path(plan))
    with work.opened(job, quiet=True):  # imports once what all processes need
        pass
    children = []
    for index in range(n):
        pid = os.fork()
        if not pid:
            if index in killed:  # it must not end before it is killed
                os.environ["SLOW_JOB_WAITS"] = "1"
            status = main(["work", plan, "--index", str(index), "--of", str(n), "--quiet"])
            os._exit(status)
        children.append(pid)
    for index in killed:
        wait_for(children[index], log)
        os.kill(children[index], signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


if __name__ == "__main__":
    print(run_array(sys.argv[1], 8, {2, 5}, Path(sys.argv[2])))
