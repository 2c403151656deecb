"""Encoders on a GPU, pretended here: what is copied ahead, and what the host waits for."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from synque_select.data.candidate import Candidate
from synque_select.encoders import BaseEncoder
from synque_select.encoders.embedding_cache import embed
from synque_select.encoders.image import ImageEncoder
from tests.pretend_cuda import DEVICE, PretendCuda

N, SIZE = 10, 4


class Means(ImageEncoder):
    """The mean of each channel."""

    id, revision = "means", "1"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device=device, precision="float32", normalize=False)
        self.batch_size = SIZE

    def _load(self) -> nn.Module:
        return nn.AdaptiveAvgPool2d(1)

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)


def images() -> Candidate:
    noise = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    return Candidate("noise", [Image.fromarray(one) for one in noise])


def test_batches_of_pixels_are_pinned_and_embeddings_are_not_waited_for(tmp_path):
    expected = embed(Means(torch.device("cpu")), images(), cache_dir=tmp_path / "cpu")
    with PretendCuda() as mode:
        there = embed(Means(DEVICE), images(), cache_dir=tmp_path / "there")
    n_batches = -(-N // SIZE)
    assert mode.copies == {"pinned": n_batches, "back": n_batches}
    assert not mode.waits
    assert torch.equal(there.embeddings, expected.embeddings)


class Events(BaseEncoder):
    """The number in each text; notes when a batch is encoded, and may run out of memory."""

    id, modality, revision, batch_size = "events", "text", "1", SIZE

    def __init__(self, device: torch.device, most: int = SIZE) -> None:
        self.device, self.most = device, most
        self.encoded: list[list[str]] = []

    def encode(self, views):
        self.encoded.append(list(views))
        if len(views) > self.most and len(self.encoded) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor([[float(view)] for view in views]).to(self.device)


def test_where_memory_runs_out_the_batch_before_is_kept(tmp_path):
    with PretendCuda():
        encoder = Events(DEVICE, most=2)
        embedded = embed(encoder, Candidate("c", [str(i) for i in range(N)]), cache_dir=tmp_path)
    assert embedded.embeddings.flatten().tolist() == list(range(N))
    # the first batch arrives although the second fails, and is not encoded again
    assert sum(batch.count("0") for batch in encoder.encoded) == 1


def test_batches_on_a_gpu_arrive_one_behind(tmp_path, monkeypatch):
    order = []

    class Noted(Events):
        def encode(self, views):
            order.append(f"encode {len(self.encoded)}")
            return super().encode(views)

    with PretendCuda():
        monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: order.append("wait"))
        embed(Noted(DEVICE), Candidate("c", [str(i) for i in range(N)]), cache_dir=tmp_path)
    assert order == ["encode 0", "encode 1", "wait", "encode 2", "wait", "wait"]
