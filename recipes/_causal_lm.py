"""Fine-tuning of causal language models with LoRA: chat prompts, packing, loss on answers only."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from synque_select.errors import (
    ConfigError,
    DataError,
    DependencyError,
    EncoderError,
    LightningError,
    LLMError,
)
from synque_select.hub.resolve import resolve_model, split_revision

__all__ = [
    "AdapterSaver",
    "CausalLMModule",
    "Dtype",
    "Encoded",
    "Packer",
    "encode_chat",
    "load_tokenizer",
]

Dtype = Literal["float32", "bfloat16"]
Message = Mapping[str, str]


class Encoded(NamedTuple):
    """One example as tokens.

    Args:
        prompt: Tokens of everything before the answer.
        answer: Tokens of the answer, with the token that ends it.
        record: The record that it was made of.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    record: Any = None


def encode_chat(
    tokenizer: Any, prompt: Sequence[Message], answer: str, record: Any = None
) -> Encoded:
    """Turn a conversation and its answer into tokens, by the chat template of the model.

    Raises:
        ConfigError: The tokenizer has no chat template, or one that changes the prompt when an
            answer follows.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"{tokenizer.name_or_path}: this model has no chat template")
    opened = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    turns = [*prompt, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    if not whole.startswith(opened):
        raise ConfigError(
            f"{tokenizer.name_or_path}: its chat template shows a prompt otherwise when an answer "
            "follows, so the answer's tokens cannot be told from the prompt's"
        )
    # what stands after the end of the answer (a line break, often) is never generated
    said = whole[len(opened) :].partition(tokenizer.eos_token)[0] + tokenizer.eos_token
    return Encoded(_tokens(tokenizer, opened), _tokens(tokenizer, said), record)


def _tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class Packer:
    """Collates examples into rows of tokens without padding: packing.

    The tokens that all prompts of a batch begin with (a schema, an instruction) stand once in a
    row, and every example of the row continues them; of each other the examples see nothing. That
    gives the losses and gradients that each example has alone. Rows are filled by first fit,
    longest example first.

    Args:
        block_size: Tokens a row holds at most; of an example that is longer, the end is kept.
    """

    block_size: int

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Any]:
        """Return {"rows": …, "examples": …, "n_targets": …} of a batch."""
        parts = [self._cut(example) for example in examples]
        start = _common_start([prompt for prompt, _ in parts])
        lengths = [len(prompt) + len(answer) - len(start) for prompt, answer in parts]
        rows = _first_fit(lengths, self.block_size - len(start))
        packed = [_row(start, [(i, *parts[i]) for i in row]) for row in rows]
        n_targets = sum(len(row["targets"]) for row in packed)
        return {"rows": packed, "examples": list(examples), "n_targets": n_targets}

    def _cut(self, example: Encoded) -> tuple[list[int], list[int]]:
        tokens = [*example.prompt, *example.answer][-self.block_size :]
        # the first token of an example is predicted by nothing
        n_targets = min(len(example.answer), len(tokens) - 1)
        return tokens[:-n_targets], tokens[-n_targets:]


def _common_start(prompts: Sequence[list[int]]) -> list[int]:
    """Return the tokens that all begin with.

    Example:
        >>> _common_start([[1, 2, 3], [1, 2], [1, 2, 4]])
        [1, 2]
    """
    # whatever the first and the last in order share, those between share too
    first, last = min(prompts), max(prompts)
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:n]


def _row(
    start: list[int], examples: Sequence[tuple[int, list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """Lay out the common start, then what each example (position, prompt, answer) adds to it."""
    n_start = len(start)
    ids, positions, segments = list(start), list(range(n_start)), [0] * n_start
    predicted_at: list[int] = []
    owners: list[int] = []
    for segment, (owner, prompt, answer) in enumerate(examples, 1):
        own = [*prompt[n_start:], *answer]
        # the token before predicts a target: of the first one that may be the start's last
        before = range(len(ids) - 1, len(ids) + len(own) - 1)[-len(answer) :]
        is_first = len(own) == len(answer)
        predicted_at += [n_start - 1, *before[1:]] if is_first else before
        owners += [owner] * len(answer)
        segments += [segment] * len(own)
        positions += range(n_start, n_start + len(own))
        ids += own
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "segments": torch.tensor(segments),
        "predicted_at": torch.tensor(predicted_at),
        "targets": torch.tensor([token for _, _, answer in examples for token in answer]),
        "owners": torch.tensor(owners),
    }


def _visible(segments: torch.Tensor) -> torch.Tensor | None:
    """Return which tokens (columns) each token (rows) sees, (1, 1, L, L) bool.

    Those before it, of its own segment or of segment 0; None where that is all before it.
    """
    if int(segments[-1]) <= 1:
        return None
    shared = (segments == 0) | (segments == segments[:, None])
    return shared.tril()[None, None]


def _first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Put items into as few bins as first fit by falling length finds.

    Example:
        >>> _first_fit([3, 5, 2, 4], 7)
        [[1, 2], [3, 0]]
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [b for b, left in enumerate(room) if lengths[i] <= left]
        if not fitting:
            fitting = [len(bins)]
            bins.append([])
            room.append(size)
        bins[fitting[0]].append(i)
        room[fitting[0]] -= lengths[i]
    return bins


@lru_cache(maxsize=2)
def load_tokenizer(model_id: str) -> Any:
    """Load a model's tokenizer from a folder, a package or the model hub.

    Raises:
        LLMError: It is nowhere to be found, or cannot be read.
    """
    import transformers

    return _loaded(transformers.AutoTokenizer, model_id, {})


@lru_cache(maxsize=1)
def _base_model(model_id: str, dtype: torch.dtype) -> Any:
    """Load a model once a process; every fit trains a copy of it."""
    import transformers

    # the argument's name before transformers 4.56 was another
    name = "dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype"
    # a mask of one's own means the same to every model under this attention alone
    options = {name: dtype, "attn_implementation": "sdpa"}
    model = _loaded(transformers.AutoModelForCausalLM, model_id, options)
    other = sorted({*(getattr(model.config, "layer_types", None) or ())} - {"full_attention"})
    if other:
        raise LLMError(f"{model_id} has layers of {', '.join(other)}: these cannot be packed")
    return model.to(dtype)


def _loaded(auto: Any, model_id: str, options: dict[str, Any]) -> Any:
    try:
        files = resolve_model(*split_revision(model_id), role="language model")
    except EncoderError as error:
        raise LLMError(str(error)) from error
    options = {**options, "revision": files.commit} if files.commit else dict(options)
    if files.packaged is not None:
        files.packaged.check()
        for package in ("gguf", "accelerate"):
            _require(package, f"the packaged model {model_id}")
        options["gguf_file"] = files.packaged.weights.name
        options |= _dense(auto)
    try:
        # bars of a second's unpacking
        with redirect_stderr(io.StringIO()):
            return auto.from_pretrained(files.location, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise LLMError(f"{model_id} cannot be loaded: {error}") from error


def _dense(auto: Any) -> dict[str, Any]:
    """Ask for plain weights, where transformers would keep a GGUF's packed: those do not train."""
    import transformers

    if auto is not transformers.AutoModelForCausalLM or not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def _require(package: str, purpose: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise DependencyError(package, extra="text2sql", purpose=purpose)


class CausalLMModule(LightningModule):
    """A causal language model with LoRA adapters; its batches come from a `Packer`.

    The loss is the mean over the answers' tokens of a batch. `val_loss` and `test_loss` are means
    over examples of an example's mean token loss, in nats; after a test, `test_loss_of_<i>` is that
    of the example at position i. Checkpoints hold the adapters alone.

    Args:
        model_id: A folder or a hub id, "id@revision" for a revision; some come from packages.
        learning_rate: Peak of AdamW's, reached after the warm-up and then falling linearly to 0.
        warmup_share: Share of the steps in which the learning rate rises.
        weight_decay: Of the adapters.
        lora_rank: Rank of the adapters, on all linear layers but the last.
        lora_alpha: Their scale, times rank.
        lora_dropout: Before the adapters, in training.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        dtype: Of the frozen weights; the adapters are float32.

    Raises:
        ConfigError: A number is not allowed.
        DependencyError: peft is missing.
        LLMError: The model cannot be loaded.
    """

    def __init__(
        self,
        model_id: str,
        learning_rate: float = 2e-4,
        warmup_share: float = 0.05,
        weight_decay: float = 0.0,
        lora_rank: int = 16,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "bfloat16",
    ) -> None:
        super().__init__()
        if not 0 <= warmup_share < 1:
            raise ConfigError(f"warmup_share={warmup_share}: allowed is 0 to under 1")
        for name, value in {"learning_rate": learning_rate, "lora_rank": lora_rank}.items():
            if not value > 0:
                raise ConfigError(f"{name}={value}: allowed is a number above 0")
        self.save_hyperparameters()
        # checkpoints lack the frozen weights
        self.strict_loading = False
        self.network = self._adapted()
        self._test_losses: list[float] = []

    def _adapted(self) -> Any:
        options = self.hparams
        try:
            import peft
        except ImportError as error:
            raise DependencyError("peft", extra="text2sql", purpose="LoRA adapters") from error
        base = copy.deepcopy(_base_model(options["model_id"], getattr(torch, options["dtype"])))
        base.config.use_cache = False
        if options["gradient_checkpointing"]:
            # transformers renames the method: the new name where there is one
            enable = getattr(base, "activation_checkpointing_enable", None)
            (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})
        adapters = peft.LoraConfig(
            r=options["lora_rank"],
            lora_alpha=options["lora_alpha"],
            lora_dropout=options["lora_dropout"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 for an attribute by its old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
            adapted = peft.get_peft_model(base, adapters)
        # transformers loads in eval mode, and Lightning trains in the mode that it finds
        return adapted.train()

    def token_losses(self, row: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each target of a packed row, (n,) float32, in nats."""
        logits = self.network(
            input_ids=row["input_ids"],
            position_ids=row["position_ids"],
            attention_mask=_visible(row["segments"]),
            # the vocabulary is wide: nothing is computed where nothing is to be predicted
            logits_to_keep=row["predicted_at"],
            use_cache=False,
        ).logits[0]
        return torch.nn.functional.cross_entropy(logits.float(), row["targets"], reduction="none")

    def example_losses(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return each example's mean loss over its answer's tokens, (B,) float32."""
        n = len(batch["examples"])
        total = torch.zeros(n, device=self.device)
        count = torch.zeros(n, device=self.device)
        for row in batch["rows"]:
            losses = self.token_losses(row)
            total = total.index_add(0, row["owners"], losses)
            count = count.index_add(0, row["owners"], torch.ones_like(losses))
        return total / count

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the mean loss over the answers' tokens of a batch."""
        losses = [self.token_losses(row).sum() for row in batch["rows"]]
        loss: torch.Tensor = torch.stack(losses).sum() / batch["n_targets"]
        self.log("train_loss", loss, batch_size=len(batch["examples"]))
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log `val_loss`."""
        losses = self.example_losses(batch)
        self.log("val_loss", losses.mean(), batch_size=len(losses), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Begin the list of the examples' losses."""
        self._test_losses = []

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log `test_loss`."""
        losses = self.example_losses(batch)
        self._test_losses += losses.tolist()
        self.log("test_loss", losses.mean(), batch_size=len(losses))

    def on_test_epoch_end(self) -> None:
        """Log the loss of every example, by its position."""
        self.log_dict({f"test_loss_of_{i}": loss for i, loss in enumerate(self._test_losses)})

    def answers(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, batch_size: int = 32
    ) -> list[list[int]]:
        """Return what the model writes after each prompt, greedily, as tokens."""
        found: list[list[int]] = []
        with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
            for start in range(0, len(prompts), batch_size):
                found += self._generate(prompts[start : start + batch_size], max_new_tokens)
        return found

    def _generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        tokenizer = load_tokenizer(self.hparams["model_id"])
        end = tokenizer.eos_token_id
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), end)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        written = self.network.generate(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=end,
            pad_token_id=end,
        )[:, width:].tolist()
        return [row[: row.index(end)] if end in row else row for row in written]

    def configure_optimizers(self) -> Any:
        """AdamW on the adapters; the learning rate rises, then falls linearly to 0."""
        options = self.hparams
        weights = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            weights, lr=options["learning_rate"], weight_decay=options["weight_decay"]
        )
        total = int(self.trainer.estimated_stepping_batches)
        n_warmup = round(float(options["warmup_share"]) * total)

        def factor(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / (n_warmup + 1)
            return max(0.0, (total - step) / max(1, total - n_warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters alone: the frozen weights are the model's own."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n: w for n, w in weights.items() if n in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that lacks an adapter, as loading is not strict.

        Raises:
            LightningError: An adapter's weights are missing.
        """
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        missing = sorted(trained - set(checkpoint["state_dict"]))
        if missing:
            raise LightningError(
                f"the checkpoint lacks {len(missing)} adapter weights, the first is {missing[0]}: "
                "it is of another model or of another lora_rank"
            )

    def save_adapters(self, folder: str | Path, *, merged: bool = False) -> None:
        """Write the adapters as peft does, or the whole model with them merged into its weights.

        Args:
            folder: Where to; the tokenizer is written too.
            merged: A model that transformers loads without peft.
        """
        tokenizer = load_tokenizer(self.hparams["model_id"])
        network = self.network
        if merged:
            network = copy.deepcopy(self.network).merge_and_unload()
            # a packaged model says that it was read from another format
            if hasattr(network.config, "quantization_config"):
                del network.config.quantization_config
            network.config.use_cache = True
        network.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


class AdapterSaver(Callback):
    """Writes the adapters when a fit has ended, on one rank.

    Args:
        folder: Where to.
        merged: The whole model instead, with the adapters merged into its weights.
    """

    def __init__(self, folder: str, merged: bool = False) -> None:
        if Path(folder).is_file():
            raise ConfigError(f"folder={folder!r}: this is a file")
        self._folder = folder
        self._merged = merged

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them."""
        if not isinstance(pl_module, CausalLMModule):
            raise DataError(
                f"AdapterSaver takes a CausalLMModule, found {type(pl_module).__name__}"
            )
        if trainer.is_global_zero:
            pl_module.save_adapters(self._folder, merged=self._merged)
