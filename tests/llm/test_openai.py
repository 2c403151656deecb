"""The engine "openai", against a local server that runs a real model."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time

import pytest
import torch

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.openai.engine import OpenAILLM
from synque_select.llm.prompt import Prompt
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.testing import LLMConformance, choice_table
from tests.llm.models import SCHEMA, needs_package, one_by_one, save_model
from tests.llm.server import KEY, MODEL, ModelServer


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TransformersLLM:
    return save_model(tmp_path_factory.mktemp("served"))


@pytest.fixture
def server(model):
    with ModelServer(model) as running:
        yield running


def engine(server: ModelServer, **options) -> OpenAILLM:
    return OpenAILLM(MODEL, base_url=server.url, **options)


def answers(llm: BaseLLM, prompts=("a", "b", "c"), **options):
    result = dict(llm.generate(prompts, choices=LABELS, **options))
    return [result[i] for i in range(len(prompts))]


class TestOpenAI(LLMConformance):
    reads_images = True
    atol = 1e-4

    @pytest.fixture
    def llm(self, server) -> BaseLLM:
        return engine(server)


class TestOpenAIOfVLLM(LLMConformance):
    reads_images = True
    atol = 1e-4

    @pytest.fixture
    def llm(self, model):
        with ModelServer(model, owner="vllm", reports_any_token=True) as server:
            yield engine(server)


class TestOpenAIOfOlderVLLM(LLMConformance):
    reads_images = True
    atol = 1e-4

    @pytest.fixture
    def llm(self, model):
        with ModelServer(model, owner="vllm") as server:
            yield engine(server)


@needs_package
def test_probabilities_are_near_those_of_the_model_in_process():
    model = TransformersLLM(device="cpu")
    prompt = f"Choose one of: {', '.join(LABELS)}. Repeat only your choice, in lower case."
    # computed from the tokens shown for one answer, not from the usual tokens of each label: this
    # model, which would rather write something else, shows how large the error can be. Hosted
    # servers accept JSON only, where the label follows the JSON around it
    cases = (("vllm", False, "", 0.1), ("test", True, '{"answer": "', 0.25))
    for owner, masked, written, atol in cases:
        expected = one_by_one(model, prompt, written)
        with ModelServer(model, owner=owner, masked=masked) as server:
            table = choice_table(engine(server), "", [prompt], [""])[0, 0]
        torch.testing.assert_close(table, expected, rtol=0, atol=atol)
        assert len(server.requests) <= 2 + len(LABELS)
    # vLLM reports the probability of any token: the probabilities are exact
    with ModelServer(model, owner="vllm", reports_any_token=True) as server:
        table = choice_table(engine(server), "", [prompt], [""])[0, 0]
    torch.testing.assert_close(table, one_by_one(model, prompt), rtol=0, atol=1e-4)
    model.close()


@pytest.mark.parametrize("fault", [(500, None), ("text", "{not json"), ("cut", None)])
def test_requests_for_tokens_are_repeated_after_temporary_failures(model, fault):
    with ModelServer(model, owner="vllm", reports_any_token=True) as server:
        expected = choice_table(engine(server))
        server.faults = [None, fault, None, fault]
        torch.testing.assert_close(choice_table(engine(server)), expected)
        # a template that does not allow an answer to be continued: labels are tokenized alone
        server.faults = [None, *[(400, None), None] * len(LABELS)]
        table = choice_table(engine(server, max_concurrency=1))
        torch.testing.assert_close(table, expected, rtol=0, atol=0.1)
        server.faults = [(400, None)]
        ((_, table),) = engine(server).choice_probabilities("p", ["i"], ["s"], LABELS)
    assert table == Failure("the server answered 400: status 400")
    assert not any("messages" in body and "logprobs" in body for body in server.requests)


def test_a_server_that_ignores_unknown_parameters_is_read_by_its_shown_tokens(model):
    told = '{"tokens": [5]}'
    with ModelServer(model, owner="vllm") as server:
        # the prompt, five labels in two ways, and a completion without the requested tokens
        completion = '{"choices": [{"logprobs": {"top_logprobs": [{"token_id:1": -1.0}]}}]}'
        server.faults = [*[("text", told)] * 11, ("text", completion)]
        ((_, result),) = engine(server).choice_probabilities("p", ["i"], ["s"], LABELS)
    assert sum(result[0]) == pytest.approx(1)
    assert "top_logprobs" in server.requests[-1]


def test_a_server_without_structured_outputs_gets_plain_requests(model):
    refuses = ["response_format", "seed", "temperature", "max_tokens"]
    with ModelServer(model, refuses=refuses) as server:
        llm = engine(server, max_concurrency=1)
        result = answers(llm)
        # a model with random weights does not write any label by itself
        assert all(isinstance(a, Failure) and "none of the choices" in a.reason for a in result)
        # each unsupported parameter is discovered once: four rejections and three answers
        assert len(server.requests) == 7
        rows = dict(llm.choice_probabilities("", ["a", "b", "c"], ["?"], LABELS))
    assert "max_completion_tokens" in server.requests[-1]
    assert not set(refuses) & set(server.requests[-1])
    # some of its 20 most probable tokens begin a label, or none do
    assert sorted(rows) == [0, 1, 2]
    for result in rows.values():
        if isinstance(result, Failure):
            assert "the tokens that the server shows" in result.reason
        else:
            assert sum(result[0]) == pytest.approx(1)


def test_a_model_that_shows_no_tokens_gets_advice(model):
    with (
        ModelServer(model, refuses=["logprobs"]) as server,
        pytest.raises(LLMError, match="judge with readout='label'"),
    ):
        choice_table(engine(server))


def test_reasoning_before_a_choice_is_ignored(model):
    with ModelServer(model, thinks="<think>unlikely? no:</think>\n") as server:
        assert all(a in LABELS for a in answers(engine(server)))


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "0.4"}),
        (500, None),
        (503, {"Retry-After": "0.4"}),
        ("text", "{not json"),
        ("text", '{"choices": []}'),
        ("text", '{"choices": [{"message": {"content": 7}}]}'),
        ("cut", None),
    ],
)
def test_temporary_failures_are_repeated(server, fault):
    server.faults = [fault]
    llm = engine(server, max_concurrency=1)
    assert all(a in LABELS for a in answers(llm))
    assert len(server.requests) == 4
    if fault[1] and "Retry-After" in fault[1]:
        assert server.times[1] - server.times[0] >= 0.4


def test_a_request_that_keeps_failing_fails_its_own_prompt_only(server):
    llm = engine(server, max_concurrency=1, max_retries=1)
    answers(llm)
    server.faults = [(500, None)] * 2
    first, *others = answers(llm)
    assert isinstance(first, Failure)
    assert "status 500; asked 2 times" in first.reason
    assert all(a in LABELS for a in others)


def test_a_pause_longer_than_ten_minutes_is_a_failure(server):
    server.faults = [(429, {"Retry-After": "3600"})]
    first, *_ = answers(engine(server, max_concurrency=1))
    assert isinstance(first, Failure)
    assert "3600 s" in first.reason


def test_a_429_delays_all_requests(server):
    server.faults = [(429, {"Retry-After": "0.6"})]
    assert len(answers(engine(server, max_concurrency=2), ["p"] * 8)) == 8
    # one other request may have been sent already
    later = [t - server.times[0] for t in server.times[1:]]
    assert sum(t < 0.6 for t in later) <= 2


def test_a_slow_answer_times_out(server):
    server.faults = [2.0]
    llm = engine(server, max_concurrency=1, timeout_s=0.5, max_retries=1)
    assert all(a in LABELS for a in answers(llm))
    assert len(server.requests) == 4


def test_other_rejections_are_failures(server):
    llm = engine(server, max_concurrency=1)
    answers(llm)
    server.faults = [(400, None)]
    first, second, _ = answers(llm)
    assert first == Failure("the server answered 400: status 400")
    assert second in LABELS


def test_requests_run_concurrently_up_to_the_limit(server):
    server.faults = [0.2] * 12
    assert len(answers(engine(server, max_concurrency=4), ["p"] * 12)) == 12
    assert 2 <= server.most_at_once <= 4


def test_requests_are_spaced_out(server):
    answers(engine(server, requests_per_minute=300))
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert min(gaps) > 0.15
    server.times.clear()
    answers(engine(server, tokens_per_minute=60_000), max_tokens=199)
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert min(gaps) > 0.15


def test_a_wrong_key_ends_the_run_and_is_not_repeated(model, monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", "sk-wrong-and-secret")
    caplog.set_level(logging.DEBUG)
    with ModelServer(model, key=KEY) as server:
        llm = engine(server, key_variable="TEST_KEY")
        with pytest.raises(LLMError, match=r"401.*TEST_KEY") as caught:
            answers(llm)
        assert server.requests == []
        monkeypatch.setenv("TEST_KEY", KEY)
        assert all(a in LABELS for a in answers(llm))
    shown = f"{caught.value} {caplog.text} {llm!r} {llm.key} {vars(llm)}"
    assert "sk-wrong-and-secret" not in shown
    assert KEY not in shown


@pytest.mark.parametrize("text", ['{"choices": [{}]}', "[" * 50_000, "null"], ids=len)
def test_a_malformed_answer_fails_its_own_prompt(server, text: str):
    server.faults = [("text", text)]
    (result,) = answers(engine(server, max_retries=0), ["p"])
    assert isinstance(result, Failure)
    assert re.search("not a chat completion|not a JSON object|not contain text", result.reason)


@pytest.mark.parametrize("usage", ["5", '{"prompt_tokens": "x"}'])
def test_malformed_token_counts_are_ignored(server, usage: str):
    message = json.dumps({"message": {"content": LABELS[0]}})
    server.faults = [("text", f'{{"choices": [{message}], "usage": {usage}}}')]
    assert answers(engine(server), ["p"]) == [LABELS[0]]


@pytest.mark.parametrize("shown", ['{"content": 5}', '{"content": [{"token": 5}]}'])
def test_probabilities_that_cannot_be_read(server, shown: str):
    first = f'{{"message": {{"content": "x"}}, "logprobs": {shown}}}'
    server.faults = [("text", f'{{"choices": [{first}]}}')]
    llm = engine(server, max_retries=0)
    ((_, result),) = llm.choice_probabilities("p", ["i"], ["s"], LABELS)
    assert "cannot be read" in result.reason


def test_a_key_with_a_line_break_is_rejected_and_not_shown(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret\nof-mine")
    with pytest.raises(LLMError, match="TEST_KEY contains characters that") as caught:
        answers(engine(server, key_variable="TEST_KEY"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (5, "a number"),
        (None, "null"),
        ("", "an empty text"),
        (["sk-abc"], "a list"),
        ({"sk-abc": 1}, "an object"),
    ],
)
def test_key_variable_must_be_a_name_and_no_other_value_is_shown(given, kind):
    with pytest.raises(ConfigError, match=f"key_variable is {kind}: allowed is the name") as error:
        OpenAILLM("some-model", key_variable=given)
    assert "sk-abc" not in str(error.value)


@pytest.mark.parametrize("name", ["timeout_s", "tokens_per_minute", "requests_per_minute"])
def test_a_limit_that_no_float_can_hold_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}=9+…9+: allowed is a number above 0"):
        OpenAILLM("some-model", **{name: int("9" * 400)})


def test_no_key_for_a_hosted_server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(LLMError, match="set the environment variable OPENAI_API_KEY"):
        answers(OpenAILLM("any"))


def test_an_unknown_model_is_an_error(server):
    with pytest.raises(LLMError, match="404 no model other"):
        answers(OpenAILLM("other", base_url=server.url))


def test_an_unreachable_server_is_an_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(LLMError, match="cannot be reached"):
        answers(OpenAILLM("any", base_url=url))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "http://"),
        ({"base_url": "http://me:secret@localhost/v1"}, "password"),
        ({"max_concurrency": 0}, "max_concurrency=0"),
        ({"max_concurrency": "4"}, "max_concurrency='4'"),
        ({"timeout_s": "4"}, "timeout_s='4'"),
        ({"base_url": "http://[::1"}, "base_url is not the address"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"requests_per_minute": -3}, "requests_per_minute=-3"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        OpenAILLM("any", **options)
    assert "secret" not in str(caught.value)


def test_images_are_sent_unchanged(server):
    from PIL import Image

    shown = Prompt(("Here: ", Image.new("L", (30, 20), 255), " or ", Image.new("RGB", (8, 9))))
    assert answers(engine(server), [shown])[0] in LABELS
    assert server.images == [(30, 20), (8, 9)]


def test_vllm_reports_any_token_for_images_too(model):
    from PIL import Image

    shown, text = Prompt((Image.new("RGB", (30, 20)), " or?")), "[image (30, 20) (0, 0, 0)] or?"
    expected = choice_table(model, "", [text], [""])
    with ModelServer(model, owner="vllm", reports_any_token=True) as server:
        llm = engine(server, max_concurrency=1)
        torch.testing.assert_close(
            choice_table(llm, "", [shown], [""]), expected, rtol=0, atol=1e-4
        )
        asked = [body for body in server.requests if "logprob_token_ids" in body]
        assert asked
        assert all("messages" in body for body in asked)
        # a template that does not allow an answer to be continued: shown tokens, for images only
        llm = engine(server, max_concurrency=1)
        server.faults = [None, *[(400, None), None] * len(LABELS), None, None, (400, None)]
        choice_table(llm, "", [shown], [""])
        assert "top_logprobs" in server.requests[-1]
        assert not server.faults
        choice_table(llm, "", [text], [""])
        assert "top_logprobs" not in server.requests[-1]


def test_json_of_a_schema(server):
    llm = engine(server)
    ((_, answer),) = llm.generate(["List."], schema=SCHEMA, max_tokens=500)
    assert len(json.loads(answer)["points"]) == 3
    sent = server.requests[-1]["response_format"]["json_schema"]
    assert sent["strict"]
    assert sent["schema"]["properties"]["points"]["minItems"] == 3
    ((_, cut),) = llm.generate(["List."], schema=SCHEMA, max_tokens=10)
    assert cut == Failure("the answer was not complete after 10 tokens")


def test_it_works_inside_a_running_event_loop(server):
    async def notebook():
        return answers(engine(server))

    assert all(a in LABELS for a in asyncio.run(notebook()))


def test_answers_arrive_one_by_one_and_closing_the_iterator_stops_the_requests(server):
    server.faults = [0.1] * 50
    llm = engine(server, max_concurrency=2)
    result = llm.generate(["p"] * 50, choices=LABELS)
    assert next(result)[1] in LABELS
    result.close()
    n_asked = len(server.requests)
    assert n_asked < 10
    time.sleep(0.4)
    assert len(server.requests) <= n_asked + 2
    assert not any(t.name == "synque-select-llm" for t in threading.enumerate())


def test_context_length_and_tokens_come_from_the_server(model):
    with ModelServer(model, owner="vllm") as server:
        llm = engine(server)
        answers(llm)
    assert llm.context_length == 1024
    assert llm.usage.n_requests == 3
    assert llm.usage.n_prompt_tokens > 3
    assert llm.usage.n_answer_tokens >= 3
