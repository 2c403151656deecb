"""The engine "vllm" with a model split over two processes, and their cleanup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from synque_select.errors import LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.llm.vllm.engine import VllmLLM
from synque_select.llm.vllm.process_group import shared_memory_of
from synque_select.testing import choice_table
from tests.llm.vllm.processes import alive, family_of, title, wait_until

pytestmark = pytest.mark.usefixtures("unbound")
OPTIONS = {"dtype": "float32", "max_model_len": 512, "arguments": {"enforce_eager": True}}
WORKERS = {"VLLM::Worker_TP0", "VLLM::Worker_TP1"}


def test_two_processes_match_transformers_and_leave_nothing_behind(tiny, python):
    llm = VllmLLM(tiny, python=python, tensor_parallel_size=2, **OPTIONS)
    reference = TransformersLLM(tiny, device="cpu", dtype="float32")
    torch.testing.assert_close(choice_table(llm), choice_table(reference), rtol=0, atol=1e-4)
    assert len(dict(llm.generate(["a", "b"], max_tokens=4))) == 2
    child, folder = llm._process._child.pid, llm._process._path.name
    family, shared = family_of(child), shared_memory_of(child)
    assert {title(pid) for pid in family} >= WORKERS
    assert _there(shared) == shared != set()
    llm.close()
    assert alive(family) == []
    assert _there(shared) == set()
    assert not Path(folder).exists()


def _there(names: set[str]) -> set[str]:
    return names & set(os.listdir("/dev/shm"))


SCRIPT = """
import time
from synque_select.llm.vllm.engine import VllmLLM

llm = VllmLLM({model!r}, python={python!r}, tensor_parallel_size=2, **{options!r})
print(len(list(llm.generate(["a", "b"], choices=["yes", "no"]))), flush=True)
print(llm._process._child.pid, llm._process._path.name, flush=True)
time.sleep(600)
"""


def test_a_killed_script_without_a_main_guard_leaves_nothing_behind(tiny, python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(model=tiny, python=python, options=OPTIONS))
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    ) as parent:  # fmt: skip
        assert parent.stdout.readline() == "2\n"
        child, folder = parent.stdout.readline().split()
        family, shared = family_of(int(child)), shared_memory_of(int(child))
        assert {title(pid) for pid in family} >= WORKERS
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not alive(family))
    assert _there(shared) == set()
    assert not Path(folder).exists()


def test_heads_that_cannot_be_split_are_one_clear_error(tiny, python):
    before = set(family_of(os.getpid()))
    llm = VllmLLM(tiny, python=python, tensor_parallel_size=3, **OPTIONS)
    with pytest.raises(LLMError, match=r"heads \(4\) must be divisible .* size \(3\)") as caught:
        list(llm.generate(["a"], choices=LABELS))
    assert "\n" not in str(caught.value)
    assert set(family_of(os.getpid())) <= before
