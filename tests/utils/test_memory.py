"""Errors of allocators and libraries that mean that memory ran out."""

from __future__ import annotations

import pytest

from synque_select.errors import EncoderError
from synque_select.utils.memory import is_out_of_memory

FULL = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "MPS backend out of memory (MPS allocated: 8 GB)",
    "Invalid buffer size: 24.00 GB",
    "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
    "Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)",
    "OOM when allocating tensor with shape[32,512]",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "FIND was unable to find an engine to execute this computation",
    "[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory: you tried",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 16777216 bytes.",
    "Requested amount of GPU memory (1024 bytes) could not be allocated",
    "cudaErrorMemoryAllocation",
    "HSA_STATUS_ERROR_OUT_OF_RESOURCES: the runtime failed",
    "CL_MEM_OBJECT_ALLOCATION_FAILURE",
    "malloc of size 137438953472 failed",
    "Exceeded max size of memory object allocation: requested 5 bytes",
    "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
    "Could not allocate tensor with 1234 bytes. There is not enough GPU video memory available!",
    "std::bad_alloc",
]
OTHER = [
    "mat1 and mat2 shapes cannot be multiplied",
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "memory format option is only supported by strided tensors",
    "expected a buffer of 3 bytes",
    "zoom failed",
    "index out of range in self",
    "not enough values to unpack",
]


@pytest.mark.parametrize("words", FULL)
def test_words_for_no_memory(words: str):
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(EncoderError(words))


@pytest.mark.parametrize("words", OTHER)
def test_other_errors(words: str):
    assert not is_out_of_memory(RuntimeError(words))
