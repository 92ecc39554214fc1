"""Ranks, recalls, distances: numpy in, numbers out.

A rank is the number of references at least as good as the true one, itself excluded; 0 is best.
**Ties count against the model**: with the strict comparison of the published code a collapsed model,
which gives one descriptor to every picture, would score 100 %; here it scores 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "calibration_error",
    "rank_of_truth",
    "recall_at",
    "recall_at_one_percent",
    "share_within",
    "standard_error",
    "worst_first_place",
]

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


def rank_of_truth(similarity: FloatArray, truth: IntArray) -> IntArray:
    """Rank (Q,) of the true reference in each row of similarities (Q, R); ties count against.

    ``truth``: (Q,) column of the true reference.
    """
    rows = np.arange(len(similarity))
    own = similarity[rows, truth][:, None]
    return np.asarray((~(similarity < own)).sum(axis=1) - 1, dtype=np.int64)


def recall_at(ranks: IntArray, k: int) -> float:
    """Share of queries whose truth has rank < k, in [0, 1]."""
    return float(np.mean(ranks < k))


def recall_at_one_percent(ranks: IntArray, references: int) -> float:
    """Recall with k = R // 100 + 1 (published code differs: 88 or 89 of 8,884)."""
    return recall_at(ranks, references // 100 + 1)


def worst_first_place(similarity: FloatArray, distance: FloatArray) -> IntArray:
    """Column (Q,) of the first place; of several equally good ones the farthest from the truth.

    similarity, distance: (Q, R); distance in metres from the query's camera.
    """
    best = similarity.max(axis=1, keepdims=True)
    tied = np.where(similarity >= best, distance, -np.inf)
    return np.asarray(tied.argmax(axis=1), dtype=np.int64)


def share_within(distance_m: FloatArray, radius_m: float) -> float:
    """Share of distances at most ``radius_m``, in [0, 1]."""
    return float(np.mean(distance_m <= radius_m))


def standard_error(share: float, count: int) -> float:
    """Binomial standard error of a share of ``count`` queries."""
    return float(np.sqrt(share * (1 - share) / max(count, 1)))


def calibration_error(
    confidence: FloatArray, correct: npt.NDArray[np.bool_], bins: int = 10
) -> float:
    """Expected calibration error: mean |accuracy - confidence| over equal-width bins, by size.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    slot = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    total = 0.0
    for index in range(bins):
        inside = slot == index
        if inside.any():
            gap = abs(float(correct[inside].mean()) - float(np.asarray(confidence)[inside].mean()))
            total += gap * float(inside.mean())
    return total
