"""Batches on a device: bounded, copied ahead of time, halved where memory runs out."""

from __future__ import annotations

import re

import pytest
import torch

from synque_select.errors import ConfigError
from synque_select.utils.device import (
    HostCopy,
    batch_bytes,
    in_batches,
    max_device_memory,
    prefetched,
    to_device,
)
from tests.pretend_cuda import DEVICE, PretendCuda

PARTS = [torch.full((2, 3), float(i)).bfloat16() for i in range(5)]
MIB = 2**20


@pytest.mark.parametrize("n_bytes", [0, 1000, -1, True, 2**20 - 1])
def test_a_bound_below_what_anything_needs_is_refused(n_bytes):
    message = re.escape(f"max_device_memory={n_bytes!r}")
    with pytest.raises(ConfigError, match=message), max_device_memory(n_bytes):
        pass


def test_the_bound_holds_in_the_body_only():
    here = torch.zeros(1)
    with max_device_memory(2 * MIB):
        assert batch_bytes(here) == 2 * MIB
        with max_device_memory(None):
            assert batch_bytes(here) == 16 * MIB
    with max_device_memory(100 * MIB):
        # more than its caches hold is slower on a CPU
        assert batch_bytes(here) == 16 * MIB
    assert batch_bytes(here) == 16 * MIB


def test_by_default_it_is_half_of_what_is_free_on_the_device():
    with PretendCuda(limit=100 * MIB):
        there = torch.zeros(20 * MIB, dtype=torch.uint8).to(DEVICE)
        assert batch_bytes(there) == 40 * MIB
        with max_device_memory(3 * MIB):
            assert batch_bytes(there) == 3 * MIB


def test_parts_are_pinned_and_one_is_copied_ahead():
    order = []

    def parts():
        for i, part in enumerate(PARTS):
            order.append(f"copy {i}")
            yield part

    with PretendCuda() as mode:
        like = torch.zeros(1).to(DEVICE)
        for i, part in enumerate(prefetched(parts(), like)):
            order.append(f"use {i}")
            assert part.dtype == torch.float32
            assert part.is_cuda
            assert float(part.sum()) == 6 * i
            del part
        assert mode.copies == {"pinned": 5}
    assert order[:4] == ["copy 0", "copy 1", "use 0", "copy 2"]
    assert order[-3:] == ["copy 4", "use 3", "use 4"]


def test_on_a_cpu_nothing_is_read_ahead():
    order = []
    parts = (order.append(f"copy {i}") or part for i, part in enumerate(PARTS))
    for i, _ in enumerate(prefetched(parts, torch.zeros(1))):
        order.append(f"use {i}")
    assert order[:4] == ["copy 0", "use 0", "copy 1", "use 1"]


def run(like, at_once, limit):
    sizes = []

    def compute(items, x):
        if len(items) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(items))
        return x.sum((1, 2)).cpu()

    results = in_batches(
        range(5), at_once, like, lambda items: torch.stack([PARTS[i] for i in items]), compute
    )
    return torch.cat(results).tolist(), sizes


@pytest.mark.parametrize("at_once", [0, 1, 2, 5, 100])
def test_batches_are_of_the_size_asked_for(at_once):
    values, sizes = run(torch.zeros(1), at_once, 5)
    assert values == [0.0, 6.0, 12.0, 18.0, 24.0]
    assert max(sizes) == min(max(at_once, 1), 5)


def test_where_memory_runs_out_the_batch_is_halved_and_what_is_done_is_kept():
    with PretendCuda():
        values, sizes = run(torch.zeros(1).to(DEVICE), 5, 1)
    assert values == [0.0, 6.0, 12.0, 18.0, 24.0]
    assert sizes == [1] * 5


def test_memory_that_does_not_suffice_for_one_item_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        run(torch.zeros(1), 5, 0)


def test_an_error_of_another_kind_is_passed_on():
    def compute(items, x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_batches(range(5), 4, torch.zeros(1), lambda items: torch.zeros(1), compute)


def test_the_pretended_device_runs_out_of_memory():
    with PretendCuda(limit=MIB) as mode:
        kept = torch.zeros(MIB // 8).to(DEVICE)
        with pytest.raises(torch.OutOfMemoryError):
            kept.double()
        assert mode.live == MIB // 2
        del kept
        assert (mode.live, mode.peak, mode.n_failed) == (0, MIB // 2, 1)


def test_a_tensor_reaches_the_device_through_pinned_memory_and_keeps_its_type():
    with PretendCuda() as mode:
        like = torch.zeros(1).to(DEVICE)
        there = to_device(torch.arange(3), like)
        assert there.is_cuda
        assert there.dtype == torch.int64
        assert mode.copies == {"pinned": 1}
        assert to_device(there, like) is there
    assert to_device(torch.arange(3), torch.zeros(1)).tolist() == [0, 1, 2]


def test_a_copy_to_the_host_is_not_waited_for():
    with PretendCuda() as mode:
        there = torch.arange(3.0).bfloat16().to(DEVICE)
        copy = HostCopy(there)
        assert mode.copies["back"] == 1
        assert not mode.waits
        assert copy.arrived().numpy().tolist() == [0, 1, 2]
    here = torch.arange(3.0)
    assert HostCopy(here).arrived().data_ptr() == here.data_ptr()
