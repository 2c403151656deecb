"""Selecting, converting and hashing views of many kinds of examples."""

from __future__ import annotations

import posixpath
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from synque_select.data.record_formats import choose_view
from synque_select.data.selectors import find_selector
from synque_select.data.views import (
    as_view,
    describe,
    digest,
    fields_view,
    modality_of,
    select,
)
from synque_select.errors import ConfigError, DataError, DependencyError
from synque_select.utils.written_number import WrittenNumber

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


# --------------------------------------------------------------------------------------- select


@pytest.mark.parametrize(
    ("example", "selector", "expected"),
    [
        ({"a": 1, "b": 2}, "b", 2),
        (("text", 1), 0, "text"),
        (["x", "y"], -1, "y"),
        ({"a": 1}, lambda row: row["a"] + 1, 2),
        ("text", str.upper, "TEXT"),
    ],
)
def test_select(example: Any, selector: Any, expected: Any):
    assert select(example, selector) == expected


@pytest.mark.parametrize(
    ("example", "selector", "message"),
    [
        ({"question": "x"}, "qestion", r"no field 'qestion'; did you mean 'question'\? There are"),
        ({1: "x"}, "a", "no field 'a'; there are: 1"),
        (
            ("x", 1),
            "a",
            "field 'a' requested from an example of type tuple, which has no fields: give a",
        ),
        ("text", "a", "field 'a' requested from an example of type str"),
        ("text", 0, "position 0 requested from an example of type str"),
        ({"a": 1}, 0, "position 0 requested from an example of type dict"),
        (("x", 1), 2, "no position 2: the example has 2 parts"),
        (("x", 1), -3, "no position -3"),
        (None, 0, "position 0 requested from an example of type NoneType"),
    ],
)
def test_a_missing_field_or_position_is_named(example: Any, selector: Any, message: str):
    with pytest.raises(DataError, match=message):
        select(example, selector)


@pytest.mark.parametrize(
    ("example", "selector", "expected"),
    [
        ({"a": 1}, "a", "a"),
        ({"a": 1}, "b", "b"),
        (("x", 1), 0, 0),
        ({"a": 1}, str.upper, str.upper),
        ({"a": 1}, "posixpath.basename", posixpath.basename),
        (["x"], "posixpath.basename", posixpath.basename),
        ({"posixpath.basename": "x"}, "posixpath.basename", "posixpath.basename"),
        ({"a": 1}, "a text. Not a name", "a text. Not a name"),
        ({"a": 1}, ".a", ".a"),
    ],
)
def test_a_dotted_name_is_a_field_or_else_a_function(example: Any, selector: Any, expected: Any):
    assert find_selector(example, selector) == expected


@pytest.mark.parametrize(
    ("example", "selector", "message"),
    [
        ({"a.text": 1}, "a.txt", r"no field 'a.txt' and no such function .*mean 'a.text'"),
        ({"a": 1}, "posixpath.basenam", r"no such function \(module 'posixpath' has no"),
        (("x", 1), "absent.view", r"No module named 'absent'\); the example has no fields"),
        ({"a": 1}, "posixpath.sep", "'posixpath.sep' is of type str, not a function"),
    ],
)
def test_an_unknown_dotted_name_is_an_error(example: Any, selector: str, message: str):
    with pytest.raises(DataError, match=message):
        find_selector(example, selector)


# --------------------------------------------------------------------------------------- modality


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "text"),
        (np.str_("x"), "text"),
        (Image.new("1", (1, 1)), "image"),
        (PIXELS, "image"),
        (torch.zeros(28, 28), "image"),
        (torch.zeros(28), None),
        (np.zeros((1, 2, 3, 4)), None),
        (3.5, None),
        (None, None),
        (b"bytes", None),
        (["a"], None),
    ],
)
def test_modality(value: Any, expected: str | None):
    assert modality_of(value) == expected


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ({"headline": "x", "label": 1}, "headline"),
        ({"image": Image.new("L", (2, 2)), "label": "cat"}, "image"),
        ((torch.zeros(3, 4, 4), 7), 0),
        ((7, "x"), 1),
    ],
)
def test_the_only_text_or_image_is_the_view(example: Any, expected: Any):
    assert choose_view(example).selector == expected


def test_the_label_is_not_the_view():
    assert choose_view({"q": "x", "label": "y"}, "label").selector == "q"
    assert choose_view(("x", "y"), 0).selector == 1
    with pytest.raises(ConfigError, match=r"choose one of 'q', 'a'$"):
        choose_view({"q": "x", "a": "y", "label": "z"}, "label")


