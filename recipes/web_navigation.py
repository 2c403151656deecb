"""Which partition of synthetic web tasks is worth training an agent on?

Candidates are partitions of tasks on one website, or trajectories of your own in conversation
format; the model is a causal language model with LoRA adapters. Nothing runs in a live environment:
a fit is measured by its token loss on held-out steps, not by the tasks that it solves. To run it:
`synque-select experiment --config web-small`, or `python -m
synque_select.recipes.web_navigation`, which first ranks the released partitions of every site.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from pytorch_lightning import LightningModule

from synque_select.benchmark.layout import Group, Task
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.examples import Examples
from synque_select.data.sources import load_candidates, load_dataset_file
from synque_select.data.views import Selector, fields_view
from synque_select.errors import ConfigError, DataError, did_you_mean
from synque_select.experiment import unseen
from synque_select.proxies.registry import ProxySpec
from synque_select.recipes._causal_lm import (
    CausalLMModule,
    Encoded,
    Packer,
    encode_chat,
    load_tokenizer,
)
from synque_select.recipes._main import run_recipe
from synque_select.recipes._real_data import (
    SPLIT_SEED,
    RealDraws,
    agreement_message,
    labeled_file,
    released_task,
    removed_message,
    selected,
)
from synque_select.recipes._task import RecipeData, RecipeTask
from synque_select.recipes.options import FitOptions, LoRAOptions, OwnData
from synque_select.selection.scorer import rank
from synque_select.types import Ranking
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_files import read_json_file
from synque_select.utils.validation import check_int
from synque_select.utils.wording import counted

__all__ = ["WebData", "WebTask", "main", "rank_partitions", "steps_of"]

_VALIDATION_SHARE = 1 / 3


class _Step(TypedDict):
    """One step of an agent: the conversation before it, and its answer."""

    task: str
    page: str
    prompt: list[dict[str, str]]
    answer: str


def steps_of(conversation: Mapping[str, Any], where: str) -> list[_Step]:
    """Split a trajectory into steps: the conversation so far, and the agent's next turn.

    Args:
        conversation: {"messages": [{"role": …, "content": …}, …]}, with the agent as "assistant";
            optionally "task" and "page". Without a task, the first message of the user is the task.
        where: Where the trajectory comes from, for error messages.

    Returns:
        One step per turn of the agent: {"task", "page", "prompt", "answer"}.

    Raises:
        DataError: Messages are missing, a message lacks its role or content, or the agent says
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
    requests = [turn["content"] for turn in turns if turn["role"] == "user"]
    at = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i > 0]
    if not at or not requests:
        raise DataError(f"{where}: expected a message of the user and one of the assistant")
    # if other records have the field, the reader of a file gives None to those without it
    task, page = conversation.get("task") or requests[0], conversation.get("page") or ""
    if not isinstance(task, str) or not isinstance(page, str):
        raise DataError(f"{where}: expected texts as `task` and `page`")
    return [
        {"task": task, "page": page, "prompt": turns[:i], "answer": turns[i]["content"]} for i in at
    ]


def _is_message(message: object) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(name), str) for name in ("role", "content")
    )


def _naming_step(site: str, task: str, page: str) -> _Step:
    """Return the only step that a task without a trajectory allows: to name it."""
    request = f"Website: {site}. Name a task that a person would do there."
    return {
        "task": task,
        "page": page,
        "prompt": [{"role": "user", "content": request}],
        "answer": task,
    }


@dataclass(frozen=True, kw_only=True)
class WebData(OwnData):
    """Web tasks: one website of the released data, or trajectories of your own.

    Args:
        candidates: Files of trajectories in conversation format (`steps_of`); None for the released
            data.
        real: Your unlabeled real tasks, a file with a field `task` (and `page`); every replicate
            draws from them.
        labeled: Your held-out trajectories.
        n_real: Number of tasks in a real sample; None for two thirds of the pool.
        path: A clone of the released repository, or its directory `data`; None for the value of
            SYNQUE_BENCHMARK_DATA. Not read with data of your own.
        site: A website of the released data; None for the first by name.
        page_chars: How many characters of the page a proxy sees in addition to the task, for LENS
            with the prompts "web_page"; 0 for the task alone.

    Raises:
        ConfigError: A value is not allowed.
    """

    path: str | None = None
    site: str | None = None
    page_chars: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("page_chars", self.page_chars, 0)

    @property
    def view(self) -> Selector:
        """What a proxy sees of an example."""
        return fields_view("task", "page") if self.page_chars else "task"


_DATA = WebData()
_MODEL = LoRAOptions(warmup_share=0.03, lora_rank=64, lora_alpha=128)
_FIT = FitOptions(epochs=3, batch_size=32, learning_rate=2e-5)


