"""YAML of which a parser would drop a part, or that is broken, is one error with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synque_select.errors import ConfigError, DataError
from synque_select.utils.yaml_files import check_yaml, read_yaml_file

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is already on line 1; a key may occur once"),
        ("x:\n  y:\n    b: 1\n    b: 2\n", "line 4: the key 'b' is already on line 3"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "line 1: the key 'c' is already on line 1"),
        ("- a: 1\n  'a': 2\n", "line 2: the key 'a' is already on line 1"),
        ("? [p]\n: 1\na: 1\na: 1\n", "line 4: the key 'a' is already on line 3"),
        ("x: &k name\n*k : 1\nname: 2\n", "line 3: the key 'name' is already on line 2"),
        ("1: a\n1.0: b\n", "line 2: the key 1.0 is already on line 1"),
        ("true: a\nyes: b\n", "line 2: the key True is already on line 1"),
        ("~: a\nnull: b\n", "line 2: the key None is already on line 1"),
        ("a: !!set {x, y, x}\n", "line 1: the key 'x' is already on line 1"),
        ("caf\u00e9: 1\ncafe\u0301: 2\n", "line 2: the key 'caf\u00e9' is already on line 1"),
        (
            "a: &a {k: 1}\nb: &b {k: 2}\nc:\n  <<: *a\n  <<: *b\n",
            r"line 5: the key '<<' is already on line 4; merge several mappings by <<: ",
        ),
        ("a: !!int ''\n", "not YAML: a value does not fit its tag"),
        ("a: !!timestamp x\n", "not YAML: a value does not fit its tag"),
        (
            "a: " + "9" * 5000,
            "not YAML: a value does not fit its tag, .* number: Exceeds",
        ),
        ("a: [1", r"line 2, column 1: not YAML: did not find expected ',' or '\]'"),
        ("\ta: 1", "line 1, column 1: not YAML: found character that cannot start any token"),
        ("a: b: c", "line 1, column 5: not YAML: mapping values are not allowed in this context"),
        ('a: "\\ud83d"', "line 1, column 7: not YAML: .*invalid Unicode"),
        ("a: *x", r"line 1: \*x has no anchor that ends before it"),
        ("a: &a [*a]", r"line 1: \*a has no anchor that ends before it"),
        ("a: 1\n---\nb: 2", "line 2: a second document starts here; allowed is one"),
        ("[" * 100_000, "nest"),
        ("- " * 2000 + "1", "line 1: invalid YAML: nested too deeply; allowed are 300 levels"),
        (BOMB, "line 6: more than 1,000,000 values, with aliases expanded"),
        ("a: !!python/name:os.system", "line 1, column 4: not YAML: could not determine"),
        ("a: 2026-02-31", "not YAML: a value .* or number: day is out of range for month"),
        ("<<: 3\na: 1", "line 1, column 5: not YAML: expected a mapping"),
        ("a: 1\n".encode("utf-16"), r"line 1: not UTF-8 \(byte 0xff\) \(is the file UTF-16\?\)"),
        ("a: 1\n".encode("utf-16-le"), r"not YAML: .*#x0000.*\(is the file UTF-16\?\)"),
        ("a: café".encode("latin-1"), r"line 1: not UTF-8 \(byte 0xe9\): save it as UTF-8"),
    ],
)
def test_one_error_names_the_file_and_the_line(tmp_path: Path, content: str | bytes, message: str):
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"(?s)^{path}.*{message}"):
        read_yaml_file(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("\ufeffa: 1\r\nb: x\r\n", {"a": 1, "b": "x"}),
        ("a: {k: 1}\nb: {k: 2}\n", {"a": {"k": 1}, "b": {"k": 2}}),
        ("a: a\nb: [a, a, a]\n", {"a": "a", "b": ["a", "a", "a"]}),
        ("a: &x {k: 1}\nb: {<<: *x, j: 2}", {"a": {"k": 1}, "b": {"k": 1, "j": 2}}),
        ("a: &s text\nb: *s\n", {"a": "text", "b": "text"}),
        ("2: a\n'2': b\nyes: c\n'yes': d\n", {2: "a", "2": "b", True: "c", "yes": "d"}),
        ("a: &x {k: 1}\nb: {<<: [*x, {j: 2}], k: 3}", {"a": {"k": 1}, "b": {"k": 3, "j": 2}}),
    ],
)  # fmt: skip
def test_what_yaml_allows_is_read(tmp_path: Path, text: str, value: object):
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode())
    assert read_yaml_file(path) == value


def test_the_error_is_of_the_given_type(tmp_path: Path):
    with pytest.raises(DataError, match="cannot read"):
        read_yaml_file(tmp_path / "none.yaml", error=DataError)
    with pytest.raises(DataError, match=r"x, line 1: the key 'a'"):
        check_yaml("{a: 1, a: 2}", "x", error=DataError)


def _fuzz(content: bytes, folder: Path) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(content)
    try:
        read_yaml_file(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - most contents are valid


_SIGNS = [
    *"abc:-?[]{},&*!|>'\"%@`#\n \t~",
    ": ",
    "- ",
    "<<: ",
    "&a ",
    "*a",
    "*a : ",
    "!!int ",
    "!!set ",
    "  ",
    "\n  ",
]
_WORDS = [
    "1",
    "1.0",
    "yes",
    "~",
    "1e5",
    "0x1f",
    "2026-02-31",
    "---\n",
    "...\n",
    "\ud83d",
    "\x00",
    "\x85",
    "\ufeff",
]
_PIECES = st.sampled_from(_SIGNS + _WORDS)
_TEXTS = st.lists(_PIECES, max_size=40).map(lambda p: "".join(p).encode("utf-8", "surrogatepass"))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(content=st.one_of(_TEXTS, st.binary(max_size=60)))
def test_any_content_is_read_or_one_error(content: bytes, tmp_path_factory):
    _fuzz(content, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(content=st.one_of(_TEXTS, st.binary(max_size=60)))
def test_any_content_is_read_or_one_error_at_length(content: bytes, tmp_path_factory):
    _fuzz(content, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("k: " + ":".join(["1"] * 400) + ".5\n", "int too large to convert to float"),
        (":".join(["1"] * 400) + ".5: k\n", "int too large to convert to float"),
        ("k: 0x" + "f" * 20_000 + "\n", "a whole number of more than 4,300 digits"),
        ("k: " + ":".join(["1"] * 20_000) + "\n", "a whole number of more than 4,300 digits"),
    ],
)
def test_numbers_that_python_cannot_hold_or_print_are_one_error(content, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"a.yaml: not YAML: .*{message}"):
        read_yaml_file(path)
