"""Which partition of synthetic web tasks is worth training an agent on?

Candidates are partitions of tasks on one website, or trajectories of your own in conversation
format; the model is a causal language model with LoRA adapters. There is no live environment here:
a fit is measured by its token loss on held-out steps, not by the tasks that it solves. To run it:
`synque-select experiment --config web-small`, or `python -m
synque_select.recipes.web_navigation`, which ranks the released partitions of every site before.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning import LightningModule

from synque_select.benchmark.layout import Group, Task
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file
from synque_select.data.views import Selector, fields_view
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.experiment import BaseTask, unseen
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._causal_lm import (
    CausalLMModule,
    Dtype,
    Encoded,
    Packer,
    encode_chat,
    load_tokenizer,
)
from synque_select.recipes._lightning import TaskDataModule
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    RealDraws,
    agreement_message,
    picked,
    released_task,
    taken_out_message,
)
from synque_select.selection.scorer import rank
from synque_select.types import Ranking
from synque_select.utils.validation import check_int

__all__ = ["WebDataModule", "WebTask", "main", "rank_partitions", "steps_of"]

_VALIDATION_SHARE = 1 / 3


def steps_of(conversation: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Split a trajectory into its steps: what the agent had seen, and what it then did.

    Args:
        conversation: {"messages": [{"role": …, "content": …}, …]}, with the agent as "assistant";
            "task" and "page" if they are there. Without a task, the first user's message is it.
        where: Where it stands, for messages.

    Returns:
        A step for each of the agent's turns: {"task", "page", "prompt", "answer"}.

    Raises:
        DataError: It has no messages, a message lacks its role or content, or the agent says
            nothing.

    Example:
        >>> turns = [("user", "Buy tea"), ("assistant", "click [1]")]
        >>> messages = [{"role": role, "content": content} for role, content in turns]
        >>> steps_of({"messages": messages}, "line 1")[0]["answer"]
        'click [1]'
    """
    messages = conversation.get("messages")
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise DataError(
            f"{where}: expected `messages`, a list of records with the texts `role` and `content`"
        )
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    said = [turn["content"] for turn in turns if turn["role"] == "user"]
    at = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i > 0]
    if not at or not said:
        raise DataError(f"{where}: expected a message of the user and one of the assistant")
    # where other records have the field, a file's reader gives None to those without
    task, page = conversation.get("task") or said[0], conversation.get("page") or ""
    if not isinstance(task, str) or not isinstance(page, str):
        raise DataError(f"{where}: expected texts as `task` and `page`")
    return [
        {"task": task, "page": page, "prompt": turns[:i], "answer": turns[i]["content"]} for i in at
    ]


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(name), str) for name in ("role", "content")
    )


def _named_task(site: str, task: str, page: str) -> dict[str, Any]:
    """Make the one step that a task alone allows: to name it."""
    asked = f"Website: {site}. Name a task that a person would do there."
    return {
        "task": task,
        "page": page,
        "prompt": [{"role": "user", "content": asked}],
        "answer": task,
    }


class _Data(NamedTuple):
    """Candidates and labeled real examples, all of steps, and draws of real samples."""

    candidates: list[Candidate]
    draws: RealDraws
    labeled: Examples
    released: Mapping[str, float]
    messages: tuple[str, ...]


