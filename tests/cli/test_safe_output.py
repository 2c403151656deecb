"""Printing never costs a result."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synque_select.cli.safe_output import SafeStream, safe_output

MAIN = "import sys; from synque_select.cli.main import main; sys.exit(main(sys.argv[1:]))"
WORDS = ["股票上涨", "red", "green", "blue"]


def rank(folder: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    for name, n in (("real", 25), ("a", 30), ("b", 30)):
        rows = [{"text": f"{name} {WORDS[i % 4]} {i * n}"} for i in range(n)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["rank", "--candidates", "a.jsonl", "b.jsonl", "--real", "real.jsonl"]
    arguments += ["--view", "text", "--proxies", "ngram", "--quiet", "--json", "out.json"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "SYNQUE_CACHE": str(folder / "cache")}
    environment |= options.pop("env", {})  # type: ignore[arg-type]
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=folder,
        env=environment,
        check=False,
        **options,
    )  # type: ignore[call-overload,no-any-return]


def test_a_pipe_that_is_closed_early_costs_no_result(tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    done = rank(tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""
    assert json.loads((tmp_path / "out.json").read_text())["selected"]


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path):
    done = rank(tmp_path, capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").exists()
    assert b"ngram" in done.stdout


def test_without_standard_output_the_files_are_written(tmp_path: Path):
    done = rank(tmp_path, preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").exists()


def test_without_standard_error_the_output_is_the_same(tmp_path: Path):
    expected = rank(tmp_path, capture_output=True).stdout
    for name in ("out.json", "out.csv"):
        (tmp_path / name).unlink()
    done = rank(tmp_path, preexec_fn=lambda: os.close(2), stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stdout
    assert done.stdout == expected
    assert (tmp_path / "out.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_is_lost_is_an_error_after_the_files_were_written(tmp_path: Path):
    with open("/dev/full", "w") as full:
        done = rank(tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"error: the output was not written: [Errno 28]" in done.stderr
    assert b"; files that were asked for, as with --json, are written" in done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "out.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["rank", "--help"], ["--version"]])
def test_help_that_is_lost_is_an_error(arguments: list[str]):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *arguments], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"synque-select: error: the output was not written: [Errno 28]")
    assert done.stderr.count(b"\n") == 1
    assert main_status(arguments) == 0


def main_status(arguments: list[str]) -> int:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], stdout=-3, check=False
    ).returncode


def test_what_cannot_be_encoded_is_escaped_and_the_rest_stays():
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding="ascii"))
    assert stream.write("95 % of 股 rows") == len("95 % of 股 rows")
    stream.flush()
    assert raw.getvalue() == b"95 % of \\u80a1 rows"
    assert stream.problem is None
    assert stream.encoding == "ascii"


def test_the_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with safe_output() as output:
        assert sys.stdout is output
    assert (sys.stdout, sys.stderr) == before
