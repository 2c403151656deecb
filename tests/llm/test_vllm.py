"""The engine "vllm" without vLLM installed; tests/llm/vllm tests it with vLLM."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from synque_select.errors import ConfigError, LLMError
from synque_select.llm.choice_tokens import branch_points
from synque_select.llm.registry import get_llm
from synque_select.llm.transformers.engine import DEFAULT_MODEL
from synque_select.llm.vllm.engine import VllmLLM
from tests.llm.models import needs_package, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    model_dir = tmp_path_factory.mktemp("model")
    save_model(model_dir)
    return str(model_dir)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_an_interpreter_without_vllm_is_an_error_that_says_what_to_install(folder):
    llm = get_llm({"engine": "vllm", "model_id": folder})
    before = set(os.listdir("/proc"))
    with pytest.raises(LLMError, match=r"synque-select\[vllm\].*python=") as caught:
        list(llm.generate(["a"], choices=["yes", "no"]))
    assert sys.executable in str(caught.value)
    assert not [pid for pid in set(os.listdir("/proc")) - before if _is_worker(pid)]


def _is_worker(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"vllm_worker" in file.read()
    except OSError:
        return False


def test_a_missing_interpreter_is_an_error(folder):
    with pytest.raises(LLMError, match="cannot be started"):
        list(VllmLLM(folder, python="/nowhere/python").generate(["a"], choices=["yes", "no"]))


@needs_package
def test_a_packaged_gguf_model_is_rejected():
    with pytest.raises(LLMError, match="GGUF"):
        VllmLLM(DEFAULT_MODEL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size=0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5"),
        ({"max_images": 0}, "max_images=0"),
        ({"adapter": "/nowhere"}, "adapter='/nowhere'"),
    ],
)
def test_arguments_are_checked(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        VllmLLM(folder, **options)


def test_the_key_depends_on_precision_and_length(folder):
    plain = VllmLLM(folder)
    assert plain.key != VllmLLM(folder, dtype="float32").key
    assert plain.key != VllmLLM(folder, arguments={"quantization": "fp8"}).key
    # the number of GPUs and their memory do not change answers
    assert plain.key == VllmLLM(folder, tensor_parallel_size=2).key
    assert plain.count_tokens("How many?") > 1


def test_branch_points_are_where_the_tokens_differ():
    assert branch_points([[1], [2, 3], [2, 4, 5]]) == {(): [1, 2], (2,): [3, 4], (2, 4): [5]}
