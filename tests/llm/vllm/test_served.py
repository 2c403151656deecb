"""The engine "openai" against vLLM's own server."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from synque_select.llm.base import BaseLLM
from synque_select.llm.openai.engine import OpenAILLM
from synque_select.llm.transformers.engine import TransformersLLM
from synque_select.llm.vllm.process_group import kill_group
from synque_select.testing import LLMConformance, choice_table
from tests.llm.models import SCHEMA
from tests.llm.vllm.pictures import ITEMS, PREFIX

START_S = 600
LENGTH = 1024


@pytest.fixture(scope="module")
def server(smollm2, python, tmp_path_factory):
    with _serving(python, smollm2, "smollm2", tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture(scope="module")
def picture_server(pictures, python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    with _serving(python, pictures, "pictures", folder, "--enforce-eager") as url:
        yield url


@contextmanager
def _serving(python: str, model: str, name: str, folder: Path, *options: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", str(LENGTH), *options,
    ]  # fmt: skip
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait(child, url, log)
        yield url
    finally:
        kill_group(child.pid)
        child.wait()


def _wait(child, url, log) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


class TestServed(LLMConformance):
    atol = 1e-3
    reads_images = False

    @pytest.fixture
    def llm(self, server) -> BaseLLM:
        return OpenAILLM("smollm2", base_url=server)

    def test_an_image_is_read_or_refused(self, llm):
        pytest.skip("the server refuses images of a model that reads none, prompt by prompt")


def test_probabilities_match_transformers(server, smollm2):
    reference = TransformersLLM(smollm2, device="cpu", dtype="float32")
    table = choice_table(OpenAILLM("smollm2", base_url=server))
    torch.testing.assert_close(table, choice_table(reference), rtol=0, atol=2e-3)


def test_json_and_the_context_length_of_the_server(server):
    llm = OpenAILLM("smollm2", base_url=server)
    ((_, answer),) = llm.generate(["List three cities."], schema=SCHEMA, max_tokens=400)
    assert len(json.loads(answer)["points"]) >= 3
    assert llm.context_length == LENGTH
    assert llm.usage.n_prompt_tokens > 0


class TestServedImages(LLMConformance):
    atol = 1e-4
    reads_images = True

    @pytest.fixture
    def llm(self, picture_server) -> BaseLLM:
        return OpenAILLM("pictures", base_url=picture_server)


def test_probabilities_about_images_match_transformers(picture_server, pictures):
    reference = TransformersLLM(pictures, device="cpu", dtype="float32")
    table = choice_table(OpenAILLM("pictures", base_url=picture_server), PREFIX, ITEMS)
    expected = choice_table(reference, PREFIX, ITEMS)
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-4)
