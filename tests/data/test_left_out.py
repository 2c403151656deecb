"""Whatever is left out is counted and said: files, folders, links, compressed files, labels."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import socket
import unicodedata
import zipfile
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from torch.utils.data import Subset

from synque_select.data import load_candidates, load_dataset_file, load_real, tables
from synque_select.data.candidate import Candidate, RealSample
from synque_select.data.label_edits import LabelEdits
from synque_select.data.label_sets import NO_LABEL, label_text, named_label
from synque_select.data.left_out import left_out_messages
from synque_select.errors import DataError

Image = pytest.importorskip("PIL.Image")

TEXTS = ["stocks rise", "stocks fall", "rates rise"]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path, format="PNG")


# ------------------------------------------------------------------------------- folders of images


def test_files_that_are_not_images_are_counted(tmp_path: Path):
    for name in ("0.png", "1.jfif", "2.JPE", "3.apng", "x.heic", "y.heic", "notes.txt", "hash"):
        image(tmp_path / "a" / name, len(name))
    image(tmp_path / "a" / ".hidden.png")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    (tmp_path / "a" / "._0.png").write_text("x")
    (a,) = load_candidates({"a": tmp_path / "a"})
    assert len(a) == 4
    assert a.notes == ("left out: 6 files (2 hidden, 2 .heic, 1 without a suffix, 1 .txt)",)
    assert load_real(tmp_path / "a").notes == a.notes


def test_folders_of_the_system_are_no_classes(tmp_path: Path):
    for name in ("cat", "dog", "__MACOSX", "@eaDir", "cat/@eaDir/0.png"):
        image(tmp_path / "a" / name / "0.png")
        image(tmp_path / "a" / name / "1.png", 1)
    (a,) = load_candidates({"a": tmp_path / "a"})
    assert (len(a), sorted(set(a.labels))) == (4, ["cat", "dog"])
    assert a.notes == ("left out: 2 folders (@eaDir (2 times), __MACOSX)",)


def test_links_to_folders_are_followed_once(tmp_path: Path):
    for i in range(3):
        image(tmp_path / "elsewhere" / f"{i}.png", i)
    image(tmp_path / "a" / "cat" / "own.png", 9)
    (tmp_path / "a" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "cat" / "loop").symlink_to(tmp_path / "a")
    (a,) = load_candidates({"a": tmp_path / "a"})
    assert a.labels == ("cat", "dog", "dog", "dog")
    assert a.notes == (
        "left out: 2 folders (loop, a link to a folder that is already read, "
        "more, a link to a folder that is already read)",
    )


def test_links_to_a_folder_around_are_not_followed(tmp_path: Path):
    for name in ("a/cat/0.png", "a/cat/1.png", "b/0.png"):
        image(tmp_path / name)
    (tmp_path / "a" / "dog").mkdir()
    (tmp_path / "a" / "dog" / "up").symlink_to("../..")
    (a,) = load_candidates({"a": tmp_path / "a"})
    assert a.labels == ("cat", "cat")
    assert a.notes == (
        "left out: 2 folders (up, a link to a folder that is already read, dog, without a file)",
    )


def test_class_names_that_differ_in_their_unicode_form_are_one_class(tmp_path: Path):
    for candidate, form in (("a", "NFC"), ("b", "NFD")):
        for name in ("café", "thé"):
            for i in range(2):
                image(tmp_path / candidate / unicodedata.normalize(form, name) / f"{i}.png", i)
    a, b = load_candidates([tmp_path / "a", tmp_path / "b"])
    assert a.labels == b.labels == ("café", "café", "thé", "thé")
    assert b[0]["label"] == "café"
    image(tmp_path / "a" / unicodedata.normalize("NFD", "café") / "2.png", 2)
    (both,) = load_candidates({"a": tmp_path / "a"})
    assert both.labels == ("café", "café", "café", "thé", "thé")
    assert both.dataset.classes == ("café", "thé")


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.heic").write_text("x")
    with pytest.raises(DataError, match=r"contains no images, but 1 file \(1 \.heic\); supported"):
        load_candidates({"a": tmp_path / "a"})


# --------------------------------------------------------------------------- folders of data files


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def test_compressed_candidates_of_a_folder_are_read_and_others_named(tmp_path: Path):
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "a.jsonl").write_bytes(LINES)
    (pool / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    (pool / "c.jsonl.zst").write_bytes(zstd(LINES))
    zipped(pool / "d.v2.zip", {"x/rows.jsonl": LINES, "__MACOSX/x/._rows.jsonl": b"", "x/.a": b""})
    zipped(pool / "e.zip", {"1.jsonl": LINES, "2.jsonl": LINES})
    (pool / "f.tar.gz").write_bytes(gzip.compress(LINES))
    (pool / "README.md").write_text("read me")
    (pool / "__MACOSX").mkdir()
    (pool / ".git").mkdir()
    (pool / ".a.jsonl").write_bytes(LINES)
    (pool / "._b.jsonl.gz").write_bytes(b"x")
    (pool / ".DS_Store").write_bytes(b"x")
    candidates = load_candidates(pool, view="text")
    assert [candidate.name for candidate in candidates] == ["a", "b", "c", "d.v2"]
    assert all(list(candidate.views) == TEXTS for candidate in candidates)
    assert candidates[0].notes == (
        f"the folder {pool} has 4 candidates; left out: 7 other files and folders "
        "(e.zip, f.tar.gz, ._b.jsonl.gz, .a.jsonl, .git, README.md, __MACOSX)",
    )
    assert not any(candidate.notes for candidate in candidates[1:3])
    assert candidates[3].notes == (
        "left out of the .zip: 2 hidden or system files (__MACOSX/x/._rows.jsonl, x/.a)",
    )
    message, *_ = left_out_messages(candidates, RealSample("real", ["x", "y"]))
    assert message.startswith("a: ")
    for number in range(9):  # of a long list, the first names are shown
        (pool / f"{number}.bak").touch()
    assert "other files and folders (e.zip, f.tar.gz, " in load_candidates(pool)[0].notes[0]


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("small", [True, False], ids=["in_memory", "memory_mapped"])
@pytest.mark.parametrize("suffix", [*PACKERS, ".zip"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_every_format_is_read_compressed(
    name: str, suffix: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "SMALL_BYTES", 8 << 20 if small else 0)
    monkeypatch.setenv("SYNQUE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"{name}{suffix}"
    content = _content(name, tmp_path)
    if suffix == ".zip":
        zipped(path, {name: content})
    else:
        path.write_bytes(PACKERS[suffix](content))
    (candidate,) = load_candidates(path, view="text")
    assert (candidate.name, list(candidate.views)) == ("a", TEXTS)
    packed = path.read_bytes()
    for broken in (packed[: len(packed) // 2], packed[:-4], b"not compressed"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=rf"^{path}"):
            load_dataset_file(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_every_stream_of_a_compressed_file_is_read_or_the_file_is_broken(
    suffix: str, tmp_path: Path
):
    # as pbzip2 and `cat a.bz2 b.bz2` write them; Python's own readers drop a damaged second stream
    path, pack = tmp_path / f"a.jsonl{suffix}", PACKERS[suffix]
    lines = [b'{"text": "%d"}\n' % number for number in range(40)]
    first, second = (pack(b"".join(part)) for part in (lines[:20], lines[20:]))
    path.write_bytes(first + second)
    dataset = load_dataset_file(path)
    assert [dataset[i]["text"] for i in range(len(dataset))] == list(map(str, range(40)))
    # a flipped bit in the head of the second stream, a second stream that is cut, and other bytes
    flipped = bytes([second[0], second[1] ^ 1]) + second[2:]
    for end in (flipped, second[:-6], second[:2], b"x", b"\n", second + b"garbage"):
        path.write_bytes(first + end)
        with pytest.raises(DataError, match=rf"^{path}: the compressed file is broken"):
            load_dataset_file(path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_zeros_between_and_after_streams_are_padding(suffix: str, tmp_path: Path):
    path, pack = tmp_path / f"a.jsonl{suffix}", PACKERS[suffix]
    path.write_bytes(pack(b'"x"\n') + bytes(300_000) + pack(b'"y"\n') + bytes(8))
    assert len(load_dataset_file(path)) == 2


def _content(name: str, folder: Path) -> bytes:
    if name == "a.json":
        return json.dumps(TEXTS).encode()
    if name == "a.jsonl":
        return LINES
    if name in ("a.csv", "a.tsv"):
        return "\n".join(["text", *TEXTS]).encode()
    table, file = pa.table({"text": TEXTS}), folder / "plain"
    if name == "a.arrow":
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        import pyarrow.parquet as pq

        pq.write_table(table, file)
    return file.read_bytes()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "pipe in a folder", "linked pipe"])
def test_what_is_not_a_file_is_refused_at_once(kind: str, tmp_path: Path):
    path = tmp_path / "pool" / "a.jsonl"
    path.parent.mkdir()
    other = tmp_path / "other"
    what = {"socket": "a socket", "device": "a device"}.get(kind, "a pipe")
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "linked pipe":
        os.mkfifo(other)
        path.symlink_to(other)
    else:
        os.mkfifo(path)
    source = path.parent if kind == "pipe in a folder" else path
    for given in (source, {"a": source}) if source == path else (source,):
        with pytest.raises(DataError, match=rf"a\.jsonl: not a file with data, but {what}; save"):
            load_candidates(given, view="text")
    with pytest.raises(DataError, match=f"but {what}"):
        load_real(path)
    with pytest.raises(DataError, match=f"but {what}"):
        load_dataset_file(f"jsonl:{path}")


def test_a_pipe_among_images_is_refused(tmp_path: Path):
    image(tmp_path / "a" / "0.png")
    os.mkfifo(tmp_path / "a" / "1.png")
    (a,) = load_candidates({"a": tmp_path / "a"})
    with pytest.raises(DataError, match=r"1\.png: not a file"):
        list(a.views)


def test_links_that_lead_nowhere_or_around(tmp_path: Path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in "ab":
        (pool / f"{name}.jsonl").write_bytes(LINES)
    (pool / "self").symlink_to(".")
    (pool / "above").symlink_to("..")
    (pool / "loop").symlink_to("loop")
    a, b = load_candidates(pool, view="text")
    assert (a.name, b.name) == ("a", "b")
    assert "left out: 3 other files and folders (above, loop, self)" in a.notes[0]
    (pool / "c.jsonl").symlink_to("nowhere")
    for given in (pool, pool / "c.jsonl"):
        with pytest.raises(DataError, match=r"c\.jsonl: a link to nowhere, which does not exist"):
            load_candidates(given, view="text")


def test_folders_in_a_folder_of_candidates_say_what_is_wrong(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: the folder is empty$"):
        load_candidates(tmp_path, view="text")
    (tmp_path / "none" / "x.jsonl").write_bytes(LINES)
    a, none = load_candidates(tmp_path, view="text")
    assert (none.name, list(none.views)) == ("none", list(a.views))


def test_blank_lines_of_one_column_are_counted(tmp_path: Path):
    for name, content, note in (
        ("a.csv", 'text\nup\n\ndown\n\r\n\nup\n\n\n""\n\n', "5 blank lines"),
        ("b.tsv", "text\nup\n\ndown\n", "1 blank line"),
        ("c.csv", 'text\n"up\n\n"\ndown\n\n', ""),
        ("d.csv", "\ntext,n\nup,1\n\ndown,2\n", ""),
        ("e.csv", "sep=;\ntext\nup\n\ndown\n", "1 blank line"),
    ):
        (tmp_path / name).write_text(content, newline="")
        (candidate,) = load_candidates({"a": tmp_path / name}, view="text")
        expected = (f'left out: {note}; an empty text is written ""',) if note else ()
        assert candidate.notes == expected, name


def test_a_zip_of_several_files_and_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    several = zipped(tmp_path / "a.zip", {"1.jsonl": LINES, "2.jsonl": LINES})
    with pytest.raises(DataError, match=r"a\.zip: the \.zip holds 2 files \(1\.jsonl, 2\.jsonl\)"):
        load_dataset_file(several)
    with pytest.raises(DataError, match=r"the suffix '\.txt' of the file in it is not known"):
        load_dataset_file(zipped(tmp_path / "b.zip", {"1.txt": b"x"}))
    monkeypatch.setattr("synque_select.data.compressed._ALWAYS_ALLOWED", 1000)
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(b'"x"\n' * 500_000))
    with pytest.raises(DataError, match=r"c\.jsonl\.bz2: the file expands to more than 1,000"):
        load_dataset_file(tmp_path / "c.jsonl.bz2")


def test_names_that_are_not_utf8(tmp_path: Path):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.jsonl", b"caf\xe8.csv", b"caf\xea.parquet"):
        content = _content(f"a.{name.rpartition(b'.')[2].decode()}", tmp_path)
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(content)
    (tmp_path / "plain").unlink()
    candidates = load_candidates(tmp_path, view="text")
    assert [candidate.name for candidate in candidates] == ["caf\\xe8", "caf\\xe9", "caf\\xea"]
    assert all(list(candidate.views) == TEXTS for candidate in candidates)
    for i in range(2):
        image(Path(os.fsdecode(folder + b"/images/caf\xe9/")) / f"{i}.png", i)
    (images,) = load_candidates({"a": tmp_path / "images"})
    assert images.labels == ("caf\\xe9", "caf\\xe9")
    assert len(images.sha256) == 64


# ------------------------------------------------------------------------------------------ labels


def test_labels_that_mean_the_same_have_one_text():
    torch = pytest.importorskip("torch")
    assert [label_text(v) for v in (1, 1.0, torch.tensor(1), torch.tensor([1.0]))] == ["1"] * 4
    assert [label_text(v) for v in (None, float("nan"), "", "  ")] == [NO_LABEL] * 4
    assert label_text("cafe\u0301") == label_text("café")
    assert label_text([1.0, "e\u0301"]) == '["1", "é"]'
    assert [label_text(v) for v in (True, 0.5, "None", "nan")] == ["true", "0.5", "None", "nan"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([True, "true", "True", "TRUE", np.bool_(True)], "true"),
        ([False, "false", "False"], "false"),
        ([Decimal("1.00"), Decimal(1), "1.0", "1.00", "1", 1.0], "1"),
        ([Decimal("-0.0"), Decimal("0.00"), -0.0, "-0.0", 0], "0"),
        ([Decimal("1.50"), 1.5], "1.5"),
        ([Decimal("1" * 38)], "1" * 38),
        ([b"pos", "pos", "pos ", "\u00a0pos\u200b", "\ufeffpos\n", np.bytes_(b"pos")], "pos"),
        (["", " ", "\u200b", "\u00a0\ufeff", Decimal("NaN"), b"", None], NO_LABEL),
        # no numbers as they are written
        (["01.0"], "01.0"),
        (["1.10"], "1.10"),
        (["a\u200bb"], "a\u200bb"),
        ([["a", None, ""], ["a "]], '["a"]'),
    ],
)
def test_forms_of_one_label(labels: list[object], text: str):
    assert {label_text(label) for label in labels} == {text}


def test_bytes_that_are_not_utf_8_are_an_error_that_names_the_column():
    candidate = Candidate("a", [{"text": "t", "label": b"caf\xe9"}] * 2, "text", "label")
    with pytest.raises(DataError, match="label='label': the label is bytes that are not UTF-8"):
        _ = candidate.labels


def test_an_empty_list_is_a_label_among_lists_only():
    def labels(*values: object) -> tuple[str, ...]:
        records = [{"text": "t", "label": value} for value in values]
        return Candidate("a", records, "text", "label").labels

    assert labels("x", [], "y") == ("x", NO_LABEL, "y")
    assert labels([], []) == (NO_LABEL, NO_LABEL)
    assert labels(["x"], [], ["y"]) == ('["x"]', "[]", '["y"]')


def test_texts_that_programs_write_for_a_missing_label_are_said():
    labels = ["nan", "pos", "None", "nan", "none"]
    a = Candidate("a", [(f"x{i}", label) for i, label in enumerate(labels)], view=0, label=1)
    messages = left_out_messages([a], RealSample("real", ["p", "q"]))
    assert [message.partition(",")[0] for message in messages] == [
        "a: 2 examples have the label 'nan'",
        "a: 1 example has the label 'None'",
    ]
    assert "write null" in messages[0]


def test_merged_classes_are_said(tmp_path: Path):
    texts = ["x", "x ", "y", "True", "true", "1", "1.0", "\u200b"]
    records = [{"text": f"t{i}", "label": label} for i, label in enumerate(texts)]
    a, b = Candidate("a", records, "text", "label"), Candidate("b", records[2:4], "text", "label")
    assert a.labels == ("x", "x", "y", "true", "true", "1", "1", NO_LABEL)
    assert a.merged_labels == {"x": ("x", "x "), "true": ("True", "true"), "1": ("1", "1.0")}
    missing, merged = left_out_messages([a, b], RealSample("real", ["p", "q"]))
    assert "no label (null, NaN or blank) for 1 of 8 examples" in missing
    assert merged == (
        "a: labels that differ only in white space or invisible characters at their ends, in their "
        "Unicode form, or in how a number or true and false are written, are one class: 'x' "
        "('x', 'x '), 'true' ('True', 'true'), '1' ('1', '1.0')."
    )


def test_json_and_csv_have_the_same_labels(tmp_path: Path):
    (tmp_path / "c.csv").write_text("text,label\na,true\nb,false\n")
    (tmp_path / "j.jsonl").write_text(
        '{"text": "a", "label": true}\n{"text": "b", "label": false}\n'
    )
    for part in load_candidates(tmp_path, view="text", label="label"):
        assert part.labels == ("true", "false")


def test_missing_labels_are_counted_and_said():
    labels = [0, None, float("nan"), " ", 1.0, 1]
    records = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    a = Candidate("a", records, "text", "label", notes=("left out: 2 files (2 .heic)",))
    real = RealSample("real", ["x", "y"], notes=("left out: 1 file",))
    assert a.labels == ("0", NO_LABEL, NO_LABEL, NO_LABEL, "1", "1")
    assert left_out_messages([a], real) == (
        "real: left out: 1 file.",
        "a: left out: 2 files (2 .heic).",
        "a: no label (null, NaN or blank) for 3 of 6 examples. Neither transfer nor a "
        "check of labels counts them.",
    )


def test_a_voted_label_gets_the_type_of_the_others():
    a = Candidate("a", [{"t": "x", "y": 1.0}, {"t": "y", "y": 0.0}, {"t": "z", "y": 1.0}], "t", "y")
    relabeled = LabelEdits({"a": {1: "1"}}, relabel=True).apply(a)
    assert [example["y"] for example in relabeled] == [1.0, 1.0, 1.0]
    assert all(isinstance(example["y"], float) for example in relabeled)


def test_a_missing_field_of_the_label_names_the_example():
    a = Candidate("a", [{"t": "x", "y": 1}, {"t": "y"}], "t", "y")
    with pytest.raises(DataError, match=r"^a, example 1 \(counted from 0\): label='y': no field"):
        _ = a.labels


def test_labels_are_the_names_of_classes_and_numbers_of_two_meanings_are_said(tmp_path: Path):
    for name, names, numbers in (
        ("a", ["neg", "pos"], [0, 1, 1]),
        ("b", ["pos", "neg"], [1, 0, 0]),
    ):
        kinds = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        data = Dataset.from_dict({"text": ["x", "y", "z"], "label": numbers}, features=kinds)
        with tables.quiet_datasets():
            data.to_parquet(str(tmp_path / f"{name}.parquet"))
            data.save_to_disk(str(tmp_path / f"{name}_saved"))
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet", "a_saved", "b_saved")]
    candidates = load_candidates(paths, view="text", label="label")
    assert {candidate.labels for candidate in candidates} == {("neg", "pos", "pos")}
    assert left_out_messages(candidates, RealSample("real", ["x", "y"])) == (
        "The numbers of the labels differ in meaning: 0 is 'neg' in a and 'pos' in b. Rankings "
        "compare the names, but training gets the numbers: give all candidates one order with "
        "align_labels_with_mapping of datasets.",
    )
    assert left_out_messages(candidates[::2], RealSample("real", ["x", "y"])) == ()
    part = Candidate("c", Subset(candidates[1].dataset, [2, 0]), "text", "label")
    assert part.labels == ("pos", "neg")


@pytest.mark.parametrize(
    ("label", "name"), [([0, 1], ["a", "b"]), (None, None), ("a", "a"), (np.int64(1), "b")]
)
def test_the_names_of_classes(label: object, name: object):
    assert named_label(label, ["a", "b"]) == name


def test_a_class_without_a_name_is_an_error():
    with pytest.raises(DataError, match="the class 2 has no name; there are 2, from 0 on"):
        named_label(2, ["a", "b"])


def test_a_class_without_a_file_and_further_frames_are_said(tmp_path: Path):
    image(tmp_path / "a" / "cat" / "1.png")
    frames = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(3)]
    for name in ("2.gif", "3.tiff"):
        frames[1].save(tmp_path / "a" / "cat" / name, save_all=True, append_images=frames)
    (tmp_path / "a" / "dog" / "young").mkdir(parents=True)
    (candidate,) = load_candidates({"a": tmp_path / "a"})
    assert candidate.notes == (
        "left out: 1 folder (dog, without a file); of 2 images with several frames or pages, the "
        "first is read",
    )
    assert candidate.views[2].convert("RGB").getpixel((0, 0)) == (60, 0, 0)


def test_a_folder_with_images_and_files_of_data_names_both(tmp_path: Path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    image(tmp_path / "plot.png")
    message = (
        r"2 files of data \(a\.jsonl, b\.jsonl\) and 1 image \(plot\.png\); allowed is one kind"
    )
    with pytest.raises(DataError, match=message):
        load_candidates(tmp_path)


def test_the_split_of_a_hub_dataset_is_said(monkeypatch: pytest.MonkeyPatch):
    parts = {
        name: Dataset.from_dict({"text": [f"{name} {i}" for i in range(n)]})
        for name, n in (("test", 2), ("train", 3))
    }
    monkeypatch.setattr("datasets.load_dataset", lambda _: DatasetDict(parts))
    monkeypatch.setattr("synque_select.data.hub_datasets._asked_once", lambda _: nullcontext())
    (candidate,) = load_candidates("hub:owner/name")
    assert list(candidate.views) == ["train 0", "train 1", "train 2"]
    assert candidate.notes == ("the split 'train' is read; left out: test (2)",)


def test_empty_texts_are_counted_and_said():
    def chat(role: str, text: str) -> dict[str, object]:
        return {
            "messages": [{"role": role, "content": text}, {"role": "assistant", "content": "y"}]
        }

    a, b = load_candidates(
        {
            "a": [chat("user", "x"), chat("prompter", "y"), chat("user", "")],
            "b": [chat("user", "x"), chat("user", "y")],
        }
    )
    real = RealSample("real", ["x", "", "z"])
    assert [m for m in left_out_messages([a, b], real) if "no text" in m] == [
        "real: no text (the view is empty) for 1 of 3 examples. Proxies count them as they are.",
        "a: no text (the view is empty) for 2 of 3 examples. Proxies count them as they are.",
    ]
