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
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from synque_select.errors import (
    ConfigError,
    DependencyError,
    EncoderError,
    LightningError,
    LLMError,
)
from synque_select.hub.resolve import resolve_model, split_revision
from synque_select.recipes.options import Dtype
from synque_select.utils.validation import check_int

if TYPE_CHECKING:
    from peft import PeftMixedModel, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "AdapterSaver",
    "Batch",
    "CausalLMModule",
    "Encoded",
    "Packer",
    "encode_chat",
    "load_tokenizer",
]

_Message = Mapping[str, str]


class _Row(TypedDict):
    """A packed row: its tokens (1, L), and where its targets (n,) are predicted."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: torch.Tensor
    predicted_at: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor


class Batch(TypedDict):
    """A batch: packed rows, its examples, and the number of tokens to predict."""

    rows: list[_Row]
    examples: list[Encoded]
    n_targets: int


class Encoded(NamedTuple):
    """One example as tokens.

    Args:
        prompt: Tokens of everything before the answer.
        answer: Tokens of the answer, including the token that ends it.
        record: The record of the example.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    record: Any = None


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[_Message],
    answer: str,
    record: object = None,
) -> Encoded:
    """Convert a conversation and its answer to tokens, with the chat template of the model.

    Raises:
        ConfigError: The tokenizer has no chat template, or one that renders the prompt differently
            when an answer follows.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"{tokenizer.name_or_path}: this model has no chat template")
    opened = _rendered(tokenizer, prompt, add_generation_prompt=True)
    complete = _rendered(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    if not complete.startswith(opened):
        raise ConfigError(
            f"{tokenizer.name_or_path}: its chat template renders the prompt differently when an "
            "answer follows, so the tokens of the answer cannot be separated from the prompt"
        )
    end = str(tokenizer.eos_token)
    # what follows the end of the answer (a line break, often) is never generated
    target = complete[len(opened) :].partition(end)[0] + end
    return Encoded(_tokens(tokenizer, opened), _tokens(tokenizer, target), record)


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[_Message],
    *,
    add_generation_prompt: bool = False,
) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class Packer:
    """Packs examples into rows of tokens without padding.

    The tokens that all prompts of a batch begin with (a schema, an instruction) are stored once per
    row, and every example of the row continues them. Attention does not cross examples, so losses
    and gradients equal those of each example alone. Rows are filled by first fit, longest example
    first.

    Args:
        block_size: Largest number of tokens in a row; a longer example keeps its end.
    """

    block_size: int

    def __call__(self, examples: Sequence[Encoded]) -> Batch:
        """Return the batch of these examples."""
        parts = [self._cut(example) for example in examples]
        start = _common_start([prompt for prompt, _ in parts])
        lengths = [len(prompt) + len(answer) - len(start) for prompt, answer in parts]
        rows = _first_fit(lengths, self.block_size - len(start))
        packed = [_row(start, [(i, *parts[i]) for i in row]) for row in rows]
        n_targets = sum(len(row["targets"]) for row in packed)
        return {"rows": packed, "examples": list(examples), "n_targets": n_targets}

    def _cut(self, example: Encoded) -> tuple[list[int], list[int]]:
        tokens = [*example.prompt, *example.answer][-self.block_size :]
        # no token precedes the first one, so nothing predicts it
        n_targets = min(len(example.answer), len(tokens) - 1)
        return tokens[:-n_targets], tokens[-n_targets:]


def _common_start(prompts: Sequence[list[int]]) -> list[int]:
    """Return the longest common prefix.

    Example:
        >>> _common_start([[1, 2, 3], [1, 2], [1, 2, 4]])
        [1, 2]
    """
    # in lexicographic order, the first and the last share no more than all others do
    first, last = min(prompts), max(prompts)
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:n]


def _row(start: list[int], examples: Sequence[tuple[int, list[int], list[int]]]) -> _Row:
    """Lay out the common start, then what each example (position, prompt, answer) adds to it."""
    n_start = len(start)
    ids, positions, segments = list(start), list(range(n_start)), [0] * n_start
    predicted_at: list[int] = []
    owners: list[int] = []
    for segment, (owner, prompt, answer) in enumerate(examples, 1):
        own = [*prompt[n_start:], *answer]
        # the preceding token predicts a target; for the first one it may end the common start
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
    """Return which tokens (columns) each token (rows) attends to, (1, 1, L, L) bool.

    These are the preceding tokens of its own segment and of segment 0; None if these are all.
    """
    if int(segments[-1]) <= 1:
        return None
    shared = (segments == 0) | (segments == segments[:, None])
    return shared.tril()[None, None]


def _first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Pack items into bins by first fit, in order of decreasing length.

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
def load_tokenizer(model_id: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer from a directory, a package or the model hub.

    Raises:
        LLMError: It is not found, or cannot be read.
    """
    import transformers

    tokenizer: PreTrainedTokenizerBase = _loaded(transformers.AutoTokenizer, model_id, {})
    return tokenizer


