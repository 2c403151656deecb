"""Linear layers by oneDNN: the same numbers, the same weights, only where it is faster."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from synque_select.utils import onednn
from synque_select.utils.onednn import use_onednn

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(self.embed(tokens)).relu())


@pytest.fixture
def is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "mkl_leaves_avx512_unused", lambda: True)


@pytest.mark.parametrize("shape", [(3,), (1, 64), (4, 16), (2, 3, 40)])
@pytest.mark.usefixtures("is_faster")
def test_a_model_gives_the_same_numbers(shape: tuple[int, ...]):
    torch.manual_seed(0)
    model = Tied().eval().requires_grad_(False)
    tokens = torch.randint(50, shape)
    expected = model(tokens)
    faster = copy.deepcopy(model)
    use_onednn(faster)
    assert type(faster.hidden) is not nn.Linear
    with torch.inference_mode():
        torch.testing.assert_close(faster(tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("is_faster")
def test_weights_stay_shared_and_named():
    model = Tied()
    names = [*model.state_dict()]
    use_onednn(model)
    assert model.head.weight is model.embed.weight
    assert isinstance(model.hidden, nn.Linear)
    assert [*copy.deepcopy(model).state_dict()] == names


@pytest.mark.usefixtures("is_faster")
def test_float64_and_bfloat16_are_computed_as_before():
    for dtype in (torch.float64, torch.bfloat16):
        layer = nn.Linear(64, 64).to(dtype).requires_grad_(False)
        rows = torch.randn(100, 64, dtype=dtype)
        expected = layer(rows)
        use_onednn(layer)
        assert torch.equal(layer(rows), expected)


def test_nothing_changes_on_other_cpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onednn, "mkl_leaves_avx512_unused", lambda: False)
    model = Tied()
    use_onednn(model)
    assert type(model.hidden) is nn.Linear


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False),
     ("AuthenticAMD", "AVX2", False)],
)  # fmt: skip
def test_onednn_is_for_other_vendors_with_avx512(
    vendor: str, capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Path, "read_text", lambda _: f"vendor_id : {vendor}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    onednn.mkl_leaves_avx512_unused.cache_clear()
    try:
        assert onednn.mkl_leaves_avx512_unused() is expected
    finally:
        onednn.mkl_leaves_avx512_unused.cache_clear()
