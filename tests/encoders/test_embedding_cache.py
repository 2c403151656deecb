"""The embedding cache: by content, whole or not at all, shared by processes."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from synque_select.data.candidate import Candidate
from synque_select.data.views import digest
from synque_select.encoders import BaseEncoder, embed, shards
from synque_select.encoders import embedding_cache as cache
from synque_select.encoders.shards import ShardError, ShardIndex, open_shard, write_shard
from synque_select.errors import ConfigError, DataError, EncoderError
from synque_select.utils import cache_dir, progress
from synque_select.utils.cache_dir import default_cache_dir


class Counting(BaseEncoder):
    """Counts what reaches it; a text's embedding is made of its digest."""

    id, modality, revision, batch_size = "counting", "text", "1", 8

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, views):
        self.seen += views
        return torch.tensor([vector(view) for view in views])


def vector(text: str) -> list[float]:
    return [byte / 255 for byte in digest(text)[:6]]


def rows_of(texts: Sequence[str]) -> torch.Tensor:
    return torch.tensor([vector(text) for text in texts])


def texts(start: int, stop: int) -> list[str]:
    return [f"text {i}" for i in range(start, stop)]


def files(folder: Path, pattern: str = "*.safetensors") -> list[Path]:
    return sorted(folder.glob(f"embeddings/*/{pattern}"))


def test_rows_come_in_the_order_of_the_examples(tmp_path):
    embedded = embed(Counting(), Candidate("a", texts(0, 30)), cache_dir=tmp_path)
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 30)))
    assert embedded.embeddings.dtype == torch.float32
    assert (embedded.n_encoded, embedded.n_cached) == (30, 0)
    assert embedded.seconds > 0


def test_a_view_is_encoded_once_within_and_across_candidates(tmp_path):
    encoder = Counting()
    first, second = texts(0, 10) * 2, ["new", *texts(5, 12), "new"]
    embed(encoder, Candidate("a", first), cache_dir=tmp_path)
    embedded = embed(encoder, Candidate("b", second), cache_dir=tmp_path)
    assert sorted(encoder.seen) == sorted([*texts(0, 12), "new"])
    assert (embedded.n_encoded, embedded.n_cached) == (3, 6)
    assert torch.equal(embedded.embeddings, rows_of(second))


def test_a_second_run_encodes_nothing_even_in_another_order(tmp_path):
    embed(Counting(), Candidate("a", texts(0, 20)), cache_dir=tmp_path)
    encoder = Counting()
    for order in (texts(0, 20), texts(0, 20)[::-1], texts(3, 9)):
        embedded = embed(encoder, Candidate("other name", order), cache_dir=tmp_path)
        assert torch.equal(embedded.embeddings, rows_of(order))
    assert encoder.seen == []


def test_the_encoder_key_separates_caches(tmp_path):
    embed(Counting(), Candidate("a", texts(0, 4)), cache_dir=tmp_path)
    other = Counting()
    other.revision = "2"
    embed(other, Candidate("a", texts(0, 4)), cache_dir=tmp_path)
    assert len(other.seen) == 4


def test_the_code_of_a_users_class_is_part_of_its_key():
    class Short(BaseEncoder):
        id, modality = "mine", "text"

        def encode(self, views):
            return torch.ones(len(views), 2)

    first = Short().key

    class Short(BaseEncoder):  # type: ignore[no-redef]
        id, modality = "mine", "text"

        def encode(self, views):
            return torch.zeros(len(views), 2)

    assert Short().key != first


def test_a_key_that_changes_on_loading_is_looked_up_again(tmp_path):
    class Settles(Counting):
        precision = "low"

        def prepare(self):
            self.precision = "high"

        def options(self):
            return {"precision": self.precision}

    embed(Settles(), Candidate("a", texts(0, 5)), cache_dir=tmp_path)
    again = Settles()
    embedded = embed(again, Candidate("a", texts(0, 5)), cache_dir=tmp_path)
    assert again.seen == []
    assert embedded.n_cached == 5


def test_embeddings_are_mapped_and_the_cache_is_safe_from_writing(tmp_path):
    candidate = Candidate("a", texts(0, 5))
    embedded = embed(Counting(), candidate, cache_dir=tmp_path)
    embedded.embeddings.zero_()
    again = embed(Counting(), candidate, cache_dir=tmp_path)
    assert torch.equal(again.embeddings, rows_of(texts(0, 5)))
    stored = load_file(files(tmp_path)[0])  # a plain safetensors file
    assert np.array_equal(stored["embeddings"], again.embeddings.numpy())
    assert np.array_equal(stored["digests"], candidate.digests)


