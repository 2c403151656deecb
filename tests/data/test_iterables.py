from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from synque_select.data import iterables
from synque_select.data.iterables import open_stored, store_iterable
from synque_select.data.sources import load_candidates, load_real
from synque_select.errors import DataError
from synque_select.utils import cache_dir

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "iterables"


class Stream(IterableDataset[Any]):
    """As torch users write one: with a length, and with torch's __getitem__ that fails."""

    def __init__(self, examples: list[Any]) -> None:
        self.examples = examples
        self.n_read = 0

    def __iter__(self) -> Iterator[Any]:
        for example in self.examples:
            self.n_read += 1
            yield example

    def __len__(self) -> int:
        return len(self.examples)


def image(value: int) -> Any:
    return Image.fromarray(np.full((4, 5, 3), value, dtype=np.uint8))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


@pytest.mark.parametrize(
    "examples",
    [
        [{"text": f"t{i}", "label": i, "weights": [0.5, i]} for i in range(5)],
        [{"text": f"t{i}", "tags": i if i % 2 else "odd"} for i in range(3000)],
        [f"text {i} \ud83d" if i == 3 else f"text {i}" for i in range(5)],
        [(f"t{i}", i) for i in range(5)],
        [(torch.rand(2, 3), torch.tensor(i), f"t{i}") for i in range(5)],
        [{"x": np.arange(i + 1, dtype=np.uint8), "y": np.float64(i)} for i in range(5)],
        [{"x": torch.ones(2).bfloat16() * i} for i in range(5)],
        # fields that some records lack, in any order, are not there; None is
        [{"text": "a"}, {"text": "b", "note": 1}, {"note": None, "text": "c"}, {}],
        [{}, {"text": "b", "x": {"y": 1}}, {"text": "c", "x": {"z": 1}}],
    ],
)
def test_examples_come_back_as_they_were(examples: list[Any]):
    stored = open_stored(store_iterable("a", Stream(examples)))
    assert len(stored) == len(examples)
    plain = [{**e, "y": float(e["y"])} if "y" in e else e for e in examples]
    assert all(same(stored[i], plain[i]) for i in range(len(examples)))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1"])
def test_images(mode: str):
    images = [image(10 * i).convert(mode) for i in range(3)]
    candidate = load_candidates({"a": iter(images)})[0]
    assert candidate.modality == "image"
    for view, given in zip(candidate.views, images, strict=True):
        assert (view.mode, view.tobytes()) == (given.mode, given.tobytes())


def test_written_once_and_kept_by_content(cache: Path):
    first = store_iterable("a", Stream(["x", "y"]))
    written = first.stat().st_mtime_ns
    assert store_iterable("renamed", iter(["x", "y"])) == first
    assert first.stat().st_mtime_ns == written
    assert store_iterable("a", Stream(["x", "z"])) != first
    assert sorted(p.suffix for p in cache.iterdir()) == [".arrow", ".arrow", ".json", ".json"]


def test_a_set_has_no_order_and_is_refused():
    for source in ({"a.jsonl", "b.jsonl"}, {"a": frozenset(["x", "y"])}):
        with pytest.raises(DataError, match="found a set, which has no order"):
            load_candidates(source)
    with pytest.raises(DataError, match="found a set, which has no order"):
        load_real({"x", "y"})


def test_all_kinds_of_iterables_are_candidates():
    stream = Stream([{"text": f"s{i}", "label": i} for i in range(4)])
    streamed = datasets.Dataset.from_list([{"text": f"h{i}"} for i in range(4)])
    candidates = load_candidates(
        {"torch": stream, "hf": streamed.to_iterable_dataset(), "generator": map(str, range(4))}
    )
    assert [list(candidate.views)[2] for candidate in candidates] == ["s2", "h2", "2"]
    assert stream.n_read == 4
    assert [c.views[3] for c in load_candidates([Stream(["a"] * 4), Stream(["b"] * 4)])] == [
        "a",
        "b",
    ]
    assert list(load_real(iter(["u", "v"])).views) == ["u", "v"]


