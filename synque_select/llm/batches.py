"""Questions answered in batches: sent together, answered within a day, at half the price.

What is needed to find a batch again is written to the cache before the batch is created: after a
kill, the same questions wait for the same batch, and none is submitted twice.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import itertools
import json
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from synque_select.errors import LLMError, SynqueError
from synque_select.llm.openai.endpoint import RetryableFailure, UnreachableError
from synque_select.llm.openai.rate_limit import backoff_s
from synque_select.llm.openai.server_errors import ServerError
from synque_select.utils.cache_dir import default_cache_dir, temporary_twin, write_in_cache
from synque_select.utils.checksums import checksummed_file, read_checked, remove_damaged
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import parse_json
from synque_select.utils.json_types import JsonObject
from synque_select.utils.wording import counted, one_line

__all__ = [
    "DIRECT",
    "BatchLine",
    "BatchRecord",
    "BatchService",
    "BatchState",
    "BatchStore",
    "Batcher",
    "request_hash",
]

_log = logging.getLogger(__name__)

_QUIET_S = 0.5  # without a new question, before those that wait are sent
# so few are asked directly: a repair of one answer should not wait for hours
_FEW = 16
_FIRST_POLL_S, _MAX_POLL_S, _POLL_GROWTH = 5.0, 60.0, 1.5
_MAX_SILENT_S = 3600.0  # without a word from the server on a batch
_MAX_TRIES = 6
_LISTED_S = 30.0  # after which a new batch is among those that a server lists
_FULL_S = 600.0  # before a batch is submitted again that did not fit into the queue
_KEPT_S = 28 * 86400.0  # results can be fetched for 29 days (Anthropic) or 30 (OpenAI)


class _NotOursError(Exception):
    """A batch that was taken for one of a killed process is another."""


class _Direct:
    """The type of `DIRECT`."""


DIRECT: Final = _Direct()


class BatchLine(NamedTuple):
    """One question of a batch.

    Args:
        custom_id: Its name within the batch.
        body: Parameters of the request.
    """

    custom_id: str
    body: JsonObject


@dataclass(frozen=True)
class BatchState:
    """How far a batch is.

    Args:
        is_over: Whether no more answers will come.
        n_answered: Number of questions that were answered.
        problem: Why nothing was answered at all; None if that is not so.
        is_full: Whether the problem is that too much is queued at the moment.
        is_cancelled: Whether someone cancelled the batch.
    """

    is_over: bool
    n_answered: int
    problem: str | None = None
    is_full: bool = False
    is_cancelled: bool = False


class BatchService(Protocol):
    """The Batch API of a server.

    Attributes:
        where: Hash of what identifies the server.
        max_lines: Maximum number of questions in a batch.
        max_bytes: Maximum size of a batch.
    """

    where: str
    max_lines: int
    max_bytes: int

    async def create(self, name: str, lines: Sequence[BatchLine]) -> str:
        """Submit a batch and return its id."""
        ...

    async def find(self, record: BatchRecord, taken: Collection[str]) -> str | None:
        """Return the id of a batch that was submitted just before a kill; None if it was not.

        Args:
            record: What is kept of the batch.
            taken: Ids of batches that belong to other records.
        """
        ...

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is.

        Raises:
            ServerError: The server does not know it.
            UnreachableError: The server cannot be reached at the moment.
        """
        ...

    def results(self, batch_id: str) -> AsyncIterator[tuple[str, str | ServerError]]:
        """Yield the name of each question that has a result, and its answer or error."""
        ...


@dataclass(frozen=True)
class BatchRecord:
    """What is kept of a batch: no prompts and no answers.

    Args:
        name: Its name, of 32 hexadecimal digits.
        server: `BatchService.where`.
        requests: Hash of each question, in order.
        created: Time at which it was about to be created, in seconds since 1970.
        batch_id: Id that the server gave it; None while it is created.
        failed: Positions of questions that got no answer, and are asked again.
        is_found: Whether it was found after a kill, without certainty.
    """

    name: str
    server: str
    requests: tuple[str, ...]
    created: float
    batch_id: str | None = None
    failed: tuple[int, ...] = ()
    is_found: bool = False

    @property
    def open_requests(self) -> Iterator[str]:
        """The hashes of the questions that this batch answers or will answer."""
        failed = set(self.failed)
        return (request for i, request in enumerate(self.requests) if i not in failed)

    def custom_id(self, position: int) -> str:
        """Return the name of a question within the batch."""
        return f"{self.name[:16]}-{position}"

    def position(self, custom_id: str) -> int | None:
        """Return the position of a question by its name; None for one of another batch."""
        name, _, number = custom_id.rpartition("-")
        is_ours = name == self.name[:16] and number.isdecimal() and int(number) < len(self.requests)
        return int(number) if is_ours else None


