"""The engine "vllm" with vLLM's build for CPUs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from synque_select.errors import LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.llm.vllm.engine import VllmLLM
from synque_select.llm.vllm.process_group import shared_memory_of
from synque_select.testing import LLMConformance, choice_table
from tests.llm.models import SCHEMA, save_adapter
from tests.llm.vllm.processes import group_of

RANKS = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}


@pytest.fixture(scope="module")
def running(smollm2, python):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RANKS.items():
            patch.setenv(name, value)
        llm = VllmLLM(smollm2, python=python, dtype="float32", max_model_len=2048)
        yield llm
        llm.close()


class TestVllm(LLMConformance):
    atol = 1e-3

    @pytest.fixture
    def llm(self, running) -> BaseLLM:
        return running


def test_probabilities_match_transformers(running, smollm2):
    reference = TransformersLLM(smollm2, device="cpu", dtype="float32")
    torch.testing.assert_close(choice_table(running), choice_table(reference), rtol=0, atol=2e-3)
    # the second time, the common prefix of the prompts is cached
    before = running.usage.n_cached_tokens
    choice_table(running)
    assert running.usage.n_cached_tokens > before


def test_json_follows_the_schema(running):
    asked = ["List three differences of cats and dogs.", "List three cities."]
    answers = dict(running.generate(asked, schema=SCHEMA, max_tokens=400))
    assert len(answers) == 2
    assert len(json.loads(answers[0])["points"]) >= 3
    ((_, cut),) = running.generate(asked[:1], schema=SCHEMA, max_tokens=5)
    assert cut == Failure("the JSON was not complete")


def test_a_prompt_that_is_too_long_fails_by_itself(running):
    answers = dict(running.choice_probabilities("", ["short", "long " * 4000], ["?"], LABELS))
    assert isinstance(answers[1], Failure)
    assert not isinstance(answers[0], Failure)


def test_closing_the_iterator_abandons_the_rest(running):
    answers = running.generate(["Tell a long story."] * 30, max_tokens=200)
    next(answers)
    answers.close()
    started = time.monotonic()
    ((_, answer),) = running.generate(["Say hello."], max_tokens=2)
    assert isinstance(answer, str)
    assert time.monotonic() - started < 20


def test_the_child_has_no_rank_variables_and_ends_with_close(running):
    choice_table(running)
    group = running._process._child.pid
    names = {pair.split("=")[0] for pair in _environment(group)}
    assert not names & set(RANKS)
    shared = shared_memory_of(group)
    assert len(group_of(group)) >= 2  # the worker, and what vLLM started
    assert shared
    running.close()
    assert group_of(group) == []
    assert not shared & set(os.listdir("/dev/shm"))


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


def test_a_lora_adapter_matches_transformers(tiny, python, tmp_path):
    save_adapter(tiny, tmp_path)
    plain = choice_table(TransformersLLM(tiny, device="cpu"))
    reference = choice_table(TransformersLLM(tiny, adapter=str(tmp_path), device="cpu"))
    llm = VllmLLM(tiny, adapter=str(tmp_path), python=python, dtype="float32", max_model_len=1024)
    table = choice_table(llm)
    llm.close()
    assert (reference - plain).abs().max() > 0.05
    torch.testing.assert_close(table, reference, rtol=0, atol=0.01)


def test_a_crash_is_an_error_with_its_cause_and_a_note(tiny, python):
    llm = VllmLLM(tiny, python=python, max_model_len=10**6)
    with pytest.raises(LLMError, match=r"exit status 1\).*max_model_len \(1000000\)") as caught:
        list(llm.generate(["a"], choices=LABELS))
    assert "\n" not in str(caught.value)
    assert "Traceback" in caught.value.__notes__[0]
    llm.close()