@lru_cache(maxsize=1)
def _base_model(model_id: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model once per process; every fit trains a copy of it."""
    import transformers

    # transformers before 4.56 names the argument torch_dtype
    name = "dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype"
    # under other implementations not every model respects a custom mask
    options = {name: dtype, "attn_implementation": "sdpa"}
    model: PreTrainedModel = _loaded(transformers.AutoModelForCausalLM, model_id, options)
    other = sorted({*(getattr(model.config, "layer_types", None) or ())} - {"full_attention"})
    if other:
        raise LLMError(
            f"{model_id} has layers of type {', '.join(other)}, whose examples cannot be packed: "
            "choose a model with full attention in all layers"
        )
    torch.nn.Module.to(model, dtype)  # in place
    return model


# an Auto class of transformers and what it loads, whose types are only known to the callers
def _loaded(auto: Any, model_id: str, options: Mapping[str, object]) -> Any:
    try:
        files = resolve_model(*split_revision(model_id), role="language model")
    except EncoderError as error:
        raise LLMError(str(error)) from error
    arguments = dict(options) | ({"revision": files.commit} if files.commit else {})
    if files.packaged is not None:
        files.packaged.check()
        for package in ("gguf", "accelerate"):
            _require(package, f"the packaged model {model_id}")
        arguments["gguf_file"] = files.packaged.weights.name
        arguments |= _dense(auto)
    try:
        # hides the progress bars of unpacking, which takes a second
        with redirect_stderr(io.StringIO()):
            return auto.from_pretrained(files.location, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        raise LLMError(f"{model_id} cannot be loaded: {error}") from error


def _dense(auto: object) -> dict[str, object]:
    """Ask for plain weights: transformers may keep those of a GGUF packed, which do not train."""
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

    The training loss is the mean over the answer tokens of a batch. `val_loss` and `test_loss` are
    means over examples of an example's mean token loss, in nats; after a test, `test_loss_of_<i>`
    is the loss of the example at position i. Checkpoints contain only the adapters.

    With `n_validated`, the model also writes an answer to the first examples of each validation,
    and `val_exact_match` is the share of answers that equal the given one; with `n_generated`, the
    same holds for tests and `test_exact_match`. `compare` decides which answers are equal, so a
    subclass compares them as its task does, on labeled and on surrogate validation data alike.

    Args:
        model_id: A directory or a hub id, "id@revision" for a revision; some models come from
            packages.
        learning_rate: Peak learning rate of AdamW; it rises in the warm-up and then falls linearly
            to 0.
        warmup_share: Share of the steps in which the learning rate rises.
        weight_decay: Weight decay of the adapters.
        lora_rank: Rank of the adapters, on all linear layers except the last.
        lora_alpha: Scale of the adapters, times their rank.
        lora_dropout: Dropout before the adapters, in training.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        dtype: Type of the frozen weights; the adapters are float32.
        n_generated: Number of test examples to which the model writes an answer; 0 for none.
        n_validated: Number of validation examples to which it writes one in every validation; 0
            for none.
        max_new_tokens: Largest number of tokens in an answer.

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
        n_generated: int = 0,
        n_validated: int = 0,
        max_new_tokens: int = 64,
    ) -> None:
        super().__init__()
        if not 0 <= warmup_share < 1:
            raise ConfigError(f"warmup_share={warmup_share}: allowed is 0 to below 1")
        for name, value in {"learning_rate": learning_rate, "lora_rank": lora_rank}.items():
            if not value > 0:
                raise ConfigError(f"{name}={value}: allowed is a number above 0")
        check_int("n_generated", n_generated, 0)
        check_int("n_validated", n_validated, 0)
        check_int("max_new_tokens", max_new_tokens, 1)
        self.save_hyperparameters()
        # checkpoints do not contain the frozen weights
        self.strict_loading = False
        self.network = self._adapted()
        self._test_losses: list[float] = []
        self._asked: list[Encoded] = []

    def _adapted(self) -> PeftModel | PeftMixedModel:
        options = self.hparams
        try:
            import peft
        except ImportError as error:
            raise DependencyError("peft", extra="text2sql", purpose="LoRA adapters") from error
        base = copy.deepcopy(_base_model(options["model_id"], getattr(torch, options["dtype"])))
        base.config.use_cache = False
        if options["gradient_checkpointing"]:
            # newer versions of transformers rename the method
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
            # peft 0.21 reads an attribute of transformers 5.23 under its old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
            adapted = peft.get_peft_model(base, adapters)
        # transformers loads models in eval mode, and Lightning does not change the mode
        return adapted.train()

    def token_losses(self, row: _Row) -> torch.Tensor:
        """Return the loss of each target of a packed row, (n,) float32, in nats."""
        logits = self.network(
            input_ids=row["input_ids"],
            position_ids=row["position_ids"],
            attention_mask=_visible(row["segments"]),
            # the vocabulary is large: logits are only computed where a target is predicted
            logits_to_keep=row["predicted_at"],
            use_cache=False,
        ).logits[0]
        return torch.nn.functional.cross_entropy(logits.float(), row["targets"], reduction="none")

    def example_losses(self, batch: Batch) -> torch.Tensor:
        """Return each example's mean loss over its answer tokens, (B,) float32."""
        n = len(batch["examples"])
        total = torch.zeros(n, device=self.device)
        count = torch.zeros(n, device=self.device)
        for row in batch["rows"]:
            losses = self.token_losses(row)
            total = total.index_add(0, row["owners"], losses)
            count = count.index_add(0, row["owners"], torch.ones_like(losses))
        return total / count

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean loss over the answer tokens of a batch."""
        losses = [self.token_losses(row).sum() for row in batch["rows"]]
        loss: torch.Tensor = torch.stack(losses).sum() / batch["n_targets"]
        self.log("train_loss", loss, batch_size=len(batch["examples"]))
        return loss

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the last hidden state at the end of each example's prompt, (B, d).

        It is what the first token of the answer is predicted from, so it does not depend on the
        answer. The policy `agreement` compares candidates with the real sample by it.
        """
        states: dict[int, torch.Tensor] = {}
        for row in batch["rows"]:
            hidden = self.network(
                input_ids=row["input_ids"],
                position_ids=row["position_ids"],
                attention_mask=_visible(row["segments"]),
                logits_to_keep=1,
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states[-1][0]
            owners, at = row["owners"].tolist(), row["predicted_at"].tolist()
            # the first target of an example; later ones do not replace it
            ends = dict(zip(reversed(owners), reversed(at), strict=True))
            states |= {owner: hidden[position] for owner, position in ends.items()}
        return torch.stack([states[i] for i in range(len(batch["examples"]))])

    def on_validation_epoch_start(self) -> None:
        """Clear the list of examples to which the model writes an answer."""
        self._asked = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_loss`, and collect the examples to which the model writes an answer."""
        losses = self.example_losses(batch)
        self.log("val_loss", losses.mean(), batch_size=len(losses), prog_bar=True)
        self._ask(batch, self.hparams["n_validated"])

    def on_validation_epoch_end(self) -> None:
        """Write the answers, and log how many are right."""
        self._log_answers("val")

    def on_test_epoch_start(self) -> None:
        """Clear the lists of the examples and of their losses."""
        self._test_losses, self._asked = [], []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `test_loss`, and collect the examples to which the model writes an answer."""
        losses = self.example_losses(batch)
        self._test_losses += losses.tolist()
        self.log("test_loss", losses.mean(), batch_size=len(losses))
        self._ask(batch, self.hparams["n_generated"])

    def on_test_epoch_end(self) -> None:
        """Log the loss of every example, by its position, and how many answers are right."""
        self.log_dict({f"test_loss_of_{i}": loss for i, loss in enumerate(self._test_losses)})
        self._log_answers("test")

    def compare(self, examples: Sequence[Encoded], answers: Sequence[str]) -> dict[str, float]:
        """Return the metrics of the model's answers, by name; a task with its own overrides it.

        Args:
            examples: The examples, each with the answer that it gives.
            answers: What the model wrote for each.
        """
        tokenizer = load_tokenizer(self.hparams["model_id"])
        given = [str(tokenizer.decode([*e.answer], skip_special_tokens=True)) for e in examples]
        pairs = zip(given, answers, strict=True)
        return {"exact_match": fmean(a.strip() == b.strip() for a, b in pairs)}

    def write(self, prompts: Sequence[Sequence[int]], *, batch_size: int = 32) -> list[str]:
        """Return the text that the model generates after each prompt, greedily."""
        tokenizer = load_tokenizer(self.hparams["model_id"])
        answers: list[list[int]] = []
        with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
            for start in range(0, len(prompts), batch_size):
                answers += self._generate(prompts[start : start + batch_size])
        return [str(tokenizer.decode(answer)) for answer in answers]

    def _ask(self, batch: Batch, n: int) -> None:
        self._asked += batch["examples"][: max(0, n - len(self._asked))]

    def _log_answers(self, stage: Literal["val", "test"]) -> None:
        if self._asked:
            written = self.write([example.prompt for example in self._asked])
            metrics = {"n_generated": float(len(written)), **self.compare(self._asked, written)}
            # ranks must agree on what callbacks monitor
            self.log_dict({f"{stage}_{n}": v for n, v in metrics.items()}, sync_dist=True)

    def _generate(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        tokenizer = load_tokenizer(self.hparams["model_id"])
        end = tokenizer.eos_token_id
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), end)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        written = self.network.generate(  # type: ignore[no-untyped-call]  # peft
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=self.hparams["max_new_tokens"],
            do_sample=False,
            use_cache=True,
            eos_token_id=end,
            pad_token_id=end,
        )[:, width:].tolist()
        return [row[: row.index(end)] if end in row else row for row in written]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW on the adapters; the learning rate rises, then falls linearly to 0."""
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
        """Keep only the adapters: the frozen weights come from the model itself."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n: w for n, w in weights.items() if n in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint without all adapters, because loading is not strict.

        Raises:
            LightningError: An adapter's weights are missing.
        """
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        missing = sorted(trained - set(checkpoint["state_dict"]))
        if missing:
            raise LightningError(
                f"the checkpoint lacks {len(missing)} adapter weights, the first is {missing[0]}: "
                "it was made with another model or another lora_rank"
            )

    def save_adapters(self, folder: str | Path, *, merged: bool = False) -> None:
        """Write the adapters in the format of peft, or the whole model with the adapters merged.

        Args:
            folder: Directory to write to; the tokenizer is written too.
            merged: Write a model that transformers loads without peft.
        """
        network = self._merged() if merged else self.network
        network.save_pretrained(str(folder))
        load_tokenizer(self.hparams["model_id"]).save_pretrained(str(folder))

    def _merged(self) -> PreTrainedModel:
        network: PreTrainedModel = copy.deepcopy(self.network).merge_and_unload()
        # a packaged model records the format that it was read from
        if hasattr(network.config, "quantization_config"):
            del network.config.quantization_config
        network.config.use_cache = True
        return network


class AdapterSaver(Callback):
    """Writes the adapters when a fit has ended, on rank 0.

    Args:
        folder: Directory to write to.
        merged: Write the whole model, with the adapters merged into its weights.

    Raises:
        ConfigError: `folder` is a file.
    """

    def __init__(self, folder: str, merged: bool = False) -> None:
        if Path(folder).is_file():
            raise ConfigError(f"folder={folder!r}: this is a file; give a directory")
        self._folder = folder
        self._merged = merged

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them.

        Raises:
            ConfigError: The module has no adapters.
        """
        if not isinstance(pl_module, CausalLMModule):
            raise ConfigError(
                f"AdapterSaver needs a CausalLMModule, found {type(pl_module).__name__}"
            )
        if trainer.is_global_zero:
            pl_module.save_adapters(self._folder, merged=self._merged)
