from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synque_select.utils.process_identity import has_ended, is_local, process_identity

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

CODE = """
from synque_select.utils.process_identity import process_identity
print(process_identity(), flush=True)
input()
"""


def test_a_process_has_ended_when_it_is_killed_and_not_before():
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    identity = process.stdout.readline().strip()
    assert not has_ended(identity)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(identity)  # also before its parent has waited for it
    process.communicate()
    assert has_ended(identity)


def test_another_process_of_the_same_number_is_another_one():
    place, pid, _ = process_identity().split(" ")
    assert has_ended(f"{place} {pid} 1")


def test_nothing_is_known_of_other_machines():
    for identity in ("other/pid:[1] 1 1", "", "unknown-1 5 0"):
        assert not is_local(identity)
        assert not has_ended(identity)