def test_one_file_remains_for_a_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_FLUSH_S", 0.0)  # a part for every batch
    monkeypatch.setattr(cache, "_FLUSH_SHARE", 0.0)
    embedded = embed(Counting(), Candidate("a", texts(0, 50)), cache_dir=tmp_path)
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 50)))
    assert len(files(tmp_path)) == 1
    assert files(tmp_path, ".*") == []


class Breaks(Counting):
    """Fails at its third batch."""

    def encode(self, views):
        if len(self.seen) >= 16:
            raise RuntimeError("no more")
        return super().encode(views)


def test_what_was_encoded_before_an_error_is_kept(tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        embed(Breaks(), Candidate("a", texts(0, 30)), cache_dir=tmp_path)
    encoder = Counting()
    embedded = embed(encoder, Candidate("a", texts(0, 30)), cache_dir=tmp_path)
    assert encoder.seen == texts(16, 30)
    assert (embedded.n_encoded, embedded.n_cached) == (14, 16)
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 30)))


def test_an_example_that_cannot_be_read_keeps_the_ones_before(tmp_path):
    class Late(list):
        broken = False

        def __getitem__(self, index):
            if self.broken and index == 20:
                raise OSError("gone")
            return super().__getitem__(index)

    data = Late(texts(0, 30))
    candidate = Candidate("a", data)
    assert len(candidate.digests) == 30
    data.broken = True
    with pytest.raises(DataError, match=r"a, example 20 .*gone"):
        embed(Counting(), candidate, cache_dir=tmp_path)
    data.broken = False
    encoder = Counting()
    embed(encoder, candidate, cache_dir=tmp_path)
    assert encoder.seen == texts(16, 30)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: torch.ones(n), r"must return a floating point tensor \(n, d\) .*, found \(8,\)"),
        (lambda n: np.ones((n, 2)), "found ndarray"),
        (lambda n: torch.ones(n, 0), r"d >= 1, found \(8, 0\)"),
        (lambda n: torch.ones(n, 2, dtype=torch.int64), "floating point"),
        (lambda n: torch.ones(n + 1, 2), "9 embeddings of 8 views"),
        (lambda n: torch.full((n, 2), float("nan")), "broken.json.*example 0 .*is not finite"),
        (lambda n: torch.full((n, 2), 1e300, dtype=torch.float64), "not finite"),
    ],
)
def test_embeddings_that_are_not_usable(tmp_path, answer, message):
    class Wrong(Counting):
        def encode(self, views):
            return answer(len(views))

    with pytest.raises(EncoderError, match=message):
        embed(Wrong(), Candidate("c", texts(0, 9), source="broken.json"), cache_dir=tmp_path)


def test_the_example_that_is_not_finite_is_named(tmp_path):
    class OneNan(Counting):
        def encode(self, views):
            rows = super().encode(views)
            rows[[view == "text 12" for view in views]] = float("inf")
            return rows

    with pytest.raises(EncoderError, match=r"embedding of a, example 13 .*is not finite"):
        embed(OneNan(), Candidate("a", ["text 0", *texts(0, 20)]), cache_dir=tmp_path)


def test_dimensions_that_change(tmp_path):
    class Grows(Counting):
        def encode(self, views):
            return torch.ones(len(views), 2 + len(self.seen + super().encode(views).tolist()))

    with pytest.raises(EncoderError, match=r"a: the embeddings have 26 dimensions, but .* have 18"):
        embed(Grows(), Candidate("a", texts(0, 20)), cache_dir=tmp_path)


@pytest.mark.parametrize("start", [2, 4])
def test_dimensions_that_differ_from_those_of_another_candidate(tmp_path, start):
    class Other(Counting):
        def encode(self, views):
            return torch.ones(len(views), 3)

    embed(Counting(), Candidate("b", texts(0, 4)), cache_dir=tmp_path)
    message = "c: the embeddings have 3 dimensions, but .* have 6.*change the encoder's revision"
    with pytest.raises(EncoderError, match=message):
        embed(Other(), Candidate("c", texts(start, 8)), cache_dir=tmp_path)
    assert len(files(tmp_path)) == 1


def test_views_that_encode_many_leaves_out(tmp_path):
    class Lazy(Counting):
        def encode_many(self, views):
            yield [0], self.encode([views[0]])

    with pytest.raises(EncoderError, match="1 embedding of 4 views"):
        embed(Lazy(), Candidate("a", texts(0, 4)), cache_dir=tmp_path)


