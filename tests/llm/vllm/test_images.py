"""The engine "vllm" with a model that reads images."""

from __future__ import annotations

import json

import pytest
import torch

from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.prompt import Prompt, join_prompts
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.llm.vllm.engine import VllmLLM
from synque_select.testing import LLMConformance, choice_table
from tests.llm.models import SCHEMA
from tests.llm.vllm.pictures import ITEMS, PREFIX, picture

MAX_IMAGES = 4


@pytest.fixture(scope="module")
def running(pictures, python):
    llm = VllmLLM(
        pictures, python=python, dtype="float32", max_model_len=1024, max_images=MAX_IMAGES,
        arguments={"enforce_eager": True},
    )  # fmt: skip
    yield llm
    llm.close()


class TestVllmImages(LLMConformance):
    reads_images = True
    atol = 1e-4

    @pytest.fixture
    def llm(self, running) -> BaseLLM:
        return running


def test_probabilities_about_images_match_transformers(running, pictures):
    reference = TransformersLLM(pictures, device="cpu", dtype="float32")
    expected = choice_table(reference, PREFIX, ITEMS)
    torch.testing.assert_close(choice_table(running, PREFIX, ITEMS), expected, rtol=0, atol=1e-4)
    # the contents of the images matter
    assert (expected[0] - expected[1]).abs().max() > 0.01


def test_an_answer_is_the_most_probable_choice(running):
    table = choice_table(running, PREFIX, ITEMS, [""])[:, 0]
    asked = [join_prompts(PREFIX, item) for item in ITEMS]
    answers = dict(running.generate(asked, choices=LABELS))
    assert [answers[i] for i in range(len(ITEMS))] == [LABELS[row.argmax()] for row in table]


def test_json_about_an_image(running):
    ((_, answer),) = running.generate([ITEMS[0]], schema=SCHEMA, max_tokens=400)
    # random weights write control characters in strings, which vLLM's grammar allows
    assert len(json.loads(answer, strict=False)["points"]) == 3


def test_a_prompt_with_too_many_images_fails_by_itself(running):
    many = Prompt((picture("red"),) * (MAX_IMAGES + 1))
    answers = dict(running.choice_probabilities("", [many, ITEMS[0]], ["?"], LABELS))
    assert isinstance(answers[0], Failure)
    assert f"At most {MAX_IMAGES}" in answers[0].reason
    assert isinstance(answers[1], list)
