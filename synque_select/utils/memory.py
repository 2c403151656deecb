"""Errors that mean that memory ran out."""

from __future__ import annotations

import errno

import torch

__all__ = ["is_out_of_memory"]

# of allocators that raise a plain RuntimeError: the CPU's, Apple's, and those of CUDA's libraries
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the device, or of the host, ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("MPS backend out of memory"))
        True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _WORDS)