class WebTask(BaseTask):
    """Partitions of web tasks, unannotated real tasks, a language model with LoRA; token loss.

    With `candidates`, `real` and `labeled` the data is yours: candidates and labeled are
    trajectories in conversation format (`steps_of`), the real sample is a file with a field `task`
    (and `page`). A trajectory's steps are examples; validation and test share no task with each
    other or with a real sample.

    Without them it is one website of the released data. That holds tasks and the page that they
    begin on, but no trajectories: the only step that can be trained is to name a task, and the loss
    says how well the model foresees what real people ask of that site, not how well it navigates.
    The released real samples hold nearly all real tasks of a site and leave none to measure on, so
    half of the tasks become a pool from which real samples are drawn.

    Args:
        data: A clone of the released repository, or its folder `data`; None for what
            SYNQUE_BENCHMARK_DATA names. Not read where `candidates` is given.
        site: A website of the released data; None for the first by name.
        candidates: Files of your own, or anything else that `load_candidates` takes.
        real: Your unannotated real tasks; a replicate draws `n_real` of them.
        labeled: Your held-out trajectories.
        n_real: Tasks of a real sample; None for two thirds of the pool.
        page_chars: How much of the page a proxy sees beside the task, for LENS with the prompts
            "web_page"; 0 for the task alone.
        n_distinct: Distinct steps that every arm trains on; None for the smallest candidate.
        max_steps: Optimiser steps of a fit; None for `epochs` passes.
        epochs: Read only where `max_steps` is None.
        batch_size: Examples a step.
        model_id: A folder or a hub id; some come from packages.
        learning_rate: See `CausalLMModule`, as for the next arguments.
        warmup_share: Share of the steps that warm up.
        lora_rank: Rank of the adapters.
        lora_alpha: Their scale, times rank.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        dtype: Of the frozen weights.
        block_size: Tokens of a row at most; of a longer step, the end is kept.
        encoder: A text encoder's id; None for all-MiniLM-L6-v2.
        proxies: What scores the candidates; None for the default suite.
        seed: Of the draws of real samples.

    Raises:
        ConfigError: A number or a name is not allowed, or no data is named.
        DataError: A file has another form.
    """

    name = "web_navigation"
    metric = "loss"
    mode = "min"

    def __init__(
        self,
        data: str | None = None,
        site: str | None = None,
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        n_real: int | None = None,
        page_chars: int = 0,
        n_distinct: int | None = None,
        max_steps: int | None = None,
        epochs: int = 3,
        batch_size: int = 32,
        model_id: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
        learning_rate: float = 2e-5,
        warmup_share: float = 0.03,
        lora_rank: int = 64,
        lora_alpha: int = 128,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "bfloat16",
        block_size: int = 4096,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        check_int("batch_size", batch_size, 1)
        check_int("epochs", epochs, 1)
        check_int("page_chars", page_chars, 0)
        self._view: Selector = fields_view("task", "page") if page_chars else "task"
        self._page_chars, self._seed = page_chars, seed
        if candidates is None:
            self._data = self._released(data, site, n_real)
        elif real is None or labeled is None:
            raise ConfigError("candidates= needs real= and labeled= beside it")
        else:
            self._data = self._own(candidates, real, labeled, n_real)
        self.n_distinct = n_distinct or min(map(len, self.candidates))
        self.max_steps = max_steps or math.ceil(epochs * self.n_distinct / batch_size)
        self.batch_size, self.encoder, self.proxies = batch_size, encoder, proxies
        self._options: dict[str, Any] = {
            "model_id": model_id,
            "learning_rate": learning_rate,
            "warmup_share": warmup_share,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "gradient_checkpointing": gradient_checkpointing,
            "dtype": dtype,
        }
        self.collate_fn = Packer(block_size)

    def _released(self, data: str | None, site: str | None, n_real: int | None) -> _Data:
        task = released_task("web_agent", data)
        group = _site(task, site)
        pages = _Pages(task.folder, self._page_chars)
        candidates = [self._partition(group.name, c, pages) for c in group.candidates]
        real = self._real_steps(group, pages.of_site(group.name))
        order = np.random.default_rng(SPLIT_SEED).permutation(len(real)).tolist()
        half = len(real) // 2
        records = [_unlabeled(real[i]) for i in order[:half]]
        pool = RealSample(f"{group.name}, pool", records, self._view)
        labeled = Examples("real", [real[i] for i in order[half:]], self._view, "answer")
        said = (
            f"{group.name}: the released data holds no trajectories; the loss is that of naming "
            "the held-out real tasks of the site, in nats a token, and says nothing of success"
        )
        performance = dict(zip([c.name for c in candidates], group.performance, strict=True))
        draws = RealDraws(pool, n_real or _two_thirds(pool), seed=self._seed)
        return _Data(candidates, draws, labeled, performance, (said,))

    def _partition(self, site: str, candidate: Candidate, pages: _Pages) -> Candidate:
        page = pages.of_partition(Path(candidate.source).stem)
        steps = [_named_task(site, str(task), page) for task in candidate.views]
        return Candidate(candidate.name, steps, self._view, "answer", candidate.source)

    def _real_steps(self, group: Group, page: str) -> list[dict[str, Any]]:
        path = group.annotated
        if path is None or not path.is_file():
            raise DataError(f"{group.name}: no real tasks; expected the file {path}")
        tasks = Examples("real", load_dataset_file(path), "text", None, str(path))
        return [_named_task(group.name, str(task), page) for task in dict.fromkeys(tasks.views)]

    def _own(
        self, candidates: str | list[str], real: str, labeled: str, n_real: int | None
    ) -> _Data:
        loaded = load_candidates(candidates, view=_conversation)
        parts = [
            Candidate(c.name, self._all_steps(c), self._view, "answer", c.source) for c in loaded
        ]
        tasks = Examples("real", load_dataset_file(real), "task", None, real)
        # only what a proxy may see: whatever else the file holds is not read
        records = [_shown(record, self._page_chars) for record in tasks]
        pool = RealSample("real", records, self._view, None, real)
        held = Examples("labeled", load_dataset_file(labeled), _conversation, None, labeled)
        steps = Examples("labeled", self._all_steps(held), self._view, "answer", labeled)
        draws = RealDraws(pool, n_real or _two_thirds(pool), seed=self._seed)
        said = "the loss is that of held-out steps: no live environment, no success rate"
        return _Data(parts, draws, steps, {}, (said,))

    def _all_steps(self, conversations: Examples) -> list[dict[str, Any]]:
        """Return the steps of all trajectories; of a page, what proxies see."""
        steps = []
        for i, record in enumerate(conversations):
            steps += steps_of(record, f"{conversations.where}, record {i} (counted from 0)")
        return [{**step, "page": step["page"][: self._page_chars]} for step in steps]

    @property
    def candidates(self) -> list[Candidate]:
        """One candidate a partition."""
        return self._data.candidates

    @cached_property
    def validation(self) -> Examples:
        """The steps of a third of the labeled tasks that no real sample holds."""
        return self._part("validation", self._split[0])

    @cached_property
    def test(self) -> Examples:
        """The steps of the others."""
        return self._part("test", self._split[1])

    def real_sample(self, replicate: int) -> RealSample:
        """Draw from the pool."""
        return self._data.draws.draw(replicate)

    def model(self, seed: int) -> LightningModule:
        """Load the model, with fresh adapters."""
        return CausalLMModule(**self._options)

    def transform(self, record: Any) -> Encoded:
        """Turn a step into tokens."""
        tokenizer = load_tokenizer(self._options["model_id"])
        return encode_chat(tokenizer, record["prompt"], record["answer"], record)

    def fingerprint(self) -> Mapping[str, Any]:
        """Return hyper-parameters, and the steps, of which the views show only the task."""
        block_size = self.collate_fn.block_size  # type: ignore[union-attr]
        return {**self._options, "block_size": block_size, "steps": self._steps_sha256}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say what the loss is of, and how it agrees with the released success rates."""
        released = self._data.released
        if not released:
            n = len(self._data.labeled)
            left_out = taken_out_message(n, n - len(self._free), 0, what="steps")
            return (*self._data.messages, *left_out)
        agreement = agreement_message(test, released, "the released success rates", mode="min")
        return (*self._data.messages, agreement)

    @cached_property
    def _free(self) -> list[int]:
        """Positions of the steps whose task, with whatever page, no real sample can hold."""
        labeled, pool = self._data.labeled, self._data.draws.pool
        known = [Examples(part.name, list(part), "task") for part in (labeled, pool)]
        return unseen(*known)

    @cached_property
    def _split(self) -> tuple[list[int], list[int]]:
        """Positions of the steps for validation and for test; a task's are in one of the two."""
        labeled = self._data.labeled
        by_task: dict[str, list[int]] = {}
        for i in self._free:
            by_task.setdefault(labeled[i]["task"], []).append(i)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(by_task)).tolist()
        n_validation = max(2, round(len(order) * _VALIDATION_SHARE))
        if len(order) - n_validation < 2:
            raise DataError(
                f"{labeled.where}: {len(order)} tasks are in no real sample; 4 or more are "
                "needed, for validation and test"
            )
        steps = list(by_task.values())
        parts = order[:n_validation], order[n_validation:]
        return tuple([i for task in part for i in steps[task]] for part in parts)  # type: ignore[return-value]

    def _part(self, name: str, positions: Sequence[int]) -> Examples:
        return Examples(name, picked(self._data.labeled, positions), self._view, "answer")

    @cached_property
    def _steps_sha256(self) -> str:
        parts = (*self.candidates, self.validation, self.test)
        told = [[[step["prompt"], step["answer"]] for step in part] for part in parts]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class _Pages:
    """The pages of the released data that tasks begin on, cut; empty where there is none."""

    def __init__(self, folder: Path, n_chars: int) -> None:
        self._folder, self._n_chars = folder / "sampled" / "axtree", n_chars

    def of_partition(self, stem: str) -> str:
        return self._cut("synthetic", stem)

    def of_site(self, site: str) -> str:
        return self._cut("real", site)

    def _cut(self, side: str, name: str) -> str:
        path = self._folder / side / "axtree.json"
        if not self._n_chars or not path.is_file():
            return ""
        pages: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return pages.get(name, "")[: self._n_chars]


