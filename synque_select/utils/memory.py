"""Errors that mean that memory ran out."""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Iterator
from contextlib import suppress

import torch

from synque_select.errors import SynqueError

__all__ = ["is_out_of_memory", "return_freed_memory"]

# in what allocators and libraries write, however they spell it; cuDNN says that a batch for whose
# work space memory is missing is not supported
_WORDS = re.compile(
    r"out ?of ?(?:\w+ )?memory"
    r"|(?:can'?t|cannot|could not|failed to|unable to) allocate (?:\S+ ){0,4}?"
    r"(?:memory|buffer|\(?\d*bytes|[kmgt]i?b\b)"
    r"|(?:not enough|insufficient)(?: \w+)? memory|alloc ?failed|bad ?alloc|resource ?exhausted"
    r"|out ?of ?(?:\w+ )?resources|alloc\w* ?fail|memory ?allocation|could not be allocated"
    r"|allocatememory|memory ?exhausted|exceed\w* (?:\w+ )*memory|invalid buffer size"
    r"|\boom\b|\b(?:m|c|re)alloc of size|exceeded max size of memory"
    # without memory, these libraries cannot begin
    r"|(?:cublas|cudnn) ?status ?not ?initialized"
    r"|cudnn ?status ?not ?supported|unable to find an engine"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the device, or of the host, ran out.

    So does one that was raised for such an error, or a group with one. The errors of this library
    do not: they come after all has been tried.

    Example:
        >>> is_out_of_memory(RuntimeError("HIP error: hipErrorOutOfMemory"))
        True
        >>> is_out_of_memory(RuntimeError("shapes do not match"))
        False
    """
    return not isinstance(error, SynqueError) and any(map(_is_of_memory, _with_causes(error)))


def return_freed_memory() -> None:
    """Give memory that was freed back to the operating system, where the C library can (glibc).

    Without it, arrays of a few MiB that are made and freed between small objects that stay leave
    holes in the heap, and the process grows by the size of all of them.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error).replace("_", " ").lower()
    return isinstance(error, Exception) and _WORDS.search(words) is not None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it was raised for."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        waiting += [] if cause is None else [cause]
