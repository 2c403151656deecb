"""Progress: a bar in a terminal, sparse lines in a log file."""

from __future__ import annotations

import io
import time

import pytest

from synque_select.utils import progress
from synque_select.utils.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_every_half_minute_and_a_last_one(clock: list[float]):
    log = io.StringIO()
    with ProgressBar(range(10), desc="scoring", mininterval=0, leave=False, file=log) as bar:
        for n in bar:
            bar.set_postfix_str(f"proxy {n}")
            bar.set_description("scoring")
            clock[0] += 10
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 4
    assert all(line.startswith("scoring: ") for line in lines)
    assert "10/10" in lines[-1]
    assert ": :" not in log.getvalue()
    assert "\r" not in log.getvalue()
    assert "█" not in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "total", "last"),
    [
        (40, 4, "writing: 4/4 [02:40<00:00, 40.00s/call]"),
        (0.25, 200, "writing: 200/200 [00:50<00:00,  4.00 calls/s]"),
        (0.25, None, "writing: 200 [00:50,  4.00 calls/s]"),
        (40, None, "writing: 200 [2:13:20, 40.00s/call]"),
    ],
)
def test_rates_have_the_unit_that_their_number_needs(
    clock: list[float], seconds: float, total: int | None, last: str
):
    log = io.StringIO()
    bar = ProgressBar(total=total, desc="writing", unit="call", file=log)
    bar._time, bar.start_t, bar.last_print_t = time.monotonic, clock[0], clock[0]
    for _ in range(total or 200):
        clock[0] += seconds
        bar.update()
    bar.close()
    assert log.getvalue().splitlines()[-1] == last


def test_the_plural_of_a_unit(clock: list[float]):
    with ProgressBar(total=9, unit="proxy", file=io.StringIO()) as bar:
        bar.start_t -= 1
        bar.n = 5
        assert bar.format_dict["unit"] == " proxies"


def test_what_is_done_soon_says_nothing(clock: list[float]):
    log = io.StringIO()
    bar = ProgressBar(total=3, desc="soon", file=log)
    bar.update(2)
    bar.set_description("sooner")
    bar.clear()
    bar.close()
    bar.close()
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar():
    terminal = Terminal()
    for _ in ProgressBar(range(3), desc="scoring", mininterval=0, file=terminal):
        pass
    assert "\r" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_bar_that_is_switched_off_is_silent(stream: io.StringIO):
    assert list(ProgressBar(range(3), disable=True, file=stream)) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_a_bar_waits_for_its_delay_whatever_is_written_beside_it():
    terminal = Terminal()
    with ProgressBar(total=3, desc="soon", delay=2, leave=False, file=terminal) as bar:
        bar.set_postfix_str("first")
        bar.refresh()
    assert terminal.getvalue() == ""


def test_a_notebook_gets_an_output_that_is_updated_and_emptied(monkeypatch: pytest.MonkeyPatch):
    display = pytest.importorskip("IPython.display")
    drawn: list[str] = []

    class Stream(io.StringIO):
        """As ipykernel's, whose outputs of the process are shown below the cell."""

    class Handle:
        def update(self, shown: dict[str, str], *, raw: bool) -> None:
            drawn.append(shown["text/plain"])

    def show(shown: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        drawn.append(shown["text/plain"])
        return Handle()

    Stream.__module__ = "ipykernel.iostream"
    monkeypatch.setattr(display, "display", show)
    stream = Stream()
    for _ in ProgressBar(range(3), desc="scoring", mininterval=0, leave=False, file=stream):
        pass
    assert drawn[0].startswith("scoring:   0%")
    assert any("2/3" in text for text in drawn)
    assert drawn[-1] == ""
    assert stream.getvalue() == ""
    shown = len(drawn)
    assert list(ProgressBar(range(3), disable=True, file=stream)) == [0, 1, 2]
    assert len(drawn) == shown


def test_every_bar_of_the_library_is_this_one():
    from pathlib import Path

    root = Path(progress.__file__).parent
    folders = [root, *(root / name for name in ("callbacks", "recipes"))]
    files = {path for folder in folders for path in folder.rglob("*.py")}
    users = [path.name for path in files if "from tqdm" in path.read_text()]
    assert users == ["progress.py"]


class Closed(io.StringIO):
    """The end of a pipe whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


class ClosedTerminal(Closed):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Closed, ClosedTerminal])
def test_a_closed_stream_ends_the_bar_and_not_the_work(
    clock: list[float], stream: type[io.StringIO]
):
    done = []
    for n in ProgressBar(range(5), desc="scoring", mininterval=0, file=stream()):
        done.append(n)
        clock[0] += 40
    assert done == list(range(5))