def test_another_modality_is_refused(tmp_path):
    images = Candidate("pictures", [np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)])
    with pytest.raises(ConfigError, match="encodes texts, the views of pictures are images"):
        embed(Counting(), images, cache_dir=tmp_path)


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "row": lambda path: _flip(path, path.stat().st_size - 32 * 20 - 1),
    "digest": lambda path: _flip(path, path.stat().st_size - 1),
    "header": lambda path: _flip(path, 9),
    "foreign": lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_and_encoded_again(tmp_path, caplog, damage):
    embed(Counting(), Candidate("a", texts(0, 20)), cache_dir=tmp_path)
    damage(files(tmp_path)[0])
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        embedded = embed(encoder, Candidate("a", texts(0, 20)), cache_dir=tmp_path)
    assert "its views are encoded again" in caplog.text
    assert len(encoder.seen) == 20
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 20)))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_of_another_candidate_does_no_harm(tmp_path, damage):
    embed(Counting(), Candidate("a", texts(0, 20)), cache_dir=tmp_path)
    cache._open_store.cache_clear()
    damage(files(tmp_path)[0])
    embedded = embed(Counting(), Candidate("b", texts(10, 30)), cache_dir=tmp_path)
    assert torch.equal(embedded.embeddings, rows_of(texts(10, 30)))


def test_files_that_vanish_are_encoded_again(tmp_path):
    embed(Counting(), Candidate("a", texts(0, 20)), cache_dir=tmp_path)
    files(tmp_path)[0].unlink()
    encoder = Counting()
    embed(encoder, Candidate("b", texts(10, 30)), cache_dir=tmp_path)
    assert len(encoder.seen) == 20


def test_no_place_to_write_at_all_is_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(cache_dir, "_temporary_root", lambda: blocked / "nor here")
    with pytest.raises(EncoderError, match=r"cannot be used.*cache_dir or \$SYNQUE_CACHE"):
        embed(Counting(), Candidate("a", texts(0, 4)), cache_dir=blocked)


def test_the_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    embed(Counting(), Candidate("a", texts(0, 4)))
    assert len(files(tmp_path)) == 1
    monkeypatch.delenv("SYNQUE_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "synque-select"


def test_old_unfinished_files_are_removed(tmp_path):
    embed(Counting(), Candidate("a", texts(0, 4)), cache_dir=tmp_path)
    folder = files(tmp_path)[0].parent
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    cache._open_store.cache_clear()
    embed(Counting(), Candidate("b", texts(0, 5)), cache_dir=tmp_path)
    assert not old.exists()
    assert young.exists()


class Careless(Counting):
    """Touches all that belongs to the caller."""

    def encode(self, views):
        assert not torch.is_grad_enabled()
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(1)
        return super().encode(views).float()


def test_the_process_is_left_as_it_was_found(tmp_path):
    def draws() -> tuple[float, ...]:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        embed(Careless(), Candidate("a", texts(0, 9)), cache_dir=tmp_path)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cold, cached = draws(), draws()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert cold == cached
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_the_bar_appears_only_when_it_takes_long(tmp_path, capsys, monkeypatch):
    embed(Counting(), Candidate("quick", texts(0, 40)), cache_dir=tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cache, "_BAR_DELAY_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_S", 0.0)
    embed(Counting(), Candidate("slow", texts(40, 80)), cache_dir=tmp_path)
    shown = capsys.readouterr()
    assert "encoding slow" in shown.err
    assert shown.out == ""
    embed(Counting(), Candidate("off", texts(80, 99)), cache_dir=tmp_path, progress=False)
    assert capsys.readouterr().err == ""


# processes

SCRIPT = """
import sys, time
import torch
from pathlib import Path
from synque_select.encoders import BaseEncoder, embed, embedding_cache as cache
from synque_select.data.candidate import Candidate
from synque_select.data.views import digest

cache._FLUSH_S, cache._FLUSH_SHARE = 0.05, 0.0

class Counting(BaseEncoder):
    id, modality, revision, batch_size = "counting", "text", "1", 8

    def encode(self, views):
        time.sleep(PAUSE)
        return torch.tensor([[byte / 255 for byte in digest(view)[:6]] for view in views])

start, stop = int(sys.argv[2]), int(sys.argv[3])
found = embed(
    Counting(),
    Candidate("c", [f"text {i}" for i in range(start, stop)]),
    cache_dir=Path(sys.argv[1]),
    progress=False,
)
print(found.embeddings.double().sum().item())
"""


def _start(folder: Path, start: int, stop: int, pause: float) -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT).replace("PAUSE", str(pause))
    command = [sys.executable, "-c", script, str(folder), str(start), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_one_cache(tmp_path):
    spans = [(0, 200), (100, 300)]
    children = [_start(tmp_path, *span, pause=0.01) for span in spans]
    for child, span in zip(children, spans, strict=True):
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        assert float(out) == pytest.approx(rows_of(texts(*span)).double().sum().item(), rel=1e-12)
    encoder = Counting()
    embedded = embed(encoder, Candidate("c", texts(0, 300)), cache_dir=tmp_path)
    assert encoder.seen == []
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 300)))


