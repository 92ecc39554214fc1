"""How sure an answer is: scores of tiles to probabilities, fitted on validation towns only.

For a view of n azimuth bins every tile of a pool has the logit ``student * similarity + teacher *
teacher score``; a softmax over the pool shares out the probability, neighbouring tiles add up to
places, and a logistic map (Platt, 1999) of the first place's share says how often such an answer
was within 25 m on validation towns. The two factors are fitted by maximum likelihood of the tiles
within 25 m, so they are temperature and re-ranking weight at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.arrays import BoolArray, Float64Array, FloatArray

__all__ = [
    "POOL",
    "RERANKED",
    "Calibration",
    "ViewCalibration",
    "fit_confidence",
    "fit_factors",
    "probabilities",
]

POOL = 128
"""Tiles that share the probability of an answer, when it is fitted and when it is given."""
RERANKED = 20
"""How many of the student's first tiles the teacher looks at, likewise."""


@dataclass(frozen=True)
class ViewCalibration:
    """Fitted numbers for views of ``bins`` azimuth bins. ``teacher`` is 0 where none re-ranks.

    ``threshold``: smallest confidence at which an answer counts as a match. ``radius_m``: around the
    point where the student believes the camera, nine of ten cameras stood within it where the place was
    right; ``closer_m``: likewise around the point that the teacher stepped to, None without one.
    ``located``: share of the validation towns' own photos whose first place was right.
    """

    bins: int
    student: float
    teacher: float
    slope: float
    intercept: float
    likeness: float = 0.0
    threshold: float = 0.5
    radius_m: float | None = None
    located: float | None = None
    closer_m: float | None = None

    def logits(self, similarities: FloatArray, teacher_scores: FloatArray) -> FloatArray:
        """Logits (K,) of tiles in the student's order, of which the teacher saw the first T.

        Tiles it has not seen count as if they had the lowest score seen, so that none of them can
        come before one of the first T by the teacher's word alone.
        """
        student = self.student * np.asarray(similarities, np.float64)
        seen = np.asarray(teacher_scores, np.float64)
        if not len(seen) or not self.teacher:
            return student
        filled = np.concatenate([seen, np.full(len(student) - len(seen), seen.min())])
        return np.asarray(student + self.teacher * filled)

    def alike(self, logits: FloatArray) -> FloatArray:
        """How like the photo tiles are, at most 1, from their logits (K,): the student's similarities
        and the teacher's scores in the mean, weighed as it weighs them.
        """
        return np.asarray(logits / (self.student + self.teacher))

    def confidence(self, share: float, alike: float) -> float:
        """Probability in [0, 1] that the first place is within 25 m, if one photo in ten is not
        from the gallery's area at all (``fit.STRANGERS``).

        Args:
            share: of the first place in the softmax over the pool.
            alike: how like the photo the first place is (``alike``); a photo from elsewhere may have
                a clear first place, but none that is much like it.
        """
        share = min(max(share, 1e-9), 1 - 1e-9)
        log_odds = np.log(share / (1 - share))
        z = self.slope * log_odds + self.likeness * alike + self.intercept
        return float(1 / (1 + np.exp(-z)))


UNFITTED = ViewCalibration(bins=32, student=20.0, teacher=0.0, slope=1.0, intercept=0.0)


@dataclass(frozen=True)
class Calibration:
    """What validation towns say of a model's scores; stands in a model's config.json.

    ``views``: one entry for each width that was fitted, by bins; others take the nearest.
    ``viewpoints``: from how many each place was described, if anything was fitted.
    """

    views: tuple[ViewCalibration, ...] = (UNFITTED,)
    viewpoints: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Calibration:
        """From the ``calibration`` part of a model's configuration; empty gives the unfitted one."""
        if not config:
            return cls()
        views = tuple(ViewCalibration(**view) for view in config["views"])
        return cls(views, config.get("viewpoints"))

    def to_config(self) -> dict[str, Any]:
        """The JSON that ``from_config`` reads."""
        return asdict(self)

    def at(self, bins: int) -> ViewCalibration:
        """The fitted view nearest in width to one of so many azimuth bins."""
        return min(self.views, key=lambda view: abs(view.bins - bins))


