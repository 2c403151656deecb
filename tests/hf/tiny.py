"""Tiny models, tokenizers and mixtures for fits of Hugging Face trainers on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from synque_select import HFMixture, Mixture, Ranking, SynqueDataModule, rank

SIZES = {"a": 24, "b": 16, "c": 8}
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"


def data(chat: bool = False) -> dict[str, list[dict[str, Any]]]:
    def example(name: str, i: int) -> dict[str, Any]:
        text = f"{name}{i} says {i * i} of {name}"
        if not chat:
            return {"text": text}
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"ok {i}"}]
        return {"messages": turns, "text": text}

    return {name: [example(name, i) for i in range(n)] for name, n in SIZES.items()}


def ranking_of(weights: dict[str, float], chat: bool = False) -> Ranking:
    """Return a ranking whose mixture has these weights."""
    import dataclasses

    real = [{"text": f"{i} says a of b {i}"} for i in range(6)]
    ranking = rank(data(chat), real, view="text", proxies=["ngram"], progress=False)
    decision = dataclasses.replace(ranking.decision, mixture=Mixture(weights, "given"))
    return dataclasses.replace(ranking, decision=decision)


def mixture(
    weights: dict[str, float] | None = None, *, chat: bool = False, **options: Any
) -> HFMixture:
    weights = weights or {"a": 0.5, "b": 0.25, "c": 0.25}
    ranking = ranking_of(weights, chat)
    return HFMixture(data(chat), ranking=ranking, **{"seed": 3, **options})


def tokenizer() -> PreTrainedTokenizerFast:
    letters = ["<pad>", "<end>", "<user>", "<assistant>", *map(chr, range(32, 127))]
    raw = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", unk_token="<pad>"
    )
    made.chat_template = TEMPLATE
    return made


def model(vocab_size: int = 128) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=max(128, vocab_size), **sizes, **heads, **special)
    )


class Recorder:
    """A collator that records the row of each example that is trained on."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.rows += [example["synque_row"] for example in examples]
        ids = torch.tensor([example["input_ids"] for example in examples])
        return {"input_ids": ids, "labels": ids}


class Kill(TrainerCallback):
    """Ends the process, as far as a test can, after some steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def tokenized(example: dict[str, Any]) -> dict[str, list[int]]:
    return {"input_ids": [ord(c) % 128 for c in f"{example['text']:<20.20}"]}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 3,
            "save_steps": 1,
            "save_strategy": "steps",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_steps": 1000,
            "remove_unused_columns": False,
            "learning_rate": 0.01,
            **options,
        }
    )


def trainer_of(mix: HFMixture, folder: Path, *, kill: int | None = None, **options: Any) -> Trainer:
    trainer = Trainer(
        model(),
        arguments(folder, **options),
        train_dataset=mix.dataset.map(tokenized),
        data_collator=Recorder(),
        callbacks=[] if kill is None else [Kill(kill)],
    )
    return mix.attach(trainer)


def texts(mix: HFMixture, trainer: Trainer) -> list[str]:
    return [mix.dataset[row]["text"] for row in trainer.data_collator.rows]


def draws(n: int, weights: dict[str, float], epoch_length: int) -> list[str]:
    """Return the texts of the first draws that SynqueDataModule serves."""
    dm = SynqueDataModule(
        data(), mixture=weights, seed=3, epoch_length=epoch_length, batch_size=1, view="text"
    )
    dataset = dm.train_dataloader().dataset
    return [dataset[draw]["text"] for draw in range(n)]