def _site(task: Task, site: str | None) -> Group:
    groups = {group.name: group for group in task.groups}
    if site is None:
        return task.groups[0]
    if site not in groups:
        raise ConfigError(f"site={site!r}: {did_you_mean(site, groups)}")
    return groups[site]


def _two_thirds(pool: RealSample) -> int:
    return round(len(pool) * 2 / 3)


def _unlabeled(step: Mapping[str, Any]) -> dict[str, str]:
    return {"task": step["task"], "page": step["page"]}


def _shown(record: Mapping[str, Any], page_chars: int) -> dict[str, str]:
    return {"task": str(record["task"]), "page": str(record.get("page") or "")[:page_chars]}


def _conversation(record: Any) -> str:
    return json.dumps(record, default=str)


def rank_partitions(
    data: str | None = None,
    *,
    proxies: Sequence[ProxySpec] | None = None,
    page_chars: int = 0,
    top_k: int = 3,
    progress: bool = True,
) -> dict[str, Ranking]:
    """Rank the released partitions of every site by its first released real sample.

    Args:
        data: See `WebTask`.
        proxies: None for the default suite; LENS with the prompts "web_page" reads the page.
        page_chars: See `WebTask`.
        top_k: How many to choose.
        progress: Whether to show progress.

    Returns:
        Site to ranking.
    """
    task = released_task("web_agent", data)
    pages = _Pages(task.folder, page_chars)
    view: Selector = fields_view("task", "page") if page_chars else "task"
    rankings = {}
    for group in task.groups:
        (seed, real), *_ = group.reals.items()
        candidates = []
        for candidate in group.candidates:
            page = pages.of_partition(Path(candidate.source).stem)
            records = [{"task": str(text), "page": page} for text in candidate.views]
            candidates.append(Candidate(candidate.name, records, view))
        page = pages.of_site(group.name)
        shown = [{"task": str(text), "page": page} for text in real.views]
        sample = RealSample(f"{group.name}, seed {seed}", shown, view)
        rankings[group.name] = rank(
            candidates, sample, proxies=proxies, top_k=top_k, progress=progress
        )
    return rankings


