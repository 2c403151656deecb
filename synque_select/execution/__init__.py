"""Runs units of work elsewhere: in processes, on GPUs, on a Ray cluster, in batch jobs."""

from synque_select.execution.base import Executor, Shared, Unit, UnitFailure, Worker
from synque_select.execution.spec import ExecutorSpec, get_executor, opened_executor

__all__ = [
    "Executor",
    "ExecutorSpec",
    "Shared",
    "Unit",
    "UnitFailure",
    "Worker",
    "get_executor",
    "opened_executor",
]
