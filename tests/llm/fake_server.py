"""A local server of OpenAI's protocol whose answers come from a function, for odd answers."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# status, body (text, or JSON to encode), headers
Answer = tuple[int, Any] | tuple[int, Any, Mapping[str, str]]


def token(text: str, p: float | None, **more: Any) -> dict[str, Any]:
    """A token of `logprobs.content`; None for a log-probability that arrives as null."""
    return {"token": text, "logprob": None if p is None else math.log(p), **more}


def step(text: str, p: float | None, others: Sequence[tuple[str, float | None]] = ()) -> Any:
    """A written token with the most probable tokens at its place, itself included."""
    shown = [token(text, p), *(token(other, q) for other, q in others)]
    return token(text, p, top_logprobs=shown)


def written(*steps: Any) -> list[Any]:
    """The tokens of an answer in JSON."""
    return [step('{"answer": "', 0.9), *steps, step('"}', 0.99)]


def chat(content: Any, *, tokens: Any = None, finish: str | None = "stop", **message: Any) -> Any:
    """A chat completion."""
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
                "logprobs": None if tokens is None else {"content": tokens},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


class FakeServer:
    """A context manager that serves on a free port of 127.0.0.1.

    Args:
        answer: Function of the body of a request that returns the answer, or sends it on its own
            with the handler, its second argument, and returns None.
        models: Answer to `/models`.

    Attributes:
        requests: Bodies of all requests.
        paths: Paths of all requests, with their queries.
    """

    def __init__(
        self, answer: Callable[[Any, Any], Answer | None], models: Answer = (404, {})
    ) -> None:
        self.requests: list[Any] = []
        self.paths: list[str] = []
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                server.paths.append(self.path)
                _send(self, models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append(body)
                    server.paths.append(self.path)
                sent = answer(body, self)
                if sent is not None:
                    _send(self, sent)

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.url = f"{self.address}/v1"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Accept no connection from now on, and close those that are open."""
        self._http.shutdown()
        self._http.server_close()
        for connection in self._http.open_connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    status, body, *rest = answer
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
    data = json.dumps(body).encode() if data is None else data
    handler.send_response(status)
    headers = {"Content-Type": "application/json", **(rest[0] if rest else {})}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


class _Server(ThreadingHTTPServer):
    request_queue_size, daemon_threads = 256, True

    def __init__(self, *given: Any) -> None:
        self.open_connections: list[socket.socket] = []
        super().__init__(*given)

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.open_connections.append(connection)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that have disconnected, as some tests do on purpose."""
