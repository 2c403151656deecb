"""The process in which vLLM's engine runs: `python -m synque_select.llm.vllm.worker FOLDER`.

It reads JSON objects from its standard input, one per line, the first with vLLM's arguments, and
writes JSON objects to its standard output; whatever else is printed goes to standard error. When
its input ends or its parent is gone, it ends with all processes that vLLM started and deletes the
temporary folder that its parent created. It imports only parts of this library that need no more
than transformers, so it can run in a separate environment for vLLM.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypedDict

from synque_select.errors import ConfigError
from synque_select.llm.chat import ChatFormat
from synque_select.llm.choice_tokens import branch_points, choice_shares
from synque_select.llm.prompt import Prompt, PromptLike, join_prompts, prompt_parts
from synque_select.llm.structured import enforceable_schema
from synque_select.llm.vllm.process_group import kill_group
from synque_select.utils.json_types import Json, JsonObject

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Request", "Worker", "main"]

_CHECK_PARENT_EVERY_S = 1.0

EncodedPrompt = Sequence[str | Mapping[str, str]]


class Request(TypedDict, total=False):
    """A request of the parent.

    Args:
        do: "write", "choose" or "stop".
        prompts: Prompts to answer ("write").
        schema: JSON schema of the answers, or None ("write").
        sampling: Arguments of `vllm.SamplingParams` ("write").
        prefix: Beginning of all prompts ("choose").
        items: Middle parts ("choose").
        suffixes: Endings ("choose").
        choices: Possible answers ("choose").
    """

    do: str
    prompts: Sequence[EncodedPrompt]
    schema: JsonObject | None
    sampling: JsonObject
    prefix: EncodedPrompt
    items: Sequence[EncodedPrompt]
    suffixes: Sequence[str]
    choices: Sequence[str]


class _Job(NamedTuple):
    """One prompt for vLLM; `params` is a `vllm.SamplingParams`, which has no types here."""

    tokens: list[int]
    images: list[Image]
    params: Any


def main() -> None:
    """Serve the parent until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever vLLM prints must not be read as an answer
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin, inbox, stop), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    worker = Worker(**inbox.get())
    _send(answers, {"context_length": worker.context_length})
    while True:
        request: Request = inbox.get()
        stop.clear()
        try:
            for answer in worker.serve(request, stop):
                _send(answers, answer)
        except ConfigError as error:
            _send(answers, {"refused": str(error)})
        _send(answers, {"done": True})


def _read(lines: TextIO, inbox: queue.SimpleQueue[Any], stop: threading.Event) -> None:
    for line in lines:
        request = json.loads(line)
        if request.get("do") == "stop":
            stop.set()
        else:
            inbox.put(request)
    _end()


def _watch_parent(parent: int) -> None:
    # the end of the input is not enough: a process that the parent forked may keep the pipe open
    while os.getppid() == parent:
        time.sleep(_CHECK_PARENT_EVERY_S)
    _end()


def _end() -> None:
    """End this process and all that vLLM started, which are one process group."""
    # a parent that was killed cannot delete it
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    kill_group(os.getpgid(0))


