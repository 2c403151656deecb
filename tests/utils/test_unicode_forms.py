"""Normalized forms of Unicode: those of the standard library, in linear time."""

from __future__ import annotations

import random
import time
import unicodedata

import pytest

from synque_select.utils.unicode_forms import normalized


@pytest.mark.parametrize("form", ["NFC", "NFKC", "NFKD"])
def test_the_form_is_that_of_the_standard_library(form):
    rng = random.Random(0)
    letters = "aé\u0301\u0323\u0344ế가\u1100\u1161ﬁｱﾞ "
    for _ in range(2000):
        text = "".join(rng.choices(letters, k=rng.randrange(12)))
        assert normalized(text, form) == unicodedata.normalize(form, text)


def test_a_run_of_marks_takes_linear_time():
    started = time.process_time()
    once = normalized("x" + "\u0301\u0323" * 100_000 + "y")
    assert time.process_time() - started < 5  # 20 s with the standard library
    assert (once[0], once[-1], len(once)) == ("x", "y", 200_002)
