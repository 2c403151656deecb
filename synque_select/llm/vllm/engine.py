"""Language models run by vLLM, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from synque_select.errors import ConfigError, LLMError
from synque_select.hub.language_models import locate_llm
from synque_select.hub.resolve import content_revision
from synque_select.llm.adapter import check_adapter
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_constraint
from synque_select.llm.chat import control_tokens_of
from synque_select.llm.prompt import (
    Prompt,
    PromptLike,
    estimated_tokens,
    prompt_parts,
)
from synque_select.llm.vllm.process_group import error_causes, kill_group
from synque_select.utils.data_uri import png_base64
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["VllmLLM"]

# prompts that are sent to the process together
_WINDOW = 512
_TAIL_LINES = 200
_MAX_WAIT_S = 10.0
# longest path of a folder for vLLM's sockets: their paths have about 108 characters at most
_MAX_SOCKET_FOLDER = 70
# values that vLLM allows for max_lora_rank
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# variables of the trainer's process group, with which vLLM would try to join it
_RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK",
)  # fmt: skip
_RANK_PREFIXES = ("MASTER_", "TORCHELASTIC_")


class VllmLLM(BaseLLM):
    """A model in vLLM's offline engine, in a child process.

    The process starts with the first prompt and ends with `close`, which frees all of its memory,
    or with its parent. Common prefixes of prompts are computed once (prefix caching).
    Probabilities of choices come from one generated token at each place where the choices differ;
    if an answer must be one of the choices, it is the most probable one. A schema is enforced by
    structured outputs.

    Args:
        model_id: A local directory, or an id on the model hub, with "id@revision" for a revision.
        adapter: Directory of a LoRA adapter.
        python: Interpreter of the environment in which vLLM is installed; None for this one.
        dtype: Precision, by vLLM's name; "auto" for that of the model.
        tensor_parallel_size: Number of GPUs over which the model is split.
        gpu_memory_utilization: Share of each GPU's memory to use, above 0 and at most 1.
        max_model_len: Maximum number of tokens of prompt and answer; None for the model's limit.
        max_images: Maximum number of images in a prompt, for a model that reads images.
        arguments: Further arguments of `vllm.LLM`, such as {"quantization": "fp8"}.

    Raises:
        ConfigError: An argument is not allowed.
        LLMError: The model is not a directory or on the hub.

    Source:
        Prefix caching in pages: Kwon et al. 2023 (arXiv 2309.06180).
    """

    def __init__(
        self,
        model_id: str,
        *,
        adapter: str | None = None,
        python: str | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        max_images: int = 32,
        arguments: JsonObject | None = None,
    ) -> None:
        _check_sizes(tensor_parallel_size, max_images, gpu_memory_utilization)
        self._rank = None if adapter is None else check_adapter(adapter)
        self.id = model_id
        self._files = locate_llm(model_id)
        if self._files.packaged is not None:
            raise LLMError(
                f"{model_id} is available only as a GGUF file in a package, which vLLM cannot "
                "read: save the model with transformers and pass its directory"
            )
        self.revision = self._files.revision
        self._adapter = adapter
        self._python = python or sys.executable
        self._max_images = max_images
        # these change answers and are part of the key of cached ones; resources do not
        self._model_options: dict[str, Json] = {"dtype": dtype, **(arguments or {})}
        if max_model_len is not None:
            self._model_options["max_model_len"] = max_model_len
        self._resources: dict[str, Json] = {
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
        }
        self._process: _Process | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._control_tokens: frozenset[str] | None = None

    def options(self) -> JsonObject:
        """Return further settings that change answers."""
        options = {name: str(value) for name, value in self._model_options.items()}
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
        """Answer prompts in batches, in the order in which the answers are complete."""
        allowed = check_constraint(choices, schema)
        if allowed is not None:
            for position, rows in self.choice_probabilities("", prompts, [""], allowed):
                best = rows if isinstance(rows, Failure) else _best(rows[0], allowed)
                yield position, best
            return
        sampling: JsonObject = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        for start in range(0, len(prompts), _WINDOW):
            window = prompts[start : start + _WINDOW]
            request: JsonObject = {
                "do": "write",
                "prompts": [_encoded(prompt) for prompt in window],
                "schema": schema,
                "sampling": sampling,
            }
            for answer in self._answers(request, n_requests_per_answer=1):
                yield start + answer["at"], _result(answer, "text")

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return the probability of each choice, from generated tokens only."""
        allowed = check_choices(choices)
        request: dict[str, Json] = {
            "do": "choose",
            "prefix": _encoded(shared_prefix),
            "choices": allowed,
            "suffixes": list(suffixes),
        }
        for start in range(0, len(items), _WINDOW):
            request["items"] = [_encoded(item) for item in items[start : start + _WINDOW]]
            for answer in self._answers(request, n_requests_per_answer=len(suffixes)):
                yield start + answer["at"], _result(answer, "rows")

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return the number of tokens of a prompt; those of images are estimated."""
        texts = "".join(part for part in prompt_parts(prompt) if isinstance(part, str))
        n_text = len(self._load_tokenizer()(texts, add_special_tokens=False).input_ids)
        images = [part for part in prompt_parts(prompt) if not isinstance(part, str)]
        return n_text + sum(estimated_tokens(Prompt((image,))) for image in images)

    def control_tokens(self) -> frozenset[str]:
        """Return the texts that the tokenizer reads as special or added tokens."""
        if self._control_tokens is None:
            self._control_tokens = control_tokens_of(self._load_tokenizer())
        return self._control_tokens

    def close(self) -> None:
        """End the process, and wait until all of its memory is freed."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        if self._tokenizer is None:
            import transformers

            source = {"revision": self._files.commit} if self._files.commit else {}
            tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
                self._files.location, **source
            )
            self._tokenizer = tokenizer
        return self._tokenizer

    def _answers(
        self, request: JsonObject, *, n_requests_per_answer: int
    ) -> Iterator[dict[str, Any]]:
        process = self._start()
        done = False
        try:
            for answer in process.ask(request):
                if "refused" in answer:
                    raise ConfigError(answer["refused"])
                n_prompt, n_cached, n_answer = answer.get("used", (0, 0, 0))
                self.usage.n_requests += n_requests_per_answer
                self.usage.n_prompt_tokens += n_prompt
                self.usage.n_cached_tokens += n_cached
                self.usage.n_answer_tokens += n_answer
                yield answer
            done = True
        except LLMError:
            self.close()
            raise
        finally:
            if not done and self._process is not None:
                process.stop()

    def _start(self) -> _Process:
        """Return the process, started if it is not running."""
        if self._process is None:
            process = _Process(self._python, self.id)
            try:
                ready = process.start(self._arguments())
            except BaseException:
                process.end()
                raise
            self.context_length = int(ready["context_length"])
            self._process = process
        return self._process

    def _arguments(self) -> JsonObject:
        engine: dict[str, Json] = {
            "model": self._files.location,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "limit_mm_per_prompt": {"image": self._max_images},
            **self._resources,
            **self._model_options,
        }
        if self._files.commit is not None:
            engine["revision"] = self._files.commit
        if self._adapter is not None:
            ranks = [rank for rank in _LORA_RANKS if rank >= (self._rank or 0)]
            engine |= {"enable_lora": True, "max_lora_rank": min(ranks, default=self._rank)}
        return {"model_id": self.id, "engine": engine, "adapter": self._adapter}