class BatchStore:
    """The batches of this machine, one file each in the cache.

    Args:
        folder: Their folder; None for `batches` in the default cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = default_cache_dir() / "batches" if folder is None else folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other process submit a batch while the body runs."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / ".lock").open("w")
        except OSError:  # the files go into a temporary folder, which no other process sees
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self, server: str) -> list[BatchRecord]:
        """Return the batches of a server whose results can still be fetched, oldest first."""
        records = []
        for folder in (self._folder, temporary_twin(self._folder)):
            for path in sorted(folder.glob("*.json")):
                try:
                    record = _record(JsonFields(parse_json(read_checked(path), str(path))))
                except OSError:
                    continue
                except (ValueError, SynqueError) as error:
                    remove_damaged(path, error, "its questions are submitted again")
                    continue
                if time.time() - record.created > _KEPT_S:
                    path.unlink(missing_ok=True)
                elif record.server == server:
                    records.append(record)
        return sorted(records, key=lambda record: (record.created, record.name))

    def save(self, record: BatchRecord) -> None:
        """Write a batch."""

        def write(folder: Path) -> None:
            with checksummed_file(folder / f"{record.name}.json") as stream:
                stream.write(json.dumps(asdict(record)).encode())

        write_in_cache(self._folder, write)

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch."""
        for folder in (self._folder, temporary_twin(self._folder)):
            with suppress(OSError):
                (folder / f"{record.name}.json").unlink(missing_ok=True)


def _record(fields: JsonFields) -> BatchRecord:
    return BatchRecord(
        name=fields.text("name"),
        server=fields.text("server"),
        requests=fields.texts("requests"),
        created=fields.number("created"),
        batch_id=fields.optional_text("batch_id"),
        failed=tuple(int(str(position)) for position in fields.list("failed")),
        is_found=fields.flag("is_found", False),
    )