class WebDataModule(TaskDataModule):
    """The steps as a DataModule, for one fit of a LightningCLI config.

    Args:
        data: See `WebTask`, as for the other arguments.
        site: See `WebTask`.
        candidates: See `WebTask`.
        real: See `WebTask`.
        labeled: See `WebTask`.
        page_chars: See `WebTask`.
        batch_size: Examples a step.
        model_id: Whose tokenizer and chat template.
        block_size: Tokens of a row at most.
        replicate: Which draw of the real sample.
        seed: Of the draws and of the order of the examples.
    """

    def __init__(
        self,
        data: str | None = None,
        site: str | None = None,
        candidates: str | list[str] | None = None,
        real: str | None = None,
        labeled: str | None = None,
        page_chars: int = 0,
        batch_size: int = 32,
        model_id: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
        block_size: int = 4096,
        replicate: int = 0,
        seed: int = 0,
    ) -> None:
        task = WebTask(
            data,
            site,
            candidates,
            real,
            labeled,
            page_chars=page_chars,
            batch_size=batch_size,
            model_id=model_id,
            block_size=block_size,
            seed=seed,
        )
        super().__init__(task, replicate, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rank the released partitions of every site, then run the experiment.

    The options are those of `synque-select experiment`.
    """
    from synque_select.report.ranking_tables import ranking_tables

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        for site, ranking in rank_partitions(progress=False).items():
            print(site, *ranking_tables(ranking), "", sep="\n\n")
    return run_recipe("web-small", given)


if __name__ == "__main__":
    sys.exit(main())
