"""The default proxies over embeddings on a CUDA device against the same on the CPU."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import numpy as np
import torch

from synque_select.proxies.base import ProxyInput
from synque_select.proxies.registry import default_suite, get_proxy
from tests.benchmarks.base import NotMeasured, Result, Row, compare
from tests.benchmarks.bench_proxies import DIM, N_REAL, sentence_like

N_CANDIDATES, N_ROWS = 100, 1_000


def part(name: str, embeddings: torch.Tensor) -> ProxyInput:
    """An input whose texts say no more than which example they are."""
    texts = [f"{name} {i}" for i in range(len(embeddings))]
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    table = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)
    return ProxyInput(name, texts, "text", table, embeddings)


def run() -> Iterator[Row]:
    """Yield one result a proxy, or none without a device."""
    if not torch.cuda.is_available():
        yield NotMeasured("the default proxies on a GPU", "no CUDA device was found")
        return
    real = part("real", sentence_like(N_REAL, DIM, 3))
    candidates = [
        part(f"c{k}", sentence_like(N_ROWS, DIM, 10 + k, k / 500)) for k in range(N_CANDIDATES)
    ]

    def values(key: str, device: str) -> torch.Tensor:
        # the scores come back to the CPU, so nothing is left running
        proxy = get_proxy(key)
        return proxy.score(real, candidates, seed=0, device=torch.device(device)).values

    for key in default_suite("image"):
        seconds, rival = compare(
            lambda key=key: values(key, "cuda"),
            lambda key=key: values(key, "cpu"),
            3,
            clock=time.perf_counter,
        )
        difference = (values(key, "cuda") - values(key, "cpu")).abs().max()
        torch.cuda.reset_peak_memory_stats()
        values(key, "cuda")
        yield Result(
            name=f"{key} on {torch.cuda.get_device_name()}, "
            f"{N_CANDIDATES} candidates of {N_ROWS:,} x {DIM}",
            ratio=rival / seconds,
            target=1.0,
            rival="the same on the CPU",
            seconds=seconds,
            rival_seconds=rival,
            peak_bytes=torch.cuda.max_memory_allocated(),
            note=f"the peak is the device's, scores differ by {float(difference):.1g} at most",
            is_wall=True,
        )
