"""Units side by side: results, threads, what is sent, and that nothing is left running."""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Iterator

import pytest
import torch

from synque_select.errors import LightningError
from synque_select.probing.processes import WorkerPool, _Pickler


def square(number: int) -> tuple[int, int, int]:
    return number * number, os.getpid(), torch.get_num_threads()


def wait(seconds: float) -> None:
    time.sleep(seconds)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_units_are_taken_as_workers_are_free_and_no_process_is_left():
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    n_before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with WorkerPool(square, 2, name_of=str) as pool:
            results = pool.map(numbers())
            first = next(results)
            assert taken == [0, 1]
            done = dict([first, *results])
            again = dict(pool.map([7]))
    finally:
        torch.set_num_threads(n_before)
    assert {n: result[0] for n, result in done.items()} == {n: n * n for n in range(6)}
    processes = {result[1] for result in done.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert again[7][1] in processes
    assert {result[2] for result in done.values()} == {2}
    assert not any(map(is_running, processes))


def test_an_error_ends_the_workers_at_once():
    pool = WorkerPool(wait, 2, name_of=str)

    def interrupted() -> None:
        with pool:
            for _ in pool.map([0.0, 600.0, 600.0]):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(is_running(worker._process.pid) for worker in pool._workers)


def test_one_worker_is_this_process_and_needs_no_pickle():
    with WorkerPool(lambda n: (n, os.getpid()), 1, name_of=str) as pool:
        assert list(pool.map([1])) == [(1, (1, os.getpid()))]


def test_a_function_that_cannot_be_sent_is_refused():
    with WorkerPool(lambda n: n, 2, name_of=str) as pool, pytest.raises(LightningError) as raised:
        list(pool.map([1]))
    assert "with n_workers=2, fits run in separate processes" in str(raised.value)
    assert "or use n_workers=1" in str(raised.value)


def test_rows_of_a_table_are_sent_once():
    table = torch.arange(1000.0).reshape(100, 10)
    weight = torch.nn.Parameter(torch.ones(3, 2)[1:])
    sent = io.BytesIO()
    _Pickler(sent).dump([*table, table.bfloat16()[0], weight])
    *rows, last, parameter = pickle.loads(sent.getvalue())
    assert torch.equal(torch.stack(rows), table)
    assert last.dtype == torch.bfloat16
    assert parameter.requires_grad
    assert len(sent.getvalue()) < 4 * table.nbytes + 20_000
