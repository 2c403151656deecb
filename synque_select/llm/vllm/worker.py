"""The process that vLLM's engine lives in: `python -m synque_select.llm.vllm.worker FOLDER`.

It reads one JSON object a line from its standard input, the first with vLLM's arguments, and
writes one a line to its standard output; whatever else is printed goes to standard error. It ends,
with all processes that vLLM started and the temporary folder that its parent made for it, when its
input ends or its parent is gone. It imports nothing of this library that needs more than
transformers, so it can run in an environment of vLLM's own.
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
from typing import Any, TextIO

from synque_select.errors import ConfigError
from synque_select.llm.chat import ChatFormat
from synque_select.llm.choice_tokens import choice_shares, nodes_of
from synque_select.llm.prompt import Prompt, PromptLike, join_prompts, prompt_parts
from synque_select.llm.structured import forcible
from synque_select.llm.vllm.process_group import end_group

__all__ = ["Worker", "main"]

_PARENT_EVERY_S = 1.0


def main() -> None:
    """Serve the parent until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin, inbox, stop), daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    worker = Worker(**inbox.get())
    _say(answers, {"context_length": worker.context_length})
    while True:
        request = inbox.get()
        stop.clear()
        try:
            for answer in worker.serve(request, stop):
                _say(answers, answer)
        except ConfigError as error:
            _say(answers, {"refused": str(error)})
        _say(answers, {"done": True})


def _read(lines: TextIO, inbox: queue.SimpleQueue[dict[str, Any]], stop: threading.Event) -> None:
    for line in lines:
        request = json.loads(line)
        if request.get("do") == "stop":
            stop.set()
        else:
            inbox.put(request)
    _end()


def _watch(parent: int) -> None:
    # a child that the parent forked may hold the pipe open when the parent is gone
    while os.getppid() == parent:
        time.sleep(_PARENT_EVERY_S)
    _end()


def _end() -> None:
    """End this process and all that vLLM started: they are one process group."""
    shutil.rmtree(sys.argv[1], ignore_errors=True)  # a dead parent cannot
    end_group(os.getpgid(0))


