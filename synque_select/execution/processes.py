"""Units in processes on this machine, such as one per GPU."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from synque_select.errors import ExecutorError
from synque_select.execution.base import Unit
from synque_select.execution.environment import TorchState
from synque_select.execution.pool import Lost, PoolExecutor
from synque_select.utils.rank_variables import without_rank_variables
from synque_select.utils.wording import one_line

__all__ = ["ProcessExecutor"]

_WAIT_S = 1.0
_END_S = 5.0


@dataclass(eq=False)
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection
    variables: Mapping[str, str]


class ProcessExecutor(PoolExecutor[_Process]):
    """Runs units in processes on this machine.

    The processes are started as `python -m`, not forked or spawned: they do not import the script
    of the user, and they end with this process.

    Args:
        variables: For each process, the environment variables that it has besides those of this
            one, such as CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, variables: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self._free = [*variables]
        self._n = len(self._free)
        self._all: list[_Process] = []

    @property
    def variables(self) -> list[Mapping[str, str]]:
        """The environment variables of each process."""
        return [*self._free, *(worker.variables for worker in self._all)]

    def _n_slots(self) -> int:
        return self._n

    def _start(self) -> _Process:
        own = self._free.pop(0)
        here, there = Pipe()
        environment = {**without_rank_variables(os.environ), **own}
        with there:
            number = there.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "synque_select.execution.worker", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                env=environment,
            )
        worker = _Process(process, here, own)
        self._all.append(worker)
        with suppress(BrokenPipeError):  # it has ended; its answer will say so
            here.send(sys.path)
            here.send(TorchState.here())
        return worker

    def _send(self, worker: _Process, unit: Unit[object]) -> None:
        try:
            worker.connection.send(unit)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ExecutorError(
                f"{unit.name} cannot be sent to another process: "
                f"{one_line(str(error))}. Define what it needs in a module that can be imported, "
                "or use executor='local'"
            ) from error
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended; its answer will say so

    def _answers(self, workers: Sequence[_Process]) -> list[tuple[_Process, object]]:
        by_connection = {worker.connection: worker for worker in workers}
        answers: list[tuple[_Process, object]] = []
        for ready in wait([*by_connection], timeout=_WAIT_S):
            assert isinstance(ready, Connection)
            worker = by_connection[ready]
            try:
                answers.append((worker, ready.recv()))
            except (EOFError, ConnectionResetError):
                status = worker.process.wait()
                answers.append((worker, Lost(f"its process ended with status {status}")))
        return answers

    def _end(self, worker: _Process) -> None:
        if worker not in self._all:
            return
        self._all.remove(worker)
        self._free.append(worker.variables)
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()

    def close(self) -> None:
        """End the processes."""
        for worker in [*self._all]:
            worker.connection.close()  # an idle process ends by itself
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(_END_S)
            self._end(worker)
        self._starting.clear()
        self._idle.clear()
