"""Where within a place the camera stood: run alone with ``pytest tests/test_position.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from core.gallery.viewpoints import SHARPNESS, cell_viewpoints
from core.localization import refinement
from core.localization.ranking import Ranking
from core.localization.refinement import (
    STRIDE_M,
    TEACHER_SHARPNESS,
    estimated_position,
    refine_position,
    weighted_position,
)

SIDE_M, STEP_M = 76.8, 19.2
GRID = np.array([[19.2 * east, 19.2 * north] for north in range(-3, 4) for east in range(-3, 4)])
MIDDLE = len(GRID) // 2
CENTRE_ALONE, QUARTERS = (cell_viewpoints(count) * STEP_M for count in (1, 4))


@dataclass
class Places:
    """References whose tiles are blank; ``requested``: the points of every cut."""

    centres_m: np.ndarray = field(default_factory=lambda: GRID)
    viewpoints_m: np.ndarray = field(default_factory=lambda: CENTRE_ALONE)
    tile_side_m: float = SIDE_M
    requested: list[np.ndarray] = field(default_factory=list)

    def inside(self, points_m: np.ndarray) -> np.ndarray:
        return np.clip(points_m, self.centres_m.min(axis=0), self.centres_m.max(axis=0))

    def tiles_at(self, points_m: np.ndarray) -> np.ndarray:
        self.requested.append(points_m)
        return np.zeros((len(points_m), 32, 32, 3), np.uint8)


def estimated(places: Places, scores: np.ndarray, row: int, rows: np.ndarray | None = None):
    """The position in one row's place, where the viewpoints of some rows have these scores (K, S)."""
    ranked = np.arange(len(scores)) if rows is None else rows
    nothing = np.empty(0, np.float32)
    ranking = Ranking(ranked, scores.max(axis=1), nothing, nothing, scores, len(places.centres_m))
    return estimated_position(places, ranking, int(np.flatnonzero(ranked == row)[0]))  # type: ignore[arg-type]


def bowl(camera: np.ndarray, points: np.ndarray, width_m: float) -> np.ndarray:
    """Scores whose exponential, as sharp as a position takes it, is a Gaussian around the camera."""
    return -((points - camera) ** 2).sum(axis=-1) / (2 * width_m**2) / SHARPNESS


def test_a_place_alone_is_its_centre() -> None:
    alone = Places(np.array([[5.0, -7.0]]))
    assert estimated(alone, np.array([[0.3]]), 0) == pytest.approx([5.0, -7.0])


@pytest.mark.parametrize("viewpoints", [CENTRE_ALONE, QUARTERS])
def test_scores_that_fall_off_around_the_camera_find_it(viewpoints) -> None:
    for camera in ([3.0, -6.0], [-8.0, 1.0], [0.0, 0.0]):
        scores = bowl(np.array(camera), GRID[:, None] + viewpoints, 8.0)
        first = int(scores.max(axis=1).argmax())
        found = estimated(Places(viewpoints_m=viewpoints), scores, first)
        centre_error = np.hypot(*(GRID[first] - camera))
        assert np.hypot(*(found - camera)) < max(1.0, 0.3 * centre_error)


def test_the_slow_sum_of_the_definition() -> None:
    scores = np.random.default_rng(1).normal(size=(len(GRID), 4)) / 10
    total, weight_sum = np.zeros(2), 0.0
    for place in range(len(GRID)):
        if np.hypot(*(GRID[place] - GRID[MIDDLE])) > 28.8:
            continue
        for viewpoint, offset in enumerate(QUARTERS):
            weight = np.exp(SHARPNESS * scores[place, viewpoint])
            total += weight * (GRID[place] + offset)
            weight_sum += weight
    found = estimated(Places(viewpoints_m=QUARTERS), scores, MIDDLE)
    assert found == pytest.approx(total / weight_sum)


def test_far_and_excluded_places_have_no_say() -> None:
    """A place that is not in the ranking is excluded; one three steps away on either axis is far."""
    scores = np.zeros((2, 1))
    assert estimated(Places(), scores[:1], MIDDLE, np.array([MIDDLE])) == pytest.approx([0.0, 0.0])
    scores[0] = 100.0
    found = estimated(Places(), scores, MIDDLE, np.array([0, MIDDLE]))
    assert found == pytest.approx([0.0, 0.0])