def _say(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class Worker:
    """vLLM's engine, and how prompts get into it.

    Args:
        model_id: For errors.
        engine: Arguments of `vllm.LLM`.
        adapter: Folder of a LoRA adapter.
    """

    def __init__(self, model_id: str, engine: Mapping[str, Any], adapter: str | None) -> None:
        import vllm
        from vllm.exceptions import VLLMClientError

        self._vllm = vllm
        self._refusal = VLLMClientError
        llm = vllm.LLM(**engine)
        self._engine: Any = llm.llm_engine
        self._adapter = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, adapter)
        config = self._engine.model_config
        self.context_length = int(config.max_model_len)
        processor = None
        if config.is_multimodal_model:
            import transformers

            processors: Any = transformers.AutoProcessor
            processor = processors.from_pretrained(engine["model"], revision=engine.get("revision"))
        self._chat = ChatFormat(model_id, llm.get_tokenizer(), processor)

    def serve(self, request: Mapping[str, Any], stop: threading.Event) -> Iterator[dict[str, Any]]:
        """Yield the answers to a request, each with its position."""
        if request["do"] == "write":
            yield from self._write(request, stop)
        else:
            yield from self._choose(request, stop)

    def _write(self, request: Mapping[str, Any], stop: threading.Event) -> Iterator[dict[str, Any]]:
        params = self._sampling(request["schema"], **request["sampling"])
        wanted = []
        for parts in request["prompts"]:
            prompt = _decoded(parts)
            (tokens,) = self._chat.tokens([self._chat.text(prompt)])
            wanted.append((tokens, _images(prompt), params))
        for position, found in self._run(wanted, stop):
            if isinstance(found, str):
                yield {"at": position, "failure": found}
                continue
            written = found.outputs[0]
            cut = written.finish_reason == "length" and request["schema"] is not None
            answer = {"failure": "the JSON was not complete"} if cut else {"text": written.text}
            yield {"at": position, "used": _used(found), **answer}

    def _sampling(self, schema: Mapping[str, Any] | None, **values: Any) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        form = None if schema is None else StructuredOutputsParams(json=forcible(schema))
        return self._vllm.SamplingParams(structured_outputs=form, **values)

    def _choose(
        self, request: Mapping[str, Any], stop: threading.Event
    ) -> Iterator[dict[str, Any]]:
        """Ask for one token at each place where the choices part, and only for theirs.

        These requests share all but their last tokens, which vLLM keeps; the probabilities are
        those of the tokens that it generates, never of the prompt's.
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
        wanted, places = [], []
        for i, (row, continuations) in enumerate(zip(tokens, answers, strict=True)):
            images = _images(prompts[i])
            for node, children in nodes_of(continuations).items():
                params = self._vllm.SamplingParams(
                    max_tokens=1, temperature=0.0, logprob_token_ids=children, detokenize=False
                )
                wanted.append(([*row, *node], images, params))
                places.append((i, node))
        yield from self._rows(wanted, places, answers, len(suffixes), stop)

    def _rows(
        self,
        wanted: Sequence[Any],
        places: Sequence[tuple[int, tuple[int, ...]]],
        answers: Sequence[list[list[int]]],
        n_suffixes: int,
        stop: threading.Event,
    ) -> Iterator[dict[str, Any]]:
        """Put the answers of all places of an item together, and yield it when it is complete."""
        seen: dict[int, dict[tuple[int, ...], dict[int, float]]] = {}
        left = [0] * (len(answers) // n_suffixes)
        used = [[0, 0, 0] for _ in left]
        failed: dict[int, str] = {}
        for i, _ in places:
            left[i // n_suffixes] += 1
        for at, found in self._run(wanted, stop):
            i, node = places[at]
            item = i // n_suffixes
            left[item] -= 1
            if isinstance(found, str):
                failed[item] = found
            else:
                given = found.outputs[0].logprobs[0]
                seen.setdefault(i, {})[node] = {t: lp.logprob for t, lp in given.items()}
                used[item] = [a + b for a, b in zip(used[item], _used(found), strict=True)]
            if left[item] == 0:
                rows = range(item * n_suffixes, (item + 1) * n_suffixes)
                answer = (
                    {"failure": failed[item]}
                    if item in failed
                    else {"rows": [choice_shares(seen.pop(r), answers[r]) for r in rows]}
                )
                yield {"at": item, "used": used[item], **answer}

    def _run(self, wanted: Sequence[Any], stop: threading.Event) -> Iterator[tuple[int, Any]]:
        """Yield vLLM's outputs as they arrive, or why a prompt has none."""
        waiting = {}
        for at, (tokens, images, params) in enumerate(wanted):
            prompt: dict[str, Any] = {"prompt_token_ids": tokens}
            if images:
                prompt["multi_modal_data"] = {"image": images}
            try:
                self._engine.add_request(str(at), prompt, params, lora_request=self._adapter)
            except (ValueError, self._refusal) as error:
                yield at, str(error).splitlines()[0]
            else:
                waiting[str(at)] = at
        while waiting:
            if stop.is_set():
                self._engine.abort_request(list(waiting))
                return
            for found in self._engine.step():
                if found.finished:
                    yield waiting.pop(found.request_id), found


def _used(found: Any) -> list[int]:
    n_answer = len(found.outputs[0].token_ids)
    return [len(found.prompt_token_ids), found.num_cached_tokens or 0, n_answer]


def _decoded(parts: Sequence[str | Mapping[str, str]]) -> PromptLike:
    return join_prompts(Prompt(tuple(p if isinstance(p, str) else _image(p["png"]) for p in parts)))


def _images(prompt: PromptLike) -> list[Any]:
    return [part for part in prompt_parts(prompt) if not isinstance(part, str)]


def _image(png: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


if __name__ == "__main__":
    main()
