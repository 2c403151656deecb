"""Scores that are kept as each proxy finishes: the same ranking, and nothing that is stale."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate, RealSample
from synque_select.proxies import kernel
from synque_select.proxies.base import ProxyScores
from synque_select.proxies.kernel import MMD
from synque_select.proxies.registry import get_proxy, proxy_keys
from synque_select.selection import score_cache
from synque_select.selection.example_scores import with_example_scores
from synque_select.selection.findings import scoring_findings
from synque_select.selection.mixture import mixture_scores
from synque_select.selection.ranking import ranking_from
from synque_select.selection.scorer import Scorer
from synque_select.selection.scoring import Scoring
from synque_select.selection.uncertainty import multinomial_weights
from synque_select.types import Mixture, Ranking
from synque_select.utils.versions import hash_of_code
from tests.training.tiny import LetterEncoder, candidates, real_sample, texts

SUITE = ["pad", {"key": "mmd", "p_value": True}, "coverage", "ngram"]
# a language model's answers are kept one by one, and what reads records may find others
NEVER_KEPT = {"lens", "lens_balanced", "lens_raw", "lens_zero_shot", "sql_validity"}


def scored(folder: Path, suite: Any = SUITE, **options: Any) -> Scoring:
    given = {"candidates": candidates(), "real": real_sample(), "encoder": LetterEncoder()}
    given |= options
    scorer = Scorer(suite, top_k=1, cache_dir=folder, progress=False, keep_models=True)
    data = (given.pop("candidates"), given.pop("real"))
    return dataclasses.replace(scorer, **given).score(*data)


def undated(ranking: Ranking) -> Ranking:
    proxies = {k: dataclasses.replace(p, seconds=0.0) for k, p in ranking.proxies.items()}
    return dataclasses.replace(ranking, wall_s={}, proxies=proxies)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "scores").glob("*"))


@pytest.mark.parametrize("seed", range(3))
def test_a_ranking_of_kept_scores_is_that_of_fresh_ones(tmp_path: Path, seed: int):
    first = scored(tmp_path, seed=seed)
    again = scored(tmp_path, seed=seed)
    assert (first.reused, again.reused) == ((), ("pad", "mmd", "coverage", "ngram"))
    for rank_by in ("consensus", *first.scores):
        one, other = (undated(ranking_from(s, rank_by=rank_by, top_k=2)) for s in (first, again))
        assert one == other
        assert one.candidates[0].selection_stability is not None
        findings = [scoring_findings(s, None, top_k=2, rank_by=rank_by) for s in (first, again)]
        assert findings[0] == findings[1]
        assert findings[0].real_size is not None


@pytest.mark.parametrize("key", sorted({*proxy_keys()} - NEVER_KEPT))
def test_every_packaged_proxy_comes_back_as_it_was(tmp_path: Path, key: str):
    first, again = (scored(tmp_path, [key]).scores[key] for _ in range(2))
    assert len(files(tmp_path)) == 1
    for name in ("values", "spread", "p_values"):
        one, other = getattr(first, name), getattr(again, name)
        assert (one is None and other is None) or torch.equal(one, other)
    for name in ("messages", "reliable", "details"):
        assert getattr(first, name) == getattr(again, name)
    for name in ("resample", "example_scores", "mixture"):
        assert (getattr(first, name) is None) == (getattr(again, name) is None)


@pytest.mark.parametrize("key", sorted(NEVER_KEPT))
def test_what_depends_on_more_than_views_is_not_kept(tmp_path: Path, key: str):
    kept = score_cache.ScoreCache(tmp_path, {}, None)
    options = {"database": "some.sqlite"} if key == "sql_validity" else {}
    kept.keep(get_proxy(key, **options), ProxyScores(torch.zeros(2, dtype=torch.float64)), 0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spec", ["mmd", "energy", {"key": "mmd", "protocol": "released"}])
def test_a_large_real_sample_is_redrawn_in_blocks_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any
):
    weights = multinomial_weights(30, 50, seed=0)
    (small,) = scored(tmp_path / "small", [spec]).scores.values()
    monkeypatch.setattr(kernel, "_MAX_PAIRS", 29)
    (large,) = scored(tmp_path / "large", [spec]).scores.values()
    assert small.resample is not None
    assert large.resample is not None
    torch.testing.assert_close(
        small.resample(weights), large.resample(weights), rtol=1e-6, atol=1e-7
    )
    assert files(tmp_path / "small")
    assert not files(tmp_path / "large")


def test_realness_and_mixtures_are_scored_when_they_are_asked_for(tmp_path: Path):
    mixture = Mixture({"near": 0.5, "odd": 0.25, "far": 0.25})
    results = []
    for _ in range(2):
        scoring = scored(tmp_path)
        before = (torch.get_rng_state(), random.getstate())
        examples = with_example_scores(candidates(), scoring)
        results.append((mixture_scores(scoring, mixture), [c.example_scores for c in examples]))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
    assert scoring.reused
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert (
            one.keys() == other.keys() == {"pad", "mmd", "coverage", "ngram", "label_consistency"}
        )
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


class OtherEncoder(LetterEncoder):
    revision = "2"


def changed_view() -> list[Candidate]:
    pool = candidates()
    records = [*pool[3].dataset]
    records[7] = {"text": "another text", "label": 0}
    return [*pool[:3], Candidate("far", records, view="text"), pool[4]]


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({"seed": 1}, ()),
        ({"real": real_sample(29)}, ()),
        ({"real": RealSample("other name", real_sample().dataset, view="text")}, ()),
        ({"candidates": candidates(59)}, ()),
        ({"candidates": candidates()[::-1]}, ()),
        ({"candidates": changed_view()}, ()),
        ({"encoder": OtherEncoder()}, ("ngram",)),
        ({"suite": [{"key": "mmd", "kernel": "laplacian"}, "ngram"]}, ("ngram",)),
        ({"suite": ["mdm", "ngram", "pad"]}, ("ngram", "pad")),
    ],
    ids=["seed", "real", "name", "size", "order", "one view", "encoder", "option", "suite"],
)
def test_nothing_stale_is_used(tmp_path: Path, change: dict[str, Any], reused: tuple[str, ...]):
    scored(tmp_path)
    assert scored(tmp_path, **change).reused == reused


@pytest.mark.parametrize("what", ["source_hash", "package_versions"])
def test_another_version_scores_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    scored(tmp_path)
    monkeypatch.setattr(score_cache, what, lambda: "another")
    assert scored(tmp_path).reused == ()


def test_any_file_of_the_code_counts(tmp_path: Path):
    (tmp_path / "llm" / "openai").mkdir(parents=True)
    (tmp_path / "a.py").write_text("x = 1")
    hashes = [hash_of_code(tmp_path)]
    for name, text in (("llm/openai/b.py", "y"), ("llm/openai/b.py", "z"), ("llm/c.txt", "no")):
        (tmp_path / name).write_text(text)
        hashes.append(hash_of_code(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "llm" / "a.py")
    hashes.append(hash_of_code(tmp_path))
    assert hashes[2] == hashes[3]
    assert len({*hashes}) == 4


class OwnProxy(MMD):
    """A user's: what it does may change in places that nobody hashes."""