def test_classes_of_a_stream_keep_their_names():
    kinds = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["pos", "neg"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
        }
    )
    rows = [{"text": f"t{i}", "label": i % 2, "tags": [i % 2]} for i in range(4)]
    table = datasets.Dataset.from_list(rows, features=kinds)
    for label, expected in (("label", ("pos", "neg")), ("tags", ('["a"]', '["b"]'))):
        file, stream = load_candidates(
            {"file": table, "stream": table.to_iterable_dataset()}, view="text", label=label
        )
        assert file.labels == stream.labels == expected * 2
        assert stream[1] == {"text": "t1", "label": 1, "tags": [1]}


def test_a_disk_that_is_full_while_a_stream_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(iterables, "_SPOOLED_BYTES", 1000)
    cache_dir._note_once.cache_clear()
    append, n_appended = iterables._Spool._append, 0

    def full_from_the_third_on(spool: Any) -> None:
        nonlocal n_appended
        n_appended += 1
        if n_appended > 2 and spool.path.is_relative_to(cache):
            with spool.path.open("ab") as file:
                file.write(b"half of a li")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(spool)

    monkeypatch.setattr(iterables._Spool, "_append", full_from_the_third_on)
    texts = [f"text number {i}" for i in range(300)]
    with caplog.at_level("WARNING"):
        stored = open_stored(store_iterable("a", iter(texts)))
    assert [stored[i] for i in range(300)] == texts
    assert "cannot be written (No space left on device)" in caplog.text
    assert not list(cache.glob("*.part"))


class TestRefused:
    def test_an_endless_one(self, monkeypatch: pytest.MonkeyPatch, cache: Path):
        monkeypatch.setattr(iterables, "MAX_EXAMPLES", 100)
        with pytest.raises(
            DataError, match=r"a: the iterable yields more than 100 examples.*must be finite"
        ):
            load_candidates({"a": map(str, itertools.count())})
        assert list(cache.glob("*")) == [], "nothing of it is left"
        assert len(load_candidates({"a": map(str, range(100))})[0]) == 100

    def test_an_empty_one(self):
        with pytest.raises(DataError, match="a: the iterable yields no examples"):
            load_candidates({"a": iter([])})

    def test_one_that_fails(self, cache: Path):
        def broken() -> Iterator[str]:
            yield "x"
            raise OSError("connection lost")

        with pytest.raises(DataError, match=r"a, example 1 .*: OSError: connection lost"):
            load_candidates({"a": broken()})
        assert list(cache.glob("*")) == []

    @pytest.mark.parametrize(
        ("examples", "message"),
        [
            (
                [{"x": 1}, ("y", 1)],
                "example 1 .*: found a tuple, but the first example is a record",
            ),
            ([{"x": image(1)}, {"x": None}], "found a record, but the first .* a record, x image"),
            ([{"x": object()}], "example 0 .*field 'x', of type object, cannot be stored"),
        ],
    )
    def test_examples_that_cannot_be_kept(self, examples: list[Any], message: str):
        with pytest.raises(DataError, match=message):
            load_candidates({"a": iter(examples)})

    def test_a_cache_that_is_not_here(self, cache: Path):
        with pytest.raises(DataError, match="a folder that all machines of the run share"):
            open_stored(cache / "other.arrow")

    def test_no_place_to_write_at_all(self, cache: Path, monkeypatch: pytest.MonkeyPatch):
        cache.parent.write_text("a file")
        monkeypatch.setattr(cache_dir, "_temporary_root", lambda: cache.parent / "nor here")
        with pytest.raises(DataError, match="set SYNQUE_CACHE"):
            load_candidates({"a": iter(["x", "y"])})


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (
            [{"m": {1: "x", "1": "y"}}],
            r"example 0 \(counted from 0\), field 'm': the key 1 is of type int",
        ),
        (
            [{"m": "x"}, {"m": [{"e": {None: 1}}]}],
            r"example 1 .*, field 'm': the key None is of type None",
        ),
        ([{"m": {True: 2}}], r"example 0 .*, field 'm': the key True is of type bool"),
        ([{1: "x", "1": "y"}], r"example 0 .*: the key 1 is of type int; allowed are texts"),
        ([("a", 1), ("b",)], r"example 1 .*: found 1 part, but the first example has 2"),
        ([("a",), ("b", 2)], r"example 1 .*: found 2 parts, but the first example has 1"),
    ],
)
def test_what_would_come_back_changed_is_refused(examples: list[Any], message: str):
    with pytest.raises(DataError, match=f"^a, {message}"):
        store_iterable("a", iter(examples))
