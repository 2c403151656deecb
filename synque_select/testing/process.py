"""The state of the process, before and after."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["unchanged_process"]


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Check that the body draws no global random number and changes no setting of torch.

    Raises:
        AssertionError: It did; the message says what has changed.

    Example:
        >>> with unchanged_process():
        ...     _ = random.random()
        Traceback (most recent call last):
        AssertionError: changed: state of random
    """
    before = _state()
    yield
    changed = [name for name, value in _state().items() if value != before[name]]
    if changed:
        raise AssertionError(f"changed: {', '.join(changed)}")


def _state() -> dict[str, object]:
    return {
        "state of random": random.getstate(),
        "state of numpy.random": repr(np.random.get_state(legacy=False)),
        "state of torch's generator": torch.get_rng_state().numpy().tobytes(),
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
    }