def test_a_users_proxy_is_scored_each_time(tmp_path: Path):
    for _ in range(2):
        assert scored(tmp_path, [OwnProxy(), "ngram"]).scores.keys() == {"mmd", "ngram"}
    assert scored(tmp_path, [OwnProxy(), "ngram"]).reused == ("ngram",)


def test_an_option_that_is_no_plain_value_is_not_kept(tmp_path: Path):
    for _ in range(2):
        scoring = scored(tmp_path, [get_proxy("ngram", alpha=np.float32(0.1))])
        assert scoring.reused == ()
    assert not files(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "a byte", "empty", "a text"])
def test_a_damaged_file_is_scored_again(tmp_path: Path, caplog: Any, damage: str):
    first = scored(tmp_path, ["ngram"])
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    at = len(whole) // 2
    broken = {
        "cut": whole[:at],
        "a byte": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "empty": b"",
        "a text": b"scores",
    }
    file.write_bytes(broken[damage])
    again = scored(tmp_path, ["ngram"])
    assert again.reused == ()
    assert "ngram is scored again" in caplog.text
    assert torch.equal(first.scores["ngram"].values, again.scores["ngram"].values)
    assert scored(tmp_path, ["ngram"]).reused == ("ngram",)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        scoring = scored(tmp_path / "file", ["ngram"])
        assert scoring.reused == ()
        assert torch.isfinite(scoring.scores["ngram"].values).all()


def test_undefined_scores_and_what_is_said_of_them_come_back(tmp_path: Path):
    # distinct texts: copies of one would leave the candidate out
    wordless = Candidate("wordless", [{"text": " " * n} for n in range(1, 21)], view="text")
    pool = [wordless, Candidate("a", texts("apple pear", 20, 1), view="text")]
    first, again = (
        scored(tmp_path, ["ngram", "baseline_entropy"], candidates=pool) for _ in range(2)
    )
    assert again.reused == ("ngram", "baseline_entropy")
    assert first.messages == again.messages
    assert any("wordless" in message for message in first.messages)
