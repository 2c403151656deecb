"""A number keeps its text wherever it goes, and calculates as a float."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import default_collate

from synque_select.utils.written_number import WrittenNumber


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_keeps_the_text(again: Callable[[object], object]):
    copied = again(WrittenNumber("3.50"))
    assert isinstance(copied, WrittenNumber)
    assert (str(copied), f"{copied}", repr(copied)) == ("3.50",) * 3


def test_it_is_a_float_in_formats_json_and_batches():
    price = WrittenNumber("3.50")
    assert (f"{price:.1f}", json.dumps(price), price + 1, price == 3.5) == ("3.5", "3.5", 4.5, True)
    batch = default_collate([{"price": price}, {"price": WrittenNumber("1")}])
    assert torch.equal(batch["price"], torch.tensor([3.5, 1.0], dtype=torch.float64))


def test_methods_of_float_give_numbers_that_have_a_text():
    price = WrittenNumber("3.50")
    assert [str(type(price)(value)) for value in (2.0, price, "1e3")] == ["2.0", "3.50", "1e3"]
    assert str(WrittenNumber.fromhex("0x1p1")) == "2.0"
