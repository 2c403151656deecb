"""MMD, MDM, PAD and nearest neighbors against the libraries that one would use instead."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import kmedoids
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel, rbf_kernel

from synque_select.functional.medoids import k_medoids
from synque_select.functional.mmd import Kernel, mmd2_biased
from synque_select.functional.pad import cross_fit
from synque_select.functional.pairwise import nearest_distances
from synque_select.functional.products import scaled_products
from tests.benchmarks.base import NotMeasured, Result, Row, compare, cpu_seconds, peak_bytes

N_REAL = 200
MMD_ROWS, MMD_DIM = 20_000, 1024
KEOPS_ROWS = 1_000
MDM_ROWS = 8_000
# queries, points, neighbors, dimensions: coverage, its k-NN variant, nearest real example
NEIGHBORS = ((200, 20_000, 1, 384), (200, 20_000, 20, 384), (20_000, 200, 1, 384))
PAD_CANDIDATES, PAD_ROWS, N_FOLDS = 100, 1_000, 5
DIM = 384


def sentence_like(n: int, dim: int, seed: int, skew: float = 0.0) -> torch.Tensor:
    """Unit rows as sentence encoders give them: 60 topics around a common direction."""
    world = torch.Generator().manual_seed(0)
    centres = torch.randn((60, dim), generator=world) + 0.7 * torch.randn(dim, generator=world)
    generator = torch.Generator().manual_seed(1 + seed)
    shares = torch.exp(-skew * torch.arange(60.0))
    chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
    rows = centres[chosen] + torch.randn((n, dim), generator=generator)
    return torch.nn.functional.normalize(rows, dim=1)


def matmul_rate() -> float:
    """Float32 multiply-adds a second of a large matrix product, in units of 2."""
    matrix = torch.randn(4096, 4096, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(5):
        start = cpu_seconds()
        matrix @ matrix
        times.append(cpu_seconds() - start)
    return 2 * 4096**3 / statistics.median(times)


def mmd_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return sentence_like(N_REAL, MMD_DIM, 0), sentence_like(MMD_ROWS, MMD_DIM, 1, 0.05)


KERNELS: dict[str, tuple[Kernel, Callable[[Any, Any], Any]]] = {
    "polynomial": (Kernel("polynomial", (1 / MMD_DIM,)), partial(polynomial_kernel, degree=3)),
    "rbf": (Kernel("rbf", (1.0,)), partial(rbf_kernel, gamma=1.0)),
}


def our_mmd(name: str, real: torch.Tensor, synthetic: torch.Tensor) -> float:
    # all pairs, as the rivals: by default, random blocks are used above 4,096 rows
    return mmd2_biased(real, synthetic, KERNELS[name][0], max_exact=len(synthetic))


def sklearn_mmd(name: str, real: torch.Tensor, synthetic: torch.Tensor) -> float:
    function, x, y = KERNELS[name][1], real.numpy(), synthetic.numpy()
    among_real, among_synthetic, between = function(x, x), function(y, y), function(x, y)
    return float(among_real.mean() + among_synthetic.mean() - 2 * between.mean())


def torch_mmd(name: str, real: torch.Tensor, synthetic: torch.Tensor) -> float:
    """As one would write it in torch: blocks of 2,048 rows, half of the symmetric ones."""

    def values(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if name == "polynomial":
            return torch.addmm(x.new_ones(1), x, y.T, alpha=1 / x.shape[1]).pow_(3)
        return torch.cdist(x, y).square_().neg_().exp_()

    def mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, left in enumerate(x.split(2048)):
            for j, right in enumerate(y.split(2048)):
                if x is not y or j >= i:
                    part = values(left, right).sum(1).double().sum()
                    total += part if x is not y or i == j else 2 * part
        return total / (len(x) * len(y))

    return float(mean(real, real) + mean(synthetic, synthetic) - 2 * mean(real, synthetic))


def keops_mmd(name: str, real: torch.Tensor, synthetic: torch.Tensor) -> float:
    from pykeops.torch import LazyTensor

    def mean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        left, right = LazyTensor(x[:, None, :]), LazyTensor(y[None, :, :])
        if name == "polynomial":
            matrix = ((left | right) / x.shape[1] + 1) ** 3
        else:
            matrix = (-left.sqdist(right)).exp()
        return matrix.sum(1).double().mean() / len(y)

    return float(mean(real, real) + mean(synthetic, synthetic) - 2 * mean(real, synthetic))


def bench_mmd(name: str) -> Iterator[Row]:
    real, synthetic = mmd_inputs()
    kernel = KERNELS[name][0]
    work = {"ours": our_mmd, "scikit-learn": sklearn_mmd, "torch": torch_mmd}
    values: dict[str, float] = {}

    def call(which: str) -> Callable[[], None]:
        return lambda: values.update({which: work[which](name, real, synthetic)})

    for one in work.values():  # what is loaded at the first call
        one(name, real, synthetic[:1000])
    seconds, rival = compare(call("ours"), call("scikit-learn"), 2, warm_up=False)
    ours_peak = peak_bytes(partial(our_mmd, name), mmd_inputs)
    rival_peak = peak_bytes(partial(sklearn_mmd, name), mmd_inputs)
    needed = MMD_DIM * (MMD_ROWS**2 + 2 * N_REAL * MMD_ROWS + N_REAL**2)
    what = f"MMD {name}, all pairs, {MMD_ROWS:,} x {MMD_DIM} against {N_REAL}"
    yield Result(
        name=what,
        ratio=rival / seconds,
        target=2.5,
        rival=f"scikit-learn {name}_kernel, three full matrices",
        seconds=seconds,
        rival_seconds=rival,
        peak_bytes=ours_peak,
        rival_peak_bytes=rival_peak,
        note=f"{needed / seconds / matmul_rate():.0%} of the rate of torch's own matrix product, "
        f"{values['ours']:.6g} and {values['scikit-learn']:.6g}",
    )
    seconds, rival = compare(call("ours"), call("torch"), 2, warm_up=False)
    yield Result(
        name=what,
        ratio=rival / seconds,
        target=1.0,
        rival="torch in blocks of 2,048 rows, half of the symmetric ones",
        seconds=seconds,
        rival_seconds=rival,
        peak_bytes=ours_peak,
        rival_peak_bytes=peak_bytes(partial(torch_mmd, name), mmd_inputs),
        note=f"{values['ours']:.6g} and {values['torch']:.6g}",
    )
    blocks_s, _ = compare(lambda: mmd2_biased(real, synthetic, kernel), lambda: None, 3)
    yield Result(
        name=f"MMD {name}, random blocks (the default), {MMD_ROWS:,} x {MMD_DIM}",
        ratio=rival / blocks_s,
        target=1.0,
        rival="torch in blocks, all pairs",
        seconds=blocks_s,
        rival_seconds=rival,
        note=f"an estimate: {mmd2_biased(real, synthetic, kernel):.6g}, from all pairs "
        f"{values['ours']:.6g}",
    )
    yield _against_keops(name)


def _against_keops(name: str) -> Row:
    what = f"MMD {name}, all pairs, {KEOPS_ROWS:,} x {DIM} against {N_REAL}"
    if importlib.util.find_spec("pykeops") is None:
        return NotMeasured(
            f"{what}, against KeOps", "pykeops is not installed: pip install pykeops"
        )
    real, synthetic = sentence_like(N_REAL, DIM, 0), sentence_like(KEOPS_ROWS, DIM, 1, 0.05)
    kernel = Kernel("polynomial", (1 / DIM,)) if name == "polynomial" else KERNELS[name][0]
    try:
        keops_mmd(name, real, synthetic)
    except Exception as error:  # KeOps compiles a kernel with the C++ compiler of the machine
        return NotMeasured(f"{what}, against KeOps", f"KeOps failed: {type(error).__name__}")
    seconds, rival = compare(
        lambda: mmd2_biased(real, synthetic, kernel), lambda: keops_mmd(name, real, synthetic), 3
    )
    expected = keops_mmd(name, real, synthetic)
    return Result(
        name=what,
        ratio=rival / seconds,
        target=1.0,
        rival="KeOps on the CPU, compiled before",
        seconds=seconds,
        rival_seconds=rival,
        note=f"{mmd2_biased(real, synthetic, kernel):.6g} | {expected:.6g}; KeOps is made for GPUs "
        "and for few dimensions",
    )


def _product_rate() -> float:
    """Float32 operations a second of our fastest matrix product."""
    rows = sentence_like(2048, 1024, 0)
    seconds, _ = compare(lambda: scaled_products(rows, rows), lambda: None)
    return 2 * 2048**2 * 1024 / seconds


def bench_neighbors() -> Iterator[Row]:
    """Against faiss with its defaults, and with a matrix product forced, which is faster here."""
    if importlib.util.find_spec("faiss") is None:
        reason = "faiss is not installed: pip install faiss-cpu"
        yield NotMeasured("nearest neighbors against faiss", reason)
        return
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    default = faiss.cvar.distance_compute_blas_threshold
    # 3 times as fast as faiss with a matrix product would be above what the CPU can do
    most = _product_rate()
    for n_queries, n_points, n_nearest, dim in NEIGHBORS:
        queries, points = sentence_like(n_queries, dim, 0), sentence_like(n_points, dim, 1, 0.05)

        def ours(q: torch.Tensor = queries, x: torch.Tensor = points, k: int = n_nearest) -> Any:
            return nearest_distances(q, x, k)

        def theirs(q: torch.Tensor = queries, x: torch.Tensor = points, k: int = n_nearest) -> Any:
            return faiss.knn(q.numpy(), x.numpy(), k)[0]

        for threshold, target, words in ((default, 3.0, "defaults"), (1, 1.0, "always by BLAS")):
            faiss.cvar.distance_compute_blas_threshold = threshold
            try:
                seconds, rival = compare(ours, theirs, 7)
                squares = torch.from_numpy(theirs()).double().clamp_min(0)
            finally:
                faiss.cvar.distance_compute_blas_threshold = default
            yield Result(
                name=f"{n_nearest} nearest of {n_points:,} for {n_queries:,} x {dim}",
                ratio=rival / seconds,
                target=target,
                rival=f"faiss {faiss.__version__}, knn, {words}",
                seconds=seconds,
                rival_seconds=rival,
                note=f"distances differ by {float((ours() - squares.sqrt()).abs().max()):.1g} at "
                f"most, {2 * n_queries * n_points * dim / seconds / 1e9:.0f} and "
                f"{2 * n_queries * n_points * dim / rival / 1e9:.0f} of at most {most / 1e9:.0f} "
                "GFLOP/s",
            )


def mdm_inputs() -> tuple[torch.Tensor]:
    return (sentence_like(MDM_ROWS, DIM, 2, 0.05),)


def our_mdm(points: torch.Tensor) -> float:
    return k_medoids(points, 5).objective


def kmedoids_mdm(points: torch.Tensor) -> float:
    distances = euclidean_distances(points.numpy())
    return float(kmedoids.fasterpam(distances, 5, random_state=42).loss)


def bench_mdm() -> Result:
    (points,) = mdm_inputs()
    seconds, rival = compare(lambda: our_mdm(points), lambda: kmedoids_mdm(points), 3)
    ours_peak, rival_peak = peak_bytes(our_mdm, mdm_inputs), peak_bytes(kmedoids_mdm, mdm_inputs)
    ours, theirs = our_mdm(points), kmedoids_mdm(points)
    return Result(
        name=f"MDM, {MDM_ROWS:,} x {DIM}",
        ratio=rival / seconds,
        target=1.0,
        rival="euclidean_distances and kmedoids.fasterpam",
        seconds=seconds,
        rival_seconds=rival,
        peak_bytes=ours_peak,
        rival_peak_bytes=rival_peak,
        note=f"sum of distances {ours:.2f} | {theirs:.2f}, "
        f"a full matrix takes {4 * MDM_ROWS**2 / 2**20:.0f} MiB",
    )


def pad_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    real = sentence_like(N_REAL, DIM, 3)
    candidates = [sentence_like(PAD_ROWS, DIM, 10 + k, k / 500) for k in range(PAD_CANDIDATES)]
    features = torch.stack([torch.cat((real, candidate)) for candidate in candidates])
    is_real = torch.arange(N_REAL + PAD_ROWS) < N_REAL
    folds = torch.arange(N_REAL + PAD_ROWS) % N_FOLDS
    return features, is_real, folds


def our_pad(features: torch.Tensor, is_real: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
    every = folds.expand(len(features), -1)
    parts, root = [], None
    for first in range(0, len(features), 8):
        part = slice(first, first + 8)
        fit = cross_fit(features[part], is_real, every[part], root=root)
        root = fit.root
        parts.append(fit.probabilities)
    return torch.cat(parts)


def sklearn_pad(features: torch.Tensor, is_real: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
    rows, targets, fold_of = features.numpy(), is_real.numpy(), folds.numpy()
    chances = np.empty(rows.shape[:2])
    for k in range(len(rows)):
        for fold in range(N_FOLDS):
            train = fold_of != fold
            model = LogisticRegression(class_weight="balanced").fit(rows[k, train], targets[train])
            chances[k, ~train] = model.predict_proba(rows[k, ~train])[:, 1]
    return torch.from_numpy(chances)


def bench_pad() -> Result:
    inputs = pad_inputs()
    seconds, rival = compare(lambda: our_pad(*inputs), lambda: sklearn_pad(*inputs), 3)
    difference = float((our_pad(*inputs) - sklearn_pad(*inputs)).abs().max())
    return Result(
        name=f"PAD, {PAD_CANDIDATES} candidates of {PAD_ROWS:,} x {DIM}, {N_FOLDS} folds",
        ratio=rival / seconds,
        target=5.0,
        rival=f"scikit-learn, {PAD_CANDIDATES * N_FOLDS} fits",
        seconds=seconds,
        rival_seconds=rival,
        peak_bytes=peak_bytes(our_pad, pad_inputs),
        rival_peak_bytes=peak_bytes(sklearn_pad, pad_inputs),
        note=f"chances differ by {difference:.1g} at most (the rival stops early)",
    )


def run() -> Iterator[Row]:
    """Yield the rows of each proxy."""
    yield bench_mdm()
    yield bench_pad()
    yield from bench_neighbors()
    for name in KERNELS:
        yield from bench_mmd(name)
