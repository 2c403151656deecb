"""Guards of process-wide state: scoring and short fits leave the process as they found it.

Scoring runs inside the user's training process. If it drew from the global random generators, a
run that finds all scores in the cache would shuffle its training data differently from a run that
computes them, and the two would not be comparable.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["cuda_in_use", "free_device_memory", "preserved_state", "seeded"]


def cuda_in_use() -> bool:
    """Return whether this process has initialized CUDA; asking does not initialize it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch has no hint


@contextmanager
def preserved_state() -> Iterator[None]:
    """Run the body without gradients and restore the state of the process when it ends.

    Restored, also after an exception: the random states of Python, NumPy and torch (the CPU's,
    and that of every CUDA device if CUDA is in use), the grad mode, the default dtype, the number
    of threads, and the environment variables. CUDA is never initialized by this guard.

    Example:
        >>> import torch
        >>> before = torch.get_rng_state()
        >>> with preserved_state():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    dtype, n_threads = torch.get_default_dtype(), torch.get_num_threads()
    environment = dict(os.environ)
    # tokenizers that have used several threads warn in every DataLoader worker that is forked later
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _preserved_random_state(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        # setting the number, even to the same value, can start the thread pool: only if it changed
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)
        _restore_environment(environment)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (all devices) in the body, and restore their states after it.

    Args:
        seed: Random seed for all generators.

    Example:
        >>> def draw():
        ...     with seeded(0):
        ...         return torch.rand(1).item()
        >>> draw() == draw()
        True
    """
    initial, had_cuda = torch.initial_seed(), cuda_in_use()
    with _preserved_random_state():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if not had_cuda:
                # torch.manual_seed queued the seed for when CUDA starts. What torch would have
                # used otherwise is the seed that the user gave, which the CPU generator knows.
                torch.cuda.manual_seed_all(initial)


@contextmanager
def _preserved_random_state() -> Iterator[None]:
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    had_cuda = cuda_in_use()
    # torch.cuda.get_rng_state initializes CUDA, so it is only asked where that has happened already
    cuda = torch.cuda.get_rng_state_all() if had_cuda else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if had_cuda:
            torch.cuda.set_rng_state_all(cuda)
        elif cuda_in_use():
            # CUDA was initialized in the body: before it, no generator had drawn a number
            for generator in torch.cuda.default_generators:
                generator.manual_seed(generator.initial_seed())


def _restore_environment(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def free_device_memory() -> None:
    """Free the GPU memory that closed models held; does nothing where CUDA is not in use."""
    if cuda_in_use():
        gc.collect()  # a model in a reference cycle keeps its memory until it is collected
        torch.cuda.empty_cache()
