"""Units on a Ray cluster: one actor per worker, which keeps its models between units."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from synque_select.errors import DependencyError, ExecutorError
from synque_select.execution.base import Shared, Unit, UnitFailure, Worker, run_unit
from synque_select.execution.environment import Environment, TorchState, become_worker
from synque_select.execution.pool import Lost, PoolExecutor
from synque_select.utils.wording import counted, one_line

if TYPE_CHECKING:
    import ray

__all__ = ["RayExecutor"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_CONNECT_S = 20.0
_WAIT_S = 1.0
_NOTE_S = 60.0


class RayWorker:
    """The actor: a process of the cluster that runs units."""

    def __init__(self, state: TorchState) -> None:
        become_worker(state)
        self._worker = Worker()
        self._here = Environment.here()

    def hello(self) -> Environment:
        """Return the environment of the process."""
        return self._here

    def run(self, unit: Unit[object]) -> object:
        """Run a unit; an error is returned as a failure."""
        return run_unit(unit, self._worker, f"on {self._here.host}")


class _RayShared(Shared[_T]):
    """A value in Ray's object store."""

    def __init__(self, reference: ray.ObjectRef[_T]) -> None:
        self._reference = reference

    def get(self) -> _T:
        """Return the value; arrays are not copied."""
        import ray

        value: _T = ray.get(self._reference)
        return value


@dataclass(eq=False)
class _Actor:
    handle: Any  # Ray gives actors no type
    answer: ray.ObjectRef[object]


