"""Runs units of work elsewhere: in processes, on GPUs, on a Ray cluster, in batch jobs."""

from synque_select.execution.base import Executor, Shared, Unit, UnitFailure, Worker
from synque_select.execution.spec import (
    ExecutorSpec,
    check_workers,
    get_executor,
    opened_executor,
)

__all__ = [
    "Executor",
    "ExecutorSpec",
    "Shared",
    "Unit",
    "UnitFailure",
    "Worker",
    "check_workers",
    "get_executor",
    "opened_executor",
]
