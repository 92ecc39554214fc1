"""Calibration recovers what made the data, and never turns an order round by mistake."""

from __future__ import annotations

import numpy as np
import pytest

from core.evaluation.pools import Pools, first_places
from core.localization.calibration import (
    Calibration,
    ViewCalibration,
    fit_confidence,
    fit_factors,
    probabilities,
)

VIEW = ViewCalibration(bins=8, student=10.0, teacher=5.0, slope=1.0, intercept=0.0)


def test_logits_by_hand() -> None:
    logits = VIEW.logits(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.5]))
    assert logits.tolist() == pytest.approx([9.5, 10.5, 7.5])
    assert VIEW.logits(np.array([0.9]), np.empty(0)).tolist() == pytest.approx([9.0])


def test_a_tile_the_teacher_has_not_seen_never_passes_one_it_has() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        similarities = np.sort(random.random(30))[::-1]
        logits = VIEW.logits(similarities, random.random(10))
        assert logits[10:].max() <= logits[:10].max()


def test_probabilities_sum_to_one_even_for_huge_logits() -> None:
    shares = probabilities(np.array([1e4, 1e4, 0.0]))
    assert shares.tolist() == pytest.approx([0.5, 0.5, 0.0])


def draw(student: float, teacher: float, queries: int = 4000) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(1)
    similarities = -np.sort(-random.normal(0.5, 0.15, (queries, 12)), axis=1)
    scores = random.normal(0.4, 0.2, (queries, 12))
    logits = student * similarities + teacher * scores
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen = np.array([random.choice(12, p=share) for share in shares])
    return similarities, scores, np.arange(12)[None] == chosen[:, None]


def test_factors_are_recovered_from_data_they_made() -> None:
    similarities, scores, correct = draw(12.0, 6.0)
    student, teacher = fit_factors(similarities, scores, correct)
    assert student == pytest.approx(12.0, rel=0.1)
    assert teacher == pytest.approx(6.0, rel=0.1)
    alone, none = fit_factors(similarities, None, draw(12.0, 0.0)[2])
    assert alone == pytest.approx(12.0, rel=0.1)
    assert none == 0.0


def test_confidence_follows_how_often_such_answers_were_right() -> None:
    """Shares that promise too much, and a similarity that tells right from wrong besides."""
    random = np.random.default_rng(2)
    shares = np.where(random.random(6000) < 0.5, 0.9, 0.2)
    similarities = np.where(random.random(6000) < 0.5, 0.8, 0.3)
    chance = np.where(shares > 0.5, 0.5, 0.1) * np.where(similarities > 0.5, 1.5, 0.5)
    right = random.random(6000) < chance
    fitted = fit_confidence(list(shares), list(similarities), list(right))
    view = ViewCalibration(8, 1.0, 0.0, fitted[0], fitted[2], likeness=fitted[1])
    for share, similarity, expected in ((0.9, 0.8, 0.75), (0.9, 0.3, 0.25), (0.2, 0.8, 0.15)):
        assert view.confidence(share, similarity) == pytest.approx(expected, abs=0.07)
    assert view.confidence(1.0, 0.8) <= 1


def test_nothing_right_gives_a_small_finite_confidence() -> None:
    slope, likeness, intercept = fit_confidence([0.5, 0.6, 0.7] * 20, [0.4] * 60, [False] * 60)
    view = ViewCalibration(8, 1, 0, slope, intercept, likeness)
    assert 0 < view.confidence(0.6, 0.4) < 0.1


def test_a_weight_counts_like_so_many_photos() -> None:
    random = np.random.default_rng(4)
    shares, likes = list(random.random(40)), list(random.random(40))
    right = list(random.random(40) < 0.5)
    weights = random.integers(1, 4, 40)
    often = [np.repeat(values, weights).tolist() for values in (shares, likes, right)]
    weighted = fit_confidence(shares, likes, right, weights.tolist())
    np.testing.assert_allclose(weighted, fit_confidence(*often), rtol=1e-3, atol=1e-3)


def test_a_stranger_with_a_clear_first_place_is_not_trusted() -> None:
    """Own photos and strangers have equal shares; only the likeness of the first place differs."""
    random = np.random.default_rng(5)
    shares = list(random.uniform(0.6, 1, 1000))
    likes = [*random.normal(0.7, 0.05, 900), *random.normal(0.3, 0.05, 100)]
    right = [True] * 900 + [False] * 100
    slope, likeness, intercept = fit_confidence(shares, likes, right)
    view = ViewCalibration(8, 1, 0, slope, intercept, likeness)
    assert view.confidence(0.9, 0.7) > 0.95
    assert view.confidence(0.9, 0.3) < 0.05


def test_config_round_trip_and_nearest_width() -> None:
    wide = ViewCalibration(32, 30.0, 0.0, 1.2, -0.3, 2.0, 0.7)
    calibration = Calibration((VIEW, wide))
    again = Calibration.from_config(calibration.to_config())
    assert again == calibration
    assert again.at(10) == VIEW
    assert again.at(30) == wide
    assert Calibration.from_config({}).at(8).threshold == 0.5


def test_the_point_of_a_first_place_is_the_teachers_where_it_stepped_closer() -> None:
    places = np.array([[[0.0, 0.0], [100.0, 0.0]]] * 3)
    pools = Pools(
        similarities=np.array([[0.9, 0.1]] * 3),
        teacher=np.array([[0.9, 0.1]] * 3),
        distances=np.array([[5.0, 105.0]] * 3),
        places=places,
        cameras=np.array([[-3.0, 4.0]] * 3),
        viewpoint_similarities=np.array([[[0.9], [0.1]]] * 3),
        closer_in=np.array([0, 1, -1]),
        closer=np.array([[-3.0, 3.0], [101.0, 0.0], [np.nan, np.nan]]),
    )
    first = first_places(pools, VIEW)
    assert first.errors_m == pytest.approx([1.0, 5.0, 5.0])
    assert first.believed_m == pytest.approx([5.0, 5.0, 5.0])
    alone = ViewCalibration(bins=8, student=10.0, teacher=0.0, slope=1.0, intercept=0.0)
    assert first_places(pools, alone).errors_m == pytest.approx([5.0, 5.0, 5.0])
