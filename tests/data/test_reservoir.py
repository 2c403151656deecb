"""Candidates of any length: one pass, exact counts, a random draw."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import IterableDataset

from synque_select.data import reservoir, sources
from synque_select.data.candidate import Candidate
from synque_select.data.population import ReservoirOptions
from synque_select.data.reservoir import streamed_candidate
from synque_select.data.sources import load_candidates
from synque_select.errors import ConfigError, DataError
from synque_select.functional.ngram import ngram_counts

N = 700


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def records(n: int = N) -> Iterator[dict[str, Any]]:
    for i in range(n):
        yield {"text": f"text {i} of {i % 13}", "label": "pos" if i % 3 else "neg"}


class Stream(IterableDataset[Any]):
    """A dataset of unknown length that counts how often it is read."""

    def __init__(self, n: int = N) -> None:
        self.n = n
        self.n_passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.n_passes += 1
        yield from records(self.n)


def load(source: Any, **options: Any) -> Candidate:
    (candidate,) = load_candidates({"a": source}, label="label", reservoir=100, **options)
    return candidate


def saved(folder: Path, n_shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    rows = list(records())
    for shard in range(n_shards):
        table = pa.Table.from_pylist(rows[shard::n_shards])
        pq.write_table(table, folder / f"train-{shard:05d}-of-{n_shards:05d}.parquet")
    return folder


def test_a_stream_counts_what_a_list_has():
    whole = Candidate("a", list(records()), "text", "label")
    streamed = load(Stream())
    population = streamed.population
    assert population is not None
    assert (streamed.n_all, len(streamed)) == (N, 100)
    assert streamed.sha256_of_all == population.sha256 == whole.sha256
    assert (population.ngrams[0] == ngram_counts([*whole.views]).numpy()).all()
    assert population.labels == Counter(whole.labels)
    chosen = [whole.views[int(i)] for i in population.positions]
    assert list(streamed.views) == chosen
    assert streamed.labels == tuple(whole.labels[int(i)] for i in population.positions)
    assert streamed.notes == (
        "100 of 700 examples, drawn at random (seed 0), are scored; n-grams are those of all",
    )


def test_streams_lists_and_files_have_one_draw(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records()))
    hf = datasets.Dataset.from_list(list(records()))
    loaded = [
        load(source)
        for source in (Stream(), list(records()), path, hf, hf.to_iterable_dataset(), records())
    ]
    first = loaded[0]
    assert first.population is not None
    for other in loaded[1:]:
        assert other.population is not None
        assert list(other.views) == list(first.views)
        assert other.sha256 == first.sha256
        assert other.content == first.content
        assert (other.population.positions == first.population.positions).all()
        for mine, theirs in zip(other.population.ngrams, first.population.ngrams, strict=True):
            assert (mine == theirs).all()


def test_the_seed_chooses_the_examples():
    one, same, other = (load(Stream(), seed=seed) for seed in (0, 0, 1))
    assert list(one.views) == list(same.views) != list(other.views)
    assert one.sha256_of_all == other.sha256_of_all


def test_a_stream_is_read_once_and_only_the_drawn_are_stored(cache: Path):
    stream = Stream()
    candidate = load(stream)
    assert candidate.views[99]
    assert candidate.digests.shape == (100, 32)
    assert stream.n_passes == 1
    assert len(datasets.Dataset.from_file(str(next((cache / "iterables").glob("*.arrow"))))) == 100


def test_short_streams_are_used_whole():
    for n in (2, 99, 100):
        candidate = load(Stream(n))
        assert candidate.population is None
        assert (len(candidate), candidate.n_all, candidate.notes) == (n, n, ())
    assert load(Stream(101)).n_all == 101
    assert load(list(records(100))).population is None


def test_without_a_reservoir_a_stream_is_stored_whole():
    (candidate,) = load_candidates({"a": Stream()}, label="label")
    assert len(candidate) == N
    assert candidate.population is None


def no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an example was read again")

    monkeypatch.setattr(reservoir._Counts, "add", fail)


@pytest.mark.parametrize("n_shards", [1, 3])
def test_files_that_have_not_changed_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_shards: int
):
    folder = saved(tmp_path / "shards", n_shards)
    first = load(folder)
    with monkeypatch.context() as patched:
        no_pass(patched)
        second = load(folder)
        with pytest.raises(AssertionError):
            load_candidates({"a": folder}, view="label", reservoir=100)
    assert second.content == first.content
    assert second.population is not None
    assert first.population is not None
    assert second.population.labels == first.population.labels
    table = pa.Table.from_pylist([{"text": "new", "label": "pos"}] * N)
    pq.write_table(table, next(folder.iterdir()))
    third = load(folder)
    assert third.sha256_of_all != first.sha256_of_all


def test_a_damaged_file_of_the_cache_costs_a_pass(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
):
    folder = saved(tmp_path / "shards")
    first = load(folder)
    (kept,) = (cache / "streams").iterdir()
    kept.write_bytes(kept.read_bytes()[:-200] + b"x" * 200)
    assert load(folder).content == first.content
    assert "is damaged" in caplog.text


def test_a_hub_dataset_is_streamed_and_known_by_its_commit(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_hub(name: Any, *, streaming: bool = False) -> Any:
        asked.append(streaming)
        split = datasets.Dataset.from_list(list(records())).to_iterable_dataset()
        return datasets.IterableDatasetDict({"train": split, "test": split.take(5)})

    monkeypatch.setattr(sources, "load_hub", load_hub)
    monkeypatch.setattr(sources, "hub_commit", lambda name: "1234")
    first = load("hub:owner/name")
    assert asked == [True]
    assert first.n_all == N
    assert first.notes[0] == "the split 'train' is read; left out: test (streamed)"
    with monkeypatch.context() as patched:
        no_pass(patched)
        assert load("hub:owner/name").content == first.content
        patched.setattr(sources, "hub_commit", lambda name: "5678")
        with pytest.raises(AssertionError, match="read again"):
            load("hub:owner/name")
        patched.setattr(sources, "hub_commit", lambda name: None)
        with pytest.raises(AssertionError, match="read again"):
            load("hub:owner/name")


def test_streams_are_not_joined(monkeypatch: pytest.MonkeyPatch):
    split = datasets.Dataset.from_list(list(records())).to_iterable_dataset()
    monkeypatch.setattr(sources, "load_hub", lambda name, streaming=False: split)
    monkeypatch.setattr(sources, "hub_commit", lambda name: None)
    joined = [sources._from_hub(sources.hub_id(f"hub:o/{n}"), sources._How(frozenset(), None, True))
              for n in "ab"]  # fmt: skip
    with pytest.raises(ConfigError, match="datasets that are streamed cannot be joined"):
        sources._joined("a", joined)


def test_a_slice_of_a_split_is_not_streamed(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_hub(name: Any, *, streaming: bool = False) -> Any:
        asked.append(streaming)
        return datasets.Dataset.from_list(list(records()))

    monkeypatch.setattr(sources, "load_hub", load_hub)
    monkeypatch.setattr(sources, "hub_commit", lambda name: "1234")
    assert load("hub:owner/name#train[:700]").n_all == N
    monkeypatch.setattr(sources, "hub_commit", lambda name: None)
    assert load("hub:owner/name").n_all == N  # without a network, from the local cache
    assert asked == [False, False]


class TestErrors:
    def test_empty(self):
        with pytest.raises(DataError, match="a: the iterable yields no examples"):
            load(iter(()))

    def test_one_example(self):
        with pytest.raises(DataError, match="a: 1 example; at least 2 are required"):
            load(Stream(1))

    def test_a_stream_that_raises_in_the_middle(self):
        def broken() -> Iterator[Any]:
            yield from records(345)
            raise OSError("the connection was reset")

        with pytest.raises(DataError, match=r"a, example 345 .*failed: OSError: the connection"):
            load(broken())

    @pytest.mark.parametrize("wrong", [{"label": "pos"}, {"text": None, "label": "pos"}])
    def test_an_example_without_a_view(self, wrong: Any):
        examples = [*records(300), wrong, *records(5)]
        for source in (iter(examples), examples):
            with pytest.raises(DataError, match=r"a, example 300 \(counted from 0\)"):
                load(source)

    def test_an_example_without_a_label(self):
        examples = [*records(300), {"text": "x"}, *records(5)]
        for source in (iter(examples), examples):
            with pytest.raises(DataError, match=r"a, example 300 .*no field 'label'"):
                load(source)

    def test_an_iterator_can_be_scored_but_not_trained_on(self):
        once = load(records())
        assert len(once) == 100
        with pytest.raises(DataError, match="a: 700 examples were read from an iterator, which"):
            once.all_examples  # noqa: B018 - a property that raises
        again = load(Stream())
        assert len(again.all_examples) == N  # type: ignore[arg-type]
        assert again.all_examples[699]["text"] == "text 699 of 10"  # type: ignore[index]

    def test_too_small_a_reservoir(self):
        with pytest.raises(ConfigError, match="reservoir=50: allowed is a whole number from 100"):
            load_candidates({"a": Stream()}, reservoir=50)


def test_a_part_of_the_drawn_is_a_candidate_of_its_own():
    candidate = load(Stream())
    part = candidate.without([0, 1])
    assert (len(part), part.n_all, part.population) == (98, 98, None)


def test_classes_keep_their_names():
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    rows = [{"text": f"t {i}", "label": i % 2} for i in range(300)]
    hf = datasets.Dataset.from_list(rows, features=kinds).to_iterable_dataset()
    candidate = load(hf)
    assert candidate.population is not None
    assert candidate.population.labels == {"neg": 150, "pos": 150}
    assert {*candidate.labels} == {"neg", "pos"}


def test_images():
    Image = pytest.importorskip("PIL.Image")

    def pictures() -> Iterator[Any]:
        for i in range(150):
            yield Image.fromarray(np.full((4, 5, 3), i, dtype=np.uint8))

    (candidate,) = load_candidates({"a": pictures()}, reservoir=100)
    assert candidate.population is not None
    assert (candidate.n_all, len(candidate)) == (150, 100)
    assert candidate.population.ngrams == ()
    assert "n-grams" not in candidate.notes[0]


def peak(n: int, options: ReservoirOptions) -> int:
    texts = (f"text {i} of {i % 1000} with some words to fill it up" for i in range(n))
    tracemalloc.start()
    try:
        streamed_candidate("a", texts, options, view=None, label=None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "n", [60_000, pytest.param(1_000_000, marks=pytest.mark.slow, id="a million")]
)
def test_memory_does_not_grow_with_the_length(n: int):
    options = ReservoirOptions(1000)
    peak(20_000, options)  # tables that are computed once
    assert peak(n, options) < peak(20_000, options) + (1 << 20)
