"""A local server of OpenAI's protocol that runs a real model and can be made to fail.

The model is a `TransformersLLM`; answers are constrained to choices token by token. Each request
gets the next fault, in order.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from synque_select.llm.base import Failure
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.llm.transformers.kv_cache import cache_arguments, cache_of

MODEL = "served"
KEY = "sk-secret-of-the-test"


class ModelServer:
    """A context manager that serves on a free port of 127.0.0.1.

    Args:
        llm: The model.
        owner: Owner of the model in `/v1/models`; with "vllm" the server accepts vLLM's own
            parameters.
        reports_any_token: Whether it reports the probability of any token, as vLLM's server does.
        masked: Whether it shows the tokens that the choices allow (otherwise those of the
            unconstrained model).
        refuses: Parameters that get status 400.
        key: API key that a request must have.
        thinks: Text before each answer, like that of a reasoning model.

    Attributes:
        requests: Bodies of all requests.
        faults: Responses to the next requests in place of answers.
        most_at_once: Largest number of requests that were answered at the same time.
    """

    def __init__(
        self,
        llm: TransformersLLM,
        *,
        owner: str = "test",
        reports_any_token: bool = False,
        masked: bool = False,
        refuses: Sequence[str] = (),
        key: str | None = None,
        thinks: str = "",
    ) -> None:
        self.llm = llm
        self.owner = owner
        self.reports_any_token = reports_any_token
        self.masked = masked
        self.refuses = set(refuses)
        self.key = key
        self.thinks = thinks
        self.requests: list[dict[str, Any]] = []
        self.images: list[tuple[int, int]] = []
        self.faults: list[Any] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._model_lock = threading.Lock()

    def __enter__(self) -> ModelServer:
        self._http = _Quiet(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def next_fault(self, body: dict[str, Any]) -> Any:
        with self._lock:
            self.requests.append(body)
            self.times.append(time.monotonic())
            return self.faults.pop(0) if self.faults else None

    def entered(self, change: int) -> None:
        with self._lock:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.reports_any_token and "logprob_token_ids" in body:
            return self._told(body)
        prompt = self._prompt(body["messages"])
        with self._model_lock:
            content, finish, logprobs, n_prompt, n_answer = self._written(prompt, body)
        message = {"role": "assistant", "content": self.thinks + content}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_answer}
        return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}

    def _told(self, body: dict[str, Any]) -> dict[str, Any]:
        completed = self.completion(body | {"prompt": self.tokenized(body)["tokens"]})
        (shown,) = completed["choices"][0]["logprobs"]["top_logprobs"]
        top = [{"token": token, "logprob": log_p} for token, log_p in shown.items()]
        choice = {"logprobs": {"content": [{"top_logprobs": top}]}}
        return {"choices": [choice], "usage": completed["usage"]}

    def detokenized(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": self.llm._tokenizer.decode(body["tokens"])}

    def tokenized(self, body: dict[str, Any]) -> dict[str, Any]:
        self.llm._load()
        if "prompt" in body:
            text = body["prompt"]
        else:
            text = self.llm._chat.text(self._prompt(body["messages"]))
            text += "".join(m["content"] for m in body["messages"][1:])
        return {"tokens": self.llm._tokenizer(text, add_special_tokens=False).input_ids}

    @torch.inference_mode()
    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._model_lock:
            logits = self.llm._model(torch.tensor([body["prompt"]])).logits[0, -1].float()
        log_p = torch.log_softmax(logits, -1)
        shown = {f"token_id:{t}": float(log_p[t]) for t in body["logprob_token_ids"]}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return {"choices": [{"logprobs": {"top_logprobs": [shown]}}], "usage": usage}

    def _prompt(self, messages: Any) -> str:
        content = messages[0]["content"]
        if isinstance(content, str):
            return content
        return "".join(
            part["text"] if part["type"] == "text" else self._image(part) for part in content
        )

    def _image(self, part: Any) -> str:
        from PIL import Image

        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        self.images.append(image.size)
        return f"[image {image.size} {image.getpixel((0, 0))}]"

    def _written(self, prompt: str, body: dict[str, Any]) -> Any:
        self.llm._load()
        (tokens,) = self.llm._chat.tokens([self.llm._chat.text(prompt)])
        allowed = _allowed(body)
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if allowed is None and schema is not None:
            ((_, text),) = self.llm.generate([prompt], schema=schema, max_tokens=limit)
            finish = "length" if isinstance(text, Failure) else "stop"
            text = '{"points": ["cut' if isinstance(text, Failure) else text
            return text, finish, None, len(tokens), self.llm.count_tokens(text)
        steps, done = self._steps(tokens, allowed, limit, body.get("top_logprobs", 0))
        text = "".join(step["token"] for step in steps)
        shown = {"content": steps} if body.get("logprobs") else None
        return text, "stop" if done else "length", shown, len(tokens), len(steps)

    @torch.inference_mode()
    def _steps(self, tokens: list[int], allowed: list[str] | None, limit: int, n_shown: int):
        """Write the most probable tokens among those that lead to an allowed text."""
        llm, steps, text, cache = self.llm, [], "", None
        pieces = _pieces(llm)
        ends, feed = llm._end_tokens(), tokens
        while len(steps) < limit:
            out = llm._model(torch.tensor([feed]), **cache_arguments(llm._model, cache))
            cache, logits = cache_of(out), out.logits[0, -1].float()
            free = logits
            if allowed is not None:
                if text in allowed:
                    return steps, True
                logits = torch.full_like(free, -torch.inf)
                good = [
                    i
                    for i, piece in enumerate(pieces)
                    if piece and any(whole.startswith(text + piece) for whole in allowed)
                ]
                logits[good] = free[good]
            token = int(logits.argmax())
            if allowed is None and token in ends:
                return steps, True
            log_p = torch.log_softmax(logits if self.masked else free, -1)
            top = log_p.topk(n_shown).indices.tolist() if n_shown else []
            shown = [_token(pieces[i], log_p[i]) for i in top if log_p[i] > -1000]
            steps.append({**_token(pieces[token], log_p[token]), "top_logprobs": shown})
            text += pieces[token]
            feed = [token]
        return steps, allowed is not None and text in allowed


@lru_cache(maxsize=4)
def _pieces(llm: TransformersLLM) -> list[str]:
    """What each token writes."""
    return [llm._tokenizer.decode([i]) for i in range(len(llm._tokenizer))]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that have disconnected, as some tests do on purpose."""


