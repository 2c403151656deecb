"""Units of work for tests, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from synque_select.errors import DataError, DependencyError
from synque_select.execution import Worker


@dataclass(frozen=True)
class Work:
    """Writes that it runs, and then does one of several things."""

    key: str
    log: str
    what: str = "ok"

    @property
    def name(self) -> str:
        return f"work {self.key}"

    def run(self, worker: Worker) -> object:
        with Path(self.log).open("a") as stream:
            stream.write(f"{self.key}\n")
        runs = Path(self.log).read_text().split().count(self.key)
        if self.what == "dies" or (self.what == "dies once" and runs == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "bad data":
            raise DataError("news: line 3 is empty")
        if self.what == "no package":
            raise DependencyError("x", extra="y", purpose="z")
        if self.what == "fails":
            raise ZeroDivisionError("by zero")
        if self.what == "takes long":
            with Path(self.log).open("a") as stream:
                stream.write(f"pid:{os.getpid()}\n")
            time.sleep(300)
        if self.what == "takes time":
            time.sleep(0.5)
        if self.what == "environment":
            return dict(os.environ), torch.get_num_threads()
        return worker.keep("model:a", os.getpid)