def test_kill_9_loses_only_what_was_not_written(tmp_path):
    child = _start(tmp_path, 0, 4000, pause=0.02)
    deadline = time.monotonic() + 60
    while len(files(tmp_path, "part-*")) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    parts = files(tmp_path, "part-*")
    n_kept = sum(len(open_shard(part).rows) for part in parts)
    assert 0 < n_kept < 4000
    encoder = Counting()
    embedded = embed(encoder, Candidate("c", texts(0, 4000)), cache_dir=tmp_path)
    assert encoder.seen == texts(n_kept, 4000)
    assert torch.equal(embedded.embeddings, rows_of(texts(0, 4000)))
    assert files(tmp_path, "part-*") == []


def test_memory_stays_bounded(tmp_path):
    # 100,000 rows of 768 floats are 293 MiB; neither the parts nor the whole may be held
    script = """
    import resource, sys, torch
    from pathlib import Path
    from synque_select.encoders import BaseEncoder, embed
    from synque_select.data.candidate import Candidate

    class Wide(BaseEncoder):
        id, modality, revision, batch_size = "wide", "text", "1", 1024

        def encode(self, views):
            return torch.ones(len(views), 768)

    candidate = Candidate("c", [str(i) for i in range(100_000)])
    candidate.digests
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = embed(Wide(), candidate, cache_dir=Path(sys.argv[1]), progress=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(tuple(found.embeddings.shape), after - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    shape, kib = out.rsplit(maxsplit=1)
    assert shape == "(100000, 768)"
    assert int(kib) < 200 * 1024


# shards


def _digests(generator: np.random.Generator, n: int) -> np.ndarray:
    return generator.integers(0, 256, (n, 32), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_the_index_finds_what_a_dictionary_finds(tmp_path, seed):
    generator = np.random.default_rng(seed)
    pool = _digests(generator, 60)
    index, names = ShardIndex(tmp_path), []
    for number in range(30):
        chosen = pool[generator.integers(0, len(pool), generator.integers(1, 20))]
        rows = chosen[:, :3].astype(np.float32)
        write_shard(tmp_path / f"{number}.safetensors", chosen, [rows[:1], rows[1:]], 3)
        names.append(number)
        if generator.random() < 0.4:
            gone = names.pop(int(generator.integers(len(names))))
            (tmp_path / f"{gone}.safetensors").unlink()
        index.refresh()
        stored = {
            bytes(d) for n in names for d in open_shard(tmp_path / f"{n}.safetensors").digests
        }
        shard, row, paths = index.find(pool)
        for digest_, i, j in zip(pool, shard, row, strict=True):
            assert (i >= 0) == (bytes(digest_) in stored)
            if i >= 0:
                assert np.array_equal(open_shard(paths[i]).digests[j], digest_)
                assert np.array_equal(open_shard(paths[i]).rows[j], digest_[:3])


def test_a_folder_of_many_files_is_not_listed_for_each_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_MANY_FILES", 8)
    monkeypatch.setattr(shards, "_now", lambda: 0.0)
    listed = []
    listing = shards._listed
    monkeypatch.setattr(shards, "_listed", lambda folder: listed.append(folder) or listing(folder))
    encoder = Counting()
    for k in range(40):  # each has views of the one before
        words = texts(3 * k, 3 * k + 5)
        embedded = embed(encoder, Candidate(f"c{k}", words), cache_dir=tmp_path)
        assert torch.equal(embedded.embeddings, rows_of(words))
    assert len(files(tmp_path)) == 40
    assert encoder.seen == texts(0, 122)
    # two folders, twice for each candidate until there are many files
    assert len(listed) < 2 * 2 * 12


def test_what_others_write_to_a_folder_of_many_files_is_found_a_second_later(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(shards, "_MANY_FILES", 2)
    monkeypatch.setattr(shards, "_now", lambda: now[0])
    digests, rows = _digests(np.random.default_rng(0), 5), np.ones((1, 2), np.float32)
    index = ShardIndex(tmp_path)
    for i in range(4):
        write_shard(tmp_path / f"{i}.safetensors", digests[i : i + 1], [rows], 2)
    index.refresh()
    write_shard(tmp_path / "4.safetensors", digests[4:], [rows], 2)
    index.refresh()
    assert (index.find(digests)[0] < 0).tolist() == [False] * 4 + [True]
    now[0] = 1.0
    index.refresh()
    assert (index.find(digests)[0] >= 0).all()
    (tmp_path / "0.safetensors").unlink()
    index.refresh(at_once=True)
    assert (index.find(digests)[0] < 0).tolist() == [True] + [False] * 4


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def blocks():
        yield np.ones((1, 2), np.float32)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "a.safetensors", _digests(np.random.default_rng(0), 2), blocks(), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_of_too_few_rows_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    rows = np.ones((1, 2), np.float32)
    write_shard(path, _digests(np.random.default_rng(0), 2), [rows], 2)
    with pytest.raises(ShardError):
        open_shard(path)


class Full(Counting):
    """An encoder on a device whose memory holds a few views at once."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error, self.sizes = room, error, []

    def encode(self, views):
        self.sizes.append(len(views))
        if len(views) > self.room:
            raise self.error
        return super().encode(views)


