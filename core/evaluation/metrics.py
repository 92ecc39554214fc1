"""Ranks, recalls, distances: numpy in, numbers out.

A rank is the number of other references that are at least as good as the true one; 0 is best.
**Ties count against the model.** A collapsed model gives one descriptor to every picture. With the
strict comparison of the published code it would score 100 %; here it scores 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arrays import BoolArray, FloatArray, Int64Array

__all__ = [
    "ReliabilityPoint",
    "accuracy_at_coverage",
    "area_under_coverage",
    "auroc",
    "auroc_standard_error",
    "brier_score",
    "calibration_error",
    "calibration_error_by_chance",
    "recall_at",
    "recall_at_one_percent",
    "reliability_points",
    "share_within",
    "standard_error",
]


def recall_at(ranks: Int64Array, k: int) -> float:
    """Share of queries whose true reference has rank < k, in [0, 1]."""
    return float(np.mean(ranks < k))


def recall_at_one_percent(ranks: Int64Array, references: int) -> float:
    """Recall with k = R // 100 + 1 (published code differs: 88 or 89 of 8,884)."""
    return recall_at(ranks, references // 100 + 1)


def share_within(distance_m: FloatArray, radius_m: float) -> float:
    """Share of distances at most ``radius_m``, in [0, 1]."""
    return float(np.mean(distance_m <= radius_m))


def standard_error(share: float, count: int) -> float:
    """Binomial standard error of a share of ``count`` queries."""
    return float(np.sqrt(share * (1 - share) / max(count, 1)))


@dataclass(frozen=True)
class ReliabilityPoint:
    """Answers of one bin of confidence: mean confidence and share right, both in [0, 1], their number,
    and their share of the total weight.
    """

    confidence: float
    right: float
    count: int
    weight: float


def reliability_points(
    confidence: FloatArray, correct: BoolArray, bins: int = 10, weights: FloatArray | None = None
) -> list[ReliabilityPoint]:
    """Share right by confidence, in equal-width bins; empty bins are left out.

    confidence, correct, weights: (Q,); confidence in [0, 1]; equal weights by default.
    """
    stated, right, weight = _weighed(confidence, correct, weights)
    slot = np.minimum((stated * bins).astype(int), bins - 1)
    points = []
    for index in range(bins):
        inside = slot == index
        carried = float(weight[inside].sum())
        if carried > 0:
            said = float((weight * stated)[inside].sum()) / carried
            found = float((weight * right)[inside].sum()) / carried
            points.append(
                ReliabilityPoint(said, found, int(inside.sum()), carried / float(weight.sum()))
            )
    return points


def calibration_error(
    confidence: FloatArray, correct: BoolArray, bins: int = 10, weights: FloatArray | None = None
) -> float:
    """Expected calibration error: mean |accuracy - confidence| over equal-width bins, by weight.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. Arguments as for
    ``reliability_points``.
    """
    points = reliability_points(confidence, correct, bins, weights)
    return sum(abs(point.right - point.confidence) * point.weight for point in points)


def calibration_error_by_chance(
    confidence: FloatArray,
    random: np.random.Generator,
    bins: int = 10,
    weights: FloatArray | None = None,
    draws: int = 200,
) -> float:
    """Mean calibration error (Q,) of these confidences if each were exactly true.

    A bin of n answers misses its confidence by about 1 / sqrt(n) by chance, so the error is never 0.
    Only an error above this level is evidence against the confidences.
    """
    stated = np.asarray(confidence, np.float64)
    drawn = random.random((draws, len(stated))) < stated
    return float(np.mean([calibration_error(stated, right, bins, weights) for right in drawn]))


def brier_score(
    confidence: FloatArray, correct: BoolArray, weights: FloatArray | None = None
) -> float:
    """Mean squared difference of confidence and outcome (0 or 1), in [0, 1]; smaller is better.

    Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950, halved as for two
    outcomes. Arguments as for ``reliability_points``.
    """
    stated, right, weight = _weighed(confidence, correct, weights)
    return float((weight * (stated - right) ** 2).sum() / weight.sum())


def accuracy_at_coverage(
    confidence: FloatArray,
    correct: BoolArray,
    coverage: FloatArray,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Share right (C,) if only the most confident answers are given, at each coverage (C,) in (0, 1].

    Answers of equal confidence count with their mean, since their order is arbitrary. This is the
    selective accuracy of Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks",
    NeurIPS 2017. Other arguments as for ``reliability_points``.
    """
    stated, right, weight = _weighed(confidence, correct, weights)
    steps, place = np.unique(-stated, return_inverse=True)
    carried = np.bincount(place, weight, len(steps)).cumsum()
    found = np.bincount(place, weight * right, len(steps)).cumsum()
    given = np.asarray(coverage, np.float64) * carried[-1]
    return np.asarray(np.interp(given, np.r_[0, carried], np.r_[0, found]) / given)


def area_under_coverage(
    confidence: FloatArray, correct: BoolArray, weights: FloatArray | None = None
) -> float:
    """Mean of ``accuracy_at_coverage`` over all coverages, in [0, 1]: how useful the confidence is.

    Uninformative confidence gives the share right. A perfect order gives more, since the wrong answers
    come last.
    """
    middles = (np.arange(1000) + 0.5) / 1000
    return float(accuracy_at_coverage(confidence, correct, middles, weights).mean())


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """Probability that a positive has a higher score than a negative; a tie counts one half.

    positive: (P,), negative: (N,). From the sum of the positives' ranks (Mann and Whitney, 1947).
    nan if one of them is empty.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    scores = np.concatenate([positive, negative])
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts - 1) / 2  # mean rank for ties, counted from 1
    above = ranks[place][: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def auroc_standard_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC for given numbers of independent positives and negatives.

    Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 1982,
    equation 1. It is 0 at an area of 1, which is too small.
    """
    both, twice = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area)
    spread += (positives - 1) * (both - area**2) + (negatives - 1) * (twice - area**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))


def _weighed(
    confidence: FloatArray, correct: BoolArray, weights: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    stated = np.asarray(confidence, np.float64)
    weight = np.ones(len(stated)) if weights is None else np.asarray(weights, np.float64)
    return stated, np.asarray(correct, np.float64), weight
