"""Questions in batches: the same answers, each submitted once, also after a kill."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm import batches
from synque_select.llm.anthropic.engine import AnthropicLLM
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.batches import BatchRecord, BatchStore
from synque_select.llm.openai.engine import OpenAILLM
from synque_select.llm.prompt import Prompt
from tests.llm.batch_server import BatchServer
from tests.llm.fake_server import chat, step, written

pytest.importorskip("openai")
pytest.importorskip("anthropic")
N = 40
PROMPTS = [f"prompt {i}" for i in range(N)]
KINDS: dict[str, type[OpenAILLM]] = {"openai": OpenAILLM, "anthropic": AnthropicLLM}


def label_of(body: Any) -> str:
    text = json.dumps(body["messages"])
    return LABELS[sum(text.encode()) % len(LABELS)]


def answering(body: Any) -> tuple[int, Any]:
    """A deterministic model of either protocol."""
    label = label_of(body)
    if "response_format" in body or ("temperature" in body and "seed" in body):
        rest = [(other, 0.1) for other in LABELS if other != label]
        tokens = written(step(label, 0.6, rest)) if body.get("logprobs") else None
        return 200, chat(json.dumps({"answer": label}), tokens=tokens)
    return 200, {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": json.dumps({"answer": label})}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-test")
    monkeypatch.setattr(batches, "_QUIET_S", 0.1)
    monkeypatch.setattr(batches, "_FIRST_POLL_S", 0.02)
    monkeypatch.setattr(batches, "_MAX_POLL_S", 0.05)
    monkeypatch.setattr("synque_select.llm.openai.rate_limit._FIRST_WAIT_S", 0.01)


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def server():
    with BatchServer(answering) as running:
        yield running


def engine(kind: str, server: BatchServer, **options: Any) -> OpenAILLM:
    return KINDS[kind]("m", base_url=server.url, **{"batch": True, **options})


def answers(llm: BaseLLM, prompts: list[str] = PROMPTS) -> list[str | Failure]:
    result = dict(llm.generate(prompts, choices=LABELS))
    assert sorted(result) == list(range(len(prompts)))
    return [result[i] for i in range(len(prompts))]


def test_a_batch_gives_the_answers_that_direct_questions_get(kind, server):
    direct = answers(engine(kind, server, batch=False))
    assert len(server.direct) == N
    server.direct.clear()
    assert answers(engine(kind, server)) == direct
    assert len(server.batches) == 1
    # the first question shows what the server refuses; the rest costs half
    assert len(server.direct) == 1
    assert server.n_lines == N - 1
    assert not any(isinstance(answer, Failure) for answer in direct)


def test_probabilities_from_a_batch_are_those_of_direct_questions(server):
    def table(llm: BaseLLM) -> torch.Tensor:
        rows = dict(llm.choice_probabilities("", PROMPTS, ["?"], LABELS))
        return torch.tensor([rows[i] for i in range(N)])

    direct = table(engine("openai", server, batch=False))
    assert torch.equal(table(engine("openai", server)), direct)
    assert server.n_lines >= N - 1
    with pytest.raises(LLMError, match=r"no probabilities of tokens: judge with readout='label'"):
        table(engine("anthropic", server))


def test_vllm_has_no_batches_and_the_error_says_so(kind, server):
    server.has_batches = False
    with pytest.raises(LLMError, match=r"has no (Batch API|Message Batches).*leave out batch"):
        answers(engine(kind, server))


def test_few_questions_are_asked_directly(kind, server):
    answers(engine(kind, server), PROMPTS[:10])
    assert not server.batches
    assert len(server.direct) == 10


def test_lines_that_fail_are_asked_again(kind, server):
    direct = answers(engine(kind, server, batch=False))
    server.line_errors = {place: {"error": {"message": "busy"}} for place in range(20)}
    assert answers(engine(kind, server)) == direct
    assert [len(lines) for lines in server.batches.values()] == [N - 1, 20]


def test_what_an_expired_batch_left_is_asked_again(kind, server):
    direct = answers(engine(kind, server, batch=False))
    server.expire_after = 15
    assert answers(engine(kind, server)) == direct
    assert [len(lines) for lines in server.batches.values()] == [N - 1, N - 1 - 15]


def test_a_parameter_that_is_refused_costs_no_batch(kind):
    def picky(body: Any) -> tuple[int, Any]:
        if "temperature" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'temperature'"}}
        return answering(body | {"temperature": 0})

    with BatchServer(picky) as server:
        llm = engine(kind, server)
        assert not any(isinstance(answer, Failure) for answer in answers(llm))
        assert len(server.batches) == 1
        assert all("temperature" not in body for _, body in server.batches["batch_0"])
        assert "temperature" in llm.notes[0]


def test_a_refused_prompt_is_a_failure_and_is_not_repeated(kind):
    def filtering(body: Any) -> tuple[int, Any]:
        if "prompt 7" in json.dumps(body["messages"]):
            return 400, {"error": {"type": "invalid_request_error", "message": "content_filter"}}
        return answering(body)

    with BatchServer(filtering) as server:
        result = answers(engine(kind, server))
        assert [i for i, answer in enumerate(result) if isinstance(answer, Failure)] == [7]
        if kind == "openai":
            assert len(server.batches) == 1


def test_results_that_were_cut_are_read_again(kind, server):
    direct = answers(engine(kind, server, batch=False))
    server.cut_results = 2
    assert answers(engine(kind, server)) == direct
    assert len(server.batches) == 1


@pytest.mark.parametrize("kind", ["openai"])
def test_a_batch_that_the_server_refuses_is_one_error(kind, server):
    server.fail_next = [{"code": "invalid_json_line", "message": "line 3 is not JSON"}]
    with pytest.raises(LLMError, match="failed: line 3 is not JSON"):
        answers(engine(kind, server))
    assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))


@pytest.mark.parametrize("kind", ["openai"])
def test_a_full_queue_is_waited_for(kind, server, monkeypatch, caplog):
    monkeypatch.setattr(batches, "_FULL_S", 0.2)
    server.fail_next = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]
    with caplog.at_level(logging.WARNING):
        assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))
    assert len(server.batches) == 2
    assert "did not fit into the queue" in caplog.text


def test_a_cancelled_batch_ends_the_run_and_the_next_one_goes_on(kind, server):
    server.open.clear()
    server.on_create = lambda: server.cancelled.add(list(server.batches)[-1])
    with pytest.raises(LLMError, match=r"was cancelled with 39 questions left: the answers so far"):
        answers(engine(kind, server))
    server.on_create = lambda: None
    server.open.set()
    assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))
    assert [len(lines) for lines in server.batches.values()] in ([39, 39], [39, 40])


def test_large_batches_are_split(kind, server, monkeypatch):
    for service in (
        "synque_select.llm.openai.batch_service.OpenAIBatches",
        "synque_select.llm.anthropic.batch_service.AnthropicBatches",
    ):
        monkeypatch.setattr(f"{service}.max_lines", 15)
    direct = answers(engine(kind, server, batch=False))
    assert answers(engine(kind, server)) == direct
    assert [len(lines) for lines in server.batches.values()] == [15, 15, 9]


def test_a_lost_answer_to_the_submission_submits_nothing_twice(kind, server):
    server.drop_next = ["/v1/batches", "/v1/messages/batches"]
    assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))
    assert len(server.batches) == 1


def test_what_is_kept_holds_no_prompt_and_no_key(kind, server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    answers(engine(kind, server))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any(path.parent.name == "batches" for path in files)
    for path in files:
        content = path.read_bytes()
        assert b"prompt 1" not in content
        assert b"of-the-test" not in content
        assert b"127.0.0.1" not in content


def test_a_batch_that_the_server_has_lost_is_submitted_again(kind, server, tmp_path):
    answers(engine(kind, server))
    server.batches.clear()
    server.results.clear()
    assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))
    assert len(server.batches) == 1


def test_an_image_is_sent_in_a_batch(kind, server):
    from PIL import Image

    prompts = [Prompt((f"{i}", Image.new("RGB", (4, 4), (i, 0, 0)))) for i in range(20)]
    result = dict(engine(kind, server).generate(prompts, choices=LABELS))
    assert not any(isinstance(answer, Failure) for answer in result.values())
    assert "base64" in json.dumps(server.batches["batch_0"][0][1])


def test_anthropics_engine_needs_no_package_of_openai(server):
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "from synque_select.llm.registry import get_llm\n"
        "llm = get_llm({'engine': 'anthropic', 'model_id': 'm', 'base_url': sys.argv[1]})\n"
        "print(dict(llm.generate(['a'], choices=['likely', 'unlikely'])))"
    )
    command = [sys.executable, "-c", code, server.url]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Failure" in done.stdout or "likely" in done.stdout


def test_options_that_do_not_go_together():
    with pytest.raises(ConfigError, match=r"batch=True and several servers"):
        OpenAILLM("m", base_url=["http://a/v1", "http://b/v1"], batch=True)
    with pytest.raises(ConfigError, match=r"batch='yes': allowed is true or false"):
        OpenAILLM("m", batch="yes")


def test_old_batches_are_forgotten_and_damaged_ones_removed(tmp_path, caplog):
    store = BatchStore(tmp_path)
    old = BatchRecord("a" * 32, "s", ("r",), time.time() - 29 * 86400, "batch_1")
    new = BatchRecord("b" * 32, "s", ("r", "q"), time.time(), "batch_2", (1,))
    for record in (old, new):
        store.save(record)
    assert store.load("s") == [new]
    assert list(new.open_requests) == ["r"]
    assert store.load("other") == []
    (tmp_path / f"{'b' * 32}.json").write_text("{}")
    assert store.load("s") == []
    assert "its questions are submitted again" in caplog.text


ASKING = """
    import json
    import sys
    from synque_select.llm import batches
    from synque_select.llm.registry import get_llm

    batches._QUIET_S, batches._FIRST_POLL_S, batches._MAX_POLL_S = 0.2, 0.05, 0.1
    llm = get_llm({"engine": sys.argv[1], "model_id": "m", "base_url": sys.argv[2], "batch": True})
    prompts = [f"prompt {i}" for i in range(40)]
    result = dict(llm.generate(prompts, choices=json.loads(sys.argv[3])))
    print([str(result[i]) for i in range(40)])