def raised_for(error: Exception, cause: Exception) -> Exception:
    """The error with a cause, as `raise error from cause` makes it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("HIP error: hipErrorOutOfMemory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of"),
        RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 2.00G (2147483648 bytes)"),
        RuntimeError("std::bad_alloc"),
        ValueError("CUDA out of memory"),
        raised_for(RuntimeError("encoding failed"), torch.OutOfMemoryError("CUDA out of memory")),
        ExceptionGroup("two threads", [KeyError("a"), torch.OutOfMemoryError("CUDA")]),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_out_of_memory_halves_the_batch_and_goes_on_with_a_note(error, tmp_path, caplog):
    encoder = Full(3, error)
    names = texts(0, 20)
    embedded = embed(encoder, Candidate("c", names), cache_dir=tmp_path, progress=False)
    torch.testing.assert_close(embedded.embeddings, rows_of(names))
    assert encoder.sizes == [8, 4, *[2] * 10]
    assert encoder.batch_size == 2
    assert embedded.n_encoded == 20
    assert sorted(encoder.seen) == sorted(names)
    notes = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("batches of 8; going on with 4" in n, "20 of 20 left" in n) for n in notes[:1]] == [
        (True, True)
    ]
    assert len(notes) == 2


def test_out_of_memory_later_keeps_what_is_encoded(tmp_path, caplog):
    class Later(Full):
        def encode(self, views):
            self.room = 100 if len(self.seen) < 8 else 4
            return super().encode(views)

    encoder = Later(100, torch.OutOfMemoryError())
    names = texts(0, 20)
    embedded = embed(encoder, Candidate("c", names), cache_dir=tmp_path, progress=False)
    torch.testing.assert_close(embedded.embeddings, rows_of(names))
    assert encoder.sizes == [8, 8, 4, 4, 4]
    assert sorted(encoder.seen) == sorted(names)
    assert "12 of 20 left" in caplog.text


def test_out_of_memory_with_a_single_view_is_an_error(tmp_path):
    encoder = Full(0, torch.OutOfMemoryError())
    with pytest.raises(EncoderError, match="out of memory while encoding a single view of c"):
        embed(encoder, Candidate("c", texts(0, 9)), cache_dir=tmp_path, progress=False)
    assert encoder.sizes == [8, 4, 2, 1]


def test_a_batch_size_that_cannot_be_set_is_one_error(tmp_path):
    class Fixed(Full):
        batch_size = property(lambda self: 8)

    encoder = Fixed(3, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(EncoderError, match=r"batches of 8 .*batch_size of Fixed cannot be set"):
        embed(encoder, Candidate("c", texts(0, 9)), cache_dir=tmp_path, progress=False)


def test_an_encoder_with_batches_of_its_own_is_told_to_follow(tmp_path, caplog):
    class Own(Full):
        def encode_many(self, views):
            yield range(len(views)), self.encode(views[:])

    encoder = Own(3, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(EncoderError, match="encode_many of Own must encode no more than"):
        embed(encoder, Candidate("c", texts(0, 9)), cache_dir=tmp_path, progress=False)
    assert "batches of" not in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not match"),
        ValueError("cannot allocate a seat"),
        raised_for(EncoderError("all has been tried"), torch.OutOfMemoryError()),
    ],
    ids=str,
)
def test_another_error_of_an_encoder_is_not_taken_for_memory(error, tmp_path):
    encoder = Full(3, error)
    with pytest.raises(type(error), match=str(error)):
        embed(encoder, Candidate("c", texts(0, 9)), cache_dir=tmp_path, progress=False)
    assert encoder.sizes == [8]
