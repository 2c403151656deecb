"""A cache in a store: shared, checked on arrival, and not needed for a run to go on."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from synque_select.data.candidate import Candidate
from synque_select.data.sources import load_candidates
from synque_select.encoders import BaseEncoder, embed
from synque_select.errors import ConfigError
from synque_select.utils import cache_dir, remote_cache
from synque_select.utils.cache_dir import cache_root
from synque_select.utils.checksums import checksummed_file, read_checked
from synque_select.utils.remote_cache import remote_of
from tests.utils.stores import FlakyStore, forget, reset

URL = "flaky://bucket/cache"
NAME = "scores/" + "0123456789abcdef" * 4 + ".npz"


class Length(BaseEncoder):
    id, modality = "length", "text"

    def encode(self, views):
        return torch.tensor([[float(len(view)), 1.0] for view in views])


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that changes to the machine of a name, with a disk of its own."""
    reset()

    def use(name: str) -> Path:
        monkeypatch.setenv("SYNQUE_CACHE_LOCAL", str(tmp_path / name))
        monkeypatch.delenv("SYNQUE_CACHE", raising=False)
        forget()
        return tmp_path / name

    use("one")
    yield use
    reset()


def stored() -> list[str]:
    names = (path.removeprefix("/bucket/cache/") for path in FlakyStore.store)
    return sorted(name for name in names if name != "synque-cache.json")


def write(content: bytes = b"123", url: str = URL) -> Path:
    path = cache_root(url) / NAME
    with checksummed_file(path) as stream:
        stream.write(content)
    return path


def test_a_file_of_one_machine_is_read_on_another(machine):
    write()
    assert stored() == [NAME]
    machine("two")
    path = cache_root(URL) / NAME
    assert not path.exists()
    assert read_checked(path) == b"123"
    FlakyStore.calls.clear()
    assert read_checked(path) == b"123"
    assert FlakyStore.calls == []  # the local copy is used


@pytest.mark.parametrize(
    "name", ["answers.sqlite", "digests/" + "0" * 32 + ".npy", "scores/" + "0" * 64 + ".txt"]
)
def test_databases_and_what_holds_for_one_machine_stay_local(name: str):
    with checksummed_file(cache_root(URL) / name) as stream:
        stream.write(b"1")
    assert stored() == []


def test_a_candidate_encoded_elsewhere_is_not_encoded_again(machine):
    first = embed(Length(), Candidate("c", ["a", "bb", "a"]), cache_dir=URL)
    assert first.n_encoded == 2
    machine("two")
    again = embed(Length(), Candidate("c", ["a", "bb", "a"]), cache_dir=URL)
    assert again.n_encoded == 0
    assert torch.equal(again.embeddings, first.embeddings)
    machine("three")  # one view of the other candidate is known
    other = embed(Length(), Candidate("d", ["bb", "ccc"]), cache_dir=URL)
    assert other.n_encoded == 1
    assert other.embeddings.tolist() == [[2, 1], [3, 1]]


def test_only_shards_that_have_missing_views_are_fetched(machine):
    for number in range(5):
        views = [f"{'x' * number}{i}" for i in range(10 * number, 10 * number + 10)]
        embed(Length(), Candidate(f"c{number}", views), cache_dir=URL)
    machine("two")
    FlakyStore.calls.clear()
    part = Candidate("d", [f"xx{i}" for i in range(20, 25)])
    assert embed(Length(), part, cache_dir=URL).n_encoded == 0
    assert FlakyStore.calls.count("get_file") == 2  # the candidate as a whole, and one shard


def test_parts_leave_the_store_once_a_candidate_is_whole():
    embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL)
    assert len(stored()) == 1
    assert "part-" not in stored()[0]


def test_a_large_table_is_converted_on_one_machine_only(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("synque_select.data.tables.SMALL_BYTES", 1)
    file = tmp_path / "data.csv"
    file.write_text("text\n" + "\n".join(f"row {i}" for i in range(50)))
    monkeypatch.setenv("SYNQUE_CACHE", URL)
    load_candidates({"c": str(file)}, view="text")
    assert [name.partition("/")[0] for name in stored()] == ["tables"]
    machine("two")
    monkeypatch.setenv("SYNQUE_CACHE", URL)
    moved = tmp_path / "elsewhere.csv"
    shutil.copyfile(file, moved)
    FlakyStore.calls.clear()
    (candidate,) = load_candidates({"c": str(moved)}, view="text")
    assert candidate.views[3] == "row 3"
    assert "put_file" not in FlakyStore.calls


def test_a_half_written_upload_is_noticed_and_made_again(machine, caplog):
    FlakyStore.cut = True
    embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL)
    FlakyStore.cut = False
    machine("two")
    with caplog.at_level(logging.WARNING):
        embedded = embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL)
    assert embedded.n_encoded == 2
    assert "is damaged" in caplog.text
    assert URL in caplog.text
    machine("three")
    assert embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL).n_encoded == 0


