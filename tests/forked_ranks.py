"""The processes of a run with several ranks as forks, as a launcher such as torchrun starts them.

Lightning starts the others as new programs, which import torch and Lightning again: several seconds
for each. Scripts that test the launch itself leave it to Lightning.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["forked_ranks"]


@contextmanager
def forked_ranks(n: int) -> Iterator[None]:
    """Run the block in `n` processes, whose `LOCAL_RANK` Lightning takes for its own.

    The first waits for the others at the end, and fails if one of them does. They must not have
    started threads before.

    Args:
        n: Number of ranks on this machine.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    children = []
    for rank in range(n - 1, -1, -1):
        os.environ["LOCAL_RANK"] = str(rank)
        if rank:
            pid = os.fork()
            if not pid:
                children.clear()
                break
            children.append(pid)
    yield
    for pid in children:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise SystemExit(f"a rank ended with the exit status {status}")
