"""Language models in vLLM, in a process of their own."""

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
from typing import Any, TextIO

from synque_select.errors import ConfigError, LLMError
from synque_select.hub.language_models import locate_llm
from synque_select.hub.resolve import content_revision
from synque_select.llm.adapter import check_adapter
from synque_select.llm.base import BaseLLM, Failure, check_choices, check_form
from synque_select.llm.prompt import (
    Prompt,
    PromptLike,
    estimated_tokens,
    prompt_parts,
)
from synque_select.llm.vllm.process_group import causes_of, end_group
from synque_select.utils.data_uri import png_base64

__all__ = ["VllmLLM"]

_WINDOW = 512  # prompts that the process is given together
_TAIL_LINES = 200
_PATIENCE_S = 10.0
_SOCKET_FOLDER = 70  # characters that leave room for a socket's name
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
# a process group of the trainer's is no business of the engine's
_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
_OF_RANKS_PREFIXES = ("MASTER_", "TORCHELASTIC_")


class VllmLLM(BaseLLM):
    """A model in vLLM's offline engine, in a child process.

    The process starts with the first question and ends with `close`, which gives all of its
    memory back; it ends with its parent too. What prompts begin with is computed once (prefix
    caching). Probabilities of choices are those of their usual tokens, from one generated token
    at each place where the choices part; among choices, the most probable one is taken. A schema
    is forced by structured outputs.

    Args:
        model_id: A folder, or an id of the model hub, "id@revision" for a revision.
        adapter: Folder of a LoRA adapter.
        python: The interpreter of the environment that vLLM is installed in; None for this one.
        dtype: As vLLM names them; "auto" for the model's own.
        tensor_parallel_size: GPUs to spread the model over.
        gpu_memory_utilization: Share of each GPU's memory to take.
        max_model_len: Tokens of prompt and answer; None for the model's own.
        max_images: Images a prompt may hold, for a model that reads images.
        arguments: Any further arguments of `vllm.LLM`, such as {"quantization": "fp8"}.

    Raises:
        ConfigError: An argument is not allowed.
        LLMError: The model is nowhere to be found.

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
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        _check_sizes(tensor_parallel_size, max_images, gpu_memory_utilization)
        self._rank = None if adapter is None else check_adapter(adapter)
        self.id = model_id
        self._files = locate_llm(model_id)
        if self._files.packaged is not None:
            raise LLMError(
                f"{model_id} is there as a GGUF file of a package only, which vLLM does not read: "
                "save it with transformers, and give the folder"
            )
        self.revision = self._files.revision
        self._adapter = adapter
        self._python = python or sys.executable
        self._max_images = max_images
        self._changes_answers = {"dtype": dtype, **(arguments or {})}
        if max_model_len is not None:
            self._changes_answers["max_model_len"] = max_model_len
        self._resources = {
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
        }
        self._process: _Process | None = None
        self._tokenizer: Any = None

    def options(self) -> Mapping[str, Any]:
        """Return what else changes an answer."""
        found = {name: str(value) for name, value in self._changes_answers.items()}
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
        """Answer prompts together, in the order in which they are done."""
        allowed = check_form(choices, schema)
        if allowed is not None:
            for position, rows in self.choice_probabilities("", prompts, [""], allowed):
                best = rows if isinstance(rows, Failure) else _best(rows[0], allowed)
                yield position, best
            return
        sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        for start in range(0, len(prompts), _WINDOW):
            window = prompts[start : start + _WINDOW]
            request = {
                "do": "write",
                "prompts": [_encoded(prompt) for prompt in window],
                "schema": schema,
                "sampling": sampling,
            }
            for answer in self._answers(request):
                yield start + answer["at"], _answer(answer, "text")

    def choice_probabilities(
        self,
        shared_prefix: PromptLike,
        items: Sequence[PromptLike],
        suffixes: Sequence[str],
        choices: Sequence[str],
    ) -> Iterator[tuple[int, list[list[float]] | Failure]]:
        """Return how probable each choice is, by generated tokens only."""
        allowed = check_choices(choices)
        request = {"do": "choose", "prefix": _encoded(shared_prefix), "choices": allowed}
        request["suffixes"] = list(suffixes)
        for start in range(0, len(items), _WINDOW):
            window = items[start : start + _WINDOW]
            for answer in self._answers(request | {"items": [_encoded(i) for i in window]}):
                yield start + answer["at"], _answer(answer, "rows")

    def count_tokens(self, prompt: PromptLike) -> int:
        """Return how many tokens a prompt's text has; images as in the base class."""
        if self._tokenizer is None:
            import transformers

            source = {"revision": self._files.commit} if self._files.commit else {}
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._files.location, **source
            )
        texts = "".join(part for part in prompt_parts(prompt) if isinstance(part, str))
        n_text = len(self._tokenizer(texts, add_special_tokens=False).input_ids)
        images = [part for part in prompt_parts(prompt) if not isinstance(part, str)]
        return n_text + sum(estimated_tokens(Prompt((image,))) for image in images)

    def close(self) -> None:
        """End the process, and wait until all of its memory is given back."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _answers(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        process = self._started()
        done = False
        try:
            for answer in process.ask(request):
                if "refused" in answer:
                    raise ConfigError(answer["refused"])
                n_prompt, n_cached, n_answer = answer.get("used", (0, 0, 0))
                self.usage.n_requests += len(request.get("suffixes", ("",)))
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

    def _started(self) -> _Process:
        if self._process is None:
            process = _Process(self._python, self.id)
            try:
                ready = process.start(self._arguments())
            except BaseException:
                process.end()
                raise
            self.context_length = ready["context_length"]
            self._process = process
        return self._process

    def _arguments(self) -> dict[str, Any]:
        engine = {
            "model": self._files.location,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "limit_mm_per_prompt": {"image": self._max_images},
            **self._resources,
            **self._changes_answers,
        }
        if self._files.commit is not None:
            engine["revision"] = self._files.commit
        if self._adapter is not None:
            ranks = [rank for rank in _LORA_RANKS if rank >= (self._rank or 0)]
            engine |= {"enable_lora": True, "max_lora_rank": min(ranks, default=self._rank)}
        return {"model_id": self.id, "engine": engine, "adapter": self._adapter}


class _Process:
    """The child: lines of JSON in and out, its standard error kept for when it dies."""

    def __init__(self, python: str, model_id: str) -> None:
        self._id = model_id
        self._python = python
        self._errors: deque[str] = deque(maxlen=_TAIL_LINES)
        # the other environment gets this very library, and nothing else of this one
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
            target=_keep, args=(self._child.stderr, self._errors), daemon=True
        )
        self._reader.start()

    def start(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Send the first line, and return the answer to it."""
        self._send(arguments)
        return self._receive()

    def ask(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request and yield its answers."""
        self._send(request)
        while "done" not in (answer := self._receive()):
            yield answer

    def stop(self) -> None:
        """Have the child leave the rest of a request, and wait until it has."""
        with suppress(LLMError):
            self._send({"do": "stop"})
            while "done" not in self._receive():
                pass

    def _send(self, state: Mapping[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(state) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise self._died() from None

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise self._died()
        return dict(json.loads(line))

    def _died(self) -> LLMError:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        said = "\n".join(self._errors)
        if "No module named 'vllm'" in said:
            return LLMError(
                f"vLLM is not installed for {self._python}: "
                "pip install 'synque-select[vllm]', or name the interpreter of an environment "
                "that has it by python="
            )
        words = f"its last words:\n{said}"
        causes = causes_of(list(self._errors))
        died = f"vLLM's process for {self._id} died (exit status {self._child.returncode})"
        error = LLMError(f"{died}: {'; '.join(causes) or words}")
        if causes:
            error.add_note(words)
        return error

    def end(self) -> None:
        """End the child and all that it started, and wait until they are gone."""
        with suppress(OSError):
            self._child.stdin.close()  # type: ignore[union-attr]
        # it is the leader of a session of its own, so its number is that of the group
        end_group(self._child.pid)
        self._child.wait()
        self._reader.join(_PATIENCE_S)
        self._child.stdout.close()  # type: ignore[union-attr]
        self._child.stderr.close()  # type: ignore[union-attr]
        deadline = time.monotonic() + _PATIENCE_S
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
            f"gpu_memory_utilization={gpu_memory_utilization}: allowed is above 0, to 1"
        )


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _keep(lines: TextIO | None, kept: deque[str]) -> None:
    for line in lines or ():
        kept.append(line.rstrip("\n"))


def _environment(path: str) -> dict[str, str]:
    found = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_RANKS and not name.startswith(_OF_RANKS_PREFIXES)
    }
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (path, found.get("PYTHONPATH"))))
    if len(path) <= _SOCKET_FOLDER:
        found.setdefault("VLLM_RPC_BASE_PATH", path)  # its sockets go with the folder
    return found


def _encoded(prompt: PromptLike) -> list[str | dict[str, str]]:
    return [
        part if isinstance(part, str) else {"png": png_base64(part.convert("RGB"))}
        for part in prompt_parts(prompt)
    ]


def _answer(answer: Mapping[str, Any], name: str) -> Any:
    return Failure(answer["failure"]) if "failure" in answer else answer[name]


def _best(row: Sequence[float], choices: Sequence[str]) -> str:
    return choices[list(row).index(max(row))]
