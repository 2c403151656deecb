"""The same function of many units, side by side in processes of their own.

A worker is `python -m synque_select.probing.worker`: it gets the function once and then one unit
after another through a pipe, pickled as for `ddp_spawn`; only this child reads it.

A `concurrent.futures.ProcessPoolExecutor` cannot replace it:

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
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

import torch

from synque_select import errors
from synque_select.errors import LightningError, SynqueError
from synque_select.execution.base import Executor, UnitFailure
from synque_select.execution.calls import calls_of
from synque_select.execution.environment import TorchState
from synque_select.execution.processes import ProcessExecutor
from synque_select.utils.rank_variables import without_rank_variables

__all__ = ["WorkerPool", "WorkerProcess", "check_sendable"]

_U = TypeVar("_U")
_R = TypeVar("_R")
_WHY = "with more than one rank the probes run in a separate process"
_OTHERWISE = "leave probes= out and run `synque-select sweep`"
_SCRIPT_NAMES = (b"__main__", b"__mp_main__")
_END_S = 5.0  # seconds that an idle process may take to end


class WorkerProcess:
    """A process that applies a function to one unit at a time.

    Args:
        package: The package of Lightning that trains.
        environment: Its environment variables.
        n_threads: Number of threads of torch; None for torch's default.
    """

    def __init__(
        self, package: str, environment: Mapping[str, str], n_threads: int | None = None
    ) -> None:
        # the answers have a pipe of their own: libraries and the user's code may write to stdout
        reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "synque_select.probing.worker", str(writer)],
                stdin=subprocess.PIPE,
                pass_fds=[writer],
                env=environment,
                # an interrupt is for the process that waits, which ends this one
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.answers: IO[bytes] = os.fdopen(reader, "rb")
        self._package = package
        self._torch_state = replace(TorchState.here(), threads=n_threads)

    def start(self, run: Callable[[Any], Any]) -> None:
        """Send the function and the state of torch that changes results."""
        head = {
            "script": _running_script(),
            "sys_path": sys.path,
            "package": self._package,
            "torch": vars(self._torch_state),
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the worker has died, so its answer is empty
            self._process.stdin.write(json.dumps(head).encode() + b"\n")
            _Pickler(self._process.stdin).dump(run)
            self._process.stdin.flush()

    def send(self, unit: object) -> None:
        """Send a unit, whose result is the next answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump(unit, self._process.stdin)
            self._process.stdin.flush()

    def result(self, name: str) -> Any:
        """Wait for the next answer and return its result.

        Args:
            name: What runs, for the message of an error.

        Raises:
            SynqueError: The function raised it, or the process has ended.
        """
        try:
            kind, value = pickle.load(self.answers)
        except (EOFError, pickle.UnpicklingError):
            status = self._process.wait()
            hint = " (killed, often because memory ran out)" * (status == -signal.SIGKILL)
            raise LightningError(
                f"the process of {name} ended with status {status}{hint}"
            ) from None
        if kind == "result":
            return value
        error, message = value
        known = getattr(errors, error or "", None)
        if isinstance(known, type) and issubclass(known, SynqueError):
            raise known(message)
        raise LightningError(f"the process of {name}: {message}")

    def close(self) -> None:
        """Let an idle process end, and kill it if it does not."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.kill()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        with suppress(BrokenPipeError, ValueError):  # ValueError: stdin is closed already
            self._process.communicate()
        self.answers.close()


class _Pickler(pickle.Pickler):
    """Sends of a tensor that is a part of a larger one only that part.

    Pickle writes all of the memory behind each: the rows of a table of n rows n times.
    """

    def reducer_override(self, value: Any) -> Any:
        if (
            type(value) is torch.Tensor
            and value.device.type == "cpu"
            and value.layout == torch.strided
            and not value.requires_grad
            and value.dtype != torch.bfloat16  # NumPy has none
            and value.untyped_storage().nbytes() > value.nbytes
        ):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


class WorkerPool(Generic[_U, _R]):
    """Context manager that applies a function to units, some of them at the same time.

    The results are those of one process with as many threads of torch as each worker has, bit by
    bit: the threads of this process divided by `n_workers`, at least one. With several GPUs, worker
    i sees GPU i alone, counted round. If a unit raises an error, or the process ends, all workers
    are killed, and units that had not finished are lost.

    Args:
        run: Function of a unit. With several workers, function, units and results must be
            picklable.
        n_workers: Number of processes; with 1, this process runs all units.
        name_of: Takes a unit and returns what an error message calls it.
        package: The package of Lightning that trains.
        executor: Where to run the units instead; None for processes of this pool. Of processes of
            its own, an executor gives this pool the number and the devices.

    Example:
        >>> with WorkerPool(abs, 1, name_of=str) as pool:
        ...     list(pool.map([-1, 2]))
        [(-1, 1), (2, 2)]
    """

    def __init__(
        self,
        run: Callable[[_U], _R],
        n_workers: int,
        *,
        name_of: Callable[[_U], str],
        package: str = "pytorch_lightning",
        executor: Executor | None = None,
    ) -> None:
        self._run, self._n_workers, self._name_of = run, n_workers, name_of
        self._package = package
        self._variables: Sequence[Mapping[str, str]] = ()
        self._executor = None
        if isinstance(executor, ProcessExecutor):
            # these workers know the user's script, which may define the model
            self._variables = executor.variables
            self._n_workers = len(self._variables)
        elif executor is not None and executor.is_remote:
            self._executor = executor
        self._workers: list[WorkerProcess] = []

    def map(self, units: Iterable[_U]) -> Iterator[tuple[_U, _R]]:
        """Yield each unit with its result, as they finish; units are taken as workers are free.

        Raises:
            LightningError: The function cannot be sent to another process, or a process has ended.
        """
        if self._executor is not None:
            yield from self._map_elsewhere(self._executor, units)
            return
        if self._n_workers == 1 and not self._variables:
            for unit in units:
                yield unit, self._run(unit)
            return
        waiting = iter(units)
        first = list(islice(waiting, self._n_workers))
        self._start(len(first))
        with selectors.DefaultSelector() as selector:
            for worker, unit in zip(self._workers, first, strict=False):
                worker.send(unit)
                selector.register(worker.answers, selectors.EVENT_READ, (worker, unit))
            while selector.get_map():
                for key, _ in selector.select():
                    worker, unit = key.data
                    selector.unregister(worker.answers)
                    yield unit, worker.result(self._name_of(unit))
                    for following in islice(waiting, 1):
                        worker.send(following)
                        selector.register(worker.answers, selectors.EVENT_READ, (worker, following))

    def _map_elsewhere(self, executor: Executor, units: Iterable[_U]) -> Iterator[tuple[_U, _R]]:
        given: dict[str, _U] = {}
        for call, result in executor.run(
            calls_of(executor, self._run, units, name_of=self._name_of, given=given)
        ):
            if isinstance(result, UnitFailure):
                raise result.error
            yield given.pop(call.key), result

    def _start(self, n: int) -> None:
        """Start workers until there are n."""
        n_known = len(self._workers)
        if n_known == 0:
            check_sendable(
                self._run,
                why=f"with n_workers={self._n_workers}, fits run in separate processes",
                otherwise="use n_workers=1",
            )
        n_threads = max(1, torch.get_num_threads() // self._n_workers)
        environment = without_rank_variables(os.environ)
        for i in range(n_known, n):
            device = self._variables[i] if self._variables else _device(i)
            of_worker = {**environment, **device, "OMP_NUM_THREADS": str(n_threads)}
            self._workers.append(WorkerProcess(self._package, of_worker, n_threads))
        for worker in self._workers[n_known:]:  # when all have started: each waits for its imports
            worker.start(self._run)

    def __enter__(self) -> WorkerPool[_U, _R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is None:
                worker.close()
            else:
                worker.kill()


def _device(worker: int) -> dict[str, str]:
    """Return the variable that shows a worker one of several GPUs."""
    n = torch.cuda.device_count()
    if n < 2:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n)))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[worker % n]}


def check_sendable(value: object, *, why: str = _WHY, otherwise: str = _OTHERWISE) -> None:
    """Check before training whether a value can be sent to the worker after it.

    Args:
        value: The value that will be sent.
        why: Why it is sent, for the message of an error.
        otherwise: What else a user can do, for the same.

    Raises:
        LightningError: A part of the value cannot be pickled, or is defined in a script that the
            worker cannot import without running it.
    """
    sink = _PickleSink()
    try:
        _Pickler(sink).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise LightningError(
            f"{why}, to which model and data cannot be sent: {error}. Use functions of a module "
            f"instead of lambdas and local functions, or {otherwise}"
        ) from error
    if sink.names_script:
        _check_guarded(_running_script(), why, otherwise)


class _PickleSink:
    """A file for pickle that keeps nothing but whether the pickle names the running script."""

    def __init__(self) -> None:
        self.names_script = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        block = bytes(data)
        self.names_script |= any(name in block for name in _SCRIPT_NAMES)
        return len(block)


def _check_guarded(script: str | None, why: str, otherwise: str) -> None:
    if script is None:
        raise LightningError(
            f"{why}, which cannot import what a notebook defines: move model and functions into a "
            f"module, or {otherwise}"
        )
    body = ast.parse(Path(script).read_bytes()).body
    tests = [node.test for node in body if isinstance(node, ast.If)]
    names = {part.id for test in tests for part in ast.walk(test) if isinstance(part, ast.Name)}
    if "__name__" not in names:
        raise LightningError(
            f"{why}, which imports {script}, where model or data are defined: put what the script "
            f"does under `if __name__ == '__main__':`, or {otherwise}"
        )


def _running_script() -> str | None:
    """Return the path of the script that runs; None in a notebook."""
    return getattr(sys.modules["__main__"], "__file__", None)
