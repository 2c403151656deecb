"""A local server with a Batch API, of OpenAI's protocol and of Anthropic's."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[Any], tuple[int, Any]]


class BatchServer:
    """A context manager that serves on a free port of 127.0.0.1.

    Args:
        answer: Function of the body of a request that returns the status and the answer.

    Attributes:
        direct: Bodies of the questions that were asked directly.
        batches: Each batch as its lines (custom id, body).
        open: Whether batches are processed; while it is not set, they stay in progress.
        expire_after: Number of lines of a batch that are answered before it expires.
        line_errors: Custom id to the error of its line, taken once.
        fail_next: What the next batches fail with as a whole, instead of being processed.
        drop_next: Paths whose next answer is not sent, although the request was carried out.
        status_of: What is reported, by batch id, where it differs.
        n_polls: Number of times that a state was asked for.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.direct: list[Any] = []
        self.batches: dict[str, list[tuple[str, Any]]] = {}
        self.names: dict[str, str] = {}
        self.created: dict[str, float] = {}
        self.open = threading.Event()
        self.open.set()
        self.expire_after: int | None = None
        self.line_errors: dict[int, dict[str, Any]] = {}
        self.fail_next: list[dict[str, Any]] = []
        self.failed: dict[str, dict[str, Any]] = {}
        self.cancelled: set[str] = set()
        self.drop_next: list[str] = []
        self.cut_results = 0
        self.n_polls = 0
        self.has_batches = True
        self.on_create: Callable[[], None] = lambda: None
        self.results: dict[str, list[tuple[str, int, Any]]] = {}
        self._files: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.url = f"{self.address}/v1"

    def __enter__(self) -> BatchServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def n_lines(self) -> int:
        return sum(map(len, self.batches.values()))

    def create(self, lines: list[tuple[str, Any]], name: str) -> str:
        with self._lock:
            batch_id = f"batch_{len(self.batches)}"
            self.batches[batch_id], self.names[batch_id] = lines, name
            self.created[batch_id] = time.time()
            if self.fail_next:
                self.failed[batch_id] = self.fail_next.pop(0)
        self.on_create()
        return batch_id

    def processed(self, batch_id: str) -> list[tuple[str, int, Any]] | None:
        """Custom id, status and answer of each line; None while the batch is in progress."""
        with self._lock:
            if not self.open.is_set() and batch_id not in self.cancelled:
                return None
            if batch_id not in self.results:
                lines = self.batches[batch_id]
                end = 0 if batch_id in self.cancelled else self.expire_after
                n_answered = len(lines) if end is None else end
                self.expire_after = None
                rows: list[tuple[str, int, Any]] = []
                for place, (custom_id, body) in enumerate(lines):
                    if place in self.line_errors:
                        rows.append((custom_id, 500, self.line_errors.pop(place)))
                    elif place < n_answered:
                        rows.append((custom_id, *self.answer(body)))
                    else:
                        rows.append((custom_id, 0, None))
                self.results[batch_id] = rows
            return self.results[batch_id]


