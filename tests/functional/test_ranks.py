"""Ranks with ties, against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import rankdata

from synque_select.functional.ranks import mean_ranks

VALUES = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan])


@given(arrays(np.float64, array_shapes(max_dims=3, max_side=8), elements=VALUES))
def test_ranks_are_those_of_scipy(values: np.ndarray):
    expected = rankdata(values, axis=-1, nan_policy="omit")
    np.testing.assert_array_equal(mean_ranks(values), expected)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_no_values_have_no_ranks(shape: tuple[int, ...]):
    assert mean_ranks(np.empty(shape)).shape == shape
