"""The engine "openai" and odd answers of servers: right, or one counted failure, never invented."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import math
import time
from typing import Any

import pytest

from synque_select.errors import ConfigError, LLMError
from synque_select.functional.lens import LABELS
from synque_select.llm.base import Failure
from synque_select.llm.openai import OpenAILLM
from synque_select.llm.openai.address import Secrets, parse_address
from synque_select.llm.openai.label_logprobs import choice_probabilities, read_choice_mass
from synque_select.llm.openai.server_errors import server_words
from synque_select.llm.registry import describe_llm
from tests.llm.fake_server import FakeServer, chat, step, token, written

GOOD = chat("likely")
SHOWN = written(step("likely", 0.6, [("very", 0.25), ("un", 0.15)]))
GOOD_TOKENS = chat('{"answer": "likely"}', tokens=SHOWN)
KEY = "sk-live-0123456789abcdef"
STREAM = (
    'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
    'data: {"choices": [{"index": 0, "delta": {"content": "li"}}]}\n\n'
    'data: {"choices": [{"index": 0, "delta": {"content": "kely"}, "finish_reason": "stop"}]}\n\n'
    'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
    "data: [DONE]\n\n"
)


def engine(server: FakeServer, **options: Any) -> OpenAILLM:
    return OpenAILLM("fake", base_url=server.url, **{"max_retries": 0, **options})


def second_of_three(body: dict[str, Any], odd: Any, good: Any = (200, GOOD)) -> Any:
    return odd if "ITEM1" in str(body["messages"][0]["content"]) else good


# an odd answer to one of three prompts: the label that it means, or words of its failure
ODD = {
    "content in parts": (
        chat([{"type": "text", "text": "like"}, {"type": "text", "text": "ly"}]),
        "likely",
    ),
    "thinking and text": (
        chat(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "unlikely"}]},
                {"type": "text", "text": '{"answer": "likely"}'},
            ]
        ),
        "likely",
    ),
    "reasoning part": (
        chat(
            [{"type": "reasoning", "text": "unlikely"}, {"type": "output_text", "text": "likely"}]
        ),
        "likely",
    ),
    "parts of strings": (chat(["lik", "ely"]), "likely"),
    "text of an assistant": (chat([{"type": "text", "text": {"value": "likely"}}]), "likely"),
    "one part as an object": (chat({"type": "text", "text": "likely"}), "likely"),
    "the JSON as an object": (chat({"answer": "likely"}), "likely"),
    "a fence": (chat('```json\n{"answer": "likely"}\n```'), "likely"),
    "a fence without a language": (chat("```\nlikely\n```"), "likely"),
    "text before </think>": (chat('so not unlikely</think>"Likely"'), "likely"),
    "a completion without chat": ({"choices": [{"text": " likely"}]}, "likely"),
    "a delta": ({"choices": [{"delta": {"content": "likely"}}]}, "likely"),
    "white space around": ("\n\n \n" + json.dumps(GOOD) + "\n", "likely"),
    "a byte order mark in the text": (chat("\ufefflikely\ufeff"), "none of the choices"),
    "refusal": (chat(None, refusal="I cannot\nhelp."), "refused to answer: I cannot help."),
    "refusal as a part": (chat([{"type": "refusal", "refusal": "No."}]), "refused to answer: No."),
    "filtered": (chat("", finish="content_filter"), "refused to answer: its filter"),
    "filtered, half a text": (chat("lik", finish="content_filter"), "refused to answer"),
    "filtered, in capitals": (chat(None, finish="SAFETY"), "refused to answer"),
    "recitation": (chat(None, finish="RECITATION"), "refused to answer"),
    "empty": (chat(""), "the answer is empty"),
    "null": (chat(None), "the answer is empty"),
    "no parts": (chat([]), "the answer is empty"),
    "blank": (chat(" \n\t"), "the answer is empty"),
    "cut": (chat("", finish="length"), "not complete after"),
    "reasoning only": (chat(None, reasoning_content="hm"), "reasoning only"),
    "a tool": (
        chat(None, finish="tool_calls", tool_calls=[{"function": {"name": "f"}}]),
        "called a tool",
    ),
    "no choices": ({"choices": []}, "not a chat completion"),
    "choices null": ({"choices": None}, "not a chat completion"),
    "a number": (chat(7), "not a chat completion with text"),
    "broken off": (chat("lik", finish="error"), "the server stopped: error"),
    "an error in the choice": (
        {
            "choices": [
                {
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Upstream\ndied"},
                    "message": {"content": ""},
                }
            ]
        },
        "502: Upstream died; asked 1 time",
    ),
    "an error with 200": (
        {"error": {"message": "upstream busy", "code": 429}},
        "429: upstream busy",
    ),
    "an error as text with 200": ({"error": "no worker"}, "500: no worker"),
    "an error object with 200": (
        {"object": "error", "message": "overloaded", "code": 503},
        "503: overloaded",
    ),
    "detail with 200": ({"detail": "queue full"}, "500: queue full"),
    "a list": ([1, 2], "not a JSON object"),
    "a page": ("<html>\n<title>Sign in</title>\n</html>", "not a JSON object"),
    "a stream": (STREAM, "likely"),
    "a stream with comments and lines of CR LF": (
        ": hello\r\n\r\nevent: message\r\n" + STREAM.replace("\n", "\r\n"),
        "likely",
    ),
    "a stream of one completion": (f"data: {json.dumps(GOOD)}\n\n", "likely"),
    "a stream that refuses": (
        'data: {"choices": [{"delta": {"refusal": "No."}, "finish_reason": "stop"}]}\n\n',
        "refused to answer: No.",
    ),
    "a stream with an error": (
        'data: {"choices": [{"delta": {"content": "li"}}]}\n\n'
        'data: {"error": {"message": "worker died", "code": 502}}\n\n',
        "502: worker died",
    ),
    "a stream without end": (STREAM.partition('"kely"')[0] + '"k', "not a JSON object"),
    "a stream that breaks off": (STREAM.partition("\n\n")[0], "not a JSON object"),
    "an empty stream": ('data: {"choices": []}\n\ndata: [DONE]\n', "not a JSON object"),
    "nothing": ("", "not a JSON object"),
    "deep": ("[" * 100_000, "not a JSON object"),
    "deep, closed": ('{"choices": ' + "[" * 5000 + "]" * 5000 + "}", "not a JSON object"),
    "digits": ('{"choices": ' + "9" * 5000 + "}", "not a JSON object"),
    "half a surrogate pair": (chat("\ud83d"), "none of the choices"),
    "escape sequences": (chat("\x1b[2J\nok"), "none of the choices"),
    "a list of answers": (chat('{"answer": ["likely"]}'), "none of the choices"),
    "in words": (chat("I would say it is likely."), "none of the choices"),
}


def all_of(table: dict[str, Any], answer: Any, ask: Any, **options: Any) -> dict[str, Any]:
    """Results of an engine that gets each odd answer of a table between two ordinary ones."""
    prompts = [prompt for name in table for prompt in ("good", f"[{name}]")]

    def answer_of(body: Any, _: Any) -> Any:
        asked = [name for name in table if f"[{name}]" in body["messages"][0]["content"]]
        return answer(asked[0]) if asked else answer(None)

    with FakeServer(answer_of) as server:
        llm = engine(server, max_concurrency=1, **options)
        results = dict(ask(llm, [*prompts, "good"]))
    by_name = {name: results[2 * i + 1] for i, name in enumerate(table)}
    return by_name | {
        "good": [results[2 * i] for i in range(len(table) + 1)],
        "llm": llm,
        "server": server,
    }


def labels(llm: OpenAILLM, prompts: list[str]) -> Any:
    return llm.generate(prompts, choices=["likely", "unlikely"])


@pytest.fixture(scope="module")
def odd() -> dict[str, Any]:
    return all_of(ODD, lambda name: (200, ODD[name][0] if name else GOOD), labels)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_read_or_is_one_failure_on_one_line(name: str, odd: dict[str, Any]):
    expected = ODD[name][1]
    if expected == "likely":
        assert odd[name] == "likely"
        return
    assert isinstance(odd[name], Failure)
    assert expected in odd[name].reason
    assert odd[name].reason.isprintable()
    assert len(odd[name].reason) <= 400


def test_an_odd_answer_changes_no_other(odd: dict[str, Any]):
    assert set(odd["good"]) == {"likely"}
    assert odd["llm"].notes == []


# status, body and headers of an error for one of three prompts, and words of the failure
ERRORS = {
    "message": (400, {"error": {"message": "Too\nodd", "code": 400}}, "400: Too odd"),
    "text": (400, {"error": "'messages' is odd"}, "400: 'messages' is odd"),
    "list": (
        400,
        [{"error": {"code": 400, "message": "Invalid value at 'x'"}}],
        "400: Invalid value at 'x'",
    ),
    "detail": (422, {"detail": "Unprocessable prompt"}, "422: Unprocessable prompt"),
    "details": (
        422,
        {"detail": [{"loc": ["body", "messages", 0], "msg": "bad", "input": "x" * 9000}]},
        "422: body -> messages -> 0: bad",
    ),
    "problem": (
        400,
        {"type": "urn:x", "title": "Bad Request", "detail": "odd"},
        "400: odd; Bad Request",
    ),
    "errors": (400, {"errors": {"prompt": ["is odd"]}}, "400: prompt: is odd"),
    "list of errors": (
        400,
        {"errors": [{"message": "odd"}, {"message": "very"}]},
        "400: odd; very",
    ),
    "nested": (400, {"error": {"error": {"message": "inner"}}}, "400: inner"),
    "from elsewhere": (
        400,
        {"error": {"message": "Provider error", "metadata": {"raw": "prompt odd"}}},
        "400: Provider error; prompt odd",
    ),
    "capitals": (400, {"Message": "odd"}, "400: odd"),
    "other names": (400, {"oops": 7}, '400: {"oops": 7}'),
    "a string": (400, '"odd"', "400: odd"),
    "plain": (400, "odd\nrequest", "400: odd request"),
    "page": (
        503,
        "<html><title>503 Busy</title><h1>Come &amp; wait</h1></html>",
        "503: Busy; Come & wait",
    ),
    "page without title": (503, "<p>Busy</p><script>x()</script>", "503: Busy"),
    "empty": (400, "", "400: no message"),
    "not UTF-8": (400, b"caf\xe9", "400: caf"),
    "deep": (400, "[" * 100_000, "400: [["),
    "null": (400, "null", "400: null"),
    "filtered": (
        400,
        {"error": {"message": "filtered", "param": "prompt", "code": "content_filter"}},
        "refused to answer: 400: filtered",
    ),
    "moderated": (403, {"error": {"message": "Your input was flagged"}}, "refused to answer: 403"),
    "inspected": (
        400,
        {"error": {"code": "data_inspection_failed", "message": "Output data may contain ..."}},
        "refused to answer: 400",
    ),
    "firewall": (
        403,
        "<html><title>Attention Required!</title></html>",
        "403: Attention Required!",
    ),
    "too large": (413, {"error": {"message": "Payload too large"}}, "413: Payload too large"),
    "titled with its status": (
        413,
        "<html><title>413 Request Entity Too Large</title></html>",
        "answered 413: Request Entity Too Large",
    ),
    "redirect": (304, "", "304"),
    "teapot": (418, {}, "418: {}"),
}


@pytest.fixture(scope="module")
def errors() -> dict[str, Any]:
    return all_of(ERRORS, lambda name: ERRORS[name][:2] if name else (200, GOOD), labels)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_any_shape_is_shown_in_the_servers_words(name: str, errors: dict[str, Any]):
    assert isinstance(errors[name], Failure)
    assert ERRORS[name][2] in errors[name].reason
    assert errors[name].reason.isprintable()
    assert len(errors[name].reason) <= 400


def test_an_error_that_is_not_about_a_parameter_changes_no_other_request(errors: dict[str, Any]):
    assert set(errors["good"]) == {"likely"}
    assert errors["llm"].notes == []
    assert all("response_format" in request for request in errors["server"].requests)


REFUSED = {
    "422, detail list": (
        422,
        {"detail": [{"loc": ["body", "{0}"], "msg": "extra fields not permitted"}]},
    ),
    "422, detail text": (422, {"detail": "body -> {0}: Extra inputs are not permitted"}),
    "400, a list": (400, [{"error": {"message": 'Unknown name "{0}": Cannot find field.'}}]),
    "400, text": (400, {"error": "'{0}' must be 'text'"}),
    "400, param": (400, {"error": {"message": "Unsupported parameter", "param": "{0}"}}),
    "500": (
        500,
        {"error": {"message": "TypeError: create() got an unexpected keyword argument '{0}'"}},
    ),
    "501": (501, {"message": "'{0}' is not implemented"}),
    "403": (403, {"error": {"message": "You may not use '{0}'"}}),
    "404": (404, {"error": {"message": "No endpoint supports '{0}'"}}),
    "200": (200, {"error": {"message": "'{0}' is not supported", "code": 400}}),
    "400, elsewhere": (
        400,
        {"error": {"message": "Provider error", "metadata": {"raw": "bad '{0}'"}}},
    ),
}


@pytest.mark.parametrize("parameter", ["response_format", "seed"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_parameter_is_left_out_and_noted(name: str, parameter: str):
    status, template = REFUSED[name]
    body = json.loads(json.dumps(template).replace("{0}", parameter))
    with FakeServer(lambda sent, _: (status, body) if parameter in sent else (200, GOOD)) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(llm.generate(["a", "b"], choices=["likely", "unlikely"]))
    assert results == {0: "likely", 1: "likely"}
    assert len(server.requests) == 3  # refused once, then left out
    (note,) = llm.notes
    assert f"the server refuses {parameter}" in note
    assert note.isprintable()


def test_a_parameter_named_by_a_part_of_it_is_left_out():
    refusal = (500, {"error": "guided_json and json_schema are unsupported"})
    with FakeServer(lambda b, _: refusal if "response_format" in b else (200, GOOD)) as server:
        assert dict(labels(engine(server), ["a"])) == {0: "likely"}


# an error that names no parameter; the parameters that the server refuses
UNNAMED = {
    "422 without words": ((422, ""), ["response_format"]),
    "422 in words of its own": ((422, {"detail": "Unprocessable Entity"}), ["response_format"]),
    "400": ((400, {"error": {"message": "Bad request"}}), ["seed"]),
    "500": ((500, {"error": {"message": "Internal error"}}), ["response_format"]),
    "500, a page": ((500, "<html><title>Error</title></html>"), ["max_tokens"]),
    "two": ((400, {"error": "invalid request"}), ["response_format", "temperature"]),
    "three": ((422, "{}"), ["response_format", "seed", "temperature"]),
}


@pytest.mark.parametrize("name", UNNAMED)
def test_a_refused_parameter_that_the_error_does_not_name_is_found(name: str):
    refusal, parameters = UNNAMED[name]

    def answer(body: Any, _: Any) -> Any:
        return refusal if any(p in body for p in parameters) else (200, GOOD)

    with FakeServer(answer) as server:
        llm = engine(server, max_concurrency=4)
        results = dict(llm.generate(["a", "b", "c", "d", "e"], choices=["likely", "unlikely"]))
        n_first = len(server.requests)
        more = dict(llm.generate(["f", "g"], choices=["likely", "unlikely"]))
    assert set(results.values()) == {"likely"}
    assert set(more.values()) == {"likely"}
    assert len(server.requests) == n_first + 2  # found once, not again
    assert n_first <= 25
    optional = {"response_format", "seed", "temperature", "max_tokens"}
    assert set(server.requests[-1]) & optional == optional - {*parameters}
    (note,) = llm.notes
    assert all(p in note for p in parameters)
    assert not any(p in note for p in optional - {*parameters})
    assert note.isprintable()


def test_log_probabilities_that_are_refused_without_a_word():
    def answer(body: Any, _: Any) -> Any:
        return (422, "") if body.get("top_logprobs", 0) > 5 else (200, GOOD_TOKENS)

    with FakeServer(answer) as server:
        llm = engine(server)
        ((_, rows),) = llm.choice_probabilities("r ", ["i "], ["?"], LABELS)
    assert rows[0] == pytest.approx([0.15, 0.0, 0.0, 0.6, 0.25], abs=0.2)
    refused = "fake: the server refuses top_logprobs above 5: left out (no message)."
    assert llm.notes[0] == refused


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_rejects_everything_is_not_asked_without_end(status: int):
    with FakeServer(lambda *_: (status, {"error": "no"})) as server:
        llm = engine(server, max_concurrency=3)
        results = dict(llm.generate([str(i) for i in range(20)], choices=["likely", "unlikely"]))
    assert all(isinstance(result, Failure) for result in results.values())
    # three are tried, each with 1 + 4 parameters; the others are asked once
    assert len(server.requests) <= 20 + 3 * 5
    assert llm.notes == []


def test_a_bad_moment_costs_no_parameter():
    answers: list[Any] = [(500, "")]
    with FakeServer(lambda *_: answers.pop() if answers else (200, GOOD)) as server:
        llm = engine(server, max_concurrency=1)
        assert set(dict(labels(llm, ["a", "b"])).values()) == {"likely"}
    assert all("response_format" in request for request in server.requests)
    assert llm.notes == []


def test_an_error_about_a_prompt_after_answers_is_not_put_down_to_a_parameter():
    with FakeServer(lambda sent, _: second_of_three(sent, (422, "odd"))) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(labels(llm, [f"ITEM{i}" for i in range(3)]))
    assert results[1] == Failure("the server answered 422: odd")
    assert len(server.requests) == 3


def test_words_that_only_sound_like_a_parameter_change_nothing():
    busy = (500, {"error": {"message": "JSON decode error in the seed node"}})
    answers = [busy, (200, GOOD), (400, {"error": {"message": "could not parse the JSON body"}})]
    with FakeServer(lambda sent, _: answers.pop(0) if answers else (200, GOOD)) as server:
        llm = engine(server, max_retries=1, max_concurrency=1)
        results = dict(llm.generate(["a", "b", "c"], choices=["likely", "unlikely"]))
    assert set(results.values()) == {"likely"}
    assert "seed" in server.requests[-1]
    # a prompt that fails without the parameter as well was not refused for it
    always = (400, {"error": {"message": "the schema of your prompt is odd"}})
    with FakeServer(lambda sent, _: second_of_three(sent, always)) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(llm.generate([f"ITEM{i}" for i in range(3)], choices=["likely", "unlikely"]))
    assert results[1] == Failure("the server answered 400: the schema of your prompt is odd")
    assert "response_format" in server.requests[-1]
    assert llm.notes == []


def text_of(tokens: Any) -> str:
    """The text that tokens write; an answer of its own where they have another form."""
    try:
        return "".join(one["token"] for one in tokens).replace("Ġ", " ")
    except (TypeError, KeyError):
        return '{"answer": "likely"}'


def probabilities(tokens: Any, **options: Any) -> Any:
    """The probabilities of the five labels that an answer with these tokens gives."""
    with FakeServer(lambda *_: (200, chat(text_of(tokens), tokens=tokens))) as server:
        ((_, rows),) = engine(server, **options).choice_probabilities("r ", ["i "], ["?"], LABELS)
    return rows if isinstance(rows, Failure) else rows[0]


ALL = [("very", 0.2), ("un", 0.2)]
NULL_OTHER = written(step("likely", 0.6, [*ALL, ("banana", None)]))
NULL_LABEL = written(step("likely", 0.3, [("very", None), ("un", 0.1)]))
RAW = [
    step("very", 0.6, [("un", 0.1), ("likely", 0.3)]),
    step("Ġlikely", 0.75, [("Ġunlikely", 0.25)]),
]

# the tokens of an answer, and the probability of "likely", or words of the failure
TOKENS = {
    "alternatives": (SHOWN, 0.6),
    "null beside the labels": (NULL_OTHER, 0.6),
    "null for a label": (NULL_LABEL, "shows tokens with only 40 %"),
    "null for a label, the rest is all": (
        written(step("likely", 0.6, [*ALL, ("unsure", None)])),
        0.6,
    ),
    "null for the written label": (written(step("likely", None, ALL)), "no log-probability"),
    "null for the written label, which is in the list": (
        written(step("likely", 0.6, ALL) | {"logprob": None}),
        0.6,
    ),
    "null for the JSON around it": ([step('{"answer": "', None), step("likely", 0.6, ALL)], 0.6),
    "no alternatives": ([token('{"answer": "', 0.9), token("likely", 0.4)], "only 40 %"),
    "the written token alone": (written(step("likely", 0.4)), "only 40 %"),
    # servers without alternatives write 0, that is probability 1, for whatever was answered
    "certain, and alone": (written(step("likely", 0.999)), "no token beside that of the answer"),
    "0 as a placeholder": (written(step("likely", 1.0)), "no token beside that of the answer"),
    "0 as a placeholder, an empty list": (
        written(step("likely", 1.0) | {"top_logprobs": []}),
        "no token beside that of the answer",
    ),
    "1 beside impossible others": (
        written(step("likely", 1.0) | {"top_logprobs": [{"token": "un", "logprob": -9999.0}]}),
        "no token beside that of the answer",
    ),
    "0 at the second place": (
        [
            token('{"answer": "', 0.9),
            step("very", 0.6, [("likely", 0.2), ("un", 0.2)]),
            step(" un", 1.0),
        ],
        "no token beside that of the answer",
    ),
    "1 where one way is left": (
        [token('{"answer": "', 0.9), step("lik", 0.6, ALL), step("ely", 1.0)],
        0.6,
    ),
    "a few of the labels": (written(step("likely", 0.3, [("un", 0.02)])), "only 32 %"),
    "written twice in the list": (written(step("likely", 0.6, [("likely", 0.6), *ALL])), 0.6),
    "slightly above 0": (
        written({**step("likely", 1.0, [("un", 1e-6)]), "logprob": 1e-7}),
        1.0,
    ),
    "scores, not probabilities": (written({**step("likely", 0.5), "logprob": 3.2}), "is above 0"),
    "probabilities that sum to 2": (written(step("likely", 0.9, [("very", 0.8)])), "sum to 1.7"),
    "texts": (written({**step("likely", 0.5), "logprob": "-0.7"}), "is not a number"),
    "true": (written({**step("likely", 0.5), "logprob": True}), "is not a number"),
    "-inf": (
        written(
            step("likely", 0.6, ALL)
            | {
                "top_logprobs": [
                    {"token": "x", "logprob": -math.inf},
                    *(token(t, p) for t, p in ALL),
                ]
            }
        ),
        0.6,
    ),
    "a floor of -9999": (
        written(
            step("likely", 0.6, ALL)
            | {
                "top_logprobs": [
                    {"token": "unsure", "logprob": -9999.0},
                    *(token(t, p) for t, p in ALL),
                ]
            }
        ),
        0.6,
    ),
    "tokens as the vocabulary writes them": ([step('{"answer": "', 0.9), *RAW], 0.3),
    "a fence before the JSON": (
        [step('```json\n{"answer": "', 0.9), step("likely", 0.6, ALL)],
        0.6,
    ),
    "another answer": ([step("I", 0.9), step(" would", 0.9)], "no choice begins with"),
    "only the end": ([step('"}', 0.9)], "no choice begins with"),
    "tokens without text": ([{"token": None, "logprob": -0.1}], "cannot be read"),
    "an object": ({"tokens": ["likely"]}, "cannot be read"),
    "numbers": ([1, 2], "cannot be read"),
    "no log-probability": ([{"token": "likely"}], "cannot be read"),
}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    def answer(name: str | None) -> Any:
        tokens = TOKENS[name][0] if name else SHOWN
        return 200, chat(text_of(tokens), tokens=tokens)

    def ask(llm: OpenAILLM, items: list[str]) -> Any:
        return llm.choice_probabilities("rubric ", items, ["?"], LABELS)

    return all_of(TOKENS, answer, ask)


@pytest.mark.parametrize("name", TOKENS)
def test_probabilities_are_right_or_a_failure(name: str, shown: dict[str, Any]):
    results, expected = shown[name], TOKENS[name][1]
    if isinstance(expected, float):
        assert not isinstance(results, Failure), results.reason
        assert results[0][LABELS.index("likely")] == pytest.approx(expected, abs=0.01)
        assert sum(results[0]) == pytest.approx(1)
        assert min(results[0]) >= 0
    else:
        assert isinstance(results, Failure)
        assert expected in results.reason
        assert "logprobs" in results.reason
        assert results.reason.isprintable()


# tokens that contradict the answer, or that are malformed: (content, tokens, words of the failure)
WITHOUT_UN = [
    step('{"answer": "', 0.9),
    step("very", 0.6, ALL),
    step(" likely", 0.5),
    step('"}', 1),
]
CONTRADICTORY = {
    "another label": ('{"answer": "very unlikely"}', SHOWN, "are not those of its answer"),
    "a token left out": ('{"answer": "very unlikely"}', WITHOUT_UN, "are not those of its answer"),
    "a sentence": ("I cannot say.", SHOWN, "are not those of its answer 'I cannot say.'"),
    "no text": ("", SHOWN, "the answer is empty"),
    "bytes of another type": (
        '{"answer": "likely"}',
        written(step("likely", 0.6) | {"top_logprobs": [token("un", 0.4, bytes=[999])]}),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_tokens_that_contradict_the_answer_are_one_failure(name: str):
    content, tokens, words = CONTRADICTORY[name]
    odd = (200, chat(content, tokens=tokens))
    with FakeServer(lambda sent, _: second_of_three(sent, odd, (200, GOOD_TOKENS))) as server:
        llm = engine(server, max_concurrency=1)
        items = [f"ITEM{i}" for i in range(3)]
        results = dict(llm.choice_probabilities("r ", items, ["?"], LABELS))
    assert words in results[1].reason
    assert results[0] == results[2] == [pytest.approx([0.125, 0.075, 0.075, 0.6, 0.125])]


def test_a_server_that_ignores_the_form_is_read_in_the_form_of_its_tokens():
    tokens = [step("likely", 0.6, ALL), step(".", 0.9)]
    assert probabilities(tokens)[LABELS.index("likely")] == pytest.approx(0.6)


def test_a_label_that_is_not_shown_is_asked_for_and_not_taken_from_a_masking_server():
    # 60 % "likely", 25 % "unsure", which is shown only if it is the only choice
    def answer(body: Any, masks: bool) -> Any:
        labels = body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
        p = {"likely": 0.6, "unsure": 0.25}.get(labels[0] if len(labels) == 1 else "likely", 0.05)
        label = labels[0] if len(labels) == 1 else "likely"
        tokens = written(step(label, 1.0 if masks and len(labels) == 1 else p))
        return 200, chat(text_of(tokens), tokens=tokens)

    with FakeServer(lambda body, _: answer(body, False)) as server:
        ((_, rows),) = engine(server).choice_probabilities("r ", ["i "], ["?"], LABELS)
    assert rows[0] == pytest.approx([0.05, 0.05, 0.25, 0.6, 0.05], abs=1e-9)
    with FakeServer(lambda body, _: answer(body, True)) as server:
        ((_, rows),) = engine(server).choice_probabilities("r ", ["i "], ["?"], LABELS)
    assert isinstance(rows, Failure)
    assert "only 60 % of the probability (logprobs)" in rows.reason


def test_beginnings_of_two_labels_are_divided_evenly_only_if_little_is_at_stake():
    results = probabilities(SHOWN)
    assert results == pytest.approx([0.125, 0.075, 0.075, 0.6, 0.125])
    much = written(step("likely", 0.35, [("very", 0.34), ("un", 0.31)]))
    assert "do not distinguish" in probabilities(much).reason
    body = chat(text_of(SHOWN), tokens=SHOWN)
    with FakeServer(lambda *_: (200, body)) as server:
        llm = engine(server)
        list(llm.choice_probabilities("r ", ["i "], ["?"], LABELS))
    assert any("do not distinguish" in note and "divided evenly" in note for note in llm.notes)


@pytest.mark.parametrize(
    "odd",
    [
        chat(None, refusal="No."),
        chat("", finish="content_filter"),
        chat("", tokens=[], finish="length"),
        chat("I cannot help with that."),
        chat(None),
        chat('{"answer": "likely"}'),  # this one without tokens
        {"error": {"message": "busy"}},
        {"choices": []},
    ],
)
def test_one_answer_without_tokens_is_one_failure(odd: Any):
    answer = (200, odd)
    with FakeServer(lambda sent, _: second_of_three(sent, answer, (200, GOOD_TOKENS))) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(
            llm.choice_probabilities("r ", [f"ITEM{i}" for i in range(3)], ["?"], LABELS)
        )
    assert [isinstance(results[i], Failure) for i in range(3)] == [False, True, False]
    assert results[1].reason.isprintable()
    # a refusal that comes first does not end the run either
    if "likely" not in str(odd):
        with FakeServer(
            lambda sent, _: second_of_three(sent, answer, (200, GOOD_TOKENS))
        ) as server:
            items = ["ITEM1", "ITEM2"]
            llm = engine(server, max_concurrency=1)
            results = dict(llm.choice_probabilities("r ", items, ["?"], LABELS))
        assert [isinstance(results[i], Failure) for i in range(2)] == [True, False]


def test_what_comes_first_does_not_decide_whether_a_run_ends():
    # the first of three answers comes without tokens, from a cache; all of a server do
    for n_without, ends in ((1, False), (2, False), (3, True)):
        queue = [chat('{"answer": "likely"}')] * n_without

        def answer(*_: Any, queue: list[Any] = queue) -> Any:
            return 200, queue.pop() if queue else GOOD_TOKENS

        with FakeServer(answer) as server:
            llm = engine(server, max_concurrency=1)
            items = [f"ITEM{i}" for i in range(5)]
            answers = llm.choice_probabilities("r ", items, ["?"], LABELS)
            if ends:
                with pytest.raises(LLMError, match="judge with readout='label'"):
                    list(answers)
                continue
            results = dict(answers)
        assert sum(isinstance(result, Failure) for result in results.values()) == n_without


ABOUT_ONE_PROMPT = {
    "400, logprobs": (400, "logprobs are not available for this request"),
    "500, logprobs": (500, "failed to compute logprobs"),
    "400, grammar": (400, "could not compile json schema: internal grammar failure"),
    "400, seed": (400, "'seed' is not allowed"),
    "403, logprobs": (403, "you may not ask for 'logprobs'"),
}


@pytest.mark.parametrize("n_at_once", [1, 5])
@pytest.mark.parametrize("name", ABOUT_ONE_PROMPT)
def test_an_error_about_one_prompt_that_names_a_parameter_is_one_failure(name: str, n_at_once: int):
    status, words = ABOUT_ONE_PROMPT[name]

    def answer(body: Any, _: Any) -> Any:
        is_refused = "ITEM1" in str(body["messages"]) and "seed" in body and "logprobs" in body
        if is_refused and "response_format" in body:
            return status, {"error": {"message": words}}
        if "ITEM1" not in str(body["messages"]):
            time.sleep(0.05 * (n_at_once > 1))  # they are on their way when the error comes
        return 200, GOOD_TOKENS if "logprobs" in body else chat('{"answer": "likely"}')

    with FakeServer(answer) as server:
        llm = engine(server, max_concurrency=n_at_once)
        items = [f"ITEM{i}" for i in range(5)]
        results = dict(llm.choice_probabilities("r ", items, ["?"], LABELS))
        more = dict(llm.choice_probabilities("r ", ["a", "b"], ["?"], LABELS))
    good = [results[i] for i in (0, 2, 3, 4)] + list(more.values())
    assert good == 6 * [[pytest.approx([0.125, 0.075, 0.075, 0.6, 0.125])]]
    if n_at_once == 1:
        assert words in results[1].reason
    assert not any("refuses" in note for note in llm.notes)
    assert {"seed", "logprobs", "response_format"} <= set(server.requests[-1])


def test_a_busy_server_that_names_a_parameter_is_asked_again():
    answers = [(200, GOOD_TOKENS), (503, {"error": "logprobs temporarily unavailable"})]
    with FakeServer(lambda *_: answers.pop(0) if answers else (200, GOOD_TOKENS)) as server:
        llm = engine(server, max_concurrency=1, max_retries=1)
        results = dict(llm.choice_probabilities("r ", ["a", "b", "c"], ["?"], LABELS))
    assert not any(isinstance(result, Failure) for result in results.values())
    assert not any("refuses" in note for note in llm.notes)
    assert server.requests[-1]["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ((307, {}, {"Location": "/v1/chat/completions"}), "redirects without end"),
        ((307, {}, {"Location": "ftp://x/"}), "not HTTP"),
        ((200, b"notgzip", {"Content-Encoding": "gzip"}), "cannot be decompressed"),
        ((200, {"error": {"message": "No.", "code": "content_filter"}}), "refused to answer"),
        ((503, {}, {"Retry-After": "1e300"}), "asks to wait 1e+300 s"),
    ],
)
def test_a_failure_says_what_was_wrong(odd: Any, words: str):
    with FakeServer(lambda sent, _: second_of_three(sent, odd)) as server:
        llm = engine(server, max_concurrency=1, max_retries=1)
        results = dict(labels(llm, [f"ITEM{i}" for i in range(3)]))
    assert words in results[1].reason
    assert len(results[1].reason) < 300
    assert (results[0], results[2]) == ("likely", "likely")


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": {"message": "This model doesn't support the 'logprobs' parameter"}}),
        (403, {"error": {"message": "You are not allowed to request logprobs from this model"}}),
        (500, {"error": {"message": "logprobs is not implemented"}}),
        (200, chat('{"answer": "likely"}')),
    ],
)
def test_a_model_without_logprobs_gets_advice(refusal: Any):
    ok = (200, chat('{"answer": "likely"}'))
    with FakeServer(lambda body, _: refusal if body.get("logprobs") else ok) as server:
        llm = engine(server)
        with pytest.raises(LLMError, match=r"logprobs\): judge with readout='label'"):
            list(llm.choice_probabilities("r ", ["i ", "j "], ["?"], LABELS))


def about_item(server_answer: Any, number: int = 1) -> tuple[list[Any], FakeServer]:
    """The results of three prompts, of which the server answers one in another way."""
    others = [("very l", 0.1), ("very u", 0.1), ("unl", 0.1), ("uns", 0.1)]
    shown = written(step("likely", 0.6, others))
    answered = (200, chat(text_of(shown), tokens=shown))

    def answer(body: Any, _: Any) -> Any:
        asked = f"ITEM{number}" in str(body["messages"]) and body.get("logprobs")
        return server_answer if asked else answered

    with FakeServer(answer) as server:
        llm = engine(server, max_concurrency=1, max_retries=0)
        items = [f"ITEM{i}" for i in range(3)]
        results = dict(llm.choice_probabilities("r ", items, ["?"], LABELS))
    assert llm.notes == [note for note in llm.notes if "left out" not in note]
    return [results[i] for i in range(3)], server


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": {"message": "logprobs are not available for this request"}}),
        (500, {"error": {"message": "failed to compute logprobs"}}),
        (503, {"error": {"message": "logprobs temporarily unavailable"}}),
        (400, {"error": {"message": "could not compile json schema: grammar failure"}}),
        (200, chat('{"answer": "likely"}')),
    ],
)
def test_what_a_server_says_of_one_prompt_changes_no_other(refusal: Any):
    results, server = about_item(refusal)
    assert [isinstance(result, Failure) for result in results] == [False, True, False]
    assert len(server.requests) == (3 if refusal[0] in (200, 503) else 4)
    if refusal[0] in (200, 503):  # as the first answer, too
        results, _ = about_item(refusal, 0)
        assert [isinstance(result, Failure) for result in results] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("very unlikely", [token('{"answer": "', 0.9), step("very", 0.9, [("un", 0.1)]),
                           step(" likely", 0.9, [(" un", 0.1)])]),
        ("unlikely", written(step("likely", 0.6, ALL))),
    ],
)  # fmt: skip
def test_tokens_that_are_not_those_of_the_answer_are_a_failure(content: str, tokens: Any):
    body = chat(json.dumps({"answer": content}), tokens=tokens)
    with FakeServer(lambda *_: (200, body)) as server:
        ((_, result),) = engine(server).choice_probabilities("r ", ["i "], ["?"], LABELS)
    assert "are not those of its answer" in result.reason


def test_a_key_in_the_tokens_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-live-Zq8R2mT5wX7cV1bN")
    for odd in ({"logprob": "Bearer sk-live-Zq8R2mT5wX7cV1bN"},
                {"token": ["SK-LIVE-ZQ8R2MT5WX7CV1BN"]}):  # fmt: skip
        result = probabilities(written(step("likely", 0.6, ALL) | odd))
        assert "cannot be read" in result.reason
        assert "zq8r2" not in result.reason.lower()


@pytest.mark.parametrize("raw", [10**13, 7, True, "very", {"a": 1}])
def test_bytes_that_are_no_list_are_not_read(raw: Any):
    tops = [{**token("very", 0.2), "bytes": raw}, token("un", 0.2)]
    shown = written(step("likely", 0.6, ALL) | {"top_logprobs": tops})
    assert probabilities(shown) == pytest.approx([0.1, 0.1, 0.1, 0.6, 0.1])


def test_a_refusal_in_an_answer_of_status_200_is_asked_once():
    error = {"error": {"code": "content_filter", "message": "The model refuses."}}
    with FakeServer(lambda *_: (200, error)) as server:
        ((_, result),) = engine(server, max_retries=3).generate(["a"])
    assert "the server refused to answer" in result.reason
    assert len(server.requests) == 1


def test_a_redirect_is_not_called_a_closed_connection():
    answer = (307, {}, {"Location": "/v1/chat/completions"})
    with FakeServer(lambda *_: answer) as server:
        ((_, result),) = engine(server, max_retries=0).generate(["a"])
    assert "the server redirects without end: check base_url" in result.reason


@pytest.mark.parametrize("where", ["answer", "error", "models", "head"])
def test_a_server_that_drips_is_not_waited_for(where: str):
    def drip(handler: Any, status: int = 200) -> None:
        if where != "head":
            handler.send_response(status)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
        for _ in range(60):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX" if where == "head" else b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    class Dripping(FakeServer):
        def __init__(self) -> None:
            super().__init__(self.answer)
            handler = self._http.RequestHandlerClass
            if where == "models":
                handler.do_GET = lambda this: drip(this)  # type: ignore[attr-defined]

        def answer(self, body: Any, handler: Any) -> Any:
            if where == "models":
                return 200, GOOD
            return drip(handler, 500 if where == "error" else 200)

    with Dripping() as server:
        started = time.monotonic()
        llm = engine(server, timeout_s=0.5)
        ((_, results),) = llm.generate(["a"], choices=["likely", "unlikely"])
        assert time.monotonic() - started < 3
    if where == "models":
        assert results == "likely"
    else:
        assert results == Failure("no complete answer in 0.5 s; asked 1 time")


def packed_zeros(handler: Any, n_bytes: int) -> None:
    data = gzip.compress(b"0" * n_bytes)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def endless_zeros(handler: Any, status: int = 200) -> None:
    handler.send_response(status)
    handler.end_headers()
    for _ in range(2000):  # 2 GB
        handler.wfile.write(b"0" * 1_000_000)


@pytest.mark.parametrize(
    ("send", "words"),
    [
        (lambda handler: endless_zeros(handler), "more than 32 MiB"),
        (lambda handler: endless_zeros(handler, 500), "more than 32 MiB"),
        (lambda handler: packed_zeros(handler, 200_000_000), "more than 32 MiB"),
    ],
    ids=["endless", "error", "packed"],
)
def test_an_answer_without_end_is_one_failure(send: Any, words: str):
    def answer(body: Any, handler: Any) -> Any:
        return second_of_three(body, None) or send(handler)

    with FakeServer(answer) as server:
        llm = engine(server, max_retries=2)
        results = dict(llm.generate([f"ITEM{i}" for i in range(3)], choices=["likely", "unlikely"]))
        n_requests = len(server.requests)
    assert (results[0], results[2]) == ("likely", "likely")
    assert words in results[1].reason
    assert n_requests == 3


def test_a_packing_that_was_not_asked_for_is_one_failure():
    with FakeServer(lambda *_: (200, GOOD, {"Content-Encoding": "zstd"})) as server:
        ((_, results),) = engine(server).generate(["a"], choices=["likely", "unlikely"])
    assert "packed in a way not asked for: 'zstd'" in results.reason


def test_a_packed_answer_is_read():
    packed = gzip.compress(json.dumps(GOOD).encode())
    with FakeServer(lambda *_: (200, packed, {"Content-Encoding": "gzip"})) as server:
        assert dict(engine(server).generate(["a"], choices=["likely", "unlikely"])) == {0: "likely"}


@pytest.mark.parametrize("part", ["<", "<title>", "<title", "<script>", "<h1>a", "< >"])
def test_words_of_a_hostile_page_take_time_in_proportion(part: str):
    started = time.process_time()
    server_words("<html>" + part * (500_000 // len(part)))
    assert time.process_time() - started < 3


@pytest.mark.parametrize("wait", ["nan", "-5", "soon", "", "Mon, 99 Foo 2020 00:00:00 GMT"])
def test_an_odd_retry_after_is_ignored(wait: str):
    answers = [(429, {}, {"Retry-After": wait})]
    with FakeServer(lambda *_: answers.pop() if answers else (200, GOOD)) as server:
        llm = engine(server, max_retries=2)
        assert dict(llm.generate(["a"], choices=["likely", "unlikely"])) == {0: "likely"}
    with FakeServer(lambda *_: (429, {}, {"Retry-After": "inf"})) as server:
        ((_, results),) = engine(server, max_retries=2).generate(["a"])
    assert "asks to wait inf s" in results.reason


@pytest.mark.parametrize("values", [(None, None), (0.0, 0.0), (0.0, None), (-9999.0, 0.0)])
def test_vllms_exact_probabilities_survive_an_odd_answer(values: tuple[float | None, float | None]):
    shown = {"token_id:1": None, "token_id:2": math.log(0.3)}
    odd = {"token_id:1": values[0], "token_id:2": values[1]}
    served = {"data": [{"id": "fake", "owned_by": "vllm", "max_model_len": 512}]}

    def answer(body: Any, handler: Any) -> Any:
        if handler.path == "/tokenize":
            texts = {"no": [2], "yes": [1]}
            turn = str(body.get("messages", ""))
            return 200, {"tokens": texts.get(body.get("prompt", ""), [7 + ("ITEM1" in turn)])}
        which = odd if body["prompt"][0] == 8 else shown
        return 200, {"choices": [{"logprobs": {"top_logprobs": [which]}}]}

    with FakeServer(answer, (200, served)) as server:
        llm = engine(server, max_concurrency=1)
        items = [f"ITEM{i}" for i in range(3)]
        results = dict(llm.choice_probabilities("", items, ["?"], ["yes", "no"]))
    assert results[0] == results[2] == [[0.0, 1.0]]
    assert isinstance(results[1], Failure)
    assert "cannot be read" in results[1].reason


def secrets_of(url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any, answer: Any) -> str:
    """Everything that may be shown of a run with this address: messages, notes, logs, records."""
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    options = {"base_url": url, "key_variable": "TEST_KEY", "max_retries": 0}
    llm = OpenAILLM("fake", **options)
    try:
        results = str(dict(llm.generate(["a"], choices=["likely", "unlikely"])))
    except LLMError as error:
        results = (
            f"{error} {error.__cause__} {error.__notes__ if hasattr(error, '__notes__') else ''}"
        )
    record = json.dumps(describe_llm({"engine": "openai", "model_id": "fake", **options}))
    return f"{results} {llm.notes} {caplog.text} {llm.key} {llm.options()} {record} {llm!r}"


ECHOES = {
    "401": (
        401,
        {"error": {"message": f"Incorrect API key {KEY}; url /hidden-part/v1?k=query-secret"}},
    ),
    "hidden in part": (401, {"error": {"message": "Incorrect API key sk-live-***********cdef"}}),
    "400": (
        400,
        {"error": {"message": f"Authorization: Bearer {KEY} at hidden-part, query-secret"}},
    ),
    "long": (400, "x" * 390 + KEY + " hidden-part query-secret"),
    "refused": (400, {"error": {"message": f"seed of hidden-part query-secret {KEY}"}}),
    "200": (200, f"<html>Authorization: Bearer {KEY} GET /hidden-part/v1?k=query-secret"),
    "answer": (200, chat(f"{KEY} hidden-part query-secret")),
    "number": (200, chat(7, note=f"{KEY} hidden-part query-secret")),
    "escaped": (500, '{"error": "' + KEY.replace("-", "\\u002d") + ' \\u0068idden-part"}'),
    "500": (500, f"Traceback: Bearer {KEY}, /hidden-part/v1?k=query%2Dsecret"),
    "good": (200, GOOD),
}


@pytest.mark.parametrize("name", ECHOES)
def test_keys_reach_no_message_log_or_record(name: str, monkeypatch, caplog):
    with FakeServer(lambda *_: ECHOES[name]) as server:
        url = f"{server.address}/hidden-part/v1?k=query-secret"
        shown = secrets_of(url, monkeypatch, caplog, ECHOES[name])
        assert all("k=query-secret" in path for path in server.paths)
        assert all(path.startswith("/hidden-part/v1/") for path in server.paths)
    for secret in (KEY, KEY[:12], "hidden-part", "query-secret", "query%2Dsecret", "cdef"):
        assert secret not in shown, f"{secret} in {shown}"
    assert server.address in shown


def test_an_answer_that_repeats_a_key_is_kept_without_it(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    written = f"**Key** {KEY} of models at query-secret; sk-live is none"
    with FakeServer(lambda *_: (200, chat(written))) as server:
        url = f"{server.address}/models/v1?k=query-secret"
        llm = OpenAILLM("fake", base_url=url, key_variable="TEST_KEY", max_retries=0)
        assert dict(llm.generate(["a"])) == {0: "**Key** … of models at …; sk-live is none"}


def test_all_parts_of_a_query_are_hidden_but_no_short_ones():
    address = parse_address("base_url", "https://host/v1?a=1&SECRETKEY99&b=the-secret")
    assert set(address.secrets) == {"SECRETKEY99", "the-secret"}
    assert Secrets(address.secrets).mask("line 1 of SECRETKEY99") == "line 1 of …"


@pytest.mark.parametrize(
    "shown",
    ["sk-live…cdef", "sk-live...cdef", "sk-...cdef", "sk-l••••••cdef", "sk-live-xxxxxxxxcdef",
     "sk-live-##########cdef", "****cdef", "...cdef", "sk-live-...", "sk-live-[REDACTED]cdef",
     "sk-live-<hidden>cdef", "(sk-live…cdef),", "api_key=sk-live…cdef", "sk-live-01234567",
     "89abcdef", "XX0123456789abcXX", "sk-live-0123456789abcdeX"],
)  # fmt: skip
def test_what_a_server_shows_of_a_key_is_masked(shown: str):
    masked = Secrets([KEY]).mask(f"Incorrect API key {shown} was given")
    assert masked.startswith("Incorrect API key ")
    assert masked.endswith(" was given")
    for part in ("cdef", "live", "0123", "4567"):
        assert part not in masked, masked


def test_words_that_are_not_of_a_key_stay():
    text = "Waiting... the model <think> [INST] ...and so on; live *and* well, 5x xxx, sk-"
    assert Secrets([KEY, "none"]).mask(text) == text


@pytest.mark.parametrize("user", ["", ":", "me:", "user:"])
def test_a_key_in_base64_is_masked(user: str):
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        header = encode(f"{user}{KEY}".encode()).decode()
        masked = Secrets([KEY]).mask(f"Authorization: Basic {header} refused")
        inner = header[4 * len(user) // 3 + 2 : -4]
        assert all(inner[i : i + 6] not in masked for i in range(len(inner) - 5)), masked
    assert hashlib.sha256(KEY.encode()).hexdigest() not in Secrets([KEY]).mask(
        f"Key hash: {hashlib.sha256(KEY.encode()).hexdigest()}"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://{KEY}.proxy.host/v1", "https://….proxy.host/v1"),
        (f"https://gateway-{KEY[8:]}.host/v1", "https://….host/v1"),
        (f"https://{KEY.upper()}.host:8443/v1", "https://….host:8443/v1"),
        ("https://7f3ab012-11aa-4e00-9c1d-5e6f70819203.host/v1", "https://….host/v1"),
        (f"https://host/v1#{KEY}", "https://host/v1"),
        (f"https://host/v1;key={KEY}", "https://host/…"),
        ("https://ec2-123-45-67-89.compute-1.amazonaws.com/v1", None),
        ("https://my-models-eastus2.openai.azure.com/openai/v1", None),
        ("http://[2001:db8:85a3::8a2e:370:7334]:8000/v1", None),
        ("http://192.168.100.123:8000/v1", None),
        ("https://generativelanguage.googleapis.com/v1beta/openai", None),
    ],
)
def test_keys_in_the_name_of_a_host_or_behind_the_address(url: str, shown: str | None):
    address = parse_address("base_url", url)
    assert address.shown == (shown or url)
    assert bool(address.secrets) == (shown is not None)
    masked = Secrets(address.secrets).mask(f"GET {address.base} of {url.lower()}")
    assert KEY not in masked
    assert (KEY[8:] in masked) is False


def test_a_long_text_without_spaces_is_masked_at_once():
    # with a pattern of quadratic time, this would take hours
    text = "[" * 2**20
    assert Secrets([KEY]).mask(f"{text} sk-a***bc {KEY}") == f"{text} … …"


def test_keys_in_the_address_of_a_server_that_cannot_be_reached(monkeypatch, caplog):
    url = "http://127.0.0.1:9/hidden-part/v1?k=query-secret"
    shown = secrets_of(url, monkeypatch, caplog, None)
    assert "http://127.0.0.1:9/…/v1?…, cannot be reached" in shown
    assert "secret" not in shown
    assert "hidden" not in shown
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(LLMError, match="cannot be reached") as caught:
        list(OpenAILLM("fake", key_variable="TEST_KEY").generate(["a"]))
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL contains a user name") as caught:
        list(OpenAILLM("fake", key_variable="TEST_KEY").generate(["a"]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:the-secret@host/v1",
        "https://the-secret@host/v1",
        "ftp://host/the-secret",
        "host/v1?key=the-secret",
        "https://the-secret\u2100@host/v1",
        "https://host:the-secret/v1",
        "https://host:99999/the-secret",
        "https://host/v1\n?key=the-secret",
        "https://[::1/the-secret",
    ],
)
def test_an_address_that_is_refused_is_not_shown(url: str):
    with pytest.raises(ConfigError, match="base_url") as caught:
        OpenAILLM("fake", base_url=url)
    assert "the-secret" not in str(caught.value)
    assert "the-secret" not in str(caught.value.__cause__)
    assert "the-secret" not in str(describe_llm({"engine": "openai", "base_url": url}))


@pytest.mark.parametrize(
    "given",
    ["sk-live-0123", "hf_abcdefghijklmnopqrstuvwxyzABCD", "gsk_0a1b2c3d4e5f6a7b8c9d", "Bearer x",
     "0123456789abcdef0123456789abcdef", "A1B2C3D4E5F6A7B8C9D0"],
)  # fmt: skip
def test_a_key_in_place_of_its_variable_is_refused_and_not_shown(given: str, monkeypatch):
    with pytest.raises(ConfigError, match="may be a key, so it is not shown") as caught:
        OpenAILLM("fake", key_variable=given)
    assert given not in str(caught.value)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert given not in str(describe_llm({"engine": "openai", "key_variable": given}))
    # a short one passes for a name, but no message repeats it
    with pytest.raises(LLMError, match="no API key") as caught:
        list(OpenAILLM("fake", key_variable="hf_abc").generate(["a"]))
    assert "hf_abc" not in str(caught.value)


def test_an_ordinary_address_and_variable_are_shown_as_they_are():
    spec = {
        "engine": "openai",
        "model_id": "m",
        "base_url": "http://localhost:8000/v1",
        "key_variable": "DEEPSEEK_API_KEY",
    }
    assert describe_llm(spec) == spec


def test_words_of_a_server_are_short_and_on_one_line():
    words = server_words(json.dumps({"error": {"message": "a\n" * 5000, "code": 1}}))
    assert words.isprintable()
    assert len(words) <= 400


def test_unseen_probability_is_that_of_the_place_where_the_answer_is_decided():
    # the JSON around the answer is forced, however improbable the model finds it
    steps = [step('{"answer": "', 1e-4, [("Sure", 0.9)]), step("likely", 0.6, ALL)]
    mass = read_choice_mass(steps, LABELS, "json")
    assert mass.problem(LABELS) is None
    assert choice_probabilities(mass, LABELS)[3] == pytest.approx(0.6)
    # white space before a text is not: what is not shown there may be a label
    mass = read_choice_mass([step('"', 0.5), step("likely", 0.99)], LABELS, "text")
    assert "only 50 %" in str(mass.problem(LABELS))


FIVE = [("very l", 0.1), ("very u", 0.05), ("unl", 0.2), ("uns", 0.05)]
# what servers write for a probability of 0
NEVER = {"token": "unlikely", "logprob": -9999.0}
PLAIN_FIVE = [0.05, 0.2, 0.05, 0.6, 0.1]
REASONED = [
    step("Likely", 0.3, [("unl", 0.3), ("very l", 0.4)]),
    step(", because", 0.9),
    step("</think>", 0.9),
    step("\n\n", 1.0),
    step("likely", 0.6, FIVE),
]


@pytest.mark.parametrize(
    ("content", "tokens", "expected"),
    [
        # vLLM shows the tokens of the reasoning that it has taken out of the text
        ("likely", REASONED, PLAIN_FIVE),
        ("<think>Likely, because</think>\n\nlikely", REASONED, PLAIN_FIVE),
        ("likely", [step("<|message|>", 1.0), step("likely", 0.6, FIVE)], PLAIN_FIVE),
        ("likely", [step("<s>", 1.0), step("likely", 0.6, FIVE)], PLAIN_FIVE),
        ("likely", [step("likely", 0.6, FIVE), step("</s>", 1.0)], PLAIN_FIVE),
        # without a mark between both, nobody knows where the answer begins
        ("likely", [*REASONED[:2], *REASONED[4:]], "more tokens than those of the answer"),
        # a word that is none of the choices is the answer
        ("The answer", [step("The", 0.6, [("likely", 0.4)])], "none of the choices, with a prob"),
        # a label with less than half is not certain, although no other label is shown
        (
            "likely",
            [step("likely", 0.4, [("The", 0.35), ("I", 0.25)])],
            "60 % of the probability goes to answers that are none of the choices",
        ),
        (
            "likely",
            [token("likely", 0.4, top_logprobs=[token("likely", 0.4), token("The", 0.6), NEVER])],
            "give the rest to 'likely' alone",
        ),
        ("likely", [step("likely", 0.5, [("The", 0.5)])], "50 % of the probability goes to"),
        # where several are shown, their shares are what the model thinks of the labels
        (
            "likely",
            [step("likely", 0.2, [("unlikely", 0.15), ("unsure", 0.05), ("The", 0.6)])],
            [0.0, 0.375, 0.125, 0.5, 0.0],
        ),
        # two probabilities of one token
        (
            "likely",
            [{**step("likely", 0.1), "top_logprobs": [token("likely", 0.6), token("un", 0.4)]}],
            "the probability 0.1, and 0.6 in the list",
        ),
    ],
)
def test_only_the_tokens_of_the_answer_count(content: str, tokens: Any, expected: Any):
    with FakeServer(lambda *_: (200, chat(content, tokens=tokens))) as server:
        ((_, result),) = engine(server).choice_probabilities("r ", ["i "], ["?"], LABELS)
    if isinstance(expected, str):
        assert expected in result.reason
    else:
        assert result == [pytest.approx(expected)]


@pytest.mark.parametrize(
    "content",
    [
        "[THINK]unlikely?[/THINK]likely",
        "<thinking>unlikely</thinking>likely",
        "<|channel|>analysis<|message|>unlikely<|end|><|start|>assistant<|channel|>final"
        "<|message|>likely",
        "<|START_THINKING|>un<|END_THINKING|><|START_RESPONSE|>likely<|END_RESPONSE|>",
        "◁think▷unlikely◁/think▷likely",
        "likely</s>",
        "likely<|im_end|>\n",
    ],
)
def test_reasoning_and_special_tokens_around_a_label_are_ignored(content: str):
    with FakeServer(lambda *_: (200, chat(content))) as server:
        assert dict(labels(engine(server), ["a"])) == {0: "likely"}


@pytest.mark.parametrize(
    ("content", "choices", "expected"),
    [
        ('{"answer": null}', ["none", "some"], None),
        ('{"other": 1}', ["None", "some"], None),
        ("null", ["none", "some"], None),
        ("null", ["null", "some"], "null"),
        ("none", ["None", "some"], "None"),
        ("1.50", ["1.50", "2.50"], "1.50"),
        ("a.", ["A", "a", "b"], None),
        ("a", ["A", "a", "b"], "a"),
        ("very\u00a0likely", ["very likely", "unlikely"], "very likely"),
    ],
)
def test_no_choice_is_invented(content: str, choices: list[str], expected: str | None):
    with FakeServer(lambda *_: (200, chat(content))) as server:
        ((_, result),) = engine(server).generate(["a"], choices=choices)
    if expected is None:
        assert "none of the choices" in result.reason
    else:
        assert result == expected


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "content_filter"},
        {"finish_reason": "SAFETY", "message": None},
        {"finish_reason": "guardrail_intervened", "message": {"content": "Sorry."}},
    ],
)
def test_a_filter_that_leaves_no_message_is_a_refusal_and_is_asked_once(choice: Any):
    odd = (200, {"choices": [choice]})
    with FakeServer(lambda sent, _: second_of_three(sent, odd)) as server:
        results = dict(labels(engine(server, max_retries=2), [f"ITEM{i}" for i in range(3)]))
    assert "refused to answer" in results[1].reason
    assert (results[0], results[2]) == ("likely", "likely")
    assert len(server.requests) == 3


def test_an_answer_with_a_byte_order_mark_is_read():
    body = b"\xef\xbb\xbf" + json.dumps(GOOD).encode()
    with FakeServer(lambda *_: (200, body)) as server:
        assert dict(labels(engine(server), ["a"])) == {0: "likely"}


@pytest.mark.parametrize(
    ("blocked", "words"),
    [
        ((403, "<html><title>Attention Required!</title></html>"), "Attention Required!"),
        ((404, {"error": {"message": "no template for it"}}), "no template for it"),
    ],
)
def test_a_server_that_dislikes_the_first_prompt_does_not_end_the_run(blocked: Any, words: str):
    def answer(body: Any, _: Any) -> Any:
        return blocked if "ITEM0" in str(body["messages"]) else (200, GOOD)

    with FakeServer(answer) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(labels(llm, [f"ITEM{i}" for i in range(3)]))
    assert f"{blocked[0]}: {words}" in results[0].reason
    assert (results[1], results[2]) == ("likely", "likely")
    # a key that may not use the model, and a model that there is not, end it
    for n_prompts in (1, 9):
        with FakeServer(lambda *_: blocked) as server:
            with pytest.raises(LLMError, match=f"{blocked[0]} {words}"):
                dict(labels(engine(server, max_concurrency=1), ["a"] * n_prompts))
            assert len(server.requests) == min(n_prompts, 3)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("logprobs", "logprobs are not available for this prompt"),
        ("response_format", "could not compile the json schema"),
    ],
)
def test_an_error_about_the_first_prompt_costs_the_others_no_parameter(parameter: str, words: str):
    def answer(body: Any, _: Any) -> Any:
        if "ITEM0" in str(body["messages"]) and parameter in body:
            return 400, {"error": {"message": words}}
        return 200, GOOD_TOKENS if "logprobs" in body else chat('{"answer": "likely"}')

    with FakeServer(answer) as server:
        llm = engine(server, max_concurrency=1)
        items = [f"ITEM{i}" for i in range(3)]
        results = dict(llm.choice_probabilities("r ", items, ["?"], LABELS))
    assert results[1] == results[2] == [pytest.approx([0.125, 0.075, 0.075, 0.6, 0.125])]
    assert parameter in server.requests[-1]
    assert not any("refuses" in note for note in llm.notes)


@pytest.mark.parametrize(
    "told",
    [
        (400, {"error": "unsupported path"}),
        (422, {"detail": "body"}),
        (500, {"error": "no route"}),
        (501, {}),
        (200, "<html>"),
        (200, {"error": "no such route"}),
        (200, {"tokens": []}),
    ],
)
def test_a_gateway_before_vllm_that_passes_chats_only_is_read_by_its_shown_tokens(told: Any):
    served = {"data": [{"id": "fake", "owned_by": "vllm", "max_model_len": 512}]}

    def answer(_: Any, handler: Any) -> Any:
        return (200, GOOD_TOKENS) if "chat" in handler.path else told

    with FakeServer(answer, (200, served)) as server:
        llm = engine(server, max_concurrency=1)
        results = dict(llm.choice_probabilities("", ["i", "j"], ["?"], LABELS))
    assert results[0] == results[1] == [pytest.approx([0.125, 0.075, 0.075, 0.6, 0.125])]
    n_others = len([path for path in server.paths if "chat" not in path and "models" not in path])
    assert n_others <= 2 + 2 * len(LABELS)