def probabilities(logits: FloatArray) -> FloatArray:
    """Softmax (K,) of logits (K,)."""
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return np.asarray(weights / weights.sum())


def fit_factors(
    similarities: FloatArray,
    teacher_scores: FloatArray | None,
    correct: BoolArray,
) -> tuple[float, float]:
    """Factors of student and teacher, by which tiles are ordered and share the probability.

    How much the teacher counts beside the student is what leaves the tiles within 25 m least often
    without a share: the mean square of what they lack. By likelihood a few photos of which a teacher is
    wrong and sure would decide it, and their number, not their degree, is what matters to the order.
    How sharp both are together is then what makes these tiles most likely. Weak pulls, to counting
    alike and to a sharpness of 20, keep both finite where every photo is right.

    Args:
        similarities: (Q, K) of each query's pool, best first; -inf where the pool is smaller.
        teacher_scores: (Q, T) for the first T of each, or None.
        correct: bool (Q, K), tiles within 25 m of the camera. Queries without any are left out.
    """
    from scipy.optimize import minimize  # fitting is rare; answering must start fast

    kept = correct.any(axis=1)
    pool, truth = similarities[kept].astype(np.float64), correct[kept]

    def truths(logits: FloatArray) -> FloatArray:
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(np.where(truth, weights, 0).sum(axis=1) / weights.sum(axis=1))

    share = 0.0
    if teacher_scores is not None:
        seen = teacher_scores[kept]
        rest = np.repeat(seen.min(axis=1, keepdims=True), pool.shape[1] - seen.shape[1], axis=1)
        filled = np.concatenate([seen, rest], axis=1)

        def lacking(wanted: Float64Array) -> float:
            logits = np.exp(wanted[0]) * (pool + np.exp(wanted[1]) * filled)
            pull = (wanted[0] - np.log(20)) ** 2 + wanted[1] ** 2
            return float(np.square(1 - truths(logits)).mean() + 1e-3 * pull)

        start = np.log([20.0, 1.0])
        found = minimize(lacking, start, method="Nelder-Mead", options={"xatol": 1e-3})
        share = float(np.exp(found.x[1]))
        pool = pool + share * filled

    def loss(sharpness: Float64Array) -> float:
        unlikely = -np.log(np.maximum(truths(np.exp(sharpness[0]) * pool), 1e-12)).mean()
        return float(unlikely + 1e-3 * (sharpness[0] - np.log(20)) ** 2)

    found = minimize(loss, np.log([20.0]), method="Nelder-Mead", options={"xatol": 1e-3})
    sharpness = float(np.exp(found.x[0]))
    return sharpness, sharpness * share


def fit_confidence(
    shares: Sequence[float],
    alike: Sequence[float],
    right: Sequence[bool],
    weights: Sequence[float] | None = None,
) -> tuple[float, float, float]:
    """Slope, likeness and intercept of the logistic map from a first place to being right.

    Platt's targets keep them finite where all answers are right, or none; a weak pull towards a
    slope of one and no likeness keeps few data from saying much.

    Args:
        shares: of the first places in the softmax over their pools.
        alike: how like the photos these places are.
        right: whether the place was within 25 m.
        weights: how many photos each of them stands for; one by default.
    """
    from scipy.optimize import minimize

    share = np.clip(np.asarray(shares, np.float64), 1e-9, 1 - 1e-9)
    like = np.asarray(alike, np.float64)
    hit = np.asarray(right, bool)
    log_odds = np.log(share / (1 - share))
    weight = np.ones(len(hit)) if weights is None else np.asarray(weights, np.float64)
    hits, misses = weight[hit].sum(), weight[~hit].sum()
    target = np.where(hit, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def loss(parameters: Float64Array) -> float:
        z = np.exp(parameters[0]) * log_odds + parameters[1] * like + parameters[2]
        pull = parameters[0] ** 2 + (parameters[1] / 20) ** 2
        return float((weight * (np.logaddexp(0, z) - target * z)).sum() + 0.1 * pull)

    found = minimize(loss, np.zeros(3), method="BFGS")
    return float(np.exp(found.x[0])), float(found.x[1]), float(found.x[2])
