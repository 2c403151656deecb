"""Encoding 8,000 short texts on the CPU, and reading them from the cache."""

from __future__ import annotations

import functools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from synque_select.data.candidate import Candidate
from synque_select.encoders import TextEncoder, embed
from synque_select.encoders.backends import installed_precisions
from synque_select.encoders.precision import cpu_has_bf16, least_cosine
from synque_select.hub.packaged import find_packaged
from tests.benchmarks.base import Result, compare, cpu_seconds, peak_bytes

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
N_TEXTS, N_CANDIDATES, N_REAL = 8000, 8, 200
N_PEAK = 2000  # batches are as large as with all of them
RIVAL = "SentenceTransformer.encode, float32, defaults"


def texts() -> list[str]:
    """8,000 distinct questions of the released data; without it, made-up ones of like length."""
    folder = os.environ.get("SYNQUE_BENCHMARK_DATA")
    if folder:
        questions = (
            row["question"]
            for path in sorted(Path(folder).glob("text2sql/data/*/*.json"))
            for row in json.loads(path.read_text())
        )
        distinct = list(dict.fromkeys(questions))
        if len(distinct) >= N_TEXTS:
            return distinct[:N_TEXTS]
    words = ["show", "find", "the", "of", "list", "which", "number", "all", "with", "name", "by"]
    generator = np.random.Generator(np.random.PCG64(0))
    lengths = generator.integers(6, 26, N_TEXTS)
    return [f"{i} " + " ".join(generator.choice(words, length)) for i, length in enumerate(lengths)]


def _sentence_transformer() -> Any:
    from sentence_transformers import SentenceTransformer

    packaged = find_packaged(MODEL)
    return SentenceTransformer(str(packaged.folder) if packaged else MODEL, device="cpu")


def prepare_ours() -> tuple[Any, ...]:
    """Load the encoder, and encode a little, so that one-time costs are not counted."""
    encoder = TextEncoder(MODEL, device="cpu")
    encoder.encode(["one", "two"])
    return encoder, Candidate("texts", texts())


def prepare_ours_peak() -> tuple[Any, ...]:
    """As `prepare_ours`, with fewer texts."""
    encoder, candidate = prepare_ours()
    return encoder, Candidate("texts", candidate.dataset[:N_PEAK])


def work_ours(encoder: TextEncoder, candidate: Candidate) -> torch.Tensor:
    """Encode with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return embed(encoder, candidate, cache_dir=Path(folder), progress=False).embeddings


def prepare_rival() -> tuple[Any, ...]:
    """Load the rival's model."""
    model = _sentence_transformer()
    model.encode(["one", "two"])
    return model, texts()


def prepare_rival_peak() -> tuple[Any, ...]:
    """As `prepare_rival`, with fewer texts."""
    model, inputs = prepare_rival()
    return model, inputs[:N_PEAK]


def work_rival(model: Any, inputs: list[str]) -> torch.Tensor:
    """Encode as sentence-transformers does by default."""
    return torch.from_numpy(model.encode(inputs))


def ranking(embeddings: torch.Tensor) -> torch.Tensor:
    """MMD² (biased, cubic kernel) of slices used as candidates against the last rows."""
    real = embeddings[-N_REAL:]
    slices = embeddings[:-N_REAL].chunk(N_CANDIDATES)
    return torch.stack([_mmd2(real, part) for part in slices])


def _mmd2(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1).pow(3).double().mean()

    return kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)


def cached_seconds(encoder: TextEncoder, candidate: Candidate, folder: Path) -> float:
    """CPU seconds of a run that finds everything; the digests of the texts are taken anew."""
    start = cpu_seconds()
    again = Candidate(candidate.name, candidate.dataset)
    embed(encoder, again, cache_dir=folder, progress=False)
    return cpu_seconds() - start


def backend_results(model: Any, inputs: list[str]) -> Iterator[Result]:
    """Yield a row for each precision of each other backend that is installed."""
    some = inputs[:N_PEAK]
    texts_again = Candidate("texts", some)
    kinds = installed_precisions()
    kinds.pop("torch")
    for backend, precision in ((b, p) for b, each in kinds.items() for p in each):
        encoder = TextEncoder(MODEL, backend=backend, precision=precision)
        start = cpu_seconds()
        encoder.prepare()
        loaded = cpu_seconds() - start
        made: dict[str, torch.Tensor] = {}
        seconds, rival_seconds = compare(
            functools.partial(_keep, made, "ours", work_ours, encoder, texts_again),
            functools.partial(_keep, made, "rival", work_rival, model, some),
            3,
            warm_up=False,
        )
        agreement = spearmanr(ranking(made["ours"]), ranking(made["rival"])).statistic
        yield Result(
            name=f"encode {len(some)} short texts, CPU, {backend} {precision}",
            ratio=rival_seconds / seconds,
            # an 8-bit model must be worth its conversion; the others, no loss
            target=1.8 if precision == "int8" else 1.0,
            rival=RIVAL,
            seconds=seconds,
            rival_seconds=rival_seconds,
            note=f"{encoder.precision}, cosine >= {least_cosine(made['ours'], made['rival']):.5f}, "
            f"Spearman of the MMD ranking {agreement:.3f}, {loaded:.1f} s to load and convert",
        )
        encoder.close()


def _keep(
    made: dict[str, torch.Tensor], name: str, work: Callable[..., torch.Tensor], *given: object
) -> None:
    made[name] = work(*given)


def run() -> Iterator[Result]:
    """Yield the cold and the cached run, and those of other backends."""
    encoder, candidate = prepare_ours()
    model, inputs = prepare_rival()
    made: dict[str, torch.Tensor] = {}
    seconds, rival_seconds = compare(
        lambda: made.update(ours=work_ours(encoder, candidate)),
        lambda: made.update(rival=work_rival(model, inputs)),
        3,
        warm_up=False,  # the models have encoded a little already
    )
    agreement = spearmanr(ranking(made["ours"]), ranking(made["rival"])).statistic
    cosine = least_cosine(made["ours"], made["rival"])
    yield Result(
        name=f"encode {N_TEXTS} short texts, CPU",
        ratio=rival_seconds / seconds,
        target=3.0 if cpu_has_bf16() else 1.0,
        rival=RIVAL,
        seconds=seconds,
        rival_seconds=rival_seconds,
        peak_bytes=peak_bytes(work_ours, prepare_ours_peak),
        rival_peak_bytes=peak_bytes(work_rival, prepare_rival_peak),
        note=f"{encoder.precision}, cosine >= {cosine:.5f}, "
        f"Spearman of the MMD ranking {agreement:.3f}",
    )
    with tempfile.TemporaryDirectory() as name:
        embed(encoder, candidate, cache_dir=Path(name), progress=False)
        cached = statistics.median(cached_seconds(encoder, candidate, Path(name)) for _ in range(5))
    yield Result(
        name=f"encode {N_TEXTS} short texts again, from the cache",
        ratio=rival_seconds / cached,
        target=50.0,
        rival=RIVAL,
        seconds=cached,
        rival_seconds=rival_seconds,
        note=f"{seconds / cached:.0f}x against our own first run",
    )
    yield from backend_results(model, inputs)
