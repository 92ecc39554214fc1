"""Where within a place the camera stood: run alone with ``pytest tests/test_position.py``."""

from __future__ import annotations

import numpy as np
import pytest

from core.gallery.viewpoints import SHARPNESS
from core.localization.refinement import STRIDE_M, between_steps, camera_position, steps_around

SIDE_M = 76.8
GRID = np.array([[19.2 * east, 19.2 * north] for north in range(-3, 4) for east in range(-3, 4)])
MIDDLE = len(GRID) // 2
QUARTERS = ((-0.125, 0.125), (0.125, 0.125), (-0.125, -0.125), (0.125, -0.125))


def bowl(camera: np.ndarray, points: np.ndarray, width_m: float) -> np.ndarray:
    """Scores whose exponential, as sharp as a position takes it, is a Gaussian around the camera."""
    return -((points - camera) ** 2).sum(axis=-1) / (2 * width_m**2) / SHARPNESS


def points_of(viewpoints) -> np.ndarray:
    return GRID[:, None] + np.asarray(viewpoints) * SIDE_M / 2


def test_a_place_alone_is_its_centre() -> None:
    found = camera_position(np.array([[5.0, -7.0]]), np.array([[0.3]]), 0, SIDE_M)
    assert found == pytest.approx([5.0, -7.0])


@pytest.mark.parametrize("viewpoints", [((0.0, 0.0),), QUARTERS])
def test_scores_that_fall_off_around_the_camera_find_it(viewpoints) -> None:
    for camera in ([3.0, -6.0], [-8.0, 1.0], [0.0, 0.0]):
        scores = bowl(np.array(camera), points_of(viewpoints), 8.0)
        first = int(scores.max(axis=1).argmax())
        found = camera_position(GRID, scores, first, SIDE_M, viewpoints)
        centre_error = np.hypot(*(GRID[first] - camera))
        assert np.hypot(*(found - camera)) < max(1.0, 0.3 * centre_error)


def test_the_slow_sum_of_the_definition() -> None:
    scores = np.random.default_rng(1).normal(size=(len(GRID), 4)) / 10
    total, weight_sum = np.zeros(2), 0.0
    for place in range(len(GRID)):
        if np.hypot(*(GRID[place] - GRID[MIDDLE])) > 28.8:
            continue
        for stand, (east, north) in enumerate(QUARTERS):
            weight = np.exp(SHARPNESS * scores[place, stand])
            total += weight * (GRID[place] + [38.4 * east, 38.4 * north])
            weight_sum += weight
    found = camera_position(GRID, scores, MIDDLE, SIDE_M, QUARTERS)
    assert found == pytest.approx(total / weight_sum)


def test_far_and_excluded_places_have_no_say() -> None:
    scores = np.full((len(GRID), 1), -np.inf)
    scores[MIDDLE] = 0.0
    assert camera_position(GRID, scores, MIDDLE, SIDE_M) == pytest.approx([0.0, 0.0])
    scores[0] = 100.0  # three steps away on either axis
    assert camera_position(GRID, scores, MIDDLE, SIDE_M) == pytest.approx([0.0, 0.0])


def test_moving_everything_moves_the_answer() -> None:
    scores = np.random.default_rng(2).normal(size=(len(GRID), 4))
    here = camera_position(GRID, scores, MIDDLE, SIDE_M, QUARTERS)
    there = camera_position(GRID + np.array([1000.0, -500.0]), scores, MIDDLE, SIDE_M, QUARTERS)
    assert there - here == pytest.approx([1000.0, -500.0])


def test_steps_are_the_point_and_a_stride_each_way() -> None:
    steps = steps_around(np.array([10.0, -2.0]))
    assert steps[0] == pytest.approx([10.0, -2.0])
    assert sorted(np.hypot(*(steps - steps[0]).T)) == pytest.approx([0, *[STRIDE_M] * 4])
    assert steps.mean(axis=0) == pytest.approx(steps[0])


def test_scores_alike_leave_the_point_and_a_better_step_draws_it_there() -> None:
    steps = steps_around(np.array([10.0, -2.0]))
    assert between_steps(steps, np.full(5, 0.4)) == pytest.approx([10.0, -2.0])
    scores = np.array([0.5, 0.6, 0.5, 0.4, 0.4])
    weights = np.exp(30 * scores)
    assert between_steps(steps, scores) == pytest.approx(weights @ steps / weights.sum())
    east, north = between_steps(steps, np.array([0.5, 2.0, 0.5, 0.5, 0.5]))
    assert (east, north) == pytest.approx((10.0 + STRIDE_M, -2.0))
