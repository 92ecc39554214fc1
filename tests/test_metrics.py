"""Ranks and recalls with answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.evaluation.metrics import (
    calibration_error,
    rank_of_truth,
    recall_at,
    recall_at_one_percent,
    share_within,
    standard_error,
    worst_first_place,
)


def test_ranks_count_what_is_at_least_as_good() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.1], [0.3, 0.6, 0.6]])
    assert rank_of_truth(similarity, np.array([0, 1, 0])).tolist() == [0, 1, 2]


def test_a_collapsed_model_scores_nothing() -> None:
    ranks = rank_of_truth(np.ones((5, 200)), np.arange(5))
    assert recall_at(ranks, 1) == 0
    assert recall_at(ranks, 199) == 0


def test_not_a_number_never_wins() -> None:
    similarity = np.array([[np.nan, 0.5, 0.1]])
    assert rank_of_truth(similarity, np.array([1])).tolist() == [1]
    assert rank_of_truth(similarity, np.array([0])).tolist() == [2]


@pytest.mark.parametrize(("references", "k"), [(8884, 89), (99, 1), (100, 2)])
def test_one_percent_is_never_zero_references(references: int, k: int) -> None:
    ranks = np.array([k - 1, k])
    assert recall_at_one_percent(ranks, references) == 0.5


def test_of_tied_first_places_the_farthest_counts() -> None:
    similarity = np.array([[0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    distance = np.array([[3.0, 400.0, 900.0], [3.0, 400.0, 900.0]])
    assert worst_first_place(similarity, distance).tolist() == [1, 2]


def test_shares_and_errors() -> None:
    assert share_within(np.array([25.0, 25.1, 3.0, 80.0]), 25) == 0.5
    assert standard_error(0.5, 100) == pytest.approx(0.05)


def test_calibration_error_by_hand() -> None:
    """Two bins: confidence 0.9 with accuracy 0.5, confidence 0.1 with accuracy 0."""
    confidence = np.array([0.9, 0.9, 0.1, 0.1])
    correct = np.array([True, False, False, False])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
