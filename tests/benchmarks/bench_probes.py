"""Probes side by side in two processes, against one after another with all threads.

The probes are those of the demo: a small ResNet on 1,000 digits of each of 12 generators, 80 steps.
The time is that of a clock, with the start of the processes. The other rows say what a step of K
models stacked with `torch.func` saves; they have no target, as a step is only a part of a fit.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from synque_select.experiment.fits import Fit, FitStore, PlannedFit
from synque_select.recipes.digits import DigitClassifier, DigitsTask
from synque_select.records.store import RunStore
from synque_select.types import Mixture
from tests.benchmarks.base import NotMeasured, Result, Row

_REPEATS = 2
_N_WORKERS = 2


def run() -> Iterator[Row]:
    """Yield whole probes, then a step of stacked models."""
    yield _side_by_side()
    yield from _stacked()


def _side_by_side() -> Row:
    name = "12 probes of the demo, two at a time"
    n_cores = len(os.sched_getaffinity(0))
    if n_cores < _N_WORKERS:
        return NotMeasured(name, "one CPU core: give the machine two")
    n_before = torch.get_num_threads()
    torch.set_num_threads(n_cores)
    try:
        seconds: dict[int, list[float]] = {_N_WORKERS: [], 1: []}
        for _ in range(_REPEATS):
            for n_workers, measured in seconds.items():
                measured.append(_probes(n_workers))
    finally:
        torch.set_num_threads(n_before)
    ours, rival = (statistics.median(seconds[n]) for n in (_N_WORKERS, 1))
    return Result(
        name=name,
        ratio=rival / ours,
        target=1.2,
        rival=f"one after another, {n_cores} threads",
        seconds=ours,
        rival_seconds=rival,
        note=f"{_REPEATS} runs each, in alternation; {n_cores} cores",
        is_wall=True,
    )


def _probes(n_workers: int) -> float:
    task = DigitsTask()
    probes = [
        PlannedFit(
            Fit(Mixture.equal([candidate.name], "single"), 0, task.max_steps, task.n_distinct),
            "probe",
            [],
        )
        for candidate in task.candidates
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with FitStore(task, RunStore(Path(folder) / "store.sqlite"), n_workers) as fits:
            assert len(list(fits.run_all(probes))) == len(probes)
        return time.perf_counter() - started


def _stacked() -> Iterator[Row]:
    def perceptron() -> nn.Module:
        return nn.Sequential(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))

    cases: tuple[tuple[str, Callable[[], nn.Module], tuple[int, ...], int, int, int], ...] = (
        (
            "32 linear heads of 384 features, batch 64",
            lambda: nn.Linear(384, 3),
            (384,),
            32,
            64,
            50,
        ),
        ("12 perceptrons of 576, 64 and 10 units, batch 32", perceptron, (576,), 12, 32, 50),
        (
            "4 ResNets of the demo, batch 128",
            lambda: DigitClassifier().network,
            (3, 24, 24),
            4,
            128,
            5,
        ),
    )
    for name, make, shape, n_models, batch, repeats in cases:
        alone, together = _steps(make, shape, n_models, batch, repeats)
        yield Result(
            name=f"a step of {name}, stacked",
            ratio=alone / together,
            target=0.0,
            rival="the same steps one after another",
            seconds=together,
            rival_seconds=alone,
            note=f"{repeats} steps each; without Lightning and the data",
        )


def _steps(
    make: Callable[[], nn.Module], shape: tuple[int, ...], n_models: int, batch: int, repeats: int
) -> tuple[float, float]:
    """Return CPU seconds of a step of all models, one after another and stacked."""
    torch.manual_seed(0)
    models = [make() for _ in range(n_models)]
    inputs = torch.randn(n_models, batch, *shape)
    labels = torch.randint(3, (n_models, batch))
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "fused": True}
    optimizers = [torch.optim.SGD(model.parameters(), **options) for model in models]
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    for part in base.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False  # vmap cannot update the statistics in place
    optimizer = torch.optim.SGD(parameters.values(), **options)

    def loss(weights: Any, others: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(base, (weights, others), (x,)), y)

    gradients = vmap(grad_and_value(loss))

    def alone() -> None:
        for model, x, y, own in zip(models, inputs, labels, optimizers, strict=True):
            own.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            own.step()

    def together() -> None:
        of_all, _ = gradients(parameters, buffers, inputs, labels)
        for name, parameter in parameters.items():
            parameter.grad = of_all[name]
        optimizer.step()

    times: tuple[list[float], list[float]] = ([], [])
    alone()
    together()
    for _ in range(repeats):
        for work, measured in zip((alone, together), times, strict=True):
            begun = time.process_time()
            work()
            measured.append(time.process_time() - begun)
    return statistics.median(times[0]), statistics.median(times[1])