class RayExecutor(PoolExecutor[_Actor]):
    """Runs units on a Ray cluster.

    Nothing is assumed of the nodes but that the same versions of this package and of those that
    it depends on are installed there. What a unit needs is sent with it, and what several units
    need is put into Ray's object store once. The units of a lost node run again on others.

    Args:
        address: "ray://HOST:PORT"; None for the cluster that this process is connected to, that of
            $RAY_ADDRESS, or that of this machine.
        cpus: CPUs per worker; None for as many as torch has threads in this process, but no more
            than the smallest node has.
        gpus: GPUs per worker, or a part of one; None for 1 if the cluster has any, else 0.
        n_workers: Number of workers; None for as many as there is room for now.

    Raises:
        DependencyError: Ray is not installed.
    """

    takes_data: ClassVar[bool] = True

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: int | None = None,
        gpus: float | None = None,
        n_workers: int | None = None,
    ) -> None:
        super().__init__()
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise DependencyError("ray", extra="ray", purpose="executor='ray'") from error
        self._address, self._cpus, self._gpus = address, cpus, gpus
        self._n_workers = n_workers
        self._is_own_connection = False
        self._all: list[_Actor] = []
        self._quiet_since = time.monotonic()

    def share(self, value: _T) -> Shared[_T]:
        """See `Executor.share`."""
        import ray

        self._connect()
        try:
            with _cluster_errors():
                return _RayShared(ray.put(value))
        except TypeError as error:  # what Ray raises where cloudpickle fails
            raise ExecutorError(
                f"what workers need cannot be sent to them: {one_line(str(error))}"
            ) from error

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        address = self._address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            _check_reachable(address)
            try:
                _initialize(address)
            except ConnectionAbortedError:
                # sometimes the head fails to start the process that serves a client
                _initialize(address)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where = "running on this machine" if address == "auto" else f"at {address}"
            raise ExecutorError(
                f"no Ray cluster {where} can be reached "
                f"({one_line(f'{type(error).__name__}: {error}', 200)}): start one with `ray start "
                "--head`, or give its address as ray://HOST:PORT"
            ) from error
        self._is_own_connection = True

    def _n_slots(self) -> int:
        self._connect()
        with _cluster_errors():
            return self._n_free_slots()

    def _n_free_slots(self) -> int:
        cpus, gpus = self._resources()
        if self._n_workers is not None:
            return self._n_workers
        slots = [
            min(
                int(node.get("CPU", 0) // cpus),
                int(node.get("GPU", 0) // gpus) if gpus else 1 << 30,
            )
            for node in _nodes()
        ]
        return max(1, sum(slots))  # with none, an autoscaler may bring one

    def _resources(self) -> tuple[int, float]:
        """Return the CPUs and GPUs of each worker."""
        nodes = _nodes()
        sizes = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        cpus = self._cpus or min([torch.get_num_threads(), *sizes])
        has_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
        return cpus, float(has_gpus) if self._gpus is None else self._gpus

    def _start(self) -> _Actor:
        import ray

        with _cluster_errors():
            cpus, gpus = self._resources()
            actor_class = ray.remote(RayWorker).options(num_cpus=cpus, num_gpus=gpus)
            handle = actor_class.remote(TorchState.here())
            actor = _Actor(handle, handle.hello.remote())  # type: ignore[attr-defined]
        self._all.append(actor)
        return actor

    def _send(self, worker: _Actor, unit: Unit[object]) -> None:
        try:
            with _cluster_errors():
                worker.answer = worker.handle.run.remote(unit)
        except TypeError as error:  # what Ray raises where cloudpickle fails
            raise ExecutorError(
                f"{unit.name} cannot be sent to a worker: {one_line(str(error))}"
            ) from error

    def _answers(self, workers: Sequence[_Actor]) -> list[tuple[_Actor, object]]:
        import ray

        by_reference = {worker.answer: worker for worker in workers}
        with _cluster_errors():
            ready, _ = ray.wait([*by_reference], num_returns=1, timeout=_WAIT_S)
            self._note_waiting(workers, bool(ready))
            return [(by_reference[reference], _answer(reference)) for reference in ready]

    def _note_waiting(self, workers: Sequence[_Actor], has_answer: bool) -> None:
        """Say that no worker starts, which a cluster without room looks like."""
        now = time.monotonic()
        if has_answer or any(worker not in self._starting for worker in workers):
            self._quiet_since = now
        elif now - self._quiet_since > _NOTE_S:
            self._quiet_since = now
            cpus, gpus = self._resources()
            free = "; ".join(
                f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in _nodes()
            )
            _log.warning(
                "waiting for Ray to start %s with %s and %g GPUs each; the nodes have %s in all. "
                "Options: executor='ray:cpus=1:gpus=0'.",
                *(counted(len(workers), "worker"), counted(cpus, "CPU"), gpus, free or "nothing"),
            )

    def _end(self, worker: _Actor) -> None:
        import ray

        if worker in self._all:
            self._all.remove(worker)
            if ray.is_initialized():
                with suppress(ExecutorError), _cluster_errors():  # it is gone, too
                    ray.kill(worker.handle)

    def close(self) -> None:
        """End the actors, and the connection to the cluster if this executor has made it."""
        import ray

        for worker in [*self._all]:
            self._end(worker)
        self._starting.clear()
        self._idle.clear()
        if self._is_own_connection:
            self._is_own_connection = False
            with suppress(ExecutorError), _cluster_errors():
                ray.shutdown()


def _initialize(address: str) -> None:
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's tips
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)


def _check_reachable(address: str) -> None:
    """Fail within seconds where nothing listens: Ray itself would try for minutes.

    Raises:
        OSError: Nothing listens there.
    """
    host, _, port = address.rpartition("://")[2].partition("?")[0].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Turn the loss of the cluster in the body into an error that says how to go on.

    Raises:
        ExecutorError: The cluster is lost.
    """
    import ray
    from ray import exceptions

    try:
        yield
    except (exceptions.RayError, ConnectionError) as error:
        # what a unit reads when it is sent may raise a ConnectionError of its own
        if isinstance(error, ConnectionError) and ray.is_initialized():
            raise
        raise ExecutorError(
            "the Ray cluster failed, or the connection to it was lost "
            f"({one_line(f'{type(error).__name__}: {error}', 300)}). What is finished is kept: "
            "where the cluster runs, the same command goes on"
        ) from error


def _nodes() -> list[dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _answer(reference: ray.ObjectRef[object]) -> object:
    import ray
    from ray import exceptions

    try:
        answer: object = ray.get(reference)
    except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
        text = one_line(str(error), 300)
        if "ModuleNotFoundError" in str(error) and "synque_select" in str(error):
            what = "synque-select is not installed on a node of the cluster"
            return UnitFailure("", f"{what}: {text}")
        return Lost(text)
    except exceptions.RayError as error:
        return UnitFailure("", f"a worker of the Ray cluster failed: {one_line(str(error), 500)}")
    return answer
