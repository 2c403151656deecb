"""Groups of real examples: given by a field or a function, or found as near duplicates."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synque_select.data.candidate import RealSample
from synque_select.data.sources import load_real
from synque_select.errors import ConfigError, DataError

POSTS = [
    {"text": f"post {i} about subject {7 * i}", "thread": "abc"[i % 3], "label": i % 2}
    for i in range(12)
]


def grouped(values: list[Any]) -> list[int] | None:
    posts = [{"text": f"w{i} x{i}", "by": value} for i, value in enumerate(values)]
    groups = RealSample("real", posts, view="text", group_by="by").groups
    return None if groups is None else groups.tolist()


@pytest.mark.parametrize(
    "selector", ["thread", lambda post: post["thread"], lambda post: (post["thread"], 1)]
)
def test_a_field_or_a_function_says_what_belongs_together(selector):
    real = load_real(POSTS, view="text", real_groups=selector)
    assert real.groups is not None
    assert real.groups.dtype == np.int64
    assert real.groups.tolist() == [0, 1, 2] * 4


def test_a_position_names_a_part_of_a_tuple():
    real = load_real([(post["text"], post["thread"]) for post in POSTS], view=0, real_groups=1)
    assert real.groups is not None
    assert real.groups.tolist() == [0, 1, 2] * 4


def test_a_dotted_name_is_imported():
    real = load_real(["/a/x.txt", "/b/x.txt", "/a/y.txt"], real_groups="os.path.dirname")
    assert real.groups is not None
    assert real.groups.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([1, 2, 1], [0, 1, 0]),
        ([torch.tensor(1), torch.tensor(2), torch.tensor(1)], [0, 1, 0]),
        ([np.int64(5), np.array([5]), 6], [0, 0, 1]),
        (
            [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2), datetime.date(2026, 1, 1)],
            [0, 1, 0],
        ),
        ([None, None, "a", "a"], [0, 1, 2, 2]),
        ([math.nan, math.nan, 1.0, 1], [0, 1, 2, 2]),
        (["Jos\u00e9", "Jose\u0301", "Jose"], [0, 0, 1]),
        (["a", "b", "c"], None),
    ],
)
def test_equal_values_are_one_group_and_unknown_ones_are_alone(values, groups):
    assert grouped(values) == groups


@pytest.mark.parametrize("value", [["a"], {"a": 1}, ({}, 1), torch.ones(2), object(), np.ones(0)])
def test_a_value_that_cannot_name_a_group_is_refused(value):
    with pytest.raises(DataError, match=r"example 2 \(counted from 0\).*cannot name a group"):
        grouped(["a", "b", value])


def test_a_missing_field_lists_those_that_exist():
    with pytest.raises(DataError, match=r"real_groups='tread': the first example.*'thread'"):
        load_real(POSTS, view="text", real_groups="tread")
    posts = [*POSTS, {"text": "without a thread"}]
    with pytest.raises(DataError, match=r"example 12 \(counted from 0\).*no field 'thread'"):
        _ = load_real(posts, view="text", real_groups="thread").groups


def test_one_group_of_all_is_refused():
    with pytest.raises(ConfigError, match="all 12 examples of real are in one group"):
        _ = load_real(POSTS, view="text", real_groups=lambda post: "same").groups


@pytest.mark.parametrize("wrong", [True, 1.5, ["thread"], None])
def test_a_selector_of_a_wrong_type_is_refused(wrong):
    if wrong is None:
        assert load_real(POSTS, view="text", real_groups=None).group_by is None
        return
    with pytest.raises(ConfigError, match="allowed are a field name, a position"):
        load_real(POSTS, view="text", real_groups=wrong)


def test_view_and_label_are_no_groups():
    with pytest.raises(ConfigError, match="is the view itself"):
        load_real(POSTS, view="text", real_groups="text")
    with pytest.raises(ConfigError, match="labels of the real sample are never read"):
        RealSample("real", POSTS, "text", "label", group_by="label")


def test_groups_are_kept_and_replaced_by_load_real():
    real = load_real(POSTS, view="text", real_groups="thread")
    assert load_real(real) is real
    assert load_real(real, view="text").group_by == "thread"
    assert load_real(real, real_groups=False).groups is None
    assert load_real(real, real_groups="label").groups.tolist() == [0, 1] * 6  # type: ignore[union-attr]


def test_a_file_has_groups(tmp_path):
    file = tmp_path / "real.jsonl"
    file.write_text("\n".join(json.dumps(post) for post in POSTS))
    assert load_real(file, view="text", real_groups="thread").groups.tolist() == [0, 1, 2] * 4  # type: ignore[union-attr]


def test_copies_and_near_copies_are_found_and_chains_are_one_group():
    texts = [
        "Which app has the most reviews of all?",
        "How many users wrote a review?",
        "which app has the most reviews of ALL",
        "Which app has the most reviews of all today?",
        "How many users wrote a review?",
        "List the genres.",
    ]
    real = RealSample("real", texts)
    assert real.groups is not None
    assert real.groups.tolist() == [0, 1, 0, 0, 1, 2]
    assert (real.duplicates.n_exact, real.duplicates.n_near) == (1, 3)
    assert real.duplicates.pair in ((0, 2), (0, 3), (2, 3))


def test_a_sample_without_duplicates_has_no_groups():
    assert RealSample("real", [post["text"] for post in POSTS]).groups is None


def test_independent_examples_are_not_searched():
    real = RealSample("real", ["a b c", "a b c", "d"], group_by=False)
    assert real.groups is None
    assert "duplicates" not in vars(real)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_near_duplicates_are_complete(seed):
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(12)]
    texts = [" ".join(rng.choice(words, rng.integers(1, 9), replace=False)) for _ in range(60)]
    sets = [set(text.split()) for text in texts]
    linked = np.array([[len(a & b) / len(a | b) >= 0.8 for b in sets] for a in sets])
    for _ in range(6):  # the closure of the relation
        linked = (linked.astype(int) @ linked.astype(int)) > 0
    expected = linked.argmax(axis=1)
    groups = RealSample("real", texts).groups
    numbers = np.arange(60) if groups is None else groups
    assert ((numbers[:, None] == numbers) == (expected[:, None] == expected)).all()


def test_near_copies_of_images_are_found():
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    pixels += [np.minimum(pixels[1] // 2 + 60, 255).astype(np.uint8), pixels[2]]
    real = RealSample("real", [Image.fromarray(part) for part in pixels])
    assert real.groups is not None
    assert real.groups.tolist() == [0, 1, 2, 3, 1, 2]
    assert real.duplicates.pair == (1, 4)