def _handler(server: BatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if path == "/v1/models":
                self._send(200, {"data": [{"id": "m", "owned_by": "test"}]})
            elif not server.has_batches:
                self._send(404, {"detail": "Not Found"})
            elif match := re.fullmatch(r"/v1/messages/batches/(\w+)/results", path):
                self._stream(match[1], _anthropic_row)
            elif match := re.fullmatch(r"/v1/files/(\w+)-(output|error)/content", path):
                self._stream(match[1], _openai_row, match[2] == "error")
            elif path in ("/v1/batches", "/v1/messages/batches"):
                ids = list(reversed(server.batches))
                after = (query.get("after") or query.get("after_id") or [None])[0]
                ids = ids[ids.index(after) + 1 :] if after else ids
                shown = _openai_batch if path == "/v1/batches" else self._anthropic_batch
                limit = int(query["limit"][0])
                self._send(200, {"data": [shown(server, one) for one in ids[:limit]]})
            else:
                batch_id = path.rpartition("/")[2]
                server.n_polls += 1
                if batch_id not in server.batches:
                    self._send(404, {"error": {"message": f"No batch {batch_id}"}})
                elif "/messages/" in path:
                    self._send(200, self._anthropic_batch(server, batch_id))
                else:
                    self._send(200, _openai_batch(server, batch_id))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path in ("/v1/chat/completions", "/v1/messages"):
                body = json.loads(data)
                server.direct.append(body)
                self._send(*server.answer(body))
            elif not server.has_batches:
                self._send(404, {"detail": "Not Found"})
            elif self.path == "/v1/files":
                file_id = f"file_{len(server._files)}"
                server._files[file_id] = data
                self._send(200, {"id": file_id, "object": "file"})
            elif self.path == "/v1/batches":
                given = json.loads(data)
                rows = re.findall(
                    rb'^\{"custom_id".*$', server._files[given["input_file_id"]], re.M
                )
                lines = [(row["custom_id"], row["body"]) for row in map(json.loads, rows)]
                name = given["metadata"]["synque-select"]
                self._created(server.create(lines, name), _openai_batch)
            elif self.path == "/v1/messages/batches":
                requests = json.loads(data)["requests"]
                lines = [(one["custom_id"], one["params"]) for one in requests]
                self._created(server.create(lines, ""), self._anthropic_batch)

        def _created(self, batch_id: str, shown: Any) -> None:
            if self.path in server.drop_next:
                server.drop_next.remove(self.path)
                self.close_connection = True
                return
            self._send(200, shown(server, batch_id))

        def _anthropic_batch(self, server: BatchServer, batch_id: str) -> Any:
            rows = server.processed(batch_id)
            n = len(server.batches[batch_id])
            counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
            counts["processing" if rows is None else "succeeded"] = n
            cancelled = batch_id in server.cancelled
            return {
                "id": batch_id,
                "type": "message_batch",
                "processing_status": "in_progress" if rows is None else "ended",
                "request_counts": counts,
                "created_at": _date(server.created[batch_id]),
                "expires_at": _date(server.created[batch_id] + 86400),
                "ended_at": None,
                "archived_at": None,
                "cancel_initiated_at": _date(time.time()) if cancelled else None,
                "results_url": f"{server.address}/v1/messages/batches/{batch_id}/results",
            }

        def _stream(self, batch_id: str, row: Any, errors: bool | None = None) -> None:
            rows = [row(*one, errors) for one in server.processed(batch_id) or ()]
            data = b"".join(json.dumps(one).encode() + b"\n" for one in rows if one is not None)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if server.cut_results:
                server.cut_results -= 1
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data)

        def _send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _openai_batch(server: BatchServer, batch_id: str) -> Any:
    failed = server.failed.get(batch_id)
    rows = None if failed else server.processed(batch_id)
    status = "failed" if failed else "in_progress" if rows is None else "completed"
    if rows is not None and any(row[1] == 0 for row in rows):
        status = "cancelled" if batch_id in server.cancelled else "expired"
    return {
        "id": batch_id,
        "object": "batch",
        "status": status,
        "errors": {"object": "list", "data": [failed]} if failed else None,
        "created_at": int(server.created[batch_id]),
        "request_counts": {"total": len(server.batches[batch_id]), "completed": len(rows or ())},
        "metadata": {"synque-select": server.names[batch_id]},
        "output_file_id": f"{batch_id}-output" if rows else None,
        "error_file_id": f"{batch_id}-error" if rows else None,
    }


def _openai_row(custom_id: str, status: int, body: Any, errors: bool | None) -> Any:
    if errors is not (status != 200):
        return None
    if status == 0:
        error = {"code": "batch_expired", "message": "not processed in time"}
        return {"custom_id": custom_id, "response": None, "error": error}
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"custom_id": custom_id, "response": response, "error": None}


def _anthropic_row(custom_id: str, status: int, body: Any, _: bool | None) -> Any:
    if status == 200:
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": body}}
    if status == 0:
        return {"custom_id": custom_id, "result": {"type": "expired"}}
    error = {"type": "error", "error": {"type": "api_error", "message": json.dumps(body)}}
    return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}


class _Server(ThreadingHTTPServer):
    request_queue_size, daemon_threads = 256, True

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that have disconnected, as some tests do on purpose."""