def _send(answers: TextIO, answer: JsonObject) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class Worker:
    """vLLM's engine, and the preparation of prompts for it.

    Args:
        model_id: Id of the model, for error messages.
        engine: Arguments of `vllm.LLM`.
        adapter: Directory of a LoRA adapter; None for none.
    """

    def __init__(self, model_id: str, engine: JsonObject, adapter: str | None) -> None:
        import vllm
        from vllm.exceptions import VLLMClientError

        self._vllm = vllm
        self._client_error = VLLMClientError
        llm = vllm.LLM(**engine)
        self._engine = llm.llm_engine
        self._adapter = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, adapter)
        config = self._engine.model_config
        self.context_length = int(config.max_model_len)
        processor = None
        if config.is_multimodal_model:
            import transformers

            # AutoProcessor has no type hints in some releases
            processors: Any = transformers.AutoProcessor
            processor = processors.from_pretrained(engine["model"], revision=engine.get("revision"))
        self._chat = ChatFormat(model_id, llm.get_tokenizer(), processor)

    def serve(self, request: Request, stop: threading.Event) -> Iterator[JsonObject]:
        """Yield the answers to a request, each with its position.

        Args:
            request: A request to write or to choose.
            stop: Event that abandons the rest of the request.
        """
        if request["do"] == "write":
            yield from self._write(request, stop)
        else:
            yield from self._choose(request, stop)

    def _write(self, request: Request, stop: threading.Event) -> Iterator[JsonObject]:
        params = self._sampling(request["schema"], request["sampling"])
        jobs = []
        for parts in request["prompts"]:
            prompt = _decoded(parts)
            (tokens,) = self._chat.tokens([self._chat.text(prompt)])
            jobs.append(_Job(tokens, _images(prompt), params))
        for position, output in self._run(jobs, stop):
            if isinstance(output, str):
                yield {"at": position, "failure": output}
                continue
            written = output.outputs[0]
            cut = written.finish_reason == "length" and request["schema"] is not None
            answer = {"failure": "the JSON was not complete"} if cut else {"text": written.text}
            yield {"at": position, "used": _used(output), **answer}

    def _sampling(self, schema: JsonObject | None, options: JsonObject) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        constraint = None
        if schema is not None:
            constraint = StructuredOutputsParams(json=enforceable_schema(schema))
        return self._vllm.SamplingParams(structured_outputs=constraint, **options)

    def _choose(self, request: Request, stop: threading.Event) -> Iterator[JsonObject]:
        """Request one token at each place where the choices differ, and only theirs.

        These requests share all but their last tokens, which vLLM caches. The probabilities are
        those of generated tokens: those of prompt tokens would switch off prefix caching.
        """
        prefix, suffixes = _decoded(request["prefix"]), request["suffixes"]
        prompts = [
            join_prompts(prefix, _decoded(item), suffix)
            for item in request["items"]
            for suffix in suffixes
        ]
        texts = [self._chat.text(prompt) for prompt in prompts]
        tokens = self._chat.tokens(texts)
        answers = self._chat.continuations(texts, tokens, request["choices"])
        jobs, places = [], []
        for i, (row, continuations) in enumerate(zip(tokens, answers, strict=True)):
            images = _images(prompts[i])
            for beginning, children in branch_points(continuations).items():
                params = self._vllm.SamplingParams(
                    max_tokens=1, temperature=0.0, logprob_token_ids=children, detokenize=False
                )
                jobs.append(_Job([*row, *beginning], images, params))
                places.append((i, beginning))
        yield from self._rows(jobs, places, answers, len(suffixes), stop)

    def _rows(
        self,
        jobs: Sequence[_Job],
        places: Sequence[tuple[int, tuple[int, ...]]],
        answers: Sequence[list[list[int]]],
        n_suffixes: int,
        stop: threading.Event,
    ) -> Iterator[JsonObject]:
        """Collect the outputs of all places of an item, and yield the item when it is complete."""
        log_p: dict[int, dict[tuple[int, ...], dict[int, float]]] = {}
        n_missing = [0] * (len(answers) // n_suffixes)
        used = [[0, 0, 0] for _ in n_missing]
        failed: dict[int, str] = {}
        for i, _ in places:
            n_missing[i // n_suffixes] += 1
        for position, output in self._run(jobs, stop):
            i, beginning = places[position]
            item = i // n_suffixes
            n_missing[item] -= 1
            if isinstance(output, str):
                failed[item] = output
            else:
                logprobs = output.outputs[0].logprobs[0]
                log_p.setdefault(i, {})[beginning] = {t: lp.logprob for t, lp in logprobs.items()}
                used[item] = [a + b for a, b in zip(used[item], _used(output), strict=True)]
            if n_missing[item] == 0:
                rows = range(item * n_suffixes, (item + 1) * n_suffixes)
                answer: dict[str, Json] = (
                    {"failure": failed[item]}
                    if item in failed
                    else {"rows": [choice_shares(log_p.pop(r), answers[r]) for r in rows]}
                )
                yield {"at": item, "used": used[item], **answer}

    def _run(self, jobs: Sequence[_Job], stop: threading.Event) -> Iterator[tuple[int, Any]]:
        """Yield vLLM's outputs as they arrive, or the reason why a prompt has none."""
        waiting = {}
        for position, (tokens, images, params) in enumerate(jobs):
            prompt: dict[str, object] = {"prompt_token_ids": tokens}
            if images:
                prompt["multi_modal_data"] = {"image": images}
            try:
                self._engine.add_request(str(position), prompt, params, lora_request=self._adapter)
            except (ValueError, self._client_error) as error:
                yield position, str(error).splitlines()[0]
            else:
                waiting[str(position)] = position
        while waiting:
            if stop.is_set():
                self._engine.abort_request(list(waiting))
                return
            for output in self._engine.step():
                if output.finished:
                    yield waiting.pop(output.request_id), output


def _used(output: Any) -> list[int]:
    n_answer = len(output.outputs[0].token_ids)
    return [len(output.prompt_token_ids), output.num_cached_tokens or 0, n_answer]


def _decoded(parts: EncodedPrompt) -> PromptLike:
    return join_prompts(Prompt(tuple(p if isinstance(p, str) else _image(p["png"]) for p in parts)))


def _images(prompt: PromptLike) -> list[Image]:
    return [part for part in prompt_parts(prompt) if not isinstance(part, str)]


def _image(png: str) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


if __name__ == "__main__":
    main()
