"""A ranking of the same content and options is taken from the cache, whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synque_select import rank
from synque_select.data.candidate import Candidate, RealSample
from synque_select.errors import ConfigError
from synque_select.selection import Scorer
from synque_select.selection.ranking import ranking_from
from tests.benchmarks.growth import WordEncoder, _read, write

OPTIONS: dict[str, Any] = {"encoder": WordEncoder(), "device": "cpu", "progress": False}


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[Candidate], RealSample, Path]:
    from synque_select.data.sources import load_real

    write(tmp_path / "data", 5, 40)
    real = load_real(tmp_path / "data" / "real.jsonl")
    return _read(tmp_path / "data"), real, tmp_path / "cache"


def test_nothing_is_scored_twice(data, monkeypatch: pytest.MonkeyPatch):
    given, real, cache = data
    options = OPTIONS | {"cache_dir": cache, "label_filter": 0.5}
    first = rank(given, real, **options)
    monkeypatch.setattr("synque_select.selection.scorer.score", None)
    again = rank(given, real, **options)
    without = [replace(ranking, made_by=None).to_dict() for ranking in (first, again)]
    assert without[0] == without[1]
    assert again.findings.labels == first.findings.labels
    assert again.findings.dropped == first.findings.dropped
    assert first.findings.dropped is not None


def test_another_option_is_another_ranking(data, monkeypatch: pytest.MonkeyPatch):
    given, real, cache = data
    rank(given, real, **OPTIONS, cache_dir=cache)
    monkeypatch.setattr("synque_select.selection.scorer.score", None)
    with pytest.raises(TypeError):
        rank(given, real, **OPTIONS, cache_dir=cache, top_k=2)


def test_more_are_asked_for_than_there_are(data):
    given, real, cache = data
    scoring = Scorer(["mmd"], **OPTIONS, cache_dir=cache).score(given, real)
    ranking = ranking_from(scoring, top_k=99)
    assert set(ranking.top().names) == {candidate.name for candidate in given}
    with pytest.raises(ConfigError, match="top_k=0: allowed is a whole number from 1"):
        Scorer(["mmd"], top_k=0)


def test_a_device_that_cannot_be_used_is_an_error_with_everything_cached(data):
    given, real, cache = data
    rank(given, real, **OPTIONS, cache_dir=cache)
    with pytest.raises(ConfigError, match="device='cuda:99' cannot be used here"):
        rank(given, real, **(OPTIONS | {"device": "cuda:99"}), cache_dir=cache)
