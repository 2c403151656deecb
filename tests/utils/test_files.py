"""Atomic writes, checked reading of text and JSON, images as text."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synque_select.errors import LLMError, RecordError
from synque_select.utils.atomic import atomic_file, atomic_path, write_text_atomic
from synque_select.utils.data_uri import data_uri, png_base64
from synque_select.utils.json_files import MAX_DEPTH, parse_json, read_json_file
from synque_select.utils.text_files import kind_of_path, read_text


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    write_text_atomic(path, "one é \udc80")
    assert path.read_text() == "one é \\udc80"
    write_text_atomic(path, "two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_file(path) as stream:
            stream.write(b"new")
            raise KeyError("half way")

    with pytest.raises(KeyError):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_content_is_on_the_disk_before_the_name_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        status = os.fstat(handle)
        is_folder = status.st_ino == tmp_path.stat().st_ino
        events.append("directory" if is_folder else f"file of {status.st_size} bytes")
        fsync(handle)

    def rename(source: Path, target: Path) -> None:
        events.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_file(tmp_path / "a.bin") as stream:
        stream.write(b"12345")
    with atomic_path(tmp_path / "b.bin") as part:
        part.write_bytes(b"123")
    assert events == [
        "file of 5 bytes", "rename to a.bin", "directory",
        "file of 3 bytes", "rename to b.bin", "directory",
    ]  # fmt: skip


def test_text_with_and_without_a_byte_order_mark(tmp_path: Path):
    for content in ("é\n".encode(), "\ufeffé\n".encode()):
        (tmp_path / "a.txt").write_bytes(content)
        assert read_text(tmp_path / "a.txt") == "é\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nb é".encode("latin-1"), r"a\.txt, line 2: not UTF-8 \(byte 0xe9\): save it as UTF-8"),
        ("ab".encode("utf-16"), r"line 1: not UTF-8 \(byte 0xff\) \(is the file UTF-16\?\)"),
    ],
)
def test_text_that_is_not_utf_8_names_the_file_and_the_line(tmp_path: Path, content, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(RecordError, match=words):
        read_text(tmp_path / "a.txt", error=RecordError)
    with pytest.raises(RecordError, match=r"a\.txt.*not UTF-8"):
        read_json_file(tmp_path / "a.txt", error=RecordError)


def test_a_missing_file_is_named(tmp_path: Path):
    for read in (read_text, read_json_file):
        with pytest.raises(RecordError, match=r"cannot read .*none\.json: No such file"):
            read(tmp_path / "none.json", error=RecordError)


def test_json_is_read_as_it_is_written(tmp_path: Path):
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": []}}
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(value), encoding="utf-8")
    assert read_json_file(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"a": 1,\n "b" 2}',
            r"answer, line 2: not JSON: Expecting ':' delimiter \(column 6\)",
        ),
        ("[" * 100_000, "the answer: invalid JSON: nested too deeply; allowed are 300 levels"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" * 301 + "]" * 301, "nested too deeply"),
        ('{"a":' * 301 + "1" + "}" * 301, "nested too deeply"),
        ("1" * 301, "an integer of 301 digits; allowed are 300"),
        ('{"a": 1, "b": 2, "a": 3}', "an object has a key more than once: 'a'"),
        ("", "line 1: not JSON: Expecting value"),
    ],
)
def test_json_that_cannot_be_used_is_one_error(text: str, words: str):
    with pytest.raises(LLMError, match=words):
        parse_json(text, "the answer", error=LLMError, unique_keys=True)


def test_as_deep_as_allowed_and_wider_than_deep():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text, "file")) == text
    wide = "[" + ",".join(["[[1], {}]"] * 1000) + "]"
    assert len(parse_json(wide, "file")) == 1000  # type: ignore[arg-type]
    assert parse_json('{"a": 1, "a": 2}', "file") == {"a": 2}


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    with pytest.raises(RecordError, match=r"a\.json: 9 bytes; allowed are at most 8"):
        read_json_file(tmp_path / "a.json", error=RecordError, max_bytes=8)


def test_an_image_as_text_holds_its_pixels():
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGB", (2, 1), (10, 20, 30))
    back = image.open(io.BytesIO(base64.b64decode(png_base64(picture))))
    assert back.getpixel((1, 0)) == (10, 20, 30)
    uri = data_uri(picture)
    assert uri == data_uri(png_base64(picture)) == data_uri(base64.b64decode(png_base64(picture)))
    assert uri.startswith("data:image/png;base64,iVBORw0K")


def test_a_file_that_comes_and_goes_is_never_something_else(tmp_path: Path):
    """SQLite makes and removes a journal at every write of another process."""
    path = tmp_path / "records.sqlite-journal"
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            path.touch()
            path.unlink()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(come_and_go)
        try:
            kinds = {kind_of_path(path) for _ in range(50_000)}
        finally:
            ended.set()
        writer.result()
    assert kinds == {None}
