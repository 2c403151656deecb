"""Thumbnails: computed once for the same content, and not kept without bound."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from synque_select.data import thumbnails as module
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.contamination import count_overlap
from synque_select.data.thumbnails import kept_thumbnails, thumbnails


def images(n: int, seed: int = 0) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), np.uint8)
    return [Image.fromarray(one) for one in pixels]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what is filled with a 1 for each thumbnail that is computed."""
    calls: list[int] = []
    thumbnail = module._thumbnail
    monkeypatch.setattr(module, "_KEPT", type(module._KEPT)())
    monkeypatch.setattr(module, "_thumbnail", lambda view: calls.append(1) or thumbnail(view))
    return calls


def test_the_same_content_is_read_once(computed: list[int]):
    first = kept_thumbnails(Candidate("a", images(6)))
    again = kept_thumbnails(Candidate("another name", images(6)))
    assert again is first
    assert len(computed) == 6
    np.testing.assert_array_equal(first, thumbnails(images(6)))
    assert len(computed) == 12
    assert kept_thumbnails(Candidate("a", images(6)[::-1])) is not first


def test_they_are_not_kept_without_bound(computed: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_KEPT_IMAGES", 10)
    assert kept_thumbnails(Candidate("large", images(11))) is None
    for seed in (1, 2, 1, 3):  # the last of them takes the place of 2, the least recently used
        kept_thumbnails(Candidate("a", images(5, seed)))
    assert len(computed) == 15
    kept_thumbnails(Candidate("a", images(5, 1)))
    assert len(computed) == 15
    kept_thumbnails(Candidate("a", images(5, 2)))
    assert len(computed) == 20


def test_a_candidate_that_is_too_large_to_keep_has_the_same_overlap(
    computed: list[int], monkeypatch: pytest.MonkeyPatch
):
    made = [
        *images(5, 1),
        *(one.resize((32, 32), Image.Resampling.NEAREST) for one in images(4)),
        images(1)[0],
    ]
    expected = count_overlap(Candidate("a", made), RealSample("real", images(4)))
    assert (expected.n_exact, expected.n_near) == (1, 4)
    monkeypatch.setattr(module, "_MOST_KEPT_IMAGES", 0)
    assert count_overlap(Candidate("a", made), RealSample("real", images(4))) == expected