class _Process:
    """The child process, which exchanges lines of JSON; its last lines of errors are kept."""

    def __init__(self, python: str, model_id: str) -> None:
        self._id = model_id
        self._python = python
        self._errors: deque[str] = deque(maxlen=_TAIL_LINES)
        # the other environment imports this copy of the library, and nothing else of this one
        self._path = tempfile.TemporaryDirectory(
            prefix="synque-select-vllm-", ignore_cleanup_errors=True
        )
        package = Path(__file__).resolve().parents[1]
        (Path(self._path.name) / package.name).symlink_to(package, target_is_directory=True)
        try:
            self._child = subprocess.Popen(
                [python, "-P", "-m", "synque_select.llm.vllm.worker", self._path.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(self._path.name),
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._path.cleanup()
            raise LLMError(f"vLLM's process cannot be started: {error}") from error
        self._reader = threading.Thread(
            target=_collect_lines, args=(self._child.stderr, self._errors), daemon=True
        )
        self._reader.start()

    def start(self, arguments: JsonObject) -> dict[str, Any]:
        """Send the engine's arguments, and return the answer once the model is loaded."""
        self._send(arguments)
        return self._receive()

    def ask(self, request: JsonObject) -> Iterator[dict[str, Any]]:
        """Send a request and yield its answers."""
        self._send(request)
        while "done" not in (answer := self._receive()):
            yield answer

    def stop(self) -> None:
        """Have the child abandon the rest of a request, and wait until it has."""
        with suppress(LLMError):
            self._send({"do": "stop"})
            while "done" not in self._receive():
                pass

    def _send(self, state: JsonObject) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(state) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise self._death() from None

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise self._death()
        return dict(json.loads(line))

    def _death(self) -> LLMError:
        """Return the error that says why the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_MAX_WAIT_S)
        self._reader.join(_MAX_WAIT_S)
        stderr = "\n".join(self._errors)
        if "No module named 'vllm'" in stderr:
            return LLMError(
                f"vLLM is not installed for {self._python}: "
                "pip install 'synque-select[vllm]', or set python= to the interpreter of an "
                "environment in which it is installed"
            )
        last_lines = f"its last lines were:\n{stderr}"
        causes = error_causes(list(self._errors))
        status = f"vLLM's process for {self._id} ended (exit status {self._child.returncode})"
        error = LLMError(f"{status}: {'; '.join(causes) or last_lines}")
        if causes:
            error.add_note(last_lines)
        return error

    def end(self) -> None:
        """End the child and all processes that it started, and wait until they are gone."""
        streams = (self._child.stdin, self._child.stdout, self._child.stderr)
        with suppress(OSError):
            _close(streams[0])
        # the child leads a session of its own, so its process id is that of the group
        kill_group(self._child.pid)
        self._child.wait()
        self._reader.join(_MAX_WAIT_S)
        _close(*streams[1:])
        deadline = time.monotonic() + _MAX_WAIT_S
        while _alive(self._child.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._path.cleanup()


def _check_sizes(tensor_parallel_size: int, max_images: int, gpu_memory_utilization: float) -> None:
    sizes = {"tensor_parallel_size": tensor_parallel_size, "max_images": max_images}
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name}={value}: allowed is 1 or more")
    if not 0 < gpu_memory_utilization <= 1:
        raise ConfigError(
            f"gpu_memory_utilization={gpu_memory_utilization}: allowed is a number above 0 and at "
            "most 1"
        )


def _close(*streams: IO[str] | None) -> None:
    for stream in streams:
        if stream is not None:
            stream.close()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _collect_lines(stream: TextIO | None, lines: deque[str]) -> None:
    for line in stream or ():
        lines.append(line.rstrip("\n"))


def _environment(path: str) -> dict[str, str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
    }
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (path, variables.get("PYTHONPATH"))))
    if len(path) <= _MAX_SOCKET_FOLDER:
        # sockets in this folder are deleted with it
        variables.setdefault("VLLM_RPC_BASE_PATH", path)
    return variables


def _encoded(prompt: PromptLike) -> list[Json]:
    return [
        part if isinstance(part, str) else {"png": png_base64(part.convert("RGB"))}
        for part in prompt_parts(prompt)
    ]


def _result(answer: Mapping[str, Any], name: str) -> Any:
    return Failure(answer["failure"]) if "failure" in answer else answer[name]


def _best(row: Sequence[float], choices: Sequence[str]) -> str:
    return choices[list(row).index(max(row))]
