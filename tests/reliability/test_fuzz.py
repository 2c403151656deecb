"""Any bytes in a config, a rubric file, prompts, answers or results: read, or one error."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import synque_select
from synque_select.cli.main import main
from synque_select.data.answers import read_questions
from synque_select.errors import SynqueError
from synque_select.lens.config import LensConfig
from synque_select.lens.prompt_sets import load_prompts
from synque_select.lens.rubric import load_rubrics
from synque_select.records.dropped_labels_file import load_dropped_labels
from synque_select.records.ranking_file import load_ranking
from tests.data.test_reader_fuzz import CONTENTS, damaged
from tests.reliability.counts import record_counts
from tests.reliability.malformed import LINES, PROMPTS, RUBRICS

CONFIGS = Path(synque_select.__file__).parent / "configs"
RANKING = Path(__file__).parents[1] / "fixtures" / "v0_1" / "ranking_v2"
ANSWERS = b"""question,label,text,allowed,example,probability,seed,real_sample,design,key
1,x,a text,"[""x"", ""y""]",3,0.5,0,xabc,xdef,x123456789abc
"""


RANK = b"""candidates: [near.jsonl, far.csv]
real: real.jsonl
view: text
label: label
proxies: [ngram, mmd]
top_k: 1
mixture: equal
seed: 3
gaps: true
"""


def command(path: Path, *arguments: str) -> None:
    """Run a command that reads a config; an error ends as the command says it."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main([*arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    if status:
        message = error.getvalue()
        # the parser of options says what it expected on several lines, without the file
        assert message.count("synque-select: error: ") == 1
        assert "Traceback" not in message
        raise SynqueError(f"{path}: {message}")


def fit_config(path: Path) -> None:
    """Read a config without training."""
    command(path, "fit", "--config", str(path), "--print_config")


def rank_config(path: Path) -> None:
    """Check a config of `rank` with its data."""
    with contextlib.chdir(path.parent):
        if not Path("near.jsonl").exists():
            Path("near.jsonl").write_bytes(LINES)
            Path("real.jsonl").write_bytes(LINES.replace(b"apps", b"ants") * 3)
            Path("far.csv").write_text("text,label\none,x\ntwo,y\nthree,x\n")
        command(path, "validate", str(path))


READERS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "fit.yaml": (fit_config, (CONFIGS / "digits-fit.yaml").read_bytes()),
    "rank.yaml": (rank_config, RANK),
    "lens.yaml": (LensConfig.from_file, (CONFIGS / "lens-paper-text.yaml").read_bytes()),
    "rubrics.json": (load_rubrics, json.dumps(RUBRICS, indent=1).encode()),
    "prompts.txt": (load_prompts, PROMPTS.encode()),
    "answers.csv": (read_questions, ANSWERS),
    "answers.jsonl": (read_questions, b'{"question": 1, "label": "x", "text": "a"}\n'),
    "dropped.jsonl": (
        load_dropped_labels,
        b'{"candidate": "a", "position": 3, "label": "x", "voted": "y", "contradicted": 0.9}\n',
    ),
    "ranking.json": (load_ranking, next(RANKING.rglob("ranking.json")).read_bytes()),
}


# no slash: no path of this machine, and no module
NAMES = st.text("ab1-.é ", max_size=6) | st.sampled_from(["near", "ngram", "text", "x", "null"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | NAMES
VALUES = st.recursive(
    PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3), max_leaves=6
)


def edited(valid: bytes, place: int, value: Any, how: str, *, is_json: bool) -> bytes:
    """Return a valid file of which one value is another, or one field is gone or has another name.

    Args:
        valid: The file.
        place: Which field or item, counted over the whole file.
        value: The other value.
        how: "replace", "remove" or "rename".
        is_json: Whether to write JSON, else YAML.
    """
    content = yaml.safe_load(valid)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in [*node] if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(content)
    node, key = places[place % len(places)]
    if how == "replace":
        node[key] = value
    else:
        kept = node.pop(key)
        if how == "rename" and isinstance(node, dict):
            node[f"{key}{place % 3}"] = kept
    if is_json:
        return json.dumps(content, default=str).encode()
    return yaml.safe_dump(content, allow_unicode=True).encode()


def check(name: str, drawn: Any, folder: Path) -> None:
    read, valid = READERS[name]
    path = folder / name
    if isinstance(drawn, tuple):
        drawn = edited(valid, *drawn, is_json=name.endswith(("json", "jsonl")))
    path.write_bytes(drawn if isinstance(drawn, bytes) else damaged(valid, drawn))
    try:
        read(path)
    except SynqueError as error:
        assert name in str(error)  # noqa: PT017 - some contents are valid
        record_counts("fuzz", {"clean error": 1})
    else:
        record_counts("fuzz", {"read": 1})


@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_below_can_be_read(name: str, tmp_path: Path):
    if name.startswith("answers"):
        pytest.skip("the hash of a row belongs to a real sample")
    read, valid = READERS[name]
    (tmp_path / name).write_bytes(valid)
    read(tmp_path / name)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(name=st.sampled_from([*READERS]), drawn=CONTENTS)
def test_any_content_is_read_or_is_one_error(name: str, drawn: Any, tmp_path_factory):
    check(name, drawn, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(max_examples=1000, deadline=None)
@given(name=st.sampled_from([*READERS]), drawn=CONTENTS)
def test_any_content_is_read_or_is_one_error_at_length(name: str, drawn: Any, tmp_path_factory):
    check(name, drawn, tmp_path_factory.getbasetemp())


STRUCTURED = [name for name in READERS if not name.endswith(("csv", "txt"))]
EDITS = st.tuples(
    st.integers(0, 10**6), VALUES, st.sampled_from(["replace"] * 4 + ["remove", "rename"])
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(name=st.sampled_from(STRUCTURED), drawn=EDITS)
def test_any_value_of_a_field_is_read_or_is_one_error(name: str, drawn: Any, tmp_path_factory):
    check(name, drawn, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(max_examples=1000, deadline=None)
@given(name=st.sampled_from(STRUCTURED), drawn=EDITS)
def test_any_value_of_a_field_is_read_or_is_one_error_at_length(
    name: str, drawn: Any, tmp_path_factory
):
    check(name, drawn, tmp_path_factory.getbasetemp())
