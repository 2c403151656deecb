from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synque_select.data.candidate import Candidate
from synque_select.errors import ConfigError, DataError
from synque_select.selection.surrogate import draw_surrogate, held_out
from tests.training.tiny import WORDS, LetterEncoder, candidates, real_sample, texts

N_CANDIDATES = len(WORDS)


def draw(tmp_path: Path, pool: list[Candidate] | None = None, families=None, **options):
    pool = candidates(200) if pool is None else pool
    return draw_surrogate(
        pool,
        real_sample(),
        [c.name for c in pool] if families is None else families,
        **{"size": 100, "share": 0.3, "encoder": LetterEncoder(), "cache_dir": tmp_path} | options,
    )


def test_every_candidate_has_as_many_examples_all_of_them_held_out(tmp_path):
    pool = candidates(200)
    drawn = draw(tmp_path, pool)
    assert np.bincount(drawn.owners).tolist() == [20] * N_CANDIDATES
    for k, candidate in enumerate(pool):
        chosen = held_out(candidate, 0.3, seed=0)
        assert chosen[drawn.positions[drawn.owners == k]].all()
    # interleaved: the first examples are balanced, too
    assert np.bincount(drawn.owners[: 5 * N_CANDIDATES]).tolist() == [5] * N_CANDIDATES


def test_families_have_equal_shares(tmp_path):
    drawn = draw(tmp_path, families=["a", "a", "a", "b", "c"], size=90)
    assert np.bincount(drawn.owners).tolist() == [10, 10, 10, 30, 30]


def test_examples_like_the_real_sample_are_drawn_more_often(tmp_path):
    # half of the words of "mixed" are real ones, so its examples differ in how real they are
    pool = candidates(400)
    drawn = draw(tmp_path, pool, size=500, share=0.5, encoder=Sharper())
    place = list(WORDS).index("mixed")
    mixed = pool[place]
    real_words = {"apple", "banana", "cherry", "violet", "zebra"}

    def share(positions) -> float:
        return float(
            np.mean([len(real_words & set(mixed.views[int(i)].split())) for i in positions])
        )

    chosen = np.flatnonzero(held_out(mixed, 0.5, seed=0))
    assert share(drawn.positions[drawn.owners == place]) > share(chosen) + 0.1
    assert (drawn.effective_sizes <= 200).all()
    assert "whose effective number by importance weights is" in drawn.messages[0]


class Sharper(LetterEncoder):
    """Shares of letters on a scale on which the classifier's penalty is weak."""

    id = "sharper letters"

    def encode(self, views):
        return 10 * super().encode(views)


def test_content_decides_what_is_held_out():
    first, copy = (Candidate(n, texts("a b c d", 300, 1), view="text") for n in ("first", "copy"))
    chosen = held_out(first, 0.2, seed=0)
    assert (held_out(copy, 0.2, seed=0) == chosen).all()
    assert 0.1 < chosen.mean() < 0.3
    assert not (held_out(first, 0.2, seed=1) == chosen).all()


def test_the_same_seed_draws_the_same_set(tmp_path):
    first, again, other = (draw(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert (first.positions == again.positions).all()
    assert not (first.positions == other.positions).all()


def test_the_number_of_encoded_examples_is_bounded(tmp_path):
    encoder = LetterEncoder()
    draw(tmp_path, candidates(3000), size=50, encoder=encoder)
    assert encoder.n_encoded <= 30 + N_CANDIDATES * 4 * 10


def test_too_few(tmp_path):
    with pytest.raises(ConfigError, match="found 1 candidate; each candidate is measured"):
        draw(tmp_path, candidates(200)[:1])
    with pytest.raises(ConfigError, match="candidates of one family"):
        draw(tmp_path, families=["x"] * N_CANDIDATES)
    with pytest.raises(DataError, match=r"near: \d of its 10 distinct examples are held out"):
        draw(tmp_path, candidates(10))