@pytest.mark.parametrize("at", [5, 60, -3])
def test_a_flipped_byte_in_the_store_is_noticed(machine, at: int):
    write(bytes(100))
    file = FlakyStore.store[f"/bucket/cache/{NAME}"]
    content = bytearray(file.getvalue())
    content[at] ^= 1
    FlakyStore(use_listings_cache=False).pipe_file(f"/bucket/cache/{NAME}", bytes(content))
    machine("two")
    with pytest.raises(FileNotFoundError):
        read_checked(cache_root(URL) / NAME)
    assert stored() == []


def test_a_store_that_cannot_be_reached_at_the_start_is_an_error():
    FlakyStore.failing["cat_file"] = OSError("no route to host")
    url = "flaky://me:secret-word@bucket/cache"
    with pytest.raises(ConfigError, match="no route to host; check the address") as caught:
        cache_root(url)
    assert "secret-word" not in str(caught.value)
    assert "flaky://…@bucket/cache" in str(caught.value)


def test_a_store_that_fails_later_costs_nothing_that_was_computed(machine, caplog, monkeypatch):
    root = cache_root(URL)
    FlakyStore.failing.update(put_file=OSError("timed out"), get_file=OSError("timed out"))
    with caplog.at_level(logging.WARNING):
        embedded = embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL)
        write()
    assert embedded.n_encoded == 2
    assert caplog.text.count("cannot be reached") == 1
    assert stored() == []
    assert embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL).n_encoded == 0
    FlakyStore.failing.clear()
    remote = remote_of(root)
    assert remote is not None
    # once a minute has passed, the store is tried again and gets what it lacks
    monkeypatch.setattr(remote, "_paused_until", time.monotonic() - 1)
    read_checked(root / NAME)
    with pytest.raises(FileNotFoundError):
        read_checked(root / "scores" / ("1" * 64 + ".npz"))
    assert NAME in stored()
    assert len(stored()) == 2
    machine("two")
    assert embed(Length(), Candidate("c", ["a", "bb"]), cache_dir=URL).n_encoded == 0


def test_the_next_process_sends_what_was_not_sent(machine):
    cache_root(URL)
    FlakyStore.failing["put_file"] = OSError("timed out")
    write()
    assert stored() == []
    FlakyStore.failing.clear()
    forget()
    cache_root(URL)
    assert stored() == [NAME]


def test_a_store_that_cannot_be_written_is_still_read(machine, caplog):
    write()
    machine("two")
    root = cache_root(URL)
    FlakyStore.failing["put_file"] = PermissionError("access denied")
    with caplog.at_level(logging.WARNING):
        with checksummed_file(root / "scores" / ("1" * 64 + ".npz")) as stream:
            stream.write(b"4")
        with checksummed_file(root / "scores" / ("2" * 64 + ".npz")) as stream:
            stream.write(b"5")
    assert caplog.text.count("cannot be written") == 1
    assert read_checked(root / NAME) == b"123"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/x", "Protocol not known: nosuch; allowed is a folder"),
        ("s3://bucket/x", "needs a package that is not installed: pip install s3fs"),
        ("gs://bucket/x", "needs a package that is not installed: pip install gcsfs"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, message: str, monkeypatch):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=message):
        cache_root(url)


def test_an_address_as_a_path_is_refused():
    with pytest.raises(ConfigError, match="give an address as a text"):
        cache_root(Path("s3://bucket/x"))


def test_a_store_of_a_newer_version_is_refused():
    FlakyStore(use_listings_cache=False).pipe_file(
        "/bucket/cache/synque-cache.json", b'{"format": 2}'
    )
    with pytest.raises(ConfigError, match="has the format 2, this version writes 1"):
        cache_root(URL)


def test_credentials_are_in_no_file_and_no_name(machine, tmp_path):
    write(url="flaky://me:secret-word@bucket/cache")
    for path in tmp_path.rglob("*"):
        assert "secret-word" not in str(path)
        assert not path.is_file() or b"secret-word" not in path.read_bytes()
    machine("two")  # another password is the same store
    root = cache_root("flaky://me:other-word@bucket/cache")
    assert read_checked(root / NAME) == b"123"


def test_local_copies_stay_within_the_limit(machine, monkeypatch):
    monkeypatch.setenv("SYNQUE_CACHE_LIMIT", "2000")
    root = cache_root(URL)
    monkeypatch.setattr(remote_cache, "in_use_since", lambda _: None)
    for number in range(6):
        path = root / "scores" / f"{number:064x}.npz"
        with checksummed_file(path) as stream:
            stream.write(bytes(600))
        os.utime(path, (1000 + number, 1000 + number))
    left = sorted(path.name[63] for path in (root / "scores").iterdir())
    assert left == ["3", "4", "5"]
    assert len(stored()) == 6
    assert read_checked(root / "scores" / f"{0:064x}.npz") == bytes(600)  # from the store