def test_the_order_of_the_ranking_does_not_matter() -> None:
    scores = np.random.default_rng(3).normal(size=(len(GRID), 4))
    order = np.random.default_rng(4).permutation(len(GRID))
    places = Places(viewpoints_m=QUARTERS)
    shuffled = estimated(places, scores[order], MIDDLE, order)
    assert shuffled == pytest.approx(estimated(places, scores, MIDDLE))


def test_moving_everything_moves_the_answer() -> None:
    scores = np.random.default_rng(2).normal(size=(len(GRID), 4))
    here = estimated(Places(viewpoints_m=QUARTERS), scores, MIDDLE)
    moved = Places(GRID + np.array([1000.0, -500.0]), QUARTERS)
    assert estimated(moved, scores, MIDDLE) - here == pytest.approx([1000.0, -500.0])


def test_an_estimate_lies_where_a_whole_tile_can_be_cut() -> None:
    scores = np.full((len(GRID), 4), -9.0)
    scores[0, 2] = 1.0  # the south-western quarter of the south-western place
    found = estimated(Places(viewpoints_m=QUARTERS), scores, 0)
    assert found == pytest.approx(GRID[0])


def refined(monkeypatch: pytest.MonkeyPatch, estimate: np.ndarray, scores: np.ndarray):
    """Where a teacher that gives these scores (5,) puts the camera, and the points it compared."""
    places, teacher = Places(), SimpleNamespace(aerial_size=(32, 32), ground_size=(64, 256))

    def aligned(given, view, tiles, shifts, mirrored):
        assert given is teacher
        assert (tuple(tiles.shape), shifts.tolist(), mirrored) == ((5, 3, 32, 32), [3.5] * 5, 0)
        return scores, np.rint(shifts)

    monkeypatch.setattr(refinement, "aligned_scores", aligned)
    canvas = np.zeros((64, 256, 3), np.uint8)
    found = refine_position(places, teacher, canvas, 3.5, estimate)  # type: ignore[arg-type]
    (points,) = places.requested
    return found, points


def test_the_teacher_compares_the_point_and_a_stride_each_way(monkeypatch) -> None:
    _, points = refined(monkeypatch, np.array([10.0, -2.0]), np.full(5, 0.4))
    assert points[0] == pytest.approx([10.0, -2.0])
    assert sorted(np.hypot(*(points - points[0]).T)) == pytest.approx([0, *[STRIDE_M] * 4])
    assert points.mean(axis=0) == pytest.approx(points[0])


def test_equal_scores_leave_the_point_and_a_better_step_draws_it_there(monkeypatch) -> None:
    estimate = np.array([10.0, -2.0])
    assert refined(monkeypatch, estimate, np.full(5, 0.4))[0] == pytest.approx([10.0, -2.0])
    scores = np.array([0.5, 0.6, 0.5, 0.4, 0.4])
    found, points = refined(monkeypatch, estimate, scores)
    weights = np.exp(TEACHER_SHARPNESS * scores)
    assert found == pytest.approx(weights @ points / weights.sum())
    best, _ = refined(monkeypatch, estimate, np.array([0.5, 2.0, 0.5, 0.5, 0.5]))
    assert best == pytest.approx((10.0 + STRIDE_M, -2.0))


def test_steps_at_the_border_stay_where_whole_tiles_are(monkeypatch) -> None:
    found, points = refined(monkeypatch, GRID[-1], np.full(5, 0.4))
    assert (points <= GRID.max(axis=0)).all()
    assert found == pytest.approx(points.mean(axis=0))


def test_huge_logits_give_no_overflow() -> None:
    points = np.array([[0.0, 0.0], [4.0, 0.0]])
    with np.errstate(all="raise", under="ignore"):
        assert weighted_position(points, np.array([1e4, 0.0])) == pytest.approx([0.0, 0.0])
        assert weighted_position(points, np.full(2, 1e4)) == pytest.approx([2.0, 0.0])