def test_an_example_may_be_the_view_itself():
    assert select("x", choose_view("x").selector) == "x"
    assert select(PIXELS, choose_view(PIXELS).selector) is PIXELS


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"q": "x", "a": "y", "n": 1}, "choose one of 'q', 'a'$"),
        ({"n": 1, "m": 2}, "has no text or image, only 'n', 'm': give a function"),
        (("x", "y"), "choose one of 0, 1$"),
        ({"a": PIXELS, "b": PIXELS, "c": "x"}, "choose one of 'a', 'b', 'c'$"),
        (3, "an example of type int has no fields: give a function as view="),
        (None, "an example of type NoneType has no fields"),
    ],
)
def test_an_ambiguous_example_requires_a_view(example: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        choose_view(example)


# ---------------------------------------------------------------------------------------- as_view


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_valid_text_is_only_composed(text: str):
    assert as_view(text, "text") == unicodedata.normalize("NFC", text)


@given(st.text(st.characters(categories=["Cs", "Ll"], max_codepoint=0xFFFF), max_size=8))
def test_every_text_can_be_encoded_and_keeps_its_letters(text: str):
    view = as_view(text, "text")
    assert isinstance(view, str)
    view.encode()
    text = unicodedata.normalize("NFC", text)
    # two surrogates may have been joined to one letter beyond the 16 bits of each
    assert [c for c in view if c.isalpha() and ord(c) < 2**16] == [c for c in text if c.isalpha()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ud83d", "\ufffd"),
        ("a\udc00b", "a\ufffdb"),
        ("\ud83c\udf89", "🎉"),
        ("x\ud83d", "x\ufffd"),
    ],
)
def test_surrogates(text: str, expected: str):
    assert as_view(text, "text") == expected


@pytest.mark.parametrize(
    ("value", "modality", "message"),
    [
        (None, "text", r"expected a text, found nothing \(None\)"),
        (7, "text", "expected a text, found int"),
        (PIXELS, "text", r"expected a text, found ndarray of shape \(2, 3, 3\)"),
        ("x", "image", "expected an image, found str"),
        (torch.zeros(5), "image", r"expected an image, found Tensor of shape \(5,\)"),
        (np.full((2, 2), 2.0), "image", r"must lie in 0\.\.1; found 2 to 2 \(is it normalized"),
        (np.array([[np.nan, 0.5]]), "image", r"must lie in 0\.\.1; found 0\.5 to 0\.5"),
        (np.zeros((2, 2), dtype=np.int64), "image", "must be uint8 or float, found int64"),
        (np.zeros((2, 2), dtype=bool), "image", "must be uint8 or float, found bool"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "image", r"found 8 \(an array is \(H, W, C\)"),
        (np.zeros((0, 4), dtype=np.uint8), "image", r"must have pixels, found the shape \(0, 4\)"),
    ],
)
def test_an_invalid_view_is_described(value: Any, modality: Any, message: str):
    with pytest.raises(DataError, match=message):
        as_view(value, modality)


ARRAYS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3, 4])),
)


@given(ARRAYS)
def test_arrays_and_tensors_of_bytes_or_of_floats_give_the_same_pixels(array: Any):
    channels_first = torch.from_numpy(array).permute(2, 0, 1)
    expected = array[..., 0] if array.shape[-1] == 1 else array
    for value in (array, channels_first, array / 255, channels_first.float() / 255):
        view: Any = as_view(value, "image")
        np.testing.assert_array_equal(np.asarray(view), expected)


def test_a_tensor_of_half_precision_with_a_gradient():
    tensor = torch.full((2, 2), 0.5, dtype=torch.bfloat16, requires_grad=True)
    view: Any = as_view(tensor, "image")
    assert view.getpixel((0, 0)) == 128


def test_an_image_file_that_was_only_opened_is_read(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:45])
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        as_view(image, "image")


def test_arrays_without_pillow_name_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DependencyError, match=r"pip install 'synque-select\[image\]'"):
        as_view(PIXELS, "image")


def test_describe():
    assert describe(None) == "nothing (None)"
    assert describe(torch.zeros(2, 3)) == "Tensor of shape (2, 3)"


# ----------------------------------------------------------------------------------------- digest


@given(st.text(), st.text())
def test_texts_have_one_digest_if_and_only_if_they_are_equal(a: str, b: str):
    assert (digest(a) == digest(b)) == (a == b)
    assert len(digest(a)) == 32


def distinct_images() -> list[Any]:
    black, white = [0, 0, 0], [255, 255, 255]
    palettes = []
    for colours in (black + white, white + black):
        image = Image.new("P", (2, 2))
        image.putpalette(colours)
        palettes.append(image)
    return [
        Image.new("L", (2, 3)),
        Image.new("L", (3, 2)),
        Image.new("L", (2, 3), 1),
        Image.new("RGB", (2, 3)),
        *palettes,
    ]


def test_images_differ_by_mode_size_pixels_and_palette():
    images = distinct_images()
    assert len({digest(image) for image in images}) == len(images)
    assert [digest(image.copy()) for image in images] == [digest(image) for image in images]


def test_a_text_and_an_image_never_share_a_digest():
    image = Image.new("L", (1, 1), 65)
    assert digest("A") != digest(image)


def test_numbers_inside_a_field_of_several_keep_their_text():
    record = {"text": "x", "meta": {"prices": [WrittenNumber("3.10"), 4.5]}}
    view = '{"text": "x", "meta": {"prices": ["3.10", 4.5]}}'
    assert fields_view("text", "meta")(record) == view