def test_what_is_not_sent_or_in_use_is_not_evicted(machine, monkeypatch):
    monkeypatch.setenv("SYNQUE_CACHE_LIMIT", "1000")
    root = cache_root(URL)
    FlakyStore.failing["put_file"] = OSError("timed out")
    monkeypatch.setattr(remote_cache, "in_use_since", lambda _: None)
    for number in range(4):
        with checksummed_file(root / "scores" / f"{number:064x}.npz") as stream:
            stream.write(bytes(600))
    assert len(list((root / "scores").iterdir())) == 4
    FlakyStore.failing.clear()
    forget()
    monkeypatch.undo()
    monkeypatch.setenv("SYNQUE_CACHE_LIMIT", "1000")
    monkeypatch.setenv("SYNQUE_CACHE_LOCAL", str(root.parents[1]))
    read_checked(cache_root(URL) / "scores" / f"{0:064x}.npz")  # this process uses the cache
    write()
    assert len(list((root / "scores").iterdir())) == 5


def test_a_wrong_limit_is_refused(monkeypatch):
    monkeypatch.setenv("SYNQUE_CACHE_LIMIT", "much")
    with pytest.raises(ConfigError, match="SYNQUE_CACHE_LIMIT='much': allowed is a size"):
        cache_root(URL)


def test_a_local_folder_that_cannot_be_written_is_replaced(monkeypatch, tmp_path):
    (tmp_path / "one").write_text("a file")
    cache_dir._usable.cache_clear()
    write()
    assert stored() == [NAME]


WORKER = """
    import sys
    import torch
    from synque_select.data.candidate import Candidate
    from synque_select.encoders import BaseEncoder, embed

    class Length(BaseEncoder):
        id, modality, batch_size = "length", "text", 4
        def encode(self, views):
            if sys.argv[2] == "slow":
                import time
                time.sleep(0.2)
            return torch.tensor([[float(len(view)), 1.0] for view in views])

    from synque_select.encoders import embedding_cache
    embedding_cache._FLUSH_S = 0
    views = ["x" * (i % 50) + str(i) for i in range(200)]
    print("ready", flush=True)
    embedded = embed(Length(), Candidate("c", views), cache_dir=sys.argv[1])
    print(embedded.n_encoded, float(embedded.embeddings.sum()), flush=True)
"""


def started(url: str, local: Path, speed: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SYNQUE_CACHE_LOCAL": str(local), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", textwrap.dedent(WORKER), url, speed]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_machines_that_encode_the_same_at_once_agree(tmp_path):
    url = f"file://{tmp_path}/store"
    workers = [started(url, tmp_path / f"disk-{i}", "fast") for i in range(3)]
    outs = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert len({out[2] for out in outs}) == 1
    whole = [p for p in (tmp_path / "store").rglob("*.safetensors") if "part-" not in p.name]
    assert len(whole) == 1
    assert not list((tmp_path / "store").rglob("*.tmp"))


def test_what_a_killed_machine_has_sent_is_not_encoded_again(tmp_path):
    url = f"file://{tmp_path}/store"
    worker = started(url, tmp_path / "disk-1", "slow")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "store").rglob("part-*.safetensors"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    shutil.rmtree(tmp_path / "disk-1")  # the machine is gone
    out, _ = started(url, tmp_path / "disk-2", "fast").communicate(timeout=120)
    n_encoded = int(out.split()[1])
    assert n_encoded <= 200 - 3 * 4
    assert float(out.split()[2]) == sum(i % 50 + len(str(i)) + 1 for i in range(200))


def _read_in_child(path: str) -> bytes:
    return read_checked(Path(path))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_reads_the_store(tmp_path, machine):
    url = f"file://{tmp_path}/store"
    path = cache_root(url) / NAME
    with checksummed_file(path) as stream:
        stream.write(b"123")
    path.unlink()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_read_in_child, (str(path),)) == b"123"


def test_a_score_computed_elsewhere_is_used(machine, tmp_path, monkeypatch):
    import synque_select as ss

    texts = {name: [f"{name} {i} word" for i in range(30)] for name in ("a", "b")}
    real = [f"real {i} word" for i in range(12)]
    options = {"proxies": ["ngram"], "cache_dir": URL}
    first = ss.rank(texts, real, **options)
    assert any(name.startswith("scores/") for name in stored())
    machine("two")
    monkeypatch.setattr(
        "synque_select.proxies.lexical.NGram.score", lambda *_: pytest.fail("scored again")
    )
    again = ss.rank(texts, real, **options)
    assert [row.name for row in again] == [row.name for row in first]
    assert np.array_equal(again["a"].scores["ngram"], first["a"].scores["ngram"])
