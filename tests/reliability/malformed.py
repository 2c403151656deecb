"""116 malformed inputs, each with the command that reads it and what its one error must name."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = [{"text": f"a {i} apps", "label": "xy"[i % 2]} for i in range(8)]
LINES = "".join(f"{json.dumps(record)}\n" for record in GOOD).encode()
POINTS = {"a": ["one"], "b": ["two"]}
RUBRICS = {"sims": POINTS, "diffs_synth_from_real": POINTS, "diffs_real_from_synth": POINTS}
PROMPTS = """version: 1
=== similarities ===
{{samples_a}} {{samples_b}} {{n_points}}
=== differences ===
{{samples_a}} {{samples_b}} {{n_points}}
=== shared ===
{{similarities}} {{only_a}} {{only_b}}
=== sample ===
{{sample}}
=== question ===
{{asked}}
"""
RANK = ["rank", "--real", "real.jsonl", "--view", "text", "--proxies", "ngram", "--quiet"]
LENS = [*RANK[:-2], "lens", "--quiet", "--candidates", "a.jsonl", "b.jsonl", "--lens"]


@dataclass(frozen=True)
class Malformed:
    """An input that a command must refuse.

    Args:
        file: Name of the file to write, below the working directory.
        content: What it holds; a function gets its path, and writes anything.
        command: Arguments of `synque-select`.
        named: Texts of which each must be in the error.
    """

    file: str
    content: bytes | Callable[[Path], None]
    command: Sequence[str]
    named: Sequence[str] = ()


def _packed(data: bytes, name: str = "x.jsonl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def _parquet(path: Path, cut: slice | None = None, columns: Mapping[str, object] | None = None):
    pq.write_table(pa.table(columns or {"text": [r["text"] for r in GOOD]}), path)
    if cut is not None:
        path.write_bytes(path.read_bytes()[cut])


def _arrow(path: Path, cut: slice) -> None:
    table = pa.Table.from_pylist(GOOD)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes()[cut])


def _folder(path: Path) -> None:
    path.mkdir()


def _deep(opening: bytes, closing: bytes = b"", n: int = 100_000) -> bytes:
    return opening * n + b"1" + closing * n


# a candidate's file: suffix and content, and what the error names beside the file
CANDIDATES: dict[str, tuple[str, bytes | Callable[[Path], None], Sequence[str]]] = {
    "json: nothing": ("json", b"", ["empty"]),
    "json: spaces": ("json", b"  \n ", []),
    "json: cut": ("json", b'[{"text": "a"}, {"text"', ["line 1"]),
    "json: trailing comma": ("json", b'[{"text": "a"},]', ["line 1"]),
    "json: text after the end": ("json", b'[{"text": "a"}] x', ["line 1"]),
    "json: single quotes": ("json", b"[{'text': 'a'}]", ["line 1"]),
    "json: a number": ("json", b"17", []),
    "json: null": ("json", b"null", []),
    "json: list of numbers": ("json", b"[1, 2]", ["line 1"]),
    "json: list of lists": ("json", b'[["a"], ["b"]]', ["line 1"]),
    "json: no records": ("json", b"[]", ["no examples"]),
    "json: object of numbers": ("json", b'{"a": 1}', ["'a'"]),
    "json: deep lists": ("json", _deep(b"["), ["nested too deeply"]),
    "json: deep objects": ("json", _deep(b'{"a":'), ["line 1"]),
    "json: deep in a record": (
        "json", b'[{"text": "a", "x": ' + _deep(b"[", b"]", 5000) + b"}]", ["nested too deeply"],
    ),
    "json: 400 levels": (
        "json", b'[{"text": "a", "x": ' + _deep(b"[", b"]", 400) + b"}]", ["nested too deeply"],
    ),
    "json: a key twice": ("json", b'[{"text": "a", "text": "b"}]', ["'text'"]),
    "json: UTF-16": ("json", json.dumps(GOOD).encode("utf-16"), ["UTF-16"]),
    "json: Latin-1": ("json", '[{"text": "é"}]'.encode("latin-1"), ["0xe9"]),
    "json: a zero byte": ("json", b'[{"text": "a\0"}]', ["NUL"]),
    "json: long number": ("json", b'[{"text": ' + b"9" * 5000 + b"}]", []),
    "json: no view": ("json", b'[{"other": "a"}, {"other": "b"}]', ["'text'"]),
    "json: records and texts": ("json", b'[{"text": "a"}, "b"]', ["line 1"]),
    "json: a web page": ("json", b"<!DOCTYPE html><title>404</title>", ["line 1"]),
    "json: a folder of nothing": ("json", _folder, []),
    "jsonl: cut": ("jsonl", LINES[:-20], ["line 8"]),
    "jsonl: no JSON": ("jsonl", LINES + b"and so on\n", ["line 9"]),
    "jsonl: a list": ("jsonl", LINES + b"[1]\n", ["line 9"]),
    "jsonl: a number": ("jsonl", b"1\n", ["line 1"]),
    "jsonl: deep": ("jsonl", LINES + _deep(b"["), ["line 9", "nested too deeply"]),
    "jsonl: 400 levels": (
        "jsonl", LINES + b'{"text": ' + _deep(b"[", b"]", 400) + b"}", ["line 9", "nested"],
    ),
    "jsonl: a key twice": ("jsonl", LINES + b'{"a": 1, "a": 2}\n', ["line 9", "'a'"]),
    "jsonl: UTF-16": ("jsonl", LINES.decode().encode("utf-16"), ["UTF-16"]),
    "jsonl: Latin-1": ("jsonl", LINES + '{"text": "é"}\n'.encode("latin-1"), ["line 9"]),
    "jsonl: a zero byte": ("jsonl", LINES + b"\0\n", ["line 9", "NUL"]),
    "jsonl: long number": ("jsonl", LINES + b'{"text": ' + b"9" * 5000 + b"}\n", ["line 9"]),
    "jsonl: no view": ("jsonl", b'{"other": "a"}\n' * 2, ["'text'"]),
    "jsonl: records and texts": ("jsonl", LINES + b'"b"\n', ["line 9"]),
    "jsonl: blank lines": ("jsonl", b"\n\n\n", []),
    "csv: nothing but a header": ("csv", b"text,label\n", []),
    "csv: ragged": ("csv", b"text,label\na,x\nb,y,z\n", ["line 3"]),
    "csv: too short": ("csv", b"text,label,more\na,x,1\nb\n", ["line 3"]),
    "csv: open quote": ("csv", b'text,label\n"a,x\nb,y\n', ["line 2"]),
    "csv: a column twice": ("csv", b"text,text\na,b\n", ["'text'"]),
    "csv: UTF-16": ("csv", "text,label\na,x\n".encode("utf-16"), ["UTF-16"]),
    "csv: Latin-1": ("csv", "text,label\né,x\n".encode("latin-1"), ["line 2"]),
    "csv: a zero byte": ("csv", b"text,label\na\0,x\n", ["line 2", "NUL"]),
    "csv: no view": ("csv", b"other,label\na,x\nb,y\n", ["'text'"]),
    "csv: binary": ("csv", bytes(range(256)) * 8, []),
    "tsv: ragged": ("tsv", b"text\tlabel\na\tx\nb\ty\tz\n", ["line 3"]),
    "tsv: UTF-16": ("tsv", "text\tlabel\na\tx\n".encode("utf-16"), ["UTF-16"]),
    "tsv: no view": ("tsv", b"other\tlabel\na\tx\nb\ty\n", ["'text'"]),
    "parquet: a text": ("parquet", b"text\na\n", []),
    "parquet: nothing": ("parquet", b"", ["empty"]),
    "parquet: cut at the end": ("parquet", lambda p: _parquet(p, slice(0, -30)), []),
    "parquet: cut at the beginning": ("parquet", lambda p: _parquet(p, slice(30, None)), []),
    "parquet: magic only": ("parquet", b"PAR1" * 2, []),
    "parquet: no rows": ("parquet", lambda p: _parquet(p, columns={"text": []}), []),
    "parquet: no view": (
        "parquet", lambda p: _parquet(p, columns={"other": ["a", "b"]}), ["'text'"],
    ),
    "arrow: cut": ("arrow", lambda p: _arrow(p, slice(0, 200)), []),
    "arrow: a text": ("arrow", b"text\na\n", []),
    "arrow: magic only": ("arrow", b"ARROW1\0\0", []),
    "gz: not packed": ("jsonl.gz", LINES, []),
    "gz: cut": ("jsonl.gz", gzip.compress(LINES * 50)[:-40], []),
    "gz: changed": ("jsonl.gz", gzip.compress(LINES)[:-8] + b"12345678", []),
    "gz: not JSON": ("jsonl.gz", gzip.compress(LINES + b"x\n"), ["line 9"]),
    "zst: not packed": ("jsonl.zst", LINES, []),
    "bz2: not packed": ("jsonl.bz2", LINES, []),
    "xz: not packed": ("jsonl.xz", LINES, []),
    "zip: not packed": ("zip", LINES, []),
    "zip: cut": ("zip", _packed(LINES)[:-30], []),
    "zip: no data": ("zip", _packed(b"x", "readme.md"), []),
    "zip: not JSON": ("zip", _packed(LINES + b"x\n"), ["line 9"]),
    "unknown suffix": ("xlsx", b"PK\x03\x04", []),
    "no suffix": ("", LINES, []),
}  # fmt: skip


def _candidates() -> dict[str, Malformed]:
    cases = {}
    for name, (suffix, content, named) in CANDIDATES.items():
        file = f"bad.{suffix}".rstrip(".")
        command = [*RANK, "--candidates", "a.jsonl", file]
        cases[name] = Malformed(file, content, command, [file, *named])
    for name in ("json: UTF-16", "jsonl: cut", "csv: ragged"):
        suffix, content, named = CANDIDATES[name]
        file = f"real-bad.{suffix}"
        command = [*RANK, "--candidates", "a.jsonl", "b.jsonl", "--real", file]
        cases[f"real sample, {name}"] = Malformed(file, content, command, [file, *named])
    return cases


# configs: what is wrong, and what the error names
CONFIGS: dict[str, tuple[bytes, Sequence[str]]] = {
    "UTF-16": ("seed_everything: 0\n".encode("utf-16"), ["UTF-16"]),
    "Latin-1": ("a: é\n".encode("latin-1"), ["line 1", "0xe9"]),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", ["line 3", "'a'"]),
    "not YAML": (b"a: [1, 2\nb: }\n", ["line 2"]),
    "tab": (b"a:\n\tb: 1\n", ["line 2"]),
    "deep": (_deep(b"["), ["nest"]),
    "aliases": (
        b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n".encode()
            for i in range(9)
        ),
        ["values"],
    ),
    "two documents": (b"a: 1\n---\nb: 2\n", ["line 2"]),
    "a list": (b"- 1\n- 2\n", ["list"]),
    "code": (b"a: !!python/object/apply:os.system ['true']\n", ["c.yaml"]),
}


def _configs() -> dict[str, Malformed]:
    cases = {}
    for name, (content, named) in CONFIGS.items():
        command = ["fit", "--config", "c.yaml"]
        cases[f"config, {name}"] = Malformed("c.yaml", content, command, ["c.yaml", *named])
        command = [*LENS, "c.yaml"]
        cases[f"LENS config, {name}"] = Malformed("c.yaml", content, command, ["c.yaml", *named])
    return cases


def _lens_file(option: str, file: str, content: bytes, named: Sequence[str]) -> Malformed:
    config = json.dumps({option: file, "scorer": {"engine": "transformers"}})
    return Malformed(file, content, [*LENS, config], [file, *named])


def _rubrics() -> dict[str, Malformed]:
    contents: dict[str, tuple[bytes, Sequence[str]]] = {
        "not JSON": (b"points", ["line 1"]),
        "deep": (_deep(b"["), ["nested too deeply"]),
        "UTF-16": (json.dumps(RUBRICS).encode("utf-16"), ["UTF-16"]),
        "a list": (b"[]", ["sims"]),
        "a field is missing": (b'{"sims": {"a": []}}', ["diffs"]),
        "numbers for points": (json.dumps({**RUBRICS, "sims": {"a": 1}}).encode(), []),
        "lists of numbers": (json.dumps({**RUBRICS, "sims": {"a": [1]}}).encode(), ["'a'"]),
    }
    return {
        f"rubrics, {name}": _lens_file("rubrics", "rubrics.json", *content)
        for name, content in contents.items()
    }


def _prompts() -> dict[str, Malformed]:
    contents: dict[str, tuple[bytes, Sequence[str]]] = {
        "UTF-16": (PROMPTS.encode("utf-16"), ["UTF-16"]),
        "Latin-1": (PROMPTS.replace("{{asked}}", "é {{asked}}").encode("latin-1"), ["0xe9"]),
        "no version": (PROMPTS.partition("\n")[2].encode(), ["line 1"]),
        "a section is missing": (PROMPTS.partition("=== shared")[0].encode(), ["shared"]),
        "a place is missing": (PROMPTS.replace("{{asked}}", "").encode(), ["question"]),
    }
    return {
        f"prompts, {name}": _lens_file("prompts", "prompts.txt", *content)
        for name, content in contents.items()
    }


def _answers() -> dict[str, Malformed]:
    contents: dict[str, tuple[str, bytes, Sequence[str]]] = {
        "not JSON": ("jsonl", b"x\n", ["line 1"]),
        "deep": ("jsonl", _deep(b"["), ["nested too deeply"]),
        "other columns": ("csv", b"a,b\n1,2\n", []),
        "UTF-16": ("csv", "question,label\n1,x\n".encode("utf-16"), ["UTF-16"]),
    }
    command = [*RANK, "--candidates", "a.jsonl", "b.jsonl", "--label", "label", "--answers"]
    return {
        f"answers, {name}": Malformed(f"q.{end}", content, [*command, f"q.{end}"], ["q.", *named])
        for name, (end, content, named) in contents.items()
    }


def _results() -> dict[str, Malformed]:
    return {
        "ranking, deep": Malformed(
            "ranking.json", _deep(b"["), ["feedback", "ranking.json"], ["nested too deeply"]
        ),
        "ranking, another version": Malformed(
            "ranking.json", b'{"version": 99}', ["feedback", "ranking.json"], ["99"]
        ),
    }


CASES = {**_candidates(), **_configs(), **_rubrics(), **_prompts(), **_answers(), **_results()}