class WebTask(RecipeTask):
    """Partitions of web tasks, unlabeled real tasks, a language model with LoRA; token loss.

    The steps of your own trajectories are the examples; validation and test share no task with
    each other or with a real sample.

    The released data has tasks and the pages that they begin on, but no trajectories. The only step
    that can be trained is to name a task, and the loss says how well the model predicts what people
    ask of that site, not how well it navigates. The released real samples hold nearly all real
    tasks of a site and leave none to measure on, so half of the tasks become a pool from which
    real samples are drawn.

    Args:
        data: The tasks or trajectories.
        fit: Budget of a fit.
        model: The language model and its adapters.
        block_size: Largest number of tokens in a row; a longer step keeps its end.
        encoder: Id of a text encoder; None for all-MiniLM-L6-v2.
        proxies: The proxies that score the candidates; None for the default suite.
        seed: Random seed of the draws of real samples.

    Raises:
        ConfigError: A value is not allowed, or the data is missing.
        DataError: A file cannot be used.
    """

    name = "web_navigation"
    metric = "loss"
    mode = "min"

    def __init__(
        self,
        data: WebData = _DATA,
        fit: FitOptions = _FIT,
        model: LoRAOptions = _MODEL,
        block_size: int = 4096,
        encoder: str | None = None,
        proxies: list[ProxySpec] | None = None,
        seed: int = 0,
    ) -> None:
        self._data = _released(data, seed) if data.paths is None else _own(data, data.paths, seed)
        super().__init__(self._data.candidates, self._data.draws, fit, encoder, proxies)
        self._view, self._model_id = data.view, model.model_id
        self._model_arguments = model.arguments(fit)
        self.packer = self.collate_fn = Packer(block_size)

    @cached_property
    def validation(self) -> Examples:
        """The steps of a third of the labeled tasks that no real sample can hold."""
        return self._part("validation", self._split[0])

    @cached_property
    def test(self) -> Examples:
        """The steps of the other labeled tasks that no real sample can hold."""
        return self._part("test", self._split[1])

    def model(self, seed: int) -> LightningModule:
        """Load the model, with fresh adapters."""
        return CausalLMModule(**self._model_arguments)

    def transform(self, record: _Step) -> Encoded:
        """Convert a step to tokens."""
        tokenizer = load_tokenizer(self._model_id)
        return encode_chat(tokenizer, record["prompt"], record["answer"], record)

    def fingerprint(self) -> Mapping[str, object]:
        """Return hyper-parameters, and the steps, of which the views show only the task."""
        sizes = {"block_size": self.packer.block_size}
        return {**self._model_arguments, **sizes, "steps": self._steps_sha256}

    def messages(self, test: Mapping[str, float]) -> Sequence[str]:
        """Say what the loss measures, and how it agrees with the released success rates."""
        released = self._data.released
        if not released:
            n = len(self._data.labeled)
            removed = removed_message(n, n - len(self._free), 0, what="steps")
            return (*self._data.messages, *removed)
        agreement = agreement_message(test, released, "the released success rates", mode="min")
        return (*self._data.messages, agreement)

    @cached_property
    def _free(self) -> list[int]:
        """Positions of the steps whose task, with any page, no real sample can hold."""
        labeled, pool = self._data.labeled, self._data.draws.pool
        by_task = [Examples(part.name, list(part), "task") for part in (labeled, pool)]
        return unseen(*by_task)

    @cached_property
    def _split(self) -> tuple[list[int], list[int]]:
        """Positions of the steps for validation and for test; a task is in one of the two."""
        labeled = self._data.labeled
        by_task: dict[str, list[int]] = {}
        for i in self._free:
            by_task.setdefault(labeled[i]["task"], []).append(i)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(by_task)).tolist()
        n_validation = max(2, round(len(order) * _VALIDATION_SHARE))
        if len(order) - n_validation < 2:
            raise DataError(
                f"{labeled.where}: {counted(len(order), 'task')} are in no real sample; 4 or more "
                "are needed, for validation and test"
            )
        steps = list(by_task.values())
        validation = [i for task in order[:n_validation] for i in steps[task]]
        return validation, [i for task in order[n_validation:] for i in steps[task]]

    def _part(self, name: str, positions: Sequence[int]) -> Examples:
        return Examples(name, selected(self._data.labeled, positions), self._view, "answer")

    @cached_property
    def _steps_sha256(self) -> str:
        parts = (*self.candidates, self.validation, self.test)
        steps = [[[step["prompt"], step["answer"]] for step in part] for part in parts]
        return hashlib.sha256(json.dumps(steps).encode()).hexdigest()


def _released(data: WebData, seed: int) -> RecipeData:
    task = released_task("web_agent", data.path)
    group = _site(task, data.site)
    pages = _Pages(task.folder, data.page_chars)
    candidates = []
    for partition in group.candidates:
        page = pages.of_partition(partition)
        steps = [_naming_step(group.name, str(text), page) for text in partition.views]
        candidates.append(Candidate(partition.name, steps, data.view, "answer", partition.source))
    page, tasks = pages.of_site(group.name), labeled_file(group, "text", None)
    real = [_naming_step(group.name, str(text), page) for text in dict.fromkeys(tasks.views)]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(real)).tolist()
    half = len(real) // 2
    unlabeled = [{"task": real[i]["task"], "page": real[i]["page"]} for i in order[:half]]
    pool = RealSample(f"{group.name}, pool", unlabeled, data.view)
    message = (
        f"{group.name}: the released data has no trajectories; the loss is that of naming the "
        "held-out real tasks of the site, in nats per token, and says nothing about success"
    )
    return RecipeData(
        candidates,
        RealDraws(pool, data.n_real or _two_thirds(pool), seed=seed),
        Examples("real", [real[i] for i in order[half:]], data.view, "answer"),
        released=dict(zip([c.name for c in candidates], group.performance, strict=True)),
        messages=(message,),
    )


