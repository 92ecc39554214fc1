"""Calibration recovers what made the data, and never turns an order round by mistake."""

from __future__ import annotations

import numpy as np
import pytest

from core.evaluation.calibration import (
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


def test_confidence_follows_how_often_such_shares_were_right() -> None:
    """Overconfident shares: those of 0.9 are right half the time."""
    random = np.random.default_rng(2)
    shares = np.where(random.random(4000) < 0.5, 0.9, 0.2)
    right = random.random(4000) < np.where(shares > 0.5, 0.5, 0.05)
    slope, intercept = fit_confidence(list(shares), list(right))
    view = ViewCalibration(8, 1.0, 0.0, slope, intercept)
    assert view.confidence(0.9) == pytest.approx(0.5, abs=0.04)
    assert view.confidence(0.2) == pytest.approx(0.05, abs=0.02)
    assert view.confidence(1.0) <= 1


def test_nothing_right_gives_a_small_finite_confidence() -> None:
    slope, intercept = fit_confidence([0.5, 0.6, 0.7] * 20, [False] * 60)
    assert 0 < ViewCalibration(8, 1, 0, slope, intercept).confidence(0.6) < 0.1


def test_config_round_trip_and_nearest_width() -> None:
    wide = ViewCalibration(32, 30.0, 0.0, 1.2, -0.3)
    calibration = Calibration((VIEW, wide), 0.6)
    again = Calibration.from_config(calibration.to_config())
    assert again == calibration
    assert again.at(10) == VIEW
    assert again.at(30) == wide
    assert again.at(None) == wide
    assert Calibration.from_config({}).confident_threshold == 0.5