def request_hash(body: JsonObject) -> str:
    """Return what identifies a question: equal questions have equal answers."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


@dataclass
class _Waiting:
    """A question, and those who wait for its answer."""

    body: JsonObject
    futures: list[asyncio.Future[str | RetryableFailure | _Direct]] = field(default_factory=list)

    def set(self, answer: str | RetryableFailure | _Direct | Exception) -> None:
        for future in self.futures:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class Batcher:
    """Collects questions until no new one arrives, and has them answered in batches.

    Args:
        service: The Batch API.
        store: The batches of this machine.
        model: Id of the model, for messages.
        n_direct: Number of questions that may be asked directly at the same time.
    """

    def __init__(self, service: BatchService, store: BatchStore, model: str, n_direct: int) -> None:
        self._service, self._store, self._model = service, store, model
        self._waiting: dict[str, _Waiting] = {}
        self._n_arrived = 0
        self._arrived = asyncio.Event()
        self._batch_over = asyncio.Event()
        self._followed: dict[str, dict[str, _Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # questions whose answer from a batch was used: if they are asked again, it was not usable
        self._used: set[str] = set()
        self._jitter = random.Random()
        # for what is asked directly: a batch may release thousands of questions at once
        self.direct = asyncio.Semaphore(n_direct)

    async def __aenter__(self) -> Batcher:
        with self._store.lock():
            records = self._store.load(self._service.where)
        self._known = {request for record in records for request in record.open_requests}
        self._spawn(self._send_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def knows(self, body: JsonObject) -> bool:
        """Whether a question is in a batch of an earlier process."""
        request = request_hash(body)
        return request in self._known and request not in self._used

    async def answer(self, body: JsonObject) -> str | RetryableFailure | _Direct:
        """Return the answer to a question, as JSON text.

        Returns:
            The answer; a failure after which it may be asked again; or `DIRECT` if too few
            questions wait for a batch to be worth it.

        Raises:
            ServerError: The server answered the question with an error.
            LLMError: The batch failed as a whole, or was cancelled.
        """
        future: asyncio.Future[str | RetryableFailure | _Direct] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiting.setdefault(request_hash(body), _Waiting(body)).futures.append(future)
        self._n_arrived += 1
        self._arrived.set()
        return await future

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_forever(self) -> None:
        while True:
            await self._arrived.wait()
            n_arrived = -1
            while n_arrived != self._n_arrived:
                n_arrived = self._n_arrived
                await asyncio.sleep(_QUIET_S)
            self._arrived.clear()
            waiting, self._waiting = self._waiting, {}
            try:
                await self._send(waiting)
            except Exception as error:  # those who wait raise it
                for one in waiting.values():
                    one.set(error)

    async def _send(self, waiting: dict[str, _Waiting]) -> None:
        with self._store.lock():
            records = self._store.load(self._service.where)
            record_of = {request: r for r in records for request in r.open_requests}
            by_record: dict[str, dict[str, _Waiting]] = {}
            fresh: dict[str, _Waiting] = {}
            for request, one in waiting.items():
                record = None if request in self._used else record_of.get(request)
                if record is None:
                    fresh[request] = one
                else:
                    by_record.setdefault(record.name, {})[request] = one
            for record in records:
                if record.name in by_record:
                    fresh |= await self._continue(record, by_record[record.name])
            if len(fresh) < _FEW:
                for one in fresh.values():
                    one.set(DIRECT)
                return
            for part in self._parts(fresh):
                await self._submit(part)

    async def _continue(
        self, record: BatchRecord, waiting: dict[str, _Waiting]
    ) -> dict[str, _Waiting]:
        """Wait for a batch of an earlier process; return the questions if it was never created."""
        if record.batch_id is None:
            batch_id = await self._found(record)
            if batch_id is None:
                self._store.remove(record)
                return waiting
            record = replace(record, batch_id=batch_id, is_found=True)
            self._store.save(record)
        followed = self._followed.get(record.name)
        if followed is None:
            self._log_batch(record, "is continued")
            self._followed[record.name] = waiting
            self._spawn(self._follow(record, waiting))
            return {}
        for request, one in waiting.items():  # this process waits for it already
            if request in followed:
                followed[request].futures += one.futures
            else:
                followed[request] = one
        return {}

    async def _found(self, record: BatchRecord) -> str | None:
        """Return the id of a batch whose creation was interrupted; None if it was not created."""
        while True:
            taken = {r.batch_id for r in self._store.load(self._service.where) if r.batch_id}
            batch_id = await self._service.find(record, taken)
            # a list of batches may lack one that was created a moment ago
            if batch_id is not None or time.time() - record.created > _LISTED_S:
                return batch_id
            await asyncio.sleep(_FIRST_POLL_S)

    def _parts(self, fresh: Mapping[str, _Waiting]) -> Iterator[dict[str, _Waiting]]:
        part: dict[str, _Waiting] = {}
        n_bytes = 0
        for request, one in fresh.items():
            size = len(json.dumps(one.body)) + 200
            if part and (
                len(part) >= self._service.max_lines or n_bytes + size > self._service.max_bytes
            ):
                yield part
                part, n_bytes = {}, 0
            part[request] = one
            n_bytes += size
        if part:
            yield part

    async def _submit(self, waiting: dict[str, _Waiting]) -> None:
        record = BatchRecord(
            uuid.uuid4().hex, self._service.where, tuple(waiting), created=time.time()
        )
        lines = [BatchLine(record.custom_id(i), one.body) for i, one in enumerate(waiting.values())]
        self._store.save(record)
        try:
            batch_id = await self._create(record, lines)
        except UnreachableError:
            raise  # it may have been created: the record finds it
        except Exception:
            self._store.remove(record)  # the server has said no
            raise
        record = replace(record, batch_id=batch_id)
        self._store.save(record)
        self._log_batch(record, "is submitted")
        self._followed[record.name] = waiting
        self._spawn(self._follow(record, waiting))

    async def _create(self, record: BatchRecord, lines: Sequence[BatchLine]) -> str:
        """Submit a batch; where the answer is lost, look whether it was created all the same."""
        for n_failed in itertools.count(1):
            try:
                return await self._service.create(record.name, lines)
            except UnreachableError:
                if n_failed > _MAX_TRIES:
                    raise
            await asyncio.sleep(backoff_s(n_failed, self._jitter))
            with suppress(UnreachableError):
                batch_id = await self._found(record)
                if batch_id is not None:
                    return batch_id
        raise AssertionError("the loop ends by itself")

    def _log_batch(self, record: BatchRecord, what: str) -> None:
        _log.warning(
            "%s: the batch %s with %s %s; it may take up to 24 hours. To leave it is safe: the "
            "same command continues it.",
            *(self._model, record.batch_id, counted(len(record.requests), "question"), what),
        )

    async def _follow(self, record: BatchRecord, waiting: dict[str, _Waiting]) -> None:
        try:
            await self._collect(record, waiting)
        except Exception as error:  # those who wait raise it
            for one in waiting.values():
                one.set(error)
        finally:
            if self._followed.get(record.name) is waiting:
                del self._followed[record.name]
            self._batch_over.set()

    async def _collect(self, record: BatchRecord, waiting: dict[str, _Waiting]) -> None:
        batch_id = str(record.batch_id)
        try:
            state = await self._end_of(batch_id)
        except ServerError as error:
            if error.status != 404:
                raise LLMError(f"the batch {batch_id} of {self._model}: {error}") from None
            self._store.remove(record)
            _settle(waiting, RetryableFailure(f"the server has no batch {batch_id} any more"))
            return
        if state.problem is not None:
            self._store.remove(record)
            await self._on_problem(batch_id, state, waiting)
            return
        # who asks from now on reads the results again
        self._followed.pop(record.name, None)
        try:
            failed = await self._results(record, waiting)
        except _NotOursError:
            self._store.remove(record)
            _settle(waiting, RetryableFailure("the batch was not submitted before the kill"))
            return
        # before they are asked again
        self._store.save(replace(record, failed=tuple(sorted(failed))))
        self._used.update(waiting)
        if waiting and state.is_cancelled:
            raise LLMError(
                f"the batch {batch_id} of {self._model} was cancelled with "
                f"{counted(len(waiting), 'question')} left: the answers so far are cached, and the "
                "same command submits the rest"
            )
        _settle(waiting, RetryableFailure(f"the batch {batch_id} ended before it was answered"))

    async def _results(self, record: BatchRecord, waiting: dict[str, _Waiting]) -> set[int]:
        """Hand out all results; return the positions of questions without an answer."""
        failed: set[int] = set(record.failed)
        n_failed = 0
        while True:
            unanswered = set(range(len(record.requests)))
            try:
                async for custom_id, answer in self._service.results(str(record.batch_id)):
                    position = record.position(custom_id)
                    if position is None and record.is_found:
                        raise _NotOursError
                    if position not in unanswered:
                        raise LLMError(
                            f"the batch {record.batch_id} of {self._model} has a result "
                            f"{one_line(custom_id, 80)!r} that was not asked for, or has it twice"
                        )
                    unanswered.discard(position)
                    if isinstance(answer, ServerError):
                        failed.add(position)
                    request = record.requests[position]
                    if (one := waiting.pop(request, None)) is not None:
                        self._used.add(request)
                        one.set(answer)
                return failed | unanswered
            except UnreachableError:  # read again from the beginning; answers are handed out once
                n_failed += 1
                if n_failed > _MAX_TRIES:
                    raise
                await asyncio.sleep(backoff_s(n_failed, self._jitter))

    async def _on_problem(
        self, batch_id: str, state: BatchState, waiting: dict[str, _Waiting]
    ) -> None:
        if not state.is_full:
            raise LLMError(f"the batch {batch_id} of {self._model} failed: {state.problem}")
        _log.warning(
            "%s: the batch %s did not fit into the queue (%s): it is submitted again later.",
            *(self._model, batch_id, state.problem),
        )
        self._batch_over.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._batch_over.wait(), _FULL_S)
        for request, one in waiting.items():
            self._waiting.setdefault(request, _Waiting(one.body)).futures.extend(one.futures)
        waiting.clear()
        self._n_arrived += 1
        self._arrived.set()

    async def _end_of(self, batch_id: str) -> BatchState:
        """Ask for the state of a batch, ever more rarely, until it is over."""
        pause_s, heard = _FIRST_POLL_S, time.monotonic()
        while True:
            try:
                state = await self._service.state(batch_id)
                heard = time.monotonic()
                if state.is_over:
                    return state
            except UnreachableError as error:
                if time.monotonic() - heard > _MAX_SILENT_S:
                    raise LLMError(
                        f"{error}. The batch {batch_id} is kept: the same command continues it."
                    ) from error
            await asyncio.sleep(pause_s * self._jitter.uniform(0.8, 1.0))
            pause_s = min(_MAX_POLL_S, pause_s * _POLL_GROWTH)


def _settle(waiting: Mapping[str, _Waiting], answer: RetryableFailure) -> None:
    for one in waiting.values():
        one.set(answer)