def _token(piece: str, log_p: torch.Tensor) -> dict[str, Any]:
    return {"token": piece, "logprob": float(log_p), "bytes": list(piece.encode())}


def _allowed(body: dict[str, Any]) -> list[str] | None:
    if "structured_outputs" in body:
        return list(body["structured_outputs"]["choice"])
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    answer = schema.get("properties", {}).get("answer", {})
    if "enum" not in answer:
        return None
    return [json.dumps({"answer": choice}) for choice in answer["enum"]]


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self._known():
                model = {"id": MODEL, "object": "model", "owned_by": server.owner}
                if server.owner == "vllm":
                    model["max_model_len"] = server.llm.context_length or 1024
                self._send(200, {"object": "list", "data": [model]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._known():
                return
            fault = server.next_fault(body)
            server.entered(1)
            try:
                if fault is None or isinstance(fault, float):
                    time.sleep(fault or 0.0)
                    self._answer(body)
                else:
                    self._fail(*fault)
            finally:
                server.entered(-1)

        def _known(self) -> bool:
            given = self.headers.get("Authorization")
            if server.key is None or given == f"Bearer {server.key}":
                return True
            self._send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
            return False

        def _answer(self, body: dict[str, Any]) -> None:
            if body["model"] != MODEL:
                self._send(404, {"error": {"message": f"no model {body['model']}"}})
                return
            refused = sorted(server.refuses & set(body))
            if refused:
                message = f"Unsupported parameter: '{refused[0]}'"
                self._send(400, {"error": {"message": message, "param": refused[0]}})
                return
            known = {"/v1/chat/completions": server.answer}
            if server.reports_any_token:
                known |= {"/tokenize": server.tokenized, "/detokenize": server.detokenized}
                known |= {"/v1/completions": server.completion}
            if self.path in known:
                self._send(200, known[self.path](body))
            else:
                self._send(404, {"detail": "Not Found"})

        def _fail(self, kind: Any, detail: Any = None) -> None:
            if kind == "text":
                self._send_raw(200, detail.encode())
            elif kind == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
            else:
                headers = detail or {}
                self._send(kind, {"error": {"message": f"status {kind}"}}, headers)

        def _send(self, status: int, body: Any, headers: Any = ()) -> None:
            self._send_raw(status, json.dumps(body).encode(), headers)

        def _send_raw(self, status: int, data: bytes, headers: Any = ()) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
