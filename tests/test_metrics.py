"""Ranks and recalls with answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.evaluation.metrics import (
    calibration_error,
    recall_at_one_percent,
    share_within,
    standard_error,
)


@pytest.mark.parametrize(("references", "k"), [(8884, 89), (99, 1), (100, 2)])
def test_one_percent_is_never_zero_references(references: int, k: int) -> None:
    ranks = np.array([k - 1, k])
    assert recall_at_one_percent(ranks, references) == 0.5


def test_shares_and_errors() -> None:
    assert share_within(np.array([25.0, 25.1, 3.0, 80.0]), 25) == 0.5
    assert standard_error(0.5, 100) == pytest.approx(0.05)


def test_calibration_error_by_hand() -> None:
    """Two bins: confidence 0.9 with accuracy 0.5, confidence 0.1 with accuracy 0."""
    confidence = np.array([0.9, 0.9, 0.1, 0.1])
    correct = np.array([True, False, False, False])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
