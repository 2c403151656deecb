"""What every encoder must do, as tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.data.views import View
from synque_select.encoders.base import BaseEncoder
from synque_select.encoders.embedding_cache import embed
from synque_select.encoders.registry import get_encoder

__all__ = ["EncoderConformance"]

_TEXTS = (
    "Shares rise",
    "Shares fall after a long and tedious quarter in which nothing else happened at all.",
    "x",
    "How many apps are free?",
    "日本の株価は上昇した",
    "A line\nand another",
    "Shares rise by 3%",
)


class EncoderConformance:
    """What every encoder must do (`BaseEncoder`), as tests.

    Attributes:
        atol: How much an embedding may differ with what else is in the batch, as a share of its
            largest entry: batches of another shape are summed in another order.
    """

    atol = 1e-4

    @pytest.fixture
    def encoder(self) -> BaseEncoder:
        """Return the encoder; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def views(self, encoder: BaseEncoder) -> list[View]:
        """Return some views of the encoder's modality that differ from each other."""
        if encoder.modality == "text":
            return list(_TEXTS)
        return _images()

    def test_states_what_it_is(self, encoder: BaseEncoder) -> None:
        assert encoder.modality in ("text", "image")
        assert encoder.id
        assert encoder.revision
        assert encoder.batch_size >= 1
        assert type(encoder).__doc__
        assert get_encoder(encoder, encoder.modality) is encoder

    def test_embeddings_are_finite_rows_of_one_length(
        self, encoder: BaseEncoder, views: list[View], tmp_path: Path
    ) -> None:
        rows = _embeddings(encoder, views, tmp_path)
        assert rows.ndim == 2
        assert rows.shape[0] == len(views)
        assert torch.isfinite(rows).all()
        assert len({tuple(row) for row in rows.tolist()}) > 1, "all views have one embedding"

    def test_an_embedding_does_not_depend_on_its_batch(
        self, encoder: BaseEncoder, views: list[View]
    ) -> None:
        in_one_batch = _encoded(encoder, views)
        backwards = _encoded(encoder, views[::-1]).flip(0)
        alone = torch.cat([_encoded(encoder, [view]) for view in views])
        atol = self.atol * float(in_one_batch.abs().max())
        torch.testing.assert_close(backwards, in_one_batch, rtol=0, atol=atol)
        torch.testing.assert_close(alone, in_one_batch, rtol=0, atol=atol)

    def test_every_position_is_encoded_once(self, encoder: BaseEncoder, views: list[View]) -> None:
        encoder.prepare()
        with torch.inference_mode():
            batches = list(encoder.encode_many(views))
        assert sorted(i for positions, _ in batches for i in positions) == list(range(len(views)))
        assert all(len(positions) == len(rows) for positions, rows in batches)

    def test_equal_views_have_equal_embeddings_and_are_encoded_once(
        self, encoder: BaseEncoder, views: list[View], tmp_path: Path
    ) -> None:
        doubled = Candidate("doubled", [*views, *views])
        embedded = embed(encoder, doubled, cache_dir=tmp_path, progress=False)
        assert embedded.n_encoded == len(views)
        rows = embedded.embeddings
        assert torch.equal(rows[: len(views)], rows[len(views) :])
        again = embed(encoder, Candidate("again", views), cache_dir=tmp_path, progress=False)
        assert again.n_encoded == 0
        assert torch.equal(again.embeddings, rows[: len(views)])

    def test_the_key_says_the_model_and_changes_with_its_revision(
        self, encoder: BaseEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder.prepare()
        key = encoder.key
        assert encoder.key == key, "equal encoders must have equal keys"
        parts = json.loads(key)
        assert (parts["id"], parts["modality"]) == (encoder.id, encoder.modality)
        json.dumps(dict(encoder.options()))
        monkeypatch.setattr(encoder, "revision", "another revision")
        assert encoder.key != key, "old embeddings would be used for new weights"

    def test_closed_it_can_encode_again(self, encoder: BaseEncoder, views: list[View]) -> None:
        before = _encoded(encoder, views[:2])
        encoder.close()
        encoder.close()
        torch.testing.assert_close(_encoded(encoder, views[:2]), before)

    def test_the_global_random_state_does_not_matter(
        self, encoder: BaseEncoder, views: list[View]
    ) -> None:
        torch.manual_seed(1)
        first = _encoded(encoder, views[:2])
        torch.manual_seed(2)
        assert torch.equal(_encoded(encoder, views[:2]), first)


def _encoded(encoder: BaseEncoder, views: Sequence[View]) -> torch.Tensor:
    """Return the embeddings in the order of the views, without the cache."""
    encoder.prepare()
    rows: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for positions, batch in encoder.encode_many(views):
            rows.update(zip(positions, batch.float().cpu(), strict=True))
    return torch.stack([rows[i] for i in range(len(views))])


def _embeddings(encoder: BaseEncoder, views: Sequence[View], folder: Path) -> torch.Tensor:
    candidate = Candidate("a", list(views))
    return embed(encoder, candidate, cache_dir=folder, progress=False).embeddings.float()


def _images() -> list[View]:
    """Return images of several sizes and modes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    views: list[View] = []
    for side in (32, 40, 64):
        pixels = torch.randint(256, (side, 48, 3), generator=generator, dtype=torch.uint8)
        views.append(Image.fromarray(pixels.numpy()))
    return [*views, Image.new("L", (48, 48), 90), Image.new("RGB", (48, 48), "red")]
