"""The engine "transformers" with a model that reads images, and with LoRA adapters."""

from __future__ import annotations

import json

import pytest
import torch

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.prompt import Prompt, prompt_text
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.testing import LLMConformance, choice_table
from tests.llm.models import SCHEMA, save_adapter, save_image_model, save_model

QUESTIONS = ("\nIs it of A?", "\nIs it of B?")


@pytest.fixture(scope="module")
def image_llm(tmp_path_factory) -> TransformersLLM:
    return save_image_model(tmp_path_factory.mktemp("images"))


def picture(colour: str, width: int = 56, height: int = 56):
    from PIL import Image

    return Image.new("RGB", (width, height), colour)


class TestImages(LLMConformance):
    reads_images = True

    @pytest.fixture
    def llm(self, image_llm) -> BaseLLM:
        return image_llm


def in_full(llm: TransformersLLM, prompt: Prompt) -> torch.Tensor:
    """Return the probabilities of the labels, from one full forward pass per label."""
    llm._load()
    images = [part for part in prompt.parts if not isinstance(part, str)]
    text, scores = llm._chat.text(prompt), []
    n_prompt = llm._image_scorer(llm._processor).inputs(text, images)["input_ids"].shape[1]
    for label in LABELS:
        inputs = llm._image_scorer(llm._processor).inputs(text + label, images)
        with torch.inference_mode():
            logits = llm._model(**inputs, use_cache=False).logits[0].double()
        log_p = torch.log_softmax(logits, -1)
        ids = inputs["input_ids"][0]
        scores.append(sum(log_p[i - 1, ids[i]] for i in range(n_prompt, len(ids))))
    return torch.softmax(torch.stack(scores), 0)


def test_images_and_questions_give_the_same_as_full_prompts(image_llm):
    items = [
        Prompt(("Sample: ", picture("red"), " and ", picture("green", 84, 28))),
        Prompt(("Sample: ", picture("blue"))),
        "Sample: no picture",
    ]
    table = choice_table(image_llm, "The rubric. ", items, QUESTIONS)
    for i, item in enumerate(items[:2]):
        for j, question in enumerate(QUESTIONS):
            prompt = Prompt(("The rubric. ", *item.parts, question))
            torch.testing.assert_close(table[i, j], in_full(image_llm, prompt), rtol=0, atol=1e-5)
    # the contents of the images matter
    other = choice_table(image_llm, "The rubric. ", [Prompt(("Sample: ", picture("red")))])
    assert (table[1] - other[0]).abs().max() > 1e-3


def test_a_different_image_is_read_again(image_llm):
    items = [Prompt((picture(colour),)) for colour in ("red", "blue", "red")]
    together = choice_table(image_llm, "", items, QUESTIONS)
    alone = torch.cat([choice_table(image_llm, "", [item], QUESTIONS) for item in items])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_json_about_an_image(image_llm):
    prompt = Prompt(("List: ", picture("red")))
    ((_, answer),) = image_llm.generate([prompt], schema=SCHEMA, max_tokens=400)
    assert len(json.loads(answer)["points"]) == 3


def test_a_prompt_with_too_many_images_fails_by_itself(image_llm):
    many = Prompt(tuple(picture("red", 112, 112) for _ in range(80)))
    answers = dict(image_llm.choice_probabilities("", [many, "x"], ["?"], LABELS))
    assert isinstance(answers[0], Failure)
    assert isinstance(answers[1], list)


def test_keys_of_prompts_distinguish_images():
    red, blue = Prompt(("a", picture("red"))), Prompt(("a", picture("blue")))
    assert prompt_text(red) != prompt_text(blue)
    assert prompt_text(Prompt(("a", "b"))) == "ab"
    with pytest.raises(ConfigError, match="part 0"):
        Prompt((7,))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    model, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("adapter")
    plain = save_model(model)
    save_adapter(model, folder)
    return plain, model, folder


def test_an_adapter_changes_the_probabilities(adapted):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain, model, folder = adapted
    llm = TransformersLLM(str(model), adapter=str(folder), device="cpu")
    table = choice_table(llm)
    assert (table - choice_table(plain)).abs().max() > 1e-2
    assert llm.key != plain.key
    # peft's own way, without merging
    reference = TransformersLLM(str(model), device="cpu")
    reference._load()
    base = AutoModelForCausalLM.from_pretrained(model)
    reference._model = PeftModel.from_pretrained(base, folder).eval().base_model.model
    torch.testing.assert_close(table, choice_table(reference), rtol=0, atol=1e-4)


def test_an_adapter_that_is_missing_or_does_not_fit(adapted, tmp_path):
    _, model, folder = adapted
    with pytest.raises(ConfigError, match="not a directory with a LoRA adapter"):
        TransformersLLM(str(model), adapter=str(model))
    save_model(tmp_path, hidden_size=64)
    with pytest.raises(LLMError, match="does not fit"):
        choice_table(TransformersLLM(str(tmp_path), adapter=str(folder), device="cpu"))
