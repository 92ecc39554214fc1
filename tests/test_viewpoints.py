"""Viewpoints of a cell and what they make of a place: ``pytest tests/test_viewpoints.py``."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from core.errors import SettingError
from core.gallery.viewpoints import SHARPNESS, cell_viewpoints, over_viewpoints

scores = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1, 1, width=32)
)


def test_quarters_by_hand_from_the_north_west():
    expected = [[-0.25, 0.25], [0.25, 0.25], [-0.25, -0.25], [0.25, -0.25]]
    np.testing.assert_array_equal(cell_viewpoints(4), expected)
    np.testing.assert_array_equal(cell_viewpoints(1), [[0, 0]])


@pytest.mark.parametrize("count", [1, 4, 9])
def test_no_point_of_a_cell_is_far_from_a_viewpoint(count):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 2))
    apart = np.abs(points[:, None] - cell_viewpoints(count)[None]).max(axis=2).min(axis=1)
    assert apart.max() <= 0.5 / count**0.5 + 1e-9


@pytest.mark.parametrize("count", [0, 2, 16, -4])
def test_other_counts_are_refused(count):
    with pytest.raises(SettingError, match="expected 1, 4 or 9"):
        cell_viewpoints(count)


@given(scores)
def test_a_place_is_the_log_of_the_mean_exponential(each):
    slow = [
        math.log(sum(math.exp(SHARPNESS * float(score)) for score in row) / len(row)) / SHARPNESS
        for row in each
    ]
    found = over_viewpoints(each)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow, atol=2e-6)
    assert (found <= each.max(axis=1) + 1e-6).all()
    assert (found >= each.mean(axis=1) - 1e-6).all()


def test_one_viewpoint_is_the_place_and_none_in_question_stays_out():
    np.testing.assert_allclose(over_viewpoints(np.array([[0.3], [-0.2]])), [0.3, -0.2])
    out = over_viewpoints(np.array([[-np.inf] * 4, [0.5] * 4]))
    np.testing.assert_allclose(out, [-np.inf, 0.5])
