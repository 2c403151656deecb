"""WebDataset tars of images are read in place, safely."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from synque_select.data import tar_reader
from synque_select.data.sources import load_candidates, load_dataset_file
from synque_select.errors import DataError


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 3), value).save(file, "PNG")
    return file.getvalue()


def write(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(number: int, label: str) -> dict[str, bytes]:
    return {
        f"{number:03d}.png": png(number),
        f"{number:03d}.cls": label.encode(),
        f"{number:03d}.json": json.dumps({"n": number}).encode(),
    }


def test_images_with_classes_and_json(tmp_path: Path):
    path = write(tmp_path / "a.tar", {**sample(1, "cat"), **sample(2, "dog\n")})
    (candidate,) = load_candidates(path)
    assert (candidate.name, candidate.modality, candidate.labels) == ("a", "image", ("cat", "dog"))
    assert candidate[1]["key"] == "002"
    assert candidate[1]["json"] == {"n": 2}
    assert [view.getpixel((0, 0)) for view in candidate.views] == [1, 2]  # type: ignore[union-attr]


def test_a_folder_of_tars_is_one_candidate(tmp_path: Path):
    for number in range(2):
        members = {**sample(2 * number, "cat"), **sample(2 * number + 1, "dog")}
        write(tmp_path / "a" / f"{number:05d}.tar", members)
    (candidate,) = load_candidates(tmp_path / "a")
    assert (candidate.name, len(candidate)) == ("a", 4)
    assert candidate.labels == ("cat", "dog", "cat", "dog")
    assert [view.getpixel((0, 0)) for view in candidate.views] == [0, 1, 2, 3]  # type: ignore[union-attr]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_nothing_is_run_and_nothing_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    hostile = {
        "../up.png": png(1),
        "/etc/absolute.png": png(2),
        "a/b.pkl": pickle.dumps(Bomb()),
        "a/b.pyd": b"x",
        "a/b.npy": b"x",
        "._c.png": b"x",
    }
    path = write(tmp_path / "in" / "a.tar", hostile)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("d.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (candidate,) = load_candidates(path)
    assert [record["key"] for record in candidate] == ["../up", "/etc/absolute"]
    assert len(list(candidate.views)) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "in"]
    (note,) = candidate.notes
    assert note.startswith("left out: 5 files (")
    assert all(kind in note for kind in (".pkl", ".npy", "a link or another special file"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.txt": b"x"}, r"no images in it \(left out: 1 file \(1 without an image\)\)"),
        ({"a.png": png(1), "a.jpg": png(2)}, "the example a already has the field 'image'"),
        ({"a.png": png(1), "a.txt": b"x" * 60}, r"a\.txt has 60 bytes; allowed are 50 for a text"),
    ],
)
def test_what_is_wrong_is_said(
    members: dict[str, bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tar_reader, "_MAX_TEXT_BYTES", 50)
    with pytest.raises(DataError, match=message):
        load_dataset_file(write(tmp_path / "a.tar", members))


def test_a_damaged_tar(tmp_path: Path):
    path = write(tmp_path / "a.tar", {**sample(1, "cat"), **sample(2, "dog")})
    data = path.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:600])
    (tmp_path / "noise.tar").write_bytes(bytes(range(256)) * 8)
    for name in ("cut.tar", "noise.tar"):
        with pytest.raises(DataError, match=name):
            load_dataset_file(tmp_path / name)


def test_a_header_that_claims_gigabytes(tmp_path: Path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + b"x" * 1024)
    with pytest.raises(DataError, match=r"a header of the tar holds 5,368,709,"):
        load_dataset_file(tmp_path / "a.tar")


def test_a_broken_image_is_named(tmp_path: Path):
    path = write(tmp_path / "a.tar", {"1.png": png(1), "2.png": b"not an image"})
    (candidate,) = load_candidates(path)
    with pytest.raises(DataError, match=r"a\.tar, 2\.png: the image cannot be decoded"):
        candidate[1]


def blocks(path: Path) -> tuple[bytes, list[int]]:
    """The bytes of a tar, and where the headers of its files are."""
    with tarfile.open(path) as archive:
        return path.read_bytes(), [info.offset for info in archive]


def spoiled(data: bytes, headers: list[int], kind: str) -> bytes:
    place = headers[6]
    if kind == "header damaged":
        return data[:place] + b"\xff" * 512 + data[place + 512 :]
    if kind == "zeros":
        return data[:place] + bytes(512) + data[place + 512 :]
    if kind == "joined":
        return data + data
    return data[:place]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("header damaged", "6 files can be read; after 002.json the header of the next one is"),
        ("zeros", "6 files can be read; after 002.json there is more data after the mark"),
        ("cut", "6 files can be read; after 002.json the mark of its end is missing: it was cut"),
        ("joined", "9 files can be read; after 003.json there is more data after the mark"),
    ],
)
def test_files_are_not_lost_where_tarfile_stops(tmp_path: Path, kind: str, words: str):
    members = {**sample(1, "cat"), **sample(2, "dog"), **sample(3, "dog")}
    path = write(tmp_path / "a.tar", members)
    path.write_bytes(spoiled(*blocks(path), kind))
    with pytest.raises(DataError) as error:
        load_candidates(path)
    assert f"{path}: {words}" in str(error.value)


def test_a_missing_class_or_text_is_a_missing_value(tmp_path: Path):
    members = {**sample(1, "cat"), "002.png": png(2), **sample(3, "dog"), "003.txt": b"three"}
    (candidate,) = load_candidates(write(tmp_path / "a.tar", members))
    assert candidate.labels == ("cat", "(no label)", "dog")
    assert [candidate[place]["text"] for place in range(3)] == [None, None, "three"]
    assert candidate[1]["json"] is None


def test_names_with_and_without_a_leading_dot_are_one_example(tmp_path: Path):
    members = {"./001.png": png(1), "001.cls": b"cat", "./002.png": png(2), "./002.cls": b"dog"}
    (candidate,) = load_candidates(write(tmp_path / "a.tar", members))
    assert (candidate.labels, candidate[0]["key"]) == (("cat", "dog"), "001")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b'{"a": 1, "a": 2}', "'a'"), (b"[" * 1000, "nested too deeply"), (b"\xe9", "not UTF-8")],
)
def test_json_in_a_tar_is_read_as_strictly_as_a_file(tmp_path: Path, content: bytes, words: str):
    members = {**sample(1, "cat"), "002.png": png(2), "002.json": content}
    (candidate,) = load_candidates(write(tmp_path / "a.tar", members))
    with pytest.raises(DataError, match=r"a\.tar, 002\.json.*") as error:
        candidate[1]
    assert words in str(error.value)