def _own(data: WebData, paths: tuple[str | list[str], str, str], seed: int) -> RecipeData:
    candidates, real, labeled = paths
    view, n_chars = data.view, data.page_chars
    loaded = load_candidates(candidates, view=_conversation)
    tasks = Examples("real", load_dataset_file(real), "task", None, real)
    # only the fields that a proxy may see: nothing else of the file is read
    visible = [
        {"task": str(record["task"]), "page": str(record.get("page") or "")[:n_chars]}
        for record in tasks
    ]
    pool = RealSample("real", visible, view, None, real)
    held_out = Examples("labeled", load_dataset_file(labeled), _conversation, None, labeled)
    return RecipeData(
        [Candidate(c.name, _all_steps(c, n_chars), view, "answer", c.source) for c in loaded],
        RealDraws(pool, data.n_real or _two_thirds(pool), seed=seed),
        Examples("labeled", _all_steps(held_out, n_chars), view, "answer", labeled),
        messages=("the loss is that of held-out steps: no live environment, no success rate",),
    )


def _all_steps(conversations: Examples, page_chars: int) -> list[_Step]:
    """Return the steps of all trajectories; pages are cut to what proxies see."""
    steps: list[_Step] = []
    for i, record in enumerate(conversations):
        for step in steps_of(record, f"{conversations.where}, record {i} (counted from 0)"):
            steps.append({**step, "page": step["page"][:page_chars]})
    return steps


class _Pages:
    """The pages of the released data that tasks begin on, cut; empty if a page is unknown."""

    def __init__(self, folder: Path, n_chars: int) -> None:
        self._folder, self._n_chars = folder / "sampled" / "axtree", n_chars

    def of_partition(self, partition: Candidate) -> str:
        return self._cut("synthetic", Path(partition.source).stem)

    def of_site(self, site: str) -> str:
        return self._cut("real", site)

    def _cut(self, side: str, name: str) -> str:
        path = self._folder / side / "axtree.json"
        if not self._n_chars or not path.is_file():
            return ""
        page = JsonFields(read_json_file(path), str(path)).text(name, "")
        return page[: self._n_chars]


def _site(task: Task, site: str | None) -> Group:
    groups = {group.name: group for group in task.groups}
    if site is None:
        return task.groups[0]
    if site not in groups:
        raise ConfigError(f"site={site!r}: {did_you_mean(site, groups)}")
    return groups[site]


def _two_thirds(pool: RealSample) -> int:
    return round(len(pool) * 2 / 3)


def _conversation(record: object) -> str:
    return json.dumps(record, default=str)


def rank_partitions(
    path: str | None = None,
    *,
    proxies: Sequence[ProxySpec] | None = None,
    page_chars: int = 0,
    top_k: int = 3,
    progress: bool = True,
) -> dict[str, Ranking]:
    """Rank the released partitions of every site by its first released real sample.

    Args:
        path: A clone of the released repository, or its directory `data`; None for the value of
            SYNQUE_BENCHMARK_DATA.
        proxies: The proxies; None for the default suite. LENS with the prompts "web_page" reads the
            page.
        page_chars: How many characters of the page a proxy sees in addition to the task.
        top_k: Number of partitions to select.
        progress: Whether to show a progress bar.

    Returns:
        Site to ranking.
    """
    task, view = released_task("web_agent", path), WebData(page_chars=page_chars).view
    pages = _Pages(task.folder, page_chars)
    rankings = {}
    for group in task.groups:
        (seed, real), *_ = group.reals.items()
        candidates = []
        for partition in group.candidates:
            page = pages.of_partition(partition)
            records = [{"task": str(text), "page": page} for text in partition.views]
            candidates.append(Candidate(partition.name, records, view))
        page = pages.of_site(group.name)
        visible = [{"task": str(text), "page": page} for text in real.views]
        sample = RealSample(f"{group.name}, seed {seed}", visible, view)
        rankings[group.name] = rank(
            candidates, sample, proxies=proxies, top_k=top_k, progress=progress
        )
    return rankings


def main(arguments: Sequence[str] | None = None) -> int:
    """Rank the released partitions of every site, then run the experiment.

    The options are those of `synque-select experiment`; with options, nothing is ranked first.
    """
    from synque_select.report.ranking_tables import ranking_tables

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        for site, ranking in rank_partitions(progress=False).items():
            print(site, *ranking_tables(ranking), "", sep="\n\n")
    return run_recipe("web-small", given)


if __name__ == "__main__":
    sys.exit(main())
