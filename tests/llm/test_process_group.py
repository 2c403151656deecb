"""Ending groups of processes and reporting the causes, with processes that do not run vLLM."""

from __future__ import annotations

import os
import subprocess
import sys

from synque_select.llm.vllm.process_group import error_causes, kill_group, shared_memory_of

HOLDER = """
import os, time
from multiprocessing.shared_memory import SharedMemory

held = SharedMemory(create=True, size=4096)
if os.fork():
    print(held.name, flush=True)
time.sleep(600)
"""


def test_killed_processes_leave_no_shared_memory():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        name = child.stdout.readline().strip()
        assert shared_memory_of(child.pid) == {name}
        assert name in os.listdir("/dev/shm")
        kill_group(child.pid)
        # the forked process has the pipe too, so it ends with the last of them
        assert child.stdout.read() == ""
    assert name not in os.listdir("/dev/shm")
    kill_group(child.pid)


# output of vLLM 0.32
NO_TORCHVISION = """\
(MainProcess pid=7385) ERROR 11-29 09:24:38 [registry.py:1120] RuntimeError: Error raised in subprocess:
(MainProcess pid=7385) ERROR 11-29 09:24:38 [registry.py:1120] Traceback (most recent call last):
(MainProcess pid=7385) ERROR 11-29 09:24:38 [registry.py:1120]   File "<frozen runpy>", line 198, in _run
(MainProcess pid=7385) ERROR 11-29 09:24:38 [registry.py:1120] ModuleNotFoundError: No module named 'torchvision'
(MainProcess pid=7385) ERROR 11-29 09:24:38 [registry.py:1120]
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['LlavaForConditionalGeneration'] failed to be inspected. Please check the logs for more details. [type=value_error, input_value=ArgsKwargs((), {'model': 1}), input_type=ArgsKwargs]
    For further information visit"""  # noqa: E501
TOO_FEW_NODES = """\
  File "/vllm/utils/ompmultiprocessing.py", line 217, in _get_autobind_cpu_ids
    len(allowed_numa_nodes) >= local_world_size or self.simulate_multi_node
AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers.
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"""
HEADS = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig
  Value error, Total number of attention heads (4) must be divisible. [type=value_error, input_value=1]"""  # noqa: E501


def test_errors_that_only_point_elsewhere_are_left_out():
    assert error_causes(NO_TORCHVISION.split("\n")) == [
        "ModuleNotFoundError: No module named 'torchvision'"
    ]
    assert error_causes(TOO_FEW_NODES.split("\n")) == [
        "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers."
    ]
    assert error_causes(HEADS.split("\n")) == [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig "
        "Value error, Total number of attention heads (4) must be divisible."
    ]
    only = "RuntimeError: Engine core initialization failed."
    assert error_causes([only, only]) == [only]
    assert error_causes(["INFO: all is well", "Killed"]) == []
