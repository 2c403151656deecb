"""What is said of the real sample: groups, duplicates, and too few examples."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from synque_select.data.candidate import Candidate, RealSample
from synque_select.selection.real_messages import real_messages
from synque_select.selection.scorer import rank

TEXTS = [f"Which app is number {i}?" for i in range(24)]


def posts(n: int = 60, n_threads: int = 20, **more: object) -> list[dict[str, object]]:
    return [{"text": f"post {i} says {i * i}", "thread": i % n_threads, **more} for i in range(n)]


def test_distinct_examples_give_no_message():
    assert real_messages(RealSample("real", TEXTS)) == ()


def test_found_duplicates_are_counted_shown_and_how_to_override_them():
    (message,) = real_messages(RealSample("real", [*TEXTS, "which app is number 3", TEXTS[5]]))
    assert message.startswith("4 of the 26 real examples have a copy or near copy among them")
    assert "'Which app is number 3?' and 'which app is number 3'" in message
    assert "24 groups, effective n 22.5" in message  # 26² / (22 + 2 · 2²)
    assert "real_groups=" in message
    assert "false" in message


def test_images_are_shown_by_their_positions():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(24)]
    (message,) = real_messages(RealSample("real", [*images, images[4]]))
    assert "such as example 4 and example 24" in message


def test_copies_that_count_as_separate_examples_are_reported():
    (message,) = real_messages(RealSample("real", [*TEXTS, TEXTS[0]], group_by=False))
    assert message.startswith("Only 24 of the 25 real examples are distinct")


def test_all_copies_of_one_text():
    one, few = real_messages(RealSample("real", TEXTS[:1] * 24))
    assert one.startswith("All 24 real examples are copies or near copies of each other")
    assert few.startswith("1 group of real examples is few")


def test_where_each_has_a_copy_no_number_is_repeated_and_one_text_is_shown_once():
    (message,) = real_messages(RealSample("real", TEXTS * 2))
    assert message.startswith("Each of the 48 real examples has a copy or near copy among them")
    assert message.count("'Which app is number 0?'") == 1
    assert "24 groups" in message


def test_given_groups_say_nothing_until_duplicates_lie_across_them():
    assert real_messages(RealSample("real", posts(), "text", group_by="thread")) == ()
    records = posts()
    records[21] = {"text": records[0]["text"], "thread": 1}
    (message,) = real_messages(RealSample("real", records, "text", group_by="thread"))
    assert message.startswith("2 of the 60 real examples have a copy or near copy in another group")
    assert "group of 'thread', such as 'post 0 says 0' (more than once): if" in message


def test_few_groups_are_few_whatever_the_number_of_examples():
    (message,) = real_messages(RealSample("real", posts(60, 10), "text", group_by="thread"))
    assert message.startswith("10 groups of real examples are few")
    (message,) = real_messages(RealSample("real", TEXTS[:8]))
    assert message.startswith("8 distinct real examples are few")


@pytest.mark.parametrize(
    ("real", "few"),
    [
        (RealSample("real", TEXTS[:8]), "8 distinct real examples"),
        (RealSample("real", posts(8, 4), "text", group_by="thread"), "4 groups of real examples"),
    ],
)
def test_a_ranking_includes_the_messages(real, few, tmp_path):
    candidates = [Candidate("same", ["Yes.", "No."] * 10), Candidate("other", TEXTS[::-1])]
    ranking = rank(candidates, real, proxies=["ngram"], top_k=1, cache_dir=tmp_path)
    assert "same: only 2 of its 20 examples are distinct." in ranking.messages
    assert any(message.startswith(f"{few} are few") for message in ranking.messages)
