"""The state of the process that scoring leaves as it was found."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["cuda_started", "free_device_memory", "seeded", "untouched_state"]

_PARALLEL = "TOKENIZERS_PARALLELISM"


def cuda_started() -> bool:
    """Whether this process uses a GPU already; asking does not start it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def untouched_state() -> Iterator[None]:
    """Restore random state, default dtype and thread count on leaving; run without gradients.

    So a run that finds everything in the cache draws the same numbers as one that encodes.
    Tokenizers run on one thread inside, because a DataLoader that forks after they used several
    prints a warning for each worker.
    """
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    had_cuda = cuda_started()
    cuda = torch.cuda.get_rng_state_all() if had_cuda else []
    dtype, n_threads = torch.get_default_dtype(), torch.get_num_threads()
    parallel = os.environ.get(_PARALLEL)
    os.environ.setdefault(_PARALLEL, "false")
    try:
        with torch.no_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        _restore_cuda(cuda)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)
        if parallel is None:
            os.environ.pop(_PARALLEL, None)


def _restore_cuda(states: list[torch.Tensor]) -> None:
    if states:
        torch.cuda.set_rng_state_all(states)
    elif cuda_started():
        # CUDA was started inside: its generators have drawn nothing before
        for generator in torch.cuda.default_generators:
            generator.manual_seed(generator.initial_seed())


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed Python, NumPy and torch inside; leave their states as found.

    Args:
        seed: Of all of them.
        device: A CUDA device whose state is kept too; others are not touched.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def free_device_memory() -> None:
    """Give back what closed models held on the GPU; on a CPU it is gone with the last reference."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
