"""Can the confidence be trusted? Measured on test towns, which it was never fitted on.

Confidence is the calibrated probability that the first place lies within 25 m; from a threshold on
the program says "confident match". A town's own photos are asked of its places, where an answer is
right or wrong, and photos of other towns, the strangers, where no answer is right. The calibration
assumes a mixture of the two (``STRANGERS``), so it is judged by that mixture and, as what most
visitors would see, by the own photos alone. Nothing here moves a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from core.arrays import BoolArray, Float64Array
from core.data.worlds import Town
from core.evaluation.fit import STRANGERS
from core.evaluation.metrics import (
    accuracy_at_coverage,
    area_under_coverage,
    auroc,
    auroc_standard_error,
    brier_score,
    calibration_error,
    calibration_error_by_chance,
    reliability_points,
)
from core.evaluation.pools import DescribedTown, first_places
from core.localization.calibration import Calibration
from core.polar import BINS

__all__ = ["ASKED_BINS", "COVERAGES", "Answers", "ask_town", "measure_trust", "trust_row"]

ASKED_BINS = (32, 16, 10, 8, 6)
"""Widths asked: 360, 180, 112.5, 90 and 67.5 degrees; the last three as photo frames."""
COVERAGES = tuple(share / 10 for share in range(1, 11))

Figures = dict[str, object]


@dataclass(frozen=True)
class Answers:
    """What the program said to many photos, and what was true.

    confidence: (Q,) in [0, 1]. right: bool (Q,), first place within 25 m. confident: bool (Q,), said
    to be a match. own: bool (Q,), photo of the town that was searched, not a stranger.
    """

    confidence: Float64Array
    right: BoolArray
    confident: BoolArray
    own: BoolArray

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """One after another."""
        names = ("confidence", "right", "confident", "own")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def weights(self) -> Float64Array:
        """Weights (Q,) that make strangers ``STRANGERS`` of all; own photos weigh 1 each."""
        own, strangers = int(self.own.sum()), int((~self.own).sum())
        each = STRANGERS / (1 - STRANGERS) * own / max(strangers, 1)
        return np.where(self.own, 1.0, each)


def ask_town(
    home: DescribedTown, asked: Town, calibration: Calibration, bins: int, count: int, seed: int
) -> Answers:
    """Ask photos of one width, of the same town or of another, as the Localizer is asked."""
    view = calibration.at(bins)
    found = first_places(home.pools(asked, bins, count, seed), view)
    said = [view.confidence(*of) for of in zip(found.shares, found.alike, strict=True)]
    confidence = np.array(said, np.float64)
    own = np.full(len(confidence), asked is home.town)
    return Answers(confidence, np.array(found.right, bool), confidence >= view.threshold, own)


def trust_row(answers: Answers, fov_deg: float | None, seed: int = 0) -> Figures:
    """All figures of one width, or (``fov_deg`` None) of all widths together.

    Shares are in 0..1. ``own``: the town's own photos. ``mixture``: these and the strangers, weighed
    to ``STRANGERS`` of all. AUROC counts every photo once; None where there is nothing to tell apart.

    Args:
        answers: with own photos and strangers.
        fov_deg: what stands in the row.
        seed: of the draws that say how large a calibration error luck alone makes.
    """
    own, right = answers.own, answers.right
    said = answers.confidence
    strangers = answers.confident[~own]
    return {
        "fov_deg": fov_deg,
        "own": _quality(said[own], right[own], answers.confident[own], None, seed),
        "mixture": _quality(said, right, answers.confident, answers.weights(), seed),
        "strangers": {
            "photos": len(strangers),
            "mean_confidence": float(said[~own].mean()),
            "false_match_rate": float(strangers.mean()),
        },
        "auroc": {
            "own_or_elsewhere": _told_apart(said[own], said[~own]),
            "right_or_not": _told_apart(said[right], said[~right]),
            "right_or_wrong": _told_apart(said[right], said[own & ~right]),
        },
    }


def _quality(
    confidence: Float64Array,
    right: BoolArray,
    confident: BoolArray,
    weights: Float64Array | None,
    seed: int,
) -> Figures:
    weight = np.ones(len(confidence)) if weights is None else weights
    random = np.random.default_rng(seed)
    covered = accuracy_at_coverage(confidence, right, np.array(COVERAGES), weight)
    given = float(weight[confident].sum())
    return {
        "photos": len(confidence),
        "right": float(np.average(right, weights=weight)),
        "mean_confidence": float(np.average(confidence, weights=weight)),
        "calibration_error": calibration_error(confidence, right, weights=weight),
        "calibration_error_by_chance": calibration_error_by_chance(
            confidence, random, weights=weight
        ),
        "brier_score": brier_score(confidence, right, weight),
        "reliability": [
            asdict(point) for point in reliability_points(confidence, right, weights=weight)
        ],
        "coverage": [
            {"coverage": share, "right": float(found)}
            for share, found in zip(COVERAGES, covered, strict=True)
        ],
        "area_under_coverage": area_under_coverage(confidence, right, weight),
        "confident": {
            "coverage": given / float(weight.sum()),
            "right": float(weight[confident & right].sum()) / given if given else None,
        },
    }


def _told_apart(positive: Float64Array, negative: Float64Array) -> Figures | None:
    if not len(positive) or not len(negative):
        return None
    area = auroc(positive, negative)
    error = auroc_standard_error(area, len(positive), len(negative))
    return {"area": area, "standard_error": error, "of": [len(positive), len(negative)]}


def measure_trust(
    home: DescribedTown,
    elsewhere: Sequence[Town],
    calibration: Calibration,
    count: int = 300,
    seed: int = 0,
    bins: Sequence[int] = ASKED_BINS,
) -> list[Figures]:
    """A row for each width, and the last for all of them.

    Args:
        home: a test town, described by the student, and by the teacher if one re-ranks.
        elsewhere: other test towns; a third as many photos of each are strangers.
        calibration: of the model that looks last, fitted on validation towns.
        count: own photos of each width, at most one of each panorama.
        seed: of the views.
        bins: widths to ask.
    """
    rows, everything = [], []
    for width in tqdm(bins, desc=f"trust {home.town.name}", leave=False):
        parts = [ask_town(home, home.town, calibration, width, count, seed)]
        strangers = max(1, count // 3)
        parts += [ask_town(home, town, calibration, width, strangers, seed) for town in elsewhere]
        answers = Answers.joined(parts)
        rows.append(trust_row(answers, width * 360.0 / BINS, seed))
        everything.append(answers)
    return [*rows, trust_row(Answers.joined(everything), None, seed)]
