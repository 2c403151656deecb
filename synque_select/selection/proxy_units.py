"""Scoring by a proxy as a unit of work."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from synque_select.execution.base import Executor, Shared, Worker
from synque_select.proxies.base import BaseProxy, ProxyInput
from synque_select.selection.proxy_scores import score_by, usable_device
from synque_select.selection.score_cache import packed_scores
from synque_select.utils.device import given_device_memory, max_device_memory
from synque_select.utils.wording import counted

__all__ = ["ScoreProxy", "proxy_units"]


@dataclass(frozen=True, eq=False)
class SentInput:
    """A `ProxyInput` in the form in which it is sent: without what a proxy does not read.

    Args:
        part: The input, without embeddings and records.
        embeddings: (n, d) float32; None without.
    """

    part: ProxyInput
    embeddings: NDArray[np.float32] | None

    @classmethod
    def of(cls, part: ProxyInput, *, embedded: bool) -> SentInput:
        """Return an input for proxies that read embeddings, or for those that read the views."""
        if not embedded:
            sent = replace(part, views=list(part.views), embeddings=None, records=None)
            return cls(sent, None)
        assert part.embeddings is not None
        sent = replace(part, views=(), embeddings=None, records=None)
        return cls(sent, part.embeddings.float().numpy())

    def input(self) -> ProxyInput:
        """Return the input as the proxy sees it."""
        if self.embeddings is None:
            return self.part
        with warnings.catch_warnings():
            # arrays in shared memory are read-only, and no packaged proxy writes to its input
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return replace(self.part, embeddings=torch.from_numpy(self.embeddings))


@dataclass(frozen=True, eq=False)
class ScoreProxy:
    """Score all candidates by proxy p.

    Args:
        proxy: The proxy, of this package.
        inputs: The real sample and the candidates.
        seed: Random seed.
        device: The device that the user asked for; None for a GPU if the worker has one.
        content: What identifies the inputs, as plain values.
        max_memory: The bound of `max_device_memory`.
    """

    proxy: BaseProxy
    inputs: Sequence[Shared[SentInput]]
    seed: int
    device: str | None
    content: Mapping[str, object]
    max_memory: int | None = None

    @cached_property
    def key(self) -> str:
        """Hash of the proxy, its options and the inputs."""
        parts = [type(self.proxy).__qualname__, dict(self.proxy.options()), dict(self.content)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What it does, for messages."""
        n = len(self.inputs) - 1
        return f"score {counted(n, 'candidate')} by {self.proxy.key}"

    def run(self, worker: Worker) -> bytes | None:
        """Return the packed scores; None if they cannot be sent."""
        inputs = [shared.get().input() for shared in self.inputs]
        # a worker sees its own GPU only, which is the first there
        device = usable_device(None if self.device is None else torch.device(self.device).type)
        started = time.perf_counter()
        with max_device_memory(self.max_memory):
            scores = score_by(self.proxy, inputs, self.seed, device)
        return packed_scores(scores, time.perf_counter() - started)


def proxy_units(
    executor: Executor,
    proxies: Sequence[BaseProxy],
    inputs: Sequence[ProxyInput],
    *,
    seed: int,
    device: str | None,
    content: Mapping[str, object],
) -> list[ScoreProxy]:
    """Return a unit per proxy; inputs are shared by all of them.

    Args:
        executor: The executor that will run the units.
        proxies: Proxies of this package.
        inputs: The real sample and the candidates.
        seed: Random seed.
        device: The device that the user asked for.
        content: What identifies the inputs, as plain values.
    """
    shared: dict[bool, list[Shared[SentInput]]] = {}
    for embedded in {proxy.needs_embeddings for proxy in proxies}:
        shared[embedded] = [
            executor.share(SentInput.of(part, embedded=embedded)) for part in inputs
        ]
    return [
        ScoreProxy(
            proxy, shared[proxy.needs_embeddings], seed, device, content, given_device_memory()
        )
        for proxy in proxies
    ]
