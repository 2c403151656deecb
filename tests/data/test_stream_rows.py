"""Examples of a stream by position: read forward in windows, again in other processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from synque_select.data.stream_rows import WINDOW, StreamError, StreamRows

N = 2 * WINDOW + 300


class Numbers(IterableDataset[int]):
    """Numbers that are divided over the workers of a DataLoader, as torch's docs advise."""

    def __init__(self, n: int = N, fails_at: int = -1) -> None:
        self.n, self.fails_at, self.n_read = n, fails_at, 0

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, self.n, step):
            if number == self.fails_at:
                raise OSError("the connection was reset")
            self.n_read += 1
            yield number


def test_positions_in_any_order():
    rows = StreamRows("a", Numbers(), N)
    order = [0, 999, 1000, 5, N - 1, 1999, 2000, 3]
    assert [rows[position] for position in order] == order
    assert len(rows) == N
    for position in (-1, N):
        with pytest.raises(IndexError):
            rows[position]


def test_windows_in_their_order_are_one_pass():
    numbers = Numbers()
    rows = StreamRows("a", numbers, N)
    assert [rows[position] for position in range(N)] == list(range(N))
    assert numbers.n_read == N
    assert rows[0] == 0  # the next pass
    assert numbers.n_read == N + WINDOW


def test_what_lies_before_is_skipped_by_the_dataset():
    class Skipping(Numbers):
        def skip(self, n: int) -> Iterator[int]:
            return iter(range(n, self.n))

    numbers = Skipping()
    assert StreamRows("a", numbers, N)[2100] == 2100
    assert numbers.n_read == 0
    streamed = datasets.Dataset.from_dict({"n": list(range(N))}).to_iterable_dataset(num_shards=3)
    rows = StreamRows("a", streamed, N)
    assert [rows[position] for position in (2100, 7)] == [{"n": 2100}, {"n": 7}]


def test_a_stream_that_ends_early_is_an_error():
    rows = StreamRows("a (here)", Numbers(1500), N)
    assert rows[999] == 999
    with pytest.raises(StreamError, match=r"a \(here\): the stream ended after 1,500 examples, "):
        rows[1000]
    assert rows[3] == 3  # what could be read can still be


def test_a_stream_that_raises_names_candidate_and_example():
    rows = StreamRows("a", Numbers(fails_at=1234), N)
    with pytest.raises(StreamError, match=r"a, example 1234 .*: OSError: the connection was"):
        rows[1100]


def test_pickled_without_what_was_read():
    rows = StreamRows("a", range(N), N)
    assert rows[1500] == 1500
    other = pickle.loads(pickle.dumps(rows))
    assert [other[position] for position in (1500, 3)] == [1500, 3]


class Lines:
    """Reads a file line by line, from a position that forked processes share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[int]:
        with self.path.open("rb", buffering=0) as file:
            while line := file.readline():
                yield int(line)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_reads_on_its_own(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_text("".join(f"{i}\n" for i in range(N)))
    rows = StreamRows("a", Lines(path), N)
    assert rows[0] == 0
    pid = os.fork()
    if pid == 0:
        os._exit(0 if [rows[position] for position in (1500, 2200)] == [1500, 2200] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [rows[position] for position in (1500, 2200)] == [1500, 2200]


class Served(Dataset[int]):
    def __init__(self, rows: StreamRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> object:
        return self.rows[position]


def test_a_dataset_does_not_see_the_worker():
    loader = DataLoader(Served(StreamRows("a", Numbers(), N)), batch_size=None, num_workers=2)
    assert list(loader) == list(range(N))
