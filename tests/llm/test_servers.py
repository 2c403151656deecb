"""Several servers of one model: the load is spread, and a dead one is left out."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.lens.config import LensConfig
from synque_select.llm.base import Failure
from synque_select.llm.openai import servers as pools
from synque_select.llm.openai.address import parse_address
from synque_select.llm.openai.engine import OpenAILLM
from synque_select.llm.openai.servers import ServerPool
from synque_select.llm.registry import describe_llm
from tests.llm.fake_server import FakeServer, chat

pytest.importorskip("openai")
PROMPTS = [f"prompt {i}" for i in range(40)]


def label_of(body) -> str:
    return LABELS[sum(body["messages"][0]["content"].encode()) % len(LABELS)]


def answering(body, handler):
    time.sleep(0.01)
    return 200, chat(label_of(body))


def models(owner="test", name="m"):
    return 200, {"data": [{"id": name, "owned_by": owner, "max_model_len": 4096}]}


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def asked(llm: OpenAILLM, prompts=PROMPTS) -> list[str | Failure]:
    result = dict(llm.generate(prompts, choices=LABELS))
    return [result[i] for i in range(len(prompts))]


@pytest.fixture
def expected() -> list[str | Failure]:
    with FakeServer(answering, models()) as server:
        return asked(OpenAILLM("m", base_url=server.url))


def test_the_load_is_spread_and_the_answers_are_the_same(expected):
    with ExitStack() as stack:
        running = [stack.enter_context(FakeServer(answering, models())) for _ in range(3)]
        llm = OpenAILLM("m", base_url=[server.url for server in running])
        assert asked(llm) == expected
        assert sum(len(server.requests) for server in running) == len(PROMPTS)
        assert min(len(server.requests) for server in running) >= len(PROMPTS) // 6


def test_a_slow_server_gets_fewer_requests():
    def slow(body, handler):
        time.sleep(0.2)
        return 200, chat(label_of(body))

    with FakeServer(answering, models()) as fast, FakeServer(slow, models()) as other:
        asked(OpenAILLM("m", base_url=[other.url, fast.url], max_concurrency=4))
        assert len(fast.requests) > 2 * len(other.requests)


def test_each_server_gets_its_own_path_and_query():
    with FakeServer(answering, models()) as one, FakeServer(answering, models()) as two:
        asked(OpenAILLM("m", base_url=[f"{one.url}?key=first", f"{two.address}/tenant/v1?key=two"]))
        assert {path for path in one.paths if "chat" in path} == {"/v1/chat/completions?key=first"}
        assert {path for path in two.paths if "chat" in path} == {
            "/tenant/v1/chat/completions?key=two"
        }


def test_a_server_that_cannot_be_reached_is_left_out(expected, caplog):
    with FakeServer(answering, models()) as server, caplog.at_level(logging.WARNING):
        assert asked(OpenAILLM("m", base_url=[closed_port(), server.url])) == expected
        assert len(server.requests) == len(PROMPTS)
    assert caplog.text.count("cannot be reached: the others get its requests") == 1


def test_a_server_that_dies_costs_no_answer(expected, caplog):
    dead = threading.Event()

    def dying(body, handler):
        if len(dying_server.requests) > 3:
            dead.set()
        if dead.is_set():
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return None
        return 200, chat(label_of(body))

    with FakeServer(answering, models()) as server, FakeServer(dying, models()) as dying_server:
        llm = OpenAILLM("m", base_url=[dying_server.url, server.url], max_concurrency=4)
        with caplog.at_level(logging.WARNING):
            assert asked(llm) == expected
        assert len(dying_server.requests) < len(PROMPTS) // 2
    assert "fails: the others get its requests" in caplog.text


def test_a_server_gets_requests_again_when_it_answers_again(monkeypatch, caplog):
    monkeypatch.setattr(pools, "_FIRST_PAUSE_S", 0.05)
    until = time.monotonic() + 0.5

    def starting(body, handler):
        if time.monotonic() < until:
            return 503, {"error": "starting"}
        return 200, chat(label_of(body))

    def slow(body, handler):
        time.sleep(0.1)
        return answering(body, handler)

    with FakeServer(slow, models()) as server, FakeServer(starting, models()) as late:
        with caplog.at_level(logging.WARNING):
            llm = OpenAILLM("m", base_url=[late.url, server.url])
            assert not any(isinstance(answer, Failure) for answer in asked(llm, PROMPTS * 5))
        assert len(late.requests) > 20
    assert "answers again" in caplog.text


def test_a_busy_server_gets_the_pause_that_it_asks_for(expected):
    def busy(body, handler):
        return 429, {"error": {"message": "slow down"}}, {"Retry-After": "30"}

    with FakeServer(answering, models()) as server, FakeServer(busy, models()) as other:
        started = time.monotonic()
        assert asked(OpenAILLM("m", base_url=[other.url, server.url])) == expected
        assert time.monotonic() - started < 10
        assert len(other.requests) <= 16  # those that were under way


def test_if_all_are_busy_the_run_waits_as_long_as_they_ask(expected):
    until = time.monotonic() + 2

    def busy(body, handler):
        if time.monotonic() < until:
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}
        return 200, chat(label_of(body))

    with FakeServer(busy, models()) as one, FakeServer(busy, models()) as two:
        assert asked(OpenAILLM("m", base_url=[one.url, two.url])) == expected
        assert len(one.requests) + len(two.requests) < 2 * len(PROMPTS)


def test_without_any_server_one_error_names_them_without_secrets():
    urls = [f"{closed_port().removesuffix('/v1')}/tenant-s3cret-{i}/v1?k=s3cret" for i in range(2)]
    with pytest.raises(LLMError, match="none of the servers of m can be reached") as caught:
        asked(OpenAILLM("m", base_url=urls))
    assert "s3cret" not in str(caught.value)
    assert "same command continues" in str(caught.value)


def test_answers_before_all_servers_die_are_kept(tmp_path):
    from synque_select.lens.cache import AnswerCache
    from synque_select.lens.judge import Questions, Tally
    from synque_select.lens.prompt_sets import load_prompts

    with FakeServer(answering, models()) as one, FakeServer(answering, models()) as two:
        llm = OpenAILLM("m", base_url=[one.url, two.url], max_concurrency=2)
        cache = AnswerCache(tmp_path / "answers.sqlite")
        questions = Questions(llm, "shared ", "AB", load_prompts("text"), "label")
        items = {f"item {i}": f"item {i}" for i in range(20)}
        with cache.session() as session:
            left = questions.answers(items, session, Tally(40))
            for _ in range(5):
                next(left)
            for server in (one, two):
                server.stop()
            with pytest.raises(LLMError, match="none of the servers"):
                list(left)
        keys = [key for item in items.values() for key in questions.keys(item)]
        assert len(cache.get(keys)) >= 10
    with FakeServer(answering, models()) as three:
        llm = OpenAILLM("m", base_url=[three.url, closed_port()])
        questions = Questions(llm, "shared ", "AB", load_prompts("text"), "label")
        with cache.session() as session:
            assert len(list(questions.answers(items, session, Tally(40)))) == 20
        assert len(three.requests) <= 40 - 10


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (models("vllm"), "some are vLLM, others are not"),
        (models(name="other"), "does not have the model 'm'; it has other"),
    ],
)
def test_servers_that_differ_are_refused(second, message):
    with FakeServer(answering, models()) as one, FakeServer(answering, second) as two:
        with pytest.raises(LLMError, match=message):
            asked(OpenAILLM("m", base_url=[one.url, two.url]))
        assert not one.requests


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "base_url is a list: allowed is an address, or a list"),
        (7, "base_url is a number"),
        (["http://a/v1", "http://a/v1"], "names a server twice among http://a/v1, http://a/v1"),
        (["http://a/v1", "ftp://b"], "base_url is not the address of a server"),
        (["http://a/v1", 3], "base_url is not the address of a server"),
    ],
)
def test_what_is_not_a_list_of_servers(given, message):
    with pytest.raises(ConfigError, match=message):
        OpenAILLM("m", base_url=given)


def test_a_config_takes_several_and_records_show_no_secrets():
    spec = {
        "engine": "openai",
        "model_id": "m",
        "base_url": ["http://a/t-s3cret/v1", "http://b/v1"],
    }
    config = LensConfig.from_mapping({"scorer": spec})
    assert config.to_dict()["scorer"]["base_url"] == ["http://a/…/v1", "http://b/v1"]
    assert describe_llm(spec)["base_url"] == ["http://a/…/v1", "http://b/v1"]


def test_pauses_become_longer_and_end_with_an_answer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pools.time, "monotonic", lambda: now[0])
    pool = ServerPool([parse_address("base_url", f"http://{name}/v1") for name in "ab"])
    for server in pool.servers:
        server.is_checked = True
    dead = pool.servers[0]
    pauses = []
    for _ in range(8):
        pool.on_failure(dead, unreachable=True)
        assert pool.by_load()[0] is not dead
        pauses.append(dead.paused_until - now[0])
        now[0] = dead.paused_until
        assert pool.by_load()[0] is dead  # one request tries it
        dead.n_open = 1
        assert pool.by_load()[0] is not dead
        dead.n_open = 0
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    pool.on_answer(dead)
    assert not dead.is_out
    assert Counter(s.n_failed for s in pool.servers) == {0: 2}
