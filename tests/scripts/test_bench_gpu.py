"""The benchmark of a GPU runs to its end on a CPU, so that no mistake waits for the first GPU."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks import bench_gpu
from tests.benchmarks.base import NotMeasured, Result
from tests.benchmarks.bench_gpu import Sizes, rows

SMALL = Sizes(
    n_real=20, n_candidates=3, n_rows=40, n_points=500, n_texts=6, n_samples=2, dim=16, repeats=1
)


@pytest.mark.filterwarnings("ignore")
def test_it_runs_to_its_end_on_a_cpu(monkeypatch):
    # without KeOps, which compiles for a minute, and without an engine in a process of its own
    absent = {"pykeops", "vllm"}
    find_spec = bench_gpu.importlib.util.find_spec
    monkeypatch.setattr(
        bench_gpu.importlib.util,
        "find_spec",
        lambda name: None if name in absent else find_spec(name),
    )
    monkeypatch.delenv("SYNQUE_VLLM_PYTHON", raising=False)
    done = list(rows(torch.device("cpu"), SMALL))
    assert len(done) == 10
    for row in done:
        assert isinstance(row, Result | NotMeasured)
        if isinstance(row, NotMeasured):
            assert "pip install" in row.reason or "SYNQUE_VLLM_PYTHON" in row.reason
        else:
            assert row.is_wall
            assert float(row.note.split("differ by ")[1].split()[0]) < 1e-2, row
    names = [row.name for row in done]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so():
    (row,) = bench_gpu.run()
    assert isinstance(row, NotMeasured)
