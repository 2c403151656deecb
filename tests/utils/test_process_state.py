"""Guards of process-wide state: each item, also after an exception, and CUDA left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

from synque_select import rank
from synque_select.utils.process_state import preserved_state, seeded
from tests.training.tiny import LetterEncoder, candidates, real_sample

GUARDS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "preserved_state": preserved_state,
    "seeded": lambda: seeded(3),
}


def _set_environment() -> None:
    os.environ["SYNQUE_TEST_NEW"] = "new"
    os.environ["SYNQUE_TEST_CHANGED"] = "changed"
    os.environ.pop("SYNQUE_TEST_REMOVED")


def _environment() -> dict[str, str]:
    return dict(os.environ)


# item of state -> how to read it, how careless code changes it
STATE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "random state of Python": (random.getstate, lambda: random.seed(99)),
    "random state of NumPy": (
        lambda: [str(part) for part in np.random.get_state()],
        lambda: np.random.seed(99),
    ),
    "random state of torch": (
        lambda: torch.get_rng_state().tolist(),
        lambda: torch.manual_seed(99),
    ),
    "grad mode": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(True)),
    "default dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "number of threads": (
        torch.get_num_threads,
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    ),
    "environment": (_environment, _set_environment),
}
RANDOM = [name for name in STATE if name.startswith("random")]


@pytest.fixture(autouse=True)
def _known_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYNQUE_TEST_CHANGED", "old")
    monkeypatch.setenv("SYNQUE_TEST_REMOVED", "old")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    grad, dtype, n_threads = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )
    yield
    torch.set_grad_enabled(grad)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "raises"])
@pytest.mark.parametrize(
    ("guard", "item"),
    [("preserved_state", item) for item in STATE] + [("seeded", item) for item in RANDOM],
)
def test_each_item_of_state_is_restored(guard: str, item: str, fails: bool):
    read, change = STATE[item]
    before = read()

    def body() -> None:
        with GUARDS[guard]():
            change()
            if fails:
                raise KeyError(item)

    if fails:
        with pytest.raises(KeyError, match=item):
            body()
    else:
        body()
    assert read() == before


def test_the_changes_of_these_tests_are_visible_without_a_guard():
    torch.set_grad_enabled(False)
    for item, (read, change) in STATE.items():
        before = read()
        change()
        assert read() != before, item
    os.environ.pop("SYNQUE_TEST_NEW")


def test_the_body_runs_without_gradients_and_with_one_tokenizer_thread():
    with preserved_state():
        assert not torch.is_grad_enabled()
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert torch.is_grad_enabled()
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_a_choice_of_the_user_about_tokenizers_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    with preserved_state():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_seeded_gives_the_same_numbers_whatever_was_drawn_before():
    def draw() -> tuple[float, float, float]:
        with seeded(2**40 + 7):
            return random.random(), float(np.random.rand()), float(torch.rand(1))

    first = draw()
    random.random(), np.random.rand(), torch.rand(1)
    assert draw() == first
    with seeded(2**40 + 8):
        assert float(torch.rand(1)) != first[2]


class Generators:
    """What torch.cuda keeps of two devices, for a machine without one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, in_use: bool) -> None:
        self.in_use = in_use
        self.states = [torch.tensor([1.0]), torch.tensor([2.0])]
        self.n_read = 0
        for module in (torch.cuda, torch.cuda.random):  # the second has names of its own
            monkeypatch.setattr(module, "device_count", lambda: 2)
            monkeypatch.setattr(module, "get_rng_state", self._get)
            monkeypatch.setattr(module, "set_rng_state", self._set)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.in_use)

    def _get(self, device: Any = "cuda") -> torch.Tensor:
        self.n_read += 1
        self.in_use = True  # as torch does: reading the state initializes CUDA
        return self.states[int(device)].clone()

    def _set(self, state: torch.Tensor, device: Any = "cuda") -> None:
        self.states[int(device)] = state


@pytest.mark.parametrize("guard", GUARDS)
def test_states_of_all_devices_are_restored_where_cuda_is_in_use(
    guard: str, monkeypatch: pytest.MonkeyPatch
):
    # torch.manual_seed would reach for the real generators, of which this machine may have none
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    cuda = Generators(monkeypatch, in_use=True)
    with GUARDS[guard]():
        cuda.states = [torch.tensor([8.0]), torch.tensor([9.0])]
    assert [float(state) for state in cuda.states] == [1.0, 2.0]


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_does_not_initialize_cuda(guard: str, monkeypatch: pytest.MonkeyPatch):
    cuda = Generators(monkeypatch, in_use=False)
    with GUARDS[guard]():
        torch.rand(1)
    assert (cuda.n_read, cuda.in_use) == (0, False)


def test_a_ranking_on_the_cpu_does_not_initialize_cuda(tmp_path, monkeypatch: pytest.MonkeyPatch):
    cuda = Generators(monkeypatch, in_use=False)
    ranking = rank(
        candidates(12),
        real_sample(10),
        encoder=LetterEncoder(),
        proxies=["pad", "mmd", "mdm", "ngram"],
        top_k=1,
        device="cpu",
        cache_dir=tmp_path,
        progress=False,
    )
    assert ranking.top().names == ("near",)
    assert (cuda.n_read, cuda.in_use) == (0, False)


def test_the_seed_for_cuda_that_torch_has_queued_is_the_users_again():
    """Without CUDA in use, torch keeps the seed of manual_seed for when CUDA starts."""
    code = (
        "import torch\n"
        "from synque_select.utils.process_state import seeded\n"
        "given = []\n"
        "real = torch.cuda.manual_seed_all\n"
        "torch.cuda.manual_seed_all = lambda seed: (given.append(seed), real(seed))\n"
        "torch.manual_seed(5)\n"
        "with seeded(99):\n"
        "    pass\n"
        "print(given[-1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "5"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_machine_with_a_gpu():
    code = (
        "import torch\n"
        "from synque_select import rank\n"
        "from synque_select.utils.process_state import cuda_in_use, seeded\n"
        "real = ['how many apps', 'list all users', 'which app is free']\n"
        "torch.manual_seed(5)\n"
        "expected = torch.Generator('cpu').manual_seed(5).initial_seed()\n"
        "rank({'a': real, 'b': ['qx', 'vv', 'zz']}, real, proxies=['ngram'], top_k=1,"
        " device='cpu', progress=False)\n"
        "with seeded(99):\n"
        "    pass\n"
        "assert not cuda_in_use()\n"
        "assert torch.cuda.initial_seed() == expected\n"
        "before = torch.cuda.get_rng_state()\n"
        "with seeded(99):\n"
        "    torch.rand(3, device='cuda')\n"
        "assert torch.equal(torch.cuda.get_rng_state(), before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
