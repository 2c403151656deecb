"""FSDP and NCCL on one GPU: the mixture is served, and a late restore continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lightning_package import ProxyCorrelationCallback, SelectionCallback
from tests.training.tiny import LetterEncoder, TinyModel, data_module, seen_by, texts_of, trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]


def fit(folder: Path, strategy: str, max_steps: int, ckpt: Path | None = None) -> Any:
    model, data = TinyModel(), data_module()
    selection = SelectionCallback(
        ["mmd"], top_k=2, encoder=LetterEncoder(), cache_dir=folder / "cache"
    )
    correlation = ProxyCorrelationCallback(store=folder / "records.sqlite")
    run = trainer(
        folder, selection, correlation, strategy=strategy, accelerator="gpu", max_steps=max_steps
    )
    run.fit(model, datamodule=data, ckpt_path=ckpt)
    assert set(data.mixture.names) == {"near", "mixed"}
    assert set(seen_by(model)) <= texts_of("near", "mixed")
    return run, model


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_resumed_run_goes_on_where_the_first_one_stopped(tmp_path: Path, strategy: str):
    _, whole = fit(tmp_path, strategy, 8)
    first, begun = fit(tmp_path, strategy, 4)
    first.save_checkpoint(tmp_path / "four.ckpt")
    _, resumed = fit(tmp_path, strategy, 8, tmp_path / "four.ckpt")
    assert begun.seen + resumed.seen == whole.seen
