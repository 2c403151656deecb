"""Executors by name, as they are written on the command line and in configs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from synque_select.errors import ConfigError, did_you_mean
from synque_select.execution.base import Executor
from synque_select.execution.local import LocalExecutor
from synque_select.utils.registry import check_options, split_options
from synque_select.utils.validation import check_int, is_number

__all__ = ["ExecutorSpec", "check_workers", "get_executor", "opened_executor"]

ExecutorSpec = str | Executor | None

_ADDRESS = re.compile(r"(ray://[^:/\s]+:\d+)(:.*)?")


def get_executor(spec: ExecutorSpec) -> Executor:
    """Return the executor of this name; nothing is started or connected before it runs units.

    Args:
        spec: "local" or None for this process; "local:workers=4" for processes;
            "local:devices=0,1" for one process per GPU; "ray" for the Ray cluster of $RAY_ADDRESS
            or of this machine; "ray://HOST:PORT" for another one, through Ray's client server. Of
            Ray, cpus= and gpus= per worker and workers= follow after colons. An executor is
            returned as it is.

    Raises:
        ConfigError: The executor is unknown, or an option is not allowed.
        DependencyError: Ray is not installed.

    Example:
        >>> type(get_executor("local:workers=2")).__name__
        'ProcessExecutor'
        >>> get_executor("rya")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: executor='rya': did you mean 'ray'? There are: local, ray
    """
    if spec is None:
        return LocalExecutor()
    if isinstance(spec, Executor):
        return spec
    try:
        return _made(spec)
    except ConfigError as error:
        raise ConfigError(f"executor={spec!r}: {error}") from error


def check_workers(n_workers: int, executor: ExecutorSpec) -> None:
    """Check the two arguments that say where fits are trained.

    Raises:
        ConfigError: One is not allowed, or both are given.
    """
    check_int("n_workers", n_workers, 1)
    get_executor(executor)
    if n_workers > 1 and executor is not None:
        raise ConfigError(
            f"n_workers={n_workers} and executor={executor!r}: give one of them, such as "
            f"executor='local:workers={n_workers}'"
        )


@contextmanager
def opened_executor(spec: ExecutorSpec) -> Iterator[Executor]:
    """Open an executor and end its workers afterwards; one that is given stays open."""
    executor = get_executor(spec)
    try:
        yield executor
    finally:
        if executor is not spec:
            executor.close()


def _made(spec: object) -> Executor:
    if not isinstance(spec, str) or not spec:
        raise ConfigError("allowed is a text, such as local, local:devices=0,1 or ray://HOST:PORT")
    text, address = spec, None
    if "://" in spec:
        match = _ADDRESS.fullmatch(spec)
        if match is None:
            raise ConfigError(
                "an address is written as ray://HOST:PORT, with the port of Ray's client server, "
                "by default 10001"
            )
        text, address = f"ray{match[2] or ''}", match[1]
    key, options = split_options(text)
    factories: dict[str, Callable[..., Executor]] = {"local": _local, "ray": _ray}
    if key not in factories:
        raise ConfigError(did_you_mean(key, factories))
    check_options(key, factories[key], options)
    if key == "ray":
        return _ray(**options, address=address)
    return _local(**options)


def _local(workers: object = None, devices: object = None) -> Executor:
    if workers is None and devices is None:
        return LocalExecutor()
    from synque_select.execution.processes import ProcessExecutor

    if devices is None:
        return ProcessExecutor([{}] * check_int("workers", workers, 1))
    if workers is not None:
        raise ConfigError("give workers= or devices=, not both")
    names = [name.strip() for name in str(devices).split(",")]
    if not all(name.isdecimal() for name in names) or len({*names}) < len(names):
        raise ConfigError(f"devices={devices}: allowed are different numbers of GPUs, such as 0,1")
    return ProcessExecutor([{"CUDA_VISIBLE_DEVICES": name} for name in names])


def _ray(
    cpus: object = None,
    gpus: Any = None,
    workers: object = None,
    address: str | None = None,
) -> Executor:
    if gpus is not None and not (is_number(gpus) and gpus >= 0):
        raise ConfigError(f"gpus={gpus}: allowed is a number from 0, such as 1 or 0.5")
    from synque_select.execution.ray_cluster import RayExecutor

    return RayExecutor(
        address,
        cpus=None if cpus is None else check_int("cpus", cpus, 1),
        gpus=None if gpus is None else float(gpus),
        n_workers=None if workers is None else check_int("workers", workers, 1),
    )