"""


def asking(kind: str, server: BatchServer) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", textwrap.dedent(ASKING), kind, server.url]
    command.append(json.dumps(LABELS))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def killed_when(child: subprocess.Popen[str], condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()


def test_after_a_kill_the_same_batch_is_waited_for(kind, server):
    """Killed while it waits, and again while it waits: one batch, and the same answers."""
    direct = answers(engine(kind, server, batch=False))
    server.direct.clear()
    server.open.clear()
    killed_when(asking(kind, server), lambda: server.n_polls >= 2)
    n_polls = server.n_polls
    killed_when(asking(kind, server), lambda: server.n_polls >= n_polls + 2)
    assert [len(lines) for lines in server.batches.values()] == [N - 1]
    server.open.set()
    out, _ = asking(kind, server).communicate(timeout=60)
    assert out.strip() == str([str(answer) for answer in direct])
    assert len(server.batches) == 1
    assert len(server.direct) <= 3  # one per process: its answer died with it


def test_a_kill_while_a_batch_is_submitted_submits_it_once(kind, server):
    """The server has created the batch, but its answer never came."""
    server.open.clear()
    child: list[subprocess.Popen[str]] = []

    def kill() -> None:
        child[0].send_signal(signal.SIGKILL)
        child[0].wait()

    server.on_create = kill
    child.append(asking(kind, server))
    child[0].communicate(timeout=60)
    assert len(server.batches) == 1
    server.on_create = lambda: None
    server.open.set()
    out, _ = asking(kind, server).communicate(timeout=60)
    assert out.count("likely") > 0
    assert [len(lines) for lines in server.batches.values()] == [N - 1]


def interrupted(kind: str, server: BatchServer, tmp_path: Path) -> BatchRecord:
    """Leave what a kill leaves that came before the server had the batch."""
    answers(engine(kind, server))
    folder = tmp_path / "cache" / "batches"
    (path,) = folder.glob("*.json")
    store = BatchStore(folder)
    (record,) = store.load(json.loads(path.read_bytes().rpartition(b"\nsynque")[0])["server"])
    before = replace(record, batch_id=None, created=time.time() - 60)
    store.save(before)
    for of_server in (server.batches, server.names, server.created, server.results):
        of_server.clear()
    return before


def test_a_batch_that_was_never_created_is_submitted(kind, server, tmp_path):
    record = interrupted(kind, server, tmp_path)
    assert not any(isinstance(a, Failure) for a in answers(engine(kind, server)))
    assert [len(lines) for lines in server.batches.values()] == [len(record.requests)]


def test_a_batch_of_somebody_else_is_not_taken(server, tmp_path):
    """Anthropic's API keeps no names: that a batch is another shows in its results only."""
    record = interrupted("anthropic", server, tmp_path)
    others = [(f"other-{i}", {"messages": [f"theirs {i}"]}) for i in range(len(record.requests))]
    server.create(others, "")
    direct = answers(engine("anthropic", server, batch=False))
    assert answers(engine("anthropic", server)) == direct
    assert len(server.batches) == 2


def test_limits_per_minute_hold_for_direct_questions_only(kind, server):
    started = time.monotonic()
    answers(engine(kind, server, requests_per_minute=60))
    assert time.monotonic() - started < 20
    assert len(server.batches) == 1
